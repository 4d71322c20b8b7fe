//! The report as a part of docs/benchmarks.md, with pictures.

use super::chart::{Bars, Lines, Series};
use super::latency::{Figures as RoundTrip, State};
use super::report::{Figures, Report};
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::path::Path;

const PAGE: &str = "benchmarks.md";
const PICTURES: &str = "pictures";
const BEGIN: &str = "<!-- figures: written by `cargo xtask bench relay --docs docs` -->";
const END: &str = "<!-- end of figures -->";
/// Numbers of flows that rows are measured with.
const FLOWS: [u32; 3] = [1, 1_000, 100_000];

/// Puts the figures into the page, and the pictures beside it.
pub fn write(docs: &Path, report: &Report) -> Result<()> {
    let page = docs.join(PAGE);
    let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let (before, rest) =
        text.split_once(BEGIN).with_context(|| format!("{} has no place for figures", page.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{} lacks {END}", page.display()))?;
    let pictures = docs.join(PICTURES);
    std::fs::create_dir_all(&pictures).with_context(|| format!("cannot create {}", pictures.display()))?;
    for (name, svg) in drawings(report) {
        let file = pictures.join(name);
        std::fs::write(&file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let text = format!("{before}{BEGIN}\n\n{}\n{END}{after}", figures(report));
    std::fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn figures(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{}, Linux {}, {} cores of {}, load {:.1} before and {:.1} after the run.\n",
        machine.date, machine.kernel, machine.cores, machine.cpu, machine.load_before, machine.load_after
    );
    for warning in &report.warnings {
        let _ = writeln!(text, "**Noisy**: {warning}.");
    }
    text + &rows(report) + &ratios(report) + &costs(report) + &round_trips(report)
}

fn rows(report: &Report) -> String {
    let mut text = String::from(
        "\n![delivered packets by row](pictures/relay-rows.svg)\n\
         ![delivered packets by number of flows](pictures/relay-flows.svg)\n\n\
         | row | flows | frame, B | queues | cores | Mpps offered | Mpps delivered (slowest–fastest) | Gbit/s in memory | lost |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in &report.rows {
        let mpps = |pps: u64| pps as f64 / 1e6;
        let wanted = if row.flows < row.flows_wanted {
            format!("{} of {}", row.flows, row.flows_wanted)
        } else {
            row.flows.to_string()
        };
        let _ = writeln!(
            text,
            "| `{}` | {wanted} | {} | {} | {:.2} | {:.3} | {:.3} ({:.3}–{:.3}) | {:.2} | {} |",
            row.name,
            row.bytes,
            row.queues,
            row.cores,
            mpps(row.offered_pps),
            mpps(row.delivered_pps),
            mpps(row.delivered_pps_min),
            mpps(row.delivered_pps_max),
            row.gbit_per_s(),
            row.lost
        );
    }
    text
}

fn ratios(report: &Report) -> String {
    let mut text = String::from("\n| ratio (one flow, 200 bytes) | |\n|---|--:|\n");
    for (name, ratio) in &report.ratios {
        let _ = writeln!(text, "| `{name}` | {ratio:.2} |");
    }
    text
}

fn costs(report: &Report) -> String {
    let mut text = String::from(
        "\n![nanoseconds by number of flows](pictures/relay-cost.svg)\n\n\
         | random flows | program over the empty one, ns | lookup: kernel's hash | lookup: buckets of cache lines | \
         lookup: floor |\n|--:|--:|--:|--:|--:|\n",
    );
    for (flows, ns) in &report.costs.program_ns_over_empty {
        let lookup = report.costs.lookup_ns.get(flows).map_or("| | |".into(), |lookup| {
            format!("{:.0} | {:.0} | {:.0}", lookup.hash, lookup.buckets, lookup.direct)
        });
        let _ = writeln!(text, "| {flows} | {ns:.0} | {lookup} |");
    }
    text
}

fn round_trips(report: &Report) -> String {
    let mut text = String::from(
        "\n![round trips](pictures/relay-round-trips.svg)\n\n\
         | beside | row | p50 µs | p99 µs | p99.9 µs | over a routed hop: p50 | p99 | p99.9 | lost |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for RoundTrip { name, state, rtt_us, added_us, packets, lost } in &report.round_trips.round_trips {
        let added = added_us.map_or("| | ".into(), |added| {
            format!("{:+.1} | {:+.1} | {:+.1}", added.p50, added.p99, added.p99_9)
        });
        let _ = writeln!(
            text,
            "| {} | `{name}` | {:.1} | {:.1} | {:.1} | {added} | {lost} of {} |",
            state.name(),
            rtt_us.p50,
            rtt_us.p99,
            rtt_us.p99_9,
            packets + lost
        );
    }
    text
}

fn drawings(report: &Report) -> [(&'static str, String); 4] {
    [
        ("relay-rows.svg", row_bars(report).svg()),
        ("relay-flows.svg", flow_lines(report).svg()),
        ("relay-cost.svg", cost_lines(report).svg()),
        ("relay-round-trips.svg", round_trip_lines(report).svg()),
    ]
}

fn basic(row: &&Figures) -> bool {
    row.bytes == 200 && row.queues == 1 && row.name != "ceiling"
}

fn row_bars(report: &Report) -> Bars {
    let rows = report.rows.iter().filter(basic).filter(|row| row.flows_wanted == 1);
    Bars {
        title: "Million packets/s delivered: one flow, 200-byte frames, one queue, in memory".into(),
        bars: rows.map(|row| (row.name.to_owned(), row.delivered_pps as f64 / 1e6)).collect(),
    }
}

fn flow_lines(report: &Report) -> Lines {
    let mut names: Vec<&str> = report.rows.iter().filter(basic).map(|row| row.name).collect();
    names.dedup();
    let at = |name: &str, flows: u32| {
        let mut rows = report.rows.iter().filter(basic);
        rows.find(|row| row.name == name && row.flows_wanted == flows)
            .map(|row| row.delivered_pps as f64 / 1e6)
    };
    let series = names.into_iter().map(|name| Series {
        name: name.into(),
        values: FLOWS.into_iter().map(|flows| at(name, flows)).collect(),
    });
    Lines {
        title: "Packets delivered by number of flows (200-byte frames, one queue, in memory)".into(),
        places: FLOWS.map(|flows| flows.to_string()).to_vec(),
        across: "flows, each packet of a random one".into(),
        up: "Mpps".into(),
        logarithmic: true,
        series: series.collect(),
    }
}

fn cost_lines(report: &Report) -> Lines {
    let costs = &report.costs;
    let flows: Vec<u32> = costs.program_ns_over_empty.keys().copied().collect();
    let lookup = |name: &str, value: fn(&super::layout::Lookup) -> f64| Series {
        name: name.into(),
        values: flows.iter().map(|flows| costs.lookup_ns.get(flows).map(value)).collect(),
    };
    let program = Series {
        name: "whole program".into(),
        values: flows.iter().map(|flows| costs.program_ns_over_empty.get(flows).copied()).collect(),
    };
    Lines {
        title: "Nanoseconds a packet by number of random flows".into(),
        places: flows.iter().map(u32::to_string).collect(),
        across: "flows".into(),
        up: "ns".into(),
        logarithmic: false,
        series: vec![
            program,
            lookup("lookup: hash", |lookup| lookup.hash),
            lookup("lookup: buckets", |lookup| lookup.buckets),
            lookup("lookup: floor", |lookup| lookup.direct),
        ],
    }
}

fn round_trip_lines(report: &Report) -> Lines {
    let all = &report.round_trips.round_trips;
    let mut names: Vec<&str> = all.iter().map(|trip| trip.name).collect();
    names.sort_unstable();
    names.dedup();
    let at = |name: &str, state: State| {
        all.iter().find(|trip| trip.name == name && trip.state == state).map(|trip| trip.rtt_us.p99)
    };
    let series = names.into_iter().map(|name| Series {
        name: name.into(),
        values: State::ALL.into_iter().map(|state| at(name, state)).collect(),
    });
    Lines {
        title: "Round trip of a game's packet, 99th percentile".into(),
        places: ["idle", "loaded", "flood 1.0 Mpps", "flood 1.5 Mpps"].map(String::from).to_vec(),
        across: "what else passes the relay".into(),
        up: "µs".into(),
        logarithmic: true,
        series: series.collect(),
    }
}
