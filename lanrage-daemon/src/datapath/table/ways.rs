//! Next hops, and the flows that follow when the way to their destination changes.

use super::{Ends, Maps, Table};
use crate::datapath::InstallError;
use lanrage_common::maps::{FlowKey, FlowValue, NextHop};

/// Who uses which next-hop slot of the kernel.
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<Slot>);

#[derive(Debug)]
struct Slot {
    number: u32,
    hop: NextHop,
    users: usize,
}

impl Table {
    /// A destination's way is now this one, or not known. Its flows follow by [`Table::catch_up`].
    pub fn set_way(&mut self, maps: &mut impl Maps, ends: Ends, way: Option<NextHop>) {
        let Some(number) = self.numbers.get(&ends).copied() else { return };
        let Some(destination) = self.destinations.get_mut(number as usize).and_then(Option::as_mut) else {
            return;
        };
        if destination.way == way {
            return;
        }
        destination.way = way;
        let slot = way.map_or(0, |way| self.slots.acquire(maps, way));
        let old = std::mem::replace(&mut destination.slot, slot);
        if old == slot {
            return self.slots.release(maps, old);
        }
        destination.old_slots.push(old);
        destination.stale = destination.flows.len();
        self.stale.push_back(number);
    }

    /// Whether some flows still lead by an old way.
    pub fn is_behind(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Brings some stale flows in line, looking at no more than `budget`. Gives those that the kernel refused to keep.
    pub fn catch_up(&mut self, maps: &mut impl Maps, mut budget: usize) -> Vec<(FlowKey, InstallError)> {
        let mut refused = Vec::new();
        while let Some(number) = self.stale.front().copied() {
            if let Some(destination) = self.destinations.get_mut(number as usize).and_then(Option::as_mut) {
                let left = destination.stale.saturating_sub(budget);
                budget -= destination.stale - left;
                let flows = left..std::mem::replace(&mut destination.stale, left);
                for key in &destination.flows[flows] {
                    refused.extend(redirect(maps, *key, destination.slot).map(|error| (*key, error)));
                }
                if left > 0 {
                    break;
                }
                destination.old_slots.drain(..).for_each(|slot| self.slots.release(maps, slot));
            }
            self.stale.pop_front();
        }
        refused
    }
}

/// Has the kernel forward a flow by another slot. After an error the flow is not in the kernel.
fn redirect(maps: &mut impl Maps, key: FlowKey, slot: u32) -> Option<InstallError> {
    let value = maps.flow(key).filter(|value| value.next_hop != slot)?;
    let error = maps.put_flow(key, FlowValue { next_hop: slot, ..value }).err()?;
    maps.remove_flow(key);
    Some(error)
}

impl Slots {
    /// The slot that holds a next hop; 0 when there is no room for another, which leaves its flows to the daemon.
    fn acquire(&mut self, maps: &mut impl Maps, hop: NextHop) -> u32 {
        if let Some(slot) = self.0.iter_mut().find(|slot| slot.hop == hop && slot.users > 0) {
            slot.users += 1;
            return slot.number;
        }
        let free = self.0.iter().position(|slot| slot.users == 0);
        let number = free.map_or(self.0.len() as u32 + 1, |at| at as u32 + 1);
        if number >= maps.next_hops() || maps.put_next_hop(number, hop).is_err() {
            tracing::warn!(number, "no room for another next hop: the daemon forwards to it");
            return 0;
        }
        let slot = Slot { number, hop, users: 1 };
        match free {
            Some(at) => self.0[at] = slot,
            None => self.0.push(slot),
        }
        number
    }

    /// Counts one more user of a slot that holds a next hop, or flows, already.
    pub(super) fn occupy(&mut self, number: u32, hop: NextHop) {
        let free = |number| Slot { number, hop: NextHop::default(), users: 0 };
        let have = self.0.len() as u32;
        self.0.extend((have + 1..=number).map(free));
        if let Some(slot) = self.0.iter_mut().find(|slot| slot.number == number) {
            slot.hop = hop;
            slot.users += 1;
        }
    }

    /// Empties what nobody uses of the slots, which hold these next hops: an earlier daemon may have died between filling
    /// one and using it.
    pub(super) fn tidy(&self, maps: &mut impl Maps, next_hops: &[NextHop]) {
        let is_used = |number| self.0.iter().any(|slot| slot.number == number && slot.users > 0);
        let filled = (0..).zip(next_hops).filter(|(_, hop)| hop.ifindex != 0).map(|(number, _)| number);
        filled.filter(|number| !is_used(*number)).for_each(|number| clear(maps, number));
    }

    /// Counts one user less; after the last the slot is empty.
    pub(super) fn release(&mut self, maps: &mut impl Maps, number: u32) {
        let Some(slot) = self.0.iter_mut().find(|slot| slot.number == number) else { return };
        slot.users -= 1;
        if slot.users == 0 {
            clear(maps, number);
        }
    }
}

fn clear(maps: &mut impl Maps, number: u32) {
    if maps.put_next_hop(number, NextHop::default()).is_err() {
        tracing::warn!(number, "cannot clear a next hop");
    }
}
