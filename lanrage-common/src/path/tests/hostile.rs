//! Forged, replayed and excessive input to one agent.

use super::secs;
use crate::path::announce::{AnnouncedRelay, Announcement};
use crate::path::candidate::{Candidate, CandidateKind};
use crate::path::probe::{Direction, Kind, Probe};
use crate::path::*;
use proptest::prelude::*;

/// One agent with one member whose keys the test holds.
struct Bench {
    agent: PathAgent,
    now: Now,
    secret: PartySecret,
}

const ME: WgKey = WgKey([1; 32]);
const FRIEND: WgKey = WgKey([2; 32]);
const PARTY: PartyId = PartyId([1; 16]);
const RELAY_ADDRESS: &str = "192.0.2.1:3478";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Bench {
    fn new() -> Self {
        let secret = PartySecret::from([7; 32]);
        let subnet = "10.66.0.0/16".parse().unwrap();
        let config = Config { me: ME, party: PARTY, secret: secret.clone(), subnet, mtu: 1420 };
        let now = Now { instant: Instant::now(), unix: 1_800_000_000 };
        let mut agent = PathAgent::new(config, rand_core::OsRng);
        agent.set_local_candidates(vec![address("192.168.1.2:4001")], now);
        agent.handle_bound("home", address(RELAY_ADDRESS), address("203.0.113.1:4001"), None, now);
        agent.add_member(FRIEND, now);
        Self { agent, now, secret }
    }

    fn announce(&mut self, number: u32, candidates: &[&str]) {
        let body = self.announcement(77, number, candidates);
        self.agent.handle_signal(FRIEND, &body, self.now);
    }

    fn announcement(&self, session: u64, number: u32, candidates: &[&str]) -> String {
        let candidate = |text: &&str| Candidate { kind: CandidateKind::Host, address: address(text) };
        self.sealed(session, number, candidates.iter().map(candidate).collect())
    }

    fn sealed(&self, session: u64, number: u32, candidates: Vec<Candidate>) -> String {
        let relays = vec![AnnouncedRelay { name: "home".into(), leg: Leg::default(), is_bound: true }];
        let announcement = Announcement {
            session,
            number,
            your_session: 0,
            heard: 0,
            relays,
            wish: (None, None),
            candidates,
            nat: Default::default(),
        };
        announcement.seal(&self.secret.signal_key(&PARTY, &FRIEND, &ME), [9; 12])
    }

    fn seal(&self, probe: &Probe) -> Vec<u8> {
        let key = self.secret.probe_key(&PARTY, &FRIEND, &ME);
        probe.seal(Direction { from: probe::tag(&FRIEND), to: probe::tag(&ME), key: &key }, [3; 12])
    }

    fn ping(&self, your_session: u64, sequence: u64) -> Vec<u8> {
        let kind = Kind::Ping;
        self.seal(&Probe { kind, session: 77, your_session, sequence, heard: 0, flags: 0, observed: None })
    }

    /// All probes that leave within `time`, opened as the friend would.
    fn run(&mut self, time: Duration) -> Vec<(SocketAddr, Probe)> {
        let key = self.secret.probe_key(&PARTY, &ME, &FRIEND);
        let until = self.now.instant + time;
        let mut sent = Vec::new();
        loop {
            while let Some(output) = self.agent.poll_output() {
                if let Output::Transmit { to, payload } = output {
                    sent.push((to, Probe::open(&payload, &key).expect("the friend can open it")));
                }
            }
            let Some(due) = self.agent.poll_timeout().filter(|due| *due <= until) else { break };
            self.now.instant = self.now.instant.max(due);
            self.agent.handle_timeout(self.now);
        }
        self.now.instant = until;
        sent
    }

    fn session(&mut self) -> u64 {
        self.run(secs(1)).last().expect("relay probes").1.session
    }

    fn count(&self, name: &str) -> u64 {
        self.agent.counters().get(name).copied().unwrap_or_default()
    }
}

