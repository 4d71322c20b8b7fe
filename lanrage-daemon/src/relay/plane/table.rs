//! What the workers forward by. The relay task writes it, workers read it once a batch.

use super::allowance::{Allowance, Traffic};
use lanrage_common::relay::{Flow, Leg, MemberLimits, Target};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

/// An address in one spelling, quick to hash: IPv4 is IPv4-mapped.
type Source = (u128, u16);

/// Where a flow's packets go.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) leg: Leg,
    /// Through which endpoint they leave.
    pub(super) endpoint: u8,
    /// When the flow ends, in nanoseconds of the table's clock.
    pub(super) expires: u64,
    pub(super) allowance: Arc<Allowance>,
}

/// Flows and bound members.
#[derive(Debug, Default)]
pub(super) struct Entries {
    flows: HashMap<(Source, u32), Entry>,
    members: HashMap<Source, Arc<Allowance>>,
    slots: HashMap<u32, (MemberLimits, Arc<Allowance>)>,
}

impl Entries {
    /// Where data goes.
    pub(super) fn flow(&self, source: SocketAddr, index: u32) -> Option<&Entry> {
        self.flows.get(&(spelled(source), index))
    }

    /// What the member at an address may send; `None` for a stranger's address.
    pub(super) fn member(&self, source: SocketAddr) -> Option<&Allowance> {
        self.members.get(&spelled(source)).map(Arc::as_ref)
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

    /// Adds a flow, or moves it. One whose ends the relay does not know is not forwarded.
    pub(super) fn install(&self, flow: Flow, target: Target) {
        self.install_all(std::iter::once((flow, target)));
    }

    /// The same for many.
    pub(super) fn install_all(&self, flows: impl Iterator<Item = (Flow, Target)>) {
        let mut entries = self.write();
        entries.flows.reserve(flows.size_hint().1.unwrap_or_default());
        for (flow, target) in flows {
            let key = (spelled(flow.source), flow.index);
            let allowance = entries.slots.get(&target.member).map(|(_, allowance)| allowance.clone());
            if let Some((endpoint, allowance)) = self.endpoint_of(target.leg.local).zip(allowance) {
                let expires = self.nanos(target.expires);
                entries.flows.insert(key, Entry { leg: target.leg, endpoint, expires, allowance });
            } else {
                entries.flows.remove(&key);
            }
        }
    }

    pub(super) fn remove(&self, flow: Flow) {
        self.write().flows.remove(&(spelled(flow.source), flow.index));
    }

    /// A member with the same limits as before keeps what it has used up.
    pub(super) fn admit(&self, slot: u32, address: SocketAddr, limits: MemberLimits) {
        let mut entries = self.write();
        let new = || (limits, Arc::new(Allowance::new(limits)));
        let (known, allowance) = entries.slots.entry(slot).or_insert_with(new);
        if *known != limits {
            *known = limits;
            allowance.set(limits);
        }
        let allowance = allowance.clone();
        entries.members.insert(spelled(address), allowance);
    }

    pub(super) fn dismiss(&self, address: SocketAddr) {
        self.write().members.remove(&spelled(address));
    }

    /// The next member in this slot is another one.
    pub(super) fn forget(&self, slot: u32) {
        self.write().slots.remove(&slot);
    }

    /// What was forwarded for the member in a slot.
    pub(super) fn traffic(&self, slot: u32) -> Traffic {
        self.read().slots.get(&slot).map(|(_, allowance)| allowance.traffic()).unwrap_or_default()
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

    fn target(local: &str, member: u32) -> Target {
        let leg = Leg { local: address(local), remote: address("198.51.100.2:1000") };
        Target { leg, member, expires: Instant::now() + Duration::from_secs(60) }
    }

    const LIMITS: MemberLimits = MemberLimits { packets_per_s: 100, kbit_per_s: 0 };

    #[test]
    fn an_address_belongs_to_one_endpoint() {
        for (local, endpoint) in [
            ("203.0.113.1:3478", Some(0)),
            ("[2001:db8::1]:3478", Some(1)),
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
        table.install(flow, target("203.0.113.1:3478", 3));
        assert!(table.read().flow(source, 7).is_none(), "of nobody whom the relay knows");
        table.admit(3, source, LIMITS);
        table.install(flow, target("203.0.113.1:3478", 3));
        table.install(flow, target("[2001:db8::1]:3478", 3));
        {
            let entries = table.read();
            let entry = entries.flow(source, 7).unwrap();
            assert_eq!((entry.endpoint, entry.leg.local), (1, address("[2001:db8::1]:3478")));
            assert!(entry.expires > table.now());
            assert!(
                entries.flow(source, 8).is_none() && entries.flow(address("198.51.100.1:1001"), 7).is_none()
            );
        }
        table.remove(flow);
        assert!(table.read().flow(source, 7).is_none());
    }

    #[test]
    fn a_moved_member_keeps_its_buckets_and_a_new_allowance_reaches_its_flows() {
        let (table, before, after) = (table(), address("198.51.100.1:1"), address("198.51.100.1:2"));
        table.admit(3, before, LIMITS);
        let flow = Flow { source: after, index: 7 };
        let spent = |source| {
            let entries = table.read();
            let member = entries.member(source).unwrap();
            (0..1000).take_while(|_| member.may_send(1, 1)).count()
        };
        assert_eq!(spent(before), 64);
        table.dismiss(before);
        table.admit(3, after, LIMITS);
        table.install(flow, target("203.0.113.1:3478", 3));
        assert!(table.read().member(before).is_none());
        assert_eq!(spent(after), 0);
        table.admit(3, after, MemberLimits { packets_per_s: 400, kbit_per_s: 0 });
        let entries = table.read();
        let of_flow = &entries.flow(after, 7).unwrap().allowance;
        assert_eq!((0..1000).take_while(|_| of_flow.may_send(1, 1)).count(), 100);
    }
}
