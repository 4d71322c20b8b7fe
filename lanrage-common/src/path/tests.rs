//! What the agents promise, in a simulated internet; what they must withstand is in [`hostile`].

mod carried;
mod failover;
mod figures;
mod hostile;
mod hunt;
mod length;
mod relays;
mod soak;

use super::simulation::{Nat, RELAY, World};
use super::*;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn direct(world: &World) -> bool {
    world.all_are(PathKind::Direct)
}

/// The time until both ends are direct, per seed, sorted.
fn times_to_direct(nats: &[Nat], loss: f64, seeds: std::ops::Range<u64>) -> Vec<Duration> {
    let time = |seed| {
        let mut world = World::new(seed, nats);
        world.loss = loss;
        world
            .run_while(secs(30), direct)
            .unwrap_or_else(|| panic!("seed {seed}: no direct path: {}", world.why(0, 1)))
    };
    let mut times: Vec<_> = seeds.map(time).collect();
    times.sort();
    times
}

#[test]
fn eim_and_eim_reach_direct_always_and_soon() {
    let times = times_to_direct(&[Nat::EIM, Nat::EIM], 0.0, 0..600);
    assert!(times[599] <= secs(2), "slowest {:?}", times[599]);
    assert!(times[300] <= secs(1), "median {:?}", times[300]);
}

#[test]
fn loss_delays_but_does_not_prevent() {
    let times = times_to_direct(&[Nat::EIM, Nat::EIM], 0.2, 0..200);
    assert!(times[100] <= secs(3), "median {:?}", times[100]);
}

#[test]
fn a_public_address_is_reached_from_behind_a_symmetric_nat() {
    let times = times_to_direct(&[Nat::None, Nat::SYMMETRIC], 0.0, 0..200);
    assert!(times[199] <= secs(2), "slowest {:?}", times[199]);
    let mut world = World::new(1, &[Nat::None, Nat::SYMMETRIC]);
    world.run_until(secs(10));
    assert!(world.why(0, 1).contains("its probes come from"), "{}", world.why(0, 1));
    assert!(world.why(1, 0).starts_with("direct: probe answered at"), "{}", world.why(1, 0));
}

#[test]
fn no_nat_and_three_members_reach_direct() {
    times_to_direct(&[Nat::None, Nat::None], 0.0, 0..50);
    times_to_direct(&[Nat::EIM, Nat::EIM, Nat::None], 0.0, 0..50);
}

/// Every pair of NATs, with loss and reordering: the best possible path is found, and it is kept.
#[test]
fn the_matrix_of_nats_gives_the_best_possible_paths() {
    let nats = [Nat::None, Nat::EIM, Nat::SYMMETRIC];
    for (seed, (a, b)) in nats.iter().flat_map(|a| nats.map(|b| (*a, b))).enumerate() {
        for loss in [0.0, 0.05] {
            let mut world = World::new(1000 + seed as u64, &[a, b]);
            world.loss = loss;
            world.run_until(secs(60));
            // an open end can be reached by anybody, and two steady mappings meet
            let is_possible = a == Nat::None || b == Nat::None || (a, b) == (Nat::EIM, Nat::EIM);
            let best = if is_possible { PathKind::Direct } else { PathKind::Relay };
            assert!(world.all_are(best), "{a:?} {b:?} loss {loss}: {}", world.why(0, 1));
            let before: usize = world.hosts.iter().map(|host| host.path_changes.len()).sum();
            world.run_until(secs(360));
            let after: usize = world.hosts.iter().map(|host| host.path_changes.len()).sum();
            assert!(
                after - before <= if loss > 0.0 { 2 } else { 0 },
                "{a:?} {b:?} loss {loss}: {after} changes"
            );
        }
    }
}

