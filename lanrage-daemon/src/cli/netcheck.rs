//! `lanrage netcheck`: the network around this machine.

use super::client::Client;
use super::failure::Failure;
use super::screen::{Screen, Style};
use super::table::{Cell, Table};
use crate::config::{self, Sources};
use crate::netcheck;
use lanrage_common::api::{NetworkStatus, Status};
use lanrage_common::nat::{Allocation, Behaviour, Filtering, Mapping, PortMapping};
use std::net::SocketAddr;

/// Asks the daemon, which knows the relays and owns the tunnel's socket; without one, or when servers are named, asks
/// from sockets of its own. Fails when UDP is blocked.
pub(super) async fn run(
    client: &Client,
    screen: &mut Screen<'_>,
    servers: &[String],
    json: bool,
) -> Result<u8, Failure> {
    let network = if servers.is_empty() { ask(client, screen, json).await? } else { None };
    let network = match network {
        Some(network) => network,
        None => alone(servers, known_control(client).await).await?,
    };
    if json {
        screen.line(serde_json::to_string(&network).unwrap_or_default());
    } else {
        show(screen, &network);
    }
    Ok(u8::from(network.nat.udp_blocked == Some(true)))
}

/// `None` when there is no daemon that could tell.
async fn ask(client: &Client, screen: &mut Screen<'_>, json: bool) -> Result<Option<NetworkStatus>, Failure> {
    match client.post::<NetworkStatus>("/api/v1/netcheck").await {
        Ok(answer) => Ok(Some(answer.value)),
        Err(failure @ (Failure::NotRunning(_) | Failure::NotAllowed(_) | Failure::Refused(_))) => {
            if !json {
                let (why, _) = failure.lines();
                screen.line(format!("Looking without the daemon's help: {why}.\n"));
            }
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// The control server of the party that this device is in, whether or not the tunnel is up.
async fn known_control(client: &Client) -> Option<String> {
    let status = client.get::<Status>("/api/v1/status").await.ok()?.value;
    status.control.map(|control| control.url)
}

async fn alone(servers: &[String], control: Option<String>) -> Result<NetworkStatus, Failure> {
    // a configuration that cannot be read is no reason not to look
    let config = config::load(&Sources::from_process(None, Vec::new())).ok();
    let peer = config.map(|loaded| loaded.config.peer);
    let names = match (servers, &peer) {
        ([], Some(peer)) => peer.stun_servers.clone(),
        _ => servers.to_vec(),
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for name in &names {
        let found = tokio::net::lookup_host(name).await;
        let mut found = found.map_err(|error| wrong_server(name, &error.to_string()))?;
        addresses.extend(found.next());
    }
    let control = control.or(peer.and_then(|peer| peer.control));
    netcheck::run(&addresses, control.as_deref()).await.map_err(|error| {
        Failure::Local(format!("cannot open UDP sockets: {error}"), "free some ports".into())
    })
}

fn wrong_server(name: &str, cause: &str) -> Failure {
    Failure::Local(
        format!("the STUN server {name} cannot be found ({cause})"),
        "write it as stun.example:3478, and check the name".into(),
    )
}

fn show(screen: &mut Screen<'_>, network: &NetworkStatus) {
    let nat = &network.nat;
    let mut table = Table::new(["", ""]);
    for (what, said) in facts(network) {
        table.row([Cell::new(what, Style::Bold), said]);
    }
    table.print(screen);
    if let Some(problem) = &network.not_forwarded {
        screen.line(format!("\n{problem}"));
    }
    if let Some(problem) = &network.no_pinhole {
        screen.line(format!("\n{problem}"));
    }
    if network.servers.is_empty() {
        let hint = "No server was asked: name one with `--server HOST:PORT`, or as `peer.stun_servers` in lanrage.toml.";
        return screen.line(format!("\n{hint}"));
    }
    screen.line("");
    servers(screen, network);
    if nat.udp_blocked == Some(true) {
        screen.line("\nLet UDP out in this network's firewall, or use another network. Until then LANrage plays over TLS.");
    }
}

fn facts(network: &NetworkStatus) -> Vec<(&'static str, Cell)> {
    let nat = &network.nat;
    let protocols = match &network.protocols[..] {
        [] => Cell::new("none of UPnP, NAT-PMP, PCP", Style::Warn),
        found => Cell::new(found.iter().map(|it| protocol(*it)).collect::<Vec<_>>().join(", "), Style::Good),
    };
    vec![
        ("UDP", answer(nat.udp_blocked.map(|blocked| !blocked), "works", "blocked: no answer")),
        ("IPv4", address(nat)),
        ("IPv6", answer(nat.has_ipv6, "works", "no")),
        ("Mapping", nat.mapping.map_or_else(unknown, mapping)),
        ("Filtering", nat.filtering.map_or_else(unknown, filtering)),
        ("Ports", nat.allocation.map_or_else(unknown, allocation)),
        ("Hairpin", answer(nat.hairpin, "yes", "no")),
        ("Lifetime", nat.lifetime_s.map_or_else(unknown, |seconds| format!("at least {seconds} s").into())),
        (
            "Carrier's NAT",
            answer(
                nat.is_cgnat.map(|is_cgnat| !is_cgnat),
                "none seen",
                "yes: a port forwarded at home leads nowhere",
            ),
        ),
        ("Router speaks", protocols),
        ("Forwarded", forwarded(network)),
        ("IPv6 pinhole", pinhole(network)),
        (
            "Login page",
            answer(
                network.captive_portal.map(|portal| !portal),
                "none",
                "yes: open any page in a browser and log in to this network",
            ),
        ),
    ]
}

fn unknown() -> Cell {
    Cell::new("unknown", Style::Dim)
}

fn answer(is_good: Option<bool>, good: &str, bad: &str) -> Cell {
    match is_good {
        Some(true) => Cell::new(good, Style::Good),
        Some(false) => Cell::new(bad, Style::Warn),
        None => unknown(),
    }
}

fn address(nat: &Behaviour) -> Cell {
    let Some(address) = nat.public_address else { return unknown() };
    match nat.is_public {
        Some(true) => Cell::new(format!("{address}, no NAT"), Style::Good),
        Some(false) => format!("{address}, behind a NAT").into(),
        None => address.to_string().into(),
    }
}

fn mapping(mapping: Mapping) -> Cell {
    match mapping {
        Mapping::EndpointIndependent => Cell::new("one port for all destinations", Style::Good),
        Mapping::AddressDependent => Cell::new("another port for every address (symmetric)", Style::Warn),
        Mapping::AddressAndPortDependent => {
            Cell::new("another port for every destination (symmetric)", Style::Warn)
        }
    }
}

fn filtering(filtering: Filtering) -> Cell {
    match filtering {
        Filtering::EndpointIndependent => Cell::new("lets everybody in", Style::Good),
        Filtering::AddressDependent => Cell::new("lets in addresses that were sent to", Style::Good),
        Filtering::AddressAndPortDependent => "lets in addresses and ports that were sent to".into(),
    }
}

fn allocation(allocation: Allocation) -> Cell {
    match allocation {
        Allocation::Preserving => Cell::new("kept", Style::Good),
        Allocation::Step(step) => format!("in steps of {step}").into(),
        Allocation::Random => Cell::new("at random", Style::Warn),
    }
}

fn protocol(protocol: PortMapping) -> &'static str {
    match protocol {
        PortMapping::None => "none",
        PortMapping::Upnp => "UPnP",
        PortMapping::NatPmp => "NAT-PMP",
        PortMapping::Pcp => "PCP",
    }
}

fn forwarded(network: &NetworkStatus) -> Cell {
    match (network.forwarded, network.nat.port_mapping) {
        (Some(external), Some(by)) => Cell::new(format!("{external} by {}", protocol(by)), Style::Good),
        (None, Some(_)) => Cell::new("no", Style::Dim),
        _ => unknown(),
    }
}

fn pinhole(network: &NetworkStatus) -> Cell {
    match (&network.pinhole, &network.no_pinhole) {
        (Some(pinhole), _) => {
            Cell::new(format!("{} by {}", pinhole.address, protocol(pinhole.by)), Style::Good)
        }
        (None, Some(_)) => Cell::new("no", Style::Dim),
        (None, None) => unknown(),
    }
}

fn servers(screen: &mut Screen<'_>, network: &NetworkStatus) {
    let mut table = Table::new(["SERVER", "ADDRESS", "RTT", "SEES THIS DEVICE AT"]);
    let mut servers: Vec<_> = network.servers.iter().collect();
    servers.sort_by(|a, b| a.rtt_ms.unwrap_or(f64::MAX).total_cmp(&b.rtt_ms.unwrap_or(f64::MAX)));
    for server in servers {
        table.row([
            server.relay.clone().unwrap_or_else(|| "-".into()).into(),
            server.address.to_string().into(),
            server.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.1} ms")).into(),
            server
                .mapped
                .map_or_else(|| Cell::new("no answer", Style::Warn), |mapped| mapped.to_string().into()),
        ]);
    }
    table.print(screen);
}
