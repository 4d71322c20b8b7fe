//! How busy the relay is, measured between heartbeats.

use super::plane::Plane;
use crate::datapath::Datapath;
use lanrage_common::reason::Reason;
use std::time::Instant;

/// Turns totals into rates.
#[derive(Debug)]
pub(super) struct Meter {
    at: Instant,
    totals: Totals,
    processor: Option<ProcessorTime>,
}

/// What was forwarded since the relay started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Data packets.
    pub(super) packets: u64,
    /// Their bytes, as the forwarding side counts: whole frames in the kernel, UDP payload in the daemon.
    pub(super) bytes: u64,
}

impl Totals {
    /// Of both sides.
    pub(super) fn of(datapath: &Datapath, plane: &Plane) -> Self {
        let sent_on = |reason: &Reason| matches!(reason, Reason::Forwarded | Reason::Redirected);
        let kernel = datapath.reasons().into_iter().filter(|(reason, _)| sent_on(reason));
        let kernel = kernel.map(|(_, counter)| Self { packets: counter.packets, bytes: counter.bytes });
        let workers = plane.totals().into_iter();
        let workers = workers.map(|worker| Self { packets: worker.sent, bytes: worker.bytes });
        kernel.chain(workers).fold(Self::default(), |sum, part| Self {
            packets: sum.packets + part.packets,
            bytes: sum.bytes + part.bytes,
        })
    }
}

/// What was measured since the last time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rates {
    /// Data packets a second.
    pub(super) packets_per_s: u64,
    /// Bits of them a second.
    pub(super) bits_per_s: u64,
    /// Share of the machine's processors in use, percent: forwarding in the kernel runs in no process of its own.
    pub(super) processor: u8,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now, totals: Totals::default(), processor: ProcessorTime::read() }
    }

    /// Rates since the last call.
    pub(super) fn measure(&mut self, totals: Totals, now: Instant) -> Rates {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds) as u64;
        let packets_per_s = rate(totals.packets, self.totals.packets);
        let bits_per_s = rate(totals.bytes, self.totals.bytes) * 8;
        let processor = ProcessorTime::read();
        let share = self.processor.zip(processor).map_or(0, |(before, after)| after.share_since(before));
        (self.at, self.totals, self.processor) = (now, totals, processor);
        Rates { packets_per_s, bits_per_s, processor: share }
    }
}

/// The machine's processor time since it started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProcessorTime {
    idle: u64,
    total: u64,
}

impl ProcessorTime {
    /// Absent where the system has no `/proc/stat`.
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user.
    fn parse(text: &str) -> Option<Self> {
        let fields = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> =
            fields.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
        (ticks.len() >= 5).then(|| Self { idle: ticks[3] + ticks[4], total: ticks.iter().sum() })
    }

    fn share_since(self, before: Self) -> u8 {
        let total = self.total.saturating_sub(before.total);
        let busy = total.saturating_sub(self.idle.saturating_sub(before.idle));
        u8::try_from(busy * 100 / total.max(1)).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn totals_become_rates() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let mut rates = |packets, bytes, second| {
            let rates = meter.measure(Totals { packets, bytes }, start + Duration::from_secs(second));
            (rates.packets_per_s, rates.bits_per_s)
        };
        assert_eq!(rates(5_000, 1_000_000, 5), (1_000, 1_600_000));
        assert_eq!(rates(5_000, 1_000_000, 6), (0, 0));
        assert_eq!(rates(100, 20_000, 7), (0, 0), "started anew");
    }

    #[test]
    fn the_share_is_what_was_not_idle() {
        let before = ProcessorTime::parse("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1 1 1 1\n").unwrap();
        let after = ProcessorTime::parse("cpu  20 0 20 110 10 0 20 0 0 0\n").unwrap();
        assert_eq!((before, after.total), (ProcessorTime { idle: 80, total: 100 }, 180));
        assert_eq!(after.share_since(before), 50);
        assert_eq!(after.share_since(after), 0);
        assert_eq!(ProcessorTime::parse("intr 1 2 3"), None);
    }
}
