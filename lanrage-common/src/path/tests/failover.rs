//! A game goes on while paths die, and while they change.

use super::figures::Figures;
use super::secs;
use crate::path::simulation::nat::Dependence;
use crate::path::simulation::{Link, Nat, RELAY, World};
use crate::path::*;

/// Between two packets of a game.
const BEAT: Duration = Duration::from_millis(20);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A pair that plays by its direct path, or by the relay when the routers allow nothing else.
fn playing(seed: u64, nats: [Nat; 2]) -> World {
    let mut world = World::new(seed, &nats);
    world.play(0, 1, BEAT);
    world.run_until(secs(20) + ms(37 * seed % 1000));
    world.restart_gaps();
    world
}

/// One hundred runs.
fn assert_quantiles(
    place: u32,
    what: &'static str,
    gap: impl Fn(u64) -> Duration,
    median: Duration,
    most: Duration,
) {
    let figures = Figures::new(place, what, (0..100).map(|seed| Some(gap(seed))));
    assert!(figures.at(50) <= median, "median {:?}", figures.at(50));
    assert!(figures.most() <= most, "most {:?}", figures.most());
}

/// The relay is used before anything is probed: what is sent while joining takes half its round trip.
#[test]
fn the_first_packets_after_joining_go_by_the_relay_at_once() {
    let time = |seed| {
        let mut world = World::new(seed, &[Nat::SYMMETRIC, Nat::cone(Dependence::Address)]);
        let round_trip = 2 * ms(world.links.iter().map(|link| link.latency_ms).sum());
        world.play(0, 1, BEAT);
        let has_all = |world: &World| world.flows.iter().all(|flow| flow.lost() < flow.sent);
        let time = world.run_while(secs(5), has_all);
        assert!(time.is_some_and(|time| time <= round_trip), "seed {seed}: {time:?} of {round_trip:?}");
        world.run_until(secs(3));
        world.stop_flows();
        assert_eq!(world.lost(), 0, "seed {seed}");
        time
    };
    Figures::new(0, "first packets of a game at joining, both ways, by the relay", (0..200).map(time));
}

#[test]
fn moving_to_the_direct_path_loses_nothing() {
    for seed in 0..100 {
        let mut world = World::new(seed, &[Nat::EIM, Nat::cone(Dependence::Address)]);
        world.links.iter_mut().for_each(|link| (link.jitter_ms, link.reorder) = (seed % 20, 0.1));
        world.play(0, 1, BEAT);
        world.run_until(secs(10));
        assert!(world.all_are(PathKind::Direct), "seed {seed}");
        world.stop_flows();
        assert_eq!(world.lost(), 0, "seed {seed}");
    }
}

#[test]
fn a_direct_path_that_dies_is_replaced_before_anybody_notices() {
    let gap = |seed| {
        let mut world = playing(seed, [Nat::EIM, Nat::EIM]);
        assert!(world.all_are(PathKind::Direct), "seed {seed}");
        world.cut.insert((0, 1));
        world.run_until(world.at + secs(8));
        assert!(world.all_are(PathKind::Relay), "seed {seed}");
        world.gap()
    };
    assert_quantiles(6, "silence when a direct path dies", gap, ms(300), ms(500));
}

#[test]
fn a_path_that_dies_in_one_direction_is_replaced_too() {
    let gap = |seed| {
        let mut world = playing(seed, [Nat::EIM, Nat::EIM]);
        world.cut_way.insert((0, 1));
        world.run_until(world.at + secs(8));
        assert!(world.all_are(PathKind::Relay), "seed {seed}");
        world.gap()
    };
    assert_quantiles(7, "silence when it dies in one direction only", gap, ms(400), ms(1000));
}

