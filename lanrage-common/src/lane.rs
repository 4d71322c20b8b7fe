//! How broadcast and multicast cross the tunnel.
