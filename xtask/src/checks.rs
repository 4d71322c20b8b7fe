//! Everything CI checks.

use crate::process::{cargo, check, find, search_path, step};
use crate::{build, ebpf, links, setup, suite, vm};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// Formatting, lints, licences, documentation and all tests; quick checks first.
pub fn run(root: &Path) -> Result<()> {
    step("formatting", || check(cargo(root).args(["fmt", "--all", "--check"])))?;
    let machine = step("check the machine", || setup::run(root))?;
    if machine.ebpf {
        step("kernel programs", || ebpf::build(root).map(drop))?;
    }
    step("lints", || lint(root))?;
    setup::cargo_program(root, "cargo-deny")?;
    step("licences, bans and sources of dependencies", || deny(root, &["licenses", "bans", "sources"]))?;
    advisories(root)?;
    setup::cargo_program(root, "mdbook")?;
    step("documentation", || documentation(root))?;
    step("web UI: types and tests", || web(root))?;
    suite::run(root)?;
    step("pairs of routers in the lab", || check(&mut suite::lab_command(&["matrix", "--quick"])?))?;
    if machine.ebpf {
        step("kernel program on Debian's kernel, emulated", || vm::check_program(root))?;
    }
    println!("\nCI: all checks passed");
    Ok(())
}

/// Every crate but the kernel programs, which a host compiler sees only in part; those fail on warnings when built.
fn lint(root: &Path) -> Result<()> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"];
    check(cargo(root).args(clippy))
}

fn deny(root: &Path, which: &[&str]) -> Result<()> {
    let config = ["--config", ".cargo/deny.toml", "check", "--allow", "license-not-encountered"];
    check(cargo(root).arg("deny").args(config).args(which).env("PATH", search_path()))
}

/// Known vulnerabilities. Their database is a download that not every network allows: then say so and go on.
fn advisories(root: &Path) -> Result<()> {
    let config = ["deny", "--config", ".cargo/deny.toml", "fetch", "db"];
    let fetch = || check(cargo(root).args(config).env("PATH", search_path()));
    if let Err(error) = step("database of known vulnerabilities", fetch) {
        eprintln!("!! {error:#}");
        eprintln!(
            "!! Dependencies were NOT checked for known vulnerabilities: the database could not be downloaded."
        );
        return Ok(());
    }
    step("known vulnerabilities in dependencies", || deny(root, &["advisories"]))
}

fn web(root: &Path) -> Result<()> {
    build::web(root)?;
    let npm = |task: &str| check(Command::new("npm").args(["run", task]).current_dir(root.join("web")));
    npm("check")?;
    npm("test")
}

fn documentation(root: &Path) -> Result<()> {
    links::check(root)?;
    let book = root.join("target/book");
    let mdbook = find("mdbook").unwrap_or_else(|| "mdbook".into());
    check(Command::new(mdbook).arg("build").arg(root.join("docs")).arg("--dest-dir").arg(book))
}
