//! What the workers forward by. The relay task writes it, workers read it once a batch.

use super::allowance::{Allowance, Traffic};
use foldhash::fast::RandomState;
use lanrage_common::relay::{Flow, Leg, MemberLimits, Target};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

/// An address in one spelling, quick to hash: IPv4 is IPv4-mapped.
type Source = (u128, u16);

/// Where a flow's packets go, and who pays for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) leg: &'a Leg,
    /// Through which endpoint they leave.
    pub(super) endpoint: u8,
    /// When the flow ends, in nanoseconds of the table's clock.
    pub(super) expires: u64,
    pub(super) allowance: &'a Allowance,
}

/// A member that is bound, or between two addresses.
#[derive(Debug)]
struct Member {
    leg: Leg,
    /// Through which endpoint it is reached.
    endpoint: Option<u8>,
    limits: MemberLimits,
    allowance: Allowance,
    /// What it sends, by receiver index.
    flows: BTreeMap<u32, Onward>,
}

/// To whom a flow leads: few bytes, because there may be a million.
#[derive(Debug, Clone, Copy)]
struct Onward {
    /// The receiving member's slot.
    to: u32,
    /// As in [`Entry`].
    expires: u64,
}

/// Flows and bound members.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Slots of the bound.
    bound: HashMap<Source, u32, RandomState>,
    /// By slot.
    members: Vec<Option<Member>>,
}

impl Entries {
    /// Where data goes.
    pub(super) fn flow(&self, source: SocketAddr, index: u32) -> Option<Entry<'_>> {
        let sender = self.at(self.slot(source)?)?;
        let Onward { to, expires } = *sender.flows.get(&index)?;
        let Member { leg, endpoint, .. } = self.at(to)?;
        Some(Entry { leg, endpoint: (*endpoint)?, expires, allowance: &sender.allowance })
    }

    /// What the member at an address may send; `None` for a stranger's address.
    pub(super) fn member(&self, source: SocketAddr) -> Option<&Allowance> {
        Some(&self.at(self.slot(source)?)?.allowance)
    }

    fn slot(&self, address: SocketAddr) -> Option<u32> {
        self.bound.get(&spelled(address)).copied()
    }

    fn at(&self, slot: u32) -> Option<&Member> {
        self.members.get(slot as usize)?.as_ref()
    }

    fn at_mut(&mut self, slot: u32) -> Option<&mut Member> {
        self.members.get_mut(slot as usize)?.as_mut()
    }

    fn place(&mut self, slot: u32) -> &mut Option<Member> {
        let slot = slot as usize;
        if self.members.len() <= slot {
            self.members.resize_with(slot + 1, || None);
        }
        &mut self.members[slot]
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::relay) struct Table {
    /// Where each endpoint is bound.
    endpoints: Vec<SocketAddr>,
    entries: RwLock<Entries>,
    clock: Instant,
    is_stopping: AtomicBool,
}

impl Table {
    pub(super) fn new(endpoints: Vec<SocketAddr>) -> Self {
        let (clock, is_stopping) = (Instant::now(), AtomicBool::new(false));
        Self { endpoints, entries: RwLock::default(), clock, is_stopping }
    }

    /// Where an endpoint is bound.
    pub(super) fn bound(&self, endpoint: usize) -> SocketAddr {
        self.endpoints[endpoint]
    }

    /// The endpoint that has an address of this machine: bound to it, or to all.
    pub(super) fn endpoint_of(&self, local: SocketAddr) -> Option<u8> {
        let is_at = |bound: &SocketAddr| *bound == local;
        let has = |bound: &SocketAddr| {
            bound.ip().is_unspecified() && bound.is_ipv4() == local.is_ipv4() && bound.port() == local.port()
        };
        let found = self.endpoints.iter().position(is_at).or_else(|| self.endpoints.iter().position(has));
        found.and_then(|at| u8::try_from(at).ok())
    }

    /// Nanoseconds since the table was made.
    pub(super) fn now(&self) -> u64 {
        self.nanos(Instant::now())
    }

    /// For a batch of lookups: nobody writes as long as this is held.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a flow, or moves it. One whose ends are not both members is not forwarded.
    pub(super) fn install(&self, flow: Flow, target: Target) {
        self.install_all(std::iter::once((flow, target)));
    }

    /// The same for many; best in the order of senders and indexes.
    pub(super) fn install_all(&self, flows: impl Iterator<Item = (Flow, Target)>) {
        let mut entries = self.write();
        for (flow, target) in flows {
            let (to, expires) = (entries.slot(target.leg.remote), self.nanos(target.expires));
            let Some(sender) = entries.at_mut(target.member) else { continue };
            match to {
                Some(to) => sender.flows.insert(flow.index, Onward { to, expires }),
                None => sender.flows.remove(&flow.index),
            };
        }
    }

    /// Forgets a flow of a member that is still bound.
    pub(super) fn remove(&self, flow: Flow) {
        let mut entries = self.write();
        let sender = entries.slot(flow.source).and_then(|slot| entries.at_mut(slot));
        sender.map(|sender| sender.flows.remove(&flow.index));
    }

