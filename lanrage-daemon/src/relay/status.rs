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
        let all = [
            ("install_full", self.install_full),
            ("install_failed", self.install_failed),
            ("send_full", self.send_full),
            ("send_failed", self.send_failed),
            ("receive_failed", self.receive_failed),
        ];
        all.into_iter().filter(|(_, count)| *count > 0)
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
        problems: registration.problem().cloned().into_iter().chain(report.unpinned).collect(),
    }
}
