//! Games on a machine whose default route is another network, over both lanes. Needs root.
#![allow(clippy::unwrap_used)]

#[path = "lane/joined.rs"]
mod joined;
#[path = "lane/late.rs"]
mod late;
#[path = "lane/ring.rs"]
mod ring;
#[path = "lane/run.rs"]
mod run;
mod support;
#[path = "lane/trace.rs"]
mod trace;

use aya::programs::{SchedClassifier, TcAttachType};
use lanrage_common::api::{LaneMode, LaneStatus};
use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Options;
use std::io::{Read as _, Write as _};
use std::net::{
    Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket,
};
use std::process::Command;
use std::time::Duration;
use support::TestLab;
use support::game::{exactly, game, game_at, nothing, receive};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const EVERYBODY: Ipv4Addr = Ipv4Addr::BROADCAST;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 10, 11, 12);
/// Address of peer 1 at home, of its home's broadcast, and of the machine beside it there (the router).
const HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 101, 2);
const HOME_BROADCAST: Ipv4Addr = Ipv4Addr::new(192, 168, 101, 255);
const PATIENCE: Duration = Duration::from_secs(5);
const LISTED: Duration = Duration::from_secs(30);

fn lab(name: &str, lane: &str) -> TestLab {
    lab_of(name, lane, 2)
}

fn lab_of(name: &str, lane: &str, members: usize) -> TestLab {
    let lab = TestLab::party_with(Options { lane: lane.into(), ..Options::new(name, &[Eim; 3][..members]) });
    let wanted = if lane == "userspace" { LaneMode::Userspace } else { LaneMode::Kernel };
    for n in [1, 2] {
        let status = status(&lab, n);
        assert_eq!(status.mode, wanted, "{status:?}");
        assert_eq!(status.mode_reason.is_some(), lane == "userspace");
    }
    lab
}

fn status(lab: &TestLab, n: u8) -> LaneStatus {
    lab.daemon_status(Role::Peer(n)).unwrap().party.unwrap().lane
}

fn peer(lab: &TestLab, n: u8) -> Namespace {
    lab.namespace(Role::Peer(n))
}

fn join(place: &Namespace, socket: &UdpSocket, address: Ipv4Addr) {
    place.run(|| socket.join_multicast_v4(&GROUP, &address)).unwrap().unwrap();
}

/// The case that decides: bound to any address, the default route elsewhere.
fn a_game_bound_to_any_address(name: &str, lane: &str) {
    let lab = lab_of(name, lane, 3);
    let (ana, ben) = (peer(&lab, 1), peer(&lab, 2));
    let [at_ana, _] = [1, 2].map(|n| lab.overlay(n).unwrap());
    let beside = lab.topology().router(1);
    for (number, to) in (0u16..).zip([EVERYBODY, GROUP, Ipv4Addr::new(10, 66, 255, 255)]) {
        let port = 30_000 + number;
        let (asker, server, neighbour) = (game(&ana, 4001), game(&ben, port), game(&beside, port));
        if to == GROUP {
            join(&ben, &server, ANY);
            join(&beside, &neighbour, Ipv4Addr::new(192, 168, 101, 1));
        }
        asker.send_to(b"who is there?", (to, port)).unwrap();
        exactly(&server, b"who is there?", (at_ana, 4001));
        if to.octets()[0] != 10 {
            exactly(&neighbour, b"who is there?", (HOME, 4001));
        } else {
            nothing(&neighbour);
        }
    }
    // what the party never carries stays at home, and gets there
    let (asker, server, neighbour) = (game(&ana, 4002), game(&ben, 137), game(&beside, 137));
    asker.send_to(b"names", (EVERYBODY, 137)).unwrap();
    exactly(&neighbour, b"names", (HOME, 4002));
    nothing(&server);
    let is_counted = || {
        let status = status(&lab, 1);
        (status.home_copied, status.dropped.get("netbios")) == (3, Some(&1))
    };
    assert!(wait_until(PATIENCE, is_counted), "{:?}", status(&lab, 1));
    trace::every_rung(&lab);
    // the way of sockets is the same whoever carries what they say
    if lane != "userspace" {
        dual_stack(&lab, None);
        run::a_socket_of_ipv6(&lab);
    }
    joined::streams_go_where_they_are_wanted(&lab);
    late::who_comes_late_has_a_list_soon(&lab, lane);
    run::a_program_uses_the_party(&lab);
    run::a_killed_command_leaves_nothing(&lab);
    a_world_is_listed(&lab);
}

