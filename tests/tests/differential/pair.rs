//! Program and model with the same state.

use aya::TestRunOptions;
use aya::programs::{TestRun as _, Xdp};
use lanrage_common::maps::{FlowValue, Local, MemberCounter, MemberState, NextHop};
use lanrage_common::police::{Bucket, Rate};
use lanrage_common::reason::Reason;
use lanrage_common::wire::{Address, Be16, Family};
use lanrage_daemon::datapath::table::Maps as _;
use lanrage_daemon::datapath::xdp::Program;
use lanrage_tests::model::{Model, Outcome, flow_key, source_key};
use lanrage_tests::veth::require_root;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

const fn v4(a: u8, b: u8, c: u8, d: u8, port: u16) -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port))
}

const fn v6(last: u16, port: u16) -> SocketAddr {
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0x0102, 0xff00, 0, last);
    SocketAddr::V6(std::net::SocketAddrV6::new(address, port, 0, 0))
}

/// The relay, by IP version; the second of each is its alternate.
pub const RELAYS: [SocketAddr; 4] =
    [v4(203, 0, 113, 5, 3478), v4(203, 0, 113, 6, 443), v6(1, 3478), v6(2, 443)];
pub const RELAY: SocketAddr = RELAYS[0];
pub const RELAY_V6: SocketAddr = RELAYS[2];
/// A bound member with flows, by IP version.
pub const SENDERS: [SocketAddr; 2] = [v4(198, 51, 100, 7, 51820), v6(0x77, 51820)];
pub const SENDER: SocketAddr = SENDERS[0];
pub const SENDER_V6: SocketAddr = SENDERS[1];
/// A bound member who has used up everything.
pub const SPENT: SocketAddr = v4(198, 51, 100, 8, 51820);
/// Nobody.
pub const STRANGERS: [SocketAddr; 2] = [v4(198, 51, 100, 99, 40000), v6(0x99, 40000)];
/// Test runs come in by loopback.
pub const INGRESS: u32 = 1;

/// WireGuard receiver indexes of the installed flows; each names the next hop of the same number.
pub const UNRESOLVED: u32 = 0;
pub const BACK: u32 = 1;
pub const ACROSS: u32 = 2;
pub const NARROW: u32 = 3;
pub const BACK_V6: u32 = 4;
pub const ACROSS_V6: u32 = 5;
pub const BACK_TAGGED: u32 = 6;
pub const ACROSS_V6_TAGGED: u32 = 7;
pub const NARROW_V6: u32 = 8;
/// Next hop and destination are of different IP versions.
pub const CROSSED: u32 = 9;
/// No such next hop, and no such member.
pub const NO_SLOT: u32 = 10;
pub const EXPIRED: u32 = 11;
/// Of the member who has used up everything.
pub const DRAINED: u32 = 12;
pub const INDEXES: u32 = 13;

/// Slot of the members at [`SENDERS`] and at [`SPENT`].
pub const MEMBER: u32 = 5;
pub const SPENT_MEMBER: u32 = 8;
const MEMBERS: usize = 16_384;
pub const START: u64 = 1_000_000_000_000;

pub struct Pair {
    pub program: Program,
    pub model: Model,
    pub local: Local,
    output: Vec<u8>,
}

impl Pair {
    pub fn new() -> Self {
        require_root().unwrap();
        pin();
        let program = Program::load_with_given_clock(1024).unwrap();
        let model = Model {
            addresses: RELAYS.map(|relay| relay.ip()).to_vec(),
            ports: vec![3478, 443],
            pair_addresses: vec![[RELAYS[0].ip(), RELAYS[1].ip()], [RELAYS[2].ip(), RELAYS[3].ip()]],
            members: vec![MemberState::default(); MEMBERS],
            counters: vec![MemberCounter::default(); MEMBERS],
            ingress: INGRESS,
            headroom: 200,
            ..Model::default()
        };
        let mut pair = Self { program, model, local: Local::default(), output: vec![0; 4096] };
        pair.reset();
        pair
    }

