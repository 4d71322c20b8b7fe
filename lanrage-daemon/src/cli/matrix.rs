//! `lanrage matrix`: how members reach each other, and who should host.

use super::screen::{Screen, Style};
use super::table::{Cell, Table};
use lanrage_common::api::{LinkStatus, PartyStatus};
use lanrage_common::score;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// What `--json` prints.
pub(super) fn part(party: Option<&PartyStatus>) -> Value {
    json!(party.map(|party| party.matrix.clone()).unwrap_or_default())
}

/// One line per pair, the hosts, and the advice.
pub(super) fn show(screen: &mut Screen<'_>, party: &PartyStatus) {
    let matrix = &party.matrix;
    if matrix.links.is_empty() {
        return screen.line("No member is reached yet, so there is nothing to compare.");
    }
    let mut links = Table::new(["FROM", "TO", "PATH", "RTT", "JITTER", "LOSS", "QUALITY"]);
    for link in &matrix.links {
        links.row(row(party, link));
    }
    links.print(screen);
    if !matrix.hosts.is_empty() {
        screen.line("");
        let mut hosts = Table::new(["HOST", "LONGEST RTT", "TO", "QUALITY"]);
        for host in &matrix.hosts {
            hosts.row([
                host.name.as_str().into(),
                format!("{:.1} ms", host.worst_rtt_ms).into(),
                host.worst_with.as_str().into(),
                quality(Some(host.quality)),
            ]);
        }
        hosts.print(screen);
    }
    let unknown = "Who should host is not known yet: it takes a moment until members have told.";
    screen.line("");
    screen.line(matrix.advice.as_deref().unwrap_or(unknown).replace(char::is_control, ""));
}

fn row(party: &PartyStatus, link: &LinkStatus) -> [Cell; 7] {
    let milliseconds = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1} ms"));
    let path = serde_json::to_value(link.path).ok();
    let path = path.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    [
        name(party, link.from).into(),
        name(party, link.to).into(),
        path.into(),
        milliseconds(link.rtt_ms).into(),
        milliseconds(link.jitter_ms).into(),
        link.loss.map_or("-".into(), |loss| format!("{:.0} %", loss * 100.0)).into(),
        quality(link.quality),
    ]
}

fn name(party: &PartyStatus, address: Ipv4Addr) -> String {
    let member = party.members.iter().find(|member| member.address == address);
    member.map_or_else(|| address.to_string(), |member| member.name.clone())
}

/// The score with its word.
pub(super) fn quality(quality: Option<u8>) -> Cell {
    let style = match quality {
        Some(80..) => Style::Good,
        Some(50..80) => Style::Warn,
        Some(_) => Style::Bad,
        None => Style::Dim,
    };
    Cell::new(quality.map_or("-".into(), |quality| format!("{quality} {}", score::word(quality))), style)
}
