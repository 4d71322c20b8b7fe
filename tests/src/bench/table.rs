//! Filling the relay's kernel maps as its daemon would.

use super::generator::Traffic;
use anyhow::Result;
use lanrage_common::maps::{DEFAULT_MEMBERS, FlowKey, FlowValue, Local, NextHop};
use lanrage_common::wire::{Be16, Be32};
use lanrage_daemon::datapath::table::Maps as _;
use lanrage_daemon::datapath::xdp::Program;
use std::net::SocketAddrV4;

/// Flows of one member, as in a party of five.
const FLOWS_A_MEMBER: u32 = 4;

/// Where a table's flows leave.
#[derive(Debug, Clone, Copy)]
pub struct Exit {
    /// Way to the next hop.
    pub hop: NextHop,
    /// The relay's address there.
    pub source: SocketAddrV4,
    /// The receiver.
    pub destination: SocketAddrV4,
}

/// A loaded program that forwards all flows of `traffic`.
pub fn loaded(traffic: &Traffic, exit: Exit) -> Result<Program> {
    let mut program = Program::load(traffic.flows)?;
    let mut local = Local::default();
    local.v4[0] = Be32::from_octets(traffic.destination.ip().octets());
    local.ports[0] = Be16::new(traffic.destination.port());
    program.set_local(local)?;
    program.put_next_hop(1, NextHop { source: (*exit.source.ip()).into(), ..exit.hop })?;
    for flow in 0..traffic.flows {
        program.put_flow(key(traffic.source_of(flow), traffic.index_of(flow)), value(exit, flow))?;
    }
    Ok(program)
}

/// The key of a flow.
pub fn key(source: SocketAddrV4, index: u32) -> FlowKey {
    FlowKey {
        source: (*source.ip()).into(),
        index: Be32::from_octets(index.to_le_bytes()),
        source_port: Be16::new(source.port()),
        reserved: Be16::default(),
    }
}

/// Where a flow goes.
fn value(exit: Exit, flow: u32) -> FlowValue {
    FlowValue {
        destination: (*exit.destination.ip()).into(),
        source_port: Be16::new(exit.source.port()),
        destination_port: Be16::new(exit.destination.port()),
        next_hop: 1,
        member: (1 + flow / FLOWS_A_MEMBER) % DEFAULT_MEMBERS,
        expires: u32::MAX,
    }
}
