//! The lab's routers do what their names say. Needs root.
#![allow(clippy::unwrap_used)]

use lanrage_tests::lab::nat::NatKind;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::router;
use lanrage_tests::lab::topology::{CONTROL_ADDRESS, RELAY_ADDRESS, Topology, peer_address, wan};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PORT: u16 = 9000;

/// A lab without daemons that is gone when the test is.
struct Bare(Topology);

impl Bare {
    fn new(name: &str, nats: &[NatKind]) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let bare = Self(Topology::new(name, u8::try_from(nats.len()).unwrap()).unwrap());
        bare.0.clear().unwrap(); // of a test that was killed
        bare.0.build(nats).unwrap();
        bare
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.0.clear().unwrap();
    }
}

fn socket_in(namespace: &Namespace, address: (Ipv4Addr, u16)) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// Tells `socket` at which address `server` sees it; none if nothing comes back.
fn observed(socket: &UdpSocket, server: &UdpSocket) -> Option<SocketAddr> {
    socket.send_to(b"who am i", server.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 64];
    let (_, from) = server.recv_from(&mut buffer).ok()?;
    server.send_to(from.to_string().as_bytes(), from).unwrap();
    let (length, _) = socket.recv_from(&mut buffer).ok()?;
    Some(std::str::from_utf8(&buffer[..length]).unwrap().parse().unwrap())
}

/// The addresses two servers see for one socket of peer 1.
fn mappings(topology: &Topology) -> [Option<SocketAddr>; 2] {
    let here = socket_in(&topology.peer(1), (Ipv4Addr::UNSPECIFIED, 40_000));
    let control = socket_in(&topology.control(), (CONTROL_ADDRESS, PORT));
    let relay = socket_in(&topology.relay(), (RELAY_ADDRESS, PORT));
    [observed(&here, &control), observed(&here, &relay)]
}

#[test]
fn without_nat_a_peer_is_seen_at_its_own_address() {
    let lab = Bare::new("nat1", &[NatKind::None]);
    let own = SocketAddr::from((peer_address(1, NatKind::None).0, 40_000));
    assert_eq!(mappings(&lab.0), [Some(own); 2]);
    let stranger = socket_in(&lab.0.control(), (CONTROL_ADDRESS, 9001));
    let here = socket_in(&lab.0.peer(1), (Ipv4Addr::UNSPECIFIED, 40_001));
    stranger.send_to(b"unasked", (peer_address(1, NatKind::None).0, 40_001)).unwrap();
    assert_eq!(here.recv(&mut [0; 16]).unwrap(), 7);
}

#[test]
fn eim_shows_every_destination_the_same_port_and_drops_strangers() {
    let lab = Bare::new("nat2", &[NatKind::Eim]);
    let [first, second] = mappings(&lab.0);
    assert_eq!(first, Some((wan(1, 2), 40_000).into()));
    assert_eq!(first, second);

    let here = socket_in(&lab.0.peer(1), (Ipv4Addr::UNSPECIFIED, 40_002));
    let known = socket_in(&lab.0.control(), (CONTROL_ADDRESS, 9002));
    let stranger = socket_in(&lab.0.relay(), (RELAY_ADDRESS, 9002));
    let outside = observed(&here, &known).unwrap();
    stranger.send_to(b"unasked", outside).unwrap();
    assert!(here.recv(&mut [0; 16]).is_err(), "a stranger's packet came through the NAT");
    known.send_to(b"more", outside).unwrap();
    assert_eq!(here.recv(&mut [0; 16]).unwrap(), 4);
}

