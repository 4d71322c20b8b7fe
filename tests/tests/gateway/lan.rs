//! A machine at home that has nothing but a network card finds games in the party, and is found.

use super::{ANY, Console, DEVICE, EVERYBODY, GATEWAY, GROUP, PATIENCE, connect, devices, gateway_status};
use crate::support::TestLab;
use crate::support::game::{exactly, game, nothing, receive};
use aya::programs::{SchedClassifier, TcAttachType};
use lanrage_common::api::LanStatus;
use lanrage_common::devices::DeviceKind;
use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Options;
use std::net::{Ipv4Addr, UdpSocket};

const HOME_BROADCAST: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 255);

fn home(lab: &TestLab) -> LanStatus {
    gateway_status(lab)
        .lan
        .unwrap_or_else(|| panic!("no home network: {:?}", lab.daemon_status(Role::Peer(1))))
}

/// Where peer 2 is found at home, once it is.
fn alias_of_ben(lab: &TestLab) -> Ipv4Addr {
    let ben = lab.overlay(2).unwrap();
    let alias = || {
        let status = gateway_status(lab).lan?;
        status.aliases.iter().find(|it| it.member == ben && it.held).map(|it| it.alias)
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

#[test]
fn a_console_at_home_plays_with_everybody() {
    let mut lab = TestLab::party_with(Options {
        lane: "kernel".into(),
        gateway_lan: Some("eth1".into()),
        ..Options::new("gwl", &[Eim, Eim])
    });
    let console = Console::beside(&lab);
    let console = &console.0;
    let (ana, ben) = (lab.namespace(Role::Peer(1)), lab.namespace(Role::Peer(2)));
    let at_ben = lab.overlay(2).unwrap();
    let alias = alias_of_ben(&lab);

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

    // somebody takes Ben's alias: he gets another one, and it is said
    console.ip(&format!("addr add {alias}/24 dev eth0")).unwrap();
    let claim = console.run(|| UdpSocket::bind((alias, 4004))).unwrap().unwrap();
    let is_noticed = || {
        // asking for the gateway's address tells who has this one
        let _ = console.ip("neigh flush dev eth0");
        let _ = claim.send_to(b"x", (GATEWAY, 9));
        home(&lab).conflicts.iter().any(|conflict| conflict.address == alias)
    };
    assert!(wait_until(PATIENCE, is_noticed), "{:?}", home(&lab));
    let other = alias_of_ben(&lab);
    assert_ne!(other, alias);
    console.ip(&format!("addr del {alias}/24 dev eth0")).unwrap();
    assert_eq!(connect(&ben, console, (other, 4102)), overlay);

    // a crash leaves nothing on the home network
    lab.kill(Role::Peer(1)).unwrap();
    assert!(wait_until(PATIENCE, || attached(&ana).is_empty()), "left behind: {:?}", attached(&ana));
    assert!(wait_until(PATIENCE, || lab.restart(Role::Peer(1)).is_ok()));
    let alias = alias_of_ben(&lab);
    let (asker, server) = (game(console, 4005), game(&ben, 37_200));
    let is_back = || {
        asker.send_to(b"again", (alias, 37_200)).unwrap();
        server.recv_from(&mut [0; 16]).is_ok_and(|(_, from)| from == (overlay, 4005).into())
    };
    assert!(wait_until(PATIENCE * 2, is_back), "{:?}", gateway_status(&lab));
}
