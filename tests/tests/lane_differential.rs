//! The same packets through the lane's kernel programs (`BPF_PROG_TEST_RUN`) and through the lane in userspace: same
//! verdict, same reason, same packet. Needs root.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aya::TestRunOptions;
use aya::programs::TestRun as _;
use lanrage_common::api::LaneStatus;
use lanrage_common::lane::maps::{AnswerKey, Home, JoinKey, LaneLocal, Step, TraceCount, TraceKey};
use lanrage_common::lane::{Inbound, Lane, LaneReason, OVERHEAD, Outbound, PORT};
use lanrage_common::wire::{self, Be32};
use lanrage_daemon::lane::{Object, Program, Runs};
use lanrage_daemon::platform::cgroup;
use lanrage_tests::bench::lane::alone;
use lanrage_tests::veth::require_root;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

const ME: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 3);
const HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 77);
const HOME_BROADCAST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 255);
const PARTY: Ipv4Addr = Ipv4Addr::new(10, 66, 255, 255);
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 2, 60);
/// Test runs carry an Ethernet header.
const ETHERNET: usize = 14;
/// The programs' verdicts: go on, drop, and end here without an error.
const PASS: u32 = -1i32 as u32;
const SHOT: u32 = 2;
const CONSUMED: u32 = 7;

/// Programs and lane with the same members. Time is the real one, so each run begins with fresh budgets.
struct Pair {
    object: Object,
    lane: Lane,
    output: Vec<u8>,
}

impl Pair {
    fn new(members: &[Ipv4Addr]) -> Self {
        require_root().unwrap();
        let mut lane = Lane::new(ME, "10.66.0.0/16".parse().unwrap());
        lane.set_members(members.iter().copied());
        lane.set_local_broadcasts([HOME_BROADCAST]);
        let address = Be32::from_octets(HOME.octets());
        lane.set_homes([Home { address, ifindex: 9999, copies: 0, ..Home::default() }]);
        let mut object = Object::load(ETHERNET as u32).unwrap();
        // an interface that does not exist: copies are made, and go nowhere
        let local = LaneLocal { ifindex: 9998, ..*lane.local() };
        object.tell(local, lane.members()).unwrap();
        Self { object, lane, output: vec![0; 70_000] }
    }

    fn kernel(&mut self, program: Program, packet: &[u8]) -> (u32, Vec<u8>) {
        let kind: u16 = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        let frame = [&[0; 12][..], &kind.to_be_bytes(), packet].concat();
        let options =
            TestRunOptions { data_in: Some(&frame), data_out: Some(&mut self.output), ..Default::default() };
        let result = self.object.program(program).unwrap().test_run(options).unwrap();
        (result.return_value, self.output[ETHERNET..result.data_size_out as usize].to_vec())
    }

    fn reasons(&self) -> BTreeMap<LaneReason, u64> {
        LaneReason::ALL.iter().map(|reason| (*reason, self.object.reason(*reason))).collect()
    }

    /// The reason that was counted since.
    fn counted(&self, before: &BTreeMap<LaneReason, u64>) -> Option<LaneReason> {
        let now = self.reasons();
        let changed: Vec<_> = now.iter().filter(|(reason, count)| **count != before[reason]).collect();
        assert!(
            changed.len() <= 1 && changed.iter().all(|(reason, count)| **count == before[reason] + 1),
            "{changed:?}"
        );
        changed.first().map(|(reason, _)| **reason)
    }

    /// The discovery trace has the same counts.
    fn agree_traced(&self) {
        let [kernel, lane] = [self.object.traced(), self.lane.traced()].map(HashMap::from_iter);
        let all: HashMap<TraceKey, TraceCount> = lane;
        assert_eq!(kernel, all);
        let [kernel, lane] = [self.object.answers(), self.lane.answers()].map(HashMap::from_iter);
        let all: HashMap<AnswerKey, u64> = lane;
        assert_eq!(kernel, all);
    }

