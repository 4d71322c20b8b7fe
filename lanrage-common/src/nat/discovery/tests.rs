use super::*;
use crate::binding::{FullAnswer, full_answer, unable_answer};
use crate::nat::Mapping;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const PORT: u16 = 40_000;

/// A NAT by the book, and the servers behind it.
struct World {
    mapping: Mapping,
    filtering: Filtering,
    allocation: Allocation,
    has_hairpin: bool,
    /// Where servers listen; the second address and port of the first, if it has any.
    servers: Vec<SocketAddr>,
    other: Option<SocketAddr>,
    has_other_port: bool,
    /// One of so many packets is lost, 0 = none.
    loses: u64,
    is_blocked: bool,
    mappings: BTreeMap<(u16, Option<IpAddr>, Option<u16>), u16>,
    sent: BTreeSet<(u16, SocketAddr)>,
    next: u16,
    seed: u64,
}

impl World {
    fn new(mapping: Mapping, filtering: Filtering, allocation: Allocation) -> Self {
        Self {
            mapping,
            filtering,
            allocation,
            has_hairpin: true,
            servers: vec!["192.0.2.6:3478".parse().unwrap()],
            other: Some("192.0.2.10:3479".parse().unwrap()),
            has_other_port: true,
            loses: 0,
            is_blocked: false,
            mappings: BTreeMap::new(),
            sent: BTreeSet::new(),
            next: 20_000,
            seed: 1,
        }
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }

    fn is_lost(&mut self) -> bool {
        self.loses > 0 && self.random().is_multiple_of(self.loses)
    }

    fn outside(port: u16) -> SocketAddr {
        SocketAddr::new([203, 0, 113, 9].into(), port)
    }

    fn map(&mut self, local: u16, to: SocketAddr) -> u16 {
        let key = match self.mapping {
            Mapping::EndpointIndependent => (local, None, None),
            Mapping::AddressDependent => (local, Some(to.ip()), None),
            Mapping::AddressAndPortDependent => (local, Some(to.ip()), Some(to.port())),
        };
        if let Some(port) = self.mappings.get(&key) {
            return *port;
        }
        let port = match self.allocation {
            Allocation::Preserving if !self.mappings.values().any(|port| *port == local) => local,
            Allocation::Step(step) => {
                self.next = self.next.wrapping_add_signed(step);
                self.next
            }
            Allocation::Preserving | Allocation::Random => 1024 + (self.random() % 60_000) as u16,
        };
        self.mappings.insert(key, port);
        port
    }

    fn lets_in(&self, outside: u16, from: SocketAddr) -> bool {
        self.sent.iter().filter(|(port, _)| *port == outside).any(|(_, to)| match self.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => to.ip() == from.ip(),
            Filtering::AddressAndPortDependent => *to == from,
        })
    }

    /// The answer and where it comes from.
    fn serve(&self, at: SocketAddr, seen: SocketAddr, payload: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let primary = self.servers[0];
        let mut places = self.servers.clone();
        if let Some(other) = self.other {
            places.extend([other, SocketAddr::new(other.ip(), primary.port())]);
        }
        if self.has_other_port {
            places.push(SocketAddr::new(primary.ip(), 3479));
        }
        if !places.contains(&at) {
            return None;
        }
        let Some(Request::Binding(request)) = parse_request(payload) else { panic!("not a request") };
        let swapped_port = if at.port() == 3479 { 3478 } else { 3479 };
        let swapped_ip =
            self.other.map(|other| if at.ip() == other.ip() { primary.ip() } else { other.ip() });
        let ip = if request.change_ip { swapped_ip } else { Some(at.ip()) };
        let port =
            if request.change_port { self.has_other_port.then_some(swapped_port) } else { Some(at.port()) };
        let (Some(ip), Some(port)) = (ip, port) else {
            return Some((at, unable_answer(request.transaction)));
        };
        // a kernel program tells no more than the address, unless there is a second one to name
        let is_for_tester = payload[20..22] == [0, 3];
        let answer = FullAnswer {
            transaction: request.transaction,
            mapped: seen,
            origin: (self.has_other_port && (is_for_tester || self.other.is_some()))
                .then_some(SocketAddr::new(ip, port)),
            other: swapped_ip.map(|ip| SocketAddr::new(ip, swapped_port)),
        };
        let answer = full_answer(&answer, None);
        assert!(answer.len() <= payload.len(), "no relay answers more than it was asked with");
        Some((SocketAddr::new(ip, port), answer))
    }

    fn run(&mut self) -> Discovery {
        let mut now = Now { instant: Instant::now(), unix: 0 };
        let local = vec![SocketAddr::new([192, 168, 1, 5].into(), PORT)];
        let mut discovery = Discovery::new(&self.servers, local, rand_core::OsRng, now);
        loop {
            while let Some(transmit) = discovery.poll_output() {
                let Some((via, payload)) = self.deliver(&transmit) else { continue };
                now = now.after(Duration::from_millis(1));
                assert!(discovery.handle_datagram(via, &payload, now));
            }
            let Some(due) = discovery.poll_timeout() else { return discovery };
            now.instant = due.max(now.instant);
            discovery.handle_timeout(now);
        }
    }

    fn deliver(&mut self, transmit: &Transmit) -> Option<(Via, Vec<u8>)> {
        if self.is_blocked || self.is_lost() {
            return None;
        }
        let local = match transmit.via {
            Via::Tunnel => PORT,
            Via::Spare(at) => PORT + 1 + at as u16,
        };
        let outside = self.map(local, transmit.to);
        self.sent.insert((outside, transmit.to));
        let seen = Self::outside(outside);
        if transmit.to.ip() == seen.ip() {
            return self.has_hairpin.then(|| (transmit.via, transmit.payload.clone()));
        }
        let (from, answer) = self.serve(transmit.to, seen, &transmit.payload)?;
        (self.lets_in(outside, from) && !self.is_lost()).then_some((transmit.via, answer))
    }
}

