//! How long packets may be is found out for every path, and for a new one when the path changes.

use super::secs;
use crate::path::simulation::{Link, Nat, World};
use crate::path::*;

/// What a line with an MTU of 1280 carries of a packet in the tunnel, and of UDP payload.
const NARROW: u16 = 1220;
const PAYLOAD: usize = 1252;

fn told(world: &World, n: usize) -> Option<u16> {
    world.hosts[n].mtus.get(&world.hosts[1 - n].key).copied().flatten()
}

fn is_narrow(world: &World) -> bool {
    (0..2).all(|n| told(world, n).is_some_and(|mtu| (NARROW - 8..=NARROW).contains(&mtu)))
}

#[test]
fn a_narrow_line_is_found_on_every_path() {
    for (seed, nats) in [[Nat::EIM, Nat::EIM], [Nat::SYMMETRIC, Nat::SYMMETRIC]].into_iter().enumerate() {
        for loss in [0.0, 0.05] {
            let mut world = World::new(seed as u64, &nats);
            world.links[1] = Link { latency_ms: 15, loss, most: PAYLOAD, ..Link::default() };
            let safe = |world: &World| (0..2).all(|n| told(world, n).is_some_and(|mtu| mtu <= NARROW));
            let time = world.run_while(secs(30), safe);
            assert!(time.is_some_and(|time| loss > 0.0 || time < secs(2)), "{nats:?} {loss}: {time:?}");
            world.run_until(secs(40));
            assert!(is_narrow(&world), "{nats:?} {loss}: {:?}", (told(&world, 0), told(&world, 1)));
            let status = world.hosts[0].agent.status(&world.hosts[1].key).unwrap();
            assert_eq!(status.mtu, told(&world, 0));
            assert_eq!(status.kind, if seed == 0 { PathKind::Direct } else { PathKind::Relay });
        }
    }
}

#[test]
fn a_wide_path_needs_one_probe_and_changes_nothing() {
    let mut world = World::new(1, &[Nat::SYMMETRIC, Nat::SYMMETRIC]);
    world.run_until(secs(600));
    assert_eq!((told(&world, 0), told(&world, 1)), (None, None));
    assert_eq!(world.count("mtu_probe_sent"), 2, "an idle path is not asked again");
    assert_eq!(world.count("mtu_probe_answered"), 2);
}

#[test]
fn a_path_that_becomes_narrow_while_somebody_plays_is_noticed() {
    let mut world = World::new(2, &[Nat::EIM, Nat::EIM]);
    world.play(0, 1, Duration::from_millis(50));
    world.run_until(secs(20));
    assert_eq!(told(&world, 0), None);
    world.links[0].most = PAYLOAD;
    world.run_until(secs(110));
    assert!(is_narrow(&world), "{:?}", (told(&world, 0), told(&world, 1)));
    world.links[0].most = 0;
    // a relay over the same line, then the line again: asked anew each time
    world.cut.insert((0, 1));
    world.run_until(secs(150));
    assert!(world.all_are(PathKind::Relay));
    assert_eq!((told(&world, 0), told(&world, 1)), (None, None));
}

#[test]
fn losses_do_not_make_a_path_narrow() {
    for seed in 0..8 {
        let mut world = World::new(seed, &[Nat::EIM, Nat::EIM]);
        world.loss = 0.05;
        world.play(0, 1, Duration::from_millis(50));
        let mut narrow = 0;
        for minute in 1..=10 {
            world.run_until(secs(60 * minute));
            narrow += usize::from(told(&world, 0).is_some());
        }
        assert!(narrow <= 1, "seed {seed}: {narrow} of 10");
    }
}