#[test]
fn a_relay_that_dies_is_replaced_by_the_one_that_stands_by() {
    let gap = |seed| {
        let mut world = World::unbound(seed, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
        world.relays.insert("away".into(), "192.0.2.99:3478".parse().unwrap());
        for n in 0..2 {
            world.bind(n, RELAY);
            world.bind(n, "away");
        }
        world.introduce();
        world.play(0, 1, BEAT);
        world.run_until(secs(20) + ms(37 * seed % 1000));
        world.restart_gaps();
        let used = world.hosts[0].path[&world.hosts[1].key].relay.clone().unwrap();
        world.dead_relays.insert(used.clone());
        world.run_until(world.at + secs(5));
        let path = &world.hosts[0].path[&world.hosts[1].key];
        assert!(path.relay.as_ref() != Some(&used) && path.copy.is_none(), "seed {seed}: {path:?}");
        world.gap()
    };
    let what = "silence when the relay in use dies and another stands by";
    assert_quantiles(8, what, gap, ms(250), ms(300));
}

#[test]
fn the_first_packet_after_a_long_pause_finds_its_way() {
    for seed in 0..50 {
        let mut world = World::new(seed, &[Nat::EIM, Nat::EIM]);
        world.run_until(secs(600));
        assert!(world.all_are(PathKind::Direct), "seed {seed}: an idle path is kept open");
        world.cut.insert((0, 1));
        // long enough since the last sign of life
        world.run_until(world.at + secs(3));
        world.play(0, 1, BEAT);
        world.run_until(world.at + secs(10));
        let gap = world.gap();
        assert!(gap <= ms(700), "seed {seed}: {gap:?}");
    }
}

#[test]
fn a_path_for_probes_only_is_not_taken() {
    let mut world = World::new(1, &[Nat::EIM, Nat::EIM]);
    world.cut_data.insert((0, 1));
    world.play(0, 1, BEAT);
    world.run_until(secs(60));
    assert!(world.all_are(PathKind::Relay));
    world.stop_flows();
    assert_eq!(world.lost(), 0);
}

#[test]
fn a_path_that_ceases_to_carry_data_is_left() {
    for seed in 0..30 {
        let mut world = playing(seed, [Nat::EIM, Nat::EIM]);
        world.cut_data.insert((0, 1));
        world.run_until(world.at + secs(12));
        assert!(world.all_are(PathKind::Relay), "seed {seed}");
        assert!(world.gap() <= secs(8), "seed {seed}: {:?}", world.gap());
        assert!(world.count("path_without_data") > 0);
    }
}

#[test]
fn ten_minutes_without_the_control_server_cost_nothing() {
    for (seed, nats) in [(1, [Nat::EIM, Nat::EIM]), (2, [Nat::SYMMETRIC, Nat::SYMMETRIC])] {
        let mut world = playing(seed, nats);
        world.signals_work = false;
        world.run_until(world.at + secs(600));
        world.stop_flows();
        assert!(world.flows.iter().all(|flow| flow.sent > 30_000));
        assert_eq!(world.lost(), 0, "{nats:?}");
    }
}

#[test]
fn clocks_that_jump_change_nothing() {
    for jump in [-86_400 * 400, -3600, 3600, 86_400 * 400] {
        let mut world = playing(3, [Nat::EIM, Nat::EIM]);
        world.clock = jump;
        world.run_until(world.at + secs(30));
        world.clock = 0;
        world.run_until(world.at + secs(30));
        assert!(world.all_are(PathKind::Direct));
        world.stop_flows();
        assert_eq!(world.lost(), 0, "{jump}");
    }
}

/// A laptop that sleeps: its monotonic clock goes on, its timers are late.
#[test]
fn a_device_that_slept_plays_on() {
    for seed in 0..20 {
        let mut world = playing(seed, [Nat::EIM, Nat::EIM]);
        world.off.insert(1);
        world.run_until(world.at + secs(3600));
        world.off.clear();
        // its daemon binds again as soon as it wakes
        world.bind(1, RELAY);
        world.run_until(world.at + secs(2));
        world.restart_gaps();
        world.run_until(world.at + secs(60));
        assert!(world.gap() <= secs(1), "seed {seed}: {:?}", world.gap());
        assert!(world.all_are(PathKind::Direct), "seed {seed}");
    }
}

#[test]
fn loss_and_jitter_cause_few_copies() {
    for seed in 0..20 {
        let mut world = World::new(seed, &[Nat::EIM, Nat::EIM]);
        world.links =
            vec![Link { latency_ms: 20, jitter_ms: 20, loss: 0.01, reorder: 0.05, ..Link::default() }; 2];
        world.play(0, 1, BEAT);
        world.run_until(secs(300));
        assert!(world.all_are(PathKind::Direct));
        let copied: u64 = world.flows.iter().map(|flow| flow.copied).sum();
        let sent: u64 = world.flows.iter().map(|flow| flow.sent).sum();
        assert!(copied * 20 <= sent, "seed {seed}: {copied} of {sent}");
    }
}

#[test]
fn the_idle_heartbeat_follows_the_mapping_lifetime() {
    let sent = |lifetime| {
        let mut world = World::new(5, &[Nat::EIM, Nat::EIM]);
        let nat = crate::nat::Behaviour { lifetime_s: lifetime, ..Default::default() };
        let now = world.now();
        world.hosts.iter_mut().for_each(|host| host.agent.set_nat(nat.clone(), now));
        world.run_until(secs(600));
        let before = world.count("ping_sent");
        world.run_until(secs(1200));
        assert!(world.all_are(PathKind::Direct));
        world.count("ping_sent") - before
    };
    let (short, unknown, long) = (sent(Some(12)), sent(None), sent(Some(120)));
    assert!(short > unknown && unknown > long, "{short} {unknown} {long}");
}

/// Both ends of a home computer that does something else, too: datagrams wait for the processor now and then, by whatever
/// path they come.
const BUSY: Link =
    Link { latency_ms: 1, jitter_ms: 2, loss: 0.0, reorder: 0.0, busy: 0.15, busy_ms: 120, most: 0 };

/// The relay was measured while all was quiet, and the direct path opens in a busy moment.
#[test]
fn a_busy_machine_keeps_no_pair_on_the_relay() {
    let time = |seed| {
        let mut world = World::new(seed, &[Nat::EIM, Nat::EIM]);
        world.links = vec![Link { latency_ms: 1, ..Link::default() }; 2];
        world.cut.insert((0, 1));
        world.play(0, 1, BEAT);
        // the next round of probes is at 39.55 s
        world.run_until(secs(39));
        assert!(world.all_are(PathKind::Relay), "seed {seed}");
        world.links = vec![BUSY; 2];
        world.cut.clear();
        let time = world.run_while(secs(30), |world| world.all_are(PathKind::Direct));
        world.stop_flows();
        assert_eq!(world.lost(), 0, "seed {seed}");
        time
    };
    let figures = Figures::new(10, "direct, when it opens while both machines are busy", (0..200).map(time));
    assert_eq!(figures.times.len(), 200, "some stay relayed");
    assert!(figures.at(90) <= secs(4), "of ten runs, nine take {:?}", figures.at(90));
}

#[test]
fn a_direct_path_that_is_slower_by_far_is_not_taken() {
    for seed in 0..20 {
        let mut world = World::new(seed, &[Nat::EIM, Nat::EIM]);
        world.direct_detour = 60;
        world.links = vec![Link { latency_ms: 10, jitter_ms: 3, ..Link::default() }; 2];
        world.play(0, 1, BEAT);
        world.run_until(secs(40));
        let changes: usize = world.hosts.iter().map(|host| host.path_changes.len()).sum();
        assert!(world.all_are(PathKind::Relay) && changes == 2, "seed {seed}: {changes} changes");
        world.direct_detour = 0;
        let time = world.run_while(secs(300), |world| world.all_are(PathKind::Direct));
        assert!(time.is_some(), "seed {seed}: {}", world.why(0, 1));
    }
}
