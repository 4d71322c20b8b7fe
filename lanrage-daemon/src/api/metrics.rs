//! The status as Prometheus text (exposition format 0.0.4). docs/metrics.md lists every metric.

pub(crate) mod outside;
mod relay;
#[cfg(test)]
mod tests;

use lanrage_common::api::{
    CarrierStatus, GameServer, GatewayStatus, LaneStatus, MemberStatus, PartyStatus, PathKind, RelayDetail,
    Status,
};
use lanrage_common::firewall::Mode;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

const PATHS: [(PathKind, &str); 4] = [
    (PathKind::Direct, "direct"),
    (PathKind::Relay, "relay"),
    (PathKind::Tls, "tls"),
    (PathKind::None, "none"),
];
/// Of the pages.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that this daemon can tell, for its owner.
pub(super) fn render(status: &Status, detail: Option<&RelayDetail>) -> String {
    let mut page = Page::default();
    page.family("lanrage_info", "gauge", "Version and roles of the daemon.");
    page.sample("lanrage_info", &[("version", &status.version), ("roles", &status.roles.join(","))], 1);
    page.family("lanrage_up", "gauge", "Whether the tunnel is meant to be up.");
    page.sample("lanrage_up", &[], u8::from(status.up));
    page.family("lanrage_problem", "gauge", "Problems that need a person, by code.");
    for problem in &status.problems {
        page.sample("lanrage_problem", &[("code", &problem.code)], 1);
    }
    if let Some(control) = &status.control {
        page.family("lanrage_control_connected", "gauge", "Whether the control server is connected.");
        page.sample("lanrage_control_connected", &[("url", &control.url)], u8::from(control.connected));
    }
    if let Some(party) = &status.party {
        page.party(party);
    }
    if let Some(gateway) = &status.gateway {
        page.gateway(gateway);
    }
    if let Some(firewall) = &status.firewall {
        page.family(
            "lanrage_firewall_refused_total",
            "counter",
            "Members' packets that the party firewall refused.",
        );
        for (reason, count) in &firewall.refused_total {
            page.sample("lanrage_firewall_refused_total", &[("reason", reason)], count);
        }
        page.family("lanrage_firewall_open", "gauge", "Whether members may reach everything.");
        page.sample("lanrage_firewall_open", &[], u8::from(firewall.mode == Mode::Open));
    }
    if let Some(games) = &status.games {
        page.family("lanrage_game_running", "gauge", "1 while a game runs here.");
        for game in &games.running {
            page.sample("lanrage_game_running", &[("game", &game.id)], 1);
        }
    }
    if let Some(server) = &status.server {
        page.family("lanrage_server_online", "gauge", "Devices connected to the control server here.");
        page.sample("lanrage_server_online", &[], server.online);
        page.family("lanrage_server_relays", "gauge", "Relays on the list of the control server here.");
        page.sample("lanrage_server_relays", &[], server.relays);
    }
    if let Some(relay) = &status.relay {
        page.relay(relay);
    }
    if let Some(detail) = detail {
        page.relay_detail(detail);
    }
    page.text
}

/// The relay's part alone, for others.
fn relay_page(detail: &RelayDetail) -> String {
    let mut page = Page::default();
    page.family("lanrage_info", "gauge", "Version and roles of the daemon.");
    page.sample("lanrage_info", &[("version", env!("CARGO_PKG_VERSION")), ("roles", "relay")], 1);
    page.relay(&detail.status);
    page.relay_detail(detail);
    page.text
}

