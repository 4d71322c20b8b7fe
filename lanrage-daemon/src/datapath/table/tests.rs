use super::*;
use lanrage_common::relay::Leg;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::time::Duration;

const LOCAL: [u8; 4] = [203, 0, 113, 1];
const SLOTS: usize = 16;

/// The kernel's maps.
#[derive(Debug, Default)]
struct Memory {
    flows: HashMap<FlowKey, FlowValue>,
    next_hops: Vec<NextHop>,
    flow_writes: usize,
}

impl Memory {
    fn new() -> Self {
        Self { next_hops: vec![NextHop::default(); SLOTS], ..Self::default() }
    }

    /// The number of the hop that a flow leads by.
    fn hop(&self, flow: Flow) -> Option<u32> {
        let value = self.flows.get(&key(flow))?;
        Some(self.next_hops[value.next_hop as usize].ifindex)
    }

    fn used_slots(&self) -> usize {
        self.next_hops.iter().filter(|hop| hop.ifindex != 0).count()
    }
}

impl Maps for Memory {
    fn put_flow(&mut self, key: FlowKey, value: FlowValue) -> Result<(), InstallError> {
        self.flow_writes += 1;
        self.flows.insert(key, value);
        Ok(())
    }

    fn flow(&self, key: FlowKey) -> Option<FlowValue> {
        self.flows.get(&key).copied()
    }

    fn remove_flow(&mut self, key: FlowKey) {
        self.flows.remove(&key);
    }

    fn put_next_hop(&mut self, slot: u32, hop: NextHop) -> Result<(), InstallError> {
        self.next_hops[slot as usize] = hop;
        Ok(())
    }

    fn next_hops(&self) -> u32 {
        self.next_hops.len() as u32
    }

    fn put_member(&mut self, _: u32, _: MemberState) -> Result<(), InstallError> {
        Ok(())
    }

    fn put_source(&mut self, _: SourceKey, _: u32) -> Result<(), InstallError> {
        Ok(())
    }

    fn remove_source(&mut self, _: SourceKey) {}

    fn sources(&self) -> Vec<SourceKey> {
        Vec::new()
    }
}

fn flow(index: u32) -> Flow {
    Flow { source: SocketAddr::from(([198, 51, 100, 1], 1000)), index }
}

fn target(to: u8) -> Target {
    let leg =
        Leg { local: SocketAddr::from((LOCAL, 3478)), remote: SocketAddr::from(([192, 0, 2, to], 1000)) };
    Target { leg, member: 0, expires: Instant::now() + Duration::from_secs(60) }
}

fn hop(number: u32) -> NextHop {
    NextHop::new(number, 1500, [2; 6], [4; 6], IpAddr::from(LOCAL).into())
}

#[test]
fn flows_follow_their_destination_bit_by_bit() {
    let (mut maps, mut table) = (Memory::new(), Table::default());
    (0..10).for_each(|n| table.install(&mut maps, flow(n), target(1)).unwrap());
    let ends = Ends::of(&target(1));
    assert_eq!(table.take_watches(), [Watch::Begin(ends)]);
    let by = |maps: &Memory, number| (0..10).filter(|n| maps.hop(flow(*n)) == Some(number)).count();

    table.set_way(&mut maps, ends, Some(hop(1)));
    assert!(table.catch_up(&mut maps, 4).is_empty() && table.is_behind());
    assert_eq!((by(&maps, 0), by(&maps, 1)), (6, 4));
    table.set_way(&mut maps, ends, Some(hop(2)));
    table.catch_up(&mut maps, 7);
    assert_eq!((by(&maps, 0), by(&maps, 1), by(&maps, 2)), (3, 0, 7), "those that lead nowhere wait longest");
    assert_eq!(maps.used_slots(), 2, "the slot before is held until nobody leads by it");
    table.remove(&mut maps, flow(0));
    table.install(&mut maps, flow(0), target(1)).unwrap();
    assert_eq!(maps.hop(flow(0)), Some(2), "a new one needs not wait");
    table.catch_up(&mut maps, 100);
    assert_eq!((by(&maps, 2), maps.used_slots(), table.is_behind()), (10, 1, false));

    maps.flow_writes = 0;
    table.set_way(&mut maps, ends, Some(hop(2)));
    table.set_way(&mut maps, ends, Some(hop(3)));
    table.set_way(&mut maps, ends, Some(hop(2)));
    table.catch_up(&mut maps, 100);
    assert_eq!((maps.flow_writes, by(&maps, 2), maps.used_slots()), (0, 10, 1), "nothing has changed");
}

