//! Members whose network blocks UDP play through the relay over TLS. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::{PathKind, Problem};
use lanrage_tests::lab::nat::NatKind::{Eim, Symmetric, UdpBlocked};
use lanrage_tests::lab::process;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::{Role, control_url};
use lanrage_tests::lab::topology::CONTROL_ADDRESS;
use lanrage_tests::lab::traffic::{Pulse, Stream, ping};
use std::time::{Duration, Instant};
use support::TestLab;

const GAME: Stream = Stream { packets: 500, size: 200, rate: 250, port: 37015 };
/// What of it may be late on a busy machine: TCP loses nothing, but what has waited for half a second is left out.
const ENOUGH: u64 = 475;
/// However busy this machine is.
const PATIENCE: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_millis(50);

/// Connections that the relay has over TLS.
fn connections(lab: &TestLab) -> u32 {
    lab.daemon_status(Role::Relay).unwrap().relay.unwrap().tls.unwrap().connections
}

fn problem(lab: &TestLab, n: u8, code: &str) -> Option<Problem> {
    let problems = lab.daemon_status(Role::Peer(n)).unwrap().problems;
    problems.into_iter().find(|problem| problem.code == code)
}

fn wait_for_path(lab: &TestLab, from: u8, to: u8, path: PathKind) {
    let reached = wait_until(PATIENCE, || lab.path(from, to).is_ok_and(|now| now == path));
    assert!(reached, "{from} does not reach {to} by {path:?}:\n{}", lab.explain_paths());
}

fn play(lab: &TestLab, from: u8, to: u8) {
    let count = GAME.play(&lab.station(from), &lab.station(to)).unwrap();
    assert_eq!(count.sent, GAME.packets);
    assert!(count.received >= ENOUGH, "{from} to {to}: {count:?}");
}

/// Founds the party at peer 1 and lets peer 2 join; the time from the command to the first answer from peer 1.
fn join(lab: &mut TestLab) -> Duration {
    lab.lanrage_output(Role::Peer(1), &["party", "create", "Friday"]).unwrap();
    let link = lab.invite(Role::Peer(1), &[]).unwrap();
    let start = Instant::now();
    lab.lanrage_output(Role::Peer(2), &["party", "join", &link]).unwrap();
    for n in [1, 2] {
        let address = lab.daemon_status(Role::Peer(n)).unwrap().party.unwrap().address;
        lab.set_overlay(n, address).unwrap();
    }
    let (station, other) = (lab.station(2), lab.overlay(1).unwrap());
    let answered = wait_until(PATIENCE, || ping(&station, other, 1).is_ok_and(|count| count.received == 1));
    assert!(answered, "no answer:\n{}", lab.explain_paths());
    start.elapsed()
}

#[test]
fn blocked_udp_plays_over_tls_and_udp_is_used_when_it_returns() {
    let mut lab = TestLab::up("tls", &[Symmetric, UdpBlocked]);
    let first = join(&mut lab);
    println!("first answer {} ms after the join, path {:?}", first.as_millis(), lab.path(2, 1).unwrap());
    assert!(first < Duration::from_secs(10), "{first:?}");
    wait_for_path(&lab, 2, 1, PathKind::Tls);
    wait_for_path(&lab, 1, 2, PathKind::Relay);
    play(&lab, 2, 1);
    play(&lab, 1, 2);

    let member = lab.member(2, 1).unwrap();
    let tls = lab.daemon_status(Role::Relay).unwrap().relay.unwrap().tls.unwrap();
    assert_eq!(member.endpoint, Some(tls.address));
    assert!(member.why.contains("over TLS"), "{}", member.why);
    assert_eq!(tls.connections, 1);
    let carried = || lab.daemon_status(Role::Relay).unwrap().relay.unwrap().tls.unwrap();
    let counted = || carried().received > ENOUGH && carried().sent > ENOUGH;
    assert!(wait_until(PATIENCE, counted), "{:?}", carried());
    let carriers = lab.daemon_status(Role::Peer(2)).unwrap().party.unwrap().carriers;
    assert!(carriers.len() == 1 && carriers[0].address == tls.address, "{carriers:?}");
    let blocked = problem(&lab, 2, "udp_blocked").unwrap();
    assert!(blocked.message.contains("over TLS"), "{}", blocked.message);
    let shown = lab.lanrage_output(Role::Peer(2), &["status"]).unwrap();
    assert!(shown.contains("tls"), "{shown}");

    let pulse = Pulse::start(&lab.station(1), &lab.station(2), 37016, BEAT).unwrap();
    lab.change_nat(2, Eim).unwrap();
    wait_for_path(&lab, 2, 1, PathKind::Relay);
    let closed = wait_until(PATIENCE, || connections(&lab) == 0);
    assert!(closed, "the connection stays though UDP works");
    std::thread::sleep(Duration::from_secs(1));
    let beats = pulse.stop();
    println!("to UDP: {:?}, longest gap {:?}", beats.count, beats.longest_gap);
    assert!(beats.count.received * 2 > beats.count.sent, "{:?}", beats.count);
    assert!(problem(&lab, 2, "udp_blocked").is_none());
    play(&lab, 2, 1);

    lab.change_nat(2, UdpBlocked).unwrap();
    wait_for_path(&lab, 2, 1, PathKind::Tls);
    lab.wait_for_traffic((1, 2), PATIENCE);
}

