//! `lanrage firewall`: what other members reach on this machine.

use super::arguments::Firewall;
use super::screen::{Screen, Style};
use super::show::fact;
use super::table::{Cell, Table};
use lanrage_common::api::{FirewallRequest, FirewallStatus, RefusedPort, Status};
use lanrage_common::firewall::{Choice, Mode, PortRange, Word};

impl Firewall {
    /// What the daemon is told.
    pub(super) fn request(self) -> FirewallRequest {
        let words = |ports: Vec<PortRange>, choice| {
            let words = ports.into_iter().map(|ports| Word { ports, choice }).collect();
            FirewallRequest { mode: None, words }
        };
        match self {
            Self::Open => FirewallRequest { mode: Some(Mode::Open), words: Vec::new() },
            Self::Close => FirewallRequest { mode: Some(Mode::Games), words: Vec::new() },
            Self::Allow { ports } => words(ports, Choice::Allow),
            Self::Deny { ports } => words(ports, Choice::Deny),
            Self::Auto { ports } => words(ports, Choice::Auto),
        }
    }
}

/// One line, for the status.
pub(super) fn summary(firewall: &FirewallStatus) -> String {
    match (firewall.mode, firewall.refused_total.values().sum::<u64>()) {
        (Mode::Open, _) => {
            "open: members reach everything on this machine; `lanrage firewall close` closes it".into()
        }
        (Mode::Games, 0) => "games: members reach games on this machine, and nothing else".into(),
        (Mode::Games, refused) => {
            format!("games: {refused} packets to other ports were refused, `lanrage firewall` tells which")
        }
    }
}

pub(super) fn show(screen: &mut Screen<'_>, status: &Status) {
    let Some(firewall) = &status.firewall else {
        return screen.line("This daemon is no member of a party: start one with the peer role.");
    };
    fact(screen, "Firewall", &summary(firewall));
    said(screen, "Allowed", firewall, Choice::Allow);
    said(screen, "Denied", firewall, Choice::Deny);
    if firewall.mode == Mode::Games {
        list(screen, "Games", firewall.games.iter().map(ToString::to_string));
        list(screen, "Reached", firewall.reached.iter().map(ToString::to_string));
        list(screen, "Playing", firewall.players.iter().map(|port| format!("udp/{port}")));
    }
    let counts = firewall.refused_total.iter().map(|(reason, count)| format!("{reason}:{count}"));
    list(screen, "Refused", counts);
    if !firewall.refused.is_empty() {
        screen.line("");
        refused(screen, &firewall.refused);
    }
}

fn said(screen: &mut Screen<'_>, name: &str, firewall: &FirewallStatus, choice: Choice) {
    let words = firewall.words.iter().filter(|word| word.choice == choice);
    list(screen, name, words.map(|word| word.ports.to_string()));
}

fn list(screen: &mut Screen<'_>, name: &str, ports: impl Iterator<Item = String>) {
    let ports: Vec<_> = ports.collect();
    if !ports.is_empty() {
        fact(screen, name, &ports.join(" "));
    }
}

fn refused(screen: &mut Screen<'_>, refused: &[RefusedPort]) {
    let mut table = Table::new(["REFUSED", "MEMBER", "PACKETS", "WHY", "TO OPEN IT"]);
    for RefusedPort { member, address, port, packets, why, may_be_game } in refused {
        let member = member.clone().unwrap_or_else(|| address.to_string());
        let style = if *may_be_game { Style::Warn } else { Style::Dim };
        table.row([
            port.to_string().into(),
            member.into(),
            packets.to_string().into(),
            Cell::new(why, style),
            Cell::new(format!("lanrage firewall allow {port}"), Style::Dim),
        ]);
    }
    table.print(screen);
}
