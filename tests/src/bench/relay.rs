//! `bench relay`: all rows, alternated.

use super::cost;
use super::generator::Programs;
use super::machine::{self, Machine};
use super::report::{Figures, Report, Round};
use super::rows::{self, Kind};
use crate::veth::{Row, ifindex, mac_bytes};
use anyhow::{Context, Result};
use std::time::Duration;

/// Packets and flows of one table line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    kind: Kind,
    flows: u32,
    /// Bytes of the whole frame.
    bytes: usize,
}

const HEADERS: usize = 42;
const SMALL: usize = 200;
const LARGE: usize = 1462;

/// Sizes of a run.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    rounds: usize,
    time: Duration,
    cost_rounds: usize,
    cost_repeat: u32,
}

impl Effort {
    /// Enough to compare.
    pub const FULL: Self =
        Self { rounds: 7, time: Duration::from_secs(2), cost_rounds: 9, cost_repeat: 3_000_000 };
    /// Enough to see that it works.
    pub const QUICK: Self =
        Self { rounds: 3, time: Duration::from_millis(700), cost_rounds: 5, cost_repeat: 500_000 };
}

fn lines() -> Vec<Line> {
    let line = |kind, flows, bytes| Line { kind, flows, bytes };
    vec![
        line(Kind::Ceiling, 1, SMALL),
        line(Kind::XdpNative, 1, SMALL),
        line(Kind::XdpNative, 10_000, SMALL),
        line(Kind::XdpNative, 1, LARGE),
        line(Kind::XdpGeneric, 1, SMALL),
        line(Kind::Nftables, 1, SMALL),
        line(Kind::Userspace, 1, SMALL),
        line(Kind::Tokio, 1, SMALL),
    ]
}

/// Runs everything; rounds go forwards and backwards through the lines in turn.
pub fn run(effort: Effort) -> Result<Report> {
    let mut machine = Machine::look();
    let mut figures: Vec<(Line, Vec<Round>)> = lines().into_iter().map(|line| (line, Vec::new())).collect();
    for round in 0..effort.rounds {
        let mut order: Vec<usize> = (0..figures.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (line, rounds) = &mut figures[at];
            let name = line.kind.name();
            eprint!("\rround {} of {}: {name:<12}", round + 1, effort.rounds);
            rounds.push(measure(*line, effort.time).with_context(|| format!("row {name}"))?);
        }
    }
    eprintln!("\rcost of the program          ");
    let cost = cost::measure(effort.cost_rounds, effort.cost_repeat)?;
    machine.load_after = machine::load();
    let figures = figures
        .into_iter()
        .map(|(line, rounds)| Figures::new(line.kind, line.flows, line.bytes, rounds))
        .collect();
    Ok(Report::new(machine, figures, cost))
}

fn measure(line: Line, time: Duration) -> Result<Round> {
    let row = Row::create("bench")?;
    row.pass_at_client()?;
    row.fix_neighbours()?;
    let mut programs = Programs::load()?;
    let running = rows::start(line.kind, &row, &mut programs, line.flows, line.bytes - HEADERS)?;
    let macs = [mac_bytes(&row.relay, "ra")?, mac_bytes(&row.client, "a0")?].concat();
    let macs = <[u8; 12]>::try_from(macs).ok().context("two MAC addresses have 12 bytes")?;
    let a0 = ifindex(&row.client, "a0")?;
    programs.set_traffic(&running.traffic, macs, a0)?;
    let frame = running.traffic.frame();
    programs.generate(&row.client, &frame, a0, time / 5)?;
    settle();
    let (sunk, ticks) = (programs.sunk()?, machine::ticks());
    let (sent, took) = programs.generate(&row.client, &frame, a0, time)?;
    settle();
    let (busy, all) = machine::ticks();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    Ok(Round {
        offered: sent,
        delivered: programs.sunk()? - sunk,
        seconds: took.as_secs_f64(),
        cores: (busy - ticks.0) as f64 / (all - ticks.1).max(1) as f64 * cores,
    })
}

/// Lets queues run empty.
fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}
