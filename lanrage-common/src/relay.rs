//! The relay server.

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
