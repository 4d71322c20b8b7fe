//! The control server role, and the client by which peers and relays talk to one.

pub mod client;
pub mod link;
pub mod origin;
