//! The same frames through the loaded kernel program (`BPF_PROG_TEST_RUN`) and through the model: same verdict, same
//! bytes, same counters. Needs root.
//!
//! `LANRAGE_DIFFERENTIAL_CASES` sets the number of random cases, `LANRAGE_DIFFERENTIAL_SEED` repeats a run.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aya::programs::TestRun as _;
use aya::{TestRunOptions, programs::Xdp};
use lanrage_common::maps::{FlowKey, FlowValue, Local, NextHop};
use lanrage_common::reason::Reason;
use lanrage_common::wire::{Be16, Be32};
use lanrage_daemon::datapath::table::Maps as _;
use lanrage_daemon::datapath::xdp::Program;
use lanrage_tests::frames::{data, fix_checksums, udp_frame};
use lanrage_tests::model::{Model, Outcome};
use lanrage_tests::veth::{bpf_object, require_root};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

const RELAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 3478);
const RELAY_TWO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 6), 443);
const SENDER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 51820);
/// Test runs come in by loopback.
const INGRESS: u32 = 1;

/// WireGuard receiver indexes of the installed flows.
const BACK: u32 = 0x0102_0304;
const ACROSS: u32 = 0x1112_1314;
const UNRESOLVED: u32 = 0x2122_2324;
const NARROW: u32 = 0x3132_3334;
const NO_SLOT: u32 = 0x4142_4344;
const INDEXES: [u32; 5] = [BACK, ACROSS, UNRESOLVED, NARROW, NO_SLOT];

