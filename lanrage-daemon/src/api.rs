//! The local API: Unix socket, loopback HTTP, web UI.
