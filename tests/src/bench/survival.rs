//! What a relay's death costs: packets lost while its daemon is killed and started again, and the time until a new daemon
//! knows a million flows.

use super::bed::Bed;
use super::generator::{Blast, Programs, Sent, Source, Traffic};
use super::rows::{DESTINATION, RELAY, RELAY_SEEN, SOURCE};
use super::session::{self, Side};
use super::table;
use crate::lab::process::wait_until;
use crate::relay_daemon::{PORT, RelayDaemon};
use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use lanrage_common::api::RelayMode;
use lanrage_common::maps::{FlowKey, FlowValue, SourceKey};
use lanrage_common::wire::Be16;
use serde::Serialize;
use std::fmt;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of UDP payload of a packet.
const PAYLOAD: usize = 158;
/// Packets a second while the daemon dies.
const RATE: f64 = 1_000_000.0;
/// Between the end of a start and the next death.
const BETWEEN: Duration = Duration::from_secs(1);
/// Members of the party whose flows are adopted; every ordered pair has a flow.
const MEMBERS: u32 = 1_001;
const PATIENCE: Duration = Duration::from_secs(30);

/// The figures.
#[derive(Debug, Clone, Serialize)]
pub struct Survival {
    /// Times that the daemon was killed with SIGKILL.
    pub kills: u32,
    /// Packets a second that were sent meanwhile.
    pub offered_pps: f64,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Flows that a new daemon took over.
    pub flows_adopted: u32,
    /// From the start of its process until it answers and knows them, seconds.
    pub adoption_s: f64,
    /// The same for a relay with one flow: what a start takes anyway.
    pub start_s: f64,
}

impl fmt::Display for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "kill -9 under load   {} times, {} of {} packets lost at {:.2} Mpps (200 B, 1 flow, native XDP)",
            self.kills,
            self.lost,
            self.sent,
            self.offered_pps / 1e6
        )?;
        writeln!(
            f,
            "flows taken over     {} in {:.2} s from the start of the process ({:.2} s with one flow)",
            self.flows_adopted, self.adoption_s, self.start_s
        )
    }
}

/// Runs both; `packets` at least are sent while the daemon dies again and again.
pub fn run(packets: u64) -> Result<Survival> {
    let (kills, sent, lost, start_s) = kills(packets).context("killing the relay under load")?;
    let (flows_adopted, adoption_s) = adoption().context("a million flows")?;
    let offered_pps = sent.frames as f64 / sent.took.as_secs_f64();
    Ok(Survival { kills, offered_pps, sent: sent.frames, lost, flows_adopted, adoption_s, start_s })
}

/// Kills, what was sent, packets lost, and seconds of the longest start.
fn kills(packets: u64) -> Result<(u32, Sent, u64, f64)> {
    let bed = Bed::create(1)?;
    let mut programs = Programs::load()?;
    programs.hold_generator(&bed.client)?;
    bed.pass_at_client()?;
    bed.pass_at_peer()?;
    let mut relay = RelayDaemon::new(&bed.relay, "bench")?;
    relay.run()?;
    let ends = [(&bed.client, SOURCE, RELAY), (&bed.peer, DESTINATION, RELAY_SEEN)];
    let index = session::establish(ends, &relay.ticket_key()?)?;
    bed.peer.ip("link set dev b0 xdp off")?;
    programs.attach("sink", &bed.peer, "b0")?;
    let mut traffic = Traffic { index, ..Traffic::wireguard(SOURCE, RELAY, 1, PAYLOAD) };
    traffic.sink_ports = DESTINATION.port()..DESTINATION.port() + 1;
    let frame = traffic.frame(bed.macs((&bed.client, "a0"), (&bed.relay, "ra"))?);
    programs.set_traffic(&traffic, &frame)?;
    let source = Source { namespace: &bed.client, link: bed.client_link()?, frame };
    let trial = Blast { time: Duration::from_millis(100), cores: 1, pps: Some(10_000.0) };
    let mode = relay.status().context("the relay does not answer")?.mode;
    ensure!(mode == RelayMode::XdpNative, "the relay forwards by {mode:?}");
    programs.generate(&source, trial)?;
    ensure!(programs.sunk()? > 0, "nothing passes through the relay: {:?}", relay.status());

    let before = programs.sunk()?;
    let time = Duration::from_secs_f64(packets as f64 / RATE + 1.0);
    let blast = Blast { time, cores: 1, pps: Some(RATE) };
    let (sent, kills, slowest) = std::thread::scope(|scope| -> Result<_> {
        let generator = scope.spawn(|| programs.generate(&source, blast));
        let (mut kills, mut slowest) = (0, Duration::ZERO);
        while !generator.is_finished() {
            std::thread::sleep(BETWEEN);
            relay.kill()?;
            kills += 1;
            std::thread::sleep(BETWEEN);
            let start = Instant::now();
            relay.run()?;
            slowest = slowest.max(start.elapsed());
        }
        let sent = generator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((sent, kills, slowest))
    })?;
    let lost = (before + sent.frames).saturating_sub(programs.sunk()?);
    Ok((kills, sent, lost, slowest.as_secs_f64()))
}

