//! Every pair of routers, and long lives full of trouble. A failure names its seed: `LANRAGE_SEED=… cargo test` repeats
//! that one alone.

use super::figures::Figures;
use super::secs;
use crate::nat::{How, verdict};
use crate::path::simulation::nat::{Allocation, Dependence};
use crate::path::simulation::{Nat, RELAY, World};
use crate::path::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

fn seeds(count: u64) -> Vec<u64> {
    let one = std::env::var("LANRAGE_SEED").ok();
    one.map_or((0..count).collect(), |seed| vec![seed.parse().expect("LANRAGE_SEED is a number")])
}

fn kinds() -> Vec<Nat> {
    let cones = Dependence::ALL.map(Nat::cone);
    let sequential = Allocation::Sequential { step: 1, others: 2 };
    let symmetric = [Allocation::Preserving, sequential, Allocation::Random].map(Nat::symmetric);
    [Nat::None].into_iter().chain(cones).chain(symmetric).collect()
}

/// Whether ordinary probes find a direct path.
fn is_possible(a: Nat, b: Nat) -> bool {
    matches!(verdict(&a.behaviour(), &b.behaviour()).how(), Some(How::Punch | How::Lan))
}

#[test]
fn what_the_verdict_calls_possible_is_reached() {
    let mut times = Vec::new();
    for (n, (a, b)) in kinds().iter().flat_map(|a| kinds().into_iter().map(|b| (*a, b))).enumerate() {
        for seed in seeds(12) {
            let mut world = World::new(seed + 1000 * n as u64, &[a, b]);
            let time = world.run_while(secs(20), |world| world.all_are(PathKind::Direct));
            if is_possible(a, b) {
                assert!(time.is_some(), "{a:?} {b:?} seed {seed}: {}", world.why(0, 1));
                times.push(time);
            }
        }
    }
    let figures =
        Figures::new(1, "direct, where the verdict says by probes: all pairs of seven routers", times);
    let (median, p99) = (figures.at(50), figures.at(99));
    assert!(median <= secs(1) && p99 <= secs(3), "median {median:?}, p99 {p99:?}");
}

#[test]
fn two_in_one_home_meet_at_home() {
    for seed in seeds(50) {
        let mut world = World::at_homes(seed, &[Nat::EIM], &[0, 0]);
        (0..2).for_each(|n| world.bind(n, RELAY));
        world.introduce();
        world
            .run_while(secs(5), |world| world.all_are(PathKind::Direct))
            .unwrap_or_else(|| panic!("seed {seed}"));
        world.run_until(secs(30));
        let endpoint = world.hosts[0].path[&world.hosts[1].key].endpoint;
        assert_eq!(endpoint, world.hosts[1].inside, "seed {seed}");
    }
}

#[test]
fn a_line_that_gets_another_address_plays_on() {
    for seed in seeds(50) {
        let mut world = World::new(seed, &[Nat::EIM, Nat::EIM]);
        world.play(0, 1, Duration::from_millis(20));
        world.run_until(secs(20));
        assert!(world.all_are(PathKind::Direct), "seed {seed}");
        world.restart_gaps();
        world.change_address(0, [203, 0, 200, 1].into());
        world.run_until(secs(50));
        assert!(world.gap() <= secs(3), "seed {seed}: {:?}", world.gap());
        assert!(world.all_are(PathKind::Direct), "seed {seed}: {}", world.why(0, 1));
    }
}

fn trouble(world: &mut World, rng: &mut StdRng) {
    let n = rng.gen_range(0..2);
    match rng.gen_range(0..8) {
        0 => drop(world.cut.insert((0, 1))),
        1 => drop(world.cut_way.insert((n, 1 - n))),
        2 => world.change_nat(n, world.routers[n].nat),
        3 => world.change_address(n, [203, 0, rng.gen_range(10..250), 1].into()),
        4 => drop(world.dead_relays.insert(RELAY.into())),
        5 => drop(world.off.insert(n)),
        6 => world.clock = rng.gen_range(-100_000..100_000),
        _ => drop(world.cut_data.insert((0, 1))),
    }
}

fn heal(world: &mut World) {
    (world.cut, world.cut_way, world.cut_data) = Default::default();
    world.dead_relays.clear();
    for n in std::mem::take(&mut world.off) {
        world.bind(n, RELAY);
    }
}

/// A million simulated seconds.
#[test]
fn every_trouble_ends_at_the_best_path() {
    let kinds = kinds();
    let mut simulated = Duration::ZERO;
    for seed in seeds(100) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (a, b) = (kinds[rng.gen_range(0..kinds.len())], kinds[rng.gen_range(0..kinds.len())]);
        let mut world = World::new(seed, &[a, b]);
        let best = if is_possible(a, b) { PathKind::Direct } else { PathKind::Relay };
        for _ in 0..8 {
            world.run_until(world.at + secs(rng.gen_range(1..1500)));
            if rng.gen_bool(0.5) {
                world.flows.iter_mut().for_each(|flow| flow.is_over = true);
                world.play(0, 1, Duration::from_millis(50));
            }
            (0..rng.gen_range(1..3)).for_each(|_| trouble(&mut world, &mut rng));
            world.run_until(world.at + secs(rng.gen_range(1..20)));
            heal(&mut world);
            world.flows.iter_mut().for_each(|flow| flow.is_over = true);
            world.run_until(world.at + secs(200));
            assert!(
                world.all_are(best),
                "seed {seed}, {a:?} {b:?}: {} / {}",
                world.why(0, 1),
                world.why(1, 0)
            );
            world.hosts.iter_mut().for_each(|host| host.sent_to.clear());
        }
        simulated += world.at * 2;
    }
    println!("{} simulated seconds", simulated.as_secs());
}
