//! coturn, the TURN server that everybody runs, as the benchmark's baseline.

use super::bed::Bed;
use super::generator::Traffic;
use super::turn;
use crate::veth::{RELAY_A, RELAY_B};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddrV4;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const PROGRAM: &str = "turnserver";
/// Allocations a server with one relay address can give: a port each.
const PORTS: (u16, u16) = (1_024, 65_535);
/// Descriptors that coturn needs for itself; every allocation takes one.
const SPARE_FILES: u64 = 500;

/// A running server; ended when dropped.
#[derive(Debug)]
pub struct Coturn {
    server: Child,
    _directory: TempDir,
}

impl Drop for Coturn {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Starts it and makes an allocation a flow, as many as it takes; gives ChannelData for them.
pub fn start(bed: &Bed, traffic: &Traffic, peer: SocketAddrV4) -> Result<(Coturn, Traffic)> {
    let coturn = Coturn::start(bed, traffic.destination.port())?;
    let flows = traffic.flows.min(most_allocations()?);
    let clients: Vec<SocketAddrV4> = (0..flows).map(|flow| traffic.source_of(flow)).collect();
    bed.add_sources(traffic.sources())?;
    wait_until_up(bed, traffic.destination, clients[0], peer)?;
    let granted = turn::allocate(&bed.client, traffic.destination, &clients, peer)?;
    ensure!(granted > 0, "coturn grants no allocation");
    let inner = &traffic.payload[..traffic.payload.len() - 4];
    let traffic = Traffic {
        flows: granted as u32,
        payload: turn::channel_data(inner),
        index_at: traffic.index_at + 4,
        ..traffic.clone()
    };
    Ok((coturn, traffic))
}

/// As many as there are ports and files.
fn most_allocations() -> Result<u32> {
    let limits = std::fs::read_to_string("/proc/self/limits").context("cannot read /proc/self/limits")?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files: u64 = files.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(1024);
    let ports = u64::from(PORTS.1 - PORTS.0);
    Ok(files.saturating_sub(SPARE_FILES).clamp(1, ports) as u32)
}

/// The server may still be opening its sockets.
fn wait_until_up(bed: &Bed, server: SocketAddrV4, client: SocketAddrV4, peer: SocketAddrV4) -> Result<()> {
    let first = || turn::allocate(&bed.client, server, &[client], peer);
    for _ in 0..40 {
        if first().is_ok_and(|granted| granted == 1) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    first().map(drop).context("coturn did not start")
}

impl Coturn {
    fn start(bed: &Bed, port: u16) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = |name: &str| directory.path().join(name);
        let mut command = Command::new(PROGRAM);
        command.args([
            "-n",
            "--no-auth",
            "--no-tls",
            "--no-dtls",
            "--no-tcp",
            "--no-cli",
            "--no-multicast-peers",
        ]);
        command.args(["--simple-log", "--no-stdout-log", "--log-file"]).arg(file("log"));
        command.arg("--pidfile").arg(file("pid")).arg("--userdb").arg(file("db"));
        command.args(["--listening-port", &port.to_string()]);
        command.args(["--min-port", &PORTS.0.to_string(), "--max-port", &PORTS.1.to_string()]);
        command.args(["-L", &RELAY_A.to_string(), "-E", &RELAY_B.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = bed.relay.spawn(&mut command).context(
            "coturn is the baseline that relays TURN: install it with `apt-get install coturn` \
             (`cargo xtask bench` does so as root)",
        )?;
        Ok(Self { server, _directory: directory })
    }
}
