//! The index table: which member a WireGuard receiver index leads to, seen from each sending member.

use super::reason::Reason;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
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
    /// Number of the party that both are in.
    party: u32,
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

/// How much of the table somebody uses.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    routes: usize,
    confirmed: usize,
}

impl Use {
    /// Whether there is no room for the two flows of a handshake, or for another that stays open.
    fn is_full(self, limit: usize) -> bool {
        self.confirmed + 2 > limit || self.routes >= 2 * limit
    }
}

/// A flow of the process before: sender and index, owner, party number, end.
pub(super) type Restored = (RouteKey, u32, u32, Instant);

/// A million routes must be there again within a second of a restart: hence the heap, and sets that are built at once.
#[derive(Debug)]
pub(super) struct Routes {
    /// Flows that there may be.
    limit: usize,
    /// Flows that there may be of one party.
    party_limit: usize,
    /// By the sender's slot, then by index.
    senders: Vec<BTreeMap<u32, Route>>,
    /// By the owner's slot.
    owners: Vec<BTreeSet<RouteKey>>,
    /// When to look at which route; not withdrawn when its life is lengthened or it goes, so never more than twice as
    /// many as there are routes.
    expiry: BinaryHeap<Reverse<(Instant, RouteKey)>>,
    all: Use,
    /// By party number.
    parties: Vec<Use>,
}

impl Routes {
    pub(super) fn new(limit: usize, party_limit: usize) -> Self {
        Self {
            limit,
            party_limit,
            senders: Vec::new(),
            owners: Vec::new(),
            expiry: BinaryHeap::new(),
            all: Use::default(),
            parties: Vec::new(),
        }
    }

    /// Takes over flows while there are none yet. Those that do not fit are returned.
    pub(super) fn restore(&mut self, flows: impl Iterator<Item = Restored>, now: Instant) -> Vec<RouteKey> {
        let mut senders: Vec<Vec<(u32, Route)>> = Vec::new();
        for ((sender, index), owner, party, expires) in flows {
            let state = State::Confirmed;
            let route = Route { owner, party, state, expires, offered: now, is_open: false };
            place(&mut senders, sender).push((index, route));
        }
        let (mut owners, mut expiry, mut refused) = (Vec::<Vec<_>>::new(), Vec::new(), Vec::new());
        self.senders.clear();
        for (sender, routes) in (0..).zip(senders) {
            let mut routes = BTreeMap::from_iter(routes);
            routes.retain(|index, route| {
                let (key, Route { owner, party, expires, .. }) = ((sender, *index), *route);
                let has_room =
                    self.all.confirmed < self.limit && self.party(party).confirmed < self.party_limit;
                if has_room {
                    self.count(party, |it| (it.routes, it.confirmed) = (it.routes + 1, it.confirmed + 1));
                    place(&mut owners, owner).push(key);
                    expiry.push(Reverse((expires, key)));
                } else {
                    refused.push(key);
                }
                has_room
            });
            self.senders.push(routes);
        }
        self.owners = owners.into_iter().map(BTreeSet::from_iter).collect();
        self.expiry = expiry.into();
        refused
    }

    pub(super) fn find(&self, (sender, index): RouteKey) -> Option<Route> {
        self.senders.get(sender as usize)?.get(&index).copied()
    }

    fn find_mut(&mut self, (sender, index): RouteKey) -> Option<&mut Route> {
        self.senders.get_mut(sender as usize)?.get_mut(&index)
    }

    fn iter(&self) -> impl Iterator<Item = (RouteKey, Route)> {
        let of_sender = |(sender, routes)| {
            let routes: &BTreeMap<u32, Route> = routes;
            routes.iter().map(move |(index, route)| ((sender, *index), *route))
        };
        (0..).zip(&self.senders).flat_map(of_sender)
    }

    pub(super) fn all_confirmed(&self) -> impl Iterator<Item = (RouteKey, Route)> {
        self.iter().filter(|(_, route)| route.state == State::Confirmed)
    }

    /// Flows.
    pub(super) fn confirmed(&self) -> usize {
        self.all.confirmed
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.routes
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiry.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn first_expired(&mut self, now: Instant) -> Option<RouteKey> {
        while let Some(Reverse((at, key))) = self.expiry.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            if self.find(key).is_some_and(|route| route.expires == at) {
                return Some(key);
            }
            self.expiry.pop();
        }
        None
    }

    /// All routes that begin or end at a member.
    pub(super) fn of_member(&self, slot: u32) -> BTreeSet<RouteKey> {
        let sends = self.senders.get(slot as usize).into_iter().flat_map(BTreeMap::keys);
        let owns = self.owners.get(slot as usize).into_iter().flatten();
        sends.map(|index| (slot, *index)).chain(owns.copied()).collect()
    }

