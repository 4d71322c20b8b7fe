//! Streams to a group go to members that have joined it, and searches to everybody.

use super::*;
use lanrage_common::api::LaneReceiver;
use std::time::Instant;

const STREAM: Ipv4Addr = Ipv4Addr::new(239, 10, 11, 13);
const PORT: u16 = 30_200;
const PACKETS: u64 = 120;

/// Until Ana knows whether that peer has joined.
fn is_known(lab: &TestLab, n: u8, joined: bool) {
    let at = lab.overlay(n).unwrap();
    let is_met = || status(lab, 1).joined.get(&at).is_some_and(|it| it.contains(&STREAM.into()) == joined);
    assert!(wait_until(PATIENCE * 4, is_met), "{:?}", status(lab, 1));
}

/// Packets of the stream that have come to a peer's machine, whoever listens there.
fn arrived(lab: &TestLab, n: u8) -> u64 {
    let trace = status(lab, n).trace;
    trace.iter().filter(|it| !it.own && it.port == PORT).map(|it| it.seen).sum()
}

/// No faster than the rate that one port has; every packet says something else. Says how long it took.
fn stream(asker: &UdpSocket, kind: u8) -> Duration {
    let start = Instant::now();
    for number in 0..PACKETS {
        asker.send_to(&[[kind; 8], number.to_be_bytes()].concat(), (STREAM, PORT)).unwrap();
        std::thread::sleep(Duration::from_millis(6));
    }
    start.elapsed()
}

fn hears_all(server: &UdpSocket) {
    assert_eq!(receive(server, PACKETS as usize).len() as u64, PACKETS);
}

pub fn streams_go_where_they_are_wanted(lab: &TestLab) {
    let asker = game(&peer(lab, 1), 4040);
    let [at_ben, at_carl] = [2, 3].map(|n| game(&peer(lab, n), PORT));
    let join = |n, server: &UdpSocket| {
        peer(lab, n).run(|| server.join_multicast_v4(&STREAM, &ANY)).unwrap().unwrap();
        is_known(lab, n, true);
    };
    is_known(lab, 2, false);
    join(3, &at_carl);
    let spared = status(lab, 1).spared;
    // what a socket has no room for is lost
    let time = std::thread::scope(|scope| {
        scope.spawn(|| hears_all(&at_carl));
        stream(&asker, 1)
    });
    let most = 21 + time.as_secs();
    let has_come = || arrived(lab, 3) == PACKETS && arrived(lab, 2) >= 20;
    assert!(wait_until(PATIENCE, has_come), "{} {}", arrived(lab, 2), arrived(lab, 3));
    assert!(arrived(lab, 2) <= most, "{} came to a machine that has not joined", arrived(lab, 2));
    let at_least = PACKETS - most;
    assert!(wait_until(PATIENCE, || status(lab, 1).spared - spared >= at_least));
    is_told(lab);

    // who joins hears of it within a second, whatever streams, and then everything
    join(2, &at_ben);
    std::thread::scope(|scope| {
        scope.spawn(|| hears_all(&at_ben));
        scope.spawn(|| hears_all(&at_carl));
        stream(&asker, 2);
    });
}

/// The trace names who has not joined.
fn is_told(lab: &TestLab) {
    let receivers = || -> Option<Vec<LaneReceiver>> {
        let told = status(lab, 1).trace.into_iter().find(|it| it.own && it.port == PORT)?;
        Some(told.receivers)
    };
    let of = |n| receivers()?.into_iter().find(|it| it.member == lab.overlay(n).unwrap());
    let is_named = || {
        let (ben, carl) = (of(2)?, of(3)?);
        let is_right = (ben.joined, carl.joined) == (Some(false), Some(true));
        Some(is_right && ben.missing?.code == "not_joined")
    };
    assert!(wait_until(PATIENCE, || is_named() == Some(true)), "{:?}", receivers());
    let shown = lab.lanrage_output(Role::Peer(1), &["trace", "30200", "--once"]).unwrap();
    assert!(shown.contains("not joined") && shown.contains(&STREAM.to_string()), "{shown}");
}
