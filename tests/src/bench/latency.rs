//! Round trips of one game's packets through a relay: alone, beside many other players, and beside a flood.
//!
//! Client and echo share a core with the flood's source, the relay's process has the other one. The cores never sleep
//! (`processor` keeps them awake): an idle virtual machine measures its hypervisor's wake-ups instead.

use super::bed::Bed;
use super::generator::{Blast, Programs, Source, pin_to};
use super::rows::{self, Game, Kind};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// UDP payload of a game's packet through a tunnel.
const PAYLOAD: usize = 158;
/// Where a packet's number lies: behind WireGuard's header.
const NUMBER_AT: usize = 16;
/// A packet that is not back by then is lost.
const LOST_AFTER: Duration = Duration::from_millis(50);
/// The echo's patience, after which it looks whether it shall stop.
const ECHO_WAIT: Duration = Duration::from_millis(20);
const KINDS: [Kind; 4] = [Kind::Routed, Kind::XdpNative, Kind::Userspace, Kind::Tokio];

/// What else passes the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing.
    Idle,
    /// 100 000 packets a second of 1 000 flows.
    Loaded,
    /// A million packets a second of one flow.
    Flood,
    /// One and a half million packets a second of one flow.
    HeavyFlood,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Loaded, Self::Flood, Self::HeavyFlood];

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Loaded => "loaded (0.1 Mpps, 1000 flows)",
            Self::Flood => "flood (1.0 Mpps, one flow)",
            Self::HeavyFlood => "flood (1.5 Mpps, one flow)",
        }
    }

    fn flows(self) -> u32 {
        if self == Self::Loaded { 1_000 } else { 1 }
    }

    fn pps(self) -> Option<f64> {
        match self {
            Self::Idle => None,
            Self::Loaded => Some(100_000.0),
            Self::Flood => Some(1_000_000.0),
            Self::HeavyFlood => Some(1_500_000.0),
        }
    }
}

/// Microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// Half of the round trips took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p99_9: f64,
}

/// Round trips through one row in one state.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// What forwarded.
    pub name: &'static str,
    /// What else passed.
    pub state: State,
    /// Round trips, µs.
    pub rtt_us: Percentiles,
    /// The same less those of a routed hop in the same state.
    pub added_us: Option<Percentiles>,
    /// Packets that came back.
    pub packets: usize,
    /// Packets that did not.
    pub lost: usize,
}

/// Sizes of a run.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Alternated rounds.
    pub rounds: usize,
    /// Of each row in each state, a round.
    pub time: Duration,
}

#[derive(Default)]
struct Samples {
    micros: Vec<f64>,
    lost: usize,
}

/// All rows in all states; rounds go forwards and backwards through the rows in turn.
pub fn measure(effort: Effort) -> Result<Vec<Figures>> {
    let mut all: BTreeMap<(State, Kind), Samples> = BTreeMap::new();
    for round in 0..effort.rounds {
        let mut kinds = KINDS;
        if round % 2 == 1 {
            kinds.reverse();
        }
        for state in State::ALL {
            for kind in kinds {
                eprint!("\rround trips, round {} of {}: {:<40}", round + 1, effort.rounds, kind.name());
                let samples = one(kind, state, effort.time)
                    .with_context(|| format!("round trips of {} when {}", kind.name(), state.name()))?;
                let all = all.entry((state, kind)).or_default();
                all.micros.extend(samples.micros);
                all.lost += samples.lost;
            }
        }
    }
    eprintln!();
    Ok(all.iter().map(|((state, kind), samples)| figures(*state, *kind, samples, &all)).collect())
}

