//! The ways to forward that are compared: each sets itself up between the same two ends, and undoes that when dropped.

use super::cost::{flow_key, flow_value};
use super::generator::{Programs, Traffic, pin_to};
use super::session;
use crate::lab::netns::Namespace;
use crate::veth::{CLIENT, PEER, RELAY_A, RELAY_B, Row, ifindex, mac_bytes};
use anyhow::{Context, Result};
use lanrage_common::maps::{Local, NextHop};
use lanrage_common::wire::{Be16, Be32};
use lanrage_daemon::config::{RelayConfig, RelayModeChoice};
use lanrage_daemon::datapath::table::Maps as _;
use lanrage_daemon::datapath::xdp::{Hook, Program};
use lanrage_daemon::{relay, shutdown};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

const PORT: u16 = 3478;
const MEMBER: u16 = 51820;
/// From where the generator sends.
pub const SOURCE: SocketAddrV4 = SocketAddrV4::new(CLIENT, MEMBER);
/// To where it sends.
pub const RELAY: SocketAddrV4 = SocketAddrV4::new(RELAY_A, PORT);
/// Where it arrives.
pub const DESTINATION: SocketAddrV4 = SocketAddrV4::new(PEER, MEMBER);
/// The relay as the peer sees it.
const RELAY_SEEN: SocketAddrV4 = SocketAddrV4::new(RELAY_B, PORT);

/// What forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing: the sink is the generator's neighbour. No row can be faster.
    Ceiling,
    /// LANrage in the driver.
    XdpNative,
    /// LANrage in the network stack.
    XdpGeneric,
    /// LANrage's relay role without a kernel program.
    Userspace,
    /// The shortest relay one would write with tokio.
    Tokio,
    /// Destination and source NAT by nftables.
    Nftables,
}

impl Kind {
    /// Name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::XdpNative => "xdp_native",
            Self::XdpGeneric => "xdp_generic",
            Self::Userspace => "userspace",
            Self::Tokio => "tokio",
            Self::Nftables => "nftables",
        }
    }
}

/// What keeps a row running.
#[derive(Debug)]
pub struct Running {
    /// What the generator must send for it.
    pub traffic: Traffic,
    _program: Option<Program>,
    _thread: Option<Stop>,
}

/// Sets a way to forward up in a fresh row of namespaces.
pub fn start(kind: Kind, row: &Row, programs: &mut Programs, flows: u32, payload: usize) -> Result<Running> {
    let mut traffic =
        Traffic { source: SOURCE, destination: RELAY, index: 0, flows, payload, sink_port: MEMBER };
    if kind == Kind::Ceiling {
        traffic.sink_port = PORT;
        programs.attach("sink", &row.relay, "ra")?;
        return Ok(Running { traffic, _program: None, _thread: None });
    }
    let (mut program, mut thread) = (None, None);
    match kind {
        Kind::Ceiling => {}
        Kind::XdpNative => program = Some(attach(row, Hook::Native, flows)?),
        Kind::XdpGeneric => {
            // Without a native program, only GRO makes a veth take frames from the generator.
            row.relay.output(Command::new("ethtool").args(["-K", "ra", "gro", "on"]))?;
            program = Some(attach(row, Hook::Generic, flows)?);
        }
        Kind::Userspace => {
            let (stop, index) = userspace(row)?;
            (thread, traffic.index) = (Some(stop), index);
            programs.attach("empty", &row.relay, "ra")?;
        }
        Kind::Tokio => {
            thread = Some(Stop::spawn(&row.relay, tokio_relay)?);
            programs.attach("empty", &row.relay, "ra")?;
        }
        Kind::Nftables => {
            nftables(row)?;
            programs.attach("empty", &row.relay, "ra")?;
        }
    }
    programs.attach("sink", &row.peer, "b0")?;
    row.fix_neighbours()?;
    Ok(Running { traffic, _program: program, _thread: thread })
}