#[test]
fn symmetric_and_symmetric_are_relayed_at_once_and_stay_so() {
    for seed in 0..50 {
        let mut world = World::new(seed, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
        assert!(world.all_are(PathKind::Relay), "the relay does not wait for anything");
        world.run_until(secs(120));
        assert!(world.all_are(PathKind::Relay));
        assert_eq!(world.hosts[0].path_changes.len(), 1, "one path, no flapping");
        assert!(world.why(0, 1).contains("both routers probably change ports"), "{}", world.why(0, 1));
        let status = world.hosts[0].agent.status(&world.hosts[1].key).unwrap();
        assert_eq!((status.relay.as_deref(), status.loss), (Some(RELAY), Some(0.0)));
        assert!(status.rtt_ms.unwrap() > 2.0);
    }
}

#[test]
fn hopeless_pairs_cost_few_probes() {
    let mut world = World::new(3, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
    world.run_until(secs(60));
    let before = world.hosts[0].sent_to.len();
    world.run_until(secs(120));
    // heartbeat and answers over the relay, and two rounds of at most three candidates
    assert!(world.hosts[0].sent_to.len() - before <= 60 + 60 + 8);
}

#[test]
fn a_dead_direct_path_falls_back_to_the_relay_in_time() {
    for seed in 0..100 {
        let mut world = World::new(seed, &[Nat::EIM, Nat::EIM]);
        world.run_while(secs(30), direct).unwrap();
        world.run_until(world.at + secs(40));
        assert!(direct(&world), "seed {seed}: a healthy direct path is kept");
        world.cut.insert((0, 1));
        let relayed = world.run_while(secs(10), |world| world.all_are(PathKind::Relay)).unwrap();
        assert!(relayed <= secs(3), "seed {seed}: {relayed:?}");
        assert!(world.why(0, 1).contains("stopped answering"), "{}", world.why(0, 1));
        world.run_until(world.at + secs(20));
        world.cut.clear();
        world.run_while(secs(35), direct).expect("direct comes back");
    }
}

#[test]
fn an_error_on_sending_falls_back_at_once() {
    let mut world = World::new(1, &[Nat::EIM, Nat::EIM]);
    world.run_while(secs(30), direct).unwrap();
    let (key, now) = (world.hosts[1].key, world.now());
    let to = world.hosts[0].path[&key].endpoint;
    world.hosts[0].agent.handle_send_error(to, now);
    world.drain(0);
    assert_eq!(world.kind(0, 1), PathKind::Relay);
}

#[test]
fn a_better_router_brings_direct() {
    for seed in 0..100 {
        let mut world = World::new(seed, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
        world.run_until(secs(45));
        assert!(world.all_are(PathKind::Relay));
        world.change_nat(0, Nat::EIM);
        world.change_nat(1, Nat::EIM);
        let time = world.run_while(secs(10), direct).unwrap_or_else(|| panic!("seed {seed}"));
        assert!(time <= secs(6), "seed {seed}: {time:?}");
    }
}

/// Host 0 uses the relay, and host 1 answers through it.
fn relay_answers(world: &World) -> bool {
    let pair = &world.hosts[0].agent.pairs[&world.hosts[1].key];
    let is_alive = pair.relays.get(RELAY).is_some_and(|route| !route.is_lapsed(world.now().instant));
    is_alive && world.kind(0, 1) == PathKind::Relay
}

#[test]
fn a_router_that_forgot_its_mappings_is_noticed_through_the_relay() {
    for seed in 0..50 {
        let mut world = World::new(seed, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
        world.run_until(secs(41));
        world.change_nat(0, Nat::SYMMETRIC);
        world.run_until(secs(45));
        assert_eq!(world.doubts, 2, "seed {seed}: both ends doubt, once");
        assert!(relay_answers(&world), "seed {seed}");

        let mut world = World::new(seed, &[Nat::EIM, Nat::EIM]);
        world.run_while(secs(30), direct).unwrap();
        world.run_until(secs(41));
        world.change_nat(1, Nat::SYMMETRIC);
        let time = world.run_while(secs(10), relay_answers).unwrap_or_else(|| panic!("seed {seed}"));
        // nobody plays: the heartbeat is slow
        assert!(time <= secs(6), "seed {seed}: {time:?}");
    }
}

#[test]
fn an_absent_member_causes_few_doubts() {
    let mut world = World::new(1, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
    world.run_until(secs(30));
    world.off.insert(1);
    world.run_until(secs(630));
    assert!((1..=12).contains(&world.doubts), "{}", world.doubts);
    assert_eq!(world.kind(0, 1), PathKind::Relay, "it may come back");
    let before = world.hosts[0].sent_to.len();
    world.run_until(secs(690));
    assert!(world.hosts[0].sent_to.len() - before <= 10, "an absent member costs little");
}

#[test]
fn a_game_that_pauses_has_its_paths_watched() {
    let mut world = World::new(1, &[Nat::EIM, Nat::EIM]);
    world.run_while(secs(30), direct).unwrap();
    world.run_until(secs(300));
    let mut probes_of_a_minute = |is_playing: bool| {
        let now = world.now();
        world.hosts[0].agent.set_playing(is_playing, now);
        world.drain(0);
        let before = world.hosts[0].sent_to.len();
        world.run_until(world.at + secs(60));
        world.hosts[0].sent_to.len() - before
    };
    let (idle, playing) = (probes_of_a_minute(false), probes_of_a_minute(true));
    assert!(playing >= 50 && idle * 2 < playing, "{idle} idle, {playing} while a game runs");
    assert!(probes_of_a_minute(false) * 2 < playing, "and not after it");
}

#[test]
fn a_restarted_member_is_found_again() {
    for seed in 0..50 {
        let mut world = World::new(seed, &[Nat::EIM, Nat::EIM]);
        world.run_while(secs(30), direct).unwrap();
        world.run_until(world.at + secs(60));
        world.restart(1);
        assert_eq!(world.kind(1, 0), PathKind::Relay);
        let time = world.run_while(secs(20), direct).unwrap_or_else(|| panic!("seed {seed}"));
        assert!(time <= secs(4), "seed {seed}: {time:?}");
    }
}

#[test]
fn without_the_control_server_a_restarted_member_has_a_measured_relay_path() {
    let mut world = World::new(5, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
    world.run_until(secs(30));
    world.signals_work = false;
    world.restart(1);
    world.run_until(world.at + secs(10));
    let status = world.hosts[1].agent.status(&world.hosts[0].key).unwrap();
    assert_eq!(status.kind, PathKind::Relay);
    assert!(status.rtt_ms.is_some(), "its probes are answered: {status:?}");
}

#[test]
fn both_ends_choose_the_same_relay_and_leave_a_lost_one() {
    let mut world = World::unbound(1, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
    world.relays.insert("away".into(), "192.0.2.99:3478".parse().unwrap());
    for n in 0..2 {
        world.bind(n, RELAY);
        world.bind(n, "away");
    }
    world.introduce();
    world.run_until(secs(5));
    let relay = |world: &World, n: usize| world.hosts[n].path[&world.hosts[1 - n].key].relay.clone().unwrap();
    let first = relay(&world, 0);
    assert_eq!(first, relay(&world, 1));
    world.unbind(0, &first);
    assert_ne!(relay(&world, 0), first, "at once");
    world.run_until(secs(8));
    assert_eq!(relay(&world, 0), relay(&world, 1), "the other end follows");
}

#[test]
fn losing_the_only_relay_leaves_no_path_or_the_direct_one() {
    let mut world = World::new(1, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
    world.run_until(secs(5));
    world.unbind(0, RELAY);
    assert_eq!(world.kind(0, 1), PathKind::None);
    assert!(world.why(0, 1).starts_with("no path"), "{}", world.why(0, 1));

    let mut world = World::new(1, &[Nat::EIM, Nat::EIM]);
    world.run_while(secs(30), direct).unwrap();
    world.unbind(0, RELAY);
    world.run_until(world.at + secs(60));
    assert_eq!(world.kind(0, 1), PathKind::Direct);
    world.cut.insert((0, 1));
    world.run_until(world.at + secs(60));
    assert_eq!(world.kind(0, 1), PathKind::None, "hope ends");
}

#[test]
fn a_round_trip_that_varies_is_announced_but_causes_no_probes() {
    let mut world = World::new(3, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
    world.run_until(secs(60));
    let probes = |world: &World| world.hosts.iter().map(|host| host.sent_to.len()).sum::<usize>();
    let (before, told) = (probes(&world), world.hosts[0].agent.counters()["signal_sent"]);
    for n in 0..10 {
        let (now, mapped) = (world.now(), world.hosts[0].agent.shared.bindings[RELAY].mapped.unwrap());
        let rtt = Some(Duration::from_millis(200 + 100 * (n % 2)));
        world.hosts[0].agent.handle_bound(RELAY, world.relays[RELAY], mapped, rtt, now);
        world.drain(0);
        world.run_until(world.at + secs(6));
    }
    assert!(world.hosts[0].agent.counters()["signal_sent"] > told);
    // heartbeats and answers both ways, and what an idle minute costs
    assert!(probes(&world) - before <= 4 * 60 + 30, "{}", probes(&world) - before);
}
