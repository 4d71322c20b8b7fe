//! Tests, the lab and the demo.

use crate::build;
use crate::process::{as_root, cargo, is_root, step};
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Tests that can be run without the others.
#[derive(Debug, clap::Subcommand)]
pub enum Suite {
    /// The web UI in Chromium; screenshots go to target/ui.
    Ui,
    /// Every known game through a party: `[--lane userspace|kernel] [--json FILE] [--docs DIR]`.
    #[command(disable_help_flag = true)]
    Games {
        /// Its options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Packages without tests that need root.
const PLAIN: [&str; 3] = ["lanrage-common", "lanrage-daemon", "xtask"];

/// Sums over test programs.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    passed: u32,
    failed: u32,
    ignored: u32,
}

/// Builds everything and runs all tests.
pub fn run(root: &Path) -> Result<()> {
    let start = Instant::now();
    build::everything(root)?;
    let packages: Vec<&str> = PLAIN.iter().flat_map(|package| ["--package", package]).collect();
    let mut tally = Tally::default();
    let plain = step("unit tests", || cargo_test(root, &packages, false, &mut tally));
    let lab = step("kernel program and lab tests", || {
        cargo_test(root, &["--package", "lanrage-tests"], true, &mut tally)
    });
    let Tally { passed, failed, ignored } = tally;
    let verdict = if plain.is_ok() && lab.is_ok() { "ALL TESTS PASSED" } else { "TESTS FAILED" };
    let seconds = start.elapsed().as_secs();
    println!(
        "\n{verdict}: {passed} passed, {failed} failed, {ignored} ignored, in {} min {} s",
        seconds / 60,
        seconds % 60
    );
    plain.and(lab)
}

/// Builds everything and runs one suite.
pub fn only(root: &Path, suite: Suite) -> Result<()> {
    match suite {
        Suite::Ui => {
            build::everything(root)?;
            let test = ["--package", "lanrage-tests", "--test", "ui"];
            step("tests", || cargo_test(root, &test, true, &mut Tally::default()))
        }
        Suite::Games { mut arguments } => {
            arguments.insert(0, "games".into());
            lab(root, &arguments)
        }
    }
}

/// Runs `cargo test`, shows what it prints and counts.
fn cargo_test(root: &Path, packages: &[&str], privileged: bool, tally: &mut Tally) -> Result<()> {
    let mut command = cargo(root);
    command.arg("test").args(packages).arg("--no-fail-fast").stdout(Stdio::piped());
    command.env("PATH", build::path_with_programs()?);
    if privileged && !is_root() {
        let key = format!("CARGO_TARGET_{}_RUNNER", host(root)?.to_uppercase().replace('-', "_"));
        command.env(key, "sudo --preserve-env=PATH");
    }
    let mut child = command.spawn().context("cannot start cargo test")?;
    let lines = BufReader::new(child.stdout.take().context("no output of cargo test")?).lines();
    for line in lines.map_while(Result::ok) {
        println!("{line}");
        tally.add(&line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("tests failed: look for `FAILED` above");
    }
    Ok(())
}

/// The target that cargo builds for.
fn host(root: &Path) -> Result<String> {
    let version =
        crate::process::output(Command::new("rustc").arg("-vV").current_dir(root)).unwrap_or_default();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("cannot ask rustc for its host target")
}

impl Tally {
    /// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|word| word.parse::<u32>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.ignored += count,
                _ => {}
            }
        }
    }
}

/// Becomes the lab. Only what starts programs builds them first.
pub fn lab(root: &Path, arguments: &[OsString]) -> Result<()> {
    let starts =
        arguments.iter().any(|word| ["up", "demo", "matrix", "games"].iter().any(|verb| word == verb));
    let lab = build::program("lanrage-lab")?;
    if starts || !lab.exists() {
        build::everything(root)?;
        println!();
    }
    Err(lab_command(arguments)?.exec()).context("cannot run the lab")
}

/// The lab as it was built last.
pub fn lab_command(arguments: &[impl AsRef<OsStr>]) -> Result<Command> {
    let mut command = as_root(build::program("lanrage-lab")?)?;
    command.args(arguments).env("PATH", build::path_with_programs()?);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_cargo_test_prints() {
        let mut tally = Tally::default();
        tally.add("running 9 tests");
        tally.add(
            "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tally.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (9, 3, 1));
    }
}
