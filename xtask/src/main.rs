//! Every developer and user task of LANrage: `cargo xtask <task>`.

mod ebpf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

/// LANrage's tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the kernel programs into target/bpf.
    BuildEbpf,
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::BuildEbpf => {
            let objects = ebpf::build(&root()?)?;
            println!("built {} and {}", objects.relay.display(), objects.pass.display());
            Ok(())
        }
    }
}

/// The workspace: the directory above this crate.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
    Ok(root.to_path_buf())
}