    fn agree_outbound(&mut self, packet: &[u8]) -> Option<LaneReason> {
        let before = self.reasons();
        let copied = self.object.step(Step::Copied);
        let wanted = self.lane.handle_outbound(packet, Instant::now());
        let mut copies = Vec::new();
        while let Some((_, copy)) = self.lane.poll_copy() {
            copies.push(copy.to_vec());
        }
        let (verdict, bytes) = self.kernel(Program::Egress, packet);
        let reason = self.counted(&before);
        match wanted {
            Outbound::Pass => {
                assert_eq!((verdict, reason), (PASS, None), "{packet:02x?}");
                if packet.get(12..16) != Some(&HOME.octets()[..]) {
                    assert_eq!(bytes, packet);
                }
            }
            Outbound::Drop(wanted) => {
                assert_eq!((verdict, reason), (CONSUMED, Some(wanted)), "{packet:02x?}")
            }
            Outbound::Copies => {
                assert_eq!((verdict, reason), (CONSUMED, None), "{packet:02x?}");
                assert_eq!(self.object.step(Step::Copied) - copied, copies.len() as u64);
                // the buffer is what the last member got
                let last = copies.last().unwrap();
                assert_eq!(
                    bytes[OVERHEAD..OVERHEAD + last.len() - OVERHEAD],
                    last[OVERHEAD..],
                    "{packet:02x?}"
                );
                assert_eq!(bytes[12..24], last[12..24], "addresses and ports of {packet:02x?}");
                assert_eq!((bytes[..4].to_vec(), wire::checksum(&bytes[..20])), (last[..4].to_vec(), 0));
                assert_eq!(bytes[24..26], last[24..26]);
            }
        }
        reason
    }

    fn agree_inbound(&mut self, packet: &[u8]) -> Option<LaneReason> {
        let before = self.reasons();
        // the tunnel has proven the outer source
        let sender = packet.get(12..16).map_or(ANA, |b| Ipv4Addr::new(b[0], b[1], b[2], b[3]));
        let wanted = match self.lane.handle_inbound(packet, sender, Instant::now()) {
            Inbound::Pass => Ok(packet.to_vec()),
            Inbound::Deliver(inner) => Ok(inner.to_vec()),
            Inbound::Drop(reason) => Err(reason),
        };
        let (verdict, bytes) = self.kernel(Program::Ingress, packet);
        let reason = self.counted(&before);
        match &wanted {
            Ok(wanted) if verdict == SHOT && wanted.len() < packet.len() && wanted[0] >> 4 == 6 => {
                assert!(!unwraps_ipv6(), "{packet:02x?}");
                assert_eq!(reason, Some(LaneReason::Resize), "{packet:02x?}");
                return None;
            }
            Ok(wanted) => {
                assert_eq!((verdict, reason), (PASS, None), "{packet:02x?}");
                assert!(bytes.starts_with(wanted), "{packet:02x?} became {bytes:02x?}");
            }
            Err(wanted) => assert_eq!((verdict, reason), (SHOT, Some(*wanted)), "{packet:02x?}"),
        }
        reason
    }
}

/// Whether this kernel can turn a packet from IPv4 to IPv6 (docs/limits.md).
fn unwraps_ipv6() -> bool {
    is_kernel_since((6, 3))
}

fn is_kernel_since(wanted: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= wanted
}

/// An IPv4 packet with right checksums.
fn v4(from: Ipv4Addr, to: Ipv4Addr, port: u16, fragment: u16, id: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut udp = [4001u16.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    udp.extend_from_slice(payload);
    let sum = wire::udp_checksum(&from.octets(), &to.octets(), &udp);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let body = if fragment & 0x1fff == 0 { &udp[..] } else { payload };
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + body.len() as u16).to_be_bytes());
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[3, 17, 0, 0]);
    packet.extend_from_slice(&[from.octets(), to.octets()].concat());
    let sum = wire::checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(body);
    packet
}

fn v6(from: &str, to: &str, protocol: u8, port: u16) -> Vec<u8> {
    v6_of(from, to, protocol, port, b"game")
}

fn v6_of(from: &str, to: &str, protocol: u8, port: u16, payload: &[u8]) -> Vec<u8> {
    let [from, to]: [Ipv6Addr; 2] = [from, to].map(|address| address.parse().unwrap());
    let length = (8 + payload.len()) as u8;
    let mut udp = [4001u16.to_be_bytes(), port.to_be_bytes(), [0, length], [0, 0]].concat();
    udp.extend_from_slice(payload);
    let sum = wire::udp_checksum(&from.octets(), &to.octets(), &udp);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x6b, 0x80, 0, 7, 0, length, protocol, 1];
    packet.extend_from_slice(&[from.octets(), to.octets()].concat());
    packet.extend_from_slice(&udp);
    packet
}

