//! What strangers and bad members can not do.

use super::*;
use crate::binding::{Refusal, binding_request, refusal_answer};
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

/// A relay with everything that answers, whose budget for unpadded STUN is used up.
fn exhausted() -> Bench {
    let mut bench = Bench::with_setup(|setup| setup.alternates = super::stun::alternates());
    bench.bind(1);
    for network in 0..100 {
        for _ in 0..20 {
            bench.receive(SocketAddr::from(([203, 0, network, 1], 9)), &stun(1, 20));
        }
    }
    assert!(bench.receive(SocketAddr::from(([203, 0, 200, 1], 9)), &stun(1, 20)).is_empty());
    bench
}

const BIND: u16 = 0x2C00 | (0xB1D & 0x70) << 1 | (0xB1D & 0xF);

#[test]
fn no_length_of_any_message_is_amplified_for_a_stranger() {
    let mut bench = exhausted();
    let strangers = [address(99), "[2001:db8:9::9]:999".parse().unwrap()];
    let attributes = [
        0x001B, 0x8022, 0x0015, 0x000D, 0x0020, 0x0009, 0x001C, 0x7777, 0x0003, 0x0026, 0x0027, 0x802B,
        0x802C,
    ];
    let mut answered = 0;
    for length in 0..=1500 {
        for kind in [0x0001, 0x0101, 0x0111, 0x0011, BIND, BIND | 0x0100, BIND | 0x0110, BIND | 0x0010] {
            for (attribute, stranger) in attributes.iter().flat_map(|a| strangers.map(|s| (*a, s))) {
                let datagram = stun_with(kind, attribute, length);
                answered += usize::from(assert_no_amplification(&mut bench, stranger, &datagram) > 0);
            }
            assert_no_amplification(&mut bench, strangers[0], &stun(kind, length));
        }
        for first in 0..=255 {
            let mut datagram = vec![0; length];
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            assert_eq!(assert_no_amplification(&mut bench, strangers[0], &datagram), 0);
        }
        let probe = [&crate::path::probe::MAGIC[..], &vec![1; length]].concat();
        assert_eq!(assert_no_amplification(&mut bench, strangers[0], &probe), 0);
    }
    assert!(answered > 600, "the enumeration met answers: {answered}");
    assert_eq!(bench.server.bindings(), 1);
}

#[test]
fn no_stun_message_type_but_two_is_answered() {
    let mut bench = exhausted();
    let lengths = (20..=60).step_by(4).chain([92, 148, 240, 576, 1472]);
    for (kind, length) in (0..=u16::MAX).flat_map(|kind| lengths.clone().map(move |length| (kind, length))) {
        for attribute in [0x8022, 0x001B] {
            let out = assert_no_amplification(&mut bench, address(99), &stun_with(kind, attribute, length));
            let may_answer = kind == 1 || (kind == BIND && attribute == 0x001B);
            assert!(may_answer || out == 0, "type {kind:#06x}, {length} bytes");
        }
    }
}

#[test]
fn malformed_requests_draw_nothing() {
    let mut bench = exhausted();
    let good = binding_request([1; 12]);
    assert_eq!(bench.receive(address(9), &good).len(), 1);
    let mut bad: Vec<Vec<u8>> = (0..good.len()).map(|cut| good[..cut].to_vec()).collect();
    bad.extend((1..9).map(|more| [&good[..], &vec![0; more]].concat()));
    for at in 2..8 {
        let mut bent = good.clone();
        bent[at] ^= 0x81;
        bad.push(bent);
    }
    let mut overrun = good.clone();
    overrun[23] = 200;
    bad.push(overrun);
    for kind in [0x0002, 0x0006, 0x7FFF] {
        let mut required = good.clone();
        required[20..22].copy_from_slice(&u16::to_be_bytes(kind));
        bad.push(required);
    }
    for datagram in bad {
        assert!(bench.receive(address(9), &datagram).is_empty(), "{datagram:02x?}");
    }
}

