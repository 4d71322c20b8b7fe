//! What the relay shows of itself.

use super::registration::Registration;
use crate::datapath::Datapath;
use lanrage_common::api::RelayStatus;
use lanrage_common::relay::{Reason, RelayServer};
use std::collections::BTreeMap;
use std::net::SocketAddr;

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
    /// Times the socket gave an error instead of a datagram.
    pub(super) receive_failed: u64,
}

impl Counts {
    fn by_name(self) -> impl Iterator<Item = (&'static str, u64)> {
        self.explained().map(|(name, _, count)| (name, count)).filter(|(_, count)| *count > 0)
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
        ]
        .into_iter()
    }
}

/// A number as the API carries it.
pub(super) fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn describe(
    public: SocketAddr,
    server: &RelayServer,
    datapath: &Datapath,
    registration: &Registration,
    counts: Counts,
) -> RelayStatus {
    let report = datapath.report().clone();
    let named = server.counters().into_iter().chain(counts.by_name());
    RelayStatus {
        addresses: vec![public],
        registered: registration.is_registered(),
        draining: false,
        mode: report.mode,
        mode_reason: report.reason,
        mode_fix: report.fix,
        bindings: narrow(server.bindings()),
        flows: narrow(server.flows()),
        kernel_forwarded: datapath.forwarded(),
        userspace_forwarded: server.count_of(Reason::Forwarded),
        kernel: datapath.counters(),
        userspace: named.map(|(name, count)| (name.to_owned(), count)).collect::<BTreeMap<_, _>>(),
        tls: None,
        problems: registration.problem().cloned().into_iter().chain(report.unpinned).collect(),
    }
}
