//! Building what runs: web UI, kernel programs, binaries.

use crate::process::{cargo, check, search_path, step};
use crate::{ebpf, setup};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Everything that `up`, the lab and the tests run, in the order in which one embeds the other.
pub fn everything(root: &Path) -> Result<()> {
    let machine = step("check the machine", || setup::run(root))?;
    step("build the web UI", || web(root))?;
    if machine.ebpf {
        step("build the kernel programs", || ebpf::build(root).map(drop))?;
    }
    step("build the programs", || programs(root))
}

/// Builds the web UI, unless it is newer than its sources.
pub fn web(root: &Path) -> Result<()> {
    let web = root.join("web");
    if !web.join("package.json").exists() {
        println!("   there is no web UI in this tree");
        return Ok(());
    }
    let npm = |arguments: &[&str]| check(Command::new("npm").args(arguments).current_dir(&web));
    if newer(&web.join("package-lock.json"), &web.join("node_modules/.package-lock.json")) {
        // Not `npm ci`: it insists on packages for other systems, which not every registry mirror has.
        npm(&["install", "--no-save", "--no-audit", "--no-fund", "--loglevel", "error"])?;
    }
    if newest(&web)? <= modified(&web.join("dist/index.html")) {
        println!("   web/dist is up to date");
        return Ok(());
    }
    npm(&["run", "build"])
}

/// Builds daemon, command line and lab.
pub fn programs(root: &Path) -> Result<()> {
    check(cargo(root).args(["build", "--package", "lanrage-daemon", "--package", "lanrage-tests", "--bins"]))
}

/// A built program, next to this one.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    Ok(own.with_file_name(name))
}

/// PATH with the built programs first.
pub fn path_with_programs() -> Result<std::ffi::OsString> {
    let own = program("")?;
    Ok(std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&search_path())))?)
}

/// Whether `file` is newer than `than`, or `than` does not exist.
fn newer(file: &Path, than: &Path) -> bool {
    modified(file) > modified(than)
}

fn modified(file: &Path) -> SystemTime {
    file.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// When the youngest source below `dir` changed; what is made from sources does not count.
fn newest(dir: &Path) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let time = if name == "node_modules" || name == "dist" {
            continue;
        } else if path.is_dir() {
            self::newest(&path)?
        } else {
            modified(&path)
        };
        newest = newest.max(time);
    }
    Ok(newest)
}
