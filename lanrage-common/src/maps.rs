//! Layouts of the kernel maps, shared by the programs that read them and the daemon that alone writes them.
//!
//! Everything that comes from or goes to the wire is kept in wire order ([`Be16`], [`Be32`]); indexes and sizes are
//! numbers of the host. No type has padding, so keys compare byte for byte.

use crate::police::{Bucket, Rate};
use crate::wire::{Address, Be16, Be32, Family};

/// Changes whenever a layout below, a map's name or kind, or the numbering of [`crate::reason::Reason`] changes: maps of
/// another version are never reused.
pub const LAYOUT_VERSION: u32 = 2;

/// Name of the hash map [`FlowKey`] → [`FlowValue`].
pub const FLOWS: &str = "FLOWS";
/// Name of the array slot → [`NextHop`].
pub const NEXT_HOPS: &str = "NEXT_HOPS";
/// Name of the array whose only entry is the relay's [`Local`].
pub const LOCAL: &str = "LOCAL";
/// Name of the array of member slots → [`MemberState`]. The daemon writes it, the kernel program uses it up.
pub const MEMBERS: &str = "MEMBERS";
/// Name of the hash map [`SourceKey`] → slot of the member that is bound there.
pub const SOURCES: &str = "SOURCES";
/// Name of the per-CPU array of member slots → [`MemberCounter`].
pub const COUNTERS: &str = "COUNTERS";
/// Name of the per-CPU array [`crate::reason::Reason::index`] → [`Counter`].
pub const REASONS: &str = "REASONS";
/// Name of the array whose only entry is the [`Global`] budget's state.
pub const GLOBAL: &str = "GLOBAL";
/// Name of the per-CPU array whose only entry is what that CPU holds of the global budget: [`Credit`].
pub const CREDIT: &str = "CREDIT";
/// Name of the ring buffer of [`Event`]s.
pub const EVENTS: &str = "EVENTS";
/// Name of the array of member slots → [`Record`]: the daemon's memory of its bindings; the kernel program never reads it.
pub const RECORDS: &str = "RECORDS";
/// Name of the read-only global that makes the program take the time from [`Local::clock`].
pub const TEST_CLOCK: &str = "TEST_CLOCK";

/// Flows the table holds unless the daemon sizes it otherwise.
pub const DEFAULT_FLOWS: u32 = 65_536;
/// Next hops the table holds unless the daemon sizes it otherwise.
pub const DEFAULT_NEXT_HOPS: u32 = 4_096;
/// Members that have own counters unless the daemon sizes it otherwise.
pub const DEFAULT_MEMBERS: u32 = 16_384;
/// Bytes of the ring buffer of events.
pub const EVENTS_BYTES: u32 = 1 << 18;
/// Own addresses of each IP version that a relay can have.
pub const LOCAL_ADDRESSES: usize = 8;
/// Own ports a relay can have.
pub const LOCAL_PORTS: usize = 4;
/// Longest binding record, bytes.
pub const RECORD_LEN: usize = 256;

/// What names a flow in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct FlowKey {
    /// The sender's address.
    pub source: Address,
    /// WireGuard's receiver index as it lies in the packet (WireGuard itself reads it little-endian).
    pub index: Be32,
    /// The sender's port.
    pub source_port: Be16,
    /// Zero.
    pub reserved: Be16,
}

/// What is done with a flow's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FlowValue {
    /// New destination address: the receiving member's.
    pub destination: Address,
    /// New destination port: the receiving member's.
    pub destination_port: Be16,
    /// New source port: the relay's. The address is the next hop's.
    pub source_port: Be16,
    /// Slot in [`NEXT_HOPS`].
    pub next_hop: u32,
    /// Slot in [`MEMBERS`] and [`COUNTERS`] of the sending member.
    pub member: u32,
    /// From this second of CLOCK_MONOTONIC on the flow is over, whether the daemon lives or not.
    pub expires: u32,
}

/// How to reach the next hop. All zero = the way is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct NextHop {
    /// The relay's address to send from. Its family is that of the packets that go this way.
    pub source: Address,
    /// Egress interface; 0 = the way is not known.
    pub ifindex: u32,
    /// Largest IP packet that fits, bytes.
    pub mtu: u32,
    /// Destination and source MAC address as they begin a frame.
    pub macs: [Be32; 3],
    /// VLAN to send in; 0 = untagged.
    pub vlan: u16,
    /// Zero.
    pub reserved: u16,
}

impl NextHop {
    /// A known next hop for packets from `source`, untagged.
    pub const fn new(
        ifindex: u32,
        mtu: u32,
        destination: [u8; 6],
        source_mac: [u8; 6],
        source: Address,
    ) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination, source_mac);
        let macs = [
            Be32::from_octets([a, b, c, d]),
            Be32::from_octets([e, f, g, h]),
            Be32::from_octets([i, j, k, l]),
        ];
        Self { ifindex, mtu, macs, source, vlan: 0, reserved: 0 }
    }
}

