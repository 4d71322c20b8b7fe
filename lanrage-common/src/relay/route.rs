//! The index table: which member a WireGuard receiver index leads to, seen from each sending member.

use super::reason::Reason;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// How long a type 1 holds its index until the matching type 2.
pub(super) const TENTATIVE_LIFE: Duration = Duration::from_secs(10);
/// WireGuard sends nothing under an index 180 s after its handshake (REJECT_AFTER_TIME); the rest is slack.
pub(super) const CONFIRMED_LIFE: Duration = Duration::from_secs(190);

/// A sending member's slot and the receiver index it writes.
pub(super) type RouteKey = (u32, u32);

/// How far the handshake of a route is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Type 1 seen.
    Tentative,
    /// Type 2 seen: the route is a flow.
    Confirmed,
}

/// Where a receiver index leads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// Slot of the member that made the index, and receives.
    pub(super) owner: u32,
    pub(super) state: State,
    expires: Instant,
}

/// How much one owner, and all together, may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) tentative: usize,
    pub(super) total: usize,
    pub(super) flows: usize,
}

/// The ends of a member's routes.
#[derive(Debug, Default)]
struct Ends {
    sends: BTreeSet<u32>,
    owns: BTreeSet<RouteKey>,
    tentative: usize,
}

#[derive(Debug, Default)]
pub(super) struct Routes {
    table: HashMap<RouteKey, Route>,
    /// By slot.
    ends: Vec<Ends>,
    expiry: BTreeSet<(Instant, RouteKey)>,
    confirmed: usize,
}

impl Routes {
    pub(super) fn find(&self, key: RouteKey) -> Option<Route> {
        self.table.get(&key).copied()
    }

    /// Flows.
    pub(super) fn confirmed(&self) -> usize {
        self.confirmed
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiry.first().map(|(at, _)| *at)
    }

    pub(super) fn first_expired(&self, now: Instant) -> Option<RouteKey> {
        self.expiry.first().filter(|(at, _)| *at <= now).map(|(_, key)| *key)
    }

    /// All routes that begin or end at a member.
    pub(super) fn of_member(&self, slot: u32) -> BTreeSet<RouteKey> {
        let Some(ends) = self.ends.get(slot as usize) else { return BTreeSet::new() };
        let sends = ends.sends.iter().map(|index| (slot, *index));
        sends.chain(ends.owns.iter().copied()).collect()
    }

    /// Holds the sender index of a type 1 for `owner`: the first owner keeps it.
    pub(super) fn claim(
        &mut self,
        key: RouteKey,
        owner: u32,
        caps: Caps,
        now: Instant,
    ) -> Result<(), Reason> {
        match self.find(key) {
            Some(route) if route.owner != owner => Err(Reason::IndexTaken),
            Some(route) if route.state == State::Confirmed => Ok(()),
            Some(_) => {
                self.set_expiry(key, now + TENTATIVE_LIFE);
                Ok(())
            }
            None => {
                self.check_room(owner, caps, 2)?;
                if self.ends(owner).tentative >= caps.tentative {
                    return Err(Reason::TentativeFull);
                }
                self.insert(key, owner, now + TENTATIVE_LIFE);
                Ok(())
            }
        }
    }

    /// Turns both directions of a completed handshake into flows: `offered` was claimed by the type 1, `answered`
    /// carries the type 2's sender index and is `answerer`'s. Returns those that were not flows before.
    pub(super) fn confirm(
        &mut self,
        offered: RouteKey,
        answered: RouteKey,
        answerer: u32,
        caps: Caps,
        now: Instant,
    ) -> Result<Vec<RouteKey>, Reason> {
        match self.find(answered) {
            Some(route) if route.owner != answerer => return Err(Reason::IndexTaken),
            Some(_) => {}
            None => {
                self.check_room(answerer, caps, 2)?;
                self.insert(answered, answerer, now);
            }
        }
        let fresh = [offered, answered].into_iter().filter(|key| self.promote(*key, now)).collect();
        Ok(fresh)
    }

    /// Forgets a route.
    pub(super) fn remove(&mut self, key: RouteKey) -> Option<Route> {
        let route = self.table.remove(&key)?;
        self.expiry.remove(&(route.expires, key));
        self.ends(key.0).sends.remove(&key.1);
        let owner = self.ends(route.owner);
        owner.owns.remove(&key);
        match route.state {
            State::Tentative => owner.tentative -= 1,
            State::Confirmed => self.confirmed -= 1,
        }
        Some(route)
    }

    fn check_room(&mut self, owner: u32, caps: Caps, flows: usize) -> Result<(), Reason> {
        if self.ends(owner).owns.len() >= caps.total {
            return Err(Reason::MemberFull);
        }
        if self.confirmed + flows > caps.flows || self.table.len() >= 2 * caps.flows {
            return Err(Reason::TableFull);
        }
        Ok(())
    }

    fn insert(&mut self, key: RouteKey, owner: u32, expires: Instant) {
        self.table.insert(key, Route { owner, state: State::Tentative, expires });
        self.expiry.insert((expires, key));
        self.ends(key.0).sends.insert(key.1);
        let ends = self.ends(owner);
        ends.owns.insert(key);
        ends.tentative += 1;
    }

    /// Confirms a tentative route; a confirmed one keeps its hard lifetime.
    fn promote(&mut self, key: RouteKey, now: Instant) -> bool {
        let Some(route) = self.table.get_mut(&key).filter(|route| route.state == State::Tentative) else {
            return false;
        };
        route.state = State::Confirmed;
        let owner = route.owner;
        self.confirmed += 1;
        self.ends(owner).tentative -= 1;
        self.set_expiry(key, now + CONFIRMED_LIFE);
        true
    }

    fn set_expiry(&mut self, key: RouteKey, expires: Instant) {
        if let Some(route) = self.table.get_mut(&key) {
            self.expiry.remove(&(route.expires, key));
            route.expires = expires;
            self.expiry.insert((expires, key));
        }
    }

    fn ends(&mut self, slot: u32) -> &mut Ends {
        let slot = slot as usize;
        if self.ends.len() <= slot {
            self.ends.resize_with(slot + 1, Ends::default);
        }
        &mut self.ends[slot]
    }
}
