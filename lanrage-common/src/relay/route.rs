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
    pub(super) expires: Instant,
    /// When the owner last offered the index in a type 1.
    offered: Instant,
    /// Whether that offer waits for its type 2.
    is_open: bool,
}

/// An owner that has restarted may offer an index again, but not faster than this.
const REOFFER: Duration = Duration::from_secs(1);
/// Handshakes that one member may have open with another. WireGuard retries every 5 s, so honest ones have two.
const PAIR_TENTATIVE: usize = 4;
/// Indexes that one member may have towards another. WireGuard itself keeps three: previous, current and next.
const PAIR_CONFIRMED: usize = 4;

/// The ends of a member's routes.
#[derive(Debug, Default)]
struct Ends {
    sends: BTreeSet<u32>,
    owns: BTreeSet<RouteKey>,
}

#[derive(Debug)]
pub(super) struct Routes {
    /// Flows that there may be.
    limit: usize,
    table: HashMap<RouteKey, Route>,
    /// By slot.
    ends: Vec<Ends>,
    expiry: BTreeSet<(Instant, RouteKey)>,
    confirmed: usize,
}

impl Routes {
    pub(super) fn new(limit: usize) -> Self {
        let (table, ends, expiry) = (HashMap::new(), Vec::new(), BTreeSet::new());
        Self { limit, table, ends, expiry, confirmed: 0 }
    }

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
    pub(super) fn claim(&mut self, key: RouteKey, owner: u32, now: Instant) -> Result<(), Reason> {
        match self.table.get_mut(&key) {
            Some(route) if route.owner != owner => return Err(Reason::IndexTaken),
            Some(route) if now < route.offered + REOFFER => return Err(Reason::HandshakeRepeated),
            Some(route) => {
                (route.offered, route.is_open) = (now, true);
                if route.state == State::Tentative {
                    self.set_expiry(key, now + TENTATIVE_LIFE);
                }
                return Ok(());
            }
            None => self.check_room()?,
        }
        if self.of_pair(key.0, owner, State::Tentative).count() >= PAIR_TENTATIVE {
            return Err(Reason::TentativeFull);
        }
        self.insert(key, owner, now);
        Ok(())
    }

    /// Turns both directions of a completed handshake into flows: `offered` was claimed by the type 1, `answered`
    /// carries the type 2's sender index and is `answerer`'s. Returns those that are flows only now, or for longer. Only
    /// the first type 2 of an offer lengthens lives.
    pub(super) fn confirm(
        &mut self,
        offered: RouteKey,
        answered: RouteKey,
        answerer: u32,
        now: Instant,
    ) -> Result<Vec<RouteKey>, Reason> {
        let is_first = self.find(offered).is_some_and(|route| route.is_open);
        match self.find(answered) {
            Some(route) if route.owner != answerer => return Err(Reason::IndexTaken),
            Some(route) if is_first || route.state == State::Confirmed => {}
            _ if !is_first => return Err(Reason::HandshakeAnswered),
            _ => {
                self.check_room()?;
                self.insert(answered, answerer, now);
            }
        }
        let changed =
            [offered, answered].into_iter().filter(|key| self.promote(*key, is_first, now)).collect();
        Ok(changed)
    }

    /// The oldest flow from the same sender to the same owner as `fresh`, when there are more than WireGuard can use.
    pub(super) fn surplus(&self, fresh: RouteKey) -> Option<RouteKey> {
        let owner = self.find(fresh)?.owner;
        let flows = || self.of_pair(fresh.0, owner, State::Confirmed);
        if flows().count() <= PAIR_CONFIRMED {
            return None;
        }
        let older = flows().filter(|(key, _)| *key != fresh);
        older.min_by_key(|(_, route)| route.expires).map(|(key, _)| key)
    }

    /// Forgets a route.
    pub(super) fn remove(&mut self, key: RouteKey) -> Option<Route> {
        let route = self.table.remove(&key)?;
        self.expiry.remove(&(route.expires, key));
        self.ends(key.0).sends.remove(&key.1);
        self.ends(route.owner).owns.remove(&key);
        if route.state == State::Confirmed {
            self.confirmed -= 1;
        }
        Some(route)
    }

    /// Room for the two flows of a handshake, and for handshakes that stay open.
    fn check_room(&self) -> Result<(), Reason> {
        let is_full = self.confirmed + 2 > self.limit || self.table.len() >= 2 * self.limit;
        if is_full { Err(Reason::TableFull) } else { Ok(()) }
    }

    /// Routes that one member may use to reach another.
    fn of_pair(&self, sender: u32, owner: u32, state: State) -> impl Iterator<Item = (RouteKey, Route)> {
        let owns =
            self.ends.get(owner as usize).map(|ends| ends.owns.range((sender, 0)..=(sender, u32::MAX)));
        let routes = owns.into_iter().flatten().filter_map(|key| Some((*key, self.find(*key)?)));
        routes.filter(move |(_, route)| route.state == state)
    }

    fn insert(&mut self, key: RouteKey, owner: u32, now: Instant) {
        let expires = now + TENTATIVE_LIFE;
        let route = Route { owner, state: State::Tentative, expires, offered: now, is_open: true };
        self.table.insert(key, route);
        self.expiry.insert((expires, key));
        self.ends(key.0).sends.insert(key.1);
        self.ends(owner).owns.insert(key);
    }

    /// Confirms a tentative route; a confirmed one gets another life when its handshake is new. Whether
    /// anything of it is new.
    fn promote(&mut self, key: RouteKey, is_first: bool, now: Instant) -> bool {
        let Some(route) = self.table.get_mut(&key) else { return false };
        let is_fresh = route.state == State::Tentative;
        (route.state, route.is_open) = (State::Confirmed, false);
        self.confirmed += usize::from(is_fresh);
        if is_fresh || is_first {
            self.set_expiry(key, now + CONFIRMED_LIFE);
        }
        is_fresh || is_first
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
