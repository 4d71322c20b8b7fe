//! The relay's metrics. No label has a member, an address or a party: that would be news about people, and one series
//! for each of them.

use super::Page;
use lanrage_common::api::{ReasonCount, RelayDetail, RelayMode, RelayStatus, RelayTlsStatus, RelayWorker};
use std::time::{SystemTime, UNIX_EPOCH};

const MODES: [(RelayMode, &str); 3] = [
    (RelayMode::XdpNative, "xdp-native"),
    (RelayMode::XdpGeneric, "xdp-generic"),
    (RelayMode::Userspace, "userspace"),
];
/// Reasons that mean: above a budget, by their beginnings.
const BUDGETS: [&str; 3] = ["rate_", "budget_", "stun_flood"];

impl Page {
    /// What the status alone tells.
    pub(super) fn relay(&mut self, relay: &RelayStatus) {
        self.family("lanrage_relay_mode", "gauge", "1 for the way the relay forwards.");
        for (kind, mode) in MODES {
            self.sample("lanrage_relay_mode", &[("mode", mode)], u8::from(relay.mode == kind));
        }
        self.gauge(
            "lanrage_relay_registered",
            "Whether the control server has the relay on its list.",
            u8::from(relay.registered),
        );
        self.gauge("lanrage_relay_bindings", "Members bound now.", relay.bindings);
        self.gauge("lanrage_relay_flows", "Flows installed now.", relay.flows);
        let forwarded = "lanrage_relay_forwarded_packets_total";
        self.family(forwarded, "counter", "Data packets forwarded, by plane.");
        self.sample(forwarded, &[("plane", "kernel")], relay.kernel_forwarded);
        self.sample(forwarded, &[("plane", "userspace")], relay.userspace_forwarded);
        self.workers(&relay.workers);
        if let Some(tls) = &relay.tls {
            self.relay_tls(tls);
        }
    }

    fn relay_tls(&mut self, tls: &RelayTlsStatus) {
        self.gauge("lanrage_relay_tls_connections", "Members over TLS.", tls.connections);
        let datagrams = "lanrage_relay_tls_datagrams_total";
        self.family(datagrams, "counter", "Datagrams by TLS, from and to members.");
        self.sample(datagrams, &[("direction", "in")], tls.received);
        self.sample(datagrams, &[("direction", "out")], tls.sent);
        let dropped = "lanrage_relay_tls_dropped_datagrams_total";
        self.family(dropped, "counter", "Datagrams that TCP could not take in time.");
        self.sample(dropped, &[], tls.dropped);
        let ended = "lanrage_relay_tls_ended_total";
        self.family(ended, "counter", "TLS connections that ended or were refused, by reason.");
        for (reason, count) in &tls.ended {
            self.sample(ended, &[("reason", reason)], count);
        }
    }

    fn workers(&mut self, workers: &[RelayWorker]) {
        type Count = (&'static str, &'static str, fn(&RelayWorker) -> u64);
        let counts: [Count; 6] = [
            ("received", "Datagrams that a forwarding thread received.", |worker| worker.received),
            ("batches", "Batches in which it received them.", |worker| worker.batches),
            ("forwarded", "Data packets that it sent on.", |worker| worker.forwarded),
            ("offloaded", "Those that left together with others.", |worker| worker.offloaded),
            ("queue_full", "Messages that found too many others waiting.", |worker| worker.queue_full),
            ("lost", "Datagrams that came faster than it takes them.", |worker| worker.lost),
        ];
        for (name, help, count) in counts {
            let name = format!("lanrage_relay_worker_{name}_total");
            self.family(&name, "counter", help);
            for (n, worker) in workers.iter().enumerate() {
                self.sample(&name, &[("worker", &n.to_string())], count(worker));
            }
        }
    }

    /// What it takes a question to the relay to know.
    pub(super) fn relay_detail(&mut self, detail: &RelayDetail) {
        self.family("lanrage_relay_info", "gauge", "Name and region of the relay.");
        self.sample("lanrage_relay_info", &[("name", &detail.name), ("region", &detail.region)], 1);
        self.gauge("lanrage_relay_start_time_seconds", "When the relay started, Unix time.", started(detail));
        self.gauge("lanrage_relay_bindings_max", "Members the relay takes.", detail.max_bindings);
        self.gauge("lanrage_relay_flows_max", "Flows the relay takes.", detail.max_flows);
        self.gauge(
            "lanrage_relay_next_hops_unresolved",
            "Next hops that flows need and whose MAC address is unknown.",
            detail.next_hops_unresolved,
        );
        self.per_reason(
            "lanrage_relay_packets_total",
            "Packets seen, by plane and reason.",
            detail,
            |reason| reason.packets,
        );
        self.per_reason(
            "lanrage_relay_bytes_total",
            "Bytes seen, by plane and reason: whole frames in the kernel, forwarded UDP payload in userspace.",
            detail,
            |reason| reason.bytes,
        );
        self.family(
            "lanrage_relay_budget_drops_total",
            "counter",
            "Packets above a budget of member, source or relay, by plane.",
        );
        for (plane, reasons) in planes(detail) {
            let over: u64 =
                reasons.iter().filter(|reason| is_budget(&reason.name)).map(|reason| reason.packets).sum();
            self.sample("lanrage_relay_budget_drops_total", &[("plane", plane)], over);
        }
    }

    fn per_reason(&mut self, name: &str, help: &str, detail: &RelayDetail, value: fn(&ReasonCount) -> u64) {
        self.family(name, "counter", help);
        for (plane, reasons) in planes(detail) {
            for reason in reasons {
                self.sample(name, &[("plane", plane), ("reason", &reason.name)], value(reason));
            }
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }
}

fn planes(detail: &RelayDetail) -> [(&'static str, &[ReasonCount]); 2] {
    [("kernel", &detail.kernel), ("userspace", &detail.userspace)]
}

fn is_budget(reason: &str) -> bool {
    BUDGETS.iter().any(|budget| reason.starts_with(budget))
}

fn started(detail: &RelayDetail) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    now.saturating_sub(detail.at_ms / 1000)
}
