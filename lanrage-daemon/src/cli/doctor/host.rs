//! What this machine tells.

use super::Finding;
use crate::platform;
use lanrage_common::api::{PartyStatus, Status};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Tickets live ten minutes; a clock that is further off than this is worth a word.
const CLOCK: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(4);
/// IPv6 or IPv4 header, UDP, WireGuard's header and tag.
const OVERHEAD: u32 = 40 + 8 + 16 + 16;

pub(super) async fn all(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(control) = &status.control {
        findings.extend(clock(&control.url).await);
    }
    if let Some((party, name)) =
        status.party.as_ref().and_then(|party| Some((party, party.interface.as_ref()?)))
    {
        findings.extend(mtu(party, name).await);
        findings.extend(routes(party, name).await);
        findings.extend(firewall(name));
    }
    findings
}

/// Compares with the control server's clock.
async fn clock(control: &str) -> Option<Finding> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build().ok()?;
    let response = client.get(format!("{control}/healthz")).send().await.ok()?;
    let date = response.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    let theirs = parse_http_date(date)?;
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let off = ours.abs_diff(theirs);
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

/// Seconds since 1970 of an HTTP date (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parse_http_date(date: &str) -> Option<Duration> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.split_ascii_whitespace().skip(1);
    let day: i64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    if words.next() != Some("GMT")
        || !(0..24).contains(&hours)
        || !(0..60).contains(&minutes)
        || !(0..=60).contains(&seconds)
    {
        return None;
    }
    // days from civil: years begin in March, so that leap days come last
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hours * 3600 + minutes * 60 + seconds).ok().map(Duration::from_secs)
}

async fn mtu(party: &PartyStatus, name: &str) -> Option<Finding> {
    let of = |name: &str| {
        std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?.trim().parse::<u32>().ok()
    };
    let own = of(name)?;
    if own != u32::from(party.mtu) {
        let fix = format!("ip link set {name} mtu {}", party.mtu);
        return Some(Finding::warning("mtu", format!("{name} has MTU {own} instead of {}", party.mtu), fix));
    }
    let networks = platform::networks(name).await.ok()?;
    let narrow = networks.iter().filter_map(|network| Some((of(&network.interface)?, &network.interface)));
    let (least, below) = narrow.min()?;
    if least < own + OVERHEAD {
        let what =
            format!("{own} on {name}, but {below} carries only {least}: large packets go in two pieces");
        let fix = format!("set `peer.mtu = {}` in lanrage.toml", least.saturating_sub(OVERHEAD).max(1280));
        return Some(Finding::warning("mtu", what, fix));
    }
    Some(Finding::good("mtu", format!("{own} on {name}, which fits {least} on {below}")))
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
    Some(Finding::bad("routes", what, fix))
}

/// Only nftables, which all of today's firewalls on Linux end in, and only as root.
fn firewall(name: &str) -> Option<Finding> {
    let output = Command::new("nft").args(["-j", "list", "ruleset"]).output().ok()?;
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
    fn http_dates_are_read() {
        let at = |date| parse_http_date(date).map(|since| since.as_secs());
        assert_eq!(at("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(at("Tue, 29 Feb 2028 23:59:59 GMT"), Some(1_835_481_599));
        for wrong in
            ["", "Sun", "Sun, 06 Nov 1994", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:61:37 GMT"]
        {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }

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

    proptest::proptest! {
        #[test]
        fn any_date_is_survived(text in ".{0,60}") {
            let _ = parse_http_date(&text);
        }
    }
}
