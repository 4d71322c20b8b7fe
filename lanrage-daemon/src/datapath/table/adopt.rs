//! Taking over what an earlier daemon left in the maps.

use super::{Destination, Flow, Maps, Slot, Table, Target, Watch, Way};
use lanrage_common::maps::{FlowKey, FlowValue, NextHop};
use lanrage_common::relay::{self, Leg};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

impl Table {
    /// Takes over flows and the next hops, by slot, that they point to. Writes nothing, unless an earlier daemon was
    /// interrupted while it moved the flows to one destination to another way.
    pub fn adopt(&mut self, maps: &mut impl Maps, flows: &[(FlowKey, FlowValue)], next_hops: &[NextHop]) {
        self.flows.reserve(flows.len());
        let mut torn = Vec::new();
        for (key, value) in flows {
            let (flow, target) = (flow(*key), target(*value));
            let destination = self.destination(value, next_hops);
            destination.flows.insert(flow);
            if destination.slot != value.next_hop {
                torn.push(flow);
            }
            self.flows.insert(flow, target);
        }
        for flow in torn {
            if let Some((flow, error)) = self.rewrite(maps, flow) {
                tracing::warn!(?flow, %error, "the daemon forwards a flow that the kernel dropped");
            }
        }
    }

    fn destination(&mut self, value: &FlowValue, next_hops: &[NextHop]) -> &mut Destination {
        let address = Ipv4Addr::from(value.destination.octets());
        if !self.destinations.contains_key(&address) {
            let hop = next_hops.get(value.next_hop as usize).filter(|hop| hop.ifindex != 0);
            let way = hop.map(|hop| Way { source: value.source.octets().into(), hop: *hop });
            let slot = hop.map_or(0, |hop| self.occupy(value.next_hop, *hop));
            self.destinations.insert(address, Destination { way, slot, ..Destination::default() });
            self.watches.push(Watch::Begin(address));
        }
        self.destinations.entry(address).or_default()
    }

    /// Counts one more user of a slot that is filled already.
    fn occupy(&mut self, number: u32, hop: NextHop) -> u32 {
        let free = |number| Slot { number, hop: NextHop::default(), users: 0 };
        let have = self.slots.len() as u32;
        self.slots.extend((have + 1..=number).map(free));
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.number == number) {
            slot.hop = hop;
            slot.users += 1;
        }
        number
    }
}

/// What the relay server calls an entry of the map.
pub fn restore(key: FlowKey, value: FlowValue) -> (relay::Flow, relay::Target) {
    let (Flow { source, index }, Target { destination, member }) = (flow(key), target(value));
    let local = SocketAddrV4::new(value.source.octets().into(), value.source_port.value());
    let leg = Leg { local: SocketAddr::V4(local), remote: SocketAddr::V4(destination) };
    let expires = Instant::now() + Duration::from_secs(190);
    (relay::Flow { source: SocketAddr::V4(source), index }, relay::Target { leg, member, expires })
}

fn flow(key: FlowKey) -> Flow {
    let source = SocketAddrV4::new(key.source.octets().into(), key.source_port.value());
    Flow { source, index: u32::from_le_bytes(key.index.octets()) }
}

fn target(value: FlowValue) -> Target {
    let destination = SocketAddrV4::new(value.destination.octets().into(), value.destination_port.value());
    Target { destination, member: value.member }
}