#[test]
fn eim_keeps_the_port_though_the_other_side_knocked_first() {
    let lab = Bare::new("nat3", &[NatKind::Eim, NatKind::Eim]);
    let sockets = [1, 2].map(|n| socket_in(&lab.0.peer(n), (Ipv4Addr::UNSPECIFIED, 40_000)));
    sockets[0].send_to(b"early", (wan(2, 2), 40_000)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    sockets[1].send_to(b"answer", (wan(1, 2), 40_000)).unwrap();
    let (length, from) = sockets[0].recv_from(&mut [0; 16]).unwrap();
    assert_eq!((length, from), (6, (wan(2, 2), 40_000).into()));
    sockets[0].send_to(b"punched", (wan(2, 2), 40_000)).unwrap();
    assert_eq!(sockets[1].recv(&mut [0; 16]).unwrap(), 7);
}

#[test]
fn symmetric_shows_every_destination_another_port() {
    let lab = Bare::new("nat4", &[NatKind::Symmetric]);
    let [first, second] = mappings(&lab.0).map(Option::unwrap);
    assert_eq!((first.ip(), second.ip()), (wan(1, 2).into(), wan(1, 2).into()));
    assert_ne!(first.port(), second.port());
    assert_ne!(first.port(), 40_000);
}

#[test]
fn udp_blocked_lets_only_tcp_out() {
    let lab = Bare::new("nat5", &[NatKind::UdpBlocked]);
    assert_eq!(mappings(&lab.0), [None; 2]);
    let listener =
        lab.0.control().run(|| std::net::TcpListener::bind((CONTROL_ADDRESS, PORT))).unwrap().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| listener.accept().map(|_| done.store(true, Ordering::Release)));
        let address = (CONTROL_ADDRESS, PORT).into();
        let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3));
        lab.0.peer(1).run(connect).unwrap().unwrap();
    });
    assert!(done.load(Ordering::Acquire));
}

#[test]
fn a_live_change_takes_effect_at_once() {
    let lab = Bare::new("nat6", &[NatKind::Symmetric]);
    let here = socket_in(&lab.0.peer(1), (Ipv4Addr::UNSPECIFIED, 40_000));
    let server = socket_in(&lab.0.control(), (CONTROL_ADDRESS, PORT));
    assert_ne!(observed(&here, &server).unwrap().port(), 40_000);
    lab.0.change_nat(1, NatKind::Eim).unwrap();
    assert_eq!(observed(&here, &server), Some((wan(1, 2), 40_000).into()));
    lab.0.change_nat(1, NatKind::None).unwrap();
    assert_eq!(observed(&here, &server), Some((peer_address(1, NatKind::None).0, 40_000).into()));
    lab.0.change_nat(1, NatKind::Symmetric).unwrap();
    let back = observed(&here, &server).unwrap();
    assert_eq!(back.ip(), wan(1, 2));
    assert_ne!(back.port(), 40_000);
}

/// The lab's own NAT, told by what it does to packets: the tests of RFC 5780.
#[test]
fn own_nats_map_and_filter_as_they_are_called() {
    let lab = Bare::new("nat7", &[NatKind::None]);
    let servers = [
        socket_in(&lab.0.control(), (CONTROL_ADDRESS, 9001)),
        socket_in(&lab.0.control(), (CONTROL_ADDRESS, 9002)),
        socket_in(&lab.0.relay(), (RELAY_ADDRESS, 9001)),
    ];
    let mut port = 41_000;
    for mapping in ["eim", "adm", "apdm"] {
        for filtering in ["eif", "adf", "apdf"] {
            for allocation in ["preserving", "sequential:2", "random"] {
                let kind = format!("{mapping}+{filtering}+{allocation}+seed:9");
                lab.0.change_nat(1, kind.parse().unwrap()).unwrap();
                port += 1;
                let here = socket_in(&lab.0.peer(1), (Ipv4Addr::UNSPECIFIED, port));
                assert_eq!(observed_mapping(&here, &servers, allocation), mapping, "{kind}");
                port += 1;
                let here = socket_in(&lab.0.peer(1), (Ipv4Addr::UNSPECIFIED, port));
                assert_eq!(observed_filtering(&here, &servers), filtering, "{kind}");
            }
        }
    }
}

fn observed_mapping(here: &UdpSocket, servers: &[UdpSocket; 3], allocation: &str) -> &'static str {
    let [a1, a2, b1] = [0, 1, 2].map(|n| observed(here, &servers[n]).unwrap());
    assert!([a1, a2, b1].iter().all(|seen| seen.ip() == wan(1, 2)));
    match allocation {
        "preserving" => assert_eq!(a1.port(), here.local_addr().unwrap().port()),
        "random" => assert_ne!(a1.port(), here.local_addr().unwrap().port()),
        _ => assert!(a2 == a1 || a2.port() == a1.port() + 2, "{a1} {a2}"),
    }
    match (a1 == a2, a1 == b1) {
        (true, true) => "eim",
        (true, false) => "adm",
        (false, _) => "apdm",
    }
}

