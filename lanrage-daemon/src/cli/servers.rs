//! `lanrage servers`: what is played in the party, and where to join.

use super::screen::{Screen, Style};
use super::table::{Cell, Table};
use lanrage_common::api::{GameServer, PartyStatus};
use serde_json::{Value, json};

/// What `--json` prints.
pub(super) fn part(party: Option<&PartyStatus>) -> Value {
    json!(party.map(|party| &party.servers[..]).unwrap_or_default())
}

/// One line per server.
pub(super) fn show(screen: &mut Screen<'_>, party: &PartyStatus) {
    if party.servers.is_empty() {
        return screen.line(
            "No game server runs at a member, as far as LANrage can tell. `lanrage games` tells which games it can ask.",
        );
    }
    let mut table = Table::new(["NAME", "GAME", "MAP", "PLAYERS", "HOST", "RTT", "ADDRESS"]);
    for server in &party.servers {
        table.row(row(server));
    }
    table.print(screen);
}

fn row(server: &GameServer) -> [Cell; 7] {
    let locked = if server.password { " (password)" } else { "" };
    let players = match (server.players, server.max_players) {
        (Some(now), Some(most)) => format!("{now} of {most}"),
        (Some(now), None) => now.to_string(),
        (None, _) => "-".into(),
    };
    let host = if server.own { "this device" } else { &server.host };
    let rtt = server.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.1} ms"));
    [
        Cell::new(format!("{}{locked}", server.name), Style::Bold),
        server.title.as_str().into(),
        server.map.as_deref().unwrap_or("-").into(),
        players.into(),
        host.into(),
        rtt.into(),
        server.address.to_string().into(),
    ]
}