fn figures(state: State, kind: Kind, samples: &Samples, all: &BTreeMap<(State, Kind), Samples>) -> Figures {
    let rtt = percentiles(&samples.micros);
    let routed = all
        .get(&(state, Kind::Routed))
        .filter(|_| kind != Kind::Routed)
        .map(|samples| percentiles(&samples.micros));
    Figures {
        name: kind.name(),
        state,
        rtt_us: rtt,
        added_us: routed.map(|routed| Percentiles {
            p50: rounded(rtt.p50 - routed.p50),
            p99: rounded(rtt.p99 - routed.p99),
            p99_9: rounded(rtt.p99_9 - routed.p99_9),
        }),
        packets: samples.micros.len(),
        lost: samples.lost,
    }
}

/// Of times in microseconds.
pub(super) fn percentiles(micros: &[f64]) -> Percentiles {
    let mut micros = micros.to_vec();
    micros.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let at = (micros.len() as f64 * share) as usize;
        rounded(micros.get(at.min(micros.len().saturating_sub(1))).copied().unwrap_or_default())
    };
    Percentiles { p50: at(0.5), p99: at(0.99), p99_9: at(0.999) }
}

fn rounded(micros: f64) -> f64 {
    (micros * 10.0).round() / 10.0
}

fn one(kind: Kind, state: State, time: Duration) -> Result<Samples> {
    // One queue, so that the game's packets wait behind the flood's.
    let bed = Bed::create(1)?;
    let mut programs = Programs::load()?;
    let game = rows::start_game(kind, &bed, &mut programs, state.flows(), PAYLOAD)?;
    let macs = bed.macs((&bed.client, "a0"), (&bed.relay, "ra"))?;
    let frame = game.others.frame(macs);
    programs.set_traffic(&game.others, &frame)?;
    let source = Source { namespace: &bed.client, link: bed.client_link()?, frame };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| bed.peer.run(|| echo(&game, &stop))?);
        let flood = state.pps().map(|pps| {
            let blast = Blast { time: time + time / 4, cores: 1, pps: Some(pps) };
            let programs = &mut programs;
            scope.spawn(move || programs.generate(&source, blast).map(drop))
        });
        std::thread::sleep(time / 8);
        let samples = bed.client.run(|| ping(&game, time)).and_then(|samples| samples);
        stop.store(true, Ordering::Relaxed);
        for thread in [Some(echo), flood].into_iter().flatten() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        samples
    })
}

/// Sends back what comes, with the other direction's receiver index.
fn echo(game: &Game, stop: &AtomicBool) -> Result<()> {
    pin_to(0);
    let socket = UdpSocket::bind(game.peer).context("cannot bind the echo")?;
    socket.set_read_timeout(Some(ECHO_WAIT))?;
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            buffer[4..8].copy_from_slice(&game.back.to_le_bytes());
            // What does not go out counts as lost at the other end.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
    Ok(())
}

fn ping(game: &Game, time: Duration) -> Result<Samples> {
    pin_to(0);
    let socket = UdpSocket::bind(game.client).context("cannot bind the game")?;
    socket.set_read_timeout(Some(LOST_AFTER))?;
    let mut message = [0; PAYLOAD];
    message[0] = 4;
    message[4..8].copy_from_slice(&game.there.to_le_bytes());
    let mut samples = Samples::default();
    let start = Instant::now();
    for number in 0_u64.. {
        if start.elapsed() > time {
            break;
        }
        message[NUMBER_AT..][..8].copy_from_slice(&number.to_le_bytes());
        let sent = Instant::now();
        socket.send_to(&message, game.to)?;
        match returned(&socket, number) {
            true => samples.micros.push(sent.elapsed().as_nanos() as f64 / 1e3),
            false => samples.lost += 1,
        }
    }
    ensure!(!samples.micros.is_empty(), "not one packet came back");
    Ok(samples)
}

/// Waits for the packet with that number; earlier ones may still be under way.
fn returned(socket: &UdpSocket, number: u64) -> bool {
    let mut buffer = [0; 2048];
    while let Ok(length) = socket.recv(&mut buffer) {
        if length == PAYLOAD && buffer[NUMBER_AT..][..8] == number.to_le_bytes() {
            return true;
        }
    }
    false
}