#[test]
fn forbidden_candidates_are_never_probed() {
    let mut bench = Bench::new();
    let forbidden = [
        "127.0.0.1:4001",
        "0.0.0.0:4001",
        "224.0.0.1:4001",
        "255.255.255.255:4001",
        "10.66.0.9:4001",
        RELAY_ADDRESS,
        "192.168.1.2:4001",
        "[2001:db8::1]:4001",
    ];
    bench.announce(1, &forbidden);
    let sent = bench.run(secs(100));
    assert!(sent.iter().all(|(to, _)| *to == address(RELAY_ADDRESS)), "only the relay is probed");
    for reason in ["loopback", "reserved", "multicast", "broadcast", "overlay", "relay", "own", "no_ipv6"] {
        assert_eq!(bench.count(&format!("candidate_{reason}")), 1, "{reason}");
    }
}

#[test]
fn a_relay_that_lost_its_binding_is_no_address_of_a_member() {
    let mut bench = Bench::new();
    bench.announce(1, &[]);
    let session = bench.session();
    bench.agent.handle_unbound("home", bench.now);
    let late = bench.ping(session, 1);
    assert!(bench.agent.handle_datagram(address(RELAY_ADDRESS), &late, bench.now));
    bench.agent.handle_tunnel_rx(&FRIEND, address(RELAY_ADDRESS), bench.now);
    let sent = bench.run(secs(20));
    let pings: Vec<_> = sent.iter().filter(|(_, probe)| probe.kind == Kind::Ping).collect();
    assert_eq!((pings.len(), bench.count("candidate_relay")), (0, 2), "{pings:?}");
    bench.agent.handle_bound("home", address(RELAY_ADDRESS), address("203.0.113.1:4001"), None, bench.now);
    let ping = bench.run(secs(1)).into_iter().find(|(_, probe)| probe.kind == Kind::Ping);
    assert_eq!(ping.map(|(to, _)| to), Some(address(RELAY_ADDRESS)), "as a relay it is probed again");
}

#[test]
fn strangers_are_not_probed_whatever_a_member_announces() {
    let mut bench = Bench::new();
    let mapped = ["198.51.100.9:4001", "198.51.100.200:1", "192.0.2.77:9", "100.64.9.9:53"];
    let candidate = |(n, text): (usize, &&str)| Candidate {
        kind: if n == 0 { CandidateKind::Mapped } else { CandidateKind::Host },
        address: address(text),
    };
    let candidates: Vec<_> = mapped.iter().enumerate().map(candidate).collect();
    let body = bench.sealed(77, 1, candidates);
    bench.agent.handle_signal(FRIEND, &body, bench.now);
    // a private address of this device's own network may be a neighbour's
    let near = Candidate { kind: CandidateKind::Host, address: address("192.168.1.99:4001") };
    let directed = Candidate { kind: CandidateKind::Host, address: address("192.168.1.255:4001") };
    let seen = Candidate { kind: CandidateKind::Mapped, address: address("198.51.100.9:4001") };
    let far = Candidate { kind: CandidateKind::Host, address: address("10.1.2.3:4001") };
    let body = bench.sealed(77, 2, vec![near, directed, seen, far]);
    let first = bench.run(secs(2));
    bench.agent.handle_signal(FRIEND, &body, bench.now);
    let sent = [first, bench.run(secs(20))].concat();
    let goals: std::collections::BTreeSet<_> = sent.iter().map(|(to, _)| to.to_string()).collect();
    let allowed = [RELAY_ADDRESS, "198.51.100.9:4001", "198.51.100.200:1", "192.168.1.99:4001"];
    assert_eq!(goals, allowed.map(str::to_owned).into());
    let counts =
        ["foreign", "private", "broadcast"].map(|reason| bench.count(&format!("candidate_{reason}")));
    assert_eq!(counts, [1, 2, 1]);
}

