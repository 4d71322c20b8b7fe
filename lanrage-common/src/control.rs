//! The control server's rules for one party.
