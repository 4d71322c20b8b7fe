//! What strangers and bad members can not do.

use super::*;
use crate::binding::{binding_request, refusal_answer};
use proptest::prelude::*;

/// Bytes out must not exceed bytes in, and packets out packets in.
fn assert_no_amplification(bench: &mut Bench, from: SocketAddr, datagram: &[u8]) -> usize {
    let sent = bench.receive(from, datagram);
    let out: usize = sent.iter().map(|(_, payload)| payload.len()).sum();
    assert!(sent.len() <= 1 && out <= datagram.len(), "{} bytes drew {out}", datagram.len());
    out
}

fn stun(kind: u16, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let body = u16::try_from(length.saturating_sub(20)).unwrap();
    let header = [&kind.to_be_bytes()[..], &body.to_be_bytes(), &[0x21, 0x12, 0xA4, 0x42], &[7; 12]].concat();
    let end = length.min(20);
    bytes[..end].copy_from_slice(&header[..end]);
    bytes
}

/// A STUN message of `length` bytes whose body is one attribute.
fn stun_with(kind: u16, attribute: u16, length: usize) -> Vec<u8> {
    let mut bytes = stun(kind, length);
    if length >= 24 {
        bytes[20..22].copy_from_slice(&attribute.to_be_bytes());
        bytes[22..24].copy_from_slice(&u16::try_from(length - 24).unwrap().to_be_bytes());
    }
    bytes
}

#[test]
fn no_length_of_any_message_is_amplified_for_a_stranger() {
    let mut bench = Bench::new();
    bench.bind(1);
    let stranger: SocketAddr = address(99);
    let bind_request = 0x2C00 | (0xB1D & 0x70) << 1 | (0xB1D & 0xF);
    let mut answered = 0;
    for length in 0..=1500 {
        for kind in [0x0001, 0x0101, 0x0111, 0x0011, bind_request, bind_request | 0x0100] {
            for attribute in [0x001B, 0x8022, 0x0015, 0x000D, 0x0020, 0x0009, 0x001C, 0x7777] {
                let datagram = stun_with(kind, attribute, length);
                answered += usize::from(assert_no_amplification(&mut bench, stranger, &datagram) > 0);
            }
            assert_no_amplification(&mut bench, stranger, &stun(kind, length));
        }
        for first in 0..=255 {
            let mut datagram = vec![0; length];
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            assert_eq!(assert_no_amplification(&mut bench, stranger, &datagram), 0);
        }
    }
    assert!(answered > 600, "the enumeration met answers: {answered}");
    assert_eq!(bench.server.bindings(), 1);
}

#[test]
fn short_requests_get_nothing() {
    let mut bench = Bench::new();
    assert!(bench.receive(address(1), &stun(1, 20)).is_empty(), "a bare Binding is shorter than its answer");
    let request = BindRequest { transaction: TRANSACTION, ticket: vec![0; 8], nonce: None, release: false };
    assert!(bench.receive(address(1), &request.encode(&SESSION_KEY)).is_empty());
    assert_eq!(bench.count(Reason::StunShort), 2);
}

#[test]
fn answers_of_the_relay_are_never_answered() {
    let mut bench = Bench::new();
    let sealed = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce: None, release: false };
    let mut answers = bench.receive(address(1), &request.encode(&SESSION_KEY));
    answers.extend(bench.receive(address(1), &binding_request([1; 12])));
    let refusal = refusal_answer([1; 12], crate::binding::Refusal::OldEpoch, None);
    answers.push((address(1), refusal));
    for (_, answer) in answers {
        assert!(bench.receive(address(2), &answer).is_empty());
        assert!(bench.receive(relay_address(), &answer).is_empty(), "nor from itself");
    }
    assert!(bench.receive(relay_address(), &binding_request([1; 12])).is_empty());
    assert_eq!(bench.count(Reason::BadSource), 4);
}

#[test]
fn impossible_sources_are_dropped() {
    let mut bench = Bench::new();
    for source in ["0.0.0.0:5", "224.0.0.1:5", "255.255.255.255:5", "198.51.100.1:0", "[ff02::1]:5", "[::]:5"]
    {
        assert!(bench.receive(source.parse::<SocketAddr>().unwrap(), &binding_request([1; 12])).is_empty());
    }
    assert_eq!(bench.count(Reason::BadSource), 6);
}

#[test]
fn strangers_leave_no_state() {
    let mut bench = Bench::new();
    bench.bind(1);
    let sealed = bench.ticket(2).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce: None, release: false };
    let bytes = request.encode(&SESSION_KEY);
    for n in 0..20_000u32 {
        let from = SocketAddr::new(std::net::Ipv4Addr::from(0x0B00_0000 | n).into(), 1000);
        bench.receive(from, &bytes);
        bench.receive(from, &initiation(n, 1));
        bench.receive(from, &data(n));
        bench.receive(from, &probe_to(1));
        bench.log.clear();
    }
    assert_eq!((bench.server.bindings(), bench.server.routes.len()), (1, 0));
    assert_eq!(bench.count(Reason::Unbound), 60_000);
}

