//! Figures, as a table for people and as JSON.

use super::latency;
use super::layout::Lookup;
use super::machine::Machine;
use super::rows::{Kind, Line};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

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

impl Round {
    /// Packets a second that arrived.
    pub fn delivered_pps(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }
}

/// All measurements of one row; medians unless said otherwise.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// What forwarded.
    pub name: &'static str,
    #[serde(skip)]
    line: Line,
    /// Flows, each packet of a random one.
    pub flows: u32,
    /// Flows that were asked for; more than `flows` if what forwarded does not take as many.
    pub flows_wanted: u32,
    /// Bytes of the frame.
    pub bytes: usize,
    /// Receive queues, and generators.
    pub queues: usize,
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
    pub fn new(line: Line, flows: u32, rounds: Vec<Round>) -> Self {
        let delivered = sorted(rounds.iter().map(Round::delivered_pps));
        let offered = sorted(rounds.iter().map(|round| round.offered as f64 / round.seconds));
        let cores = sorted(rounds.iter().map(|round| round.cores));
        Self {
            name: line.kind.name(),
            line,
            flows,
            flows_wanted: line.flows,
            bytes: line.bytes,
            queues: line.queues,
            cores: rounded(median(&cores)),
            offered_pps: median(&offered) as u64,
            delivered_pps: median(&delivered) as u64,
            delivered_pps_min: delivered.first().copied().unwrap_or_default() as u64,
            delivered_pps_max: delivered.last().copied().unwrap_or_default() as u64,
            lost: rounds.iter().map(|round| round.offered.saturating_sub(round.delivered)).sum(),
            rounds: rounds.len(),
        }
    }

    /// Gbit a second of whole frames.
    pub fn gbit_per_s(&self) -> f64 {
        self.delivered_pps as f64 * self.bytes as f64 * 8.0 / 1e9
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
    /// By delivered packets of 200-byte frames; one flow and one queue unless the name says otherwise.
    pub ratios: BTreeMap<String, f64>,
    /// Without any network.
    #[serde(flatten)]
    pub costs: Costs,
    /// What players would feel.
    #[serde(flatten)]
    pub round_trips: RoundTrips,
}

/// Round trips of all rows in all states.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RoundTrips {
    /// One entry a row and state.
    pub round_trips: Vec<latency::Figures>,
}

impl fmt::Display for RoundTrips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:>8} {:>8} {:>8}   {:>26} {:>9} {:>6}",
            "round trips", "p50", "p99", "p99.9", "over a routed hop (µs)", "packets", "lost"
        )?;
        let mut last = None;
        for latency::Figures { name, state, rtt_us, added_us, packets, lost } in &self.round_trips {
            if last.replace(*state) != Some(*state) {
                writeln!(f, "  {}", state.name())?;
            }
            let added = added_us.map_or(String::new(), |added| {
                format!("{:>+8.1} {:>+8.1} {:>+8.1}", added.p50, added.p99, added.p99_9)
            });
            let latency::Percentiles { p50, p99, p99_9 } = rtt_us;
            writeln!(
                f,
                "{name:<12} {p50:>8.1} {p99:>8.1} {p99_9:>8.1}   {added:>26} {packets:>9} {lost:>6}"
            )?;
        }
        Ok(())
    }
}

