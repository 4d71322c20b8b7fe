//! What the relay's program costs a packet, over a program that does nothing.

use super::generator::{Programs, Traffic};
use anyhow::{Result, ensure};
use lanrage_common::maps::{FlowKey, FlowValue, Local, NextHop};
use lanrage_common::reason::Reason;
use lanrage_common::wire::{Be16, Be32};
use lanrage_daemon::datapath::table::Maps as _;
use lanrage_daemon::datapath::xdp::Program;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

const RELAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 3478);
const SENDER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 51820);
/// Numbers of flows, each packet belonging to a random one.
pub const FLOWS: [u32; 4] = [1, 1_000, 10_000, 100_000];

/// Nanoseconds over the empty program by number of flows: the median of `rounds` pairs.
pub fn measure(rounds: usize, repeat: u32) -> Result<BTreeMap<u32, f64>> {
    let mut programs = Programs::load()?;
    let mut costs = BTreeMap::new();
    for flows in FLOWS {
        let mut program = loaded(flows)?;
        let traffic =
            Traffic { source: SENDER, destination: RELAY, index: 0, flows, payload: 158, sink_port: 0 };
        let frame = traffic.frame();
        programs.set_traffic(&traffic, crate::frames::MACS, 0)?;
        let mut rounds: Vec<f64> = (0..rounds)
            .map(|_| {
                programs.set_next_empty()?;
                let empty = programs.time_prepared(&frame, repeat)?;
                programs.set_next(program.xdp())?;
                Ok(programs.time_prepared(&frame, repeat)? - empty)
            })
            .collect::<Result<_>>()?;
        let missed: u64 = others(&program);
        ensure!(missed == 0, "{missed} frames were not forwarded: this would measure something else");
        rounds.sort_by(f64::total_cmp);
        costs.insert(flows, rounds[rounds.len() / 2]);
    }
    Ok(costs)
}

/// Frames that were not forwarded.
fn others(program: &Program) -> u64 {
    let reasons = program.reasons().into_iter();
    reasons.filter(|(reason, _)| *reason != Reason::Forwarded).map(|(_, counter)| counter.packets).sum()
}

fn loaded(flows: u32) -> Result<Program> {
    let mut program = Program::load(flows)?;
    let mut local = Local::default();
    local.addresses[0] = Be32::from_octets(RELAY.ip().octets());
    local.ports[0] = Be16::new(RELAY.port());
    program.set_local(local)?;
    // Test runs come in by loopback, interface 1.
    program.put_next_hop(1, NextHop::new(1, 1500, [2; 6], [4; 6]))?;
    let value = flow_value(RELAY, SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), 51820));
    for index in 0..flows {
        program.put_flow(flow_key(SENDER, index), value)?;
    }
    Ok(program)
}

/// The key of a flow.
pub fn flow_key(source: SocketAddrV4, index: u32) -> FlowKey {
    FlowKey {
        source: Be32::from_octets(source.ip().octets()),
        index: Be32::from_octets(index.to_le_bytes()),
        source_port: Be16::new(source.port()),
        reserved: Be16::default(),
    }
}

/// A flow from the relay's address to a destination behind next hop 1.
pub fn flow_value(relay: SocketAddrV4, destination: SocketAddrV4) -> FlowValue {
    FlowValue {
        source: Be32::from_octets(relay.ip().octets()),
        destination: Be32::from_octets(destination.ip().octets()),
        source_port: Be16::new(relay.port()),
        destination_port: Be16::new(destination.port()),
        next_hop: 1,
        member: 1,
    }
}
