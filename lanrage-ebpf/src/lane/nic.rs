//! Physical networks: what games send there is copied to the party, and what the routes lead to the party is copied there.

use crate::edit::{PASS, consume, set_source};
use crate::maps;
use crate::packet::Packet;
use aya_ebpf::helpers::{bpf_redirect, bpf_skb_change_head, bpf_skb_load_bytes_relative};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lanrage_common::lane::maps::{HOME_MARK, LaneLocal, MAX_HOMES, Step, TAKEN_MARK};
use lanrage_common::wire::{
    Address, Be16, Be32, ETHERNET_LEN, ETHERTYPE_IPV4, Family, IPV4_LEN, PROTOCOL_UDP,
};

/// `BPF_HDR_START_NET`: offsets count from the IP header.
const START_NET: u32 = 1;

#[classifier]
pub fn nic_egress(skb: TcContext) -> i32 {
    if let Some(local) = maps::local() {
        take(&skb, local);
    }
    PASS
}

/// Gives the party a copy of what a game of this machine sends to everybody; the original goes where it goes.
#[inline(always)]
fn take(skb: &TcContext, local: &LaneLocal) {
    let context = skb.skb.skb;
    // SAFETY: the context is the program's own.
    let (mark, protocol, ifindex) = unsafe { ((*context).mark, (*context).protocol, (*context).ifindex) };
    if protocol != u32::from(ETHERTYPE_IPV4.to_be()) || mark & 0xffff_ff00 == HOME_MARK {
        return;
    }
    let mut header = [Be32::default(); 5];
    // SAFETY: the context is the program's own, and the kernel writes the whole header or nothing.
    let read = unsafe {
        bpf_skb_load_bytes_relative(context.cast(), 0, header.as_mut_ptr().cast(), IPV4_LEN as u32, START_NET)
    };
    if read != 0 || header[2].octets()[1] != PROTOCOL_UDP {
        return;
    }
    let (from, to) = (header[3], header[4]);
    let is_group = local.is_group(Family::V4, &Address::from_v4(to)) || local.is_local_broadcast(to);
    let is_own = (0..MAX_HOMES).any(|slot| {
        let home = &local.homes[slot];
        home.ifindex == ifindex && home.address == from
    });
    if !is_group || !is_own {
        return;
    }
    skb.skb.set_mark(TAKEN_MARK);
    if skb.clone_redirect(local.ifindex, 0).is_ok() {
        maps::count(Step::Captured);
    }
    skb.skb.set_mark(mark);
}

/// A clone of a group packet on its way out of the party's interface becomes a frame of a physical network.
#[inline(always)]
pub fn send_home(skb: &TcContext, local: &LaneLocal, slot: u32) -> i32 {
    let home = &local.homes[slot as usize & (MAX_HOMES - 1)];
    let at = maps::link_len();
    let Ok(packet) = Packet::parse(skb, at, skb.len().saturating_sub(at)) else { return consume() };
    if home.copies == 0 || set_source(skb, &packet, &Address::from_v4(home.address)).is_none() {
        return consume();
    }
    let [a, b, c, d, e, f, ..] = home.mac;
    let [g, h, i, j, k, l] = group_mac(packet.facts.destination.v4_word());
    let [m, n] = Be16::new(ETHERTYPE_IPV4).octets();
    let frame = [g, h, i, j, k, l, a, b, c, d, e, f, m, n];
    // SAFETY: the context is the program's own.
    if unsafe { bpf_skb_change_head(skb.skb.skb, ETHERNET_LEN as u32, 0) } != 0
        || skb.store(0, &frame, 0).is_err()
    {
        return consume();
    }
    maps::count(Step::HomeCopied);
    // SAFETY: a helper without memory arguments; its value is the verdict.
    unsafe { bpf_redirect(home.ifindex, 0) as i32 }
}

/// Ethernet's address of a group (RFC 1112, section 6.4), or of everybody.
#[inline(always)]
fn group_mac(group: Be32) -> [u8; 6] {
    let [first, b, c, d] = group.octets();
    if first == 255 { [0xff; 6] } else { [0x01, 0x00, 0x5e, b & 0x7f, c, d] }
}
