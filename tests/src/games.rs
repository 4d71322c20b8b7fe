//! The game conformance suite: every profile that a LAN can carry is played between two peers of a lab party, as the game
//! does it on the network, and everything that must not cross is tried too.
//!
//! A game passes when all of this holds, with its sockets opened before the party was there, and again with sockets opened
//! afterwards:
//! - each packet to everybody arrives exactly as often as it was sent, with the sender's overlay address as source and with
//!   source port, destination, time to live and payload unchanged;
//! - the answer comes back the way the game wants it;
//! - the client joins at the host's ports, and new connections from the host to the client work, by TCP and UDP.
//!
//! All games share two labs' worth of time: they are played side by side, see [`round`].

pub mod report;
mod round;
mod rules;
mod side;

use crate::lab::nat::NatKind::Eim;
use crate::lab::process::wait_until;
use crate::lab::role::Role;
use crate::lab::running::{Lab, Options, down};
use crate::lab::traffic::{Station, ping};
use anyhow::{Context, Result, ensure};
use lanrage_common::api::{LaneMode, LaneStatus};
use lanrage_common::firewall::{Port, Transport, service};
use lanrage_daemon::games::{Games, Profile, Protocol, Support};
use report::{Kind, Row};
use round::Round;
use std::collections::BTreeMap;
use std::time::Duration;

/// Name of the lab.
pub const LAB: &str = "games";
/// How long a party may take to be there.
const PARTY: Duration = Duration::from_secs(30);
/// Services that are carried only on demand.
const SERVICES: [&str; 3] = ["mdns", "ssdp", "wsd"];

/// Who carries group packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LaneKind {
    /// The daemon.
    Userspace,
    /// The kernel.
    Kernel,
}

impl LaneKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Userspace, Self::Kernel];

    /// As the configuration writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
            Self::Kernel => "kernel",
        }
    }

    const fn mode(self) -> LaneMode {
        match self {
            Self::Userspace => LaneMode::Userspace,
            Self::Kernel => LaneMode::Kernel,
        }
    }
}

/// A game's id and profile.
pub type Game = (String, Profile);

/// What went wrong, by row.
pub type Faults = BTreeMap<String, String>;

/// Plays all built-in games over one lane.
pub fn run(lane: LaneKind) -> Result<Vec<Row>> {
    let games = Games::built_in();
    ensure!(games.unusable.is_empty(), "not profiles: {:?}", games.unusable);
    let options = Options { lane: lane.word().into(), ..Options::new(LAB, &[Eim, Eim]) };
    down(LAB)?;
    let lab = Lab::up(&options)?;
    let result = play(lab, lane, &games);
    down(LAB)?;
    let faults = result?;
    Ok(rows(lane, &games, &faults))
}

fn play(mut lab: Lab, lane: LaneKind, games: &Games) -> Result<Faults> {
    let playable =
        |game: &&(&String, &Profile)| matches!(game.1.support, Support::LanList | Support::DirectIp);
    let all = games.games.iter().filter(|game| playable(&game)).map(|(id, game)| (id.clone(), game.clone()));
    let (on_demand, plain): (Vec<Game>, Vec<Game>) = all.partition(|(_, game)| game.service.is_some());
    let mut faults = Faults::new();
    open_service_ports(&lab, &plain)?;

    let mut round = Round::open(&lab, &plain)?;
    lab.form_party()?;
    ready(&lab, lane)?;
    round.play(&lab, &mut faults, "opened before the party")?;
    drop(round);
    Round::open(&lab, &plain)?.play(&lab, &mut faults, "opened in the party")?;
    rules::check(&lab, &mut faults)?;

    lab.change_lane_services(&SERVICES)?;
    for n in [1, 2] {
        lab.lanrage_output(Role::Peer(n), &["down"])?;
    }
    let mut round = Round::open(&lab, &on_demand)?;
    for n in [1, 2] {
        lab.lanrage_output(Role::Peer(n), &["up"])?;
    }
    ready(&lab, lane)?;
    round.play(&lab, &mut faults, "opened before the party")?;
    drop(round);
    Round::open(&lab, &on_demand)?.play(&lab, &mut faults, "opened in the party")?;
    Ok(faults)
}

/// What a host is told to do whose game is on the port of a service.
fn open_service_ports(lab: &Lab, games: &[Game]) -> Result<()> {
    for ports in games.iter().flat_map(|(_, game)| &game.ports) {
        let transport = match ports.protocol {
            Protocol::Udp => Transport::Udp,
            Protocol::Tcp => Transport::Tcp,
        };
        if service(Port { transport, number: *ports.ports.0.start() }).is_some() {
            for n in [1, 2] {
                lab.lanrage_output(Role::Peer(n), &["firewall", "allow", &ports.to_string()])?;
            }
        }
    }
    Ok(())
}

/// Waits until packets cross, carried by that lane.
fn ready(lab: &Lab, lane: LaneKind) -> Result<()> {
    lab.wait_for_paths()?;
    let from = Station { namespace: lab.namespace(Role::Peer(1)), address: lab.overlay(1)? };
    let to = lab.overlay(2)?;
    let is_answered = || ping(&from, to, 1).is_ok_and(|answer| answer.received == 1);
    ensure!(wait_until(PARTY, is_answered), "no packet crosses:\n{}", lab.explain_paths());
    for n in [1, 2] {
        let mode = lane_status(lab, n)?.mode;
        ensure!(
            mode == lane.mode(),
            "peer {n} carries group packets in {mode:?}: {:?}",
            lane_status(lab, n)?
        );
    }
    Ok(())
}

fn lane_status(lab: &Lab, n: u8) -> Result<LaneStatus> {
    Ok(lab.daemon_status(Role::Peer(n))?.party.context("in no party")?.lane)
}

fn rows(lane: LaneKind, games: &Games, faults: &Faults) -> Vec<Row> {
    let row = |id: &str, kind, why: Option<&String>| Row {
        id: id.into(),
        lane: lane.word(),
        kind,
        pass: kind != Kind::NotCarried && why.is_none(),
        why: why.cloned().unwrap_or_default(),
    };
    let games = games.games.iter().filter_map(|(id, game)| match game.support {
        Support::LanList => Some(row(id, Kind::LanList, faults.get(id))),
        Support::DirectIp => Some(row(id, Kind::DirectIp, faults.get(id))),
        Support::NotCarried => Some(row(id, Kind::NotCarried, game.note.as_ref())),
        Support::Unchecked | Support::OnlineOnly => None,
    });
    let controls = rules::ids().map(|id| row(id, Kind::Control, faults.get(id)));
    games.chain(controls).collect()
}
