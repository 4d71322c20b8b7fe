//! `lanrage games`: what is known of games. Needs no daemon.

use super::arguments;
use super::failure::Failure;
use super::screen::{Screen, Style};
use super::table::{Cell, Table};
use crate::games::{DIRECTORY, Games, Profile, Support, Unusable, check_file};
use lanrage_common::api::Status;
use serde_json::{Value, json};
use std::path::PathBuf;

pub(super) fn show(screen: &mut Screen<'_>, wanted: &arguments::Games, json: bool) -> Result<u8, Failure> {
    let mut games = Games::with_directory(&wanted.directory);
    if let Some(text) = &wanted.name {
        games.games.retain(|id, game| is_meant(id, game, text));
        if games.games.is_empty() {
            return Err(Failure::Local(
                format!("no known game has {text:?} in its name"),
                "`lanrage games` lists all; docs/games.md says how to write a profile".into(),
            ));
        }
    }
    if json {
        screen.line(serde_json::to_string(&games).unwrap_or_default());
        return Ok(0);
    }
    match games.games.iter().next() {
        Some((id, game)) if games.games.len() == 1 => details(screen, id, game),
        _ => list(screen, &games),
    }
    for unusable in &games.unusable {
        let line = screen.paint(Style::Bad, &format!("left out: {unusable}"));
        screen.line(line);
    }
    Ok(0)
}

/// Whether files are profiles that can be used.
pub(super) fn check(screen: &mut Screen<'_>, files: &[PathBuf], json: bool) -> u8 {
    let checked: Vec<_> = files.iter().map(|file| (file, check_file(file))).collect();
    let is_good = checked.iter().all(|(_, result)| result.is_ok());
    if json {
        let describe = |(file, result): &(&PathBuf, Result<(String, Profile), Unusable>)| match result {
            Ok((id, game)) => json!({ "file": file, "id": id, "name": game.name }),
            Err(unusable) => json!({ "file": file, "why": unusable.why }),
        };
        screen.line(Value::from_iter(checked.iter().map(describe)));
        return u8::from(!is_good);
    }
    for (file, result) in checked {
        let line = match result {
            Ok((id, game)) => {
                format!("{}: good: {} ({}), id {id}", file.display(), game.name, game.support.word())
            }
            Err(unusable) => screen.paint(Style::Bad, &unusable.to_string()),
        };
        screen.line(line);
    }
    if is_good {
        screen.line(format!("Put it into {DIRECTORY}; the daemon reads it when it starts."));
    }
    u8::from(!is_good)
}

/// What runs in the party.
pub(super) fn running(screen: &mut Screen<'_>, status: &Status) {
    let own = status.games.iter().flat_map(|games| &games.running).map(|game| {
        let ports: Vec<String> = game.ports.iter().map(ToString::to_string).collect();
        ["this device".to_owned(), game.name.clone(), ports.join(" "), game.dscp.clone()]
    });
    let members = status.party.iter().flat_map(|party| &party.members).filter(|member| !member.is_self);
    let theirs = members.flat_map(|member| {
        member.plays.iter().map(|game| [member.name.clone(), game.clone(), "-".into(), "-".into()])
    });
    let rows: Vec<_> = own.chain(theirs).collect();
    if rows.is_empty() {
        return screen.line(
            "No known game runs, here or at a member that tells: `lanrage games` lists those that are known.",
        );
    }
    let mut table = Table::new(["MEMBER", "PLAYS", "OPEN HERE", "MARKED"]);
    rows.into_iter().for_each(|row| table.row(row.map(Cell::from)));
    table.print(screen);
}

fn is_meant(id: &str, game: &Profile, text: &str) -> bool {
    let text = text.to_lowercase();
    let has = |name: &str| name.to_lowercase().contains(&text);
    has(id) || has(&game.name) || game.titles.iter().any(|title| has(title))
}

fn list(screen: &mut Screen<'_>, games: &Games) {
    let mut table = Table::new(["ID", "GAME", "SUPPORT", "PLAYED ON"]);
    for (id, game) in &games.games {
        table.row([id.as_str().into(), game.name.as_str().into(), support(game), ports(game).into()]);
    }
    table.print(screen);
}

fn details(screen: &mut Screen<'_>, id: &str, game: &Profile) {
    let mut lines = vec![("id", id.to_owned()), ("game", game.name.clone())];
    if !game.titles.is_empty() {
        lines.push(("titles", game.titles.join(", ")));
    }
    lines.push(("support", format!("{}: {}", game.support.word(), meaning(game.support))));
    if let Some(discovery) = &game.discovery {
        let to: Vec<String> = discovery.to.iter().map(ToString::to_string).collect();
        let ports: Vec<String> = discovery.ports.iter().map(ToString::to_string).collect();
        lines.push(("found by", format!("{} on UDP port {}", to.join(" and "), ports.join(", "))));
    }
    if let Some(query) = &game.query {
        let ports: Vec<String> = query.ports.iter().map(ToString::to_string).collect();
        let protocol = serde_json::to_string(&query.protocol).unwrap_or_default();
        lines.push((
            "asked",
            format!("by `lanrage servers`, as {}, on port {}", protocol.trim_matches('"'), ports.join(", ")),
        ));
    }
    if let Some(beacon) = &game.beacon {
        let ports: Vec<String> = beacon.ports.iter().map(ToString::to_string).collect();
        lines.push((
            "announced",
            format!("by its hosts on UDP port {}, read by `lanrage servers`", ports.join(", ")),
        ));
    }
    if !game.ports.is_empty() {
        lines.push(("played on", ports(game)));
    }
    if let Some(names) = &game.processes {
        let all = [&names.linux, &names.windows, &names.macos, &names.arguments].into_iter().flatten();
        lines.push((
            "known by",
            format!("{} ({})", all.cloned().collect::<Vec<_>>().join(", "), names.source),
        ));
        lines.push(("marked", format!("{} while it runs", game.qos.name())));
    }
    if let Some(service) = game.service {
        let word = serde_json::to_string(&service).unwrap_or_default();
        lines.push(("needs", format!("peer.lane_services = [{word}] on both sides")));
    }
    lines.extend(game.note.clone().map(|note| ("note", note)));
    lines.push(("source", format!("{} ({})", game.source, game.evidence.word())));
    for (key, value) in lines {
        screen.line(format!("{key:<10} {value}"));
    }
}

fn ports(game: &Profile) -> String {
    game.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn support(game: &Profile) -> Cell {
    let style = match game.support {
        Support::LanList => Style::Good,
        Support::DirectIp | Support::Unchecked => Style::Plain,
        Support::NotCarried | Support::OnlineOnly => Style::Dim,
    };
    Cell::new(game.support.word(), style)
}

const fn meaning(support: Support) -> &'static str {
    match support {
        Support::LanList => "hosts appear in the game’s own LAN list",
        Support::DirectIp => "type the host’s address in the party",
        Support::Unchecked => "it has a LAN mode, but how hosts are found is not known",
        Support::NotCarried => "its LAN mode is not IP, so a party cannot carry it",
        Support::OnlineOnly => "a LAN does not help",
    }
}