/// What program and flow table cost, by number of flows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Costs {
    /// Nanoseconds a packet costs more than with a program that does nothing.
    pub program_ns_over_empty: BTreeMap<u32, f64>,
    /// Nanoseconds a flow table's lookup takes.
    pub lookup_ns: BTreeMap<u32, Lookup>,
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>9} {:>19} {:>13} {:>9} {:>9}   (ns)",
            "flows", "program over empty", "lookup: hash", "buckets", "floor"
        )?;
        for (flows, ns) in &self.program_ns_over_empty {
            write!(f, "{flows:>9} {ns:>19.1}")?;
            if let Some(Lookup { hash, buckets, direct }) = self.lookup_ns.get(flows) {
                write!(f, " {hash:>13.1} {buckets:>9.1} {direct:>9.1}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Report {
    /// Compares rows and judges the circumstances.
    pub fn new(machine: Machine, rows: Vec<Figures>, costs: Costs, round_trips: RoundTrips) -> Self {
        let warnings = warnings(&machine, &rows);
        let noisy = !warnings.is_empty();
        Self { noisy, warnings, ratios: ratios(&rows), machine, rows, costs, round_trips }
    }

    /// Packets a second that the bench itself reaches.
    pub fn ceiling(&self) -> f64 {
        basic(&self.rows, Kind::Ceiling, 1, 1).unwrap_or_default()
    }
}

fn warnings(machine: &Machine, rows: &[Figures]) -> Vec<String> {
    let mut warnings = Vec::new();
    if machine.load_before > QUIET_LOAD {
        warnings.push(format!("the machine was busy before the run (load {:.1})", machine.load_before));
    }
    let spread = |row: &&Figures| row.delivered_pps_max as f64 > 1.5 * row.delivered_pps_min.max(1) as f64;
    for row in rows.iter().filter(spread) {
        warnings.push(format!(
            "row {} with {} flows, {} bytes, {} queues varies by more than half between rounds",
            row.name, row.flows, row.bytes, row.queues
        ));
    }
    if cfg!(debug_assertions) {
        warnings.push("this is a debug build".into());
    }
    warnings
}

/// Packets a second of a row with one flow of 200-byte frames.
fn basic(rows: &[Figures], kind: Kind, flows: u32, queues: usize) -> Option<f64> {
    let wanted = Line { kind, flows, bytes: 200, queues };
    rows.iter().find(|row| row.line == wanted).map(|row| row.delivered_pps as f64)
}

fn ratios(rows: &[Figures]) -> BTreeMap<String, f64> {
    let one = |kind| basic(rows, kind, 1, 1);
    let many = |kind| basic(rows, kind, 1_000, 1);
    let native = one(Kind::XdpNative);
    let pairs = [
        ("xdp_native_over_tokio", native, one(Kind::Tokio)),
        ("xdp_native_over_nft", native, one(Kind::Nftables)),
        ("xdp_native_over_coturn", native, one(Kind::Coturn)),
        ("xdp_native_over_userspace", native, one(Kind::Userspace)),
        ("xdp_native_over_generic", native, one(Kind::XdpGeneric)),
        ("userspace_over_tokio", one(Kind::Userspace), one(Kind::Tokio)),
        ("userspace_over_tokio_1000_flows", many(Kind::Userspace), many(Kind::Tokio)),
        ("two_queues_over_one", basic(rows, Kind::XdpNative, 1, 2), native),
    ];
    let ratio = |(name, over, under): (&str, Option<f64>, Option<f64>)| {
        Some((name.to_owned(), rounded(over? / under?.max(1.0))))
    };
    pairs.into_iter().filter_map(ratio).collect()
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
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
        let Machine { kernel, cpu, cores, load_before, load_after, .. } = &self.machine;
        writeln!(
            f,
            "Linux {kernel}, {cores} cores of {cpu}, load {load_before:.1} before and {load_after:.1} after"
        )?;
        writeln!(f, "in memory over veth; million packets a second, medians, all counted at the sink\n")?;
        writeln!(
            f,
            "{:<12} {:>7} {:>6} {:>6} {:>6} {:>8} {:>9} {:>13} {:>7} {:>12}",
            "row", "flows", "bytes", "queues", "cores", "offered", "delivered", "min–max", "Gbit/s", "lost"
        )?;
        for row in &self.rows {
            let mpps = |pps: u64| format!("{:.3}", pps as f64 / 1e6);
            let range = format!("{}–{}", mpps(row.delivered_pps_min), mpps(row.delivered_pps_max));
            writeln!(
                f,
                "{:<12} {:>7} {:>6} {:>6} {:>6.2} {:>8} {:>9} {:>13} {:>7.2} {:>12}",
                row.name,
                row.flows,
                row.bytes,
                row.queues,
                row.cores,
                mpps(row.offered_pps),
                mpps(row.delivered_pps),
                range,
                row.gbit_per_s(),
                row.lost
            )?;
        }
        writeln!(f)?;
        for (name, ratio) in &self.ratios {
            writeln!(f, "{name:<28} {ratio:>6.2}")?;
        }
        write!(f, "\n{}", self.costs)?;
        write!(f, "\n{}", self.round_trips)?;
        for warning in &self.warnings {
            writeln!(f, "NOISY: {warning}")?;
        }
        Ok(())
    }
}
