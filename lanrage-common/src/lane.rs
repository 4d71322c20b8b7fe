//! How broadcast and multicast cross the tunnel: copied per member, carried unchanged in UDP to overlay addresses.
//!
//! Outer packet: IPv4 from the own overlay address to the member's, UDP to [`PORT`]; payload: the group packet as the
//! game sent it, but for its source address (FOU: the payload starts with the inner IP header).

use crate::api::LaneStatus;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::time::Instant;

/// UDP destination port of wrapped packets.
pub const PORT: u16 = 10666;
/// Bytes that wrapping adds: IPv4 and UDP header.
pub const OVERHEAD: usize = 28;

/// Why the lane did not carry a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneReason {
    /// Not even an IP header.
    Malformed,
}

/// What becomes of a packet that this device sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// Not for a group: goes to the tunnel as it is.
    Pass,
    /// Wrapped: take the copies with [`Lane::poll_copy`].
    Copies,
    /// For a group, but not carried.
    Drop(LaneReason),
}

/// What becomes of a packet that came out of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// Not of the lane: goes to the interface as it is.
    Pass,
    /// Unwrapped: this goes to the interface instead.
    Deliver(&'a [u8]),
    /// Refused.
    Drop(LaneReason),
}

/// The lane of one device in one party.
#[derive(Debug)]
pub struct Lane {
    address: Ipv4Addr,
    subnet: Ipv4Net,
    members: Vec<Ipv4Addr>,
}

impl Lane {
    /// A lane without members; `address` is the own one in `subnet`.
    pub fn new(address: Ipv4Addr, subnet: Ipv4Net) -> Self {
        Self { address, subnet, members: Vec::new() }
    }

    /// Replaces the members that get copies. Own, foreign and group addresses are left out: they would loop.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = Ipv4Addr>) {
        self.members =
            members.into_iter().filter(|m| *m != self.address && self.subnet.contains(m)).collect();
    }

    /// Replaces the directed broadcast addresses of the physical networks; they become the party's.
    pub fn set_local_broadcasts(&mut self, _addresses: impl IntoIterator<Item = Ipv4Addr>) {}

    /// A packet from the interface (TUN). On [`Outbound::Copies`] drain [`Lane::poll_copy`].
    pub fn handle_outbound(&mut self, _packet: &[u8], _now: Instant) -> Outbound {
        Outbound::Pass
    }

    /// The next copy: the member's overlay address and the whole IP packet for it. No allocation.
    pub fn poll_copy(&mut self) -> Option<(Ipv4Addr, &[u8])> {
        None
    }

    /// A decrypted packet of the member with overlay address `sender`.
    pub fn handle_inbound<'a>(&mut self, _packet: &'a [u8], _sender: Ipv4Addr, _now: Instant) -> Inbound<'a> {
        Inbound::Pass
    }

    /// Counters.
    pub fn status(&self) -> LaneStatus {
        LaneStatus::default()
    }
}