    /// A member is there, whose flows move along. With the same limits as before it keeps what it has used up.
    pub(super) fn admit(&self, slot: u32, leg: Leg, limits: MemberLimits) {
        let endpoint = self.endpoint_of(leg.local);
        let mut entries = self.write();
        entries.bound.insert(spelled(leg.remote), slot);
        let place = entries.place(slot);
        let Some(member) = place else {
            let (allowance, flows) = (Allowance::new(limits), BTreeMap::new());
            *place = Some(Member { leg, endpoint, limits, allowance, flows });
            return;
        };
        (member.leg, member.endpoint) = (leg, endpoint);
        if member.limits != limits {
            member.limits = limits;
            member.allowance.set(limits);
        }
    }

    pub(super) fn dismiss(&self, address: SocketAddr) {
        self.write().bound.remove(&spelled(address));
    }

    /// The next member in this slot is another one.
    pub(super) fn forget(&self, slot: u32) {
        *self.write().place(slot) = None;
    }

    /// What was forwarded for the member in a slot.
    pub(super) fn traffic(&self, slot: u32) -> Traffic {
        self.read().at(slot).map(|member| member.allowance.traffic()).unwrap_or_default()
    }

    /// Asks the workers to end when they look next.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Relaxed)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.clock).as_nanos()).unwrap_or(u64::MAX)
    }
}

fn spelled(address: SocketAddr) -> Source {
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (u128::from(ip), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn table() -> Table {
        Table::new(["0.0.0.0:3478", "[::]:3478", "192.0.2.1:3479"].map(address).into())
    }

    fn leg(local: &str, remote: SocketAddr) -> Leg {
        Leg { local: address(local), remote }
    }

    fn target(leg: Leg, member: u32) -> Target {
        Target { leg, member, expires: Instant::now() + Duration::from_secs(60) }
    }

    const LIMITS: MemberLimits = MemberLimits { packets_per_s: 100, kbit_per_s: 0 };
    const V4: &str = "203.0.113.1:3478";
    const V6: &str = "[2001:db8::1]:3478";

    #[test]
    fn an_address_belongs_to_one_endpoint() {
        for (local, endpoint) in [
            (V4, Some(0)),
            (V6, Some(1)),
            ("192.0.2.1:3479", Some(2)),
            ("192.0.2.2:3479", None),
            ("[2001:db8::1]:3479", None),
        ] {
            assert_eq!(table().endpoint_of(address(local)), endpoint, "{local}");
        }
    }

    #[test]
    fn flows_come_move_and_go() {
        let (table, source) = (table(), address("198.51.100.1:1000"));
        let flow = Flow { source, index: 7 };
        let (to, moved) = (leg(V4, address("198.51.100.2:1000")), leg(V6, address("[2001:db8::2]:1000")));
        table.install(flow, target(to, 3));
        assert!(table.read().flow(source, 7).is_none(), "of nobody whom the relay knows");
        table.admit(3, leg(V4, source), LIMITS);
        table.install(flow, target(to, 3));
        assert!(table.read().flow(source, 7).is_none(), "to nobody whom the relay knows");
        table.admit(0, to, LIMITS);
        table.install(flow, target(to, 3));
        let way = |source, index| {
            let entries = table.read();
            let entry = entries.flow(source, index)?;
            assert!(entry.expires > table.now());
            Some((entry.endpoint, *entry.leg))
        };
        assert_eq!(way(source, 7), Some((0, to)));
        assert_eq!((way(source, 8), way(address("198.51.100.1:1001"), 7)), (None, None));
        table.dismiss(to.remote);
        table.admit(0, moved, LIMITS);
        assert_eq!(way(source, 7), Some((1, moved)));
        table.forget(0);
        assert_eq!(way(source, 7), None, "its receiver is gone");
        table.admit(0, moved, LIMITS);
        table.remove(flow);
        assert_eq!(way(source, 7), None);
    }

    #[test]
    fn a_moved_member_keeps_its_buckets_and_a_new_allowance_reaches_its_flows() {
        let (table, before, after) = (table(), address("198.51.100.1:1"), address("198.51.100.1:2"));
        let to = leg(V4, address("198.51.100.2:1000"));
        table.admit(0, to, LIMITS);
        table.admit(3, leg(V4, before), LIMITS);
        table.install(Flow { source: before, index: 7 }, target(to, 3));
        let spent = |source| {
            let entries = table.read();
            let member = entries.member(source).unwrap();
            (0..1000).take_while(|_| member.may_send(1, 1)).count()
        };
        assert_eq!(spent(before), 64);
        table.dismiss(before);
        table.admit(3, leg(V4, after), LIMITS);
        assert!(table.read().member(before).is_none() && table.read().flow(before, 7).is_none());
        assert_eq!(spent(after), 0);
        table.admit(3, leg(V4, after), MemberLimits { packets_per_s: 400, kbit_per_s: 0 });
        let entries = table.read();
        let of_flow = entries.flow(after, 7).unwrap().allowance;
        assert_eq!((0..1000).take_while(|_| of_flow.may_send(1, 1)).count(), 100);
    }
}
