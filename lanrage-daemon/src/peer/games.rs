//! What runs here and what follows from it: open ports, marked packets, a closer watch on paths, and a word to the members.

use super::event_loop::Peer;
use super::session::Session;
use crate::games::{Profile, Protocol};
use lanrage_common::api::{GamesStatus, RunningGame};
use lanrage_common::firewall::{PortRange, Transport};
use lanrage_common::marks::{Marks, Qos};
use lanrage_common::time::Now;

/// The games that run, as far as profiles know them.
#[derive(Debug, Clone, Default)]
pub(super) struct Active {
    /// Whether any runs.
    is_any: bool,
    ports: Vec<PortRange>,
    marks: Marks,
    /// Names for the members; none when they shall not know.
    told: Vec<String>,
}

impl Profile {
    /// Where others reach it, by its ports and those of its discovery.
    fn port_ranges(&self) -> Vec<PortRange> {
        let played = self.ports.iter().filter_map(|game| {
            let transport = match game.protocol {
                Protocol::Tcp => Transport::Tcp,
                Protocol::Udp => Transport::Udp,
            };
            PortRange::new(transport, game.ports.0.clone())
        });
        let found = self.discovery.iter().flat_map(|discovery| &discovery.ports);
        let mut ranges: Vec<PortRange> = played.collect();
        for range in found.filter_map(|ports| PortRange::new(Transport::Udp, ports.0.clone())) {
            if !ranges.iter().any(|known| known.covers(&range)) {
                ranges.push(range);
            }
        }
        ranges
    }
}

impl Peer {
    /// Puts what runs now to work, when that has changed.
    pub(super) fn follow_games(&mut self, now: Now) {
        if self.running.has_changed().unwrap_or(false) {
            let games = self.running.borrow_and_update().games.clone();
            tracing::info!(?games, "games that run");
            self.apply_games(now);
        }
    }

    /// The same at the beginning of a session, and when the configuration has changed.
    pub(super) fn apply_games(&mut self, now: Now) {
        let active = self.active_games();
        // what leaves before the next packet of a game is none of it
        self.sends.set_dscp(0);
        if let Some(session) = &mut self.session {
            session.set_games(active, now);
        }
    }

    fn active_games(&self) -> Active {
        let running = self.running.borrow();
        let profiles = || running.games.iter().filter_map(|id| self.games.games.get(id));
        let marks =
            profiles().flat_map(|game| game.port_ranges().into_iter().map(move |ports| (ports, game.qos)));
        Active {
            is_any: !running.games.is_empty(),
            ports: profiles().flat_map(Profile::port_ranges).collect(),
            marks: if self.config.qos { Marks::new(marks) } else { Marks::default() },
            told: profiles().filter(|_| self.config.share_game).map(|game| game.name.clone()).collect(),
        }
    }

    /// As `lanrage games --running` shows it.
    pub(super) fn games_status(&self) -> GamesStatus {
        let running = self.running.borrow();
        let describe = |id: &String| {
            let game = self.games.games.get(id)?;
            let qos = if self.config.qos { game.qos } else { Qos::Standard };
            Some(RunningGame {
                id: id.clone(),
                name: game.name.clone(),
                ports: game.port_ranges(),
                dscp: qos.name().into(),
            })
        };
        GamesStatus {
            running: running.games.iter().filter_map(describe).collect(),
            shared: self.config.share_game,
            polled: running.polled.clone(),
        }
    }
}

impl Session {
    fn set_games(&mut self, active: Active, now: Now) {
        self.firewall.set_games(active.ports);
        self.marks = active.marks;
        self.paths.set_playing(active.is_any, now);
        self.board.handle_games(active.told, now.instant);
    }
}