fn wrap(from: Ipv4Addr, inner: &[u8]) -> Vec<u8> {
    v4(from, ME, PORT, 0, 7, inner)
}

fn set(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

const V6_ME: &str = "fe80::5efe:a42:2";
const V6_ANA: &str = "fe80::5efe:a42:1";

fn outbound() -> Vec<Vec<u8>> {
    let to = |address, port| v4(ME, address, port, 0, 9, b"who is there?");
    let mut all = vec![
        to(ANA, 6112),
        set(to(GROUP, 1), 9, &[2]),
        set(to(GROUP, 1), 9, &[6]),
        set(to(GROUP, 6112), 26, &[0, 0]),
        set(to(GROUP, 6112), 2, &[0, 19]),
        set(to(GROUP, 6112), 2, &[1, 0]),
        set(to(GROUP, 6112), 24, &[1, 0]),
        set(to(GROUP, 6112), 24, &[0, 7]),
        set(to(GROUP, 6112), 0, &[0x44]),
        set(to(GROUP, 6112), 0, &[0x46]),
        set(to(GROUP, 6112), 0, &[0x15]),
        v4(ME, GROUP, 6112, 0x2000, 9, &[1; 200]),
        v4(ME, GROUP, 6112, 25, 9, &[1; 200]),
        v4(HOME, GROUP, 6112, 25, 9, &[1; 200]),
        v4(HOME, ANA, 6112, 0, 9, b"x"),
        v6("fe80::1", "ff02::113", 17, 6112),
        v6(V6_ME, "ff02::113", 17, 5353),
        v6(V6_ME, "ff01::1", 17, 6112),
        v6(V6_ME, "ff02::113", 58, 1),
        v6(V6_ME, "ff02::113", 0, 1),
        v6(V6_ME, "ff02::113", 44, 1),
        v6(V6_ME, V6_ANA, 6, 1),
        v6(V6_ME, V6_ANA, 17, 1),
        v6("fe80::1", V6_ANA, 17, 1),
        v6(V6_ME, "fe80::5efe:a42:99", 17, 1),
        v6(V6_ME, "2001:db8::1", 17, 1),
    ];
    for address in [Ipv4Addr::BROADCAST, PARTY, HOME_BROADCAST, GROUP] {
        for port in [6112, 67, 68, 137, 138, 546, 5355, 5353, 1900, 3702, PORT] {
            all.push(to(address, port));
            all.push(v4(HOME, address, port, 0, 9, b"from home"));
        }
    }
    all
}

fn inbound() -> Vec<Vec<u8>> {
    let good = v4(ANA, GROUP, 6112, 0, 0, b"here");
    let mut all = vec![
        wrap(ANA, &good),
        wrap(ANA, &v4(ANA, GROUP, 6112, 0, 77, b"here")),
        wrap(ANA, &v4(BEN, GROUP, 6112, 0, 0, b"here")),
        wrap(ANA, &v4(ANA, ME, 6112, 0, 0, b"here")),
        wrap(ANA, &wrap(ANA, &good)),
        wrap(ANA, &[&good[..], &[0]].concat()),
        wrap(ANA, &good[..good.len() - 1]),
        wrap(ANA, &[]),
        wrap(ANA, &[0x45]),
        wrap(ANA, &set(good.clone(), 9, &[6])),
        wrap(ANA, &set(good.clone(), 9, &[2])),
        wrap(ANA, &set(good.clone(), 24, &[0, 7])),
        wrap(ANA, &v4(ANA, GROUP, 6112, 0x2000, 5, &[1; 64])),
        wrap(ANA, &v4(ANA, GROUP, 6112, 8, 5, &[1; 64])),
        wrap(ANA, &v6(V6_ANA, "ff02::113", 17, 6112)),
        wrap(ANA, &v6(V6_ANA, V6_ME, 17, 6112)),
        wrap(ANA, &v6(V6_ANA, V6_ME, 6, 6112)),
        wrap(ANA, &v6(V6_ME, "ff02::113", 17, 6112)),
        wrap(ANA, &v6(V6_ANA, "fe80::1", 17, 6112)),
        v4(ANA, ME, PORT, 0x2000, 7, &good),
        set(wrap(ANA, &good), 0, &[0x46]),
        set(wrap(ANA, &good), 24, &[0, 20]),
        set(wrap(ANA, &good), 26, &[0, 0]),
        v4(ANA, BEN, PORT, 0, 7, &good),
        v4(ANA, ME, 6112, 0, 7, b"unicast"),
        v6(V6_ANA, "ff02::113", 17, 6112),
        v6("2001:db8::1", "2001:db8::2", 17, 6112),
        good.clone(),
    ];
    for port in [67, 137, 5355, 5353, 1900, 3702, PORT] {
        all.push(wrap(ANA, &v4(ANA, Ipv4Addr::BROADCAST, port, 0, 0, b"x")));
    }
    all
}

#[test]
fn every_fixture_agrees() {
    let mut seen = BTreeSet::new();
    for members in [&[ANA, BEN][..], &[ANA], &[]] {
        let mut pair = Pair::new(members);
        outbound().iter().for_each(|packet| seen.extend(pair.agree_outbound(packet)));
        inbound().iter().for_each(|packet| seen.extend(pair.agree_inbound(packet)));
        pair.agree_traced();
    }
    answers_agree();
    // the second time within a second
    let mut pair = Pair::new(&[ANA]);
    let numbered = wrap(ANA, &v4(ANA, GROUP, 6112, 0, 77, b"here"));
    seen.extend((0..2).filter_map(|_| pair.agree_inbound(&numbered)));
    // the kernel's clock and ours are not read at the same moment, so only the first 200 are sure
    let packet = |number: u16| v4(ME, GROUP, 6112, 0, 0, &number.to_be_bytes());
    for number in 0..200 {
        assert_eq!(pair.agree_outbound(&packet(number)), None);
    }
    let cut =
        (200..600).filter(|number| pair.kernel(Program::Egress, &packet(*number)).0 == CONSUMED).count();
    assert_eq!(cut, 400);
    assert!(pair.object.reason(LaneReason::RateLimited) > 0);
    seen.insert(LaneReason::RateLimited);
    seen.extend(loops_agree());
    seen.extend(joins_agree());
    // larger than a test run takes; a socket's segments; and the kernel refusing to resize
    seen.extend([LaneReason::Oversize, LaneReason::Segmented, LaneReason::Resize]);
    let missing: Vec<_> = LaneReason::ALL.iter().filter(|reason| !seen.contains(reason)).collect();
    assert!(missing.is_empty(), "no packet for {missing:?}");
}

/// Contents of every length, sent as often as may be, and heard meanwhile.
fn loops_agree() -> Vec<LaneReason> {
    let mut seen = Vec::new();
    for length in [0, 1, 7, 8, 9, 100, 128, 135, 136, 1300] {
        let mut pair = Pair::new(&[ANA]);
        let said = |from, end: u8| {
            let mut payload = vec![7; length];
            if let Some(last) = payload.last_mut() {
                *last = end;
            }
            v4(from, GROUP, 6112, 0, 0, &payload)
        };
        for _ in 0..2 {
            assert_eq!(pair.agree_outbound(&said(ME, 1)), None);
        }
        seen.extend(pair.agree_outbound(&said(ME, 1)));
        if length > 0 {
            assert_eq!(pair.agree_outbound(&said(ME, 2)), None, "another end of {length} bytes");
            assert_eq!(pair.agree_inbound(&wrap(ANA, &said(ANA, 2))), None);
            seen.extend(pair.agree_outbound(&said(ME, 2)));
            seen.extend(pair.agree_outbound(&said(HOME, 2)));
        }
    }
    assert!(seen.iter().all(|reason| *reason == LaneReason::Looped) && seen.len() == 28, "{seen:?}");
    seen
}

/// More than a search goes to members that have joined the group, and to those that have not said what they have.
fn joins_agree() -> Vec<LaneReason> {
    let (mut seen, group6) = (Vec::new(), "ff02::113");
    let to = |number: u8, is_v6| match is_v6 {
        false => v4(ME, GROUP, 6112, 0, 9, &[number; 6]),
        true => v6_of(V6_ME, group6, 17, 6112, &[number; 6]),
    };
    let groups = BTreeSet::from([GROUP.into(), group6.parse().unwrap()]);
    let none = BTreeSet::new();
    for (told, wanted) in [
        (vec![], 2),
        (vec![(ANA, &groups), (BEN, &groups)], 2),
        (vec![(ANA, &groups), (BEN, &none)], 1),
        (vec![(ANA, &none), (BEN, &groups)], 1),
        (vec![(ANA, &none)], 1),
        (vec![(ANA, &none), (BEN, &none)], 0),
    ] {
        for is_v6 in [false, true] {
            let mut pair = Pair::new(&[ANA, BEN]);
            // what was told before is replaced
            pair.object.tell_joins(&HashSet::from([JoinKey::default()])).unwrap();
            pair.lane.set_joined(told.clone());
            pair.object.tell_joins(&pair.lane.joins()).unwrap();
            let before = [Step::Copied, Step::Spared].map(|step| pair.object.step(step));
            seen.extend((0..24).filter_map(|number| pair.agree_outbound(&to(number, is_v6))));
            let [copied, spared] = [Step::Copied, Step::Spared].map(|step| pair.object.step(step));
            assert_eq!(
                (copied - before[0], spared - before[1]),
                (40 + 4 * wanted, 8 - 4 * wanted),
                "{told:?}"
            );
            assert_eq!(pair.lane.status().spared, spared);
            pair.agree_traced();
            // everybody is not a group, and a later fragment goes where its first one may have gone
            for packet in [v4(ME, PARTY, 6112, 0, 9, b"?"), v4(ME, GROUP, 6112, 25, 9, &[1; 200])] {
                let before = pair.object.step(Step::Copied);
                assert_eq!(pair.agree_outbound(&packet), None);
                assert_eq!(pair.object.step(Step::Copied) - before, 2);
            }
        }
    }
    assert!(seen.iter().all(|reason| *reason == LaneReason::NotJoined) && seen.len() == 8, "{seen:?}");
    seen
}

/// The programs of `lanrage run` load and steer here too: an address that this machine has not got can be bound to.
#[test]
fn a_bind_to_the_home_address_is_led_to_all_addresses() {
    require_root().unwrap();
    let (root, own) = (cgroup::root().unwrap(), cgroup::own().unwrap());
    let group = format!("{}/{}{}", own.trim_end_matches('/'), cgroup::PREFIX, std::process::id());
    let directory = cgroup::below(&root, &group);
    std::fs::create_dir(&directory).unwrap();
    let mut lane = Lane::new(ME, "10.66.0.0/16".parse().unwrap());
    lane.set_homes([Home {
        address: Be32::from_octets(HOME.octets()),
        ifindex: 9999,
        copies: 0,
        ..Home::default()
    }]);
    let mut runs = Runs::default();
    let started = runs.start(&group, *lane.local());
    cgroup::enter(&directory).unwrap();
    let v4 = UdpSocket::bind((HOME, 0)).and_then(|socket| socket.local_addr());
    let v6 = UdpSocket::bind((HOME.to_ipv6_mapped(), 0)).and_then(|socket| socket.local_addr());
    cgroup::enter(&cgroup::below(&root, &own)).unwrap();
    drop(runs);
    std::fs::remove_dir(&directory).unwrap();
    started.unwrap();
    assert_eq!(v4.unwrap().ip(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(v6.unwrap().ip().to_canonical(), Ipv4Addr::UNSPECIFIED);
    UdpSocket::bind((HOME, 0)).unwrap_err();
}

/// Attached to an interface, by tcx or on older kernels by clsact: copies leave, and what members send is heard.
#[test]
fn every_member_gets_every_announcement_once_and_is_heard() {
    let storm = alone::storm(3_000).unwrap();
    assert_eq!((storm.missing, storm.doubled), (0, 0), "{storm:?}");
    let place = alone::Place::create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    place.0.run(|| runtime.block_on(a_member_is_heard())).unwrap();
}

async fn a_member_is_heard() {
    let (interface, lane) = alone::open().await.unwrap();
    assert_eq!(lane.hook(), if is_kernel_since((6, 6)) { "tcx" } else { "clsact" });
    let game = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 6112)).unwrap();
    game.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let said = v4(BEN, Ipv4Addr::BROADCAST, 6112, 0, 5, b"here");
    interface.send(&v4(BEN, alone::ME, PORT, 0, 7, &said)).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = game.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"here"[..], (BEN, 4001).into()));
    // Civilization VI asks 100 ports at once, faster than the daemon takes the copies
    game.set_broadcast(true).unwrap();
    for port in 33_000..33_100 {
        game.send_to(b"?", (Ipv4Addr::BROADCAST, port)).unwrap();
    }
    let mut copies = 0;
    while tokio::time::timeout(Duration::from_secs(1), interface.readable()).await.is_ok() {
        while interface.try_recv(&mut buffer).is_ok() {
            copies += u32::from(buffer[22..24] == PORT.to_be_bytes());
        }
    }
    let mut status = LaneStatus::default();
    lane.count(&mut status);
    assert_eq!((status.delivered, status.copied, copies), (1, 1500, 1500), "{status:?}");
}

