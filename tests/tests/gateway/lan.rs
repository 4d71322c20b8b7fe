//! A machine at home that has nothing but a network card finds games in the party, and is found.

use super::{ANY, Console, DEVICE, EVERYBODY, GATEWAY, GROUP, PATIENCE, connect, devices, gateway_status};
use crate::support::TestLab;
use crate::support::game::{exactly, game, nothing, receive};
use crate::support::repeater::while_repeated;
use aya::programs::{SchedClassifier, TcAttachType};
use lanrage_common::api::{GatewayStatus, LanStatus};
use lanrage_common::devices::DeviceKind;
use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Options;
use std::net::{Ipv4Addr, UdpSocket};

const HOME_BROADCAST: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 255);

/// How peer `n` serves the network on that interface.
fn home(lab: &TestLab, n: u8, interface: &str) -> Option<LanStatus> {
    let text = lab.lanrage_output(Role::Peer(n), &["gateway", "--json"]).unwrap();
    let status: GatewayStatus = serde_json::from_str(&text).unwrap();
    status.lan.into_iter().find(|lan| lan.interface == interface)
}

/// Where somebody is found on peer 1's network there, once that is so.
fn alias_of(lab: &TestLab, who: Ipv4Addr, interface: &str) -> Ipv4Addr {
    let alias = || {
        let aliases = home(lab, 1, interface)?.aliases;
        aliases.iter().find(|it| it.member == who && it.held).map(|it| it.alias)
    };
    assert!(wait_until(PATIENCE * 2, || alias().is_some()), "{:?}", gateway_status(lab));
    alias().unwrap()
}

/// Names of the programs on the home network's interface.
fn attached(place: &Namespace) -> Vec<String> {
    let programs = place
        .run(|| SchedClassifier::query_tcx("eth1", TcAttachType::Ingress).map(|(_, programs)| programs))
        .unwrap()
        .unwrap_or_default();
    programs.iter().filter_map(|program| program.name_as_str().map(Into::into)).collect()
}

/// What cannot take part is said, and nothing is changed.
fn refused(lab: &TestLab) {
    for (arguments, part) in [
        (&["eth9"][..], "no interface eth9"),
        (&["lanrage0"], "party's own"),
        (&["eth1", "--alias-range", "192.168.50.1-192.168.50.9"], "192.168.50.2, among"),
        (&["eth1", "--alias-range", "192.168.77.1-192.168.77.9"], "not inside 192.168.50.0/24"),
    ] {
        let output = lab.try_lanrage(1, &[&["gateway", "lan"], arguments].concat());
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && complaint.contains(part), "{arguments:?}: {complaint}");
    }
    assert_eq!(home(lab, 1, "eth1"), None);
}

/// A host that announces itself is in everybody's list of servers, at its address in the party.
fn a_world_at_home_is_listed(lab: &TestLab, console: &Namespace, overlay: Ipv4Addr) {
    let world = game(console, 0);
    let listed = |n| lab.lanrage_output(Role::Peer(n), &["servers", "--json"]).unwrap();
    let wanted = format!("{overlay}:50124");
    let is_listed = || {
        let text = b"[MOTD]Console - New World[/MOTD][AD]50124[/AD]";
        world.send_to(text, (Ipv4Addr::new(224, 0, 2, 60), 4445)).unwrap();
        [1, 2].iter().all(|n| listed(*n).contains(&wanted) && listed(*n).contains("192.168.50.50"))
    };
    assert!(wait_until(PATIENCE * 3, is_listed), "{} {}", listed(1), listed(2));
}

