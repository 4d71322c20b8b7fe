//! What is between a peer and the internet beside its router: a carrier's NAT, IPv6, a small MTU, bad links, another
//! device at home, and what happens to them in mid-game. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::PathKind;
use lanrage_tests::lab::nat::NatKind;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::site::Site;
use lanrage_tests::lab::topology::{
    CONTROL_ADDRESS, CONTROL_ADDRESS6, RELAY_ADDRESS, RELAY_ADDRESS6, Topology, guest_address, peer_address,
    peer_address6, wan,
};
use lanrage_tests::lab::traffic::Pulse;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use support::TestLab;

const PORT: u16 = 9100;

/// A network without daemons that is gone when the test is.
struct Bare(Topology);

impl Bare {
    fn new(name: &str, sites: &[&str], links: &[&str]) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let sites: Vec<Site> = sites.iter().map(|site| site.parse().unwrap()).collect();
        let links: Vec<_> = links.iter().map(|link| link.parse().unwrap()).collect();
        let topology = Topology::new(name, u8::try_from(sites.len()).unwrap()).unwrap();
        let bare = Self(topology.with_sites(&sites).unwrap().with_links(&links).unwrap());
        bare.0.clear().unwrap(); // of a test that was killed
        bare.0.build_sites().unwrap();
        bare
    }

    fn ping(&self, from: u8, to: impl Into<IpAddr>, arguments: &[&str]) -> Output {
        let mut command = Command::new("ping");
        command.args(["-n", "-c", "1", "-W", "2"]).args(arguments).arg(to.into().to_string());
        self.0.peer(from).run(|| command.output()).unwrap().unwrap()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.0.clear().unwrap();
    }
}

fn socket_in(namespace: &Namespace, address: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let address = SocketAddr::new(address.into(), port);
    let socket = namespace.play(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    socket
}

/// Where a server sees a peer's socket, once an answer has come back through; none if nothing arrives.
fn seen(here: &UdpSocket, server: &UdpSocket) -> Option<SocketAddr> {
    here.send_to(b"who am i", server.local_addr().unwrap()).ok()?;
    let mut buffer = [0; 64];
    let (_, from) = server.recv_from(&mut buffer).ok()?;
    server.send_to(b"you", from).unwrap();
    here.recv(&mut buffer).ok()?;
    Some(from)
}

#[test]
fn a_carriers_nat_is_one_more() {
    let sites = ["eim/cgn:apdm+apdf+random", "apdm+apdf+random/cgn:eim+eif+preserving", "eim+eif/cgn:eim"];
    let lab = Bare::new("site1", &sites, &[]);
    let servers =
        [socket_in(&lab.0.control(), CONTROL_ADDRESS, PORT), socket_in(&lab.0.relay(), RELAY_ADDRESS, PORT)];
    for (n, is_symmetric) in [(1, true), (2, true), (3, false)] {
        let here = socket_in(&lab.0.peer(n), [0, 0, 0, 0], 40_000);
        let [a, b] = [0, 1].map(|server| seen(&here, &servers[server]).unwrap());
        assert_eq!([a.ip(), b.ip()], [wan(n, 2); 2], "{}", sites[usize::from(n - 1)]);
        assert_eq!(a.port() != b.port(), is_symmetric, "{}", sites[usize::from(n - 1)]);
    }
    assert!(lab.0.change_nat(1, NatKind::None).is_err(), "a carrier's NAT needs one behind it");
}

#[test]
fn a_second_device_at_home_shares_network_and_address() {
    for kind in ["eim", "eim+apdf+random"] {
        let lab = Bare::new("site2", &[kind, "with:1"], &[]);
        let server = socket_in(&lab.0.control(), CONTROL_ADDRESS, PORT);
        let seen_at =
            [1, 2].map(|n| seen(&socket_in(&lab.0.peer(n), [0, 0, 0, 0], 40_000), &server).unwrap());
        assert_eq!(seen_at.map(|address| address.ip()), [wan(1, 2); 2], "{kind}");
        assert_ne!(seen_at[0].port(), seen_at[1].port(), "{kind}");
        assert!(lab.ping(1, guest_address(1, 2), &["-t", "1"]).status.success(), "{kind}: a hop in between");
        assert!(lab.ping(2, peer_address(1, NatKind::Eim).0, &["-t", "1"]).status.success(), "{kind}");
    }
}

#[test]
fn a_small_mtu_is_told_and_cut_for() {
    for kind in ["eim/mtu:1280", "eim+apdf/mtu:1280"] {
        let lab = Bare::new("site3", &[kind], &[]);
        assert!(
            lab.ping(1, CONTROL_ADDRESS, &["-M", "do", "-s", "1252"]).status.success(),
            "{kind}: 1280 bytes"
        );
        assert!(
            lab.ping(1, CONTROL_ADDRESS, &["-M", "dont", "-s", "1400"]).status.success(),
            "{kind}: pieces"
        );
        let refused = lab.ping(1, CONTROL_ADDRESS, &["-M", "do", "-s", "1400"]);
        let text =
            String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains("1280"), "{kind}: {text}");
    }
}

