//! Routers that give every destination another port: hunts find what the verdict promises, within their budget.

use super::figures::Figures;
use super::secs;
use crate::binding::{FullAnswer, Request, full_answer, parse_request};
use crate::nat::discovery::{Discovery, Transmit, Via};
use crate::nat::{Behaviour, Fix, How, Who, verdict};
use crate::path::simulation::nat::{Allocation, Dependence, Router, Rules};
use crate::path::simulation::{Nat, RELAY, World};
use crate::path::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

const STRICT: Nat = Nat::cone(Dependence::AddressPort);

/// Other machines behind the same router make mappings in between.
fn sequential(step: u16, others: u16) -> Nat {
    Nat::symmetric(Allocation::Sequential { step, others })
}

/// By address only.
fn address_dependent(allocation: Allocation) -> Nat {
    let Nat::Router(rules) = Nat::symmetric(allocation) else { unreachable!() };
    Nat::Router(Rules { mapping: Dependence::Address, filtering: Dependence::Address, ..rules })
}

fn how(a: Nat, b: Nat) -> Option<How> {
    verdict(&a.behaviour(), &b.behaviour()).how()
}

/// Both know their routers from the beginning.
fn world(seed: u64, nats: [Nat; 2]) -> World {
    let mut world = World::new(seed, &nats);
    tell_nats(&mut world, nats);
    world
}

fn tell_nats(world: &mut World, nats: [Nat; 2]) {
    tell(world, nats.map(Nat::behaviour));
}

fn tell(world: &mut World, known: [Behaviour; 2]) {
    for (n, behaviour) in known.into_iter().enumerate() {
        let now = world.now();
        world.hosts[n].agent.set_nat(behaviour, now);
        world.drain(n);
    }
}

/// What the test of RFC 5780 finds out with a relay that has one address and two ports.
fn found_by_one_address(nat: Nat, outside: [u8; 4], seed: u64) -> Behaviour {
    let server: SocketAddr = "192.0.2.6:3478".parse().unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut router = Router::new(nat, outside.into(), &mut rng);
    let inside = |via| match via {
        Via::Tunnel => SocketAddr::new([192, 168, 1, 5].into(), 40_000),
        Via::Spare(at) => SocketAddr::new([192, 168, 1, 5].into(), 40_001 + at as u16),
    };
    let mut now = Now { instant: Instant::now(), unix: 0 };
    let mut test = Discovery::new(&[server], vec![inside(Via::Tunnel)], StdRng::seed_from_u64(seed), now);
    while !test.is_done() {
        while let Some(Transmit { via, to, payload }) = test.poll_output() {
            let mapped = router.translate(inside(via), to, Duration::ZERO, &mut rng);
            let Some(Request::Binding(request)) = parse_request(&payload) else { panic!("not a request") };
            let port = if request.change_port { 6957 - to.port() } else { to.port() };
            let from = SocketAddr::new(server.ip(), port);
            let is_in = router.admit(from, mapped.port(), Duration::ZERO).is_some();
            if to.ip() == server.ip() && is_in {
                let transaction = request.transaction;
                let answer = FullAnswer { transaction, mapped, origin: Some(from), other: None };
                test.handle_datagram(via, &full_answer(&answer, None), now);
            }
        }
        now.instant = test.poll_timeout().unwrap_or(now.instant);
        test.handle_timeout(now);
    }
    test.behaviour().clone()
}

/// The time until both are direct, if it is within the limit.
fn time(seed: u64, nats: [Nat; 2], limit: Duration) -> Option<Duration> {
    world(seed, nats).run_while(limit, |world| world.all_are(PathKind::Direct))
}

#[test]
fn ports_that_follow_a_rule_are_found_within_ten_seconds() {
    let pairs = [
        [STRICT, sequential(1, 0)],
        [sequential(1, 2), STRICT],
        [STRICT, sequential(4, 1)],
        [STRICT, Nat::symmetric(Allocation::Preserving)],
        [sequential(1, 0), sequential(1, 0)],
        [sequential(1, 2), sequential(1, 2)],
        [sequential(2, 1), Nat::symmetric(Allocation::Preserving)],
        [Nat::symmetric(Allocation::Preserving), Nat::symmetric(Allocation::Preserving)],
        [address_dependent(Allocation::Sequential { step: 1, others: 1 }), STRICT],
    ];
    let (mut of_one, mut of_both) = (Vec::new(), Vec::new());
    for pair in pairs {
        assert_eq!(how(pair[0], pair[1]), Some(How::Predicted), "{pair:?}");
        let times: Vec<_> = (0..60).map(|seed| time(seed, pair, secs(10))).collect();
        let found = times.iter().flatten().count();
        println!("{found} of 60: {pair:?}");
        assert!(found >= 48, "{pair:?}: {found} of 60 found");
        if pair.contains(&STRICT) { of_one.extend(times) } else { of_both.extend(times) }
    }
    Figures::new(2, "direct within 10 s, one router's ports follow a rule: five pairs", of_one);
    Figures::new(3, "the same of both routers: four pairs, of which two share theirs with others", of_both);
}

