//! A real API server for tests; behind it, at the peer's command channel, something that plays the peer.

use super::{Daemon, Listeners, Token, serve};
use crate::config::{Config, Loaded, Sources};
use crate::peer::{PeerCommand, PeerHandle, PeerStatus};
use crate::relay::Inquiry;
use crate::settings::Desk;
use crate::shutdown::{self, ShutdownTrigger};
use lanrage_common::api::{
    AddDeviceAnswer, AddDeviceRequest, CarrierStatus, ControlStatus, DeviceStatus, FirewallStatus,
    GameServer, GamesStatus, InviteAnswer, LaneStatus, MatrixStatus, MemberStatus, NetworkStatus,
    PartyStatus, PathKind, PingAnswer, PingReply, Problem, ReasonCount, RefusedPort, RelayChoiceStatus,
    RelayDetail, RelayMember, RelayMode, RelayStatus, RelayTlsStatus, RelayWorker, RunningGame,
};
use lanrage_common::bulletin::{Link, hosts};
use lanrage_common::firewall::{Choice, Word};
use lanrage_common::identity::{CertificateFingerprint, DeviceKey, Fingerprint, PartyId, WgKey};
use lanrage_common::protocol::{ErrorBody, ErrorCode, RelayState};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A well-formed invite that nobody has made.
pub(crate) const LINK: &str = "http://192.0.2.1:8667/j/BQUFBQUFBQUFBQUFBQUFBQ#AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQECAgICAgICAgICAgICAgIC";

#[derive(Debug)]
pub(crate) struct TestServer {
    pub(crate) socket: PathBuf,
    pub(crate) ui: SocketAddr,
    pub(crate) token: Token,
    /// Commands that reached the peer.
    pub(crate) commands: Arc<AtomicUsize>,
    pub(crate) peer: watch::Sender<PeerStatus>,
    pub(crate) relay: watch::Sender<RelayStatus>,
    pub(crate) trigger: ShutdownTrigger,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
    pub(crate) dir: tempfile::TempDir,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            socket: dir.path().join("lanrage.sock"),
            ui: (Ipv4Addr::LOCALHOST, 0).into(),
            ..Config::default()
        };
        let listeners = Listeners::bind(&config).await.unwrap();
        let ui = listeners.ui_address();
        let token = Token::generate();
        let (peer, status) = watch::channel(peer_status());
        let (relay, relay_status) = watch::channel(relay_status());
        let (commands, receiver) = mpsc::channel(8);
        let count = Arc::new(AtomicUsize::new(0));
        tokio::spawn(play_peer(receiver, peer.clone(), count.clone()));
        let daemon = Daemon {
            roles: vec!["relay".into(), "peer".into()],
            problems: Vec::new(),
            peer: Some(PeerHandle { status, commands }),
            relay: Some(relay_status),
            relay_drain: Some(watch::channel(crate::relay::Drain::No).0),
            relay_inquiry: Some(Inquiry::answering(relay_detail())),
            control: None,
            settings: Some(Arc::new(desk(&config, dir.path()))),
        };
        let (trigger, shutdown) = shutdown::channel();
        let task = serve(listeners, daemon, token.clone(), shutdown);
        let socket = config.socket;
        Self { socket, ui, token, commands: count, peer, relay, trigger, task, dir }
    }
}

fn desk(config: &Config, dir: &std::path::Path) -> Desk {
    let file = dir.join("lanrage.toml");
    std::fs::write(&file, format!("state_dir = '{}'\n", dir.display())).unwrap();
    let config = Config { state_dir: dir.into(), ..config.clone() };
    let sources = Sources { file: Some(file), ..Sources::default() };
    let started = config.clone();
    Desk::new(
        sources,
        Loaded { config, file: None, origins: Default::default() },
        &started,
        &["relay", "peer"],
    )
}

