//! Counters in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// What has happened since the start.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// By route, method and status; routes are the server's own, so the table is small.
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    redeemed: AtomicU64,
    logins: AtomicU64,
    signals: AtomicU64,
    tickets: AtomicU64,
    slow_clients: AtomicU64,
}

/// What is now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauges {
    pub(super) parties: i64,
    pub(super) members: i64,
    pub(super) online: usize,
    pub(super) relays: usize,
    pub(super) bindings: u64,
    pub(super) flows: u64,
}

impl Metrics {
    pub(super) fn request(&self, route: &str, method: &str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route.into(), method.into(), status)).or_default() += 1;
    }

    pub(super) fn redeemed(&self) {
        self.redeemed.fetch_add(1, Relaxed);
    }

    pub(super) fn login(&self) {
        self.logins.fetch_add(1, Relaxed);
    }

    pub(super) fn signal(&self) {
        self.signals.fetch_add(1, Relaxed);
    }

    pub(super) fn ticket(&self) {
        self.tickets.fetch_add(1, Relaxed);
    }

    pub(super) fn slow_client(&self) {
        self.slow_clients.fetch_add(1, Relaxed);
    }

    /// The page for Prometheus.
    pub(super) fn render(&self, gauges: &Gauges) -> String {
        let mut page = String::new();
        let gauge = "gauge";
        metric(&mut page, "parties", gauge, "Parties in the database", gauges.parties);
        metric(&mut page, "members", gauge, "Members of all parties", gauges.members);
        metric(&mut page, "members_online", gauge, "Devices connected now", gauges.online);
        metric(&mut page, "relays", gauge, "Relays on the list", gauges.relays);
        metric(&mut page, "relay_bindings", gauge, "Members bound, as relays report it", gauges.bindings);
        metric(&mut page, "relay_flows", gauge, "Flows installed, as relays report it", gauges.flows);
        for (name, help, value) in [
            ("invites_redeemed_total", "Joins by invite", &self.redeemed),
            ("logins_total", "Logins granted", &self.logins),
            ("signals_total", "Signals passed on", &self.signals),
            ("tickets_total", "Relay tickets issued", &self.tickets),
            ("slow_clients_total", "Connections ended because they did not keep up", &self.slow_clients),
        ] {
            metric(&mut page, name, "counter", help, value.load(Relaxed));
        }
        self.render_requests(&mut page);
        page
    }

    fn render_requests(&self, page: &mut String) {
        head(page, "requests_total", "counter", "HTTP requests answered");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((route, method, status), count) in requests.iter() {
            let labels = format!("route=\"{route}\",method=\"{method}\",code=\"{status}\"");
            append(page, format_args!("lanrage_control_requests_total{{{labels}}} {count}\n"));
        }
    }
}

fn metric(page: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    head(page, name, kind, help);
    append(page, format_args!("lanrage_control_{name} {value}\n"));
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    append(
        page,
        format_args!("# HELP lanrage_control_{name} {help}\n# TYPE lanrage_control_{name} {kind}\n"),
    );
}

fn append(page: &mut String, text: std::fmt::Arguments<'_>) {
    // writing to a String cannot fail
    let _ = page.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn named(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        words.filter(|word| word.starts_with("lanrage_control_")).collect()
    }

    #[test]
    fn the_dashboard_names_only_metrics_that_exist_and_misses_none() {
        let metrics = Metrics::default();
        metrics.request("/v1/parties", "POST", 200);
        let gauges = Gauges { parties: 1, members: 2, online: 3, relays: 4, bindings: 5, flows: 6 };
        let page = metrics.render(&gauges);
        let dashboard = include_str!("../../../deploy/grafana/lanrage-control.json");
        serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
        assert_eq!(named(dashboard), named(&page));
        let documentation = include_str!("../../../docs/metrics.md");
        assert!(named(&page).into_iter().all(|name| documentation.contains(name)));
    }
}
