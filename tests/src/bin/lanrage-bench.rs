//! Benchmarks: `cargo xtask bench`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lanrage_tests::bench::processor::Precedence;
use lanrage_tests::bench::relay::{self, Effort, Settings};
use lanrage_tests::bench::{bed, lane, page, pages, survival};
use lanrage_tests::veth::require_root;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// LANrage's benchmarks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// The relay against what else could forward its packets.
    Relay {
        /// Fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
        /// Also write the figures there.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Write tables and pictures into benchmarks.md of this directory.
        #[arg(long, value_name = "DIR", conflicts_with = "only")]
        docs: Option<PathBuf>,
        /// Measure these rows and nothing else: to compare before and after a change.
        #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
        only: Vec<String>,
        /// Refuse to give figures when the bench itself does not reach this many packets a second.
        #[arg(long, value_name = "PPS", default_value_t = 2_000_000.0)]
        least_ceiling: f64,
    },
    /// Round trips through a relay, idle and beside other traffic.
    Latency {
        /// Fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
        /// Also write the figures there.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Packets lost while the relay's daemon is killed, and the time until a new one knows a million flows.
    Survival {
        /// Packets to send meanwhile, at least.
        #[arg(long, default_value_t = 10_000_000)]
        packets: u64,
        /// Also write the figures there.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// What the web page costs while it shows sixteen members, in Chromium.
    Ui {
        /// Also write the figures there.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Storms of announcements to everybody, by both lanes, and what a lane adds to a round trip.
    Lane {
        /// Fewer packets.
        #[arg(long)]
        quick: bool,
        /// Also write the figures there.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// What the relay's program and its flow table cost, without any network.
    Table {
        /// Fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().benchmark) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(benchmark: Benchmark) -> Result<()> {
    require_root()?;
    let _alone = bed::lock()?;
    let precedence = Precedence::take()?;
    bed::take_down_when_interrupted((precedence.clone(), lane::LabEnd));
    let result = match benchmark {
        Benchmark::Relay { quick, json, docs, only, least_ceiling } => {
            let effort = if quick { Effort::QUICK } else { Effort::FULL };
            let report = relay::run(Settings { effort, least_ceiling, only })?;
            println!("{report}");
            docs.map_or(Ok(()), |docs| pages::write(&docs, &report))?;
            json.map_or(Ok(()), |path| write(&path, &report))
        }
        Benchmark::Latency { quick, json } => {
            let effort = if quick { Effort::QUICK } else { Effort::FULL };
            let round_trips = relay::round_trips(effort)?;
            print!("{round_trips}");
            json.map_or(Ok(()), |path| write(&path, &round_trips))
        }
        Benchmark::Survival { packets, json } => {
            let figures = survival::run(packets)?;
            print!("{figures}");
            json.map_or(Ok(()), |path| write(&path, &figures))
        }
        Benchmark::Lane { quick, json } => {
            let report = lane::run(quick)?;
            print!("{report}");
            json.map_or(Ok(()), |path| write(&path, &report))
        }
        Benchmark::Ui { json } => {
            let report = page::run()?;
            print!("{report}");
            json.map_or(Ok(()), |path| write(&path, &report))
        }
        Benchmark::Table { quick } => {
            let effort = if quick { Effort::QUICK } else { Effort::FULL };
            let costs = relay::costs(effort)?;
            print!("{costs}");
            Ok(())
        }
    };
    drop(precedence);
    result
}

fn write(path: &Path, report: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}