async fn play_peer(
    mut commands: mpsc::Receiver<PeerCommand>,
    status: watch::Sender<PeerStatus>,
    count: Arc<AtomicUsize>,
) {
    while let Some(command) = commands.recv().await {
        count.fetch_add(1, Ordering::SeqCst);
        // A caller that hung up does not want the answer: nothing to do about a failed send.
        let _ = match command {
            PeerCommand::Up(reply) => {
                status.send_modify(|status| status.up = true);
                reply.send(Ok(())).is_ok()
            }
            PeerCommand::Down(reply) => {
                status.send_modify(|status| status.up = false);
                reply.send(Ok(())).is_ok()
            }
            PeerCommand::Leave(reply) => {
                status.send_modify(|status| status.party = None);
                reply.send(Ok(())).is_ok()
            }
            PeerCommand::Join(_, reply) => {
                let message = "the invite has expired; ask the host for a new one".into();
                reply.send(Err(ErrorBody { code: ErrorCode::InviteExpired, message })).is_ok()
            }
            PeerCommand::CreateParty(_, reply) => reply.send(Ok(invite(None))).is_ok(),
            PeerCommand::Invite(request, reply) => reply.send(Ok(invite(request.uses))).is_ok(),
            PeerCommand::Revoke(_, reply) | PeerCommand::Configure(_, reply) => reply.send(Ok(())).is_ok(),
            PeerCommand::CheckLan(_, reply) => reply.send(Ok(vec!["take a cable".into()])).is_ok(),
            PeerCommand::Netcheck(reply) => reply.send(Ok(NetworkStatus::default())).is_ok(),
            PeerCommand::AddDevice(request, reply) => reply.send(Ok(added(request))).is_ok(),
            PeerCommand::RemoveDevice(_, reply) => reply.send(Ok(())).is_ok(),
            PeerCommand::Run(_, reply) => {
                let message = "no control groups here; use Linux".into();
                reply.send(Err(ErrorBody { code: ErrorCode::BadRequest, message })).is_ok()
            }
            PeerCommand::Firewall(_, reply) => reply.send(Ok(())).is_ok(),
            PeerCommand::Ping(request, reply) => reply.send(pong(&request.member, request.count)).is_ok(),
        };
    }
}

fn added(request: AddDeviceRequest) -> AddDeviceAnswer {
    AddDeviceAnswer {
        name: request.name,
        address: Ipv4Addr::new(10, 66, 0, 9),
        endpoint: request.endpoint.unwrap_or_else(|| "192.168.1.2:51820".into()),
        config: "[Interface]\nPrivateKey = shown once\n".into(),
        qr_svg: Some("<svg/>".into()),
        notes: vec!["forward the port".into()],
    }
}

fn invite(uses_left: Option<u32>) -> InviteAnswer {
    InviteAnswer { link: LINK.into(), qr_svg: "<svg/>".into(), expires_at: 86_400, uses_left }
}

fn pong(member: &str, count: u32) -> Result<PingAnswer, ErrorBody> {
    if member != "Bob" {
        let message = format!("no member is called {member}; `lanrage peers` lists them");
        return Err(ErrorBody { code: ErrorCode::NotFound, message });
    }
    let reply = PingReply { rtt_ms: Some(12.34), path: PathKind::Relay };
    let address = Ipv4Addr::new(10, 66, 0, 2);
    let replies = vec![reply; count as usize];
    let (outside_rtt_ms, mtu, path_mtu) = (Some(11.5), Some(1420), Some(1420));
    Ok(PingAnswer { member: "Bob".into(), address, replies, outside_rtt_ms, mtu, path_mtu })
}