const MAPPINGS: [Mapping; 3] =
    [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
const FILTERINGS: [Filtering; 3] =
    [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
const ALLOCATIONS: [Allocation; 3] = [Allocation::Preserving, Allocation::Step(2), Allocation::Random];

#[test]
fn every_kind_of_nat_is_told_by_a_server_with_two_addresses() {
    for mapping in MAPPINGS {
        for filtering in FILTERINGS {
            for allocation in ALLOCATIONS {
                for has_hairpin in [false, true] {
                    let mut world = World { has_hairpin, ..World::new(mapping, filtering, allocation) };
                    let found = world.run().behaviour().clone();
                    let case = format!("{mapping:?} {filtering:?} {allocation:?} {found:?}");
                    assert_eq!(found.udp_blocked, Some(false), "{case}");
                    assert_eq!(found.is_public, Some(false), "{case}");
                    assert_eq!(found.public_address, Some([203, 0, 113, 9].into()), "{case}");
                    assert_eq!(found.mapping, Some(mapping), "{case}");
                    assert_eq!(found.filtering, Some(filtering), "{case}");
                    assert_eq!(found.hairpin, Some(has_hairpin), "{case}");
                    assert_eq!(found.allocation, Some(allocation), "{case}");
                }
            }
        }
    }
}

#[test]
fn one_address_with_two_ports_tells_what_matters() {
    for allocation in ALLOCATIONS {
        for filtering in FILTERINGS {
            let found = |mapping| {
                let mut world = World { other: None, ..World::new(mapping, filtering, allocation) };
                world.run().behaviour().clone()
            };
            let friendly = found(Mapping::EndpointIndependent);
            assert_eq!(friendly.mapping, Some(Mapping::EndpointIndependent));
            let hidden = found(Mapping::AddressDependent);
            assert_eq!(hidden.mapping, Some(Mapping::EndpointIndependent), "one address cannot tell");
            assert_eq!(
                [friendly.allocation, hidden.allocation],
                [Some(allocation); 2],
                "but the rule of ports shows"
            );
            let symmetric = found(Mapping::AddressAndPortDependent);
            assert_eq!(symmetric.mapping, Some(Mapping::AddressAndPortDependent));
            assert_eq!(symmetric.allocation == Some(Allocation::Step(2)), allocation == Allocation::Step(2));
            // a second port alone does not tell endpoint-independent from address-dependent filtering
            let expected = filtering.max(Filtering::AddressDependent);
            assert_eq!((friendly.filtering, symmetric.filtering), (Some(expected), Some(expected)));
        }
    }
}

#[test]
fn two_servers_without_rfc_5780_tell_the_mapping() {
    let second = "198.51.100.7:3478".parse().unwrap();
    for mapping in MAPPINGS {
        let mut world = World::new(mapping, Filtering::EndpointIndependent, Allocation::Random);
        world.servers.push(second);
        (world.other, world.has_other_port) = (None, false);
        let found = world.run().behaviour().clone();
        let expected = if mapping == Mapping::EndpointIndependent { mapping } else { MAPPINGS[2] };
        assert_eq!((found.mapping, found.filtering), (Some(expected), None));
    }
}

#[test]
fn address_dependent_mapping_shows_with_a_second_relay() {
    let mut world = World::new(Mapping::AddressDependent, Filtering::AddressDependent, Allocation::Random);
    world.servers.push("198.51.100.7:3478".parse().unwrap());
    world.other = None;
    assert_eq!(world.run().behaviour().mapping, Some(Mapping::AddressDependent));
}

#[test]
fn silence_means_blocked_and_ends() {
    let mut world = World { is_blocked: true, ..World::new(MAPPINGS[0], FILTERINGS[0], ALLOCATIONS[0]) };
    let discovery = world.run();
    assert!(discovery.is_done());
    let expected = Behaviour { udp_blocked: Some(true), has_ipv6: Some(false), ..Behaviour::default() };
    assert_eq!(*discovery.behaviour(), expected);
    assert!(discovery.servers().all(|answer| answer.mapped.is_none()));
}

#[test]
fn without_servers_nothing_is_claimed() {
    let now = Now { instant: Instant::now(), unix: 0 };
    let discovery = Discovery::new(&[], vec!["100.64.3.4:1".parse().unwrap()], rand_core::OsRng, now);
    assert!(discovery.is_done());
    let expected = Behaviour { is_cgnat: Some(true), has_ipv6: Some(false), ..Behaviour::default() };
    assert_eq!(*discovery.behaviour(), expected);
}

proptest! {
    /// Losses may leave gaps, but mapping and filtering are never told friendlier than they are.
    #[test]
    fn losses_never_flatter(seed in any::<u64>(), mapping in 0usize..3, filtering in 0usize..3, loses in 3u64..12) {
        let (mapping, filtering) = (MAPPINGS[mapping], FILTERINGS[filtering]);
        let mut world = World { seed, loses, ..World::new(mapping, filtering, Allocation::Random) };
        let found = world.run().behaviour().clone();
        prop_assert!(found.filtering.is_none_or(|found| found >= filtering));
        if mapping == Mapping::AddressAndPortDependent {
            prop_assert!(found.mapping.is_none_or(|found| found >= Mapping::AddressDependent));
        }
    }

    #[test]
    fn any_datagram_is_survived(datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..8)) {
        let now = Now { instant: Instant::now(), unix: 0 };
        let servers = ["192.0.2.6:3478".parse().unwrap()];
        let mut discovery = Discovery::new(&servers, Vec::new(), rand_core::OsRng, now);
        for datagram in datagrams {
            prop_assert!(!discovery.handle_datagram(Via::Tunnel, &datagram, now));
        }
        prop_assert!(!discovery.is_done());
    }

    /// An answer counts only at the socket that asked and with its transaction.
    #[test]
    fn strangers_answers_are_not_taken(transaction in any::<[u8; 12]>(), spare in 0usize..2) {
        let now = Now { instant: Instant::now(), unix: 0 };
        let server = "192.0.2.6:3478".parse().unwrap();
        let mut discovery = Discovery::new(&[server], Vec::new(), rand_core::OsRng, now);
        let asked = discovery.poll_output().unwrap();
        let answer = |transaction| {
            full_answer(&FullAnswer { transaction, mapped: server, origin: None, other: None }, None)
        };
        prop_assert!(!discovery.handle_datagram(Via::Tunnel, &answer(transaction), now));
        let Some(Request::Binding(request)) = parse_request(&asked.payload) else { panic!() };
        prop_assert!(!discovery.handle_datagram(Via::Spare(spare), &answer(request.transaction), now));
        prop_assert!(discovery.handle_datagram(Via::Tunnel, &answer(request.transaction), now));
    }
}
