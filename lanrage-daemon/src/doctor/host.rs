//! What this machine tells.

use crate::{netcheck, platform};
use lanrage_common::api::{Cure, Finding, PartyStatus, Status};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::process::Command;

/// Tickets live ten minutes; a clock that is further off than this is worth a word.
const CLOCK: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(4);
/// IPv6 or IPv4 header, UDP, WireGuard's header and tag.
const OVERHEAD: u32 = 40 + 8 + 16 + 16;

pub(super) async fn all(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(control) = &status.control {
        let (portal, clock) = tokio::join!(portal(&control.url), clock(&control.url));
        // a login page has a clock of its own
        findings.extend(portal.or(clock));
    }
    if let Some((party, name)) =
        status.party.as_ref().and_then(|party| Some((party, party.interface.as_ref()?)))
    {
        findings.extend(mtu(party, name).await);
        findings.extend(routes(party, name).await);
        findings.extend(firewall(name.clone()).await);
    }
    findings
}

/// Says so only where there is one: it is the cause of all else.
async fn portal(control: &str) -> Option<Finding> {
    let is_there = netcheck::captive_portal(Some(control)).await == Some(true);
    is_there.then(|| {
        let what = "a login page of this network answers in place of the control server";
        Finding::bad("login page", what, "open any page in a browser, log in, then run lanrage doctor again")
    })
}

/// Compares with the control server's clock.
async fn clock(control: &str) -> Option<Finding> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build().ok()?;
    let response = client.get(format!("{control}/healthz")).send().await.ok()?;
    let date = response.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    let theirs = httpdate::parse_http_date(date).ok()?;
    let off = theirs.elapsed().unwrap_or_else(|ahead| ahead.duration());
    Some(if off <= CLOCK {
        Finding::good("clock", "agrees with the control server's")
    } else {
        let what = format!("{} s off the control server's clock", off.as_secs());
        Finding::bad(
            "clock",
            what,
            "set it: timedatectl set-ntp true (or at the server, if others see this too)",
        )
    })
}

async fn mtu(party: &PartyStatus, name: &str) -> Option<Finding> {
    let mtus = platform::mtus().await.ok()?;
    let of = |name: &str| mtus.get(name).copied();
    let own = of(name)?;
    if own != u32::from(party.mtu) {
        let fix = format!("ip link set {name} mtu {}", party.mtu);
        let what = format!("{name} has MTU {own} instead of {}", party.mtu);
        return Some(Finding::warning("mtu", what, fix).curable(Cure::Reconnect));
    }
    let networks = platform::networks(name).await.ok()?;
    let narrow = networks.iter().filter_map(|network| Some((of(&network.interface)?, &network.interface)));
    let (least, below) = narrow.min()?;
    let short = party.members.iter().filter_map(|member| {
        let mtu = member.mtu.filter(|mtu| u32::from(*mtu) < own)?;
        Some(format!("; {mtu} for {}, whose path carries no more", member.name))
    });
    let short: String = short.collect();
    let fits = if least < own + OVERHEAD { "too much for" } else { "which fits" };
    Some(Finding::good("mtu", format!("{own} on {name}, {fits} {least} on {below}{short}")))
}

/// Games find the party only if broadcast and multicast go there.
async fn routes(party: &PartyStatus, name: &str) -> Option<Finding> {
    let routes = platform::routes().await.ok()?;
    let groups = [(Ipv4Addr::BROADCAST, 32), (Ipv4Addr::new(224, 0, 0, 0), 4)];
    let leads = |address: Ipv4Addr, length: u8| {
        routes.iter().any(|route| {
            (route.destination.addr(), route.destination.prefix_len()) == (address, length)
                && route.interface.as_deref() == Some(name)
        })
    };
    let subnet = (party.subnet.network(), party.subnet.prefix_len());
    let missing: Vec<String> = groups
        .into_iter()
        .chain([subnet])
        .filter(|(address, length)| !leads(*address, *length))
        .map(|(address, length)| format!("{address}/{length}"))
        .collect();
    if missing.is_empty() {
        return Some(Finding::good("routes", format!("party, broadcast and multicast go to {name}")));
    }
    let what = format!("{} does not go to {name}: games search elsewhere", missing.join(", "));
    let fix =
        "lanrage down && lanrage up puts the routes back; another program that takes them must be stopped";
    Some(Finding::bad("routes", what, fix).curable(Cure::Reconnect))
}

/// Only nftables, which all of today's firewalls on Linux end in, and only as root.
async fn firewall(name: String) -> Option<Finding> {
    let output = Command::new("nft").args(["-j", "list", "ruleset"]).output().await.ok()?;
    let rules = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(if drops_input(&rules) && !rules.contains(&format!("\"{name}\"")) {
        let fix = format!(
            "let the party in, e.g. ufw allow in on {name}, or firewall-cmd --zone=trusted --add-interface={name}"
        );
        Finding::warning("firewall", format!("incoming packets are dropped, and no rule names {name}"), fix)
    } else {
        Finding::good("firewall", "nothing drops what comes from the party")
    })
}

/// Whether an input chain has the policy to drop.
fn drops_input(ruleset: &str) -> bool {
    let Ok(tree) = serde_json::from_str::<serde_json::Value>(ruleset) else { return false };
    let entries = tree["nftables"].as_array();
    entries
        .into_iter()
        .flatten()
        .map(|entry| &entry["chain"])
        .any(|chain| chain["hook"] == "input" && chain["policy"] == "drop" && chain["type"] == "filter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropping_firewall_is_seen() {
        let chain = |hook: &str, policy: &str| {
            format!(
                r#"{{"nftables":[{{"metainfo":{{}}}},{{"chain":{{"type":"filter","hook":"{hook}","policy":"{policy}"}}}}]}}"#
            )
        };
        assert!(drops_input(&chain("input", "drop")));
        assert!(!drops_input(&chain("input", "accept")) && !drops_input(&chain("forward", "drop")));
        assert!(!drops_input("") && !drops_input("{}"));
    }
}
