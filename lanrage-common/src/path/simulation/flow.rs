//! Data that is sent steadily, as a game does, and what became of it.

use std::collections::BTreeSet;
use std::time::Duration;

/// First bytes of data, as WireGuard's.
pub const DATA: [u8; 4] = [4, 0, 0, 0];
const KEEPALIVE: u16 = u16::MAX;

/// One direction of a game.
#[derive(Debug)]
pub struct Flow {
    /// Who sends.
    pub from: usize,
    /// Who gets it.
    pub to: usize,
    /// Time between packets.
    pub every: Duration,
    /// Packets sent.
    pub sent: u64,
    /// No more are sent.
    pub is_over: bool,
    /// Packets that left twice.
    pub copied: u64,
    got: BTreeSet<u64>,
    last: Duration,
    longest: Duration,
}

impl Flow {
    /// Begins at this time.
    pub fn new(from: usize, to: usize, every: Duration, at: Duration) -> Self {
        Self {
            from,
            to,
            every,
            sent: 0,
            is_over: false,
            copied: 0,
            got: BTreeSet::new(),
            last: at,
            longest: Duration::ZERO,
        }
    }

    /// A packet arrived; a second copy counts for nothing, as in WireGuard.
    pub fn arrived(&mut self, number: u64, at: Duration) {
        if self.got.insert(number) {
            self.longest = self.longest.max(at.saturating_sub(self.last));
            self.last = at;
        }
    }

    /// Packets that have not arrived.
    pub fn lost(&self) -> u64 {
        self.sent - self.got.len() as u64
    }

    /// The longest time without any packet so far.
    pub fn gap(&self, at: Duration) -> Duration {
        self.longest.max(at.saturating_sub(self.last))
    }

    /// Measures gaps anew.
    pub fn restart(&mut self, at: Duration) {
        (self.last, self.longest) = (at, Duration::ZERO);
    }
}

/// What a data datagram carries; no flow means a keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it.
    pub from: usize,
    /// Of which flow, and its number there.
    pub flow: Option<(usize, u64)>,
}

impl Packet {
    /// The datagram, for the member with this tag.
    pub fn to_bytes(self, tag: [u8; 8]) -> Vec<u8> {
        let (flow, number) = self.flow.map_or((KEEPALIVE, 0), |(flow, number)| (flow as u16, number));
        [&DATA[..], &tag, &[self.from as u8], &flow.to_be_bytes(), &number.to_be_bytes()].concat()
    }

    /// The inverse, and the receiver's tag.
    pub fn from_bytes(bytes: &[u8]) -> Option<([u8; 8], Self)> {
        let rest = bytes.strip_prefix(&DATA)?;
        let (tag, rest) = rest.split_first_chunk::<8>()?;
        let ([from, flow @ ..], number) = rest.split_first_chunk::<3>()?;
        let flow = u16::from_be_bytes(*flow);
        let number = u64::from_be_bytes(number.try_into().ok()?);
        let flow = (flow != KEEPALIVE).then_some((usize::from(flow), number));
        Some((*tag, Self { from: usize::from(*from), flow }))
    }
}
