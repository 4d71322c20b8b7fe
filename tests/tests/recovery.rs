//! Daemons that die and come back while people play. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::PathKind;
use lanrage_tests::lab::nat::NatKind::{Eim, Symmetric};
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::traffic::{Beats, Pulse};
use std::time::{Duration, Instant};
use support::TestLab;

fn pulse(lab: &TestLab) -> Pulse {
    let pulse = Pulse::start(&lab.station(1), &lab.station(2), 37016, Duration::from_millis(20)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    pulse
}

#[test]
fn the_game_goes_on_without_the_control_server() {
    let mut lab = TestLab::party("ctl", &[Symmetric, Symmetric]);
    let pulse = pulse(&lab);
    lab.kill(Role::Control).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let disconnected =
        || lab.daemon_status(Role::Peer(1)).unwrap().control.is_some_and(|control| !control.connected);
    assert!(wait_until(Duration::from_secs(5), disconnected), "peer 1 does not notice");
    lab.restart(Role::Control).unwrap();
    let connected =
        |n| lab.daemon_status(Role::Peer(n)).unwrap().control.is_some_and(|control| control.connected);
    assert!(wait_until(Duration::from_secs(30), || connected(1) && connected(2)), "peers do not come back");
    let Beats { count, longest_gap } = pulse.stop();
    assert_eq!(count.received, count.sent, "lost packets; longest silence {longest_gap:?}");
    // Parties survive in the database: the invite of a restarted server still opens it.
    lab.lanrage_output(Role::Peer(1), &["invite", "--json"]).unwrap();
}

#[test]
fn traffic_is_back_within_seconds_of_the_relay() {
    let mut lab = TestLab::party("rly", &[Symmetric, Symmetric]);
    let pulse = pulse(&lab);
    lab.kill(Role::Relay).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    lab.restart(Role::Relay).unwrap();
    let back = Instant::now();
    lab.wait_for_traffic((1, 2), Duration::from_secs(30));
    println!("traffic was back {:?} after the relay", back.elapsed());
    lab.wait_for_path((1, 2), PathKind::Relay, Duration::from_secs(10)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let beats = pulse.stop();
    assert!(beats.longest_gap < Duration::from_secs(30), "silence of {:?}", beats.longest_gap);
}

#[test]
fn a_relay_that_is_killed_and_comes_back_loses_nothing() {
    let mut lab = TestLab::party("rls", &[Symmetric, Symmetric]);
    // the first packets may be the daemon's, and counters are told once a second
    let early = pulse(&lab);
    let forwards = wait_until(Duration::from_secs(10), || lab.kernel_forwarded() > 0);
    early.stop();
    let kernel = lab.kernel_forwarded();
    assert!(forwards, "the relay does not forward in the kernel: was `cargo xtask build-ebpf` run?");
    let handshake = |lab: &TestLab| {
        let party = lab.daemon_status(Role::Peer(1)).unwrap().party.unwrap();
        let other = party.members.into_iter().find(|member| !member.is_self).unwrap();
        Instant::now() - Duration::from_secs(other.handshake_age_s.unwrap())
    };
    let before = handshake(&lab);
    let pulse = pulse(&lab);
    lab.kill(Role::Relay).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    lab.restart(Role::Relay).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let Beats { count, longest_gap } = pulse.stop();
    assert_eq!(count.received, count.sent, "lost packets; longest silence {longest_gap:?}");
    assert!(handshake(&lab).saturating_duration_since(before) < Duration::from_secs(2), "a new handshake");
    assert!(lab.kernel_forwarded() > kernel, "the counters go on, as the kernel does");
}

#[test]
fn a_killed_peer_rejoins_by_itself() {
    let mut lab = TestLab::party("per", &[Symmetric, Symmetric]);
    let overlay = lab.overlay(2).unwrap();
    lab.kill(Role::Peer(2)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    lab.restart(Role::Peer(2)).unwrap();
    lab.wait_for_path((1, 2), PathKind::Relay, Duration::from_secs(40)).unwrap();
    let status = lab.daemon_status(Role::Peer(2)).unwrap();
    assert_eq!(status.party.unwrap().address, overlay, "the address is leased for good");
    lab.wait_for_traffic((1, 2), Duration::from_secs(20));
    assert!(lab.try_lanrage(1, &["ping", "ben"]).status.success());
}

/// As when a laptop changes from Wi-Fi to cable.
#[test]
fn a_game_survives_another_address_of_its_machine() {
    let lab = TestLab::party("roam", &[Eim, Eim]);
    lab.wait_for_path((1, 2), PathKind::Direct, Duration::from_secs(30)).unwrap();
    let pulse = pulse(&lab);
    let peer = lab.topology().peer(1);
    peer.ip("addr flush dev eth0").unwrap();
    peer.ip("addr add 192.168.101.77/24 brd + dev eth0\nroute add default via 192.168.101.1").unwrap();
    lab.wait_for_traffic((1, 2), Duration::from_secs(20));
    lab.wait_for_path((1, 2), PathKind::Direct, Duration::from_secs(60)).unwrap();
    lab.wait_for_path((2, 1), PathKind::Direct, Duration::from_secs(60)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let Beats { count, longest_gap } = pulse.stop();
    println!(
        "another address: {} of {} lost, longest silence {longest_gap:?}",
        count.sent - count.received,
        count.sent
    );
    assert!(longest_gap < Duration::from_secs(10), "silence of {longest_gap:?}");
}
