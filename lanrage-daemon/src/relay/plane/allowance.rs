//! What a member may send and has sent, by all workers together.

use lanrage_common::relay::MemberLimits;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Fractions of a nanosecond that a rate is reckoned in, as a shift: fast rates would be rounded too much without.
const SHIFT: u32 = 10;

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    /// Time in which one token comes back, in 1/1024 nanoseconds; 0 = unlimited.
    cost: u64,
    /// Time in which an empty bucket becomes full, in nanoseconds.
    depth: u64,
}

impl Rate {
    fn new(per_second: u64, burst: u64) -> Self {
        let cost = (1_000_000_000 << SHIFT) / per_second.max(1);
        Self { cost: cost.max(1), depth: cost.max(1).saturating_mul(burst) >> SHIFT }
    }

    /// A quarter second's tokens at once, at least `burst`; 0 a second = unlimited.
    fn of_allowance(per_second: u64, burst: u64) -> Self {
        if per_second == 0 {
            return Self { cost: 0, depth: 0 };
        }
        Self::new(per_second, burst.max(per_second / 4))
    }
}

/// A token bucket as one point in time (generic cell rate algorithm).
#[derive(Debug)]
struct Bucket {
    cost: AtomicU64,
    depth: AtomicU64,
    /// When it will be full again, in nanoseconds of the table's clock.
    full_at: AtomicU64,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            cost: AtomicU64::new(rate.cost),
            depth: AtomicU64::new(rate.depth),
            full_at: AtomicU64::new(0),
        }
    }

    /// Takes `tokens`, or none when there are too few.
    fn take(&self, tokens: u64, now: u64) -> bool {
        let cost = self.cost.load(Relaxed);
        if cost == 0 {
            return true;
        }
        let cost = cost.saturating_mul(tokens) >> SHIFT;
        let limit = now.saturating_add(self.depth.load(Relaxed));
        let after =
            |full_at: u64| Some(full_at.max(now).saturating_add(cost)).filter(|after| *after <= limit);
        self.full_at.fetch_update(Relaxed, Relaxed, after).is_ok()
    }

    /// A full bucket of another rate.
    fn set(&self, rate: Rate) {
        self.cost.store(rate.cost, Relaxed);
        self.depth.store(rate.depth, Relaxed);
        self.full_at.store(0, Relaxed);
    }
}

/// What was forwarded for a member, and not forwarded.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) struct Traffic {
    pub(in crate::relay) packets: u64,
    /// UDP payload.
    pub(in crate::relay) bytes: u64,
    /// Packets beyond the ticket's rates.
    pub(in crate::relay) dropped: u64,
}

/// What a member may still send, and what it has sent.
#[derive(Debug)]
pub(super) struct Allowance {
    traffic: [AtomicU64; 3],
    packets: Bucket,
    bytes: Bucket,
    control: Bucket,
}

impl Allowance {
    /// With full buckets.
    pub(super) fn new(limits: MemberLimits) -> Self {
        Self {
            traffic: Default::default(),
            packets: Bucket::new(packets(limits)),
            bytes: Bucket::new(bytes(limits)),
            // more than the relay server's budgets together, which it keeps by kind
            control: Bucket::new(Rate::new(600, 1500)),
        }
    }

    /// Other limits, with full buckets.
    pub(super) fn set(&self, limits: MemberLimits) {
        self.packets.set(packets(limits));
        self.bytes.set(bytes(limits));
    }

    /// Whether the ticket allows another data packet of this size.
    pub(super) fn may_send(&self, bytes: usize, now: u64) -> bool {
        self.packets.take(1, now) && self.bytes.take(bytes as u64, now)
    }

    /// Adds what was sent.
    pub(super) fn note(&self, traffic: Traffic) {
        for (counter, count) in self.traffic.iter().zip([traffic.packets, traffic.bytes, traffic.dropped]) {
            if count > 0 {
                counter.fetch_add(count, Relaxed);
            }
        }
    }

    /// What it has sent.
    pub(super) fn traffic(&self) -> Traffic {
        let [packets, bytes, dropped] = &self.traffic;
        Traffic { packets: packets.load(Relaxed), bytes: bytes.load(Relaxed), dropped: dropped.load(Relaxed) }
    }

    /// Whether the relay task may be given another datagram of this member.
    pub(super) fn may_ask(&self, now: u64) -> bool {
        self.control.take(1, now)
    }
}

fn packets(limits: MemberLimits) -> Rate {
    Rate::of_allowance(limits.packets_per_s.into(), 64)
}

fn bytes(limits: MemberLimits) -> Rate {
    Rate::of_allowance(u64::from(limits.kbit_per_s) * 125, 65_536)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn sent(allowance: &Allowance, bytes: usize, now: u64) -> usize {
        (0..10_000).take_while(|_| allowance.may_send(bytes, now)).count()
    }

    #[test]
    fn a_ticket_allows_its_rate_and_a_burst() {
        let packets = Allowance::new(MemberLimits { packets_per_s: 1000, kbit_per_s: 0 });
        assert_eq!(sent(&packets, 1400, SECOND), 250);
        assert_eq!(sent(&packets, 1400, SECOND + SECOND / 10), 100);
        assert_eq!(sent(&packets, 1400, 100 * SECOND), 250, "never more than the burst");
        let bytes = Allowance::new(MemberLimits { packets_per_s: 0, kbit_per_s: 8000 });
        assert_eq!(sent(&bytes, 1000, SECOND), 250);
        assert_eq!(sent(&bytes, 1000, SECOND + SECOND / 10), 100);
        let none = Allowance::new(MemberLimits { packets_per_s: 0, kbit_per_s: 0 });
        assert_eq!(sent(&none, 65_507, 0), 10_000);
    }

    #[test]
    fn workers_share_one_allowance() {
        let allowance = Allowance::new(MemberLimits { packets_per_s: 4000, kbit_per_s: 0 });
        let counts: Vec<usize> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| sent(&allowance, 100, SECOND))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(counts.iter().sum::<usize>(), 1000, "{counts:?}");
    }

    #[test]
    fn control_messages_have_a_budget_of_their_own() {
        let allowance = Allowance::new(MemberLimits { packets_per_s: 1, kbit_per_s: 1 });
        assert_eq!((0..10_000).take_while(|_| allowance.may_ask(SECOND)).count(), 1500);
        assert_eq!(sent(&allowance, 100, SECOND), 64);
    }
}