#[test]
fn two_members_without_udp_play_and_survive_the_relay() {
    let mut lab = TestLab::party("tls2", &[UdpBlocked, UdpBlocked]);
    wait_for_path(&lab, 1, 2, PathKind::Tls);
    wait_for_path(&lab, 2, 1, PathKind::Tls);
    assert_eq!(connections(&lab), 2);
    play(&lab, 1, 2);

    lab.kill(Role::Relay).unwrap();
    lab.restart(Role::Relay).unwrap();
    let back = wait_until(PATIENCE, || connections(&lab) == 2);
    assert!(back, "{}", lab.explain_paths());
    lab.wait_for_traffic((1, 2), PATIENCE);
    wait_for_path(&lab, 1, 2, PathKind::Tls);
    play(&lab, 2, 1);
}

/// Another relay with a certificate of its own, to which peer 2's router leads all TLS.
fn intercept(lab: &TestLab) {
    let dir = lab.log(Role::Control).with_file_name("impostor");
    std::fs::create_dir_all(&dir).unwrap();
    let (config, base) = (dir.join("lanrage.toml"), dir.display());
    let settings = format!(
        "role = 'relay'\nstate_dir = '{base}/state'\nsocket = '{base}/lanrage.sock'\nui = '127.0.0.1:8699'\n[relay]\n\
         name = 'impostor'\nlisten = '{CONTROL_ADDRESS}:3479'\nmode = 'userspace'\npin_dir = ''\n\
         control = '{}'\ntoken = 'not-the-right-token'\ntls_listen = '{CONTROL_ADDRESS}:8443'\n",
        control_url()
    );
    std::fs::write(&config, settings).unwrap();
    let log = dir.join("log");
    process::start(&lab.topology().control(), &config, &log).unwrap();
    let listens = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("relay takes TLS"));
    assert!(wait_until(PATIENCE, listens), "{}", process::tail(&log, 20));
    let rules = format!(
        "table ip intercept {{\n chain pre {{\n  type nat hook prerouting priority -100;\n  iifname \"lan\" tcp dport \
         443 dnat to {CONTROL_ADDRESS}:8443\n }}\n}}\n"
    );
    lab.topology().router(2).nft(&rules).unwrap();
}

#[test]
fn another_certificate_is_refused_and_explained() {
    let mut lab = TestLab::up("tlspin", &[Symmetric, UdpBlocked]);
    intercept(&lab);
    lab.form_party().unwrap();
    let refused = wait_until(PATIENCE, || problem(&lab, 2, "relay_certificate_wrong").is_some());
    assert!(refused, "{:?}", lab.daemon_status(Role::Peer(2)).unwrap().problems);
    let problem = problem(&lab, 2, "relay_certificate_wrong").unwrap();
    assert!(problem.message.contains("another certificate than the relay's"), "{}", problem.message);
    assert!(!problem.fix.is_empty());
    assert_eq!(lab.path(2, 1).unwrap(), PathKind::None);
    lab.topology().router(2).nft("delete table ip intercept\n").unwrap();
    wait_for_path(&lab, 2, 1, PathKind::Tls);
    lab.wait_for_traffic((2, 1), PATIENCE);
}