    /// The state that the fixtures know; counters and used credit stay.
    pub fn reset(&mut self) {
        let mut local = Local { clock: START, flags: Local::MIXED | Local::STRICT, ..Local::default() };
        for (place, relay) in local.v4.iter_mut().zip(&RELAYS[..2]) {
            *place = Address::from(relay.ip()).v4_word();
        }
        for (place, relay) in local.v6.iter_mut().zip(&RELAYS[2..]) {
            *place = relay.ip().into();
        }
        local.pair_v4 = [local.v4[0], local.v4[1]];
        local.pair_v6 = [local.v6[0], local.v6[1]];
        local.ports[..2].copy_from_slice(&[Be16::new(3478), Be16::new(443)]);
        self.set_local(local);
        for (slot, hop) in hops().into_iter().enumerate() {
            self.put_next_hop(slot, hop);
        }
        for sender in SENDERS {
            (0..INDEXES).for_each(|index| self.put_flow(sender, index, flow(index)));
            self.put_source(sender, MEMBER);
        }
        self.put_source(SPENT, SPENT_MEMBER);
        self.put_member(MEMBER, MemberState::default());
        let nothing = Bucket::new(Rate { cost: 1024, depth: 0 });
        let never = u64::MAX / 2;
        let spent =
            MemberState { packets: nothing, bytes: nothing, control_full_at: never, probes_full_at: never };
        self.put_member(SPENT_MEMBER, spent);
    }

    pub fn set_local(&mut self, local: Local) {
        self.program.set_local(local).unwrap();
        self.local = local;
        let model = &mut self.model;
        model.mixed = local.flags & Local::MIXED != 0;
        model.strict = local.flags & Local::STRICT != 0;
        model.pair_ports = local.pair_ports.map(Be16::value);
        (model.now, model.packets, model.bytes, model.stun) =
            (local.clock, local.packets, local.bytes, local.stun);
        (model.packets_chunk, model.bytes_chunk) = (local.packets_chunk.into(), local.bytes_chunk.into());
    }

    pub fn change_local(&mut self, change: impl FnOnce(&mut Local)) {
        let mut local = self.local;
        change(&mut local);
        self.set_local(local);
    }

    pub fn put_next_hop(&mut self, slot: usize, hop: NextHop) {
        self.program.put_next_hop(slot as u32, hop).unwrap();
        self.model.next_hops.resize(self.model.next_hops.len().max(slot + 1), NextHop::default());
        self.model.next_hops[slot] = hop;
    }

    pub fn put_flow(&mut self, sender: SocketAddr, index: u32, value: FlowValue) {
        let key = flow_key(sender.ip(), sender.port(), &index.to_le_bytes());
        self.program.put_flow(key, value).unwrap();
        self.model.flows.insert(key, value);
    }

    pub fn put_source(&mut self, at: SocketAddr, slot: u32) {
        let key = source_key(at.ip(), at.port());
        self.program.put_source(key, slot).unwrap();
        self.model.sources.insert(key, slot);
    }

    pub fn put_member(&mut self, slot: u32, state: MemberState) {
        self.program.put_member(slot, state).unwrap();
        self.model.members[slot as usize] = state;
    }

