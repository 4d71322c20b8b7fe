//! Filling the relay's kernel maps as its daemon would.

use super::generator::Traffic;
use anyhow::Result;
use lanrage_common::maps::{DEFAULT_MEMBERS, FlowKey, FlowValue, Local, MemberState, NextHop};
use lanrage_common::police::{Bucket, Rate};
use lanrage_common::wire::{Be16, Be32};
use lanrage_daemon::datapath::table::Maps as _;
use lanrage_daemon::datapath::xdp::Program;
use std::net::SocketAddrV4;

/// Members' slots, of which neighbours are not neighbouring flows'.
const SPREAD: u32 = 61;

/// Budgets that everything passes, for each member and for all together: they are counted, but nothing exceeds them.
const PACKETS: Rate = Rate::of_packets(100_000_000);
/// Bytes, see [`PACKETS`].
const BYTES: Rate = Rate::of_bytes(400_000_000_000);

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

/// One direction of a pair: what comes from that address with that receiver index leaves there.
#[derive(Debug, Clone, Copy)]
pub struct Direction {
    /// The sender.
    pub source: SocketAddrV4,
    /// Receiver index.
    pub index: u32,
    /// To where.
    pub exit: Exit,
}

/// A loaded program that forwards all flows of `traffic`, and `more`.
pub fn loaded(traffic: &Traffic, exit: Exit, more: &[Direction]) -> Result<Program> {
    let mut program = Program::load(traffic.flows + more.len() as u32)?;
    let mut local = Local::default();
    let own = more.iter().map(|direction| direction.exit.source).chain([traffic.destination, exit.source]);
    for (place, own) in local.v4.iter_mut().zip(own) {
        *place = Be32::from_octets(own.ip().octets());
    }
    local.ports[0] = Be16::new(traffic.destination.port());
    (local.packets, local.bytes) = (PACKETS, BYTES);
    (local.packets_chunk, local.bytes_chunk) = (64, 1 << 17);
    program.set_local(local)?;
    let budgets =
        MemberState { packets: Bucket::new(PACKETS), bytes: Bucket::new(BYTES), ..MemberState::default() };
    for member in 0..DEFAULT_MEMBERS {
        program.put_member(member, budgets)?;
    }
    program.put_next_hop(1, NextHop { source: (*exit.source.ip()).into(), ..exit.hop })?;
    for flow in 0..traffic.flows {
        // Each flow has a source of its own, so it is a member's of its own, as long as there are slots.
        let member = 1 + flow % DEFAULT_MEMBERS * SPREAD % (DEFAULT_MEMBERS - 1);
        let key = key(traffic.source_of(flow), traffic.index_of(flow));
        program.put_flow(key, value(exit, 1, member))?;
    }
    for (hop, Direction { source, index, exit }) in (2..).zip(more) {
        program.put_next_hop(hop, NextHop { source: (*exit.source.ip()).into(), ..exit.hop })?;
        program.put_flow(key(*source, *index), value(*exit, hop, 0))?;
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
fn value(exit: Exit, next_hop: u32, member: u32) -> FlowValue {
    FlowValue {
        destination: (*exit.destination.ip()).into(),
        source_port: Be16::new(exit.source.port()),
        destination_port: Be16::new(exit.destination.port()),
        next_hop,
        member,
        expires: u32::MAX,
    }
}
