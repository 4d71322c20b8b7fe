//! What the relay's program costs a packet, over a program that does nothing.

use super::generator::{Programs, Traffic};
use super::table::{self, Exit};
use crate::frames::MACS;
use anyhow::{Result, ensure};
use lanrage_common::maps::NextHop;
use lanrage_common::reason::Reason;
use lanrage_daemon::datapath::xdp::Program;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

const RELAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 3478);
const SENDER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 7), 20_000);
const RECEIVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), 51820);
/// Numbers of flows, each packet belonging to a random one.
pub const FLOWS: [u32; 5] = [1, 1_000, 10_000, 100_000, 1_000_000];
/// UDP payload; the program never looks at most of it.
const PAYLOAD: usize = 158;

/// Nanoseconds over the empty program by number of flows: the median of `rounds` pairs.
pub fn measure(rounds: usize, repeat: u32) -> Result<BTreeMap<u32, f64>> {
    let mut programs = Programs::load()?;
    FLOWS.into_iter().map(|flows| Ok((flows, one(&mut programs, flows, rounds, repeat)?))).collect()
}

fn one(programs: &mut Programs, flows: u32, rounds: usize, repeat: u32) -> Result<f64> {
    let traffic = Traffic::wireguard(SENDER, RELAY, flows, PAYLOAD);
    // Test runs come in by loopback, interface 1.
    let hop = NextHop::new(1, 1500, [2; 6], [4; 6], (*RELAY.ip()).into());
    let mut program = table::loaded(&traffic, Exit { hop, source: RELAY, destination: RECEIVER }, &[])?;
    let frame = traffic.frame(MACS);
    programs.set_traffic(&traffic, &frame)?;
    let mut pair = |repeat| -> Result<f64> {
        programs.set_next_empty()?;
        let empty = programs.time_prepared(&frame, repeat)?;
        programs.set_next(program.xdp())?;
        Ok(programs.time_prepared(&frame, repeat)? - empty)
    };
    pair(repeat / 4)?;
    let mut rounds: Vec<f64> = (0..rounds).map(|_| pair(repeat)).collect::<Result<_>>()?;
    let missed = not_forwarded(&program);
    ensure!(missed == 0, "{missed} frames were not forwarded: this would measure something else");
    rounds.sort_by(f64::total_cmp);
    Ok((rounds[rounds.len() / 2] * 10.0).round() / 10.0)
}

fn not_forwarded(program: &Program) -> u64 {
    let reasons = program.reasons().into_iter();
    reasons.filter(|(reason, _)| *reason != Reason::Forwarded).map(|(_, counter)| counter.packets).sum()
}
