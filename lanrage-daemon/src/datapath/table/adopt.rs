//! Taking over what an earlier daemon left in the maps.

use super::{Destination, Ends, Maps, Table, monotonic_now};
use foldhash::fast::RandomState;
use lanrage_common::maps::{FlowKey, FlowValue, NextHop};
use lanrage_common::relay::{Flow, Leg, Target};
use lanrage_common::wire::Address;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// One moment on both clocks: entries end by the kernel's, the relay server goes by the other.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    kernel_s: u64,
    now: Instant,
}

impl Clock {
    /// Now.
    pub fn read() -> Self {
        Self { kernel_s: monotonic_now(), now: Instant::now() }
    }

    fn end(self, expires: u32) -> Instant {
        self.now + Duration::from_secs(u64::from(expires).saturating_sub(self.kernel_s))
    }
}

impl Table {
    /// Takes over flows and the next hops, by slot, that they point to. Flows are stale where an earlier daemon was
    /// interrupted while it moved those to one destination to another way.
    pub fn adopt(
        &mut self,
        maps: &mut impl Maps,
        flows: impl ExactSizeIterator<Item = (FlowKey, FlowValue)>,
        next_hops: &[NextHop],
    ) {
        self.flows.reserve(flows.len());
        let mut known: HashMap<(Address, u32), u32, RandomState> = HashMap::default();
        for (key, value) in flows {
            let number = *known
                .entry((value.destination, value.next_hop))
                .or_insert_with(|| self.adopt_destination(&value, next_hops));
            self.link(key, number);
        }
        self.slots.tidy(maps, next_hops);
        let torn = |destination: &mut Destination| {
            destination.stale = if destination.old_slots.is_empty() { 0 } else { destination.flows.len() };
            destination.stale > 0
        };
        let destinations = (0..).zip(self.destinations.iter_mut().flatten());
        self.stale = destinations.filter_map(|(number, it)| torn(it).then_some(number)).collect();
    }

    /// The destination to which an entry leads. What slots its flows lead by stays as it is while they do.
    fn adopt_destination(&mut self, value: &FlowValue, next_hops: &[NextHop]) -> u32 {
        let (slot, hop) = (value.next_hop, next_hops.get(value.next_hop as usize).copied());
        if slot > 0
            && let Some(hop) = hop
        {
            self.slots.occupy(slot, hop);
        }
        let ends = Ends { local: own_address(value, next_hops), remote: value.destination.into() };
        let way = hop.filter(|hop| hop.ifindex != 0);
        let number = self.numbers.get(&ends).copied();
        let number = number.unwrap_or_else(|| self.begin(ends, way, way.map_or(0, |_| slot)));
        if let Some(destination) = self.destination_mut(number).filter(|it| it.slot != slot) {
            destination.old_slots.push(slot);
        }
        number
    }
}

/// What the relay server calls an entry of the map. The relay's own address is the next hop's; it is unspecified where
/// that was not known.
pub fn restore(key: FlowKey, value: FlowValue, next_hops: &[NextHop], clock: Clock) -> (Flow, Target) {
    let source = SocketAddr::new(key.source.into(), key.source_port.value());
    let leg = Leg {
        local: SocketAddr::new(own_address(&value, next_hops), value.source_port.value()),
        remote: SocketAddr::new(value.destination.into(), value.destination_port.value()),
    };
    (
        Flow { source, index: u32::from_le_bytes(key.index.octets()) },
        Target { leg, member: value.member, expires: clock.end(value.expires) },
    )
}

fn own_address(value: &FlowValue, next_hops: &[NextHop]) -> IpAddr {
    let hop = next_hops.get(value.next_hop as usize).filter(|hop| hop.ifindex != 0);
    hop.map_or_else(|| unspecified_like(value.destination.into()), |hop| hop.source.into())
}

fn unspecified_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
