//! The ways to forward that are compared: each sets itself up between the same two ends, and undoes that when dropped.

use super::bed::Bed;
use super::coturn::{self, Coturn};
use super::generator::{Programs, Traffic, pin_to};
use super::session::{self, Indexes, Side};
use super::table::{self, Direction, Exit};
use crate::lab::netns::Namespace;
use crate::veth::{CLIENT, CLIENT_TWO, PEER, RELAY_A, RELAY_B, ifindex};
use anyhow::{Context, Result};
use lanrage_common::maps::NextHop;
use lanrage_common::wire::Address;
use lanrage_daemon::config::{RelayConfig, RelayModeChoice};
use lanrage_daemon::datapath::xdp::{Hook, Program};
use lanrage_daemon::{relay, shutdown};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::mpsc;
use std::thread::JoinHandle;

const PORT: u16 = 3478;
const MEMBER: u16 = 51820;
/// Where a game's packets arrive.
const GAME: u16 = 40_000;
/// Peers of the userspace row have a port each from here on.
const FIRST_PEER: u16 = 30_000;
/// Members that one relay takes, two a flow.
const USERSPACE_FLOWS: u32 = lanrage_common::maps::DEFAULT_MEMBERS / 2;
/// Source ports that masquerading has for one destination.
const MASQUERADED_FLOWS: u32 = 60_000;
/// From where the first flow comes.
pub const SOURCE: SocketAddrV4 = SocketAddrV4::new(CLIENT, 20_000);
/// To where the generator sends.
pub const RELAY: SocketAddrV4 = SocketAddrV4::new(RELAY_A, PORT);
/// Where it arrives.
pub const DESTINATION: SocketAddrV4 = SocketAddrV4::new(PEER, MEMBER);
/// The relay as the peer sees it.
pub const RELAY_SEEN: SocketAddrV4 = SocketAddrV4::new(RELAY_B, PORT);

/// What forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing: the sink is the generator's neighbour. No row can be faster.
    Ceiling,
    /// LANrage in the driver, from one interface to another.
    XdpNative,
    /// LANrage in the driver, back by the interface the packet came in.
    XdpHairpin,
    /// LANrage in the network stack.
    XdpGeneric,
    /// LANrage in the driver, answering STUN.
    Stun,
    /// Destination and source NAT by nftables.
    Nftables,
    /// LANrage's relay role without a kernel program.
    Userspace,
    /// coturn, with ChannelData.
    Coturn,
    /// The shortest relay one would write with tokio.
    Tokio,
    /// The kernel's own forwarding, without NAT: what a hop costs anyway.
    Routed,
}

impl Kind {
    /// Name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::XdpNative => "xdp_native",
            Self::XdpHairpin => "xdp_hairpin",
            Self::XdpGeneric => "xdp_generic",
            Self::Stun => "xdp_stun",
            Self::Nftables => "nftables",
            Self::Userspace => "userspace",
            Self::Coturn => "coturn",
            Self::Tokio => "tokio",
            Self::Routed => "routed",
        }
    }

    /// Whether it copies packets to a process, or makes a connection of each flow: then a flood costs it more than the
    /// packets it can forward, and its best rate has to be looked for.
    pub fn drowns(self) -> bool {
        matches!(self, Self::Nftables | Self::Userspace | Self::Coturn | Self::Tokio | Self::Routed)
    }
}

/// One way under one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// What forwards.
    pub kind: Kind,
    /// Flows asked for.
    pub flows: u32,
    /// Bytes of the whole frame.
    pub bytes: usize,
    /// Receive queues of every interface, and generators.
    pub queues: usize,
}

const HEADERS: usize = 42;
/// Bytes of a frame with a STUN request that the kernel program answers.
pub const STUN_FRAME: usize = HEADERS + 32;

