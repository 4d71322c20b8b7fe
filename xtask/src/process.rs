//! Running other programs, and telling people how far things are.

use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Does one step of a longer task, and says what it is and how long it took.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n── {what}");
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "done" } else { "FAILED" };
    println!("   {verdict}: {what} ({:.1} s)", start.elapsed().as_secs_f64());
    result
}

/// Runs a program to its end; an error if that is not a good one.
pub fn check(command: &mut Command) -> Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// What a program prints, if it ends well.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Cargo, working on the workspace, without what the running cargo told this program.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// A program's file, if it is in PATH or where `cargo install` and distributions put programs.
pub fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// PATH, and behind it the places that a plain user's PATH may lack.
pub fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let more = cargo_home.map(|home| home.join("bin")).into_iter();
    let more = more.chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(std::env::split_paths(&path).chain(more)).unwrap_or(path)
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The program as root: by itself, or through sudo where that exists.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = find("sudo").context("this needs root and there is no sudo: run it as root")?;
    println!("   root is needed: asking sudo");
    let mut command = Command::new(sudo);
    command.arg("--preserve-env=PATH,RUST_LOG").arg(program);
    Ok(command)
}