/// mDNS, once both sides list it; both do so while everything runs.
fn services_cross_when_asked_for(lab: &TestLab, console: &Namespace, (overlay, alias): (Ipv4Addr, Ipv4Addr)) {
    const MDNS: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);
    let (ben, at_ben) = (lab.namespace(Role::Peer(2)), lab.overlay(2).unwrap());
    let (asker, server) = (game(console, MDNS.1), game(&ben, MDNS.1));
    console.run(|| asker.join_multicast_v4(&MDNS.0, &DEVICE)).unwrap().unwrap();
    ben.run(|| server.join_multicast_v4(&MDNS.0, &at_ben)).unwrap().unwrap();
    asker.send_to(b"too early", MDNS).unwrap();
    nothing(&server);
    for n in [1, 2] {
        lab.lanrage_output(Role::Peer(n), &["settings", "peer.lane_services", "[\"mdns\"]"]).unwrap();
    }
    asker.send_to(b"who is there?", MDNS).unwrap();
    exactly(&server, b"who is there?", (overlay, MDNS.1));
    ben.run(|| socket2::SockRef::from(&server).set_multicast_if_v4(&at_ben)).unwrap().unwrap();
    server.send_to(b"I am", MDNS).unwrap();
    // beside both questions, which came back as multicast does
    let heard = receive(&asker, 3);
    let answers: Vec<_> = heard.iter().filter(|it| it.0 == b"I am").collect();
    assert_eq!(answers, [&(b"I am".to_vec(), (alias, MDNS.1).into())], "{heard:?}");
    for n in [1, 2] {
        lab.lanrage_output(Role::Peer(n), &["settings", "peer.lane_services", "unset"]).unwrap();
    }
}

/// A second home network: its devices find those on the first one and members, and are found by both.
fn another_network_takes_part(lab: &TestLab, console: &Namespace, overlay: Ipv4Addr) {
    let [own, gateway] = [50, 2].map(|last| Ipv4Addr::new(192, 168, 51, last));
    let handheld = Console::on_network(lab, "dev2", own, ("eth2", gateway));
    let handheld = &handheld.0;
    let (ben, at_ben) = (lab.namespace(Role::Peer(2)), lab.overlay(2).unwrap());
    lab.lanrage_output(Role::Peer(1), &["gateway", "lan", "eth1", "eth2"]).unwrap();
    let (console_there, ben_there) = (alias_of(lab, overlay, "eth2"), alias_of(lab, at_ben, "eth2"));
    // it says something, and has an address in the party from then on, and on the first network
    let (asker, server) = (game(handheld, 4011), game(&ben, 37_300));
    asker.send_to(b"hello", (ben_there, 37_300)).unwrap();
    let heard = receive(&server, 1);
    let [(_, std::net::SocketAddr::V4(from))] = &heard[..] else {
        panic!("{heard:?} {:?}", gateway_status(lab))
    };
    let handheld_here = alias_of(lab, *from.ip(), "eth1");
    for (number, (from, to, seen, back)) in (0u16..).zip([
        (console, handheld, console_there, handheld_here),
        (handheld, console, handheld_here, console_there),
    ]) {
        let port = 37_310 + number;
        let (asker, server) = (game(from, 4012), game(to, port));
        asker.send_to(b"who is there?", (EVERYBODY, port)).unwrap();
        exactly(&server, b"who is there?", (seen, 4012));
        server.send_to(b"I am", (seen, 4012)).unwrap();
        exactly(&asker, b"I am", (back, port));
    }
    assert_eq!(connect(handheld, console, (handheld_here, 4104)), console_there);
    let (asker, server) = (game(&ben, 4013), game(handheld, 37_320));
    asker.send_to(b"who is there?", (EVERYBODY, 37_320)).unwrap();
    exactly(&server, b"who is there?", (ben_there, 4013));
    // and no more
    lab.lanrage_output(Role::Peer(1), &["gateway", "lan", "eth1"]).unwrap();
    assert!(wait_until(PATIENCE, || devices(lab, 2) == [overlay]), "{:?}", devices(lab, 2));
}