#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn party(&mut self, party: &PartyStatus) {
        let others: Vec<_> = party.members.iter().filter(|member| !member.is_self).collect();
        self.family("lanrage_party_members", "gauge", "Members of the party, this device included.");
        self.sample("lanrage_party_members", &[("party", &party.name)], party.members.len());
        self.family("lanrage_peer_path", "gauge", "1 for the path in use, by peer.");
        for member in &others {
            for (kind, path) in PATHS {
                let address = member.address.to_string();
                let labels = [("peer", member.name.as_str()), ("address", &address), ("path", path)];
                self.sample("lanrage_peer_path", &labels, u8::from(member.path == kind));
            }
        }
        let seconds = |milliseconds: Option<f64>| milliseconds.map(|value| value / 1000.0);
        self.per_peer(&others, "online", "gauge", "Connected to the control server.", |member| {
            Some(f64::from(u8::from(member.online)))
        });
        self.per_peer(&others, "rtt_seconds", "gauge", "Median round trip.", |member| seconds(member.rtt_ms));
        self.per_peer(&others, "jitter_seconds", "gauge", "Mean change of the round trip.", |member| {
            seconds(member.jitter_ms)
        });
        self.per_peer(&others, "loss_ratio", "gauge", "Probes without an answer, 0 to 1.", |member| {
            member.loss
        });
        let help = "How well one can play with it, 0 to 100: docs/metrics.md has the formula.";
        self.per_peer(&others, "quality", "gauge", help, |member| member.quality.map(f64::from));
        self.per_peer(&others, "receive_bytes_total", "counter", "Payload received.", |member| {
            Some(member.rx_bytes as f64)
        });
        self.per_peer(&others, "transmit_bytes_total", "counter", "Payload sent.", |member| {
            Some(member.tx_bytes as f64)
        });
        self.game_servers(&party.servers);
        self.carriers(&party.carriers);
        self.path_events(&party.path_events);
        self.lane(&party.lane);
    }

    fn game_servers(&mut self, servers: &[GameServer]) {
        self.family("lanrage_game_players", "gauge", "Who plays on the game servers that run at members.");
        for server in servers {
            let address = server.address.to_string();
            let labels = [("game", server.game.as_str()), ("host", &server.host), ("address", &address)];
            if let Some(players) = server.players {
                self.sample("lanrage_game_players", &labels, players);
            }
        }
    }

    fn path_events(&mut self, events: &BTreeMap<String, u64>) {
        let name = "lanrage_path_events_total";
        if !events.is_empty() {
            self.family(
                name,
                "counter",
                "Probes, signals and candidates of members, by what became of them.",
            );
        }
        for (event, count) in events {
            self.sample(name, &[("event", event)], *count);
        }
    }

    fn carriers(&mut self, carriers: &[CarrierStatus]) {
        let name = "lanrage_carrier_datagrams_total";
        if !carriers.is_empty() {
            self.family(name, "counter", "Datagrams over TLS to the relay at this address.");
        }
        for carrier in carriers {
            let address = carrier.address.to_string();
            let counts = [("in", carrier.received), ("out", carrier.sent), ("dropped", carrier.dropped)];
            for (direction, count) in counts {
                self.sample(name, &[("address", &address), ("direction", direction)], count);
            }
        }
    }

    fn per_peer(
        &mut self,
        members: &[&MemberStatus],
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&MemberStatus) -> Option<f64>,
    ) {
        let name = format!("lanrage_peer_{name}");
        self.family(&name, kind, help);
        for member in members {
            if let Some(value) = value(member) {
                let address = member.address.to_string();
                self.sample(&name, &[("peer", &member.name), ("address", &address)], value);
            }
        }
    }

    fn lane(&mut self, lane: &LaneStatus) {
        for (name, help, value) in [
            ("lanrage_lane_seen_total", "Group packets seen on the interface.", lane.seen),
            ("lanrage_lane_copied_total", "Copies sent to members.", lane.copied),
            (
                "lanrage_lane_spared_total",
                "Copies not made, because the member has not joined the group.",
                lane.spared,
            ),
            (
                "lanrage_lane_replayed_total",
                "Announcements sent once more, to a member that has come late.",
                lane.replayed,
            ),
            ("lanrage_lane_delivered_total", "Group packets delivered to this device.", lane.delivered),
        ] {
            self.family(name, "counter", help);
            self.sample(name, &[], value);
        }
        self.family("lanrage_lane_dropped_total", "counter", "Group packets dropped, by reason.");
        for (reason, count) in &lane.dropped {
            self.sample("lanrage_lane_dropped_total", &[("reason", reason)], count);
        }
    }

    fn gateway(&mut self, gateway: &GatewayStatus) {
        self.family("lanrage_gateway_devices", "gauge", "Devices without LANrage behind this one.");
        self.sample("lanrage_gateway_devices", &[], gateway.devices.len());
        let name = "lanrage_gateway_packets_total";
        self.family(name, "counter", "Packets of devices behind this one and for them.");
        for (direction, to, count) in [
            ("in", "one", gateway.from_devices),
            ("out", "one", gateway.to_devices),
            ("in", "all", gateway.groups_from_devices),
            ("out", "all", gateway.groups_to_devices),
        ] {
            self.sample(name, &[("direction", direction), ("to", to)], count);
        }
        let name = "lanrage_gateway_dropped_total";
        self.family(name, "counter", "Packets of devices or for them that were dropped.");
        for (reason, count) in &gateway.dropped {
            self.sample(name, &[("reason", reason)], *count);
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let braced = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{braced} {value}");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