/// What a host announces by itself is read on its way, whoever carries it.
fn a_world_is_listed(lab: &TestLab) {
    let world = game(&peer(lab, 1), 0);
    let listed = |n| lab.lanrage_output(Role::Peer(n), &["servers", "--json"]).unwrap();
    let wanted = format!("{}:50123", lab.overlay(1).unwrap());
    let is_listed = || {
        let text = b"[MOTD]Ana - New World[/MOTD][AD]50123[/AD]";
        world.send_to(text, (Ipv4Addr::new(224, 0, 2, 60), 4445)).unwrap();
        [1, 2].iter().all(|n| listed(*n).contains(&wanted) && listed(*n).contains("Ana - New World"))
    };
    assert!(wait_until(LISTED, is_listed), "{} {}", listed(1), listed(2));
}

/// A game with one socket for both versions, at an IPv4 address or all of both.
fn dual_stack(lab: &TestLab, own: Option<Ipv4Addr>) {
    let (ana, ben) = (peer(lab, 1), peer(lab, 2));
    let [at_ana, at_ben] = [1, 2].map(|n| lab.overlay(n).unwrap());
    let address = own.map_or(Ipv6Addr::UNSPECIFIED, |own| own.to_ipv6_mapped());
    let open = |port: u16| {
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)?;
        socket.set_only_v6(false)?;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.bind(&SocketAddrV6::new(address, port, 0, 0).into())?;
        std::io::Result::Ok(UdpSocket::from(socket))
    };
    let mapped = |address: Ipv4Addr, port| SocketAddrV6::new(address.to_ipv6_mapped(), port, 0, 0);
    let hears = |socket: &UdpSocket, text: &[u8], from| {
        let mut buffer = [0; 64];
        let (length, sender) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], sender), (text, SocketAddr::V6(from)));
    };
    let asker = ana.play(|| open(4003)).unwrap().unwrap();
    for (port, to) in [(30_010, EVERYBODY), (30_011, GROUP)] {
        let server = game(&ben, port);
        if to == GROUP {
            join(&ben, &server, ANY);
        }
        asker.send_to(b"who is there?", mapped(to, port)).unwrap();
        exactly(&server, b"who is there?", (at_ana, 4003));
        server.send_to(b"I am", (at_ana, 4003)).unwrap();
        hears(&asker, b"I am", mapped(at_ben, port));
    }
    // bound to one address it would not hear everybody
    if own.is_none() {
        game(&ben, 4005).send_to(b"and you?", (EVERYBODY, 4003)).unwrap();
        hears(&asker, b"and you?", mapped(at_ben, 4005));
    }
}

#[test]
fn a_game_bound_to_any_address_is_heard_in_the_party_and_at_home_by_the_kernel_lane() {
    a_game_bound_to_any_address("lak", "auto");
}

#[test]
fn a_game_bound_to_any_address_is_heard_in_the_party_and_at_home_by_the_userspace_lane() {
    a_game_bound_to_any_address("lau", "userspace");
}

