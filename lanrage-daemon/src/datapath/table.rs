//! What should be in the kernel's maps, and the writes that make it so.
//!
//! Flows to one destination share its way; destinations behind one router share a next-hop slot. Slot 0 is always
//! empty: flows whose way is not known point there, so the kernel passes their packets up under `no_next_hop`.
//!
//! What a flow's packets get is kept in the kernel alone; the table remembers to which destination it belongs. When the
//! way of a destination changes, its flows are stale until [`Table::catch_up`] has come to them, and both slots are held.

mod adopt;
#[cfg(test)]
mod tests;
mod ways;

pub use adopt::{Clock, restore};

use super::InstallError;
use foldhash::fast::RandomState;
use lanrage_common::maps::{FlowKey, FlowValue, MemberState, NextHop, SourceKey};
use lanrage_common::relay::{Flow, Target};
use lanrage_common::wire::{Be16, Be32};
use nix::time::{ClockId, clock_gettime};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

/// The kernel maps as the table writes them.
pub trait Maps {
    /// Adds or replaces a flow.
    fn put_flow(&mut self, key: FlowKey, value: FlowValue) -> Result<(), InstallError>;
    /// A flow's entry.
    fn flow(&self, key: FlowKey) -> Option<FlowValue>;
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

/// Where packets to a destination go.
#[derive(Debug)]
struct Destination {
    ends: Ends,
    way: Option<NextHop>,
    slot: u32,
    flows: Vec<FlowKey>,
    /// So many of the flows, the first ones, may still lead by one of the old slots.
    stale: usize,
    old_slots: Vec<u32>,
}

/// A flow's destination, and its place among the flows there.
#[derive(Debug, Clone, Copy)]
struct Place {
    destination: u32,
    at: u32,
}

/// Flows, destinations and next hops. A million flows must be there again within a second of a restart, and fit into a
/// small server: hence few bytes and one hash for each.
#[derive(Debug, Default)]
pub struct Table {
    flows: HashMap<FlowKey, Place, RandomState>,
    numbers: HashMap<Ends, u32, RandomState>,
    /// By number.
    destinations: Vec<Option<Destination>>,
    /// Numbers that are free.
    free: Vec<u32>,
    /// Destinations with stale flows, and perhaps some that had such.
    stale: VecDeque<u32>,
    slots: ways::Slots,
    watches: Vec<Watch>,
}

impl Table {
    /// Destinations of flows to which no way is known.
    pub fn unresolved(&self) -> usize {
        self.destinations.iter().flatten().filter(|destination| destination.way.is_none()).count()
    }

    /// Changes of watched destinations since the last call, in order.
    pub fn take_watches(&mut self) -> Vec<Watch> {
        std::mem::take(&mut self.watches)
    }

    /// Adds a flow or moves it to a new target. After an error the flow is not in the kernel.
    pub fn install(&mut self, maps: &mut impl Maps, flow: Flow, target: Target) -> Result<(), InstallError> {
        let (key, ends) = (key(flow), Ends::of(&target));
        let number = self.numbers.get(&ends).copied();
        if self.flows.get(&key).is_some_and(|place| Some(place.destination) != number) {
            self.unlink(maps, key);
        }
        let slot = number.and_then(|number| self.destination(number)).map_or(0, |known| known.slot);
        if let Err(error) = maps.put_flow(key, value(target, slot)) {
            self.remove(maps, flow);
            return Err(error);
        }
        if !self.flows.contains_key(&key) {
            let number = number.unwrap_or_else(|| self.begin(ends, None, 0));
            self.link(key, number);
        }
        Ok(())
    }

    /// Removes a flow.
    pub fn remove(&mut self, maps: &mut impl Maps, flow: Flow) {
        maps.remove_flow(key(flow));
        self.unlink(maps, key(flow));
    }

    fn destination(&self, number: u32) -> Option<&Destination> {
        self.destinations.get(number as usize)?.as_ref()
    }

    fn destination_mut(&mut self, number: u32) -> Option<&mut Destination> {
        self.destinations.get_mut(number as usize)?.as_mut()
    }

    /// A number for a destination that comes.
    fn begin(&mut self, ends: Ends, way: Option<NextHop>, slot: u32) -> u32 {
        let new = Destination { ends, way, slot, flows: Vec::new(), stale: 0, old_slots: Vec::new() };
        let number = self.free.pop().unwrap_or(self.destinations.len() as u32);
        match self.destinations.get_mut(number as usize) {
            Some(place) => *place = Some(new),
            None => self.destinations.push(Some(new)),
        }
        self.numbers.insert(ends, number);
        self.watches.push(Watch::Begin(ends));
        number
    }

    /// A destination without flows goes.
    fn end(&mut self, maps: &mut impl Maps, number: u32) {
        let Some(gone) = self.destinations.get_mut(number as usize).and_then(Option::take) else { return };
        gone.old_slots.into_iter().chain([gone.slot]).for_each(|slot| self.slots.release(maps, slot));
        self.numbers.remove(&gone.ends);
        self.free.push(number);
        self.watches.push(Watch::End(gone.ends));
    }

    fn link(&mut self, key: FlowKey, number: u32) {
        let destination = self.destinations.get_mut(number as usize).and_then(Option::as_mut);
        if let (Some(destination), Entry::Vacant(vacant)) = (destination, self.flows.entry(key)) {
            vacant.insert(Place { destination: number, at: destination.flows.len() as u32 });
            destination.flows.push(key);
        }
    }

    /// Takes a flow off its destination. The last one takes its place.
    fn unlink(&mut self, maps: &mut impl Maps, key: FlowKey) {
        let Some(Place { destination: number, at }) = self.flows.remove(&key) else { return };
        let Some(destination) = self.destination_mut(number) else { return };
        destination.flows.swap_remove(at as usize);
        destination.stale = destination.stale.min(destination.flows.len());
        let (moved, is_empty) = (destination.flows.get(at as usize).copied(), destination.flows.is_empty());
        if let Some(place) = moved.and_then(|moved| self.flows.get_mut(&moved)) {
            place.at = at;
        }
        if is_empty {
            self.end(maps, number);
        }
    }
}

fn value(target: Target, next_hop: u32) -> FlowValue {
    FlowValue {
        destination: target.leg.remote.ip().into(),
        destination_port: Be16::new(target.leg.remote.port()),
        source_port: Be16::new(target.leg.local.port()),
        next_hop,
        member: target.member,
        expires: monotonic_seconds(target.expires),
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
