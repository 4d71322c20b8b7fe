//! What happened between two looks at a relay.

use lanrage_common::api::{ReasonCount, RelayDetail, RelayMember, RelayMode};
use serde::Serialize;
use std::collections::HashMap;
use std::net::SocketAddr;

/// Reasons that mean: sent on, by either plane.
const SENT: [&str; 3] = ["forwarded", "redirected", "stun_answered"];

/// A relay's traffic per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) at_ms: u64,
    /// Over which the rates are means.
    pub(super) interval_ms: u64,
    pub(super) name: String,
    pub(super) region: String,
    pub(super) mode: RelayMode,
    pub(super) registered: bool,
    pub(super) bindings: u32,
    pub(super) max_bindings: u32,
    pub(super) flows: u32,
    pub(super) max_flows: u32,
    pub(super) next_hops_unresolved: u32,
    pub(super) kernel: PlaneRates,
    pub(super) userspace: PlaneRates,
    /// Busiest first.
    pub(super) members: Vec<MemberRates>,
    /// Most frequent first, those that never happened left out.
    pub(super) reasons: Vec<ReasonRate>,
}

/// One plane. The daemon does not count bytes that it does not forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct PlaneRates {
    pub(super) in_packets_per_s: f64,
    pub(super) in_bits_per_s: f64,
    pub(super) out_packets_per_s: f64,
    pub(super) out_bits_per_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct MemberRates {
    pub(super) slot: u32,
    pub(super) key: String,
    pub(super) party: String,
    pub(super) address: SocketAddr,
    pub(super) packets_per_s: f64,
    pub(super) bits_per_s: f64,
    pub(super) drops_per_s: f64,
    pub(super) dropped: u64,
    pub(super) kbit_per_s_allowed: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ReasonRate {
    pub(super) plane: &'static str,
    pub(super) name: String,
    pub(super) what: String,
    pub(super) per_s: f64,
    pub(super) total: u64,
}

impl Rates {
    /// From an older to a newer look. A relay that was restarted in between has rates of its own short life.
    pub(super) fn between(old: &RelayDetail, new: &RelayDetail) -> Self {
        let nothing = RelayDetail {
            at_ms: 0,
            kernel: Vec::new(),
            userspace: Vec::new(),
            members: Vec::new(),
            ..new.clone()
        };
        let old = if old.at_ms <= new.at_ms { old } else { &nothing };
        let interval_ms = (new.at_ms - old.at_ms).max(1);
        let seconds = interval_ms as f64 / 1000.0;
        let mut reasons = reasons("kernel", &old.kernel, &new.kernel, seconds);
        reasons.extend(self::reasons("daemon", &old.userspace, &new.userspace, seconds));
        reasons.sort_by(|a, b| b.per_s.total_cmp(&a.per_s).then(b.total.cmp(&a.total)));
        Self {
            at_ms: new.at_ms,
            interval_ms,
            name: new.name.clone(),
            region: new.region.clone(),
            mode: new.status.mode,
            registered: new.status.registered,
            bindings: new.status.bindings,
            max_bindings: new.max_bindings,
            flows: new.status.flows,
            max_flows: new.max_flows,
            next_hops_unresolved: new.next_hops_unresolved,
            kernel: plane(&old.kernel, &new.kernel, seconds),
            userspace: plane(&old.userspace, &new.userspace, seconds),
            members: members(&old.members, &new.members, seconds),
            reasons,
        }
    }
}

fn reasons(plane: &'static str, old: &[ReasonCount], new: &[ReasonCount], seconds: f64) -> Vec<ReasonRate> {
    let before: HashMap<_, _> = old.iter().map(|reason| (&reason.name, reason.packets)).collect();
    let happened = new.iter().filter(|reason| reason.packets > 0);
    happened
        .map(|reason| ReasonRate {
            plane,
            name: reason.name.clone(),
            what: reason.what.clone(),
            per_s: growth(before.get(&reason.name).copied(), reason.packets) / seconds,
            total: reason.packets,
        })
        .collect()
}

fn plane(old: &[ReasonCount], new: &[ReasonCount], seconds: f64) -> PlaneRates {
    let sum = |all: &[ReasonCount], sent: bool, value: fn(&ReasonCount) -> u64| {
        all.iter().filter(|reason| !sent || is_sent(reason)).map(value).fold(0u64, u64::wrapping_add)
    };
    let rate = |sent, value| growth(Some(sum(old, sent, value)), sum(new, sent, value)) / seconds;
    PlaneRates {
        in_packets_per_s: rate(false, |reason| reason.packets),
        in_bits_per_s: rate(false, |reason| reason.bytes) * 8.0,
        out_packets_per_s: rate(true, |reason| reason.packets),
        out_bits_per_s: rate(true, |reason| reason.bytes) * 8.0,
    }
}

fn is_sent(reason: &ReasonCount) -> bool {
    SENT.contains(&reason.name.as_str()) || reason.name.ends_with("_forwarded")
}

fn members(old: &[RelayMember], new: &[RelayMember], seconds: f64) -> Vec<MemberRates> {
    // A slot may have a new tenant, whose counters begin at zero in the daemon only.
    let before: HashMap<_, _> = old.iter().map(|member| ((member.slot, &member.key), member)).collect();
    let rate = |member: &RelayMember, value: fn(&RelayMember) -> u64| {
        let old = before.get(&(member.slot, &member.key)).map(|old| value(old));
        growth(old.or(Some(value(member))), value(member)) / seconds
    };
    let mut rates: Vec<_> = new
        .iter()
        .map(|member| MemberRates {
            slot: member.slot,
            key: member.key.clone(),
            party: member.party.clone(),
            address: member.address,
            packets_per_s: rate(member, |member| member.kernel_packets + member.userspace_packets),
            bits_per_s: rate(member, |member| member.kernel_bytes + member.userspace_bytes) * 8.0,
            drops_per_s: rate(member, |member| member.dropped),
            dropped: member.dropped,
            kbit_per_s_allowed: member.kbit_per_s,
        })
        .collect();
    rates.sort_by(|a, b| b.packets_per_s.total_cmp(&a.packets_per_s).then(a.slot.cmp(&b.slot)));
    rates
}

/// A counter that went back was started anew.
fn growth(old: Option<u64>, new: u64) -> f64 {
    let old = old.unwrap_or(0);
    (if new >= old { new - old } else { new }) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixture::relay_detail;

    /// The fixture two seconds later.
    fn later() -> RelayDetail {
        let mut detail = relay_detail();
        detail.at_ms += 2000;
        detail.kernel[0].packets += 3000;
        detail.kernel[0].bytes += 600_000;
        detail.kernel[1].packets += 10;
        detail.members[1].kernel_packets += 3000;
        detail.members[1].kernel_bytes += 600_000;
        detail.members[0].dropped += 4;
        detail
    }

    #[test]
    fn rates_are_differences_over_time() {
        let rates = Rates::between(&relay_detail(), &later());
        assert_eq!(rates.interval_ms, 2000);
        assert_eq!((rates.kernel.in_packets_per_s, rates.kernel.out_packets_per_s), (1505.0, 1500.0));
        assert_eq!(rates.kernel.out_bits_per_s, 2_400_000.0);
        assert_eq!(rates.userspace, PlaneRates::default());
        assert_eq!((rates.members[0].slot, rates.members[0].packets_per_s), (2, 1500.0));
        assert_eq!((rates.members[1].packets_per_s, rates.members[1].drops_per_s), (0.0, 2.0));
        assert_eq!((rates.reasons[0].name.as_str(), rates.reasons[0].per_s), ("forwarded", 1500.0));
        assert!(rates.reasons.iter().all(|reason| reason.name != "malformed"), "it never happened");
    }

    #[test]
    fn a_restarted_relay_and_a_new_tenant_make_no_nonsense() {
        let restarted = RelayDetail { at_ms: 500, ..relay_detail() };
        let rates = Rates::between(&later(), &restarted);
        assert_eq!((rates.interval_ms, rates.kernel.out_packets_per_s), (500, 20_000.0));
        let mut moved = later();
        moved.members[1].key = "newcomer".into();
        let rates = Rates::between(&relay_detail(), &moved);
        let newcomer = rates.members.iter().find(|member| member.key == "newcomer").unwrap();
        assert_eq!(newcomer.packets_per_s, 0.0, "its predecessor's packets are not its own");
    }
}
