//! The relay server: who is bound where, which WireGuard index leads to whom, and what may be forwarded.
//!
//! | datagram | rule |
//! |---|---|
//! | STUN Bind ([`crate::binding`]) | nonce proves the address, ticket the member; the newest epoch of a party wins |
//! | STUN Binding | answered when the answer is not longer than the request, or within a small budget; RFC 5780 |
//! | WireGuard type 1 | mac1 names one bound member of the sender's party; its sender index is claimed, tentatively |
//! | type 2 | routed by receiver index, mac1 checked; both directions become flows *before* it is forwarded |
//! | type 3 | routed by receiver index |
//! | type 4 | routed by receiver index of a confirmed flow: by the data path, else by the server itself |
//! | path probe | the receiver's tag names one bound member of the sender's party |
//! | anything else | dropped and counted by [`Reason`]; never answered |
//!
//! The index table is keyed by the *sending member* and the member by its address, so that a NAT rebinding moves
//! flows without a handshake. The first owner of an index keeps it. Clients never name an address to send to.
//!
//! A relay may be restarted without anybody noticing: [`Output::Persist`] gives a record of each binding to keep, and
//! [`RelayServer::adopt`] rebuilds bindings and flows from the records and from the data path's own table.

mod bind;
mod census;
mod forward;
mod member;
mod persist;
mod reason;
mod route;
mod server;
mod stun;
#[cfg(test)]
mod tests;
mod wireguard;

pub use census::{BoundMember, Traffic};
pub use persist::{Adoption, RECORD_LEN};
pub use reason::Reason;
pub use server::{Limits, Output, RelayServer, Setup, Unbound};
pub use stun::Alternates;

use std::net::SocketAddr;
use std::time::Instant;

/// Both ends of a member's way to the relay. Answers and forwarded packets leave from `local`, or NATs drop them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leg {
    /// The relay's own address that the member talks to.
    pub local: SocketAddr,
    /// The member's proven address, or the sender of a request.
    pub remote: SocketAddr,
}

impl Leg {
    /// One spelling for each address: IPv4-mapped IPv6 becomes IPv4, and IPv6 keeps neither scope nor flow label.
    pub fn canonical(self) -> Self {
        Self { local: canonical(self.local), remote: canonical(self.remote) }
    }
}

/// One spelling for each address: IPv4-mapped IPv6 becomes IPv4, and IPv6 keeps neither scope nor flow label.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One direction of a relayed pair as the data path knows it: what arrives from `source` with this WireGuard receiver
/// index goes to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// The sending member's bound address.
    pub source: SocketAddr,
    /// WireGuard receiver index, read little-endian from the packet (bytes 4..8 of a type 4 message).
    pub index: u32,
}

/// Where a flow's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// How the receiving member is reached.
    pub leg: Leg,
    /// Slot of the sending member: index of its counters and token buckets.
    pub member: u32,
    /// When the flow ends if the relay server does not speak again: a hard limit for whoever forwards on its own.
    pub expires: Instant,
}

/// What a member may send through the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemberLimits {
    /// Data packets a second; 0 = unlimited.
    pub packets_per_s: u32,
    /// Data in kbit a second; 0 = unlimited.
    pub kbit_per_s: u32,
}