/// What the relay answers to, and what it allows. Unused places are zero and match nothing; all zero = the program
/// passes everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Local {
    /// The time in tests, nanoseconds; otherwise the kernel's CLOCK_MONOTONIC is used.
    pub clock: u64,
    /// Everybody's packets together; cost 0 = unlimited.
    pub packets: Rate,
    /// Everybody's bytes of UDP payload together; cost 0 = unlimited.
    pub bytes: Rate,
    /// STUN that is passed up, for each CPU; cost 0 = unlimited.
    pub stun: Rate,
    /// Packets that a CPU takes out of `packets` at once.
    pub packets_chunk: u32,
    /// Bytes that a CPU takes out of `bytes` at once; at least the longest datagram.
    pub bytes_chunk: u32,
    /// Own IPv4 addresses.
    pub v4: [Be32; LOCAL_ADDRESSES],
    /// Own ports.
    pub ports: [Be16; LOCAL_PORTS],
    /// Of [`Local::MIXED`] and [`Local::STRICT`].
    pub flags: u32,
    /// Every n-th packet of a reason that is not forwarded is told as an [`Event`]; a power of two, 0 = none.
    pub sampling: u32,
    /// Main and alternate port of RFC 5780; without both, answers name no other address.
    pub pair_ports: [Be16; 2],
    /// Zero.
    pub reserved: u32,
    /// Main and alternate address of RFC 5780, IPv4.
    pub pair_v4: [Be32; 2],
    /// Own IPv6 addresses.
    pub v6: [Address; LOCAL_ADDRESSES],
    /// Main and alternate address of RFC 5780, IPv6.
    pub pair_v6: [Address; 2],
}

impl Local {
    /// Packets may grow and shrink: between IPv4 and IPv6, tagged and untagged.
    pub const MIXED: u32 = 1;
    /// [`SOURCES`] is complete: what comes from elsewhere is dropped, STUN apart.
    pub const STRICT: u32 = 2;

    /// Is it one of the relay's IPv4 addresses?
    #[inline(always)]
    pub fn has_v4(&self, address: Be32) -> bool {
        !address.is_zero() && self.v4.contains(&address)
    }

    /// Is it one of the relay's addresses of that family?
    #[inline(always)]
    pub fn has_address(&self, family: Family, address: &Address) -> bool {
        match family {
            Family::V4 => self.has_v4(address.v4_word()),
            Family::V6 => {
                let words = address.words();
                // the last word differs most, and an unused place matches nothing
                !address.is_none()
                    && self.v6.iter().any(|own| own.words()[3] == words[3] && own.words() == words)
            }
        }
    }

    /// Is it one of the relay's ports?
    #[inline(always)]
    pub fn has_port(&self, port: Be16) -> bool {
        !port.is_zero() && self.ports.contains(&port)
    }

    /// Is that flag set?
    #[inline(always)]
    pub fn allows(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// OTHER-ADDRESS (RFC 5780, section 7.4) of an answer from `address` and `port`: the alternate for the main one and
    /// the other way round. `None` at a third address, and without a second one: by a second port alone a client would take every NAT for one
    /// with endpoint-independent mapping.
    #[inline(always)]
    pub fn other(&self, family: Family, address: &Address, port: Be16) -> Option<(Address, Be16)> {
        let [main, alternate] = self.pair_ports;
        let [first, second] = match family {
            Family::V4 => [Address::from_v4(self.pair_v4[0]), Address::from_v4(self.pair_v4[1])],
            Family::V6 => self.pair_v6,
        };
        let is_set = match family {
            Family::V4 => !self.pair_v4[1].is_zero(),
            Family::V6 => !second.is_none(),
        };
        if !is_set || main.is_zero() || alternate.is_zero() {
            return None;
        }
        let other = match *address {
            address if address == first => second,
            address if address == second => first,
            _ => return None,
        };
        Some((other, if port == alternate { main } else { alternate }))
    }
}

/// Who is bound: the key of [`SOURCES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct SourceKey {
    /// The member's address.
    pub address: Address,
    /// Its port.
    pub port: Be16,
    /// Zero.
    pub reserved: [u16; 3],
}

impl SourceKey {
    /// The key of an address and port.
    #[inline(always)]
    pub const fn new(address: Address, port: Be16) -> Self {
        Self { address, port, reserved: [0; 3] }
    }
}