#[test]
fn candidates_are_capped_and_replaced() {
    let mut bench = Bench::new();
    let many: Vec<String> = (0..8).map(|n| format!("198.51.100.{n}:4001")).collect();
    for number in 1..20u32 {
        let list: Vec<String> =
            many.iter().map(|a| a.replace(":4001", &format!(":{}", 4000 + number))).collect();
        bench.announce(number, &list.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let targets: std::collections::BTreeSet<_> = bench.run(secs(5)).into_iter().map(|(to, _)| to).collect();
    assert_eq!(targets.len(), 1 + 8, "the relay and the newest eight");
}

#[test]
fn a_member_that_announces_ever_new_victims_stays_within_the_budget() {
    let mut bench = Bench::new();
    let mut sent = 0;
    for number in 1..1000u32 {
        let list: Vec<String> =
            (0..8).map(|n| format!("198.51.{}.{}:4001", number % 250, n + number / 250 * 8 + 1)).collect();
        bench.announce(number, &list.iter().map(String::as_str).collect::<Vec<_>>());
        sent += bench
            .run(Duration::from_millis(10))
            .iter()
            .filter(|(to, _)| *to != address(RELAY_ADDRESS))
            .count();
    }
    assert!(sent <= 8 * 5 * 20, "{sent} probes in 10 s to four or five networks");
    assert!(bench.count("candidate_moves") > 900 && bench.count("candidate_foreign") == 0);
}

#[test]
fn only_fresh_authentic_pings_are_answered_and_only_once() {
    let mut bench = Bench::new();
    bench.announce(1, &["198.51.100.9:4001"]);
    let session = bench.session();
    let from = address("198.51.100.9:4001");
    let pongs = |bench: &mut Bench| {
        let sent = bench.run(Duration::ZERO);
        sent.into_iter().filter(|(_, probe)| probe.kind == Kind::Pong).collect::<Vec<_>>()
    };

    let good = bench.ping(session, 1);
    bench.agent.handle_datagram(from, &good, bench.now);
    let answer = pongs(&mut bench);
    assert_eq!((answer.len(), answer[0].0, answer[0].1.observed), (1, from, Some(from)));

    for bad in [good.clone(), bench.ping(session - 1, 2), bench.ping(0, 3), good[..good.len() - 1].to_vec()] {
        assert!(bench.agent.handle_datagram(from, &bad, bench.now));
        assert_eq!(pongs(&mut bench), []);
    }
    assert_eq!(
        (bench.count("ping_replayed"), bench.count("ping_stale"), bench.count("probe_forged")),
        (1, 2, 1)
    );
}

#[test]
fn replays_from_elsewhere_add_no_address() {
    let mut bench = Bench::new();
    bench.announce(1, &["198.51.100.9:4001"]);
    let session = bench.session();
    let ping = bench.ping(session, 1);
    bench.agent.handle_datagram(address("198.51.100.9:4001"), &ping, bench.now);
    for n in 0..200 {
        bench.agent.handle_datagram(SocketAddr::new([100, 64, 1, n].into(), 9), &ping, bench.now);
    }
    let sent = bench.run(secs(5));
    assert!(sent.iter().all(|(to, _)| to.ip() != address("100.64.1.0:9").ip() && to.port() != 9));
}

#[test]
fn an_authentic_ping_flood_is_answered_within_a_budget() {
    let mut bench = Bench::new();
    bench.announce(1, &["198.51.100.9:4001"]);
    let session = bench.session();
    for sequence in 1..1000 {
        let ping = bench.ping(session, sequence);
        bench.agent.handle_datagram(address("198.51.100.9:4001"), &ping, bench.now);
    }
    let pongs = bench.run(Duration::ZERO).iter().filter(|(_, probe)| probe.kind == Kind::Pong).count();
    assert_eq!((pongs, bench.count("pong_budget")), (64, 999 - 64));
}

#[test]
fn unasked_and_misdirected_pongs_prove_nothing() {
    let mut bench = Bench::new();
    bench.announce(1, &["198.51.100.9:4001"]);
    let sent = bench.run(secs(1));
    let (to, ping) = *sent.iter().find(|(to, _)| *to == address("198.51.100.9:4001")).unwrap();
    let pong = Probe { kind: Kind::Pong, session: 77, your_session: ping.session, observed: None, ..ping };
    let sealed = bench.seal(&pong);
    bench.agent.handle_datagram(address("198.51.100.8:4001"), &sealed, bench.now);
    assert_eq!((bench.count("pong_received"), bench.count("pong_unasked")), (0, 1));
    bench.agent.handle_datagram(to, &sealed, bench.now);
    bench.agent.handle_datagram(to, &sealed, bench.now);
    assert_eq!((bench.count("pong_received"), bench.count("pong_unasked")), (1, 2));
}

#[test]
fn replayed_and_forged_signals_change_nothing() {
    let mut bench = Bench::new();
    let first = bench.announcement(77, 1, &["198.51.100.9:4001"]);
    let second = bench.announcement(77, 2, &["198.51.100.10:4001"]);
    let older = bench.announcement(76, 9, &["198.51.100.11:4001"]);
    bench.agent.handle_signal(FRIEND, &first, bench.now);
    bench.agent.handle_signal(FRIEND, &second, bench.now);
    for body in [first.as_str(), second.as_str(), older.as_str(), "", "AAAA", &second[..40]] {
        bench.agent.handle_signal(FRIEND, body, bench.now);
    }
    bench.agent.handle_signal(WgKey([5; 32]), &second, bench.now);
    assert_eq!((bench.count("signal_accepted"), bench.count("signal_replayed")), (2, 3));
    assert_eq!((bench.count("signal_forged"), bench.count("signal_of_stranger")), (3, 1));
    let sent = bench.run(secs(3));
    assert!(sent.iter().all(|(to, _)| [RELAY_ADDRESS, "198.51.100.10:4001"].map(address).contains(to)));
}

#[test]
fn tunnel_data_from_a_new_address_makes_a_candidate() {
    let mut bench = Bench::new();
    bench.announce(1, &[]);
    bench.agent.handle_tunnel_rx(&FRIEND, address("198.51.100.9:777"), bench.now);
    assert!(bench.run(secs(1)).iter().any(|(to, _)| *to == address("198.51.100.9:777")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever arrives, nothing panics, nothing but probes is taken, and nothing leaves for where it came from.
    #[test]
    fn garbage_is_counted_and_forgotten(
        datagrams in proptest::collection::vec((any::<[u8; 4]>(), proptest::collection::vec(any::<u8>(), 0..160), 0u8..4), 0..40),
    ) {
        let mut bench = Bench::new();
        bench.announce(1, &["198.51.100.9:4001"]);
        let session = bench.session();
        let honest = bench.ping(session, 5);
        for (from, mut bytes, shape) in datagrams {
            match shape {
                0 => {}
                1 => bytes.splice(0..0, probe::MAGIC).for_each(drop),
                2 => bytes.splice(0..0, honest[..36].iter().copied()).for_each(drop),
                _ => {
                    let mut bent = honest.clone();
                    let at = bytes.first().map_or(0, |b| usize::from(*b) % bent.len());
                    bent[at] ^= 1 << (bytes.len() % 8);
                    bytes = bent;
                }
            }
            let taken = bench.agent.handle_datagram(SocketAddr::new(from.into(), 9), &bytes, bench.now);
            prop_assert_eq!(taken, probe::is_probe(&bytes));
        }
        let sent = bench.run(secs(2));
        prop_assert!(sent.iter().all(|(to, _)| [RELAY_ADDRESS, "198.51.100.9:4001"].map(address).contains(to)));
    }

    #[test]
    fn any_signal_text_is_survived(body in "\\PC{0,400}") {
        let mut bench = Bench::new();
        bench.agent.handle_signal(FRIEND, &body, bench.now);
        prop_assert_eq!(bench.count("signal_forged"), 1);
    }
}
