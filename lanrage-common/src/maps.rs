//! Layouts of the kernel maps, shared by the programs that read them and the daemon that alone writes them.
//!
//! Everything that comes from or goes to the wire is kept in wire order ([`Be16`], [`Be32`]); indexes and sizes are
//! numbers of the host. No type has padding, so keys compare byte for byte.

use crate::wire::{Be16, Be32};

/// Changes whenever a layout below, a map's name or kind, or the numbering of [`crate::reason::Reason`] changes: maps of
/// another version are never reused.
pub const LAYOUT_VERSION: u32 = 1;

/// Name of the hash map [`FlowKey`] → [`FlowValue`].
pub const FLOWS: &str = "FLOWS";
/// Name of the array slot → [`NextHop`].
pub const NEXT_HOPS: &str = "NEXT_HOPS";
/// Name of the array whose only entry is the relay's [`Local`].
pub const LOCAL: &str = "LOCAL";
/// Name of the per-CPU array [`crate::reason::Reason::index`] → [`Counter`].
pub const REASONS: &str = "REASONS";
/// Name of the per-CPU array of member slots → [`Counter`] of what was forwarded for them.
pub const MEMBERS: &str = "MEMBERS";

/// Flows the table holds unless the daemon sizes it otherwise.
pub const DEFAULT_FLOWS: u32 = 65_536;
/// Next hops the table holds unless the daemon sizes it otherwise.
pub const DEFAULT_NEXT_HOPS: u32 = 4_096;
/// Members that have own counters unless the daemon sizes it otherwise.
pub const DEFAULT_MEMBERS: u32 = 16_384;
/// Own addresses a relay can have.
pub const LOCAL_ADDRESSES: usize = 8;
/// Own ports a relay can have.
pub const LOCAL_PORTS: usize = 4;

/// What names a flow in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct FlowKey {
    /// The sender's address.
    pub source: Be32,
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
    /// New source address: the relay's.
    pub source: Be32,
    /// New destination address: the receiving member's.
    pub destination: Be32,
    /// New source port: the relay's.
    pub source_port: Be16,
    /// New destination port: the receiving member's.
    pub destination_port: Be16,
    /// Slot in [`NEXT_HOPS`].
    pub next_hop: u32,
    /// Slot in [`MEMBERS`] of the sending member.
    pub member: u32,
}

/// How to reach the next hop. All zero = the way is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct NextHop {
    /// Egress interface; 0 = the way is not known.
    pub ifindex: u32,
    /// Largest IP packet that fits, bytes.
    pub mtu: u32,
    /// Destination and source MAC address as they begin a frame.
    pub macs: [Be32; 3],
}

impl NextHop {
    /// A known next hop.
    pub const fn new(ifindex: u32, mtu: u32, destination: [u8; 6], source: [u8; 6]) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination, source);
        let macs = [
            Be32::from_octets([a, b, c, d]),
            Be32::from_octets([e, f, g, h]),
            Be32::from_octets([i, j, k, l]),
        ];
        Self { ifindex, mtu, macs }
    }
}

/// What the relay answers to. Unused places are zero and match nothing; all zero = the program passes everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Local {
    /// Own addresses.
    pub addresses: [Be32; LOCAL_ADDRESSES],
    /// Own ports.
    pub ports: [Be16; LOCAL_PORTS],
}

impl Local {
    /// Is it one of the relay's addresses?
    #[inline(always)]
    pub fn has_address(&self, address: Be32) -> bool {
        !address.is_zero() && self.addresses.contains(&address)
    }

    /// Is it one of the relay's ports?
    #[inline(always)]
    pub fn has_port(&self, port: Be16) -> bool {
        !port.is_zero() && self.ports.contains(&port)
    }
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

const _: () = {
    assert!(size_of::<FlowKey>() == 12 && align_of::<FlowKey>() == 4);
    assert!(size_of::<FlowValue>() == 20 && align_of::<FlowValue>() == 4);
    assert!(size_of::<NextHop>() == 20 && align_of::<NextHop>() == 4);
    assert!(size_of::<Local>() == 40 && align_of::<Local>() == 4);
    assert!(size_of::<Counter>() == 16 && align_of::<Counter>() == 8);
};

/// aya copies map entries as bytes.
#[cfg(all(feature = "user", target_os = "linux"))]
#[allow(unsafe_code)]
mod pod {
    use super::{Counter, FlowKey, FlowValue, Local, NextHop};

    // SAFETY: `repr(C)`, integers only, no padding (asserted above), any bit pattern is a value.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NextHop {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Local {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counter {}
}