/// How many flows a new daemon knows, and the seconds until then.
fn adoption() -> Result<(u32, f64)> {
    let bed = Bed::create(1)?;
    bed.pass_at_ends()?;
    let mut relay = RelayDaemon::new(&bed.relay, "bench")?;
    let flows = MEMBERS * (MEMBERS - 1);
    relay.max_flows = flows + 1;
    relay.settings = format!("max_party_flows = {}", flows + 1);
    relay.run()?;
    let traffic = Traffic::wireguard(SOURCE, RELAY, MEMBERS, PAYLOAD);
    bed.add_sources(traffic.sources())?;
    let members: Vec<SocketAddrV4> = (0..MEMBERS).map(|n| traffic.source_of(n)).collect();
    let side = Side { namespace: &bed.client, relay: RELAY };
    session::bind_party(side, members.iter().copied(), &relay.ticket_key()?)?;
    relay.kill()?;
    install(&relay.home()?, &members)?;
    let start = Instant::now();
    relay.launch()?;
    let mut known = 0;
    let all = wait_until(PATIENCE, || {
        known = relay.status().map_or(0, |status| status.flows);
        known == flows
    });
    ensure!(all, "{known} of {flows} flows were taken over:\n{}", relay.log());
    Ok((known, start.elapsed().as_secs_f64()))
}

/// Puts a flow for every ordered pair of members into the table that a dead relay left: as if they had shaken hands.
fn install(home: &Path, members: &[SocketAddrV4]) -> Result<()> {
    let sources: HashMap<MapData, SourceKey, u32> = pinned(home, "SOURCES")?;
    let mut flows: HashMap<MapData, FlowKey, FlowValue> = pinned(home, "FLOWS")?;
    let expires = seconds_since_boot()? + 180;
    for (n, from) in (0u32..).zip(members) {
        let source = SourceKey::new((*from.ip()).into(), Be16::new(from.port()));
        let member = sources.get(&source, 0).with_context(|| format!("{from} is not bound"))?;
        for (m, to) in (0u32..).zip(members).filter(|(_, to)| *to != from) {
            let value = FlowValue {
                destination: (*to.ip()).into(),
                source_port: Be16::new(PORT),
                destination_port: Be16::new(to.port()),
                next_hop: 0,
                member,
                expires,
            };
            flows.insert(table::key(*from, n << 16 | m), value, 0)?;
        }
    }
    Ok(())
}

fn pinned<K: aya::Pod, V: aya::Pod>(home: &Path, name: &str) -> Result<HashMap<MapData, K, V>> {
    let path = find(home, name).with_context(|| format!("no {name} below {}", home.display()))?;
    let map = Map::HashMap(MapData::from_pin(&path)?);
    Ok(map.try_into()?)
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    entries.into_iter().find_map(
        |path| {
            if path.file_name()? == name { Some(path) } else { find(&path, name) }
        },
    )
}

/// CLOCK_MONOTONIC, in seconds.
fn seconds_since_boot() -> Result<u32> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(u32::try_from(now.tv_sec())?)
}
