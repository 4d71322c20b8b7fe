//! What the suite found, for programs, terminals and the documentation.

use super::LaneKind;
use anyhow::{Context, Result};
use lanrage_daemon::games::{Games, Profile, Support};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- games: written by `cargo xtask test games --docs docs` -->";
const END: &str = "<!-- end of games -->";

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A game that must be found in its LAN list.
    LanList,
    /// A game that is joined by address.
    DirectIp,
    /// Something that must not cross.
    Control,
    /// A game that no lane of IP packets can carry.
    NotCarried,
}

/// One game, or one rule, over one lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The game's id.
    pub id: String,
    /// `userspace` or `kernel`.
    pub lane: &'static str,
    /// What it is about.
    pub kind: Kind,
    /// Whether everything was as it must be.
    pub pass: bool,
    /// Why not.
    pub why: String,
}

impl Row {
    /// Whether it should have passed and did not.
    pub fn is_red(&self) -> bool {
        !self.pass && self.kind != Kind::NotCarried
    }

    const fn mark(&self) -> &'static str {
        match (self.pass, self.kind) {
            (true, _) => "green",
            (false, Kind::NotCarried) => "not carried",
            (false, _) => "RED",
        }
    }
}

/// All rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In order of lanes, then ids.
    pub rows: Vec<Row>,
}

impl Report {
    /// How many games of this kind pass over all lanes that were tried.
    pub fn green(&self, kind: Kind) -> usize {
        self.ids().filter(|id| self.of(id).all(|row| row.pass && row.kind == kind)).count()
    }

    fn summary(&self) -> String {
        format!(
            "{} games are found in their LAN list, {} are joined by address, {} kinds of packets that must not cross \
             do not; {} rows are red.",
            self.green(Kind::LanList),
            self.green(Kind::DirectIp),
            self.green(Kind::Control),
            self.red().count()
        )
    }

    /// Rows that should be green and are not.
    pub fn red(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_red())
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        let first = self.rows.first().map(|row| row.lane);
        self.rows.iter().filter(move |row| Some(row.lane) == first).map(|row| row.id.as_str())
    }

    fn of(&self, id: &str) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.id == id)
    }

    /// A line a row, aligned, and a summary.
    pub fn table(&self, colours: bool) -> String {
        let mut text = String::new();
        for id in self.ids() {
            let _ = write!(text, "{id:<28}");
            for row in self.of(id) {
                let mark = format!("{:<13}", row.mark());
                let colour = match (row.pass, row.kind) {
                    (true, _) => "32",
                    (false, Kind::NotCarried) => "2",
                    (false, _) => "31;1",
                };
                text += &if colours { format!("\x1b[{colour}m{mark}\x1b[0m") } else { mark };
            }
            let why = self.of(id).map(|row| row.why.as_str()).find(|why| !why.is_empty());
            text = text.trim_end().to_owned()
                + why.map(|why| format!("  {why}")).as_deref().unwrap_or("")
                + "\n";
        }
        text + "\n" + &self.summary() + "\n"
    }

    /// Puts the table into games.md of this directory.
    pub fn write_page(&self, docs: &Path, machine: &str) -> Result<()> {
        let page = docs.join("games.md");
        let text =
            std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        let place = || format!("{} has no place for the games: {BEGIN} … {END}", page.display());
        let (before, rest) = text.split_once(BEGIN).with_context(place)?;
        let (_, after) = rest.split_once(END).with_context(place)?;
        let text = format!("{before}{BEGIN}\n\n{machine}\n\n{}\n{END}{after}", self.markdown());
        std::fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))
    }

    fn markdown(&self) -> String {
        let games = Games::built_in().games;
        let mut text =
            "| game | id | how it is found | userspace | kernel |\n|---|---|---|---|---|\n".to_owned();
        for id in self.ids() {
            let (name, how) = match games.get(id) {
                Some(game) => (game.name.as_str(), how(game)),
                None => ("must not cross", String::new()),
            };
            let cell = |lane: LaneKind| {
                let row = self.of(id).find(|row| row.lane == lane.word());
                row.map_or("not tried", Row::mark)
            };
            let [userspace, kernel] = LaneKind::ALL.map(cell);
            let _ = writeln!(text, "| {name} | `{id}` | {how} | {userspace} | {kernel} |");
        }
        text + "\n" + &self.summary() + "\n"
    }
}

fn how(game: &Profile) -> String {
    match (&game.discovery, game.support) {
        (Some(discovery), _) => {
            let join = |words: Vec<String>| words.join(", ");
            let to = join(discovery.to.iter().map(ToString::to_string).collect());
            let ports = join(discovery.ports.iter().map(ToString::to_string).collect());
            let classes: Vec<String> = discovery.classes.iter().map(|class| format!("{class:?}")).collect();
            format!("{to}:{ports} ({})", classes.join(" "))
        }
        (None, Support::NotCarried) => game.note.clone().unwrap_or_default(),
        (None, _) => "by address".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, lane: &'static str, kind: Kind, pass: bool) -> Row {
        Row { id: id.into(), lane, kind, pass, why: if pass { String::new() } else { "so".into() } }
    }

    #[test]
    fn a_game_counts_when_it_is_green_over_every_lane() {
        let mut rows = Vec::new();
        for lane in ["userspace", "kernel"] {
            rows.push(row("quake-3", lane, Kind::LanList, true));
            rows.push(row("terraria", lane, Kind::LanList, lane == "kernel"));
            rows.push(row("ipx-games", lane, Kind::NotCarried, false));
            rows.push(row("no-llmnr", lane, Kind::Control, true));
        }
        let report = Report { rows };
        assert_eq!(report.green(Kind::LanList), 1);
        assert_eq!(
            report.red().map(|row| (row.id.as_str(), row.lane)).collect::<Vec<_>>(),
            [("terraria", "userspace")]
        );
        let table = report.table(false);
        assert!(table.contains("terraria                    RED          green  so\n"), "{table}");
        assert!(table.contains("\n1 games are found in their LAN list, 0 are"), "{table}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["id"], "quake-3");
        assert_eq!(json["rows"][0]["lane"], "userspace");
        assert_eq!(json["rows"][0]["pass"], true);
        assert_eq!(json["rows"][0]["why"], "");
    }
}
