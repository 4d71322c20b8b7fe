//! What the relay shows of itself.

use super::plane::Totals;
use super::registration::Registration;
use crate::datapath::Datapath;
use lanrage_common::api::{RelayStatus, RelayWorker};
use lanrage_common::relay::{Reason, RelayServer};
use std::collections::BTreeMap;

/// What the daemon itself counts, beside the server's reasons.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    /// Flows that found the kernel's table full.
    pub(super) install_full: u64,
    /// Flows that the kernel refused.
    pub(super) install_failed: u64,
    /// Datagrams that the socket had no room for.
    pub(super) send_full: u64,
    /// Datagrams that could not be sent for another reason.
    pub(super) send_failed: u64,
    /// Times a socket gave an error instead of datagrams.
    receive_failed: u64,
    /// Datagrams lost because the sockets' buffers were full.
    receive_lost: u64,
    /// Members' datagrams that found the queue to the relay task full.
    queue_full_members: u64,
    /// Strangers' datagrams that found the queue to the relay task full.
    queue_full_strangers: u64,
}

impl Counts {
    fn by_name(self) -> impl Iterator<Item = (&'static str, u64)> {
        self.explained().map(|(name, _, count)| (name, count))
    }

    /// These and what the workers counted.
    pub(super) fn with(mut self, workers: &[Totals]) -> Self {
        for worker in workers {
            self.send_full += worker.send_full;
            self.send_failed += worker.send_failed;
            self.receive_failed += worker.receive_failed;
            self.receive_lost += worker.lost;
            self.queue_full_members += worker.members_full;
            self.queue_full_strangers += worker.strangers_full;
        }
        self
    }

    /// Each with its name and what it means.
    pub(super) fn explained(self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [
            (
                "install_full",
                "A flow found the kernel's table full; the daemon forwards it.",
                self.install_full,
            ),
            ("install_failed", "The kernel refused a flow; the daemon forwards it.", self.install_failed),
            ("send_full", "The socket had no room for a datagram.", self.send_full),
            ("send_failed", "A datagram could not be sent.", self.send_failed),
            ("receive_failed", "The socket gave an error instead of a datagram.", self.receive_failed),
            ("receive_lost", "A datagram came faster than the workers take them.", self.receive_lost),
            (
                "queue_full_members",
                "A member's message found too many others waiting for the relay's state.",
                self.queue_full_members,
            ),
            (
                "queue_full_strangers",
                "A stranger's STUN request found too many others waiting for the relay's state.",
                self.queue_full_strangers,
            ),
        ]
        .into_iter()
    }
}

/// A number as the API carries it.
pub(super) fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Without what the relay was told from outside: addresses and problems of its own.
pub(super) fn describe(
    server: &RelayServer,
    datapath: &Datapath,
    registration: &Registration,
    workers: &[Totals],
    counts: Counts,
) -> RelayStatus {
    let report = datapath.report().clone();
    RelayStatus {
        addresses: Vec::new(),
        registered: registration.is_registered(),
        draining: false,
        mode: report.mode,
        mode_reason: report.reason,
        mode_fix: report.fix,
        bindings: narrow(server.bindings()),
        flows: narrow(server.flows()),
        kernel_forwarded: datapath.forwarded(),
        userspace_forwarded: workers.iter().map(|worker| worker.sent).sum(),
        userspace_bytes: workers.iter().map(|worker| worker.bytes).sum(),
        workers: workers.iter().map(describe_worker).collect(),
        kernel: datapath.counters(),
        userspace: userspace(server, workers, counts),
        tls: None,
        problems: registration.problem().cloned().into_iter().chain(report.unpinned).collect(),
    }
}

fn describe_worker(totals: &Totals) -> RelayWorker {
    RelayWorker {
        received: totals.received,
        batches: totals.batches,
        forwarded: totals.sent,
        offloaded: totals.segmented,
        queue_full: totals.members_full + totals.strangers_full,
        lost: totals.lost,
    }
}

/// Datagrams of a reason, whoever counted them.
pub(super) fn count_of(reason: Reason, server: &RelayServer, workers: &[Totals]) -> u64 {
    server.count_of(reason) + workers.iter().map(|worker| worker.count_of(reason)).sum::<u64>()
}

fn userspace(server: &RelayServer, workers: &[Totals], counts: Counts) -> BTreeMap<String, u64> {
    let reasons = Reason::ALL.iter().map(|reason| (reason.as_str(), count_of(*reason, server, workers)));
    let all = reasons.chain(counts.with(workers).by_name()).filter(|(_, count)| *count > 0);
    all.map(|(name, count)| (name.to_owned(), count)).collect()
}