#[test]
fn a_game_bound_to_its_home_address_plays_both_ways() {
    let lab = lab("lan", "kernel");
    let (ana, ben) = (peer(&lab, 1), peer(&lab, 2));
    let [at_ana, at_ben] = [1, 2].map(|n| lab.overlay(n).unwrap());
    let beside = lab.topology().router(1);
    for (number, to) in (0u16..).zip([EVERYBODY, HOME_BROADCAST, GROUP]) {
        let port = 31_000 + number;
        let (asker, server, neighbour) = (game_at(&ana, HOME, 4001), game(&ben, port), game(&beside, port));
        if to == GROUP {
            join(&ben, &server, ANY);
            join(&beside, &neighbour, Ipv4Addr::new(192, 168, 101, 1));
        }
        asker.send_to(b"who is there?", (to, port)).unwrap();
        exactly(&server, b"who is there?", (at_ana, 4001));
        exactly(&neighbour, b"who is there?", (HOME, 4001));
        server.send_to(&[7; 1300], (at_ana, 4001)).unwrap();
        exactly(&asker, &[7; 1300], (at_ben, port));
        asker.send_to(b"join", (at_ben, port)).unwrap();
        exactly(&server, b"join", (at_ana, 4001));
    }
    dual_stack(&lab, Some(HOME));
    // TCP: a server on the home address, and a client from it
    let listener = ana.play(|| TcpListener::bind((HOME, 4100))).unwrap().unwrap();
    let client = || TcpStream::connect_timeout(&(at_ana, 4100).into(), PATIENCE);
    talk(&listener, ben.run(client).unwrap().unwrap(), at_ben);
    let listener = ben.play(|| TcpListener::bind((ANY, 4101))).unwrap().unwrap();
    let client = ana.run(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddrV4::new(HOME, 0).into())?;
        socket.connect_timeout(&SocketAddrV4::new(at_ben, 4101).into(), PATIENCE)?;
        std::io::Result::Ok(TcpStream::from(socket))
    });
    talk(&listener, client.unwrap().unwrap(), at_ana);
    let is_counted = || {
        let status = status(&lab, 1);
        // the daemon's own search for the router is captured too, and dropped
        status.captured >= 3 && status.copied == 5 && status.source_fixed > 5 && status.destination_fixed > 5
    };
    assert!(wait_until(PATIENCE, is_counted), "{:?}", status(&lab, 1));
}

/// Both ways over one connection; `from` is where the listener sees it come from.
fn talk(listener: &TcpListener, mut client: TcpStream, from: Ipv4Addr) {
    let (mut server, address) = listener.accept().unwrap();
    assert_eq!(address.ip(), from);
    for stream in [&server, &client] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let (question, mut answer) = (vec![5; 100_000], vec![0; 100_000]);
    std::thread::scope(|scope| {
        scope.spawn(|| client.write_all(&question).unwrap());
        server.read_exact(&mut answer).unwrap();
    });
    assert_eq!(answer, question);
    server.write_all(b"welcome").unwrap();
    let mut answer = [0; 7];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"welcome");
}

#[test]
fn large_repeated_and_many_packets_and_ipv6_cross_unchanged_and_what_is_too_much_does_not() {
    for (name, lane) in [("lbk", "kernel"), ("lbu", "userspace")] {
        let lab = lab(name, lane);
        let (ana, ben) = (peer(&lab, 1), peer(&lab, 2));
        let at_ana = lab.overlay(1).unwrap();
        let (asker, server) = (game(&ana, 4001), game(&ben, 32_000));
        for size in [0, 1, 1364, 1392, 1400, 2500, 8000] {
            asker.send_to(&vec![9; size], (EVERYBODY, 32_000)).unwrap();
            exactly(&server, &vec![9; size], (at_ana, 4001));
        }
        // as ioquake3 does
        for _ in 0..2 {
            asker.send_to(b"getinfo", (EVERYBODY, 32_000)).unwrap();
        }
        assert_eq!(receive(&server, 2).len(), 2);
        ipv6(&lab, &ana, &ben);
        bursts_pass_and_floods_are_cut(&lab);
        ring::dies(&lab);
    }
}

fn ipv6(lab: &TestLab, ana: &Namespace, ben: &Namespace) {
    let index = |place: &Namespace| place.run(|| nix::net::if_::if_nametoindex("lanrage0")).unwrap().unwrap();
    let bind = |place: &Namespace, port| {
        let socket = place.play(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket
    };
    let (asker, server) = (bind(ana, 4006), bind(ben, 32_006));
    let group: Ipv6Addr = "ff02::113".parse().unwrap();
    ben.run(|| server.join_multicast_v6(&group, index(ben))).unwrap().unwrap();
    asker.send_to(b"who is there?", SocketAddrV6::new(group, 32_006, 0, index(ana))).unwrap();
    let got = receive(&server, 1);
    let [a, b, c, d] = lab.overlay(1).unwrap().octets();
    let [x, y] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    let from = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, x, y), 4006, 0, index(ben));
    assert_eq!(got, [(b"who is there?".to_vec(), SocketAddr::V6(from))]);
    server.send_to(&[3; 1200], from).unwrap();
    assert_eq!(receive(&asker, 1).into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), [vec![3; 1200]]);
}