/// A second gateway on the same network keeps still, and what a program repeats between its networks does not go round.
fn of_two_gateways_one_serves(lab: &TestLab, switch: &Console, (overlay, alias): (Ipv4Addr, Ipv4Addr)) {
    const PORT: u16 = 37_330;
    let (console, ben, cleo) = (&switch.0, lab.namespace(Role::Peer(2)), lab.namespace(Role::Peer(3)));
    let at_cleo_home = Ipv4Addr::new(192, 168, 50, 3);
    switch.plug_in(&cleo, "eth1", at_cleo_home);
    let named = || lab.try_lanrage(3, &["gateway", "lan", "eth1"]).status.success();
    assert!(wait_until(PATIENCE, named));
    let served_by = || home(lab, 3, "eth1").and_then(|home| home.served_by);
    assert!(wait_until(PATIENCE * 3, || served_by() == lab.overlay(1).ok()), "{:?}", home(lab, 3, "eth1"));
    let (player, server) = (game(console, PORT), game(&ben, PORT));
    player.send_to(b"who is there?", (EVERYBODY, PORT)).unwrap();
    exactly(&server, b"who is there?", (overlay, PORT));
    server.send_to(b"anybody?", (EVERYBODY, PORT)).unwrap();
    // its own comes back to it, as broadcasts do
    let heard = receive(&player, 2);
    let of_ben: Vec<_> = heard.iter().filter(|it| it.0 == b"anybody?").collect();
    assert_eq!(of_ben, [&(b"anybody?".to_vec(), (alias, PORT).into())], "{heard:?}");

    let ends = [("lanrage0", lab.overlay(3).unwrap()), ("eth1", at_cleo_home)];
    let (player, server) = (game(console, PORT + 1), game(&ben, PORT + 1));
    let heard = while_repeated(&cleo, ends, PORT + 1, || {
        player.send_to(b"round and round", (EVERYBODY, PORT + 1)).unwrap();
        receive(&server, 1)
    });
    assert!((1..=3).contains(&heard.len()), "{heard:?}");
    lab.lanrage_output(Role::Peer(3), &["gateway", "lan", "off"]).unwrap();
    cleo.ip("link del eth1").unwrap();
}