#[test]
fn short_requests_have_a_budget_or_get_nothing() {
    let mut bench = Bench::new();
    let request = BindRequest { transaction: TRANSACTION, ticket: vec![0; 8], nonce: None, release: false };
    assert!(bench.receive(address(1), &request.encode(&SESSION_KEY)).is_empty());
    assert_eq!(bench.count(Reason::StunShort), 1);
    let answered = (0..50).filter(|_| !bench.receive(address(1), &stun(1, 20)).is_empty()).count();
    assert_eq!((answered, bench.count(Reason::StunBudget)), (20, 30));
}

/// Everything that a relay ever sends of its own.
fn own_messages(bench: &mut Bench) -> Vec<Vec<u8>> {
    let sealed = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let mut request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce: None, release: false };
    let mut messages = Vec::new();
    let mut take = |bench: &mut Bench, bytes: &[u8]| {
        let sent = bench.receive(address(1), bytes);
        messages.extend(sent.into_iter().map(|(_, payload)| payload));
        messages.last().cloned().unwrap()
    };
    let challenge = take(bench, &request.encode(&SESSION_KEY));
    let Some((_, BindAnswer::Challenge { nonce })) = parse_answer(&challenge) else { panic!() };
    request.nonce = Some(nonce);
    take(bench, &request.encode(&SESSION_KEY));
    take(bench, &binding_request([1; 12]));
    take(bench, &super::stun::request(&[(0x0026, vec![0; 80])]));
    take(bench, &super::stun::request(&[(0x0003, vec![0, 0, 0, 6])]));
    for refusal in [Refusal::OldEpoch, Refusal::RelayFull, Refusal::TicketExpired, Refusal::PartyFull] {
        messages.push(refusal_answer([1; 12], refusal, Some(&SESSION_KEY)));
        messages.push(refusal_answer([1; 12], refusal, None));
    }
    messages.push(crate::binding::unable_answer([1; 12]));
    assert!(messages.len() >= 14);
    messages
}

#[test]
fn answers_of_relays_are_never_answered() {
    let mut bench = Bench::with_setup(|setup| {
        setup.alternates = super::stun::alternates();
        setup.own.push("198.51.100.200:3478".parse().unwrap());
    });
    let messages = own_messages(&mut bench);
    let own = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479", "198.51.100.200:3478"];
    let own_v6 = ["[2001:db8::1]:3478", "[2001:db8::1]:3479", "[2001:db8::2]:3478", "[2001:db8::2]:3479"];
    let own = || own.iter().chain(&own_v6).map(|text| text.parse::<SocketAddr>().unwrap());
    let mut other = Bench::with_setup(|setup| setup.ticket_key = [1; 32]);
    for message in &messages {
        for from in own() {
            assert!(bench.receive(from, message).is_empty(), "from itself");
        }
        assert!(bench.receive(address(2), message).is_empty(), "from another relay");
        assert!(other.receive(relay_address(), message).is_empty());
    }
    // nor anything else that claims to come from itself, requests included
    let before = bench.count(Reason::BadSource);
    let requests =
        [binding_request([1; 12]), initiation(1, 1), data(1), probe_to(1), vec![0; 30], stun(1, 20)];
    for (from, request) in own().flat_map(|from| requests.iter().map(move |request| (from, request))) {
        assert!(bench.receive(from, request).is_empty());
    }
    assert_eq!(bench.count(Reason::BadSource) - before, 9 * 6);
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

/// Fewer where every integer operation is checked.
const MANY: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

fn stranger(n: u32) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::from(0x0B00_0000 + n * 37).into(), 1000)
}

#[test]
fn spoofed_binds_leave_no_state() {
    let mut bench = Bench::new();
    bench.bind(1);
    let sealed = bench.ticket(2).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let mut request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce: None, release: false };
    let Some(BindAnswer::Challenge { nonce }) = bench.ask(address(2), &request) else { panic!() };
    let without = request.encode(&SESSION_KEY);
    request.nonce = Some(nonce);
    let with_another_sources = request.encode(&SESSION_KEY);
    request.release = true;
    let release = request.encode(&SESSION_KEY);
    for n in 0..MANY {
        let bytes = [&without, &with_another_sources, &release][n as usize % 3];
        let sent = bench.receive(stranger(n), bytes);
        assert!(sent.len() <= 1 && sent.iter().all(|(_, payload)| payload.len() <= bytes.len()));
        bench.log.clear();
    }
    assert_eq!((bench.server.bindings(), bench.server.routes.len(), bench.records.len()), (1, 0, 1));
    assert_eq!(bench.server.stun_budget.networks(), 0);
    let answered = bench.count(Reason::BindStaleNonce) + bench.count(Reason::BindChallenged);
    assert_eq!(answered, u64::from(MANY) + 2, "and the two of the honest");
}