pub(crate) fn peer_status() -> PeerStatus {
    PeerStatus {
        up: true,
        device: DeviceStatus {
            name: "Ana".into(),
            key: DeviceKey([1; 32]),
            fingerprint: Fingerprint([1; 16]),
        },
        party: Some(PartyStatus {
            id: PartyId([9; 16]),
            name: "Friday".into(),
            subnet: "10.66.0.0/16".parse().unwrap(),
            address: Ipv4Addr::new(10, 66, 0, 1),
            interface: Some("lanrage0".into()),
            mtu: 1420,
            host: true,
            members: vec![
                member(1, "Ana", PathKind::None),
                member(2, "Bob", PathKind::Relay),
                direct(),
                gone(),
            ],
            relays: vec![
                RelayChoiceStatus {
                    name: "paris".into(),
                    region: "eu-west".into(),
                    addresses: vec!["203.0.113.7:3478".parse().unwrap()],
                    load: 20,
                    held: true,
                    rtt_ms: Some(11.5),
                    jitter_ms: Some(0.8),
                    members: 1,
                    why: "this device's best".into(),
                    ..RelayChoiceStatus::default()
                },
                RelayChoiceStatus {
                    name: "oslo".into(),
                    state: RelayState::Draining,
                    standby_for: 1,
                    why: "being emptied by its operator".into(),
                    ..RelayChoiceStatus::default()
                },
            ],
            lane: LaneStatus {
                seen: 5,
                copied: 10,
                delivered: 3,
                dropped: [("dhcp".into(), 2)].into(),
                ..LaneStatus::default()
            },
            path_events: [("candidate_foreign".into(), 4)].into(),
            carriers: vec![CarrierStatus {
                address: "203.0.113.7:443".parse().unwrap(),
                received: 7,
                sent: 8,
                dropped: 1,
            }],
            matrix: matrix(),
            servers: vec![game_server()],
        }),
        control: Some(ControlStatus { url: "http://192.0.2.1:8667".into(), connected: true }),
        network: None,
        gateway: None,
        games: GamesStatus {
            running: vec![RunningGame {
                id: "factorio".into(),
                name: "Factorio".into(),
                ports: vec!["udp/34197".parse().unwrap()],
                dscp: "CS4".into(),
            }],
            shared: true,
            polled: None,
        },
        firewall: FirewallStatus {
            words: vec![Word { ports: "udp/27015-27020".parse().unwrap(), choice: Choice::Allow }],
            reached: vec!["tcp/25565".parse().unwrap()],
            players: vec![27960],
            refused_total: [("nobody".to_owned(), 2), ("service".to_owned(), 3)].into(),
            refused: vec![RefusedPort {
                member: Some("Bob".into()),
                address: Ipv4Addr::new(10, 66, 0, 2),
                port: "tcp/22".parse().unwrap(),
                packets: 3,
                why: "ssh: no game".into(),
                may_be_game: false,
            }],
            ..FirewallStatus::default()
        },
        problems: vec![Problem {
            code: "clock_wrong".into(),
            message: "this machine's clock is 3 minutes behind".into(),
            fix: "set it: timedatectl set-ntp true".into(),
        }],
    }
}

fn member(number: u8, name: &str, path: PathKind) -> MemberStatus {
    let relayed = path == PathKind::Relay;
    MemberStatus {
        name: name.into(),
        device: DeviceKey([number; 32]),
        wg: WgKey([number; 32]),
        address: Ipv4Addr::new(10, 66, 0, number),
        is_self: number == 1,
        host: number == 1,
        online: true,
        path,
        endpoint: relayed.then(|| "203.0.113.7:3478".parse().unwrap()),
        relay: relayed.then(|| "paris".into()),
        standby: None,
        relay_why: relayed.then(|| "23 ms over both legs; oslo: 80 ms".into()),
        why: "both routers randomise ports; a forwarded port in either would fix it".into(),
        rtt_ms: relayed.then_some(23.456),
        jitter_ms: relayed.then_some(1.5),
        loss: relayed.then_some(0.01),
        quality: relayed.then_some(92),
        mtu: relayed.then_some(1420),
        handshake_age_s: relayed.then_some(17),
        rx_bytes: 1000,
        tx_bytes: 2000,
        devices: Vec::new(),
        plays: if number == 3 { vec!["Chocolate Doom".into()] } else { Vec::new() },
        verdict: None,
        fix: None,
    }
}

fn matrix() -> MatrixStatus {
    let [ana, bob, carl] =
        [1, 2, 3].map(|n| (Ipv4Addr::new(10, 66, 0, n), ["Ana", "Bob", "Ćwikła"][usize::from(n) - 1]));
    let link = |to: (Ipv4Addr, &str), path, rtt_ms| Link {
        to: to.0,
        path,
        rtt_ms: Some(rtt_ms),
        jitter_ms: Some(1.5),
        loss: Some(0.01),
    };
    let links = [
        (ana.0, link(bob, PathKind::Relay, 23.4)),
        (ana.0, link(carl, PathKind::Direct, 4.0)),
        (bob.0, link(carl, PathKind::Direct, 50.0)),
    ];
    hosts::matrix(&links, &[ana, bob, carl].map(|(address, name)| (address, name.to_owned())))
}

