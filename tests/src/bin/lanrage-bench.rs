//! Benchmarks: `cargo xtask bench`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lanrage_tests::bench::relay::{self, Effort};
use lanrage_tests::veth::require_root;
use std::path::PathBuf;

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
    },
}

fn main() -> Result<()> {
    let Benchmark::Relay { quick, json } = Arguments::parse().benchmark;
    require_root()?;
    let report = relay::run(if quick { Effort::QUICK } else { Effort::FULL })?;
    println!("{report}");
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        println!("written to {}", path.display());
    }
    Ok(())
}
