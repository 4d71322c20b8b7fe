//! Flow tables compared by what a lookup of a random flow costs: the kernel's hash, buckets of cache lines, and the floor
//! that no table can go below. Key and value have the sizes of the relay's.

#[path = "../../../lanrage-ebpf/src/bench/bucket.rs"]
#[rustfmt::skip]
mod bucket;

use super::generator::{self, Traffic, load_object, program};
use crate::frames::MACS;
use anyhow::{Context, Result, bail, ensure};
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use bucket::{Key, Line, Value, WIDTH};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Displacements before an insertion gives up. At half load it needs a handful.
const KICKS: usize = 200;

/// Nanoseconds a lookup takes, over making up the key alone.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Lookup {
    /// `BPF_MAP_TYPE_HASH`.
    pub hash: f64,
    /// An array of cache-line entries in buckets, two for each key, at most half full.
    pub buckets: f64,
    /// An array whose index is known: one cache line, the floor.
    pub direct: f64,
}

/// By number of flows: medians of `rounds` alternated rounds.
pub fn measure(rounds: usize, repeat: u32) -> Result<BTreeMap<u32, Lookup>> {
    super::cost::FLOWS.into_iter().map(|flows| Ok((flows, one(flows, rounds, repeat)?))).collect()
}

fn one(flows: u32, rounds: usize, repeat: u32) -> Result<Lookup> {
    let table = Buckets::fill(flows)?;
    let mut hashed = prepared(flows, &[("PLAIN", flows)])?;
    let mut plain: HashMap<&mut MapData, Key, Value> = map(&mut hashed, "PLAIN")?;
    for flow in 0..flows {
        plain.insert(bucket::flow_key(flow), value(flow), 0)?;
    }
    let mut bucketed = prepared(flows, &[("LINES", table.lines.len() as u32)])?;
    table.write(&mut bucketed)?;
    let mut direct = prepared(flows, &[("LINES", flows)])?;
    let mut lines: Array<&mut MapData, Line> = map(&mut direct, "LINES")?;
    for flow in 0..flows {
        lines.set(flow, line(0, bucket::flow_key(flow), value(flow)), 0)?;
    }
    let mut samples: [Vec<f64>; 3] = Default::default();
    for round in 0..=rounds {
        let programs = [
            (&mut hashed, "lookup_plain"),
            (&mut bucketed, "lookup_buckets"),
            (&mut direct, "lookup_direct"),
        ];
        for ((ebpf, name), samples) in programs.into_iter().zip(&mut samples) {
            let cost = time(ebpf, name, repeat)? - time(ebpf, "lookup_none", repeat)?;
            // The first round only warms the caches.
            if round > 0 {
                samples.push(cost);
            }
        }
    }
    for ebpf in [&hashed, &bucketed, &direct] {
        let missed: PerCpuArray<&MapData, u64> = ebpf.map("SUNK").context("no map SUNK")?.try_into()?;
        let missed: u64 = missed.get(&0, 0)?.iter().sum();
        ensure!(missed == 0, "{missed} lookups of {flows} flows found nothing");
    }
    let [hash, buckets, direct] = samples.map(median);
    Ok(Lookup { hash, buckets, direct })
}

fn prepared(flows: u32, sizes: &[(&'static str, u32)]) -> Result<Ebpf> {
    let mut ebpf = load_object(sizes)?;
    for name in ["lookup_none", "lookup_plain", "lookup_buckets", "lookup_direct"] {
        program(&mut ebpf, name)?.load().with_context(|| format!("the kernel refused `{name}`"))?;
    }
    let anywhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
    let traffic = Traffic::wireguard(anywhere, anywhere, flows, 64);
    generator::set_job(&mut ebpf, &traffic, &traffic.frame(MACS))?;
    Ok(ebpf)
}

fn map<'a, M>(ebpf: &'a mut Ebpf, name: &str) -> Result<M>
where
    M: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
{
    Ok(ebpf.map_mut(name).with_context(|| format!("no map {name}"))?.try_into()?)
}

fn time(ebpf: &mut Ebpf, name: &str, repeat: u32) -> Result<f64> {
    generator::time(program(ebpf, name)?, &[0; 64], repeat)
}

fn value(flow: u32) -> Value {
    [flow.into(), 1, 2, 3]
}

fn line(seal: u64, key: Key, value: Value) -> Line {
    [seal, key[0], key[1], key[2], value[0], value[1], value[2], value[3]]
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    (samples[samples.len() / 2] * 10.0).round() / 10.0
}

/// The table as its only writer keeps it.
struct Buckets {
    lines: Vec<Option<Line>>,
    mask: u32,
    seed: u64,
}

impl Buckets {
    /// Twice the lines that are needed.
    fn fill(flows: u32) -> Result<Self> {
        let buckets = flows.max(2).next_power_of_two();
        let lines = vec![None; (buckets * WIDTH) as usize];
        let mut table = Self { lines, mask: buckets - 1, seed: rand::random() };
        for flow in 0..flows {
            table.insert(bucket::flow_key(flow), value(flow))?;
        }
        Ok(table)
    }

    fn places(&self, key: &Key) -> [u32; 4] {
        bucket::places(bucket::hash(key, self.seed), self.mask)
    }

    fn insert(&mut self, key: Key, value: Value) -> Result<()> {
        let mut homeless = line(bucket::seal(bucket::hash(&key, self.seed), &value), key, value);
        for _ in 0..KICKS {
            let places = self.places(&[homeless[1], homeless[2], homeless[3]]);
            if let Some(free) = places.into_iter().find(|place| self.lines[*place as usize].is_none()) {
                self.lines[free as usize] = Some(homeless);
                return Ok(());
            }
            let victim = &mut self.lines[places[rand::random::<usize>() % places.len()] as usize];
            match victim.replace(homeless) {
                Some(next) => homeless = next,
                None => return Ok(()),
            }
        }
        bail!("no room for a flow in a table that is half empty: the hash is bad");
    }

    fn write(&self, ebpf: &mut Ebpf) -> Result<()> {
        let mut lines: Array<&mut MapData, Line> = map(ebpf, "LINES")?;
        for (at, line) in self.lines.iter().enumerate() {
            if let Some(line) = line {
                lines.set(at as u32, line, 0)?;
            }
        }
        let mut shape: Array<&mut MapData, [u64; 2]> = map(ebpf, "SHAPE")?;
        shape.set(0, [self.mask.into(), self.seed], 0)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_is_found_in_one_of_its_places() {
        let table = Buckets::fill(50_000).unwrap();
        for flow in 0..50_000 {
            let key = bucket::flow_key(flow);
            let hash = bucket::hash(&key, table.seed);
            let expected = line(bucket::seal(hash, &value(flow)), key, value(flow));
            let mut places = table.places(&key).into_iter().map(|place| table.lines[place as usize]);
            assert!(places.any(|line| line == Some(expected)), "flow {flow}");
        }
    }

    #[test]
    fn a_half_written_line_does_not_fit_its_seal() {
        let key = bucket::flow_key(7);
        let hash = bucket::hash(&key, 1);
        let (old, new): (Value, Value) = ([1, 2, 3, 4], [5, 6, 7, 8]);
        let seal = bucket::seal(hash, &new);
        for mixed in 1..15_u8 {
            let word = |at: usize| if mixed >> at & 1 == 1 { new[at] } else { old[at] };
            assert_ne!(bucket::seal(hash, &[word(0), word(1), word(2), word(3)]), seal, "mix {mixed:04b}");
        }
    }
}