/// Program and model with the same state.
struct Pair {
    program: Program,
    model: Model,
    /// In order of installation, for repeatable runs.
    keys: Vec<FlowKey>,
    output: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        require_root().unwrap();
        let mut program = Program::load(1024).unwrap();
        let mut local = Local::default();
        local.addresses[..2]
            .copy_from_slice(&[RELAY, RELAY_TWO].map(|own| Be32::from_octets(own.ip().octets())));
        local.ports[..2].copy_from_slice(&[RELAY, RELAY_TWO].map(|own| Be16::new(own.port())));
        program.set_local(local).unwrap();
        let hops = [
            NextHop::default(),
            NextHop::new(INGRESS, 1500, [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]),
            NextHop::new(77, 1500, [0xf1; 6], [0xf2; 6]),
            NextHop::new(77, 100, [0xe1; 6], [0xe2; 6]),
        ];
        for (slot, hop) in hops.iter().enumerate() {
            program.put_next_hop(slot as u32, *hop).unwrap();
        }
        let model = Model {
            addresses: [RELAY, RELAY_TWO].map(|own| own.ip().octets()).to_vec(),
            ports: [RELAY, RELAY_TWO].map(|own| own.port()).to_vec(),
            flows: Default::default(),
            next_hops: hops.to_vec(),
            ingress: INGRESS,
        };
        let mut pair = Self { program, model, keys: Vec::new(), output: vec![0; 4096] };
        for (slot, index) in [(1, BACK), (2, ACROSS), (0, UNRESOLVED), (3, NARROW), (9_999_999, NO_SLOT)] {
            pair.put(SENDER, index, value([203, 0, 113, 5], [192, 0, 2, 9], 3478, 40000, slot));
        }
        pair
    }

    fn put(&mut self, sender: SocketAddrV4, index: u32, value: FlowValue) {
        let key = FlowKey {
            source: Be32::from_octets(sender.ip().octets()),
            index: Be32::from_octets(index.to_le_bytes()),
            source_port: Be16::new(sender.port()),
            reserved: Be16::default(),
        };
        self.program.put_flow(key, value).unwrap();
        self.model.flows.insert(key, value);
        self.keys.push(key);
    }

    /// Other addresses and ports in every flow, so that checksums take every value.
    fn shuffle_targets(&mut self, random: &mut StdRng) {
        for key in &self.keys {
            let value = self.model.flows.get_mut(key).unwrap();
            (value.source, value.destination) = (edge32(random.r#gen()), edge32(random.r#gen()));
            (value.source_port, value.destination_port) = (edge16(random.r#gen()), edge16(random.r#gen()));
        }
        for (key, value) in &self.model.flows {
            self.program.put_flow(*key, *value).unwrap();
        }
    }

    fn kernel(&mut self, frame: &[u8]) -> (u32, &[u8]) {
        let xdp: &Xdp = self.program.xdp();
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut self.output), ..Default::default() };
        let result = xdp.test_run(options).unwrap();
        (result.return_value, &self.output[..result.data_size_out as usize])
    }

    /// Runs one frame through both; the model's outcome when they agree.
    fn agree(&mut self, frame: &[u8]) -> Outcome {
        let wanted = self.model.run(frame);
        let (action, bytes) = self.kernel(frame);
        assert_eq!(action, wanted.action, "verdict for {:?}: {frame:02x?}", wanted.reason);
        assert_eq!(bytes, wanted.frame, "bytes for {:?}: {frame:02x?}", wanted.reason);
        wanted
    }

    fn counters(&self) -> BTreeMap<Reason, [u64; 2]> {
        self.program
            .reasons()
            .into_iter()
            .map(|(reason, count)| (reason, [count.packets, count.bytes]))
            .collect()
    }
}

fn value(
    source: [u8; 4],
    destination: [u8; 4],
    source_port: u16,
    destination_port: u16,
    next_hop: u32,
) -> FlowValue {
    FlowValue {
        source: Be32::from_octets(source),
        destination: Be32::from_octets(destination),
        source_port: Be16::new(source_port),
        destination_port: Be16::new(destination_port),
        next_hop,
        member: next_hop % 8,
    }
}

/// Mostly as given, sometimes a value at the edge of ones' complement arithmetic.
fn edge32(word: u32) -> Be32 {
    let word = match word & 7 {
        0 => 0,
        1 => u32::MAX,
        2 => word & 0xffff,
        _ => word,
    };
    Be32::from_octets(word.to_ne_bytes())
}

fn edge16(word: u16) -> Be16 {
    Be16::new(match word & 7 {
        0 => 0,
        1 => u16::MAX,
        _ => word,
    })
}

/// A good frame, changed.
fn changed(index: u32, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = udp_frame(SENDER, RELAY, &data(index, 48));
    change(&mut frame);
    frame
}

fn set(index: u32, at: usize, bytes: &[u8]) -> Vec<u8> {
    changed(index, |frame| frame[at..at + bytes.len()].copy_from_slice(bytes))
}

/// At least one frame for every reason that a test run can reach.
fn fixtures() -> Vec<(Reason, Vec<u8>)> {
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 3478);
    let other_port = SocketAddrV4::new(*RELAY.ip(), 3479);
    let keepalive = data(BACK, 16);
    vec![
        (Reason::Forwarded, changed(BACK, |_| {})),
        (Reason::Forwarded, udp_frame(SENDER, RELAY_TWO, &keepalive)),
        (Reason::Forwarded, udp_frame(SENDER, RELAY, &data(BACK, 1456))),
        (Reason::Forwarded, udp_frame(SENDER, RELAY, &data(BACK, 17))),
        (Reason::Forwarded, set(BACK, 40, &[0, 0])),
        (Reason::Forwarded, set(BACK, 40, &[0xff, 0xff])),
        (Reason::Forwarded, set(BACK, 24, &[0xff, 0xff])),
        (Reason::Forwarded, set(BACK, 22, &[2])),
        (Reason::Forwarded, set(BACK, 15, &[0xb8])),
        (Reason::Redirected, changed(ACROSS, |_| {})),
        (Reason::Vlan, set(BACK, 12, &[0x81, 0x00])),
        (Reason::Vlan, set(BACK, 12, &[0x88, 0xa8])),
        (Reason::NotIpv4, set(BACK, 12, &[0x86, 0xdd])),
        (Reason::NotIpv4, set(BACK, 12, &[0x08, 0x06])),
        (Reason::ShortIpv4, changed(BACK, |frame| frame.truncate(33))),
        (Reason::ShortIpv4, changed(BACK, |frame| frame.truncate(14))),
        (Reason::BadIpv4, set(BACK, 14, &[0x65])),
        (Reason::BadIpv4, set(BACK, 14, &[0x44])),
        (Reason::IpOptions, set(BACK, 14, &[0x46])),
        (Reason::OtherAddress, udp_frame(SENDER, elsewhere, &data(BACK, 48))),
        (Reason::OtherAddress, set(BACK, 30, &[0; 4])),
        (Reason::NotUdp, set(BACK, 23, &[6])),
        (Reason::Fragment, set(BACK, 20, &[0x20, 0x00])),
        (Reason::Fragment, set(BACK, 20, &[0x00, 0x01])),
        (Reason::Ipv4Length, changed(BACK, |frame| frame.push(0))),
        (Reason::Ipv4Length, changed(BACK, |frame| frame.truncate(73))),
        (Reason::Ipv4Length, changed(BACK, |frame| frame.truncate(41))),
        (Reason::Ipv4Length, set(BACK, 16, &[0, 0])),
        (Reason::UdpLength, set(BACK, 38, &[0, 7])),
        (Reason::UdpLength, set(BACK, 38, &[0xff, 0xff])),
        (Reason::OtherPort, udp_frame(SENDER, other_port, &data(BACK, 48))),
        (Reason::OtherPort, set(BACK, 36, &[0, 0])),
        (Reason::NotData, udp_frame(SENDER, RELAY, &[1; 148])),
        (Reason::NotData, udp_frame(SENDER, RELAY, &[])),
        (Reason::NotData, udp_frame(SENDER, RELAY, &[4, 0, 0])),
        (Reason::Reserved, set(BACK, 43, &[1])),
        (Reason::Reserved, set(BACK, 45, &[0x80])),
        (Reason::ShortData, udp_frame(SENDER, RELAY, &data(BACK, 15))),
        (Reason::ShortData, udp_frame(SENDER, RELAY, &[4, 0, 0, 0])),
        (Reason::TtlExpired, set(BACK, 22, &[1])),
        (Reason::TtlExpired, set(BACK, 22, &[0])),
        (Reason::NoFlow, changed(0xffff_ffff, |_| {})),
        (Reason::NoFlow, set(BACK, 26, &[198, 51, 100, 8])),
        (Reason::NoFlow, set(BACK, 34, &[0, 1])),
        (Reason::NoNextHop, changed(UNRESOLVED, |_| {})),
        (Reason::NoNextHop, changed(NO_SLOT, |_| {})),
        (Reason::TooBig, udp_frame(SENDER, RELAY, &data(NARROW, 57))),
        (Reason::Redirected, udp_frame(SENDER, RELAY, &data(NARROW, 56))),
    ]
}

