//! Several relays: which one a pair takes, and what happens when it goes.

use super::figures::Figures;
use crate::path::simulation::{Nat, RELAY, World};
use crate::path::*;

const NEAR: &str = "near";
const FAR: &str = "far";
/// Between two packets of a game.
const BEAT: Duration = Duration::from_millis(50);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Two members that can only be relayed, and two relays; `near` has the smaller sum of legs, but not the smaller leg of
/// each.
fn world(seed: u64) -> World {
    let mut world = World::unbound(seed, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
    world.relays = [(NEAR, "192.0.2.5:3478"), (FAR, "192.0.2.6:3478")]
        .map(|(name, place)| (name.into(), place.parse().unwrap()))
        .into();
    world.far = [((0, NEAR.into()), 20), ((1, FAR.into()), 60)].into();
    for n in 0..2 {
        world.bind(n, NEAR);
        world.bind(n, FAR);
    }
    world.introduce();
    world
}

fn relay(world: &World, n: usize) -> String {
    world.hosts[n].path[&world.hosts[1 - n].key].relay.clone().unwrap()
}

fn relays(world: &World) -> [String; 2] {
    [relay(world, 0), relay(world, 1)]
}

fn set_avoided(world: &mut World, n: usize, avoided: &str) {
    let now = world.now();
    let legs = [NEAR, FAR].map(|name| (name.to_owned(), Leg { avoid: name == avoided, ..Leg::default() }));
    world.hosts[n].agent.set_legs(legs.into(), now);
    world.drain(n);
}

/// Both ends play; the longest time in which an end got nothing.
fn longest_gap(world: &mut World, time: Duration) -> Duration {
    if world.flows.is_empty() {
        world.play(0, 1, BEAT);
        world.run_until(world.at + secs(1));
    }
    world.restart_gaps();
    world.run_until(world.at + time);
    world.gap()
}

#[test]
fn both_ends_take_the_relay_with_the_least_sum_of_legs() {
    for seed in 0..50 {
        let mut world = world(seed);
        world.run_until(secs(15));
        assert_eq!(relays(&world), [NEAR, NEAR], "seed {seed}");
        let status = world.hosts[0].agent.status(&world.hosts[1].key).unwrap();
        assert_eq!(status.standby.as_deref(), Some(FAR));
        let why = status.relay_why.unwrap();
        assert!(why.contains("over both legs; far:"), "{why}");
        let path = &world.hosts[0].path[&world.hosts[1].key];
        assert_eq!(path.handshakes, [NEAR, FAR].map(|name| Some(world.relays[name])));
        let wanted: BTreeMap<_, _> = [NEAR, FAR].map(|name| (name.to_owned(), 1)).into();
        assert_eq!(world.hosts[0].wishes, (wanted, [NEAR.to_owned()].into()));
    }
}

#[test]
fn a_member_that_speaks_through_a_relay_is_bound_there_whatever_it_has_announced() {
    for seed in 0..50 {
        let mut world = World::unbound(seed, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
        world.bind(0, RELAY);
        let now = world.now();
        world.hosts[1].agent.set_legs([(RELAY.to_owned(), Leg::default())].into(), now);
        world.introduce();
        world.run_until(secs(2));
        assert_eq!(world.kind(0, 1), PathKind::None, "seed {seed}: it is not bound yet");
        world.signals_work = false;
        world.bind(1, RELAY);
        world.start_flow(1, 0, BEAT);
        let time = world.run_while(secs(5), |world| world.kind(0, 1) == PathKind::Relay);
        assert!(time.is_some_and(|time| time <= Duration::from_millis(200)), "seed {seed}: {time:?}");
    }
}

#[test]
fn a_relay_that_dies_in_a_game_is_replaced_within_two_seconds() {
    let gap = |seed| {
        let mut world = world(seed);
        world.run_until(secs(15) + Duration::from_millis(37 * seed % 1000));
        assert!(longest_gap(&mut world, secs(3)) <= 2 * BEAT, "seed {seed}");
        world.dead_relays.insert(NEAR.into());
        let gap = longest_gap(&mut world, secs(10));
        assert_eq!(relays(&world), [FAR, FAR], "seed {seed}");
        gap
    };
    let what = "silence when the relay's machine is gone, packets each 50 ms";
    let figures = Figures::new(9, what, (0..200).map(|seed| Some(gap(seed))));
    assert!(figures.at(50) <= Duration::from_millis(1500), "median {:?}", figures.at(50));
    assert!(figures.at(99) <= secs(2), "p99 {:?}", figures.at(99));
}

#[test]
fn without_traffic_and_without_signals_it_is_noticed_too() {
    let time = |seed| {
        let mut world = world(seed);
        world.run_until(secs(30) + Duration::from_millis(37 * seed % 1000));
        world.dead_relays.insert(NEAR.into());
        world.signals_work = false;
        world.run_while(secs(10), |world| relays(world) == [FAR, FAR])
    };
    let what = "both at another relay, when nobody plays and the control server is gone too";
    let figures = Figures::new(11, what, (0..100).map(time));
    assert_eq!(figures.times.len(), 100, "some stay at the dead relay");
    assert!(figures.at(50) <= secs(2), "median {:?}", figures.at(50));
    assert!(figures.at(99) <= secs(3), "p99 {:?}", figures.at(99));
}

#[test]
fn a_relay_that_came_back_is_taken_again_but_not_at_once() {
    let mut world = world(7);
    world.run_until(secs(15));
    world.dead_relays.insert(NEAR.into());
    world.run_until(secs(20));
    assert_eq!(relays(&world), [FAR, FAR]);
    let why = world.hosts[0].agent.status(&world.hosts[1].key).unwrap().relay_why.unwrap();
    assert_eq!(why, "near gives no answer");
    world.dead_relays.clear();
    world.run_until(secs(24));
    assert_eq!(relays(&world), [FAR, FAR], "it has to prove itself");
    world.run_until(secs(120));
    assert_eq!(relays(&world), [NEAR, NEAR], "80 ms less are worth it");
    let changes: usize = world.hosts.iter().map(|host| host.path_changes.len()).sum();
    assert!(changes <= 16, "{changes} changes");
}

#[test]
fn a_small_gain_moves_nobody() {
    let mut world = world(3);
    world.far = [((0, NEAR.into()), 10), ((0, FAR.into()), 12)].into();
    for n in 0..2 {
        world.bind(n, NEAR);
        world.bind(n, FAR);
    }
    world.run_until(secs(60));
    let first = relay(&world, 0);
    let now = relays(&world);
    assert_eq!(now, [first.clone(), first.clone()]);
    let changes = |world: &World| world.hosts.iter().map(|host| host.path_changes.len()).sum::<usize>();
    let before = changes(&world);
    for n in 0..10 {
        world.far = [((0, NEAR.into()), 10 + 2 * (n % 2)), ((0, FAR.into()), 12 - 2 * (n % 2))].into();
        for n in 0..2 {
            world.bind(n, NEAR);
            world.bind(n, FAR);
        }
        world.run_until(world.at + secs(20));
    }
    assert_eq!((changes(&world), relays(&world)), (before, now));
}

#[test]
fn a_draining_relay_is_left_without_a_gap() {
    for seed in 0..50 {
        let mut world = world(seed);
        world.run_until(secs(15));
        assert_eq!(relays(&world), [NEAR, NEAR]);
        // the control server tells one end earlier than the other
        set_avoided(&mut world, (seed % 2) as usize, NEAR);
        let gap = longest_gap(&mut world, secs(5));
        assert!(gap <= 2 * BEAT, "seed {seed}: {gap:?}");
        assert_eq!(relays(&world), [FAR, FAR], "seed {seed}: one that wants to go takes the other along");
        set_avoided(&mut world, 1 - (seed % 2) as usize, NEAR);
        assert!(longest_gap(&mut world, secs(5)) <= 2 * BEAT);
        assert_eq!(world.hosts[0].wishes.1, [FAR.to_owned()].into(), "nothing of it is in use any more");
    }
}

#[test]
fn a_relay_that_only_one_end_is_bound_at_is_wanted_but_not_used() {
    let mut world = world(5);
    world.unbind(0, NEAR);
    world.run_until(secs(15));
    assert_eq!(relays(&world), [FAR, FAR]);
    let now = world.now();
    let legs = [(NEAR, 2), (FAR, 90)]
        .map(|(name, rtt)| (name.to_owned(), Leg { rtt_ms: Some(rtt), ..Leg::default() }));
    world.hosts[0].agent.set_legs(legs.into(), now);
    world.drain(0);
    world.run_until(secs(20));
    assert_eq!(relays(&world), [FAR, FAR]);
    assert!(world.hosts.iter().all(|host| host.wishes.0.contains_key(NEAR)), "both shall bind there");
    world.bind(0, NEAR);
    world.run_until(secs(40));
    assert_eq!(relays(&world), [NEAR, NEAR]);
}