#[derive(Debug, Clone)]
enum Step {
    Install(u32, u8),
    Remove(u32),
    Way(u8, Option<u32>),
    CatchUp(usize),
    /// The daemon dies, and another takes over.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12u32, 0..4u8).prop_map(|(flow, to)| Step::Install(flow, to)),
        2 => (0..12u32).prop_map(Step::Remove),
        3 => (0..4u8, prop::option::weighted(0.8, 1..4u32)).prop_map(|(to, hop)| Step::Way(to, hop)),
        2 => (0..5usize).prop_map(Step::CatchUp),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..60)
}

/// Destinations share hops, but not all of them.
fn hop_of(to: u8, number: u32) -> NextHop {
    hop(number + if to.is_multiple_of(2) { 0 } else { 10 })
}

/// The table's life, and what it watches.
struct Life {
    maps: Memory,
    table: Table,
    watched: Vec<Ends>,
    /// To whom each flow goes.
    targets: HashMap<u32, u8>,
}

impl Life {
    fn take(&mut self, step: Step) {
        match step {
            Step::Install(n, to) => {
                self.table.install(&mut self.maps, flow(n), target(to)).unwrap();
                self.targets.insert(n, to);
            }
            Step::Remove(n) => {
                self.table.remove(&mut self.maps, flow(n));
                self.targets.remove(&n);
            }
            Step::Way(to, number) => self.set_way(to, number.map(|number| hop_of(to, number))),
            Step::CatchUp(budget) => drop(self.table.catch_up(&mut self.maps, budget)),
            Step::Restart => {
                (self.table, self.watched) = (Table::default(), Vec::new());
                let flows: Vec<_> = self.maps.flows.iter().map(|(key, value)| (*key, *value)).collect();
                let next_hops = self.maps.next_hops.clone();
                self.table.adopt(&mut self.maps, flows.into_iter(), &next_hops);
            }
        }
        for watch in self.table.take_watches() {
            match watch {
                Watch::Begin(ends) => self.watched.push(ends),
                Watch::End(ends) => self.watched.retain(|known| *known != ends),
            }
        }
    }

    /// Of the destination, by whichever address of the relay.
    fn set_way(&mut self, to: u8, way: Option<NextHop>) {
        let remote = target(to).leg.remote.ip();
        for ends in self.watched.iter().filter(|ends| ends.remote == remote) {
            self.table.set_way(&mut self.maps, *ends, way);
        }
    }

    fn assert_nothing_is_misdirected(&self) {
        assert_eq!(self.maps.flows.len(), self.targets.len());
        for (n, to) in &self.targets {
            let by = self.maps.hop(flow(*n)).unwrap();
            let allowed = (1..4).any(|number| by == hop_of(*to, number).ifindex);
            assert!(by == 0 || allowed, "flow {n} to {to} leads by {by}");
        }
    }
}

proptest! {
    #[test]
    fn flows_lead_by_their_own_ways_whatever_happens(steps in steps()) {
        let (maps, table) = (Memory::new(), Table::default());
        let mut life = Life { maps, table, watched: Vec::new(), targets: HashMap::new() };
        for step in steps {
            life.take(step);
            life.assert_nothing_is_misdirected();
        }
        (0..4).for_each(|to| life.set_way(to, Some(hop_of(to, 1))));
        life.take(Step::CatchUp(1000));
        prop_assert!(!life.table.is_behind());
        for (n, to) in &life.targets {
            prop_assert_eq!(life.maps.hop(flow(*n)), Some(hop_of(*to, 1).ifindex));
        }
        (0..12).for_each(|n| life.take(Step::Remove(n)));
        prop_assert_eq!((life.maps.used_slots(), life.watched), (0, vec![]));
    }
}