fn observed_filtering(here: &UdpSocket, servers: &[UdpSocket; 3]) -> &'static str {
    let outside = observed(here, &servers[0]).unwrap();
    here.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let passes = |n: usize| {
        servers[n].send_to(b"unasked", outside).unwrap();
        here.recv(&mut [0; 16]).is_ok()
    };
    match (passes(1), passes(2)) {
        (true, true) => "eif",
        (true, false) => "adf",
        (false, _) => "apdf",
    }
}

#[test]
fn own_nats_loop_back_forget_and_block() {
    let lab = Bare::new("nat8", &["eim+eif+random+hairpin+timeout:2".parse().unwrap()]);
    let server = socket_in(&lab.0.control(), (CONTROL_ADDRESS, 9001));
    let [here, there] = [42_000, 42_001].map(|port| socket_in(&lab.0.peer(1), (Ipv4Addr::UNSPECIFIED, port)));
    let outside = observed(&there, &server).unwrap();
    here.send_to(b"neighbour", outside).unwrap();
    let (length, from) = there.recv_from(&mut [0; 16]).unwrap();
    assert_eq!((length, from.ip()), (9, wan(1, 2).into()), "seen at the external address");

    std::thread::sleep(Duration::from_millis(2500));
    server.send_to(b"late", outside).unwrap();
    assert!(there.recv(&mut [0; 16]).is_err(), "the mapping outlived its time");
    assert_ne!(observed(&there, &server).unwrap().port(), outside.port());

    lab.0.change_nat(1, "eim+eif+random".parse().unwrap()).unwrap();
    let outside = observed(&there, &server).unwrap();
    here.send_to(b"neighbour", outside).unwrap();
    assert!(there.recv(&mut [0; 16]).is_err(), "it looped back though it may not");

    lab.0.change_nat(1, "eim+eif+no-udp".parse().unwrap()).unwrap();
    assert_eq!(observed(&there, &server), None);
    let refused = router::refused(&lab.0.router(1)).unwrap();
    assert!(refused.contains("Blocked") && refused.contains("Hairpin"), "{refused}");
}

#[test]
fn own_nats_carry_tcp_echoes_and_fragments() {
    let lab = Bare::new("nat9", &["apdm+apdf+random".parse().unwrap()]);
    let listener =
        lab.0.control().run(|| std::net::TcpListener::bind((CONTROL_ADDRESS, PORT))).unwrap().unwrap();
    let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let upload = || {
        let mut stream = std::net::TcpStream::connect((CONTROL_ADDRESS, PORT)).unwrap();
        stream.write_all(&sent).unwrap();
    };
    let received = std::thread::scope(|scope| {
        let peer = lab.0.peer(1);
        scope.spawn(move || peer.run(upload).unwrap());
        let mut received = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        received
    });
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());

    let echo =
        ["-c", "3", "-i", "0.2", "-W", "2", "-s", "4000", &CONTROL_ADDRESS.to_string()].map(str::to_owned);
    lab.0.peer(1).output(Command::new("ping").args(&echo)).unwrap();
    let here = socket_in(&lab.0.peer(1), (Ipv4Addr::UNSPECIFIED, 0));
    let server = socket_in(&lab.0.control(), (CONTROL_ADDRESS, 9001));
    here.send_to(&[7; 4000], (CONTROL_ADDRESS, 9001)).unwrap();
    let mut buffer = [0; 5000];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(length, 4000);
    server.send_to(&buffer[..length], from).unwrap();
    assert_eq!(here.recv(&mut buffer).unwrap(), 4000);
}

#[test]
fn an_own_nat_gives_way_to_the_kernel_and_comes_back() {
    let lab = Bare::new("nat10", &["eim+eif+random".parse().unwrap()]);
    let here = socket_in(&lab.0.peer(1), (Ipv4Addr::UNSPECIFIED, 40_000));
    let server = socket_in(&lab.0.control(), (CONTROL_ADDRESS, PORT));
    assert_ne!(observed(&here, &server).unwrap().port(), 40_000);
    lab.0.change_nat(1, NatKind::Eim).unwrap();
    assert_eq!(observed(&here, &server), Some((wan(1, 2), 40_000).into()));
    assert!(router::refused(&lab.0.router(1)).is_err(), "the process is still there");
    lab.0.change_nat(1, "eim+eif+random".parse().unwrap()).unwrap();
    assert_ne!(observed(&here, &server).unwrap().port(), 40_000);
}