#[test]
fn a_router_that_looks_friendlier_than_it_is_is_found_out() {
    let counts = address_dependent(Allocation::Sequential { step: 1, others: 1 });
    let keeps = Nat::symmetric(Allocation::Preserving);
    let mut times = Vec::new();
    for pair in
        [[counts, STRICT], [STRICT, counts], [counts, counts], [counts, keeps], [sequential(4, 0), counts]]
    {
        let time = |seed| {
            let known = [0, 1].map(|n| found_by_one_address(pair[n], [203, 0, 113, n as u8], seed));
            assert_eq!(verdict(&known[0], &known[1]).how(), Some(How::Punch), "{known:?}");
            let mut world = World::new(seed, &pair);
            tell(&mut world, known);
            world.run_while(secs(10), |world| world.all_are(PathKind::Direct))
        };
        let found: Vec<_> = (0..60).map(time).collect();
        let count = found.iter().flatten().count();
        assert!(count >= 48, "{pair:?}: {count} of 60 found");
        assert!(found.iter().flatten().all(|time| *time >= secs(4)), "{pair:?}: found without a hunt");
        times.extend(found);
    }
    Figures::new(
        4,
        "the same, of five pairs with a router that a relay with one address takes for friendlier",
        times,
    );
}

#[test]
fn random_ports_are_found_by_many_probes() {
    assert_eq!(how(STRICT, Nat::SYMMETRIC), Some(How::Birthday));
    let times = (0..300).map(|seed| time(seed, [STRICT, Nat::SYMMETRIC], secs(22)));
    let what = "direct within 22 s, one router's ports are random and the other keeps its own";
    let figures = Figures::new(5, what, times);
    assert!(figures.times.len() >= 297, "{} of 300 found", figures.times.len());
    assert!(figures.at(50) <= secs(8), "median {:?}", figures.at(50));
}

#[test]
fn a_found_path_is_kept_open_and_loses_nothing() {
    for nats in [[Nat::SYMMETRIC, STRICT], [sequential(1, 1), sequential(1, 1)]] {
        let mut world = world(3, nats);
        world.play(0, 1, Duration::from_millis(20));
        world.run_while(secs(30), |world| world.all_are(PathKind::Direct)).expect("a direct path");
        world.run_until(world.at + secs(60));
        world.stop_flows();
        assert_eq!(world.lost(), 0, "{nats:?}");
        // nobody plays for longer than any mapping lives
        world.run_until(world.at + secs(900));
        assert!(world.all_are(PathKind::Direct), "{nats:?}: {}", world.why(0, 1));
        assert_eq!(world.count("hunt_begun"), 2, "{nats:?}: one hunt, of both ends");
    }
}

#[test]
fn a_kept_socket_is_given_back_when_its_path_dies_and_hunted_for_again() {
    let nats = [sequential(1, 0), STRICT];
    let mut world = world(5, nats);
    world.run_while(secs(10), |world| world.all_are(PathKind::Direct)).expect("a direct path");
    assert_eq!(world.hosts[0].kept.len(), 1);
    // the other router forgets what the hunt has opened
    world.run_until(secs(60));
    world.change_nat(0, nats[0]);
    world.bind(0, RELAY);
    world.run_until(world.at + secs(120));
    assert!(world.all_are(PathKind::Relay), "{}", world.why(0, 1));
    assert!(world.hosts[0].kept.is_empty() && world.hosts[0].spares.is_empty());
    world.run_until(world.at + secs(600));
    assert!(world.all_are(PathKind::Direct), "after ten minutes: {}", world.why(0, 1));
}

/// A filter that lets nothing in: the verdict is wrong, and the hunt in vain.
fn in_vain(seed: u64) -> World {
    let mut world = world(seed, [STRICT, Nat::SYMMETRIC]);
    world.cut.insert((0, 1));
    world
}

