//! What must never cross, tried like a game: address configuration, Windows names, and services nobody asked for.

use super::side::Side;
use super::{Faults, lane_status};
use crate::lab::process::wait_until;
use crate::lab::role::Role;
use crate::lab::running::Lab;
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// After this, what has not come does not come.
const SILENCE: Duration = Duration::from_millis(600);
const COUNTED: Duration = Duration::from_secs(5);

struct Rule {
    id: &'static str,
    to: Ipv4Addr,
    port: u16,
    /// Name of the reason that the sender counts.
    reason: &'static str,
}

const fn rule(id: &'static str, to: [u8; 4], port: u16, reason: &'static str) -> Rule {
    let [a, b, c, d] = to;
    Rule { id, to: Ipv4Addr::new(a, b, c, d), port, reason }
}

const RULES: [Rule; 8] = [
    rule("no-dhcp-to-server", [255; 4], 67, "dhcp"),
    rule("no-dhcp-to-client", [255; 4], 68, "dhcp"),
    rule("no-netbios-names", [255; 4], 137, "netbios"),
    rule("no-netbios-datagrams", [10, 66, 255, 255], 138, "netbios"),
    rule("no-llmnr", [224, 0, 0, 252], 5355, "llmnr"),
    rule("no-mdns-unasked", [224, 0, 0, 251], 5353, "mdns"),
    rule("no-ssdp-unasked", [239, 255, 255, 250], 1900, "ssdp"),
    rule("no-wsd-unasked", [239, 255, 255, 250], 3702, "wsd"),
];

/// Names of the rows.
pub fn ids() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.id)
}

/// Sends what must not cross, with somebody waiting for it on the other side.
pub fn check(lab: &Lab, faults: &mut Faults) -> Result<()> {
    let [mut sender, mut receiver] = [1, 2].map(|n| Side::new(lab.namespace(Role::Peer(n))));
    let source = sender.open_udp(0)?;
    for rule in &RULES {
        receiver.open_udp(rule.port)?;
        if rule.to.is_multicast() {
            receiver.join(rule.port, rule.to)?;
        }
    }
    let before = lane_status(lab, 1)?.dropped;
    for rule in &RULES {
        sender.send(source, rule.id.as_bytes(), SocketAddrV4::new(rule.to, rule.port), 4)?;
    }
    receiver.listen(SILENCE)?;
    for rule in &RULES {
        if receiver.log().iter().any(|arrival| arrival.bytes == rule.id.as_bytes()) {
            faults.insert(rule.id.into(), format!("it crossed to port {}", rule.port));
            continue;
        }
        let sent = RULES.iter().filter(|other| other.reason == rule.reason).count() as u64;
        let was = before.get(rule.reason).copied().unwrap_or_default();
        let is_counted = || {
            lane_status(lab, 1)
                .is_ok_and(|status| status.dropped.get(rule.reason).is_some_and(|now| now - was >= sent))
        };
        if !wait_until(COUNTED, is_counted) {
            faults
                .insert(rule.id.into(), format!("it did not cross, but is not counted as {:?}", rule.reason));
        }
    }
    Ok(())
}