/// Only packets to a port that asked are answers.
fn answers_agree() {
    let mut pair = Pair::new(&[ANA, BEN]);
    let answer = v4(ANA, ME, 4001, 0, 7, b"me");
    assert_eq!(pair.agree_inbound(&answer), None);
    assert!(pair.object.answers().is_empty(), "nobody has asked");
    assert_eq!(pair.agree_outbound(&v4(ME, GROUP, 6112, 0, 9, b"who is there?")), None);
    for packet in [&answer, &answer, &v4(BEN, ME, 4001, 0, 7, b"me"), &v4(ANA, ME, 4002, 0, 7, b"no")] {
        assert_eq!(pair.agree_inbound(packet), None);
    }
    pair.agree_traced();
    assert_eq!(pair.object.answers().iter().map(|(_, count)| count).sum::<u64>(), 3);
    let counts = pair.object.traced();
    assert_eq!(counts.len(), 1);
    let TraceCount { packets, copies, dropped, source_port, reason } = counts[0].1;
    assert_eq!((packets, copies, dropped, source_port, reason), (1, 2, 0, 4001, 0));
}

/// `LANRAGE_DIFFERENTIAL_CASES` sets the number, `LANRAGE_DIFFERENTIAL_SEED` repeats a run.
#[test]
fn mutated_packets_agree() {
    let cases: u64 =
        std::env::var("LANRAGE_DIFFERENTIAL_CASES").map_or(20_000, |cases| cases.parse().unwrap());
    let seed: u64 = std::env::var("LANRAGE_DIFFERENTIAL_SEED")
        .map_or_else(|_| rand::thread_rng().r#gen(), |seed| seed.parse().unwrap());
    println!("{cases} cases, LANRAGE_DIFFERENTIAL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let templates = [outbound(), inbound()];
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    let mut pair = Pair::new(&[ANA, BEN]);
    for case in 0..cases {
        if case % 100 == 0 {
            pair.agree_traced();
            pair = Pair::new(&[ANA, BEN]); // full budgets
            let joins = if random.r#gen() { BTreeSet::from([GROUP.into()]) } else { BTreeSet::new() };
            pair.lane.set_joined([(ANA, &joins)]);
            pair.object.tell_joins(&pair.lane.joins()).unwrap();
        }
        let way = random.gen_range(0..2);
        let mut packet = templates[way].choose(&mut random).unwrap().clone();
        for _ in 0..random.gen_range(0..3) {
            mutate(&mut random, &mut packet);
        }
        let reason = if way == 0 { pair.agree_outbound(&packet) } else { pair.agree_inbound(&packet) };
        *reasons.entry(reason.map_or("carried", LaneReason::name)).or_default() += 1;
    }
    println!("{reasons:?}");
}

/// Test runs take no packet without an IP header.
fn mutate(random: &mut StdRng, packet: &mut Vec<u8>) {
    let least = if packet[0] >> 4 == 6 { 40 } else { 20 };
    match random.gen_range(0..4) {
        0 => packet.truncate(random.gen_range(least..=packet.len())),
        1 => packet.extend((0..random.gen_range(1..8)).map(|_| 0)),
        2 => {
            let at = random.gen_range(1..packet.len());
            packet[at] ^= 1 << random.gen_range(0..8);
        }
        _ => {
            let at = random.gen_range(1..packet.len().min(80));
            packet[at] = random.r#gen();
        }
    }
}
