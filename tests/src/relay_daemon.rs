//! A relay's daemon alone, as it is installed: kept by its state and its pins, killed and started again.

use crate::lab::netns::{Namespace, command_output};
use crate::lab::process::{self, Process, wait_until};
use crate::veth::RELAY_A;
use anyhow::{Context, Result, ensure};
use lanrage_common::api::{RelayStatus, Status};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// UDP port it listens on.
pub const PORT: u16 = 3478;
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay between the interfaces `ra` and `rb` of a namespace. When dropped it ends, and leaves nothing in bpffs.
#[derive(Debug)]
pub struct RelayDaemon {
    /// Where it runs.
    pub namespace: Namespace,
    /// Its configuration, state, socket and log.
    pub dir: TempDir,
    /// Its `relay.pin_dir`.
    pub pins: PathBuf,
    /// While it runs.
    pub process: Option<Process>,
    /// Its `relay.max_flows`, from the next start on.
    pub max_flows: u32,
    /// More lines of its `[relay]`, from the next start on.
    pub settings: String,
}

impl RelayDaemon {
    /// Not yet running.
    pub fn new(namespace: &Namespace, name: &str) -> Result<Self> {
        let pins = PathBuf::from(format!("/sys/fs/bpf/lanrage-test-{name}"));
        remove(&pins)?;
        let namespace = namespace.clone();
        Ok(Self {
            namespace,
            dir: tempfile::tempdir()?,
            pins,
            process: None,
            max_flows: 1000,
            settings: String::new(),
        })
    }

    /// The key that its members' tickets are sealed with.
    pub fn ticket_key(&self) -> Result<[u8; 32]> {
        let key = fs::read(self.dir.path().join("state/relay-ticket-key"))?;
        key.try_into().ok().context("a ticket key has 32 bytes")
    }

    /// Starts it and waits until it answers.
    pub fn run(&mut self) -> Result<RelayStatus> {
        self.launch()?;
        let mut status = None;
        let ready = wait_until(PATIENCE, || {
            status = self.status();
            status.is_some()
        });
        ensure!(ready, "the relay does not start:\n{}", self.log());
        status.context("no status")
    }

    /// Starts it.
    pub fn launch(&mut self) -> Result<()> {
        let config = self.dir.path().join("lanrage.toml");
        fs::write(&config, self.config())?;
        self.process = Some(process::start(&self.namespace, &config, &self.dir.path().join("log"))?);
        Ok(())
    }

    fn config(&self) -> String {
        let (dir, pins) = (self.dir.path().display(), self.pins.display());
        format!(
            "role = 'relay'\nstate_dir = '{dir}/state'\nsocket = '{dir}/socket'\n[relay]\nlisten = '0.0.0.0:{PORT}'\n\
             public_address = '{RELAY_A}:{PORT}'\ncontrol = 'http://127.0.0.1:9'\ntoken = 'nobody-asks-for-this-token'\n\
             interfaces = ['ra', 'rb']\npin_dir = '{pins}'\nmax_flows = {}\n{}\n",
            self.max_flows, self.settings
        )
    }

    /// What `lanrage` prints, asking it.
    pub fn lanrage(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(process::program("lanrage")?);
        command.arg("--socket").arg(self.dir.path().join("socket"));
        command_output(command.args(arguments))
    }

    /// What it says of itself; `None` while it does not answer.
    pub fn status(&self) -> Option<RelayStatus> {
        let text = self.lanrage(&["status", "--json"]).ok()?;
        let Status { relay, problems, .. } = serde_json::from_str(&text).ok()?;
        Some(RelayStatus { problems, ..relay? })
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        process::tail(&self.dir.path().join("log"), 30)
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("the relay does not run")?;
        process.signal(Signal::SIGKILL)?;
        ensure!(process.wait(PATIENCE), "it survives SIGKILL");
        Ok(())
    }

    /// As systemd restarts it.
    pub fn restart(&mut self) -> Result<RelayStatus> {
        let process = self.process.take().context("the relay does not run")?;
        process.end(PATIENCE)?;
        self.run()
    }

    /// The relay's own directory in bpffs.
    pub fn home(&self) -> Result<PathBuf> {
        let entry = fs::read_dir(&self.pins)?.next().context("nothing is pinned")?;
        Ok(entry?.path())
    }

    /// What of its pins has a name that begins so.
    pub fn entries(&self, prefix: &str) -> Result<Vec<PathBuf>> {
        let Ok(home) = self.home() else { return Ok(Vec::new()) };
        let entries = fs::read_dir(home)?.map(|entry| entry.map(|entry| entry.path()));
        let entries: Vec<PathBuf> = entries.collect::<std::io::Result<_>>()?;
        let begins =
            |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix));
        Ok(entries.into_iter().filter(begins).collect())
    }

    /// How many these are.
    pub fn kept(&self, prefix: &str) -> Result<usize> {
        self.entries(prefix).map(|entries| entries.len())
    }
}

impl Drop for RelayDaemon {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let _ = process.end(PATIENCE);
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        if let Err(error) = remove(&self.pins) {
            eprintln!("error: {error:#}");
        }
    }
}

/// Names in bpffs are our own; removing the links detaches the programs.
pub fn remove(pins: &Path) -> Result<()> {
    if pins.exists() {
        fs::remove_dir_all(pins).with_context(|| format!("cannot remove {}", pins.display()))?;
    }
    Ok(())
}