/// What a member may still send. All zero = unlimited data, full budgets for everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct MemberState {
    /// Data, packets.
    pub packets: Bucket,
    /// Data, bytes of UDP payload.
    pub bytes: Bucket,
    /// When the bucket of handshakes will be full again ([`crate::police::CONTROL`]).
    pub control_full_at: u64,
    /// When the bucket of path probes will be full again ([`crate::police::PROBES`]).
    pub probes_full_at: u64,
}

/// State of the global budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Global {
    /// When the bucket of [`Local::packets`] will be full again, nanoseconds.
    pub packets_full_at: u64,
    /// When the bucket of [`Local::bytes`] will be full again, nanoseconds.
    pub bytes_full_at: u64,
}

/// What a CPU holds of budgets that all CPUs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Credit {
    /// Packets taken and not yet used.
    pub packets: u64,
    /// Bytes taken and not yet used.
    pub bytes: u64,
    /// When this CPU's bucket of [`Local::stun`] will be full again, nanoseconds.
    pub stun_full_at: u64,
}

/// A packet that was not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Event {
    /// Its source address; none when the packet does not get that far.
    pub source: Address,
    /// [`crate::reason::Reason::index`].
    pub reason: u32,
    /// Where it came in.
    pub ifindex: u32,
    /// Its length from the Ethernet header on.
    pub length: u32,
    /// First four bytes of its UDP payload, read little-endian: WireGuard's message type.
    pub kind: u32,
    /// The next four bytes: of WireGuard data, the receiver index.
    pub index: Be32,
    /// Slot of the member that is bound at its source; [`Event::NOBODY`] = none.
    pub member: u32,
    /// Its source port.
    pub source_port: Be16,
    /// Its destination port.
    pub destination_port: Be16,
    /// Zero.
    pub reserved: u32,
}

impl Event {
    /// No member.
    pub const NOBODY: u32 = u32::MAX;

    /// Reads one as it lies in the ring buffer; `None` when it is too short.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            Some([*bytes.get(at)?, *bytes.get(at + 1)?, *bytes.get(at + 2)?, *bytes.get(at + 3)?])
        };
        let number = |at| word(at).map(u32::from_ne_bytes);
        let address = [0, 4, 8, 12].map(|at| word(at).map_or(Be32::default(), Be32::from_octets));
        let [a, b, c, d] = word(40)?;
        Some(Self {
            source: Address::from_words(address),
            reason: number(16)?,
            ifindex: number(20)?,
            length: number(24)?,
            kind: number(28)?,
            index: Be32::from_octets(word(32)?),
            member: number(36)?,
            source_port: Be16::from_octets([a, b]),
            destination_port: Be16::from_octets([c, d]),
            reserved: number(44)?,
        })
    }
}

/// A binding record, opaque to everybody but the relay server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// Bytes in use; 0 = no record.
    pub length: u32,
    /// The record, then zeros.
    pub bytes: [u8; RECORD_LEN],
}

/// A counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
}

/// What became of a member's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct MemberCounter {
    /// Frames forwarded.
    pub packets: u64,
    /// Their bytes as they came in, from the Ethernet header on.
    pub bytes: u64,
    /// Frames dropped for want of budget.
    pub dropped: u64,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 24 && align_of::<FlowKey>() == 8);
    assert!(size_of::<FlowValue>() == 32 && align_of::<FlowValue>() == 8);
    assert!(size_of::<NextHop>() == 40 && align_of::<NextHop>() == 8);
    assert!(size_of::<Local>() == 288 && align_of::<Local>() == 8);
    assert!(size_of::<SourceKey>() == 24 && align_of::<SourceKey>() == 8);
    assert!(size_of::<MemberState>() == 64 && align_of::<MemberState>() == 8);
    assert!(size_of::<Global>() == 16 && align_of::<Global>() == 8);
    assert!(size_of::<Credit>() == 24 && align_of::<Credit>() == 8);
    assert!(size_of::<Event>() == 48 && align_of::<Event>() == 8);
    assert!(size_of::<Record>() == 260 && align_of::<Record>() == 4);
    assert!(size_of::<Counter>() == 16 && align_of::<Counter>() == 8);
    assert!(size_of::<MemberCounter>() == 24 && align_of::<MemberCounter>() == 8);
};

/// aya copies map entries as bytes.
#[cfg(all(feature = "user", target_os = "linux"))]
#[allow(unsafe_code)]
mod pod {
    use super::{
        Counter, Credit, Event, FlowKey, FlowValue, Global, Local, MemberCounter, MemberState, NextHop,
        Record, SourceKey,
    };

    macro_rules! pod {
        ($($name:ident)+) => {
            $(
                // SAFETY: `repr(C)`, integers only, no padding (asserted above), any bit pattern is a value.
                unsafe impl aya::Pod for $name {}
            )+
        };
    }

    pod! { Counter Credit Event FlowKey FlowValue Global Local MemberCounter MemberState NextHop Record SourceKey }
}
