//! `bench lane`: storms of announcements to everybody, and what takes longer than any other packet of the tunnel: a lane's,
//! and one of a device behind a gateway. And what the party firewall costs each.
//!
//! A lane carries 200 packets/s of one machine to one port. A storm is many games at once, so these go to [`PORTS`] ports in
//! turn; nothing is switched off. Each announcement has a number, and each member's copies are counted by it.

pub mod alone;
mod firewall;
mod home;
mod party;

pub use party::NAME as LAB;

use super::latency::Percentiles;
use super::machine::Machine;
use crate::lab::running::down;
use anyhow::Result;
use serde::Serialize;
use std::fmt;

/// Members that hear the one that announces.
pub const HEARERS: u8 = 15;
/// Ports that announcements go to.
const PORTS: u16 = 256;
const FIRST_PORT: u16 = 40_000;
/// Bytes of an announcement, its number first.
const PAYLOAD: usize = 100;

/// The port of an announcement.
fn port_of(number: u32) -> u16 {
    FIRST_PORT + (number % u32::from(PORTS)) as u16
}

/// An announcement.
fn announcement(number: u32) -> [u8; PAYLOAD] {
    let mut payload = [7; PAYLOAD];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload
}

/// The number of the announcement in a UDP datagram, header included.
fn number_in(udp: &[u8]) -> Option<u32> {
    let port = u16::from_be_bytes(*udp.get(2..)?.first_chunk()?);
    let is_ours = (FIRST_PORT..FIRST_PORT + PORTS).contains(&port) && udp.len() == 8 + PAYLOAD;
    is_ours.then(|| udp[8..].first_chunk().map(|number| u32::from_be_bytes(*number)))?
}

/// How often each member got each announcement.
struct Tally {
    copies: Vec<Vec<u8>>,
}

impl Tally {
    fn new(announcements: u32) -> Self {
        Self { copies: vec![vec![0; announcements as usize]; usize::from(HEARERS)] }
    }

    /// Whether it belongs to the storm.
    fn note(&mut self, member: usize, number: u32) -> bool {
        let copy = self.copies.get_mut(member).and_then(|copies| copies.get_mut(number as usize));
        copy.map(|copy| *copy = copy.saturating_add(1)).is_some()
    }

    fn count(&self, is_met: impl Fn(u8) -> bool) -> u64 {
        self.copies.iter().flatten().filter(|copies| is_met(**copies)).count() as u64
    }
}

/// One storm.
#[derive(Debug, Clone, Serialize)]
pub struct Storm {
    /// Which lane, and how far.
    pub name: &'static str,
    /// Announcements.
    pub announcements: u32,
    /// Of them, a second.
    pub per_second: f64,
    /// Members that each should get each once.
    pub members: u8,
    /// Copies that did not arrive.
    pub missing: u64,
    /// Copies that arrived more than once.
    pub doubled: u64,
}

impl Storm {
    fn new(name: &'static str, tally: &Tally, seconds: f64) -> Self {
        let announcements = tally.copies[0].len() as u32;
        Self {
            name,
            announcements,
            per_second: (f64::from(announcements) / seconds).round(),
            members: HEARERS,
            missing: tally.count(|copies| copies == 0),
            doubled: tally.count(|copies| copies > 1),
        }
    }
}

/// Round trips with and without something.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// With what.
    pub with: &'static str,
    /// Question and answer to one member each, µs.
    pub plain_us: Percentiles,
    /// With it, µs.
    pub with_us: Percentiles,
    /// What it added to the half of the questions, and to 99 of 100, µs.
    pub added_us: [f64; 2],
    /// Questions of each kind that were answered.
    pub questions: usize,
    /// Questions of both kinds that were not.
    pub lost: usize,
}

/// All figures.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where they were taken.
    pub machine: Machine,
    /// Storms.
    pub storms: Vec<Storm>,
    /// Round trips in a party of two.
    pub latency: Vec<Latency>,
    /// The party firewall, which every packet of a member passes.
    pub firewall: Vec<firewall::Cost>,
}

/// Takes all figures; `quick` takes fewer packets.
pub fn run(quick: bool) -> Result<Report> {
    let mut machine = Machine::look();
    let (many, some, questions) = if quick { (60_000, 10_000, 500) } else { (300_000, 50_000, 2_000) };
    let mut storms = vec![alone::storm(many)?, alone::storm_in_userspace(some)?];
    storms.extend(party::storms(some)?);
    let latency = party::round_trips(questions)?;
    let firewall =
        [1, 1_000].map(|flows| firewall::cost(flows, if quick { 1_000_000 } else { 10_000_000 })).to_vec();
    machine.load_after = super::machine::load();
    Ok(Report { machine, storms, latency, firewall })
}

/// Takes the benchmark's lab down when dropped.
#[derive(Debug)]
pub struct LabEnd;

impl Drop for LabEnd {
    fn drop(&mut self) {
        if let Err(error) = down(party::NAME) {
            eprintln!("error: {error:#}");
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { date, kernel, cpu, cores, load_before, .. } = &self.machine;
        writeln!(f, "{date}, Linux {kernel}, {cores} cores of {cpu}, load before {load_before:.1}\n")?;
        writeln!(
            f,
            "| storm to {HEARERS} members | announcements/s | sent | copies missing | doubled |\n|---|--:|--:|--:|--:|"
        )?;
        for storm in &self.storms {
            let Storm { name, per_second, announcements, missing, doubled, .. } = storm;
            writeln!(f, "| {name} | {per_second:.0} | {announcements} | {missing} | {doubled} |")?;
        }
        writeln!(
            f,
            "\n| round trip in a party of two, with | plain p50 | p99 | with it p50 | p99 | added p50 | p99 | questions | lost |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for Latency { with, plain_us, with_us, added_us, questions, lost } in &self.latency {
            writeln!(
                f,
                "| {with} | {:.0} µs | {:.0} µs | {:.0} µs | {:.0} µs | {:.0} µs | {:.0} µs | {questions} | {lost} |",
                plain_us.p50, plain_us.p99, with_us.p50, with_us.p99, added_us[0], added_us[1]
            )?;
        }
        writeln!(
            f,
            "\n| party firewall, flows | received, open | received, games | sent |\n|--:|--:|--:|--:|"
        )?;
        for firewall::Cost { flows, open_ns, games_ns, sent_ns } in &self.firewall {
            writeln!(f, "| {flows} | {open_ns:.0} ns | {games_ns:.0} ns | {sent_ns:.0} ns |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_known_by_their_number() {
        for number in [0, 1, 255, 256, 299_999] {
            let datagram =
                [&[15, 161][..], &port_of(number).to_be_bytes(), &[0; 4], &announcement(number)].concat();
            assert_eq!(number_in(&datagram), Some(number));
            assert_eq!(number_in(&datagram[..50]), None);
        }
        let mut tally = Tally::new(2);
        assert!(
            tally.note(0, 0)
                && tally.note(14, 1)
                && tally.note(14, 1)
                && !tally.note(15, 0)
                && !tally.note(0, 2)
        );
        let storm = Storm::new("x", &tally, 0.5);
        assert_eq!((storm.missing, storm.doubled, storm.per_second), (28, 1, 4.0));
    }
}
