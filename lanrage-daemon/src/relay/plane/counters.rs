//! What one worker counts. Only it writes; anybody reads.

use crate::platform::udp::Sent;
use lanrage_common::relay::Reason;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of a batch, not yet visible to others.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) received: u64,
    pub(super) bytes: u64,
    /// Members' datagrams that found the queue to the relay task full.
    pub(super) members_full: u64,
    /// Strangers' datagrams that found the queue to the relay task full.
    pub(super) strangers_full: u64,
    /// Times the socket gave an error instead of datagrams.
    pub(super) receive_failed: u64,
    pub(super) sent: Sent,
    reasons: [u64; Reason::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            received: 0,
            bytes: 0,
            members_full: 0,
            strangers_full: 0,
            receive_failed: 0,
            sent: Sent::default(),
            reasons: [0; Reason::ALL.len()],
        }
    }
}

impl Tally {
    pub(super) fn count(&mut self, reason: Reason) {
        self.reasons[reason as usize] += 1;
    }

    pub(super) fn add_sent(&mut self, sent: Sent) {
        self.sent.datagrams += sent.datagrams;
        self.sent.segmented += sent.segmented;
        self.sent.full += sent.full;
        self.sent.failed += sent.failed;
    }
}

/// A worker's counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    batches: AtomicU64,
    received: AtomicU64,
    bytes: AtomicU64,
    members_full: AtomicU64,
    strangers_full: AtomicU64,
    receive_failed: AtomicU64,
    sent: AtomicU64,
    segmented: AtomicU64,
    send_full: AtomicU64,
    send_failed: AtomicU64,
    reasons: Reasons,
}

#[derive(Debug)]
struct Reasons([AtomicU64; Reason::ALL.len()]);

impl Default for Reasons {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// What a worker has counted since the start.
#[derive(Debug, Clone)]
pub(in crate::relay) struct Totals {
    /// Batches received.
    pub(in crate::relay) batches: u64,
    /// Datagrams received.
    pub(in crate::relay) received: u64,
    /// Data sent on, in bytes of UDP payload.
    pub(in crate::relay) bytes: u64,
    /// Members' datagrams that found the queue to the relay task full.
    pub(in crate::relay) members_full: u64,
    /// Strangers' datagrams that found the queue to the relay task full.
    pub(in crate::relay) strangers_full: u64,
    /// Times a socket gave an error instead of datagrams.
    pub(in crate::relay) receive_failed: u64,
    /// Data sent on, in datagrams.
    pub(in crate::relay) sent: u64,
    /// Those that left together with others.
    pub(in crate::relay) segmented: u64,
    /// Datagrams that the socket had no room for.
    pub(in crate::relay) send_full: u64,
    /// Datagrams that could not be sent for another reason.
    pub(in crate::relay) send_failed: u64,
    /// Datagrams lost because the receive buffers were full.
    pub(in crate::relay) lost: u64,
    /// What became of datagrams that were not given to the relay task.
    reasons: [u64; Reason::ALL.len()],
}

impl Totals {
    /// Datagrams of one reason.
    pub(in crate::relay) fn count_of(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize]
    }
}

impl Counters {
    /// Adds a batch.
    pub(super) fn add(&self, tally: &Tally) {
        let sent = &tally.sent;
        for (counter, count) in [
            (&self.batches, 1),
            (&self.received, tally.received),
            (&self.bytes, tally.bytes),
            (&self.members_full, tally.members_full),
            (&self.strangers_full, tally.strangers_full),
            (&self.receive_failed, tally.receive_failed),
            (&self.sent, sent.datagrams),
            (&self.segmented, sent.segmented),
            (&self.send_full, sent.full),
            (&self.send_failed, sent.failed),
        ] {
            add(counter, count);
        }
        self.reasons.0.iter().zip(tally.reasons).for_each(|(counter, count)| add(counter, count));
    }

    /// Everything; `lost` is what the sockets know.
    pub(super) fn totals(&self, lost: u64) -> Totals {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        Totals {
            batches: of(&self.batches),
            received: of(&self.received),
            bytes: of(&self.bytes),
            members_full: of(&self.members_full),
            strangers_full: of(&self.strangers_full),
            receive_failed: of(&self.receive_failed),
            sent: of(&self.sent),
            segmented: of(&self.segmented),
            send_full: of(&self.send_full),
            send_failed: of(&self.send_failed),
            lost,
            reasons: std::array::from_fn(|n| of(&self.reasons.0[n])),
        }
    }
}

/// No read-modify-write: there is one writer.
fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.store(counter.load(Relaxed) + count, Relaxed);
    }
}
