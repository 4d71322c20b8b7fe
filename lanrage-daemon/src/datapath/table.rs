//! What should be in the kernel's maps, and the writes that make it so.
//!
//! Flows to one destination share its [`Way`]; destinations behind one router share a next-hop slot. Slot 0 is always
//! empty: flows whose way is not known point there, so the kernel passes their packets up under `no_next_hop`.

mod adopt;

pub use adopt::restore;

use super::InstallError;
use lanrage_common::maps::{FlowKey, FlowValue, NextHop};
use lanrage_common::relay;
use lanrage_common::wire::{Be16, Be32};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// The kernel maps as the table writes them.
pub trait Maps {
    /// Adds or replaces a flow.
    fn put_flow(&mut self, key: FlowKey, value: FlowValue) -> Result<(), InstallError>;
    /// Removes a flow, if it is there.
    fn remove_flow(&mut self, key: FlowKey);
    /// Fills a next-hop slot.
    fn put_next_hop(&mut self, slot: u32, hop: NextHop) -> Result<(), InstallError>;
    /// How many next-hop slots there are.
    fn next_hops(&self) -> u32;
}

/// How this host reaches a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// This host's address towards it.
    pub source: Ipv4Addr,
    /// The first hop.
    pub hop: NextHop,
}

/// A change of the destinations whose way must be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// The first flow to this destination came.
    Begin(Ipv4Addr),
    /// The last flow to this destination went.
    End(Ipv4Addr),
}

/// A flow between IPv4 members: the only ones that the kernel program forwards so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    source: SocketAddrV4,
    index: u32,
}

impl Flow {
    fn new(flow: relay::Flow) -> Option<Self> {
        let SocketAddr::V4(source) = flow.source else { return None };
        Some(Self { source, index: flow.index })
    }
}

#[derive(Debug, Clone, Copy)]
struct Target {
    destination: SocketAddrV4,
    member: u32,
}

impl Target {
    fn new(target: relay::Target) -> Option<Self> {
        let SocketAddr::V4(destination) = target.leg.remote else { return None };
        Some(Self { destination, member: target.member })
    }
}

#[derive(Debug, Default)]
struct Destination {
    way: Option<Way>,
    slot: u32,
    flows: HashSet<Flow>,
}

#[derive(Debug)]
struct Slot {
    number: u32,
    hop: NextHop,
    users: usize,
}

/// Flows, destinations and next hops.
#[derive(Debug)]
pub struct Table {
    /// Source port of everything forwarded, and source address unless the way decides.
    listen: SocketAddrV4,
    flows: HashMap<Flow, Target>,
    destinations: BTreeMap<Ipv4Addr, Destination>,
    slots: Vec<Slot>,
    watches: Vec<Watch>,
}

impl Table {
    /// An empty table for a relay that listens there; the address may be unspecified.
    pub fn new(listen: SocketAddrV4) -> Self {
        Self {
            listen,
            flows: HashMap::new(),
            destinations: BTreeMap::new(),
            slots: Vec::new(),
            watches: Vec::new(),
        }
    }

    /// Changes of watched destinations since the last call, in order.
    pub fn take_watches(&mut self) -> Vec<Watch> {
        std::mem::take(&mut self.watches)
    }

    /// Adds a flow or moves it to a new target. After an error the flow is not in the kernel; nor is one with IPv6,
    /// whose packets the kernel passes up.
    pub fn install(
        &mut self,
        maps: &mut impl Maps,
        flow: relay::Flow,
        target: relay::Target,
    ) -> Result<(), InstallError> {
        let (Some(ours), Some(target)) = (Flow::new(flow), Target::new(target)) else {
            self.remove(maps, flow);
            return Ok(());
        };
        self.install_v4(maps, ours, target)
    }

    fn install_v4(&mut self, maps: &mut impl Maps, flow: Flow, target: Target) -> Result<(), InstallError> {
        if self.flows.get(&flow).is_some_and(|old| old.destination.ip() != target.destination.ip()) {
            self.unlink(maps, flow);
        }
        if let Err(error) = maps.put_flow(key(flow), self.value(target)) {
            self.remove_v4(maps, flow);
            return Err(error);
        }
        self.flows.insert(flow, target);
        let address = *target.destination.ip();
        if !self.destinations.contains_key(&address) {
            self.watches.push(Watch::Begin(address));
        }
        self.destinations.entry(address).or_default().flows.insert(flow);
        Ok(())
    }