    /// Holds the sender index of a type 1 for `owner`: the first owner keeps it.
    pub(super) fn claim(
        &mut self,
        key: RouteKey,
        owner: u32,
        party: u32,
        now: Instant,
    ) -> Result<(), Reason> {
        match self.find_mut(key) {
            Some(route) if route.owner != owner => return Err(Reason::IndexTaken),
            Some(route) if now < route.offered + REOFFER => return Err(Reason::HandshakeRepeated),
            Some(route) => {
                (route.offered, route.is_open) = (now, true);
                if route.state == State::Tentative {
                    self.set_expiry(key, now + TENTATIVE_LIFE);
                }
                return Ok(());
            }
            None => self.check_room(party)?,
        }
        if self.of_pair(key.0, owner, State::Tentative).count() >= PAIR_TENTATIVE {
            return Err(Reason::TentativeFull);
        }
        self.insert(key, owner, party, now);
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
        party: u32,
        now: Instant,
    ) -> Result<Vec<RouteKey>, Reason> {
        let is_first = self.find(offered).is_some_and(|route| route.is_open);
        match self.find(answered) {
            Some(route) if route.owner != answerer => return Err(Reason::IndexTaken),
            Some(route) if is_first || route.state == State::Confirmed => {}
            _ if !is_first => return Err(Reason::HandshakeAnswered),
            _ => {
                self.check_room(party)?;
                self.insert(answered, answerer, party, now);
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
        let route = self.senders.get_mut(key.0 as usize)?.remove(&key.1)?;
        place(&mut self.owners, route.owner).remove(&key);
        let confirmed = usize::from(route.state == State::Confirmed);
        self.count(route.party, |it| {
            (it.routes, it.confirmed) = (it.routes - 1, it.confirmed - confirmed);
        });
        Some(route)
    }

    fn check_room(&self, party: u32) -> Result<(), Reason> {
        if self.all.is_full(self.limit) {
            return Err(Reason::TableFull);
        }
        if self.party(party).is_full(self.party_limit) { Err(Reason::PartyFull) } else { Ok(()) }
    }

    fn party(&self, number: u32) -> Use {
        self.parties.get(number as usize).copied().unwrap_or_default()
    }

    fn count(&mut self, party: u32, change: impl Fn(&mut Use)) {
        change(&mut self.all);
        change(place(&mut self.parties, party));
    }

    /// Routes that one member may use to reach another.
    fn of_pair(&self, sender: u32, owner: u32, state: State) -> impl Iterator<Item = (RouteKey, Route)> {
        let owns = self.owners.get(owner as usize).into_iter();
        let owns = owns.flat_map(move |owns| owns.range((sender, 0)..=(sender, u32::MAX)));
        let routes = owns.filter_map(|key| Some((*key, self.find(*key)?)));
        routes.filter(move |(_, route)| route.state == state)
    }

    fn insert(&mut self, key: RouteKey, owner: u32, party: u32, now: Instant) {
        let expires = now + TENTATIVE_LIFE;
        let route = Route { owner, party, state: State::Tentative, expires, offered: now, is_open: true };
        place(&mut self.senders, key.0).insert(key.1, route);
        place(&mut self.owners, owner).insert(key);
        self.count(party, |it| it.routes += 1);
        self.watch(key, expires);
    }

    /// Confirms a tentative route; a confirmed one gets another life when its handshake is new. Whether anything of it
    /// is new.
    fn promote(&mut self, key: RouteKey, is_first: bool, now: Instant) -> bool {
        let Some(route) = self.find_mut(key) else { return false };
        let is_fresh = route.state == State::Tentative;
        (route.state, route.is_open) = (State::Confirmed, false);
        let party = route.party;
        self.count(party, |it| it.confirmed += usize::from(is_fresh));
        if is_fresh || is_first {
            self.set_expiry(key, now + CONFIRMED_LIFE);
        }
        is_fresh || is_first
    }

    fn set_expiry(&mut self, key: RouteKey, expires: Instant) {
        if let Some(route) = self.find_mut(key) {
            route.expires = expires;
            self.watch(key, expires);
        }
    }

    fn watch(&mut self, key: RouteKey, expires: Instant) {
        self.expiry.push(Reverse((expires, key)));
        if self.expiry.len() > 2 * self.all.routes + 64 {
            self.rebuild_expiry();
        }
    }

    fn rebuild_expiry(&mut self) {
        self.expiry = self.iter().map(|(key, route)| Reverse((route.expires, key))).collect();
    }
}

/// A place in a list that is as long as needed.
fn place<T: Default>(list: &mut Vec<T>, at: u32) -> &mut T {
    let at = at as usize;
    if list.len() <= at {
        list.resize_with(at + 1, T::default);
    }
    &mut list[at]
}