#[test]
fn ipv6_is_routed_behind_a_firewall() {
    let lab = Bare::new("site4", &["symmetric/dual", "none/v6"], &[]);
    let known = socket_in(&lab.0.control(), CONTROL_ADDRESS6, PORT);
    let stranger = socket_in(&lab.0.relay(), RELAY_ADDRESS6, PORT);
    for n in [1, 2] {
        let here = socket_in(&lab.0.peer(n), peer_address6(n), 40_000);
        let own = SocketAddr::from((peer_address6(n), 40_000));
        assert_eq!(seen(&here, &known), Some(own), "no translation");
        stranger.send_to(b"unasked", own).unwrap();
        assert!(here.recv(&mut [0; 16]).is_err(), "the firewall let a stranger in");
    }
    assert!(lab.ping(1, CONTROL_ADDRESS, &[]).status.success(), "dual stack has IPv4 too");
    assert!(!lab.ping(2, CONTROL_ADDRESS, &[]).status.success(), "IPv6 only has no IPv4");
    assert!(lab.ping(1, peer_address6(2), &[]).status.success());
}

#[test]
fn a_router_gets_another_address_and_the_old_one_back() {
    for kind in ["eim", "eim+eif+random", "eim/cgn:eim+eif"] {
        let lab = Bare::new("site5", &[kind], &[]);
        let here = socket_in(&lab.0.peer(1), [0, 0, 0, 0], 40_000);
        let server = socket_in(&lab.0.control(), CONTROL_ADDRESS, PORT);
        let before = seen(&here, &server).unwrap();
        let other = lab.0.readdress(1).unwrap();
        assert_ne!(before.ip(), other);
        assert_eq!(seen(&here, &server).unwrap().ip(), other, "{kind}");
        server.send_to(b"late", before).unwrap();
        assert!(here.recv(&mut [0; 16]).is_err(), "{kind}: the old address still leads here");
        assert_eq!(lab.0.readdress(1).unwrap(), before.ip());
        assert_eq!(seen(&here, &server).unwrap().ip(), before.ip(), "{kind}");
    }
}

#[test]
fn bad_links_delay_and_lose() {
    let lab = Bare::new("site6", &["eim", "none"], &["w1=delay:30", "h2=delay:0", "rly=delay:20"]);
    let here = socket_in(&lab.0.peer(1), [0, 0, 0, 0], 40_000);
    let [near, far] = [(lab.0.control(), CONTROL_ADDRESS), (lab.0.relay(), RELAY_ADDRESS)]
        .map(|(at, a)| socket_in(&at, a, PORT));
    let round_trip = |here: &UdpSocket, server: &UdpSocket| {
        seen(here, server).unwrap(); // the neighbours are known then
        let start = Instant::now();
        seen(here, server).unwrap();
        start.elapsed()
    };
    assert!(round_trip(&here, &near) >= Duration::from_millis(60));
    assert!(round_trip(&here, &far) >= Duration::from_millis(100));
    let there = socket_in(&lab.0.peer(2), [0, 0, 0, 0], 40_000);
    assert!(seen(&there, &near).is_some(), "an emulated link without impairment");
    lab.0.change_link(&"h2=loss:100".parse().unwrap()).unwrap();
    assert_eq!(seen(&there, &near), None);
    lab.0.change_link(&"h2=loss:0".parse().unwrap()).unwrap();
    assert!(wait_until(Duration::from_secs(5), || seen(&there, &near).is_some()));
    let refusal = lab.0.change_link(&"w2=delay:1".parse().unwrap()).unwrap_err().to_string();
    assert!(refusal.contains("h2"), "{refusal}");
}

