//! Changes to packets. The kernel's helpers know which checksums are finished, and which the interface will finish.

use crate::packet::Packet;
use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::programs::TcContext;
use lanrage_common::wire::{Address, Be32, Family};

const PROTOCOL_TCP: u8 = 6;
/// Where the header checksum, source and destination lie in an IPv4 header.
const CHECKSUM: u32 = 10;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const SOURCE_V6: u32 = 8;

/// The packet goes on as it is; other programs may look at it.
pub const PASS: i32 = TC_ACT_UNSPEC;

/// The packet ends here, and its sender hears of no error. Right under tcx and under clsact, where TC_ACT_STOLEN is not.
#[inline(always)]
pub fn consume() -> i32 {
    // SAFETY: a helper without memory arguments; its value is the verdict.
    unsafe { bpf_redirect(0, 0) as i32 }
}

/// Gives the packet another source address.
#[inline(always)]
pub fn set_source(skb: &TcContext, packet: &Packet, source: &Address) -> Option<()> {
    let old = packet.facts.source;
    match packet.facts.family {
        Family::V4 => set_v4(skb, packet, SOURCE, old.v4_word(), source.v4_word()),
        Family::V6 => set_v6_source(skb, packet, &old, source),
    }
}

/// Gives an IPv4 packet another destination address.
#[inline(always)]
pub fn set_destination(skb: &TcContext, packet: &Packet, destination: Be32) -> Option<()> {
    set_v4(skb, packet, DESTINATION, packet.facts.destination.v4_word(), destination)
}

#[inline(always)]
fn set_v4(skb: &TcContext, packet: &Packet, at: u32, old: Be32, new: Be32) -> Option<()> {
    if old == new {
        return Some(());
    }
    replace_transport(skb, packet, old, new)?;
    let (from, to) = (number(old), number(new));
    skb.l3_csum_replace((packet.at + CHECKSUM) as usize, from, to, 4).ok()?;
    skb.store((packet.at + at) as usize, &new, 0).ok()
}

#[inline(always)]
fn set_v6_source(skb: &TcContext, packet: &Packet, old: &Address, new: &Address) -> Option<()> {
    if old == new {
        return Some(());
    }
    let (old, new) = (old.words(), new.words());
    for word in 0..4 {
        replace_transport(skb, packet, old[word], new[word])?;
    }
    skb.store((packet.at + SOURCE_V6) as usize, &new, 0).ok()
}

/// Carries a changed address over into the transport checksum, if it lies in this packet.
#[inline(always)]
fn replace_transport(skb: &TcContext, packet: &Packet, old: Be32, new: Be32) -> Option<()> {
    let (at, flags) = if packet.has_udp() {
        (6, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4)
    } else if packet.facts.protocol == PROTOCOL_TCP {
        (16, BPF_F_PSEUDO_HDR | 4)
    } else {
        return Some(());
    };
    let at = (packet.transport() + at) as usize;
    skb.l4_csum_replace(at, number(old), number(new), u64::from(flags)).ok()
}

/// As the checksum helpers want it: the bytes as they lie in memory.
#[inline(always)]
fn number(word: Be32) -> u64 {
    u64::from(u32::from_ne_bytes(word.octets()))
}
