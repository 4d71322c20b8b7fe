//! Relays that die, come back and are replaced while packets pass. Needs root and bpffs.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use anyhow::{Context, Result, ensure};
use lanrage_common::api::{RelayMode, RelayStatus, Status};
use lanrage_tests::bench::session;
use lanrage_tests::lab::netns::command_output;
use lanrage_tests::lab::process::{self, Process, wait_until};
use lanrage_tests::stream::{Lane, Stream, Tally};
use lanrage_tests::veth::{CLIENT, PEER, RELAY_A, RELAY_B, Row};
use nix::sys::signal::Signal;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const PORT: u16 = 3478;
const MEMBER: u16 = 51820;
const PAIRS: u16 = 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// The relay's daemon between two sides, as it is installed: kept by its state and its pins alone.
struct Relay {
    row: Row,
    dir: TempDir,
    pins: PathBuf,
    process: Option<Process>,
    max_flows: u32,
}

impl Relay {
    fn start(name: &str) -> Result<Self> {
        let row = Row::create(name)?;
        row.pass_at_ends()?;
        let pins = PathBuf::from(format!("/sys/fs/bpf/lanrage-test-{name}"));
        remove(&pins)?;
        let mut relay = Self { row, dir: tempfile::tempdir()?, pins, process: None, max_flows: 1000 };
        relay.run()?;
        Ok(relay)
    }

    fn run(&mut self) -> Result<RelayStatus> {
        self.launch()?;
        let mut status = None;
        let ready = wait_until(PATIENCE, || {
            status = self.status();
            status.is_some()
        });
        ensure!(ready, "the relay does not start:\n{}", self.log());
        status.context("no status")
    }

    fn launch(&mut self) -> Result<()> {
        let config = self.dir.path().join("lanrage.toml");
        fs::write(&config, self.config())?;
        self.process = Some(process::start(&self.row.relay, &config, &self.dir.path().join("log"))?);
        Ok(())
    }

    fn config(&self) -> String {
        let (dir, pins) = (self.dir.path().display(), self.pins.display());
        format!(
            "role = 'relay'\nstate_dir = '{dir}/state'\nsocket = '{dir}/socket'\n[relay]\nlisten = '0.0.0.0:{PORT}'\n\
             public_address = '{RELAY_A}:{PORT}'\ncontrol = 'http://127.0.0.1:9'\ntoken = 'nobody-asks-for-this-token'\n\
             interfaces = ['ra', 'rb']\npin_dir = '{pins}'\nmax_flows = {}\n",
            self.max_flows
        )
    }

    fn status(&self) -> Option<RelayStatus> {
        let mut command = Command::new(process::program("lanrage").unwrap());
        let socket = self.dir.path().join("socket");
        let text = command_output(command.arg("--socket").arg(socket).args(["status", "--json"])).ok()?;
        serde_json::from_str::<Status>(&text).unwrap().relay
    }

    fn log(&self) -> String {
        process::tail(&self.dir.path().join("log"), 30)
    }

    fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("the relay does not run")?;
        process.signal(Signal::SIGKILL)?;
        ensure!(process.wait(PATIENCE), "it survives SIGKILL");
        Ok(())
    }

    /// A pair of members with a WireGuard session, and packets that go from one to the other.
    fn pair(&self, number: u16) -> Result<Stream> {
        let key = fs::read(self.dir.path().join("state/relay-ticket-key"))?;
        let key: [u8; 32] = key.try_into().ok().context("a ticket key has 32 bytes")?;
        let port = MEMBER + number;
        let relay = |address| SocketAddrV4::new(address, PORT);
        let (client, peer) = (SocketAddrV4::new(CLIENT, port), SocketAddrV4::new(PEER, port));
        let ends = [(&self.row.client, client, relay(RELAY_A)), (&self.row.peer, peer, relay(RELAY_B))];
        let index = session::establish(ends, &key)?;
        let lane = Lane {
            session: number.into(),
            index,
            from: client.into(),
            relay: relay(RELAY_A).into(),
            to: peer.into(),
        };
        Stream::start((&self.row.client, &self.row.peer), lane, Duration::from_micros(200))
    }

    /// Pairs whose packets pass, in the kernel.
    fn pairs(&self) -> Result<Vec<Stream>> {
        let streams: Vec<Stream> = (0..PAIRS).map(|number| self.pair(number)).collect::<Result<_>>()?;
        let settled = wait_until(PATIENCE, || {
            let counts = self.status().map(|status| (status.mode, status.kernel_forwarded));
            counts.is_some_and(|(mode, packets)| mode == RelayMode::XdpNative && packets > 500)
        });
        ensure!(settled, "nothing is forwarded in the kernel: {:?}\n{}", self.status(), self.log());
        Ok(streams)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let _ = process.end(PATIENCE);
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        remove(&self.pins).unwrap();
    }
}

/// Names in bpffs are our own; removing the links detaches the programs.
fn remove(pins: &Path) -> Result<()> {
    if pins.exists() {
        fs::remove_dir_all(pins).with_context(|| format!("cannot remove {}", pins.display()))?;
    }
    Ok(())
}

fn moves_on(streams: &[Stream]) -> bool {
    let before: Vec<u64> = streams.iter().map(Stream::arrived).collect();
    wait_until(Duration::from_secs(5), || {
        streams.iter().zip(&before).all(|(stream, before)| stream.arrived() > before + 100)
    })
}

fn all_arrived(streams: Vec<Stream>) -> Result<()> {
    for stream in streams {
        let tally = stream.stop()?;
        println!("{tally:?}");
        ensure!(tally.sent > 1000, "too few packets to say anything: {tally:?}");
        ensure!(tally == Tally { arrived: tally.sent, astray: 0, twice: 0, ..tally }, "{tally:?}");
    }
    Ok(())
}

#[test]
fn a_killed_relay_forwards_on() -> Result<()> {
    let mut relay = Relay::start("svk")?;
    let streams = relay.pairs()?;
    relay.kill()?;
    ensure!(moves_on(&streams), "nothing passes without the daemon");
    all_arrived(streams)
}