/// Routers lose what comes in pieces, as many carriers' do.
const NO_PIECES: &str = "table ip pieces {
 chain pre {
  type filter hook prerouting priority -450;
  ip frag-off & 0x3fff != 0 drop
 }
}
";

/// Sends a long datagram each way, and 300 kB by TCP.
fn assert_carries(lab: &TestLab, (from, to): (u8, u8)) {
    let (from, to) = (lab.station(from), lab.station(to));
    let inbox = socket_in(&to.namespace, to.address, 9200);
    let outbox = socket_in(&from.namespace, from.address, 9200);
    let long = [7; 1400];
    let arrives = || {
        outbox.send_to(&long, inbox.local_addr().unwrap()).unwrap();
        inbox.recv(&mut [0; 2000]).is_ok_and(|length| length == long.len())
    };
    assert!(wait_until(Duration::from_secs(10), arrives), "1400 bytes do not arrive");

    let listener = to.namespace.play(|| TcpListener::bind((to.address, 7201))).unwrap().unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).map(|_| received.len())
    });
    let mut stream = from.namespace.run(|| TcpStream::connect((to.address, 7201))).unwrap().unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&vec![1; 300_000]).unwrap();
    drop(stream);
    assert_eq!(receiver.join().unwrap().unwrap(), 300_000, "a transfer by TCP hangs");
}

#[test]
fn a_line_that_carries_1280_bytes_and_no_pieces_plays_by_every_path() {
    let sites: [Site; 2] = ["symmetric/mtu:1280".parse().unwrap(), "symmetric".parse().unwrap()];
    let mut lab = TestLab::party("site8", &sites);
    for namespace in [lab.topology().net(), lab.topology().router(1)] {
        namespace.nft(NO_PIECES).unwrap();
    }
    let patience = Duration::from_secs(60);
    // an outer packet of 1280 bytes holds 1220 of the tunnel's
    let is_known = |lab: &TestLab, from, to| {
        lab.member(from, to).unwrap().mtu.is_some_and(|mtu| (1212..=1220).contains(&mtu))
    };
    let both_know = |lab: &TestLab| {
        let known = || is_known(lab, 1, 2) && is_known(lab, 2, 1);
        assert!(wait_until(patience, known), "{:?} {:?}", lab.member(1, 2), lab.member(2, 1));
    };
    lab.wait_for_path((1, 2), PathKind::Relay, patience).unwrap();
    // the party was formed while pieces still got through: what was found then does not matter
    lab.lanrage_output(Role::Peer(2), &["down"]).unwrap();
    lab.lanrage_output(Role::Peer(2), &["up"]).unwrap();
    both_know(&lab);
    assert_carries(&lab, (1, 2));
    assert_carries(&lab, (2, 1));

    for n in [1, 2] {
        lab.change_nat(n, NatKind::Eim).unwrap();
    }
    lab.wait_for_path((1, 2), PathKind::Direct, patience).unwrap();
    both_know(&lab);
    assert_carries(&lab, (2, 1));
    let text = lab.lanrage_output(Role::Peer(1), &["ping", "ben", "--count", "1"]).unwrap();
    assert!(text.contains("The path carries packets of 12"), "{text}");
}

#[test]
fn a_game_survives_a_new_address_and_blocked_udp() {
    let sites: [Site; 2] = ["eim".parse().unwrap(), "eim+apdf+random".parse().unwrap()];
    let mut lab = TestLab::party("site7", &sites);
    let patience = Duration::from_secs(60);
    lab.wait_for_path((1, 2), PathKind::Direct, patience).unwrap();
    let pulse = Pulse::start(&lab.station(1), &lab.station(2), 37016, Duration::from_millis(50)).unwrap();
    lab.topology().readdress(1).unwrap();
    lab.wait_for_traffic((1, 2), patience);
    lab.topology().readdress(2).unwrap();
    lab.wait_for_traffic((2, 1), patience);
    lab.wait_for_path((1, 2), PathKind::Direct, patience).unwrap();

    lab.change_nat(2, "eim+apdf+random+no-udp".parse().unwrap()).unwrap();
    lab.wait_for_traffic((1, 2), patience);
    let is_tls = || lab.path(2, 1).is_ok_and(|path| path == PathKind::Tls);
    assert!(wait_until(patience, is_tls), "UDP is blocked:\n{}", lab.explain_paths());
    let beats = pulse.stop();
    println!("a new address on both sides and blocked UDP: longest silence {:?}", beats.longest_gap);
}
