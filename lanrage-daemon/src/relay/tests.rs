//! The relay role with real sockets, real WireGuard sessions and the real control server.

mod forwarding;
mod plane;
mod registration;