fn game_server() -> GameServer {
    GameServer {
        member: Ipv4Addr::new(10, 66, 0, 2),
        host: "Bob".into(),
        own: false,
        game: "quake-3".into(),
        title: "Quake III Arena, ioquake3".into(),
        name: "Bob's\x1b[31m place".into(),
        map: Some("oa_minia".into()),
        players: Some(2),
        max_players: Some(8),
        password: true,
        protocol: "udp".into(),
        address: "10.66.0.2:27960".parse().unwrap(),
        rtt_ms: Some(24.1),
    }
}

fn direct() -> MemberStatus {
    MemberStatus {
        path: PathKind::Direct,
        rtt_ms: Some(4.0),
        jitter_ms: Some(0.25),
        loss: Some(0.0),
        mtu: Some(1372),
        why: "straight to 198.51.100.4:51820".into(),
        ..member(3, "Ćwikła", PathKind::None)
    }
}

fn gone() -> MemberStatus {
    MemberStatus {
        online: false,
        why: "not connected since 20:14".into(),
        ..member(4, "Dan\x1b[31m", PathKind::None)
    }
}

fn tls_status() -> RelayTlsStatus {
    RelayTlsStatus {
        listen: "0.0.0.0:443".parse().unwrap(),
        address: "203.0.113.7:443".parse().unwrap(),
        certificate: CertificateFingerprint([7; 32]),
        connections: 1,
        received: 20,
        sent: 30,
        dropped: 1,
        ended: [("closed".into(), 2)].into(),
    }
}

pub(crate) fn relay_detail() -> RelayDetail {
    let reason = |name: &str, packets, bytes| ReasonCount {
        name: name.into(),
        what: format!("About {name}."),
        packets,
        bytes,
    };
    let member = |slot, packets| RelayMember {
        slot,
        key: format!("key{slot}"),
        party: "Friday".into(),
        address: "198.51.100.4:51820".parse().unwrap(),
        packets_per_s: 4000,
        kbit_per_s: 20_000,
        kernel_packets: packets,
        kernel_bytes: packets * 200,
        userspace_packets: 12,
        userspace_bytes: 1200,
        dropped: 5,
    };
    RelayDetail {
        at_ms: 60_000,
        status: RelayStatus { tls: Some(tls_status()), ..relay_status() },
        name: "paris".into(),
        region: "eu-west".into(),
        max_bindings: 16_384,
        max_flows: 65_536,
        kernel: vec![reason("forwarded", 10_000, 2_000_000), reason("no_flow", 4, 400)],
        userspace: vec![
            reason("forwarded", 12, 1200),
            reason("rate_member", 5, 0),
            reason("malformed", 0, 0),
        ],
        members: vec![member(1, 4000), member(2, 6000)],
        next_hops_unresolved: 0,
    }
}

pub(crate) fn relay_status() -> RelayStatus {
    RelayStatus {
        addresses: vec!["203.0.113.7:3478".parse().unwrap()],
        registered: true,
        draining: false,
        mode: RelayMode::XdpGeneric,
        mode_reason: Some("the driver of eth0 has no native XDP".into()),
        mode_fix: Some("use a network card whose driver has it".into()),
        bindings: 3,
        flows: 6,
        kernel_forwarded: 10_000,
        userspace_forwarded: 12,
        userspace_bytes: 1_200,
        workers: vec![RelayWorker {
            received: 20,
            batches: 15,
            forwarded: 12,
            offloaded: 4,
            queue_full: 0,
            lost: 0,
        }],
        kernel: [("forwarded".into(), 10_000), ("no_flow".into(), 4)].into(),
        tls: Some(RelayTlsStatus {
            listen: "0.0.0.0:443".parse().unwrap(),
            address: "203.0.113.7:443".parse().unwrap(),
            certificate: CertificateFingerprint([7; 32]),
            connections: 2,
            received: 30,
            sent: 40,
            dropped: 1,
            ended: [("closed".into(), 3)].into(),
        }),
        userspace: [("forwarded".into(), 12)].into(),
        problems: vec![Problem {
            code: "no_neighbour".into(),
            message: "the gateway does not answer ARP".into(),
            fix: "check the cable".into(),
        }],
    }
}
