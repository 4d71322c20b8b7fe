//! The relay server: who is bound where, which WireGuard index leads to whom, and what may be forwarded.
//!
//! | datagram | rule |
//! |---|---|
//! | STUN Bind ([`crate::binding`]) | nonce proves the address, ticket the member; the newest epoch of a party wins |
//! | STUN Binding | answered when the answer is not longer than the request |
//! | WireGuard type 1 | mac1 names one bound member of the sender's party; its sender index is claimed, tentatively |
//! | type 2 | routed by receiver index, mac1 checked; both directions become flows *before* it is forwarded |
//! | type 3 | routed by receiver index |
//! | type 4 | routed by receiver index of a confirmed flow: by the kernel where it can, else by [`RelayServer::forward_data`] |
//! | path probe | the receiver's tag names one bound member of the sender's party |
//! | anything else | dropped and counted by [`Reason`]; never answered |
//!
//! The index table is keyed by the *sending member* and the member by its address, so that a NAT rebinding moves
//! flows without a handshake. The first owner of an index keeps it. Clients never name an address to send to.

mod bind;
mod bucket;
mod forward;
mod member;
mod reason;
mod route;
mod server;
#[cfg(test)]
mod tests;
mod wireguard;

pub use reason::Reason;
pub use server::{Limits, Output, RelayServer, Unbound};

use std::net::SocketAddrV4;

/// One direction of a relayed pair as the data path knows it: what arrives from `source` with this WireGuard receiver
/// index goes to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// The sending member's bound address.
    pub source: SocketAddrV4,
    /// WireGuard receiver index, read little-endian from the packet (bytes 4..8 of a type 4 message).
    pub index: u32,
}

/// Where a flow's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The receiving member's bound address.
    pub destination: SocketAddrV4,
    /// Slot of the sending member: index of its counters and, later, its token bucket.
    pub member: u32,
}