#[test]
fn a_hunt_in_vain_stays_within_its_budget_and_says_so() {
    let mut world = in_vain(1);
    world.run_until(secs(5));
    assert!(world.why(0, 1).contains("many probes"), "{}", world.why(0, 1));
    let sockets = world.hosts[1].spares.len();
    assert_eq!((sockets, world.hosts[0].spares.len()), (256, 0));
    world.run_until(secs(100));
    assert!(world.hosts[1].spares.is_empty(), "closed");
    assert!(world.why(0, 1).contains("failed 1 min ago"), "{}", world.why(0, 1));
    let fix = world.hosts[0].agent.status(&world.hosts[1].key).unwrap().fix;
    assert_eq!(fix, Some(Fix::MapPort(Who::Either)));
    for n in 0..2 {
        let far = world.routers[1 - n].outside;
        let sent: Vec<Duration> =
            world.hosts[n].sent_to.iter().filter(|(_, to)| to.ip() == far).map(|(at, _)| *at).collect();
        let busiest =
            sent.iter().map(|from| sent.iter().filter(|at| (*from..*from + secs(1)).contains(at)).count());
        // and what is sent to the member's own address anyway
        assert!(busiest.max().unwrap() <= 100 + 12, "host {n}");
        assert!(sent.len() <= 2000 + 60, "host {n}: {}", sent.len());
        assert!(sent.len() >= if n == 0 { 1500 } else { 256 }, "host {n}: {}", sent.len());
    }
    let sent = world.count("hunt_sent");
    world.run_until(secs(590));
    assert_eq!(world.count("hunt_sent"), sent, "not again within ten minutes");
    world.run_until(secs(2 * 3600));
    // at 0, 10, 30, 70 minutes
    assert_eq!(world.count("hunt_failed"), 2 * 4, "ever more rarely");
}

#[test]
fn pairs_that_cannot_be_direct_are_not_hunted() {
    for nats in [[Nat::SYMMETRIC, Nat::SYMMETRIC], [sequential(1, 0), Nat::SYMMETRIC], [STRICT, STRICT]] {
        let mut world = world(1, nats);
        world.run_until(secs(60));
        assert_eq!((world.count("hunt_begun"), world.count("hunt_sent")), (0, 0), "{nats:?}");
    }
}

/// As if the member had said this in a ping.
fn call(agent: &mut PathAgent, member: &WgKey, aim: Option<SocketAddr>, now: Now) {
    let pair = agent.pairs.get_mut(member).unwrap();
    pair.handle_call(aim, &mut agent.shared, now.instant);
}

#[test]
fn a_member_cannot_make_others_shoot_at_strangers() {
    let nats = [STRICT, sequential(1, 0)];
    let mut world = world(1, nats);
    let stranger: SocketAddr = "198.51.100.7:4000".parse().unwrap();
    world.cut.insert((0, 1));
    world.run_while(secs(5), |world| world.count("hunt_begun") == 2).expect("a hunt");
    let (member, now) = (world.hosts[1].key, world.now());
    for n in 0..1000u16 {
        let aim = SocketAddr::new(stranger.ip(), 4000 + n);
        call(&mut world.hosts[0].agent, &member, Some(aim), now);
    }
    world.run_until(secs(60));
    assert_eq!(world.hosts[0].agent.counters()["hunt_foreign"], 1000);
    assert!(world.hosts[0].sent_to.iter().all(|(_, to)| to.ip() != stranger.ip()));
}

#[test]
fn a_member_cannot_have_more_than_one_hunt_in_ten_minutes() {
    let mut world = in_vain(2);
    world.run_until(secs(60));
    let sent = world.count("hunt_sent");
    let member = world.hosts[1].key;
    for _ in 0..100 {
        let now = world.now();
        call(&mut world.hosts[0].agent, &member, None, now);
        world.run_until(world.at + secs(4));
    }
    assert_eq!(world.count("hunt_sent"), sent);
    assert_eq!(world.hosts[0].agent.counters()["hunt_refused"], 100);
}

#[test]
fn without_sockets_the_hunt_ends() {
    let mut world = world(1, [Nat::SYMMETRIC, STRICT]);
    world.sockets_left = 0;
    world.run_until(secs(30));
    assert!(world.all_are(PathKind::Relay));
    assert_eq!(world.count("hunt_without_sockets"), 1);
}