#[test]
fn every_reason_has_a_frame_with_the_same_verdict_bytes_and_counter() {
    let mut pair = Pair::new();
    let mut seen = BTreeSet::new();
    for (reason, frame) in fixtures() {
        let before = pair.counters();
        let outcome = pair.agree(&frame);
        assert_eq!(outcome.reason, reason, "the model itself, for {frame:02x?}");
        let mut wanted = before;
        let counter = wanted.get_mut(&reason).unwrap();
        *counter = [counter[0] + 1, counter[1] + frame.len() as u64];
        assert_eq!(pair.counters(), wanted, "counters after {reason:?}");
        seen.insert(reason);
    }
    // The kernel refuses test runs with less than an Ethernet header, which no driver delivers either.
    seen.insert(Reason::ShortFrame);
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !seen.contains(reason)).collect();
    assert!(missing.is_empty(), "no frame for {missing:?}");
    assert_eq!(pair.model.run(&[0; 13]).reason, Reason::ShortFrame);
}

/// The verifier takes the program with room to spare; both figures are printed.
#[test]
fn the_verifier_accepts_it_far_from_its_limits() {
    let mut pair = Pair::new();
    let info = pair.program.xdp().info().unwrap();
    let verified = info.verified_instruction_count().unwrap();
    let stack = stack_bytes(&std::fs::read(bpf_object("lanrage-ebpf").unwrap()).unwrap());
    println!(
        "verified instructions: {verified} of 1000000; stack: {stack} of 512 bytes; {:?}",
        info.size_jitted()
    );
    assert!(verified <= 250_000, "{verified} instructions verified");
    assert!((1..=384).contains(&stack), "{stack} bytes of stack");
}

