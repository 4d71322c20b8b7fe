//! STUN Binding: whom it tells what, and at whose expense.

use super::*;
use crate::binding::{binding_request, parse_binding_answer};
use std::net::{IpAddr, Ipv4Addr};

const CHANGE_REQUEST: u16 = 0x0003;
const PADDING: u16 = 0x0026;
const RESPONSE_PORT: u16 = 0x0027;
const RESPONSE_ORIGIN: u16 = 0x802B;
const OTHER_ADDRESS: u16 = 0x802C;

/// A Binding request with these attributes; values of whole words.
pub(super) fn request(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let body: Vec<u8> = attributes
        .iter()
        .flat_map(|(kind, value)| {
            let length = u16::try_from(value.len()).unwrap();
            [&kind.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
        })
        .collect();
    let length = u16::try_from(body.len()).unwrap();
    [&[0, 1], &length.to_be_bytes()[..], &[0x21, 0x12, 0xA4, 0x42], &[7; 12], &body].concat()
}

/// The attributes of a message, by type.
fn attributes(message: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    let mut rest = &message[20..];
    let mut found = BTreeMap::new();
    while let [a, b, c, d, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        found.insert(u16::from_be_bytes([*a, *b]), tail[..length].to_vec());
        rest = &tail[length.next_multiple_of(4)..];
    }
    found
}

/// An address attribute of IPv4 that is not masked.
fn plain(address: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = address.ip() else { panic!("IPv4") };
    [&[0, 1], &address.port().to_be_bytes()[..], &ip.octets()].concat()
}

pub(super) fn alternates() -> Alternates {
    let addresses = vec![
        ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
        ["2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap()],
    ];
    Alternates { ports: Some([3478, 3479]), addresses }
}

/// A relay with two ports and two addresses of each family.
struct Tester {
    server: RelayServer,
    now: Now,
}

impl Tester {
    fn new(alternates: Alternates) -> Self {
        let now = Now { instant: Instant::now(), unix: 1_000_000 };
        let setup = Setup { alternates, ..setup(LIMITS, now.instant) };
        Self { server: RelayServer::new(setup, &mut StdRng::seed_from_u64(1)), now }
    }

    fn ask_at(&mut self, local: &str, remote: SocketAddr, request: &[u8]) -> Option<(Leg, Vec<u8>)> {
        let leg = Leg { local: local.parse().unwrap(), remote };
        self.server.handle_datagram(leg, request, self.now);
        let mut sent = std::iter::from_fn(|| self.server.poll_output()).map(|output| match output {
            Output::Transmit { leg, payload } => (leg, payload),
            other => panic!("{other:?}"),
        });
        let first = sent.next();
        assert!(sent.next().is_none(), "one answer at most");
        first
    }

    fn ask(&mut self, remote: SocketAddr, request: &[u8]) -> Option<(Leg, Vec<u8>)> {
        self.ask_at("192.0.2.1:3478", remote, request)
    }
}

fn client() -> SocketAddr {
    "198.51.100.7:40000".parse().unwrap()
}

fn change(ip: bool, port: bool) -> (u16, Vec<u8>) {
    (CHANGE_REQUEST, vec![0, 0, 0, u8::from(ip) << 2 | u8::from(port) << 1])
}

#[test]
fn a_full_answer_says_where_it_comes_from_and_where_else_it_could() {
    let mut tester = Tester::new(alternates());
    for (local, other) in [
        ("192.0.2.1:3478", "192.0.2.2:3479"),
        ("192.0.2.1:3479", "192.0.2.2:3478"),
        ("192.0.2.2:3478", "192.0.2.1:3479"),
        ("192.0.2.2:3479", "192.0.2.1:3478"),
    ] {
        let (leg, answer) = tester.ask_at(local, client(), &request(&[])).unwrap();
        assert_eq!(leg, Leg { local: local.parse().unwrap(), remote: client() });
        assert_eq!(parse_binding_answer(&answer).unwrap().1, client());
        let found = attributes(&answer);
        assert_eq!(found[&RESPONSE_ORIGIN], plain(local.parse().unwrap()));
        assert_eq!(found[&OTHER_ADDRESS], plain(other.parse().unwrap()));
    }
}

#[test]
fn change_request_chooses_the_origin() {
    let mut tester = Tester::new(alternates());
    for (ip, port, origin) in [
        (false, false, "192.0.2.1:3478"),
        (false, true, "192.0.2.1:3479"),
        (true, false, "192.0.2.2:3478"),
        (true, true, "192.0.2.2:3479"),
    ] {
        let (leg, answer) = tester.ask(client(), &request(&[change(ip, port)])).unwrap();
        assert_eq!(leg, Leg { local: origin.parse().unwrap(), remote: client() });
        assert_eq!(attributes(&answer)[&RESPONSE_ORIGIN], plain(origin.parse().unwrap()));
    }
}

#[test]
fn one_address_is_no_other_address_but_two_ports_are_two() {
    let mut tester = Tester::new(Alternates { ports: Some([3478, 3479]), addresses: vec![] });
    let (_, answer) = tester.ask(client(), &request(&[])).unwrap();
    assert!(!attributes(&answer).contains_key(&OTHER_ADDRESS));
    let (leg, _) = tester.ask(client(), &request(&[change(false, true)])).unwrap();
    assert_eq!(leg.local.port(), 3479);
    let padding = (PADDING, vec![0; 16]);
    let (leg, answer) = tester.ask(client(), &request(&[change(true, false), padding])).unwrap();
    assert_eq!((leg.local.port(), &answer[..2]), (3478, &[0x01, 0x11][..]), "error 420");
    assert!(answer.len() <= 44);
    assert!(tester.ask(client(), &request(&[change(true, false)])).is_none(), "too short for an error");
}

#[test]
fn response_port_changes_only_the_port() {
    let mut tester = Tester::new(alternates());
    let ask = |port: u16| request(&[(RESPONSE_PORT, [port.to_be_bytes(), [0, 0]].concat())]);
    let (leg, answer) = tester.ask(client(), &ask(5555)).unwrap();
    assert_eq!(leg.remote, with_port(client(), 5555));
    assert_eq!(parse_binding_answer(&answer).unwrap().1, client(), "what was asked from");
    assert!(tester.ask(client(), &ask(0)).is_none());
    let own = "192.0.2.1:9".parse().unwrap();
    assert!(tester.ask(own, &ask(3478)).is_none(), "not to the relay itself");
    let mut padded = ask(5555);
    padded.extend([0x80, 0x22, 0x04, 0x00]);
    padded.extend([b' '; 1024]);
    let length = u16::try_from(padded.len() - 20).unwrap();
    padded[2..4].copy_from_slice(&length.to_be_bytes());
    let answered = (0..100).filter(|_| tester.ask(client(), &padded).is_some()).count();
    assert_eq!(answered, 19, "out of the budget, however long the request is");
}

#[test]
fn padding_is_answered_with_padding_and_never_more() {
    let mut tester = Tester::new(alternates());
    for length in [0, 4, 64, 1000, 1400] {
        let asked = request(&[(PADDING, vec![1; length])]);
        let (_, answer) = tester.ask(client(), &asked).unwrap();
        assert!(answer.len() <= asked.len().max(56), "{} for {}", answer.len(), asked.len());
        if length >= 64 {
            assert_eq!(answer.len(), asked.len());
            assert!(attributes(&answer).contains_key(&PADDING));
        }
    }
}

#[test]
fn unpadded_requests_have_a_budget_for_each_network() {
    let mut tester = Tester::new(alternates());
    let (bare, short, long) = (request(&[]), binding_request([1; 12]), request(&[(PADDING, vec![0; 64])]));
    let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 5);
    let answered = |tester: &mut Tester, from: &str| {
        (0..100u8).filter(|_| tester.ask(at(from), &bare).is_some()).count()
    };
    assert_eq!(answered(&mut tester, "198.51.100.7"), 20);
    assert_eq!(answered(&mut tester, "198.51.100.200"), 0, "the same /24");
    assert_eq!(answered(&mut tester, "198.51.101.7"), 20);
    assert_eq!(answered(&mut tester, "2001:db8:0:ff::1"), 20);
    assert_eq!(answered(&mut tester, "2001:db8:0:3::1"), 0, "the same /56");
    assert_eq!(answered(&mut tester, "2001:db8:0:100::1"), 20);
    let (_, answer) = tester.ask(client(), &short).unwrap();
    assert!(answer.len() <= short.len() && !attributes(&answer).contains_key(&OTHER_ADDRESS));
    let (_, answer) = tester.ask(client(), &long).unwrap();
    assert!(attributes(&answer).contains_key(&OTHER_ADDRESS), "long enough needs no budget");
    tester.now = tester.now.after(Duration::from_secs(1));
    assert_eq!(answered(&mut tester, "198.51.100.7"), 5);
    assert!(tester.server.count_of(Reason::StunBudget) > 300);
}

#[test]
fn all_unpadded_requests_together_have_a_budget_in_bounded_memory() {
    let mut tester = Tester::new(alternates());
    let bare = request(&[]);
    let mut answered = [0u32; 2];
    let (mut most, mut bytes) = (0, 0);
    for n in 0..200_000u32 {
        let from = SocketAddr::new(Ipv4Addr::from(0x0B00_0000 + (n << 8)).into(), 7);
        if let Some((_, answer)) = tester.ask(from, &bare) {
            answered[usize::from(n >= 100_000)] += 1;
            bytes += answer.len();
        }
        if n >= 100_000 {
            tester.now = tester.now.after(Duration::from_micros(100));
            tester.now.unix = 1_000_000;
        }
        most = most.max(tester.server.stun_budget.networks());
    }
    assert_eq!(answered[0], 400);
    assert!((1999..=2001).contains(&answered[1]), "ten seconds: {answered:?}");
    assert!(bytes < 2410 * 56 && most <= 4096, "{bytes} bytes, {most} networks");
    for second in 0..60u32 {
        tester.now = tester.now.after(Duration::from_secs(1));
        for n in 0..300 {
            let from = SocketAddr::new(Ipv4Addr::from(0x0B00_0000 + ((second * 300 + n) << 8)).into(), 7);
            tester.ask(from, &bare);
        }
        assert!(tester.server.stun_budget.networks() <= 4096);
    }
    // who has used up the relay's share has not used up anybody's own
    tester.now = tester.now.after(Duration::from_secs(10));
    assert!(tester.ask(client(), &bare).is_some());
}

#[test]
fn ipv6_clients_are_answered_alike() {
    let mut tester = Tester::new(alternates());
    let remote: SocketAddr = "[2001:db8:5::9]:4000".parse().unwrap();
    let (leg, answer) = tester.ask_at("[2001:db8::1]:3478", remote, &request(&[change(true, true)])).unwrap();
    assert_eq!(leg, Leg { local: "[2001:db8::2]:3479".parse().unwrap(), remote });
    assert_eq!((answer.len(), parse_binding_answer(&answer).unwrap().1), (92, remote));
}
