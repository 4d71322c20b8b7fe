//! Parties across NATs with the real programs: paths, forwarding in the kernel, LAN discovery. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::{PathKind, RelayMode};
use lanrage_tests::lab::nat::NatKind::{Eim, None as Public, Symmetric, UdpBlocked};
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Options;
use lanrage_tests::lab::traffic::{Count, Discovery, Pulse, Stream, ping};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use support::TestLab;

const GAME: Stream = Stream { packets: 2000, size: 200, rate: 2000, port: 37015 };
/// Time for probes to find a direct path.
const DIRECT: Duration = Duration::from_secs(30);

#[test]
fn symmetric_nats_play_through_the_kernel_relay() {
    let lab = TestLab::party("sym", &[Symmetric, Symmetric]);
    let relay = lab.daemon_status(Role::Relay).unwrap().relay.unwrap();
    assert_eq!(relay.mode, RelayMode::XdpNative, "{:?} {:?}", relay.mode_reason, relay.mode_fix);
    assert_eq!((lab.path(1, 2).unwrap(), lab.path(2, 1).unwrap()), (PathKind::Relay, PathKind::Relay));

    let before = lab.kernel_forwarded();
    let (a, b) = (lab.station(1), lab.station(2));
    assert_eq!(GAME.play(&a, &b).unwrap(), Count { sent: 2000, received: 2000 });
    assert_eq!(GAME.play(&b, &a).unwrap(), Count { sent: 2000, received: 2000 });
    let forwarded = lab.kernel_forwarded() - before;
    assert!(forwarded >= 4000, "the kernel program forwarded {forwarded} of 4000 data packets");
    assert_eq!(ping(&a, b.address, 5).unwrap().received, 5);
}

#[test]
fn a_relay_without_xdp_forwards_all_the_same() {
    let mode = "userspace".to_owned();
    let lab =
        TestLab::party_with(Options { relay_mode: mode, ..Options::new("usr", &[Symmetric, Symmetric]) });
    assert_eq!(lab.path(1, 2).unwrap(), PathKind::Relay);
    let (a, b) = (lab.station(1), lab.station(2));
    assert_eq!(GAME.play(&a, &b).unwrap(), Count { sent: 2000, received: 2000 });
    assert_eq!(lab.kernel_forwarded(), 0);
    let relay = lab.daemon_status(Role::Relay).unwrap().relay.unwrap();
    assert_eq!(relay.mode, RelayMode::Userspace);
    assert!(relay.userspace_forwarded >= 2000);
}

#[test]
fn port_keeping_nats_go_direct() {
    let lab = TestLab::party("eim", &[Eim, Eim]);
    lab.wait_for_path((1, 2), PathKind::Direct, DIRECT).unwrap();
    let before = lab.kernel_forwarded();
    let (a, b) = (lab.station(1), lab.station(2));
    assert_eq!(GAME.play(&a, &b).unwrap(), Count { sent: 2000, received: 2000 });
    let forwarded = lab.kernel_forwarded() - before;
    assert!(forwarded < 100, "{forwarded} packets of a direct path went through the relay");
}

#[test]
fn a_public_peer_and_a_symmetric_nat_go_direct() {
    let lab = TestLab::party("pub", &[Public, Symmetric]);
    lab.wait_for_path((1, 2), PathKind::Direct, DIRECT).unwrap();
    let (a, b) = (lab.station(1), lab.station(2));
    assert_eq!(GAME.play(&b, &a).unwrap(), Count { sent: 2000, received: 2000 });
}

#[test]
fn the_path_becomes_direct_when_the_nats_allow_it() {
    let mut lab = TestLab::party("swi", &[Symmetric, Symmetric]);
    assert_eq!(lab.path(1, 2).unwrap(), PathKind::Relay);
    let pulse = Pulse::start(&lab.station(1), &lab.station(2), 37016, Duration::from_millis(50)).unwrap();
    lab.change_nat(1, Eim).unwrap();
    lab.change_nat(2, Eim).unwrap();
    lab.wait_for_path((1, 2), PathKind::Direct, Duration::from_secs(60)).unwrap();
    lab.wait_for_traffic((1, 2), Duration::from_secs(10));
    let beats = pulse.stop();
    assert!(beats.count.received > 0);
    let (a, b) = (lab.station(1), lab.station(2));
    assert_eq!(GAME.play(&a, &b).unwrap(), Count { sent: 2000, received: 2000 });
}

#[test]
fn blocked_udp_and_tls_are_explained() {
    let mut lab = TestLab::up("udp", &[Symmetric, UdpBlocked]);
    let no_tls = "table ip strict {\n chain forward {\n  type filter hook forward priority 0;\n  tcp dport 443 drop\n }\n}\n";
    lab.topology().router(2).nft(no_tls).unwrap();
    lab.form_party().unwrap();
    let problem = || {
        let problems = lab.daemon_status(Role::Peer(2)).unwrap().problems;
        problems.into_iter().find(|problem| problem.code == "relay_silent")
    };
    assert!(wait_until(DIRECT, || problem().is_some()), "peer 2 says nothing about blocked UDP");
    let problem = problem().unwrap();
    assert!(problem.message.contains("UDP"), "{}", problem.message);
    assert!(!problem.fix.is_empty());
    let shown = lab.lanrage_output(Role::Peer(2), &["status"]).unwrap();
    assert!(shown.contains(&problem.message), "`lanrage status` does not show it:\n{shown}");
    assert_eq!(lab.path(2, 1).unwrap(), PathKind::None);
}

/// Unmodified sockets: bound to any address, the system's routes decide.
#[test]
fn lan_discovery_crosses_the_party_unchanged() {
    let lab = TestLab::party("lan", &[Symmetric, Eim, Public]);
    let everybody = Ipv4Addr::BROADCAST;
    let (subnet, minecraft) = (Ipv4Addr::new(10, 66, 255, 255), Ipv4Addr::new(224, 0, 2, 60));
    for (address, port) in [(everybody, 37960), (subnet, 37961), (minecraft, 4445)] {
        for (from, to) in [(1, 2), (2, 3), (3, 1)] {
            let (asker, server) = (lab.station(from), lab.station(to));
            let discovery = Discovery { destination: SocketAddrV4::new(address, port), questions: 5 };
            let found = discovery.play(&asker, &server).unwrap();
            let what = format!("{from} asks {to} at {address}:{port}");
            assert_eq!(found.count, Count { sent: 5, received: 5 }, "{what}");
            let asked_from = SocketAddr::from((asker.address, found.asked_from_port));
            assert_eq!(found.seen_from, [asked_from].into(), "{what}");
            assert_eq!(found.answered_from, [SocketAddr::from((server.address, port))].into(), "{what}");
        }
    }
}
