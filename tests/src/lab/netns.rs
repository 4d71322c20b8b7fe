//! Named network namespaces.

use super::process::Process;
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Uid, setfsuid};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where `ip netns` keeps them.
const DIRECTORY: &str = "/run/netns";
/// Account of the person who plays: the first that Debian gives to one.
const PLAYER: u32 = 1000;

/// A network namespace known by name. Dropping the value does not delete the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// One that exists, or is about to.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Makes it, with loopback up.
    pub fn create(&self) -> Result<()> {
        command_output(Command::new("ip").args(["netns", "add", &self.name]))?;
        self.ip("link set lo up")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(&self.name)
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Moves the calling thread into it; sockets and children made afterwards belong to it.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(self.path()).with_context(|| format!("no network namespace {}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter namespace {}", self.name))
    }

    /// Runs `work` inside it, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || self.enter().map(|()| work());
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The same as [`Namespace::run`] for what a player starts: sockets made by `work` belong to [`PLAYER`], not to root,
    /// and so are a game's to the party firewall.
    pub fn play<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.run(|| {
            setfsuid(Uid::from_raw(PLAYER));
            work()
        })
    }

    /// Starts a process inside it.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_owned();
        self.run(|| command.spawn())?.with_context(|| format!("cannot start {}", program.display()))
    }

    /// Runs a program inside it to its end; what it printed, or an error with what it complained about.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.run(|| command_output(command))?
    }

    /// Runs iproute2 commands inside it, one a line, e.g. `addr add 192.0.2.1/30 dev wan`.
    pub fn ip(&self, batch: &str) -> Result<()> {
        command_input(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), batch)
    }

    /// Applies an nftables script.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.run(|| command_input(Command::new("nft").args(["-f", "-"]), script))?
    }

    /// Sets a kernel parameter below `/proc/sys/net`, e.g. `ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| fs::write(&path, value))?
            .with_context(|| format!("cannot set {path} in namespace {}", self.name))
    }

    /// Processes that live in it now.
    pub fn processes(&self) -> Vec<u32> {
        let Ok(own) = fs::metadata(self.path()) else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let lives_here = |pid: &u32| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|net| (net.dev(), net.ino()) == (own.dev(), own.ino()))
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(lives_here)
            .collect()
    }

    /// Ends what still runs in it, and deletes it.
    pub fn clear(&self) -> Result<()> {
        for process in self.processes().into_iter().filter_map(Process::with_pid) {
            process.end(Duration::from_secs(1))?;
        }
        self.delete()
    }

    /// Deletes it, if it exists.
    pub fn delete(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        command_output(Command::new("ip").args(["netns", "delete", &self.name])).map(drop)
    }
}

/// Runs a program to its end; what it printed, or an error with what it complained about.
pub fn command_output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let name = name.display();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with text on its standard input.
fn command_input(command: &mut Command, input: &str) -> Result<()> {
    let name = command.get_program().to_owned();
    let name = name.display();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(
            || format!("cannot start {name}: is it installed? `cargo xtask setup` installs it"),
        )?;
    let written = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() || written.is_err() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{name} refused:\n{}\n{}", input.trim(), complaint.trim());
    }
    Ok(())
}
