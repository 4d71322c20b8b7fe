//! `bench relay`: all rows, alternated.

use super::bed::Bed;
use super::generator::{Blast, Programs, Source};
use super::machine::{self, Machine};
use super::processor::Spinners;
use super::report::{Costs, Figures, Report, Round, RoundTrips};
use super::rows::{self, Kind, Line, STUN_FRAME};
use super::{cost, latency, layout};
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};

const SMALL: usize = 200;
const LARGE: usize = 1420;
/// Packets a second that every way can take.
const LEAST_RATE: f64 = 50_000.0;

/// Sizes of a run.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    quick: bool,
    rounds: usize,
    time: Duration,
    cost_rounds: usize,
    cost_repeat: u32,
    latency: latency::Effort,
}

impl Effort {
    /// Enough to compare.
    pub const FULL: Self = Self {
        quick: false,
        rounds: 7,
        time: Duration::from_millis(1_500),
        cost_rounds: 9,
        cost_repeat: 3_000_000,
        latency: latency::Effort { rounds: 3, time: Duration::from_secs(2) },
    };
    /// Enough to see that it works, and roughly how.
    pub const QUICK: Self = Self {
        quick: true,
        rounds: 3,
        time: Duration::from_millis(400),
        cost_rounds: 5,
        cost_repeat: 500_000,
        latency: latency::Effort { rounds: 1, time: Duration::from_millis(700) },
    };
}

/// What to run, and when to refuse.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sizes.
    pub effort: Effort,
    /// Packets a second that the bench itself must reach.
    pub least_ceiling: f64,
    /// Names of the rows to measure, and nothing else; all there is when empty.
    pub only: Vec<String>,
}

/// A line, what has been measured of it, and the rate that suits it.
struct Measured {
    line: Line,
    reached: u32,
    pps: Option<f64>,
    rounds: Vec<Round>,
}

fn lines(quick: bool) -> Vec<Line> {
    let line = |kind, flows, bytes, queues| Line { kind, flows, bytes, queues };
    let kinds = [
        Kind::XdpNative,
        Kind::XdpHairpin,
        Kind::XdpGeneric,
        Kind::Nftables,
        Kind::Userspace,
        Kind::Coturn,
        Kind::Tokio,
    ];
    let mut lines = vec![line(Kind::Ceiling, 1, SMALL, 1), line(Kind::Ceiling, 1, LARGE, 1)];
    lines.push(line(Kind::Ceiling, 1, SMALL, 2));
    for flows in [1, 1_000] {
        lines.push(line(Kind::Stun, flows, STUN_FRAME, 1));
    }
    for kind in kinds {
        let whole = !quick || kind == Kind::XdpNative;
        lines.push(line(kind, 1, SMALL, 1));
        lines.push(line(kind, 1_000, SMALL, 1));
        if whole && kind != Kind::Tokio {
            lines.push(line(kind, 100_000, SMALL, 1));
        }
        if whole {
            lines.push(line(kind, 1, LARGE, 1));
            lines.push(line(kind, 1, SMALL, 2));
        }
    }
    if !quick {
        for flows in [1_000, 100_000] {
            lines.push(line(Kind::XdpNative, flows, LARGE, 1));
            lines.push(line(Kind::XdpNative, flows, SMALL, 2));
            lines.push(line(Kind::XdpNative, flows, LARGE, 2));
        }
    }
    lines
}

/// Runs everything; rounds go forwards and backwards through the lines in turn.
pub fn run(settings: Settings) -> Result<Report> {
    let Settings { effort, least_ceiling, only } = settings;
    let mut machine = Machine::look();
    let spinners = Spinners::start()?;
    check_ceiling(&spinners, least_ceiling)?;
    let unmeasured = |line| Measured { line, reached: line.flows, pps: None, rounds: Vec::new() };
    let lines = lines(effort.quick).into_iter().filter(|line| is_among(&only, line.kind));
    let mut all: Vec<Measured> = lines.map(unmeasured).collect();
    ensure!(!all.is_empty(), "no row is called {}", only.join(" or "));
    for round in 0..effort.rounds {
        let mut order: Vec<usize> = (0..all.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let Line { kind, flows, bytes, queues } = all[at].line;
            let name = kind.name();
            eprint!("\rround {} of {}: {name:<12} {flows:>6} flows ", round + 1, effort.rounds);
            all[at].measure(effort.time, &spinners).with_context(|| {
                format!("row {name} with {flows} flows, {bytes}-byte frames, {queues} queues")
            })?;
        }
    }
    eprintln!("\rcost of the program                              ");
    drop(spinners);
    let (costs, round_trips) =
        if only.is_empty() { (costs(effort)?, round_trips(effort)?) } else { Default::default() };
    machine.load_after = machine::load();
    let figures = all.into_iter().map(|row| Figures::new(row.line, row.reached, row.rounds)).collect();
    let report = Report::new(machine, figures, costs, round_trips);
    if is_among(&only, Kind::Ceiling) {
        refuse_below(report.ceiling(), least_ceiling)?;
    }
    Ok(report)
}

