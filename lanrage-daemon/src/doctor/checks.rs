//! What the daemon's status tells.

use lanrage_common::api::{Cure, Finding, NetworkStatus, PartyStatus, PathKind, Status};
use lanrage_common::nat::Mapping;
use lanrage_common::protocol::RelayState;

/// Everything, in the order in which one thing builds on another.
pub(super) fn all(status: &Status) -> Vec<Finding> {
    let mut findings = vec![daemon(status)];
    findings.extend(status.control.as_ref().map(|control| match control.connected {
        true => Finding::good("control", format!("connected to {}", control.url)),
        false => Finding::bad(
            "control",
            format!("no connection to {}", control.url),
            "check that it runs and that this machine reaches it; who is in the party keeps playing meanwhile",
        ),
    }));
    if status.device.is_some() && status.party.is_none() {
        let fix = "found one with `lanrage party create NAME`, or join one with `lanrage join LINK`";
        findings.push(Finding::warning("party", "this device is in no party", fix));
    }
    if let Some(party) = &status.party {
        findings.push(tunnel(status, party));
        findings.push(relay(party));
        findings.push(paths(party));
    }
    findings.extend(status.network.as_ref().map(network));
    findings.extend(status.network.as_ref().and_then(ipv6));
    // what the checks above say already
    let said = ["control_unreachable", "no_relay", "udp_blocked", "relay_silent"];
    let others = status.problems.iter().filter(|problem| !said.contains(&problem.code.as_str()));
    findings.extend(others.map(|problem| Finding::bad("problem", &problem.message, &problem.fix)));
    findings
}

fn daemon(status: &Status) -> Finding {
    Finding::good("daemon", format!("version {}, roles {}", status.version, status.roles.join(" ")))
}

fn tunnel(status: &Status, party: &PartyStatus) -> Finding {
    match (&party.interface, status.up) {
        (_, false) => {
            Finding::bad("tunnel", "the tunnel is down", "take it up: lanrage up").curable(Cure::Up)
        }
        (None, true) => Finding::bad("tunnel", "there is no network interface", "see the daemon's log")
            .curable(Cure::Reconnect),
        (Some(name), true) => Finding::good("tunnel", format!("{name} has {}", party.address)),
    }
}

fn relay(party: &PartyStatus) -> Finding {
    let held: Vec<_> = party.relays.iter().filter(|relay| relay.held).collect();
    let near = held.iter().filter_map(|relay| relay.rtt_ms).min_by(f64::total_cmp);
    if party.relays.is_empty() {
        let fix = "start one: `lanrage-daemon relay`, with the control server's address and token";
        return Finding::bad("relay", "the control server knows no relay", fix);
    }
    if !party.carriers.is_empty() {
        let fix = "let UDP to the relay out of this network's firewall";
        return Finding::warning("relay", "reached over TLS only, which stutters when packets are lost", fix);
    }
    match near {
        Some(rtt) => Finding::good("relay", format!("{} in use, the nearest {rtt:.0} ms away", held.len())),
        None if party.relays.iter().all(|relay| relay.state != RelayState::Ready) => Finding::bad(
            "relay",
            "all relays are full or being emptied",
            "start another one: `lanrage-daemon relay`",
        ),
        None => Finding::bad(
            "relay",
            "no relay answers by UDP",
            "let UDP out of this network's firewall; if nobody reaches the relay, check that it runs",
        ),
    }
}

fn paths(party: &PartyStatus) -> Finding {
    let others = || party.members.iter().filter(|member| !member.is_self && member.online);
    let count = |kind| others().filter(|member| member.path == kind).count();
    let (direct, none) = (count(PathKind::Direct), count(PathKind::None));
    let what = format!("{direct} of {} members that are online are reached directly", others().count());
    if let Some(member) = others().find(|member| member.path == PathKind::None) {
        let what = format!("{what}, {none} not at all: {}, {}", member.name, member.why);
        return Finding::bad("paths", what, "wait a few seconds; if it stays, look at the relay above");
    }
    match others().find_map(|member| Some((member, member.fix.as_ref()?))) {
        Some((member, fix)) => Finding::warning("paths", what, format!("{}: {fix}", member.name)),
        None => Finding::good("paths", what),
    }
}

fn network(network: &NetworkStatus) -> Finding {
    let nat = &network.nat;
    let forward = || network.not_forwarded.clone().unwrap_or_else(|| "switch on UPnP in the router".into());
    if nat.udp_blocked == Some(true) {
        return Finding::bad("nat", "UDP gets no answer", "let UDP out in this network's firewall");
    }
    if let Some(external) = network.forwarded {
        return Finding::good("nat", format!("the router forwards {external} to this device"));
    }
    if nat.is_public == Some(true) {
        return Finding::good("nat", "no NAT");
    }
    match nat.mapping {
        Some(Mapping::EndpointIndependent) => Finding::good("nat", "one port for all destinations"),
        Some(_) => Finding::warning("nat", "another port for every destination (symmetric NAT)", forward()),
        None => Finding::good("nat", "not known yet; `lanrage netcheck` looks").curable(Cure::Netcheck),
    }
}

/// Probes of both ends open a firewall too: no pinhole is no fault.
fn ipv6(network: &NetworkStatus) -> Option<Finding> {
    let what = match &network.pinhole {
        Some(pinhole) => format!("the router's firewall lets everybody in to {}", pinhole.address),
        None if network.nat.has_ipv6 == Some(true) => "works; the router opens no pinhole".to_owned(),
        None => return None,
    };
    Some(Finding::good("ipv6", what))
}
