//! Every developer and user task of LANrage: `cargo xtask <task>`.

mod bench;
mod build;
mod checks;
mod ebpf;
mod links;
mod process;
mod setup;
mod suite;
mod up;
mod vm;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// LANrage's tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what this machine lacks to build and test LANrage.
    Setup,
    /// Build the kernel programs into target/bpf.
    BuildEbpf,
    /// Build the web UI into web/dist.
    Web,
    /// Set up, build and start a LAN party on this machine, and print its invite.
    Up(up::Up),
    /// Tell about a daemon that `up` starts.
    #[command(hide = true)]
    Announce {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long)]
        daemon: Option<u32>,
    },
    /// Run the network lab: namespaces with NATs, a control server, a relay and peers.
    #[command(disable_help_flag = true)]
    Lab {
        /// `up`, `exec`, `status`, `nat`, `matrix`, `kill`, `restart` or `down`, and their arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Play a LAN party across two NATs in the lab and tell how it went.
    #[command(disable_help_flag = true)]
    Demo {
        /// `--nat A,B` and `--json FILE`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Compare the relay with what else could forward its packets: `relay [--quick] [--json FILE]`; or how paths fare:
    /// `paths [--json FILE]`.
    #[command(disable_help_flag = true)]
    Bench {
        /// `relay`, `latency`, `survival`, `table` or `paths`, and its options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run the kernel tests on Debian's own kernel, in an emulated machine.
    VmTest(vm::Vm),
    /// Run all tests, those across real NATs included; or some of them.
    Test {
        /// These only.
        #[command(subcommand)]
        suite: Option<suite::Suite>,
    },
    /// Run all tests and checks, as CI does.
    Ci,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let root = root()?;
    match task {
        Task::Setup => setup::run(&root).map(drop)?,
        Task::BuildEbpf => {
            let objects = ebpf::build(&root)?;
            println!("built {} and {}", objects.relay.display(), objects.pass.display());
        }
        Task::Web => build::web(&root)?,
        Task::Up(up) => up::run(&root, &up)?,
        Task::Announce { socket, daemon } => up::announce(&socket, daemon)?,
        Task::Lab { arguments } => suite::lab(&root, &arguments)?,
        Task::Demo { mut arguments } => {
            arguments.insert(0, "demo".into());
            suite::lab(&root, &arguments)?;
        }
        Task::Bench { arguments } => bench::run(&root, &arguments)?,
        Task::VmTest(vm) => vm::run(&root, &vm)?,
        Task::Test { suite: None } => suite::run(&root)?,
        Task::Test { suite: Some(suite) } => suite::only(&root, suite)?,
        Task::Ci => checks::run(&root)?,
    }
    Ok(())
}

/// The workspace: the directory above this crate.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
    Ok(root.to_path_buf())
}