fn is_among(only: &[String], kind: Kind) -> bool {
    only.is_empty() || only.iter().any(|name| name == kind.name())
}

/// Round trips of all rows in all states.
pub fn round_trips(effort: Effort) -> Result<RoundTrips> {
    let _awake = Spinners::start()?;
    Ok(RoundTrips { round_trips: latency::measure(effort.latency)? })
}

/// What program and flow table cost, by number of flows.
pub fn costs(effort: Effort) -> Result<Costs> {
    let Effort { cost_rounds, cost_repeat, .. } = effort;
    Ok(Costs {
        program_ns_over_empty: cost::measure(cost_rounds, cost_repeat).context("cost of the program")?,
        lookup_ns: layout::measure(cost_rounds, cost_repeat).context("cost of flow tables")?,
    })
}

/// A bench that is itself slow squeezes every row: better no figures than wrong ones.
fn check_ceiling(spinners: &Spinners, least: f64) -> Result<()> {
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let line = Line { kind: Kind::Ceiling, flows: 1, bytes: SMALL, queues: 1 };
        let mut row = Measured { line, reached: 1, pps: None, rounds: Vec::new() };
        row.measure(Duration::from_millis(300), spinners).context("row ceiling")?;
        best = row.rounds.iter().map(Round::delivered_pps).fold(best, f64::max);
        if best >= least {
            return Ok(());
        }
    }
    refuse_below(best, least)
}

fn refuse_below(ceiling: f64, least: f64) -> Result<()> {
    if ceiling < least {
        bail!(
            "the bench itself reaches only {:.2} million packets/s, below {:.2}: every row would be squeezed. \
             Let nothing else run, or say --least-ceiling PPS if this machine cannot do more",
            ceiling / 1e6,
            least / 1e6
        );
    }
    Ok(())
}

impl Measured {
    fn measure(&mut self, time: Duration, spinners: &Spinners) -> Result<()> {
        let bed = Bed::create(self.line.queues)?;
        let mut programs = Programs::load()?;
        let running = rows::start(self.line, &bed, &mut programs)?;
        self.reached = running.traffic.flows;
        let macs = bed.macs((&bed.client, "a0"), (&bed.relay, "ra"))?;
        let frame = running.traffic.frame(macs);
        programs.set_traffic(&running.traffic, &frame)?;
        let source = Source { namespace: &bed.client, link: bed.client_link()?, frame };
        let mut send = |time, pps| round(&mut programs, &source, self.line.queues, time, pps, spinners);
        if self.rounds.is_empty() && self.line.kind.drowns() {
            self.pps = best_rate(|pps| Ok(send(time / 4, pps)?.delivered_pps()))?;
        }
        send(time / 4, self.pps)?;
        let round = send(time, self.pps)?;
        ensure!(round.delivered > 0, "not one packet arrives");
        self.rounds.push(round);
        Ok(())
    }
}

/// Sends for a while and counts.
fn round(
    programs: &mut Programs,
    source: &Source<'_>,
    cores: usize,
    time: Duration,
    pps: Option<f64>,
    spinners: &Spinners,
) -> Result<Round> {
    let (sunk, mark) = (programs.sunk()?, spinners.mark());
    let sent = programs.generate(source, Blast { time, cores, pps })?;
    let (used, spent) = (spinners.used_since(mark), mark.elapsed());
    wait_until_empty(programs)?;
    Ok(Round {
        offered: sent.frames,
        delivered: programs.sunk()? - sunk,
        seconds: sent.took.as_secs_f64(),
        cores: used / spent.as_secs_f64(),
    })
}

/// The rate at which most arrives: more than a way can take costs it time, and that would not be fair to it.
fn best_rate(mut delivered: impl FnMut(Option<f64>) -> Result<f64>) -> Result<Option<f64>> {
    let mut best = (None, delivered(None)?);
    // on a busy machine a process may sleep through the first look
    let mut rate = best.1.max(LEAST_RATE) * 1.05;
    for _ in 0..5 {
        let arrives = delivered(Some(rate))?;
        if arrives > best.1 * 1.02 {
            best = (Some(rate), arrives);
        } else if arrives < rate * 0.7 {
            break;
        }
        rate *= 1.2;
    }
    Ok(best.0)
}

/// Waits until nothing arrives any more.
fn wait_until_empty(programs: &Programs) -> Result<()> {
    let start = Instant::now();
    let mut last = programs.sunk()?;
    while start.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(15));
        let now = programs.sunk()?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(())
}
