//! What should be in the kernel's maps, and the writes that make it so.
//!
//! Flows to one destination share its [`Way`]; destinations behind one router share a next-hop slot. Slot 0 is always
//! empty: flows whose way is not known point there, so the kernel passes their packets up under `no_next_hop`.

mod adopt;

pub use adopt::{Clock, restore};

use super::InstallError;
use lanrage_common::maps::{FlowKey, FlowValue, MemberState, NextHop, SourceKey};
use lanrage_common::relay::{Flow, Target};
use lanrage_common::wire::{Be16, Be32};
use nix::time::{ClockId, clock_gettime};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

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
    /// Gives a member its budgets, full.
    fn put_member(&mut self, slot: u32, state: MemberState) -> Result<(), InstallError>;
    /// Says who is bound at an address.
    fn put_source(&mut self, source: SourceKey, slot: u32) -> Result<(), InstallError>;
    /// Says that nobody is.
    fn remove_source(&mut self, source: SourceKey);
    /// Where somebody is said to be bound.
    fn sources(&self) -> Vec<SourceKey>;
}

/// Between whom packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ends {
    /// The relay's address; unspecified = the route decides.
    pub local: IpAddr,
    /// The receiving member's.
    pub remote: IpAddr,
}

impl Ends {
    fn of(target: &Target) -> Self {
        Self { local: target.leg.local.ip(), remote: target.leg.remote.ip() }
    }
}

/// A change of the destinations whose way must be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// The first flow to this destination came.
    Begin(Ends),
    /// The last flow to this destination went.
    End(Ends),
}

#[derive(Debug, Default)]
struct Destination {
    way: Option<NextHop>,
    slot: u32,
    flows: HashSet<Flow>,
}

#[derive(Debug)]
struct Slot {
    number: u32,
    hop: NextHop,
    users: usize,
}

/// Flows, destinations and next hops. A million flows must be there again within a second of a restart: hence the hash.
#[derive(Debug, Default)]
pub struct Table {
    flows: HashMap<Flow, Target>,
    destinations: HashMap<Ends, Destination>,
    slots: Vec<Slot>,
    watches: Vec<Watch>,
}

impl Table {
    /// Destinations of flows to which no way is known.
    pub fn unresolved(&self) -> usize {
        self.destinations.values().filter(|destination| destination.way.is_none()).count()
    }

    /// Changes of watched destinations since the last call, in order.
    pub fn take_watches(&mut self) -> Vec<Watch> {
        std::mem::take(&mut self.watches)
    }

    /// Adds a flow or moves it to a new target. After an error the flow is not in the kernel.
    pub fn install(&mut self, maps: &mut impl Maps, flow: Flow, target: Target) -> Result<(), InstallError> {
        let ends = Ends::of(&target);
        if self.flows.get(&flow).is_some_and(|old| Ends::of(old) != ends) {
            self.unlink(maps, flow);
        }
        if let Err(error) = maps.put_flow(key(flow), self.value(target)) {
            self.remove(maps, flow);
            return Err(error);
        }
        self.flows.insert(flow, target);
        if !self.destinations.contains_key(&ends) {
            self.watches.push(Watch::Begin(ends));
        }
        self.destinations.entry(ends).or_default().flows.insert(flow);
        Ok(())
    }

    /// Removes a flow.
    pub fn remove(&mut self, maps: &mut impl Maps, flow: Flow) {
        maps.remove_flow(key(flow));
        self.unlink(maps, flow);
        self.flows.remove(&flow);
    }

    /// A destination's way is now this one, or not known. Gives the flows that the kernel refused to keep.
    pub fn set_way(
        &mut self,
        maps: &mut impl Maps,
        ends: Ends,
        way: Option<NextHop>,
    ) -> Vec<(Flow, InstallError)> {
        let Some(destination) = self.destinations.get(&ends) else { return Vec::new() };
        if destination.way == way {
            return Vec::new();
        }
        let old_slot = destination.slot;
        let slot = way.map_or(0, |way| self.acquire(maps, way));
        let Some(destination) = self.destinations.get_mut(&ends) else { return Vec::new() };
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
        let destination = self.destinations.get(&Ends::of(&target));
        FlowValue {
            destination: target.leg.remote.ip().into(),
            destination_port: Be16::new(target.leg.remote.port()),
            source_port: Be16::new(target.leg.local.port()),
            next_hop: destination.map_or(0, |destination| destination.slot),
            member: target.member,
            expires: monotonic_seconds(target.expires),
        }
    }

    /// Takes a flow off its destination.
    fn unlink(&mut self, maps: &mut impl Maps, flow: Flow) {
        let Some(target) = self.flows.get(&flow) else { return };
        let ends = Ends::of(target);
        let Some(destination) = self.destinations.get_mut(&ends) else { return };
        destination.flows.remove(&flow);
        if destination.flows.is_empty() {
            let slot = destination.slot;
            self.destinations.remove(&ends);
            self.release(maps, slot);
            self.watches.push(Watch::End(ends));
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
        source: flow.source.ip().into(),
        index: Be32::from_octets(flow.index.to_le_bytes()),
        source_port: Be16::new(flow.source.port()),
        reserved: Be16::default(),
    }
}

/// A moment on the kernel's clock, to the second after it.
fn monotonic_seconds(at: Instant) -> u32 {
    let left = at.saturating_duration_since(Instant::now()).as_secs();
    u32::try_from(monotonic_now().saturating_add(left).saturating_add(1)).unwrap_or(u32::MAX)
}

/// Seconds on the kernel's clock.
fn monotonic_now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| u64::try_from(now.tv_sec()).unwrap_or(0))
}