#[test]
fn a_console_at_home_plays_with_everybody() {
    let mut lab =
        TestLab::party_with(Options { lane: "kernel".into(), ..Options::new("gwl", &[Eim, Eim, Eim]) });
    let switch = Console::beside(&lab);
    let console = &switch.0;
    refused(&lab);
    let range = ["--alias-range", "192.168.50.200-192.168.50.230"];
    let said = lab.lanrage_output(Role::Peer(1), &["gateway", "lan", "eth1", range[0], range[1]]).unwrap();
    assert!(said.contains("from now on"), "{said}");
    let (ana, ben) = (lab.namespace(Role::Peer(1)), lab.namespace(Role::Peer(2)));
    let at_ben = lab.overlay(2).unwrap();
    let alias = alias_of(&lab, at_ben, "eth1");
    assert!((200..=230).contains(&alias.octets()[3]), "{alias}");

    // its search reaches Ben, exactly once, from an address and port of its own; his answer comes from his alias
    let mut overlay = Ipv4Addr::UNSPECIFIED;
    for (number, to) in (0u16..).zip([EVERYBODY, HOME_BROADCAST, GROUP]) {
        let port = 37_000 + number;
        let (asker, server) = (game(console, 4001), game(&ben, port));
        ben.run(|| server.join_multicast_v4(&GROUP, &at_ben)).unwrap().unwrap();
        asker.send_to(b"who is there?", (to, port)).unwrap();
        let heard = receive(&server, 1);
        let [(text, from)] = &heard[..] else { panic!("{to}: {heard:?} {:?}", gateway_status(&lab)) };
        assert_eq!((text.as_slice(), from.port()), (&b"who is there?"[..], 4001));
        server.send_to(&[7; 1300], from).unwrap();
        exactly(&asker, &[7; 1300], (alias, port));
        asker.send_to(b"join", (alias, port)).unwrap();
        assert_eq!(receive(&server, 1), [(b"join".to_vec(), *from)]);
        let std::net::IpAddr::V4(from) = from.ip() else { panic!("{from}") };
        overlay = from;
    }
    assert!(wait_until(PATIENCE, || devices(&lab, 2) == [overlay]), "{:?}", devices(&lab, 2));
    // Ben's search reaches the console, from his alias, and its answer reaches him
    for (number, to) in (0u16..).zip([EVERYBODY, GROUP, Ipv4Addr::new(10, 66, 255, 255)]) {
        let port = 37_100 + number;
        let (asker, server) = (game(&ben, 4002), game(console, port));
        console.run(|| server.join_multicast_v4(&GROUP, &DEVICE)).unwrap().unwrap();
        asker.send_to(b"who is there?", (to, port)).unwrap();
        exactly(&server, b"who is there?", (alias, 4002));
        server.send_to(b"I am", (alias, 4002)).unwrap();
        exactly(&asker, b"I am", (overlay, port));
    }
    // TCP, whoever hosts
    assert_eq!(connect(&ben, console, (alias, 4100)), overlay);
    assert_eq!(connect(console, &ben, (overlay, 4101)), alias);
    // what configures networks and names machines stays where it is
    for (from, to) in [(console, &ben), (&ben, console)] {
        let asker = game(from, 4003);
        for port in [67, 137] {
            let server = to.play(|| UdpSocket::bind((ANY, port))).unwrap().unwrap();
            asker.send_to(b"names", (EVERYBODY, port)).unwrap();
            nothing(&server);
        }
    }
    let status = gateway_status(&lab);
    let [known] = &status.devices[..] else { panic!("{status:?}") };
    assert_eq!((known.kind, known.address, known.name.as_str()), (DeviceKind::Lan, overlay, "192.168.50.50"));
    assert!(known.rx_bytes > 200_000 && known.tx_bytes > 200_000 && known.mac.is_some(), "{known:?}");
    assert_eq!(attached(&ana), ["lan_ingress"]);
    a_world_at_home_is_listed(&lab, console, overlay);
    services_cross_when_asked_for(&lab, console, (overlay, alias));
    another_network_takes_part(&lab, console, overlay);
    of_two_gateways_one_serves(&lab, &switch, (overlay, alias));

    // somebody takes Ben's alias: he gets another one, and it is said
    console.ip(&format!("addr add {alias}/24 dev br0")).unwrap();
    let claim = console.run(|| UdpSocket::bind((alias, 4004))).unwrap().unwrap();
    let is_noticed = || {
        // asking for the gateway's address tells who has this one
        let _ = console.ip("neigh flush dev br0");
        let _ = claim.send_to(b"x", (GATEWAY, 9));
        let conflicts = home(&lab, 1, "eth1").unwrap().conflicts;
        conflicts.iter().any(|conflict| conflict.address == alias)
    };
    assert!(wait_until(PATIENCE, is_noticed), "{:?}", gateway_status(&lab));
    let other = alias_of(&lab, at_ben, "eth1");
    assert_ne!(other, alias);
    console.ip(&format!("addr del {alias}/24 dev br0")).unwrap();
    assert_eq!(connect(&ben, console, (other, 4102)), overlay);

    // a crash leaves nothing on the home network
    lab.kill(Role::Peer(1)).unwrap();
    assert!(wait_until(PATIENCE, || attached(&ana).is_empty()), "left behind: {:?}", attached(&ana));
    assert!(wait_until(PATIENCE, || lab.restart(Role::Peer(1)).is_ok()));
    let alias = alias_of(&lab, at_ben, "eth1");
    let (asker, server) = (game(console, 4005), game(&ben, 37_200));
    let is_back = || {
        asker.send_to(b"again", (alias, 37_200)).unwrap();
        server.recv_from(&mut [0; 16]).is_ok_and(|(_, from)| from == (overlay, 4005).into())
    };
    assert!(wait_until(PATIENCE * 2, is_back), "{:?}", gateway_status(&lab));
}