#[test]
fn strangers_neither_use_nor_move_a_session() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    bench.handshake(1, 10, 2, 20);
    let (installed, records) = (bench.installed.clone(), bench.records.clone());
    let attempts = [data(10), data(20), cookie(20), response(21, 10, 1), initiation(30, 2), probe_to(2)];
    bench.log.clear();
    for n in 0..MANY {
        let datagram = &attempts[n as usize % attempts.len()];
        assert!(bench.receive(stranger(n), datagram).is_empty());
        assert_eq!(bench.route(stranger(n), &data(20)), None);
    }
    // the right address, another port; the right port, another address
    for port in (1..=u16::MAX).filter(|port| *port != address(1).port()) {
        assert_eq!(bench.route(with_port(address(1), port), &data(20)), None);
    }
    assert_eq!(bench.log, []);
    assert_eq!((bench.server.routes.len(), &bench.records), (2, &records));
    assert_eq!(bench.installed, installed);
    bench.assert_same_as_data_path();
}

#[test]
fn a_member_that_wants_everything_gets_its_share() {
    let mut bench = Bench::with_limits(Limits { members: 300, flows: 4000, ..LIMITS });
    for member in 1..=100 {
        bench.bind(member);
    }
    bench.handshake(1, 1, 2, 2);
    for n in 0..100_000u32 {
        let to = u8::try_from(n % 98).unwrap() + 3;
        bench.receive(address(200), &initiation(n, to));
        bench.receive(address(3), &initiation(n << 8, to));
        if n % 1000 == 0 {
            bench.pass(Duration::from_millis(10));
        }
    }
    // four handshakes open with each of 97
    assert!(bench.server.routes.len() <= 2 + 4 * 97, "{}", bench.server.routes.len());
    assert!(bench.count(Reason::BudgetSource) > 90_000);
    bench.handshake(4, 11, 5, 12);
    assert_eq!(bench.server.flows(), 4);
    bench.assert_same_as_data_path();
}

#[test]
fn a_party_that_wants_everything_gets_its_share() {
    let limits = Limits { members: 100, flows: 100, party_members: 20, party_flows: 10 };
    let mut bench = Bench::with_limits(limits);
    let elsewhere = |bench: &mut Bench, member: u8| {
        let ticket = Ticket { party: OTHER_PARTY, ..bench.ticket(member) };
        bench.bind_with(address(member), &ticket)
    };
    for member in 101..=102 {
        assert!(matches!(elsewhere(&mut bench, member), Some(BindAnswer::Bound { .. })));
    }
    for member in 1..=20 {
        bench.bind(member);
    }
    let ticket = bench.ticket(21);
    assert_eq!(bench.bind_with(address(21), &ticket), Some(BindAnswer::Refused(Refusal::PartyFull)));
    bench.bind(20);
    for pair in 0..5u8 {
        bench.handshake(2 * pair + 1, 10, 2 * pair + 2, 20);
    }
    assert!(bench.receive(address(11), &initiation(10, 12)).is_empty());
    assert_eq!((bench.count(Reason::PartyFull), bench.server.flows()), (1, 10));
    bench.handshake(101, 5, 102, 6);
    bench.assert_same_as_data_path();
    for member in 1..=20 {
        bench.pass(Duration::from_secs(1));
        let sealed = bench.ticket(member).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
        let mut release =
            BindRequest { transaction: TRANSACTION, ticket: sealed, nonce: None, release: true };
        let Some(BindAnswer::Challenge { nonce }) = bench.ask(address(member), &release) else { panic!() };
        release.nonce = Some(nonce);
        bench.ask(address(member), &release);
    }
    assert_eq!((bench.server.bindings(), bench.server.flows()), (2, 2));
    for member in 31..=50 {
        bench.bind(member);
    }
    bench.handshake(31, 10, 32, 20);
    assert_eq!(bench.server.flows(), 4, "what a party gives back it may use again");
}