    /// Removes a flow.
    pub fn remove(&mut self, maps: &mut impl Maps, flow: relay::Flow) {
        if let Some(flow) = Flow::new(flow) {
            self.remove_v4(maps, flow);
        }
    }

    fn remove_v4(&mut self, maps: &mut impl Maps, flow: Flow) {
        maps.remove_flow(key(flow));
        self.unlink(maps, flow);
        self.flows.remove(&flow);
    }

    /// A destination's way is now this one, or not known. Gives the flows that the kernel refused to keep.
    pub fn set_way(
        &mut self,
        maps: &mut impl Maps,
        address: Ipv4Addr,
        way: Option<Way>,
    ) -> Vec<(Flow, InstallError)> {
        let Some(destination) = self.destinations.get(&address) else { return Vec::new() };
        if destination.way == way {
            return Vec::new();
        }
        let old_slot = destination.slot;
        let slot = way.map_or(0, |way| self.acquire(maps, way.hop));
        let Some(destination) = self.destinations.get_mut(&address) else { return Vec::new() };
        destination.way = way;
        destination.slot = slot;
        let flows: Vec<Flow> = destination.flows.iter().copied().collect();
        let refused = flows.into_iter().filter_map(|flow| self.rewrite(maps, flow)).collect();
        self.release(maps, old_slot);
        refused
    }

    fn rewrite(&mut self, maps: &mut impl Maps, flow: Flow) -> Option<(Flow, InstallError)> {
        let target = *self.flows.get(&flow)?;
        let error = maps.put_flow(key(flow), self.value(target)).err()?;
        maps.remove_flow(key(flow));
        Some((flow, error))
    }

    fn value(&self, target: Target) -> FlowValue {
        let destination = self.destinations.get(target.destination.ip());
        let way = destination.and_then(|destination| destination.way);
        let source = match *self.listen.ip() {
            Ipv4Addr::UNSPECIFIED => way.map_or(Ipv4Addr::UNSPECIFIED, |way| way.source),
            listen => listen,
        };
        FlowValue {
            source: Be32::from_octets(source.octets()),
            destination: Be32::from_octets(target.destination.ip().octets()),
            source_port: Be16::new(self.listen.port()),
            destination_port: Be16::new(target.destination.port()),
            next_hop: destination.map_or(0, |destination| destination.slot),
            member: target.member,
        }
    }

    /// Takes a flow off its destination.
    fn unlink(&mut self, maps: &mut impl Maps, flow: Flow) {
        let Some(target) = self.flows.get(&flow) else { return };
        let address = *target.destination.ip();
        let Some(destination) = self.destinations.get_mut(&address) else { return };
        destination.flows.remove(&flow);
        if destination.flows.is_empty() {
            let slot = destination.slot;
            self.destinations.remove(&address);
            self.release(maps, slot);
            self.watches.push(Watch::End(address));
        }
    }

    /// The slot that holds a next hop; 0 when there is no room for another, which leaves its flows to the daemon.
    fn acquire(&mut self, maps: &mut impl Maps, hop: NextHop) -> u32 {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.hop == hop && slot.users > 0) {
            slot.users += 1;
            return slot.number;
        }
        let free = self.slots.iter().position(|slot| slot.users == 0);
        let number = free.map_or(self.slots.len() as u32 + 1, |at| at as u32 + 1);
        if number >= maps.next_hops() || maps.put_next_hop(number, hop).is_err() {
            tracing::warn!(number, "no room for another next hop: the daemon forwards to it");
            return 0;
        }
        let slot = Slot { number, hop, users: 1 };
        match free {
            Some(at) => self.slots[at] = slot,
            None => self.slots.push(slot),
        }
        number
    }

    fn release(&mut self, maps: &mut impl Maps, number: u32) {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.number == number) else { return };
        slot.users -= 1;
        if slot.users == 0 && maps.put_next_hop(number, NextHop::default()).is_err() {
            tracing::warn!(number, "cannot clear a next hop");
        }
    }
}

fn key(flow: Flow) -> FlowKey {
    FlowKey {
        source: Be32::from_octets(flow.source.ip().octets()),
        index: Be32::from_octets(flow.index.to_le_bytes()),
        source_port: Be16::new(flow.source.port()),
        reserved: Be16::default(),
    }
}