/// Deepest access below the frame pointer in section `xdp` of an ELF object: BPF has one stack layout a function.
fn stack_bytes(object: &[u8]) -> i32 {
    let number = |at: usize, size: usize| {
        object[at..at + size].iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (headers, size, count, names) = (number(40, 8), number(58, 2), number(60, 2), number(62, 2));
    let header = |index: usize| headers + index * size;
    let strings = number(header(names) + 24, 8);
    let is_xdp = |at: &usize| object[strings + number(*at, 4)..].starts_with(b"xdp\0");
    let section = (0..count).map(header).find(is_xdp).unwrap();
    let code = &object[number(section + 24, 8)..][..number(section + 32, 8)];
    let mut depth = 0;
    let mut from_frame_pointer = [false; 16];
    for instruction in code.chunks_exact(8) {
        let (opcode, to, from) = (instruction[0], usize::from(instruction[1] & 15), instruction[1] >> 4);
        let offset = i32::from(i16::from_le_bytes([instruction[2], instruction[3]]));
        let immediate = i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
        let memory = match opcode & 7 {
            1 => from == 10,
            2 | 3 => to == 10,
            _ => false,
        };
        if memory {
            depth = depth.max(-offset);
        }
        // r = r10; r += immediate
        if opcode == 0x07 && from_frame_pointer[to] {
            depth = depth.max(-immediate);
        }
        from_frame_pointer[to] = opcode == 0xbf && from == 10;
    }
    depth
}

#[test]
fn members_are_counted() {
    let mut pair = Pair::new();
    let frame = changed(ACROSS, |_| {});
    let member = pair.agree(&frame).member.unwrap();
    let counter = pair.program.member(member);
    assert_eq!((counter.packets, counter.bytes), (1, frame.len() as u64));
    pair.agree(&changed(UNRESOLVED, |_| {}));
    assert_eq!(
        pair.program.member(0).packets,
        0,
        "nothing was forwarded for the member of an unresolved flow"
    );
}

/// Every value of every header byte, one at a time, in three kinds of packet.
#[test]
fn every_single_byte_change_agrees() {
    let mut pair = Pair::new();
    let kinds = [changed(BACK, |_| {}), changed(ACROSS, |_| {}), set(BACK, 40, &[0, 0])];
    let mut wanted = pair.counters();
    for kind in kinds {
        for at in 0..74 {
            for byte in 0..=255 {
                let mut frame = kind.clone();
                frame[at] = byte;
                count(&mut wanted, &pair.agree(&frame));
            }
        }
    }
    assert_eq!(pair.counters(), wanted);
}

#[test]
fn every_truncation_agrees() {
    let mut pair = Pair::new();
    let whole = changed(BACK, |_| {});
    for length in 14..whole.len() {
        let cut = &whole[..length];
        assert_eq!(pair.agree(cut).frame, cut, "a truncated frame was changed");
        let mut fitted = cut.to_vec();
        if length >= 42 {
            fitted[16..18].copy_from_slice(&(length as u16 - 14).to_be_bytes());
            fitted[38..40].copy_from_slice(&(length as u16 - 34).to_be_bytes());
            fix_checksums(&mut fitted);
        }
        pair.agree(&fitted);
    }
}

#[test]
fn random_and_mutated_frames_agree() {
    let cases: u64 =
        std::env::var("LANRAGE_DIFFERENTIAL_CASES").map_or(150_000, |cases| cases.parse().unwrap());
    let seed: u64 = std::env::var("LANRAGE_DIFFERENTIAL_SEED")
        .map_or_else(|_| rand::thread_rng().r#gen(), |seed| seed.parse().unwrap());
    println!("{cases} cases, LANRAGE_DIFFERENTIAL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut pair = Pair::new();
    let fixtures: Vec<Vec<u8>> = fixtures().into_iter().map(|(_, frame)| frame).collect();
    let mut wanted = pair.counters();
    for case in 0..cases {
        if case % 500 == 0 {
            assert_eq!(pair.counters(), wanted, "counters before case {case}");
            pair.shuffle_targets(&mut random);
        }
        let frame = random_frame(&mut random, &fixtures);
        count(&mut wanted, &pair.agree(&frame));
    }
    assert_eq!(pair.counters(), wanted);
    let reachable = wanted.iter().filter(|(reason, _)| **reason != Reason::ShortFrame);
    let rare: Vec<_> = reachable.filter(|(_, counter)| counter[0] < cases / 10_000).collect();
    assert!(rare.is_empty(), "the generator hardly reaches {rare:?}");
    println!(
        "{:#?}",
        wanted.iter().map(|(reason, counter)| (reason.name(), counter[0])).collect::<BTreeMap<_, _>>()
    );
}

fn count(counters: &mut BTreeMap<Reason, [u64; 2]>, outcome: &Outcome) {
    let counter = counters.get_mut(&outcome.reason).unwrap();
    *counter = [counter[0] + 1, counter[1] + outcome.frame.len() as u64];
}

fn random_frame(random: &mut StdRng, fixtures: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = match random.gen_range(0..20) {
        0 => (0..random.gen_range(14..200)).map(|_| random.r#gen()).collect(),
        1..=4 => fixtures.choose(random).unwrap().clone(),
        _ => {
            let index = *INDEXES.choose(random).unwrap();
            let relay = *[RELAY, RELAY_TWO].choose(random).unwrap();
            let mut payload = data(index, random.gen_range(16..120));
            random.fill(&mut payload[8..]);
            udp_frame(SENDER, relay, &payload)
        }
    };
    for _ in 0..random.gen_range(0..3) {
        mutate(random, &mut frame);
    }
    if random.gen_bool(0.3) {
        fix_checksums(&mut frame);
    }
    frame
}

fn mutate(random: &mut StdRng, frame: &mut Vec<u8>) {
    let interesting: &[(usize, &[u8])] = &[
        (14, &[0x45]),
        (14, &[0x46]),
        (20, &[0x20, 0]),
        (20, &[0x80, 0]),
        (22, &[1]),
        (22, &[255]),
        (40, &[0, 0]),
        (40, &[0xff, 0xff]),
        (24, &[0, 0]),
        (24, &[0xff, 0xff]),
    ];
    match random.gen_range(0..6) {
        0 => frame.truncate(random.gen_range(14..=frame.len())),
        1 => frame.extend((0..random.gen_range(1..8)).map(|_| 0)),
        2 => {
            let (at, bytes) = interesting.choose(random).unwrap();
            if let Some(field) = frame.get_mut(*at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        }
        3 => {
            let at = random.gen_range(0..frame.len());
            frame[at] ^= 1 << random.gen_range(0..8);
        }
        _ => {
            let at = random.gen_range(0..frame.len().min(74));
            frame[at] = random.r#gen();
        }
    }
}
