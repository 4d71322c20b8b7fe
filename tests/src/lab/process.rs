//! Daemons of a lab: started in a namespace, known by process id, stopped for sure.

use super::netns::Namespace;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often things that are waited for are looked at.
pub const POLL: Duration = Duration::from_millis(50);

/// A process by id; the start time tells it from a later process that got the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pid: u32,
    started: u64,
}

impl Process {
    /// The process that has this id now.
    pub fn with_pid(pid: u32) -> Option<Self> {
        Stat::of(pid).map(|Stat { started, .. }| Self { pid, started })
    }

    /// Its id.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Whether it still runs, or holds anything that it had open.
    pub fn is_alive(self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started == self.started && !stat.has_ended())
    }

    /// Sends a signal, if it still runs.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(self.id(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot send {signal} to process {}", self.pid)),
        }
    }

    /// Ends it: politely, and after `patience` by force.
    pub fn end(self, patience: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        if !self.wait(patience) {
            self.signal(Signal::SIGKILL)?;
            if !self.wait(Duration::from_secs(5)) {
                bail!("process {} survives SIGKILL", self.pid);
            }
        }
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(self, patience: Duration) -> bool {
        wait_until(patience, || {
            let _ = waitpid(self.id(), Some(WaitPidFlag::WNOHANG)); // reaps it, if it is our child
            !self.is_alive()
        })
    }

    fn id(self) -> Pid {
        Pid::from_raw(self.pid.cast_signed())
    }
}

/// What `/proc/PID/stat` tells.
struct Stat {
    state: char,
    threads: u64,
    started: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
        let state = fields.next()?.chars().next()?;
        let threads = fields.nth(16)?.parse().ok()?;
        Some(Self { state, threads, started: fields.nth(1)?.parse().ok()? })
    }

    /// A killed process is a zombie as soon as its first thread is, while others still hold its files.
    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

/// Asks `condition` until it holds; whether it did in time.
pub fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// Starts a LANrage daemon that outlives this process; its output goes to the end of `log`.
pub fn start(namespace: &Namespace, config: &Path, log: &Path) -> Result<Process> {
    let out = OpenOptions::new().create(true).append(true).open(log);
    let out = out.with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program("lanrage-daemon")?);
    command.arg("--config").arg(config).process_group(0);
    without_settings(&mut command).env(
        "LANRAGE_LOG",
        std::env::var("LANRAGE_LOG").unwrap_or("info,lanrage_daemon=debug,lanrage_common=debug".into()),
    );
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let child = namespace.spawn(&mut command)?;
    Process::with_pid(child.id()).context("the daemon ended at once")
}

/// Removes settings that the caller's environment may hold.
pub fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANRAGE_")) {
        command.env_remove(name);
    }
    command
}

/// A program of this build: next to the running one, or one directory up for test programs.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build` first"))
}

/// The last lines of a log, indented.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = File::open(log).and_then(std::io::read_to_string).unwrap_or_else(|error| error.to_string());
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_its_successor() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::with_pid(child.id()).unwrap();
        assert!(process.is_alive());
        assert!(!Process { started: process.started + 1, ..process }.is_alive());
        assert_eq!(Stat::of(child.id()).unwrap().threads, 1);
        child.kill().unwrap();
        assert!(process.wait(Duration::from_secs(5)), "a zombie does not count as alive");
        assert!(!process.is_alive());
        let _ = child.wait();
    }

    #[test]
    fn tail_shows_the_end() {
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(log.path(), "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(log.path(), 2), "    two\n    three\n");
    }
}
