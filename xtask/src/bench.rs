//! Benchmarks, built as released; those of paths are a simulation.

mod paths;

use crate::process::{as_root, cargo, check, find, step};
use crate::setup::apt;
use crate::{build, ebpf};
use anyhow::{Context, Result};
use clap::Parser as _;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

/// The TURN server that the relay is compared with.
const COTURN: (&str, &[&str]) = ("turnserver", &["coturn"]);

/// Builds and runs `lanrage-bench`, which comes back only with an error, or simulates paths.
pub fn run(root: &Path, arguments: &[OsString]) -> Result<()> {
    if arguments.first().is_some_and(|benchmark| benchmark == "paths") {
        return paths::run(root, &paths::Paths::parse_from(arguments));
    }
    if arguments.first().is_some_and(|benchmark| benchmark == "relay") && find(COTURN.0).is_none() {
        step("install coturn, to compare with", || apt(COTURN.1))?;
    }
    if arguments.first().is_some_and(|benchmark| benchmark == "ui") {
        step("build the web UI", || build::web(root))?;
    }
    step("build the kernel programs", || ebpf::build(root).map(drop))?;
    step("build the benchmark (release)", || {
        check(cargo(root).args([
            "build",
            "--release",
            "--package",
            "lanrage-tests",
            "--bin",
            "lanrage-bench",
            "--bin",
            "lanrage-lab",
            "--package",
            "lanrage-daemon",
            "--bins",
        ]))
    })?;
    println!();
    let target = build::program("")?;
    let target = target.parent().context("this program is not in a target directory")?;
    let mut command = as_root(target.join("release/lanrage-bench"))?;
    Err(command.args(arguments).exec()).context("cannot run the benchmark")
}