fn bursts_pass_and_floods_are_cut(lab: &TestLab) {
    let (ana, ben) = (peer(lab, 1), peer(lab, 2));
    let asker = game(&ana, 4032);
    // Civilization VI asks 100 ports
    let servers: Vec<UdpSocket> = (0..100).map(|n| game(&ben, 33_000 + n)).collect();
    for port in 33_000..33_100 {
        asker.send_to(b"?", (EVERYBODY, port)).unwrap();
    }
    for server in &servers {
        let mut buffer = [0; 16];
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(server.recv(&mut buffer).unwrap(), 1);
    }
    for number in 0..2000u16 {
        asker.send_to(&number.to_be_bytes(), (EVERYBODY, 33_500)).unwrap();
    }
    let limited = || status(lab, 1).dropped.get("rate_limited").copied().unwrap_or_default() > 0;
    assert!(wait_until(PATIENCE, limited), "{:?}", status(lab, 1));
    let status = status(lab, 1);
    assert!(status.copied >= 300, "{status:?}");
    // only the kernel counts by member
    let copies = status.members.get(&lab.overlay(2).unwrap());
    assert!(copies.is_none_or(|copies| copies.sent >= 300 && copies.failed == 0), "{copies:?}");
    assert_eq!(copies.is_some(), status.mode == LaneMode::Kernel);
}

/// Names of the programs on an interface, out and in; none when it does not exist.
fn attached(place: &Namespace, interface: &str) -> Vec<String> {
    let query = |direction| {
        let programs = SchedClassifier::query_tcx(interface, direction).map(|(_, programs)| programs);
        programs
            .unwrap_or_default()
            .iter()
            .filter_map(|program| program.name_as_str().map(Into::into))
            .collect()
    };
    let both = place.run(|| [query(TcAttachType::Egress), query(TcAttachType::Ingress)]).unwrap();
    both.into_iter().flat_map(|names: Vec<String>| names).collect()
}

/// The game joined on its home network, as before the party was there.
#[test]
fn a_game_that_joined_a_group_elsewhere_hears_the_party() {
    let lab = lab("lbj", "kernel");
    let (ana, ben) = (peer(&lab, 1), peer(&lab, 2));
    let (asker, server) = (game(&ana, 4001), game(&ben, 34_000));
    ben.run(|| server.join_multicast_v4(&GROUP, &Ipv4Addr::new(192, 168, 102, 2))).unwrap().unwrap();
    let mut buffer = [0; 16];
    let is_heard = || {
        asker.send_to(b"who is there?", (GROUP, 34_000)).unwrap();
        server.recv(&mut buffer).is_ok()
    };
    assert!(wait_until(PATIENCE * 2, is_heard), "{:?}", status(&lab, 2));
    drop(server);
    let has_left = || {
        let table = ben.output(Command::new("ip").args(["maddr", "show", "dev", "lanrage0"])).unwrap();
        !table.contains(&GROUP.to_string())
    };
    assert!(wait_until(PATIENCE * 2, has_left));
}

#[test]
fn nothing_is_left_when_the_daemon_is_killed() {
    let mut lab = lab("lkl", "kernel");
    let ana = peer(&lab, 1);
    assert_eq!(attached(&ana, "lanrage0"), ["lane_egress", "lane_ingress"]);
    assert_eq!(attached(&ana, "eth0"), ["nic_egress"]);
    let program = run::waiting(&lab);
    lab.kill(Role::Peer(1)).unwrap();
    let is_gone =
        || attached(&ana, "eth0").is_empty() && attached(&ana, "lanrage0").is_empty() && !run::is_steered();
    assert!(wait_until(PATIENCE, is_gone), "left behind: {:?}", attached(&ana, "eth0"));
    program.ends();
    let routes = ana.output(Command::new("ip").args(["route", "show", "table", "all"])).unwrap();
    assert!(!routes.contains("lanrage0"), "{routes}");
    // a game at home goes on
    let (asker, neighbour) = (game(&ana, 4001), game(&lab.topology().router(1), 30_000));
    asker.send_to(b"who is there?", (EVERYBODY, 30_000)).unwrap();
    exactly(&neighbour, b"who is there?", (HOME, 4001));
    lab.restart(Role::Peer(1)).unwrap();
    lab.wait_for_traffic((1, 2), Duration::from_secs(30));
    assert!(wait_until(PATIENCE, || attached(&ana, "eth0") == ["nic_egress"]));
}