#[test]
fn a_full_relay_refuses_the_new_and_keeps_the_old() {
    let mut bench = Bench::with_limits(Limits { members: 50, ..LIMITS });
    for member in 1..=50 {
        bench.bind(member);
    }
    bench.handshake(1, 10, 2, 20);
    let before = bench.installed.clone();
    for n in 0..2000u32 {
        let member = WgKey(std::array::from_fn(|at| if at < 4 { n.to_be_bytes()[at] } else { 9 }));
        let ticket = Ticket { member, ..bench.ticket(0) };
        let refused = bench.bind_with(stranger(n), &ticket);
        assert_eq!(refused, Some(BindAnswer::Refused(Refusal::RelayFull)));
        if n % 20 == 0 {
            (1..=50).for_each(|member| bench.bind(member));
        }
    }
    assert_eq!((bench.server.bindings(), &bench.installed), (50, &before));
    bench.assert_same_as_data_path();
}

fn refused(refusal: Refusal) -> Option<BindAnswer> {
    Some(BindAnswer::Refused(refusal))
}

#[test]
fn tickets_are_good_for_one_member_of_one_party_at_one_relay_for_their_time() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    bench.handshake(1, 10, 2, 20);
    let good = bench.ticket(3);
    let seal = |ticket: &Ticket, key: [u8; 32]| ticket.seal(&key, &mut StdRng::seed_from_u64(3));
    let relays = seal(&good, [7; 32]);
    assert_eq!(bench.try_bind(address(3), &relays), refused(Refusal::WrongRelay), "another relay's");
    let unix = bench.now.unix;
    for expires in [0, unix - 600, unix, unix + 661, u64::MAX] {
        let ticket = Ticket { expires, ..good.clone() };
        let answer = bench.bind_with(address(3), &ticket);
        assert_eq!(answer, refused(Refusal::TicketExpired), "until {expires}");
    }
    let sealed = seal(&good, TICKET_KEY);
    for bit in 0..sealed.len() * 8 {
        let mut bent = sealed.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(bench.try_bind(address(3), &bent), refused(Refusal::WrongRelay), "bit {bit}");
    }
    for length in [0, 1, 64, 140, 142, 300] {
        let mut cut = sealed.clone();
        cut.resize(length, 0);
        assert!(!matches!(bench.try_bind(address(3), &cut), Some(BindAnswer::Bound { .. })));
    }
    assert_eq!(bench.server.bindings(), 2);

    // another party's: bound there, and nowhere near this one
    let elsewhere = Ticket { party: OTHER_PARTY, ..good.clone() };
    assert!(matches!(bench.bind_with(address(3), &elsewhere), Some(BindAnswer::Bound { .. })));
    for datagram in [initiation(1, 1), response(1, 10, 1), cookie(20), data(20), data(10), probe_to(1)] {
        assert!(bench.receive(address(3), &datagram).is_empty());
    }
    // another member's: without its session key it binds nobody
    let mut stolen = BindRequest {
        transaction: TRANSACTION,
        ticket: seal(&bench.ticket(2), TICKET_KEY),
        nonce: None,
        release: false,
    };
    let Some(BindAnswer::Challenge { nonce }) = bench.ask(address(4), &stolen) else { panic!() };
    stolen.nonce = Some(nonce);
    for release in [false, true] {
        stolen.release = release;
        let sent = bench.receive(address(4), &stolen.encode(&[0; 32]));
        assert_eq!(parse_answer(&sent[0].1).unwrap().1, BindAnswer::Refused(Refusal::BadIntegrity));
    }
    assert_eq!(bench.server.bindings(), 3);
    bench.assert_same_as_data_path();
}

#[test]
fn a_ticket_of_an_old_epoch_is_void_even_where_it_was_bound() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    let old = bench.ticket(2);
    let newer = Ticket { epoch: 2, ..bench.ticket(1) };
    bench.bind_with(address(1), &newer);
    assert_eq!(bench.bind_with(address(2), &old), refused(Refusal::OldEpoch));
    assert_eq!(bench.bind_with(address(9), &old), refused(Refusal::OldEpoch));
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.server.bindings(), 1);
    assert_eq!(bench.bind_with(address(2), &old), refused(Refusal::OldEpoch));
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