#[test]
fn every_datagram_is_counted_once() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    let before: u64 = bench.server.counters().values().sum();
    let datagrams = [
        initiation(1, 2),
        response(1, 1, 1),
        cookie(3),
        data(4),
        probe_to(2),
        vec![],
        vec![0; 3],
        vec![1, 0, 0, 0],
        binding_request([1; 12]),
        vec![0xFF; 40],
        vec![4, 1, 0, 0],
        vec![4; 100],
    ];
    for datagram in &datagrams {
        bench.receive(address(1), datagram);
    }
    let after: u64 = bench.server.counters().values().sum();
    assert_eq!(after - before, datagrams.len() as u64);
    assert_eq!(bench.count(Reason::UnknownProtocol), 5);
    assert_eq!(bench.count(Reason::Malformed), 1);
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Bind { member: u8, port: u16, party: bool, epoch: u32 },
    Initiation { from: u8, index: u32, to: u8 },
    Response { from: u8, index: u32, receiver: u32, to: u8 },
    Data { from: u8, index: u32 },
    Cookie { from: u8, index: u32 },
    Probe { from: u8, to: u8 },
    Pass { millis: u64 },
    Garbage { from: u8, bytes: Vec<u8> },
    Bent { from: u8, to: u8, at: usize, byte: u8, cut: usize },
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let member = || 1..6u8;
    let index = || 0..8u32;
    let step = prop_oneof![
        3 => (member(), 0..3u16, any::<bool>(), 1..3u32)
            .prop_map(|(member, port, party, epoch)| Step::Bind { member, port, party, epoch }),
        6 => (member(), index(), member()).prop_map(|(from, index, to)| Step::Initiation { from, index, to }),
        6 => (member(), index(), index(), member())
            .prop_map(|(from, index, receiver, to)| Step::Response { from, index, receiver, to }),
        4 => (member(), index()).prop_map(|(from, index)| Step::Data { from, index }),
        1 => (member(), index()).prop_map(|(from, index)| Step::Cookie { from, index }),
        1 => (member(), member()).prop_map(|(from, to)| Step::Probe { from, to }),
        1 => (0..70_000u64).prop_map(|millis| Step::Pass { millis }),
        1 => (member(), proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(from, bytes)| Step::Garbage { from, bytes }),
        1 => (member(), member(), 0..148usize, any::<u8>(), 0..149usize)
            .prop_map(|(from, to, at, byte, cut)| Step::Bent { from, to, at, byte, cut }),
    ];
    proptest::collection::vec(step, 0..120)
}

impl Bench {
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Bind { member, port, party, epoch } => {
                let party = if party { PARTY } else { OTHER_PARTY };
                let ticket = Ticket { party, epoch, ..self.ticket(member) };
                let at = with_port(address(member), address(member).port() + port * 1000);
                self.bind_with(at, &ticket);
            }
            Step::Initiation { from, index, to } => self.feed(from, &initiation(index, to)),
            Step::Response { from, index, receiver, to } => self.feed(from, &response(index, receiver, to)),
            Step::Data { from, index } => self.feed(from, &data(index)),
            Step::Cookie { from, index } => self.feed(from, &cookie(index)),
            Step::Probe { from, to } => self.feed(from, &probe_to(to)),
            Step::Pass { millis } => self.pass(Duration::from_millis(millis)),
            Step::Garbage { from, bytes } => self.feed(from, &bytes),
            Step::Bent { from, to, at, byte, cut } => {
                let mut bytes = initiation(3, to);
                bytes[at] = byte;
                bytes.truncate(cut);
                self.feed(from, &bytes);
            }
        }
    }

    /// From every address that the member may be bound at.
    fn feed(&mut self, from: u8, datagram: &[u8]) {
        for port in 0..3 {
            let at = with_port(address(from), address(from).port() + port * 1000);
            assert_no_amplification(self, at, datagram);
        }
    }
}

proptest! {
    /// Whatever happens, the data path holds exactly the server's flows, and they mean the same.
    #[test]
    fn data_path_and_server_never_part(steps in steps()) {
        let mut bench = Bench::new();
        for member in 1..4 {
            bench.bind(member);
        }
        for step in steps {
            bench.take(step);
            bench.assert_same_as_data_path();
        }
        bench.pass(Duration::from_secs(600));
        prop_assert_eq!((bench.server.bindings(), bench.server.flows()), (0, 0));
        prop_assert_eq!(bench.server.routes.len(), 0);
    }

    #[test]
    fn arbitrary_datagrams_of_strangers_draw_no_more_than_they_cost(
        bytes in proptest::collection::vec(any::<u8>(), 0..1500), first in 0..5u8,
    ) {
        let mut bench = Bench::new();
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        assert_no_amplification(&mut bench, address(8), &bytes);
        prop_assert_eq!(bench.server.bindings(), 0);
    }

    /// A good Bind with a few bytes changed never binds and never draws more than it cost.
    #[test]
    fn a_bent_bind_binds_nobody(at in 0..240usize, bit in 0..8u32, cut in 0..240usize) {
        let mut bench = Bench::new();
        let sealed = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
        let mut request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce: None, release: false };
        let Some(BindAnswer::Challenge { nonce }) = bench.ask(address(1), &request) else { panic!() };
        request.nonce = Some(nonce);
        let good = request.encode(&SESSION_KEY);
        prop_assert_eq!(good.len(), 240);
        let mut bent = good.clone();
        bent[at] ^= 1 << bit;
        assert_no_amplification(&mut bench, address(1), &bent);
        assert_no_amplification(&mut bench, address(1), &good[..cut]);
        assert_no_amplification(&mut bench, address(2), &good);
        prop_assert_eq!(bench.server.bindings(), 0);
        bench.receive(address(1), &good);
        prop_assert_eq!(bench.server.bindings(), 1);
    }
}
