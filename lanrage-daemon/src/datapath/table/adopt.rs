//! Taking over what an earlier daemon left in the maps.

use super::{Destination, Ends, Maps, Slot, Table, Watch, monotonic_now};
use lanrage_common::maps::{FlowKey, FlowValue, NextHop};
use lanrage_common::relay::{Flow, Leg, Target};
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
    /// Takes over flows and the next hops, by slot, that they point to. Writes nothing, unless an earlier daemon was
    /// interrupted while it moved the flows to one destination to another way.
    pub fn adopt(&mut self, maps: &mut impl Maps, flows: &[(FlowKey, FlowValue)], next_hops: &[NextHop]) {
        self.flows.reserve(flows.len());
        let (clock, mut torn) = (Clock::read(), Vec::new());
        for (key, value) in flows {
            let (flow, target) = restore(*key, *value, next_hops, clock);
            let destination = self.destination(Ends::of(&target), value, next_hops);
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

    fn destination(&mut self, ends: Ends, value: &FlowValue, next_hops: &[NextHop]) -> &mut Destination {
        let Self { destinations, slots, watches, .. } = self;
        destinations.entry(ends).or_insert_with(|| {
            let way = next_hops.get(value.next_hop as usize).filter(|hop| hop.ifindex != 0).copied();
            let slot = way.map_or(0, |hop| occupy(slots, value.next_hop, hop));
            watches.push(Watch::Begin(ends));
            Destination { way, slot, ..Destination::default() }
        })
    }
}

/// Counts one more user of a slot that is filled already.
fn occupy(slots: &mut Vec<Slot>, number: u32, hop: NextHop) -> u32 {
    let free = |number| Slot { number, hop: NextHop::default(), users: 0 };
    let have = slots.len() as u32;
    slots.extend((have + 1..=number).map(free));
    if let Some(slot) = slots.iter_mut().find(|slot| slot.number == number) {
        slot.hop = hop;
        slot.users += 1;
    }
    number
}

/// What the relay server calls an entry of the map. The relay's own address is the next hop's; it is unspecified where
/// that was not known.
pub fn restore(key: FlowKey, value: FlowValue, next_hops: &[NextHop], clock: Clock) -> (Flow, Target) {
    let remote = IpAddr::from(value.destination);
    let hop = next_hops.get(value.next_hop as usize).filter(|hop| hop.ifindex != 0);
    let local = hop.map_or_else(|| unspecified_like(remote), |hop| IpAddr::from(hop.source));
    let source = SocketAddr::new(key.source.into(), key.source_port.value());
    let leg = Leg {
        local: SocketAddr::new(local, value.source_port.value()),
        remote: SocketAddr::new(remote, value.destination_port.value()),
    };
    (
        Flow { source, index: u32::from_le_bytes(key.index.octets()) },
        Target { leg, member: value.member, expires: clock.end(value.expires) },
    )
}

fn unspecified_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
