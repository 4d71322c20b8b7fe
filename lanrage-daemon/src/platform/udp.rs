//! UDP sockets for whoever forwards many datagrams: they arrive and leave in batches, each with its own address at this
//! end, and datagrams of one size to one destination leave as one.

#[cfg(target_os = "linux")]
#[path = "udp/linux.rs"]
mod imp;
#[cfg(not(target_os = "linux"))]
#[path = "udp/other.rs"]
mod imp;

#[cfg(test)]
mod tests;

pub use imp::{Inbox, Outbox, Socket};

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Most datagrams that leave as one: what every kernel with segmentation offload takes.
const MAX_SEGMENTS: usize = 64;
/// Most bytes that leave as one: the largest UDP payload over IPv4.
const MAX_SEGMENTED: usize = 65_507;

/// One or more datagrams of the same way, one behind the other in an [`Inbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Who sent it. No IPv4-mapped address, no scope, no flow label.
    pub from: SocketAddr,
    /// To which of this machine's addresses; `None` where the system does not tell.
    pub to: Option<IpAddr>,
    /// DSCP and ECN.
    pub tos: u8,
    start: usize,
    length: usize,
    segment: usize,
}

impl Message {
    /// Where in [`Inbox::bytes`] each datagram lies, in the order of arrival.
    pub fn datagrams(self) -> impl Iterator<Item = Range<usize>> {
        let end = self.start + self.length;
        let count = self.length.div_ceil(self.segment).max(1);
        (0..count).map(move |n| {
            let start = self.start + n * self.segment;
            start..end.min(start + self.segment)
        })
    }
}

/// How a datagram leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// From which of this machine's addresses; `None` = as the routes say.
    pub from: Option<IpAddr>,
    /// To whom.
    pub to: SocketAddr,
    /// DSCP and ECN.
    pub tos: u8,
}

/// What became of the datagrams of an [`Outbox`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams that left.
    pub datagrams: u64,
    /// Those of them that left together with others.
    pub segmented: u64,
    /// Datagrams that the system had no room for.
    pub full: u64,
    /// Datagrams that could not be sent for another reason.
    pub failed: u64,
}
