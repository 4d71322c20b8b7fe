//! Figures, as a table for people and as JSON.

use super::machine::Machine;
use super::rows::Kind;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Below this, the machine was too busy to say anything about the rows.
const CEILING_PPS: f64 = 2_000_000.0;
/// Below this, nothing else of weight ran.
const QUIET_LOAD: f64 = 0.7;

/// One measurement of one row.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Frames sent.
    pub offered: u64,
    /// Frames that arrived.
    pub delivered: u64,
    /// While sending.
    pub seconds: f64,
    /// Cores busy on the whole machine.
    pub cores: f64,
}

/// All measurements of one row; medians unless said otherwise.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// What forwarded.
    pub name: &'static str,
    #[serde(skip)]
    kind: Kind,
    /// Flows, each packet of a random one.
    pub flows: u32,
    /// Bytes of the frame.
    pub bytes: usize,
    /// Cores busy, generator and sink included.
    pub cores: f64,
    /// Packets a second sent.
    pub offered_pps: u64,
    /// Packets a second that arrived.
    pub delivered_pps: u64,
    /// The slowest round.
    pub delivered_pps_min: u64,
    /// The fastest round.
    pub delivered_pps_max: u64,
    /// Packets that did not arrive, over all rounds.
    pub lost: u64,
    /// Rounds measured.
    pub rounds: usize,
}

impl Figures {
    /// Sums up the rounds of a row.
    pub fn new(kind: Kind, flows: u32, bytes: usize, rounds: Vec<Round>) -> Self {
        let rate = |count: u64, round: &Round| count as f64 / round.seconds;
        let delivered = sorted(rounds.iter().map(|round| rate(round.delivered, round)));
        let offered = sorted(rounds.iter().map(|round| rate(round.offered, round)));
        let cores = sorted(rounds.iter().map(|round| round.cores));
        Self {
            name: kind.name(),
            kind,
            flows,
            bytes,
            cores: (median(&cores) * 100.0).round() / 100.0,
            offered_pps: median(&offered) as u64,
            delivered_pps: median(&delivered) as u64,
            delivered_pps_min: delivered.first().copied().unwrap_or_default() as u64,
            delivered_pps_max: delivered.last().copied().unwrap_or_default() as u64,
            lost: rounds.iter().map(|round| round.offered.saturating_sub(round.delivered)).sum(),
            rounds: rounds.len(),
        }
    }
}

/// The whole benchmark.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// The figures are not to be relied on: see `warnings`.
    pub noisy: bool,
    /// Why.
    pub warnings: Vec<String>,
    /// One entry a row.
    pub rows: Vec<Figures>,
    /// XDP native over the others, by delivered packets, one flow of 200-byte frames.
    pub ratios: BTreeMap<String, f64>,
    /// Nanoseconds a packet costs more than with a program that does nothing, by number of flows.
    pub program_ns_over_empty: BTreeMap<u32, f64>,
}

impl Report {
    /// Compares rows and judges the circumstances.
    pub fn new(machine: Machine, rows: Vec<Figures>, cost: BTreeMap<u32, f64>) -> Self {
        let warnings = warnings(&machine, &rows);
        let cost = cost.into_iter().map(|(flows, ns)| (flows, (ns * 10.0).round() / 10.0)).collect();
        Self {
            noisy: !warnings.is_empty(),
            warnings,
            ratios: ratios(&rows),
            machine,
            rows,
            program_ns_over_empty: cost,
        }
    }
}

fn warnings(machine: &Machine, rows: &[Figures]) -> Vec<String> {
    let mut warnings = Vec::new();
    if machine.load_before > QUIET_LOAD {
        warnings.push(format!("the machine was busy before the run (load {:.1})", machine.load_before));
    }
    let ceiling =
        rows.iter().find(|row| row.kind == Kind::Ceiling).map_or(0.0, |row| row.delivered_pps as f64);
    if ceiling < CEILING_PPS {
        warnings.push(format!(
            "the bench itself reached only {:.2} Mpps, below {:.0}: every row is squeezed, ratios are too small",
            ceiling / 1e6,
            CEILING_PPS / 1e6
        ));
    }
    let spread = |row: &&Figures| row.delivered_pps_max as f64 > 1.5 * row.delivered_pps_min.max(1) as f64;
    for row in rows.iter().filter(spread) {
        warnings.push(format!("row {} varies by more than half between rounds", row.name));
    }
    if cfg!(debug_assertions) {
        warnings.push("this is a debug build".into());
    }
    warnings
}

fn ratios(rows: &[Figures]) -> BTreeMap<String, f64> {
    let basis = |row: &&Figures| row.flows == 1 && row.bytes == 200;
    let Some(native) = rows.iter().filter(basis).find(|row| row.kind == Kind::XdpNative) else {
        return BTreeMap::new();
    };
    let others = rows.iter().filter(basis).filter(|row| !matches!(row.kind, Kind::XdpNative | Kind::Ceiling));
    others
        .map(|row| {
            let ratio = native.delivered_pps as f64 / row.delivered_pps.max(1) as f64;
            (format!("xdp_native_over_{}", row.name), (ratio * 100.0).round() / 100.0)
        })
        .collect()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { kernel, cpu, cores, load_before, load_after } = &self.machine;
        writeln!(
            f,
            "Linux {kernel}, {cores} cores of {cpu}, load {load_before:.1} before and {load_after:.1} after"
        )?;
        writeln!(
            f,
            "in memory over veth; medians with slowest and fastest round; all packets counted at the sink\n"
        )?;
        writeln!(
            f,
            "{:<12} {:>7} {:>6} {:>6} {:>9} {:>10} {:>15} {:>12}",
            "row", "flows", "bytes", "cores", "offered", "delivered", "min–max", "lost"
        )?;
        for row in &self.rows {
            let mpps = |pps: u64| format!("{:.3}", pps as f64 / 1e6);
            let range = format!("{}–{}", mpps(row.delivered_pps_min), mpps(row.delivered_pps_max));
            writeln!(
                f,
                "{:<12} {:>7} {:>6} {:>6.2} {:>9} {:>10} {:>15} {:>12}",
                row.name,
                row.flows,
                row.bytes,
                row.cores,
                mpps(row.offered_pps),
                mpps(row.delivered_pps),
                range,
                row.lost
            )?;
        }
        writeln!(f, "                                  (million packets a second)\n")?;
        for (name, ratio) in &self.ratios {
            writeln!(f, "{name:<28} {ratio:>6.2}")?;
        }
        for (flows, ns) in &self.program_ns_over_empty {
            writeln!(f, "program over empty, {flows:>6} flows {ns:>6.1} ns")?;
        }
        for warning in &self.warnings {
            writeln!(f, "NOISY: {warning}")?;
        }
        Ok(())
    }
}