/// What keeps a row running.
#[derive(Debug)]
pub struct Running {
    /// What the generator must send for it.
    pub traffic: Traffic,
    _forwarder: Forwarder,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held until the row is over")]
enum Forwarder {
    Kernel,
    Program(Box<Program>),
    Thread(Stop),
    Coturn(Coturn),
}

/// Sets a way to forward up on a fresh bed.
pub fn start(line: Line, bed: &Bed, programs: &mut Programs) -> Result<Running> {
    let mut traffic = Traffic::wireguard(SOURCE, RELAY, line.flows, line.bytes - HEADERS);
    traffic.sink_ports = MEMBER..MEMBER + 1;
    if line.kind == Kind::Stun {
        traffic = Traffic::stun(SOURCE, RELAY, line.flows);
    }
    // A card puts each flow into one queue.
    traffic.generators = line.queues as u32;
    traffic.flows = traffic.flows.max(traffic.generators);
    let returns = matches!(line.kind, Kind::XdpHairpin | Kind::Stun);
    programs.hold_generator(&bed.client)?;
    let sink = if returns { (&bed.client, "a0") } else { (&bed.peer, "b0") };
    programs.attach("sink", sink.0, sink.1)?;
    if !returns {
        bed.pass_at_client()?;
    }
    if line.kind.drowns() {
        programs.attach("empty", &bed.relay, "ra")?;
        bed.relay
            .ip(&format!("link set dev rb xdp obj {} sec xdp", crate::veth::pass_object()?.display()))?;
    }
    let forwarder = match line.kind {
        Kind::Ceiling => {
            traffic.sink_ports = PORT..PORT + 1;
            programs.attach("sink", &bed.relay, "ra")?;
            Forwarder::Kernel
        }
        Kind::XdpNative => Forwarder::Program(attach(bed, Hook::Native, &traffic, onward(bed)?, &[])?),
        Kind::XdpHairpin | Kind::Stun => {
            Forwarder::Program(attach(bed, Hook::Native, &traffic, hairpin(bed)?, &[])?)
        }
        Kind::XdpGeneric => Forwarder::Program(attach(bed, Hook::Generic, &traffic, onward(bed)?, &[])?),
        Kind::Routed => {
            bed.relay.sysctl("ipv4/ip_forward", "1")?;
            traffic.destination = DESTINATION;
            Forwarder::Kernel
        }
        Kind::Nftables => {
            traffic.flows = traffic.flows.min(MASQUERADED_FLOWS);
            nftables(bed)?;
            Forwarder::Kernel
        }
        Kind::Userspace => {
            traffic.flows = traffic.flows.min(USERSPACE_FLOWS);
            let (stop, indexes) = userspace(bed, &traffic, line.queues)?;
            traffic.index = indexes.there;
            traffic.stride = session::STRIDE;
            traffic.sink_ports = FIRST_PEER..FIRST_PEER + traffic.flows as u16;
            Forwarder::Thread(stop)
        }
        Kind::Tokio => Forwarder::Thread(Stop::spawn(&bed.relay, Some(1), || tokio_relay(DESTINATION))?),
        Kind::Coturn => {
            let (coturn, granted) = coturn::start(bed, &traffic, DESTINATION)?;
            traffic = granted;
            Forwarder::Coturn(coturn)
        }
    };
    Ok(Running { traffic, _forwarder: forwarder })
}

/// One game's flow in both directions, and others beside it.
#[derive(Debug)]
pub struct Game {
    /// From where it plays.
    pub client: SocketAddrV4,
    /// To where it sends.
    pub to: SocketAddrV4,
    /// Where that arrives.
    pub peer: SocketAddrV4,
    /// Receiver index of what the client sends.
    pub there: u32,
    /// Receiver index of what the peer sends.
    pub back: u32,
    /// The others; the sink takes them.
    pub others: Traffic,
    _forwarder: Forwarder,
}

/// Sets a way to forward up for a game's flow and for `others` more, from the same client to the same peer.
pub fn start_game(
    kind: Kind,
    bed: &Bed,
    programs: &mut Programs,
    others: u32,
    payload: usize,
) -> Result<Game> {
    programs.hold_generator(&bed.client)?;
    bed.pass_at_client()?;
    programs.attach("sink", &bed.peer, "b0")?;
    if kind != Kind::XdpNative {
        bed.pass_at_relay()?;
    }
    let mut all = Traffic::wireguard(SOURCE, RELAY, 1 + others, payload);
    let mut peer = SocketAddrV4::new(PEER, GAME);
    let mut back = 0;
    let mut sink_ports = MEMBER..MEMBER + 1;
    let forwarder = match kind {
        Kind::XdpNative => {
            let way_there =
                Direction { source: SOURCE, index: 0, exit: Exit { destination: peer, ..onward(bed)? } };
            let exit = Exit { source: RELAY, destination: SOURCE, ..hairpin(bed)? };
            let way_back = Direction { source: peer, index: 0, exit };
            let mut rest = all.clone();
            rest.skip_first();
            Forwarder::Program(attach(bed, Hook::Native, &rest, onward(bed)?, &[way_there, way_back])?)
        }
        Kind::Userspace => {
            let (stop, indexes) = userspace(bed, &all, 1)?;
            (all.index, all.stride, back) = (indexes.there, session::STRIDE, indexes.back);
            peer = SocketAddrV4::new(PEER, FIRST_PEER);
            sink_ports = FIRST_PEER + 1..FIRST_PEER + 1 + others as u16;
            Forwarder::Thread(stop)
        }
        Kind::Tokio => Forwarder::Thread(Stop::spawn(&bed.relay, Some(1), move || tokio_relay(peer))?),
        Kind::Routed => {
            bed.relay.sysctl("ipv4/ip_forward", "1")?;
            all.destination = DESTINATION;
            Forwarder::Kernel
        }
        other => anyhow::bail!("no round trips through {}", other.name()),
    };
    let to = if kind == Kind::Routed { peer } else { RELAY };
    let there = all.index;
    all.skip_first();
    all.sink_ports = sink_ports;
    Ok(Game { client: SOURCE, to, peer, there, back, others: all, _forwarder: forwarder })
}

/// From the relay to the peer.
fn onward(bed: &Bed) -> Result<Exit> {
    let macs = bed.macs((&bed.relay, "rb"), (&bed.peer, "b0"))?;
    Ok(Exit { hop: hop(bed, "rb", macs)?, source: RELAY_SEEN, destination: DESTINATION })
}

/// From the relay back to the client's network.
fn hairpin(bed: &Bed) -> Result<Exit> {
    let macs = bed.macs((&bed.relay, "ra"), (&bed.client, "a0"))?;
    let destination = SocketAddrV4::new(CLIENT_TWO, MEMBER);
    Ok(Exit { hop: hop(bed, "ra", macs)?, source: RELAY, destination })
}

fn hop(bed: &Bed, link: &str, macs: [u8; 12]) -> Result<NextHop> {
    let [a, b, c, d, e, f, source @ ..] = macs;
    Ok(NextHop::new(ifindex(&bed.relay, link)?, 1500, [a, b, c, d, e, f], source, Address::default()))
}

/// Attaches the relay's program where the client's packets come in, and where those come in that go the other way.
fn attach(bed: &Bed, hook: Hook, traffic: &Traffic, exit: Exit, more: &[Direction]) -> Result<Box<Program>> {
    let mut program = Box::new(table::loaded(traffic, exit, more)?);
    let links: &[&str] = if more.is_empty() { &["ra"] } else { &["ra", "rb"] };
    for link in links {
        let index = ifindex(&bed.relay, link)?;
        bed.relay.run(|| program.attach(index, hook))?.with_context(|| format!("cannot attach to {link}"))?;
    }
    Ok(program)
}

fn nftables(bed: &Bed) -> Result<()> {
    bed.relay.sysctl("ipv4/ip_forward", "1")?;
    bed.relay.nft(&format!(
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
    /// Runs `work` on a runtime of its own, and on one core if that is named.
    fn spawn<F>(
        namespace: &Namespace,
        core: Option<usize>,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Result<()>>,
    {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let namespace = namespace.clone();
        let work = move || -> Result<()> {
            namespace.enter()?;
            if let Some(core) = core {
                pin_to(core);
            }
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

/// What one would write first: a socket a side, a copy a datagram. It knows one client, which it connects with `first`;
/// what comes from elsewhere goes to [`DESTINATION`].
async fn tokio_relay(first: SocketAddrV4) -> Result<()> {
    let near = tokio::net::UdpSocket::bind((RELAY_A, PORT)).await?;
    let far = tokio::net::UdpSocket::bind((RELAY_B, PORT)).await?;
    let there = async {
        let mut buffer = vec![0; 2048];
        while let Ok((length, from)) = near.recv_from(&mut buffer).await {
            let to = if from == SocketAddr::V4(SOURCE) { first } else { DESTINATION };
            let _ = far.send_to(&buffer[..length], to).await;
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

/// The relay role itself, with two bound members a flow.
fn userspace(bed: &Bed, traffic: &Traffic, queues: usize) -> Result<(Stop, Indexes)> {
    let (ready, started) = mpsc::channel();
    let max_flows = traffic.flows * 4 + 64;
    // With one queue the other core belongs to the generator, as in the other rows.
    let core = (queues == 1).then_some(1);
    let stop = Stop::spawn(&bed.relay, core, move || async move {
        let state = tempfile::tempdir()?;
        let config = RelayConfig {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
            public_address: Some(SocketAddr::V4(RELAY)),
            control: Some("http://127.0.0.1:9".into()),
            token: Some("benchmark".into()),
            mode: RelayModeChoice::Userspace,
            pin_dir: std::path::PathBuf::new(),
            max_flows,
            ..RelayConfig::default()
        };
        let (_trigger, shutdown) = shutdown::channel();
        let _relay = relay::start(&config, state.path(), shutdown).await?;
        let key = std::fs::read(state.path().join("relay-ticket-key"))?;
        let _ = ready.send(<[u8; 32]>::try_from(key).ok().context("a ticket key has 32 bytes")?);
        std::future::pending().await
    })?;
    let key = started.recv().context("the relay did not start")?;
    bed.add_sources(traffic.sources())?;
    let client = Side { namespace: &bed.client, relay: RELAY };
    let peer = Side { namespace: &bed.peer, relay: RELAY_SEEN };
    let first = SocketAddrV4::new(PEER, FIRST_PEER);
    let indexes = session::establish_all([client, peer], traffic, first, &key)?;
    Ok((stop, indexes))
}