fn attach(row: &Row, hook: Hook, flows: u32) -> Result<Program> {
    let mut program = Program::load(flows)?;
    let mut local = Local::default();
    local.addresses[0] = Be32::from_octets(RELAY_A.octets());
    local.ports[0] = Be16::new(PORT);
    program.set_local(local)?;
    let macs = (mac_bytes(&row.peer, "b0")?, mac_bytes(&row.relay, "rb")?);
    program.put_next_hop(1, NextHop::new(ifindex(&row.relay, "rb")?, 1500, macs.0, macs.1))?;
    for index in 0..flows {
        program.put_flow(flow_key(SOURCE, index), flow_value(RELAY_SEEN, DESTINATION))?;
    }
    let ra = ifindex(&row.relay, "ra")?;
    row.relay.run(|| program.attach(ra, hook))?.context("cannot attach to ra")?;
    Ok(program)
}

fn nftables(row: &Row) -> Result<()> {
    row.relay.sysctl("ipv4/ip_forward", "1")?;
    row.relay.nft(&format!(
        "table ip bench {{\n chain pre {{\n type nat hook prerouting priority -100;\n \
         ip daddr {RELAY_A} udp dport {PORT} dnat to {PEER}:{MEMBER}\n }}\n \
         chain post {{\n type nat hook postrouting priority 100;\n oifname \"rb\" masquerade\n }}\n}}\n"
    ))
}

/// A thread in a namespace that ends when this is dropped.
#[derive(Debug)]
struct Stop {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stop {
    /// Runs `work` on the second core, on a runtime of its own.
    fn spawn<F>(namespace: &Namespace, work: impl FnOnce() -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = Result<()>>,
    {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let namespace = namespace.clone();
        let work = move || -> Result<()> {
            namespace.enter()?;
            pin_to(1);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => Ok(()),
                    done = work() => done,
                }
            })
        };
        let thread = std::thread::Builder::new().name("bench-row".into()).spawn(move || {
            if let Err(error) = work() {
                eprintln!("a benchmark row stopped: {error:#}");
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What one would write first: a socket a side, a copy a datagram.
async fn tokio_relay() -> Result<()> {
    let near = tokio::net::UdpSocket::bind((RELAY_A, PORT)).await?;
    let far = tokio::net::UdpSocket::bind((RELAY_B, PORT)).await?;
    let there = async {
        let mut buffer = vec![0; 2048];
        while let Ok((length, _)) = near.recv_from(&mut buffer).await {
            let _ = far.send_to(&buffer[..length], DESTINATION).await;
        }
    };
    let back = async {
        let mut buffer = vec![0; 2048];
        while let Ok((length, _)) = far.recv_from(&mut buffer).await {
            let _ = near.send_to(&buffer[..length], SOURCE).await;
        }
    };
    tokio::join!(there, back);
    Ok(())
}

/// The relay role itself, with two bound members; gives the receiver index of the flow from client to peer.
fn userspace(row: &Row) -> Result<(Stop, u32)> {
    let (ready, started) = mpsc::channel();
    let stop = Stop::spawn(&row.relay, move || async move {
        let state = tempfile::tempdir()?;
        let config = RelayConfig {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
            public_address: Some(SocketAddr::V4(RELAY)),
            control: Some("http://127.0.0.1:9".into()),
            token: Some("benchmark".into()),
            mode: RelayModeChoice::Userspace,
            pin_dir: std::path::PathBuf::new(),
            ..RelayConfig::default()
        };
        let (_trigger, shutdown) = shutdown::channel();
        let _relay = relay::start(&config, state.path(), shutdown).await?;
        let key = std::fs::read(state.path().join("relay-ticket-key"))?;
        let _ = ready.send(<[u8; 32]>::try_from(key).ok().context("a ticket key has 32 bytes")?);
        std::future::pending().await
    })?;
    let key = started.recv().context("the relay did not start")?;
    let ends = [(&row.client, SOURCE, RELAY), (&row.peer, DESTINATION, RELAY_SEEN)];
    let index = session::establish(ends, &key)?;
    Ok((stop, index))
}
