//! Data that is sent steadily, as a game does, and what became of it.

use super::{Event, World};
use crate::path::probe;
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

impl World {
    /// Sends data from one host to another until [`World::stop_flows`].
    pub fn start_flow(&mut self, from: usize, to: usize, every: Duration) -> usize {
        self.flows.push(Flow::new(from, to, every, self.at));
        let flow = self.flows.len() - 1;
        self.schedule(Duration::ZERO, Event::Send { flow });
        flow
    }

    /// Both directions.
    pub fn play(&mut self, a: usize, b: usize, every: Duration) {
        self.start_flow(a, b, every);
        self.start_flow(b, a, every);
    }

    /// Nothing is sent any more; what is on its way arrives.
    pub fn stop_flows(&mut self) {
        self.flows.iter_mut().for_each(|flow| flow.is_over = true);
        self.run_until(self.at + Duration::from_secs(2));
    }

    /// Packets that did not arrive, of all flows.
    pub fn lost(&self) -> u64 {
        self.flows.iter().map(Flow::lost).sum()
    }

    /// The longest silence in any flow.
    pub fn gap(&self) -> Duration {
        self.flows.iter().map(|flow| flow.gap(self.at)).max().unwrap_or_default()
    }

    /// Measures silences anew.
    pub fn restart_gaps(&mut self) {
        let at = self.at;
        self.flows.iter_mut().for_each(|flow| flow.restart(at));
    }

    /// A packet of a flow leaves, if there is a path.
    pub(super) fn send(&mut self, flow: usize) {
        let Flow { from, to, every, is_over, .. } = self.flows[flow];
        if is_over {
            return;
        }
        self.schedule(every, Event::Send { flow });
        if self.off.contains(&from) {
            return;
        }
        let (member, now) = (self.hosts[to].key, self.now());
        self.hosts[from].agent.handle_tunnel_tx(&member, now);
        self.drain(from);
        let number = self.flows[flow].sent;
        self.flows[flow].sent += 1;
        let Some(path) = self.hosts[from].path.get(&member).cloned() else { return };
        let payload = Packet { from, flow: Some((flow, number)) }.to_bytes(probe::tag(&member));
        self.transmit(from, path.endpoint, payload.clone());
        if let Some(copy) = path.copy {
            self.flows[flow].copied += 1;
            self.transmit(from, copy, payload);
        }
    }
}