    fn kernel(&mut self, frame: &[u8]) -> (u32, &[u8]) {
        let xdp: &Xdp = self.program.xdp();
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut self.output), ..Default::default() };
        let result = xdp.test_run(options).unwrap();
        (result.return_value, &self.output[..result.data_size_out as usize])
    }

    /// Runs one frame through the program with that many bytes of metadata before it, which leave less headroom.
    pub fn kernel_behind(&mut self, metadata: usize, frame: &[u8]) -> (u32, Vec<u8>) {
        let data = [&vec![0; metadata], frame].concat();
        // data, data_end, data_meta, and 0 for the interface that test runs come in by
        let context = [metadata as u32, data.len() as u32, 0, 0, 0, 0];
        let context: Vec<u8> = context.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        let xdp: &Xdp = self.program.xdp();
        let options = TestRunOptions {
            data_in: Some(&data),
            data_out: Some(&mut self.output),
            ctx_in: Some(&context),
            ..Default::default()
        };
        let result = xdp.test_run(options).unwrap();
        (result.return_value, self.output[metadata..result.data_size_out as usize].to_vec())
    }

    /// Runs one frame through both; the model's outcome when they agree.
    pub fn agree(&mut self, frame: &[u8]) -> Outcome {
        let wanted = self.model.run(frame);
        let (action, bytes) = self.kernel(frame);
        assert_eq!(action, wanted.action, "verdict for {:?}: {frame:02x?}", wanted.reason);
        assert_eq!(bytes, wanted.frame, "bytes for {:?}: {frame:02x?}", wanted.reason);
        wanted
    }

    pub fn reasons(&self) -> BTreeMap<Reason, [u64; 2]> {
        let reasons = self.program.reasons().into_iter();
        reasons.map(|(reason, count)| (reason, [count.packets, count.bytes])).collect()
    }

    /// What is left of the budgets, and who sent what.
    pub fn agree_on_members(&self) {
        for slot in [MEMBER, SPENT_MEMBER] {
            assert_eq!(
                self.program.member_state(slot),
                Some(self.model.members[slot as usize]),
                "budget of {slot}"
            );
            assert_eq!(self.program.member(slot), self.model.counters[slot as usize], "counters of {slot}");
        }
    }
}

/// Budgets that CPUs hold are compared too, so a run stays on one.
fn pin() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut one = CpuSet::new();
    one.set(NEXT.fetch_add(1, Ordering::Relaxed) % cores).unwrap();
    // On a machine that forbids this the test may fail when the thread moves.
    let _ = sched_setaffinity(Pid::from_raw(0), &one);
}

pub fn count(reasons: &mut BTreeMap<Reason, [u64; 2]>, outcome: &Outcome, length: usize) {
    let counter = reasons.get_mut(&outcome.reason).unwrap();
    *counter = [counter[0] + 1, counter[1] + length as u64];
}

fn hops() -> Vec<NextHop> {
    let v4 = |ifindex, mtu| NextHop::new(ifindex, mtu, [0xf1; 6], [0xf2; 6], RELAYS[0].ip().into());
    let v6 = |ifindex, mtu| NextHop::new(ifindex, mtu, [0xe1; 6], [0xe2; 6], RELAYS[3].ip().into());
    vec![
        NextHop::default(),
        v4(INGRESS, 1500),
        v4(77, 1500),
        v4(77, 100),
        v6(INGRESS, 1500),
        v6(77, 1500),
        NextHop { vlan: 10, ..v4(INGRESS, 1500) },
        NextHop { vlan: 4000, ..v6(77, 1500) },
        v6(77, 120),
    ]
}

fn flow(index: u32) -> FlowValue {
    let next_hop = match index {
        UNRESOLVED..=NARROW_V6 => index,
        CROSSED => BACK_V6,
        NO_SLOT => 9_999_999,
        _ => BACK,
    };
    let is_v6 = matches!(index, BACK_V6 | ACROSS_V6 | ACROSS_V6_TAGGED | NARROW_V6);
    let destination: IpAddr = if is_v6 { v6(0x1234, 1).ip() } else { v4(192, 0, 2, 9, 1).ip() };
    FlowValue {
        destination: destination.into(),
        destination_port: Be16::new(40000),
        source_port: Be16::new(3478),
        next_hop,
        member: match index {
            NO_SLOT => 9_999_999,
            DRAINED => SPENT_MEMBER,
            _ => MEMBER,
        },
        expires: if index == EXPIRED { 1000 } else { u32::MAX },
    }
}

/// An address of the same IP version, other bits.
pub fn like(address: Address, words: [u32; 4]) -> Address {
    use lanrage_common::wire::Be32;
    let words = words.map(|word| Be32::from_octets(word.to_ne_bytes()));
    match address.family() {
        Family::V4 => Address::from_v4(words[3]),
        Family::V6 => Address::from_words(words),
    }
}
