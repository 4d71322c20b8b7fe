//! Random and mutated frames, in random states, at random times.

use crate::fixtures::fixtures;
use crate::pair::*;
use lanrage_common::maps::{Local, MemberState};
use lanrage_common::police::{Bucket, Rate};
use lanrage_common::reason::Reason;
use lanrage_common::wire::Be16;
use lanrage_tests::frames::{data, fix_checksums, stun, tagged_frame, udp_frame};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::time::Instant;

/// Cases with the same flows and budgets, and with the same time.
const SAME_STATE: u64 = 4096;
const SAME_TIME: u64 = 16;
/// Cases of one worker after which it says how far it is.
const PROGRESS: u64 = 10_000_000;

#[test]
fn random_and_mutated_frames_agree() {
    let cases: u64 =
        std::env::var("LANRAGE_DIFFERENTIAL_CASES").map_or(10_000_000, |cases| cases.parse().unwrap());
    let seed: u64 = std::env::var("LANRAGE_DIFFERENTIAL_SEED")
        .map_or_else(|_| rand::thread_rng().r#gen(), |seed| seed.parse().unwrap());
    println!("{cases} cases, LANRAGE_DIFFERENTIAL_SEED={seed}");
    let start = Instant::now();
    let workers = std::thread::available_parallelism().unwrap().get() as u64;
    let totals: Vec<BTreeMap<Reason, u64>> = std::thread::scope(|scope| {
        let run = |worker| scope.spawn(move || run(cases.div_ceil(workers), seed.wrapping_add(worker)));
        let workers: Vec<_> = (0..workers).map(run).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    println!("{:.0} cases a second", cases as f64 / start.elapsed().as_secs_f64());
    let mut sum = BTreeMap::new();
    for (reason, count) in totals.iter().flatten() {
        *sum.entry(*reason).or_insert(0) += count;
    }
    let reachable = sum.iter().filter(|(reason, _)| !matches!(reason, Reason::NoHeadroom | Reason::Broken));
    let rare: Vec<_> = reachable.filter(|(_, count)| **count < cases / 100_000).collect();
    assert!(rare.is_empty(), "the generator hardly reaches {rare:?}");
    println!("{:#?}", sum.iter().map(|(reason, count)| (reason.name(), count)).collect::<BTreeMap<_, _>>());
}

fn run(cases: u64, seed: u64) -> BTreeMap<Reason, u64> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pair = Pair::new();
    let templates = templates();
    let mut wanted = pair.reasons();
    let mut frame = Vec::new();
    let start = Instant::now();
    for case in 0..cases {
        if case % PROGRESS == 0 && case > 0 {
            println!(
                "{case} of {cases} cases agree after {:.0} s (seed {seed})",
                start.elapsed().as_secs_f64()
            );
        }
        if case % SAME_STATE == 0 {
            assert_eq!(pair.reasons(), wanted, "counters before case {case}");
            pair.agree_on_members();
            shuffle(&mut pair, &mut random);
        }
        if case % SAME_TIME == 0 {
            let step = 1u64 << random.gen_range(10..26);
            pair.change_local(|local| local.clock += step);
        }
        random_frame(&mut random, &templates, &mut frame);
        let outcome = pair.agree(&frame);
        count(&mut wanted, &outcome, frame.len());
    }
    assert_eq!(pair.reasons(), wanted);
    pair.agree_on_members();
    wanted.into_iter().map(|(reason, [packets, _])| (reason, packets)).collect()
}

/// Other addresses and ports in every flow, so that checksums take every value; other limits; other flags.
fn shuffle(pair: &mut Pair, random: &mut StdRng) {
    let keys: Vec<_> = pair.model.flows.keys().copied().collect();
    for key in keys {
        let mut value = pair.model.flows[&key];
        value.destination = like(value.destination, random.r#gen::<[u32; 4]>().map(edge));
        (value.source_port, value.destination_port) = (port(random.r#gen()), port(random.r#gen()));
        use lanrage_daemon::datapath::table::Maps as _;
        pair.program.put_flow(key, value).unwrap();
        pair.model.flows.insert(key, value);
    }
    for slot in 1..pair.model.next_hops.len() {
        let mut hop = pair.model.next_hops[slot];
        hop.source = like(hop.source, random.r#gen::<[u32; 4]>().map(edge));
        pair.put_next_hop(slot, hop);
    }
    let bucket =
        |random: &mut StdRng, rate| Bucket::new(if random.gen_bool(0.5) { rate } else { Rate::UNLIMITED });
    let rate = Rate::new(random.gen_range(1000..1_000_000), random.gen_range(10..1000));
    let packets = bucket(random, rate);
    let rate = Rate::new(random.gen_range(100_000..1_000_000_000), 65_536);
    let bytes = bucket(random, rate);
    let now = pair.local.clock;
    let state = MemberState { packets, bytes, control_full_at: now, probes_full_at: now };
    pair.put_member(MEMBER, state);
    let limit = |random: &mut StdRng, rate| if random.gen_bool(0.5) { rate } else { Rate::UNLIMITED };
    let packets = Rate::new(random.gen_range(1000..1_000_000), 100);
    let bytes = Rate::new(random.gen_range(1_000_000..1_000_000_000), 1_000_000);
    let stun = Rate::new(random.gen_range(10..10_000), 10);
    let (packets, bytes, stun) = (limit(random, packets), limit(random, bytes), limit(random, stun));
    let (mixed, strict, paired) = (random.gen_bool(0.7), random.gen_bool(0.7), random.gen_bool(0.5));
    pair.change_local(|local| {
        (local.packets, local.bytes, local.stun) = (packets, bytes, stun);
        (local.packets_chunk, local.bytes_chunk) = (64, 65_536);
        local.flags = (u32::from(mixed) * Local::MIXED) | (u32::from(strict) * Local::STRICT);
        local.pair_ports = if paired { [Be16::new(3478), Be16::new(443)] } else { [Be16::default(); 2] };
    });
}

/// Mostly as given, sometimes a value at the edge of ones' complement arithmetic.
fn edge(word: u32) -> u32 {
    match word & 15 {
        0 => 0,
        1 => u32::MAX,
        2 => word & 0xffff,
        _ => word,
    }
}

fn port(word: u16) -> Be16 {
    Be16::new(match word & 7 {
        0 => 0,
        1 => u16::MAX,
        _ => word,
    })
}

/// Fixtures, and data of every flow in every dress.
fn templates() -> [Vec<Vec<u8>>; 2] {
    let mut good = Vec::new();
    for index in 0..INDEXES {
        for (from, to) in [(0, 0), (0, 1), (1, 2), (1, 3)] {
            for size in [16, 33, 57, 120] {
                good.push(udp_frame(SENDERS[from], RELAYS[to], &data(index, size)));
            }
            good.push(tagged_frame(SENDERS[from], RELAYS[to], 7, &data(index, 40)));
        }
    }
    let mut special: Vec<_> =
        fixtures().into_iter().map(|(_, frame)| frame).filter(|frame| frame.len() < 400).collect();
    // often enough to use up what strangers may send
    special.extend(std::iter::repeat_n(udp_frame(STRANGERS[0], RELAY, &stun(1, &[])), 20));
    [special, good]
}

fn random_frame(random: &mut StdRng, [special, good]: &[Vec<Vec<u8>>; 2], frame: &mut Vec<u8>) {
    frame.clear();
    let dice: u32 = random.r#gen();
    match dice & 31 {
        0 => {
            let length = random.gen_range(14..200);
            frame.resize(length, 0);
            random.fill(&mut frame[..]);
        }
        1..=11 => frame.extend(special.choose(random).unwrap()),
        _ => {
            frame.extend(good.choose(random).unwrap());
            // the sealed part, as far as it is in every frame
            let at = frame.len() - 14;
            random.fill(&mut frame[at..]);
        }
    }
    let changes = [0, 0, 1, 2][(dice >> 5 & 3) as usize];
    for _ in 0..changes {
        mutate(random, frame);
    }
    if dice >> 7 & 3 == 0 {
        fix_checksums(frame);
    }
}

fn mutate(random: &mut StdRng, frame: &mut Vec<u8>) {
    let interesting: &[(usize, &[u8])] = &[
        (14, &[0x45]),
        (14, &[0x46]),
        (20, &[0x20, 0]),
        (20, &[0x80, 0]),
        (20, &[44]),
        (20, &[60]),
        (21, &[1]),
        (22, &[1]),
        (22, &[255]),
        (40, &[0, 0]),
        (60, &[0, 0]),
        (40, &[0xff, 0xff]),
        (24, &[0, 0]),
        (24, &[0xff, 0xff]),
        (16, &[0x81, 0x00]),
    ];
    match random.gen_range(0..6) {
        0 => frame.truncate(random.gen_range(14..=frame.len())),
        1 => frame.extend((0..random.gen_range(1..8)).map(|_| 0)),
        2 => {
            let (at, bytes) = interesting.choose(random).unwrap();
            if let Some(field) = frame.get_mut(*at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        }
        3 => {
            let at = random.gen_range(0..frame.len());
            frame[at] ^= 1 << random.gen_range(0..8);
        }
        _ => {
            let at = random.gen_range(0..frame.len().min(106));
            frame[at] = random.r#gen();
        }
    }
}
