//! The way out: group packets become one wrapped copy for each member.

use crate::edit::{PASS, consume, set_destination, set_source};
use crate::maps;
use crate::nic;
use crate::packet::Packet;
use crate::trace::{self, Traced};
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, bpf_adj_room_mode,
};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_loop};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use core::ffi::c_void;
use lanrage_common::lane::maps::{HOME_MARK, LaneLocal, MAX_HOMES, Step, TAKEN_MARK};
use lanrage_common::lane::{LaneReason, OVERHEAD, PORT, Way, admit, selective_group};
use lanrage_common::wire::{Address, Be16, Be32, ChecksumDelta, DEFAULT_TTL, Family, IPV4_LEN, PROTOCOL_UDP};

/// The inner headers' offsets are set too, which checksum offload relies on.
const GROW: u32 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
const MARK_MASK: u32 = 0xffff_ff00;

#[classifier]
pub fn lane_egress(skb: TcContext) -> i32 {
    let Some(local) = maps::local() else { return PASS };
    // SAFETY: the context is the program's own.
    let mark = unsafe { (*skb.skb.skb).mark };
    if mark & MARK_MASK == HOME_MARK {
        return nic::send_home(&skb, local, mark & !MARK_MASK);
    }
    match handle(&skb, local, mark == TAKEN_MARK) {
        Ok(verdict) => verdict,
        Err(reason) => {
            maps::count_reason(reason);
            consume()
        }
    }
}

#[inline(always)]
fn handle(skb: &TcContext, local: &LaneLocal, is_taken: bool) -> Result<i32, LaneReason> {
    let at = maps::link_len();
    let first: u8 = skb.load(at as usize).map_err(|_| LaneReason::Malformed)?;
    if first >> 4 != 4 && first >> 4 != 6 {
        return Ok(PASS);
    }
    let room = skb.len().saturating_sub(at);
    let packet = Packet::parse(skb, at, room).map_err(|_| LaneReason::Malformed)?;
    match local.way(&packet.facts) {
        Way::Pass => {
            fix_source(skb, local, &packet);
            Ok(PASS)
        }
        Way::Group(destination) => {
            maps::count(Step::Seen);
            // SAFETY: a helper without arguments.
            let now = unsafe { bpf_ktime_get_ns() };
            let content = packet.content(skb);
            let is_loop = content.is_some_and(|content| maps::is_loop(&content, now));
            if !is_taken && !is_loop && local.is_for_home(&packet.facts) {
                copy_home(skb, local);
            }
            let traced = Traced::of(&packet, local.address, &destination);
            if packet.has_udp() {
                let source_port = trace::source_port(skb, &packet);
                traced.count(source_port);
                trace::asked(source_port);
            }
            let copies = check(skb, local, &packet)
                .and_then(|()| if is_loop { Err(LaneReason::Looped) } else { Ok(()) })
                .inspect(|()| {
                    if let Some(content) = &content {
                        maps::note_content(content, now, true);
                    }
                })
                .and_then(|()| wrap(skb, local, &packet, &destination, Receivers::of(local, &packet)))
                .inspect_err(|reason| traced.dropped(*reason))?;
            traced.copied(copies);
            Ok(consume())
        }
        Way::Member(member) => {
            if packet.facts.source != local.source(Family::V6) {
                return Err(LaneReason::Spoofed);
            }
            check_room(&packet)?;
            let slot = maps::slot_of(member).ok_or(LaneReason::NoMembers)?;
            wrap(skb, local, &packet, &packet.facts.destination, Receivers::one(slot))?;
            Ok(consume())
        }
    }
}

/// May this group packet cross?
#[inline(always)]
fn check(skb: &TcContext, local: &LaneLocal, packet: &Packet) -> Result<(), LaneReason> {
    if packet.lacks_udp {
        return Err(LaneReason::Malformed);
    }
    admit(&packet.facts, local.allowed)?;
    // SAFETY: the context is the program's own.
    if unsafe { (*skb.skb.skb).gso_size } != 0 {
        return Err(LaneReason::Segmented);
    }
    if !maps::is_within_rate(local.address, packet.facts.port) {
        return Err(LaneReason::RateLimited);
    }
    check_room(packet)
}

#[inline(always)]
fn check_room(packet: &Packet) -> Result<(), LaneReason> {
    if packet.length + OVERHEAD as u32 > u32::from(u16::MAX) { Err(LaneReason::Oversize) } else { Ok(()) }
}

/// A game that is bound to a physical network's address talks to a member: the member knows the overlay address only.
#[inline(always)]
fn fix_source(skb: &TcContext, local: &LaneLocal, packet: &Packet) {
    if packet.facts.family != Family::V4 {
        return;
    }
    let source = packet.facts.source.v4_word();
    if local.homes.iter().any(|home| !home.address.is_zero() && home.address == source)
        && set_source(skb, packet, &Address::from_v4(local.address)).is_some()
    {
        maps::count(Step::SourceFixed);
    }
}

/// The routes led the packet here; physical networks get it too. Each clone comes to this program again, with the mark.
#[inline(always)]
fn copy_home(skb: &TcContext, local: &LaneLocal) {
    // SAFETY: the context is the program's own.
    let before = unsafe { (*skb.skb.skb).mark };
    for slot in 0..MAX_HOMES {
        if local.homes[slot].copies != 0 {
            skb.skb.set_mark(HOME_MARK | slot as u32);
            let _ = skb.clone_redirect(local.ifindex, 0);
        }
    }
    skb.skb.set_mark(before);
}

/// Who gets a packet.
struct Receivers {
    first: u32,
    count: u32,
    /// Only those that have joined this, if it is any.
    group: Address,
}

impl Receivers {
    /// Of a packet to everybody.
    #[inline(always)]
    fn of(local: &LaneLocal, packet: &Packet) -> Self {
        let is_stream = |group: &Address| !maps::is_search(*group, packet.facts.port);
        let group = selective_group(&packet.facts).filter(is_stream).unwrap_or_default();
        Self { first: 0, count: local.members, group }
    }

    /// The member in that slot.
    #[inline(always)]
    fn one(slot: u32) -> Self {
        Self { first: slot, count: 1, group: Address::default() }
    }
}

/// Grows the packet once, and sends it with another outer header to each receiver. Says to how many. Where nobody is yet the
/// daemon gets it, for who comes.
#[inline(always)]
fn wrap(
    skb: &TcContext,
    local: &LaneLocal,
    packet: &Packet,
    destination: &Address,
    receivers: Receivers,
) -> Result<u32, LaneReason> {
    let family = packet.facts.family;
    set_source(skb, packet, &local.source(family)).ok_or(LaneReason::Resize)?;
    if family == Family::V4 {
        set_destination(skb, packet, destination.v4_word()).ok_or(LaneReason::Resize)?;
    }
    skb.adjust_room(OVERHEAD as i32, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, u64::from(GROW))
        .map_err(|_| LaneReason::Resize)?;
    let outer = Outer::new(local, packet);
    if local.members == 0 {
        // as everything that leaves by this interface; the address tells that it is for nobody else
        skb.store(packet.at as usize, &outer.to(local.address), 0).map_err(|_| LaneReason::Resize)?;
        let _ = skb.clone_redirect(local.ifindex, 0);
        return Err(LaneReason::NoMembers);
    }
    let mut copies = Copies {
        skb: skb.skb.skb,
        outer,
        at: packet.at,
        ifindex: local.ifindex,
        first: receivers.first,
        group: receivers.group,
    };
    // counted in a map: what a loop changes on the stack, the verifier follows round by round
    let before = maps::counted(Step::Copied);
    // The kernel's own loop: unrolled, 256 members are more than its verifier follows.
    // SAFETY: the function takes what is handed to it, which lives longer than the loop.
    unsafe {
        bpf_loop(receivers.count, send_copy as *mut c_void, (&raw mut copies).cast(), 0);
    }
    let sent = maps::counted(Step::Copied).wrapping_sub(before) as u32;
    if sent == 0 && !receivers.group.is_none() { Err(LaneReason::NotJoined) } else { Ok(sent) }
}

/// What the loop over members needs.
#[repr(C)]
struct Copies {
    skb: *mut __sk_buff,
    outer: Outer,
    at: u32,
    ifindex: u32,
    first: u32,
    group: Address,
}

/// Sends one member's copy; 0 = go on.
#[inline(never)]
extern "C" fn send_copy(number: u32, copies: *mut Copies) -> u64 {
    // SAFETY: the loop hands on what it was given.
    let copies = unsafe { &*copies };
    let slot = copies.first + number;
    let Some(member) = maps::member(slot) else { return 1 };
    if !copies.group.is_none() && maps::is_unwanted(copies.group, member) {
        maps::count(Step::Spared);
        return 0;
    }
    let skb = TcContext::new(copies.skb);
    let sent = skb.store(copies.at as usize, &copies.outer.to(member), 0).is_ok()
        && skb.clone_redirect(copies.ifindex, 0).is_ok();
    maps::count_copy(slot, sent);
    maps::count(Step::Copied);
    0
}

/// The wrapping's headers, for nobody yet.
struct Outer {
    /// Version, header length, traffic class and total length.
    begin: Be32,
    source: Be32,
    udp_length: u16,
    /// Of the header without a destination.
    sum: ChecksumDelta,
}

impl Outer {
    /// Time to live and protocol; the checksum follows.
    const TTL: [u8; 2] = [DEFAULT_TTL, PROTOCOL_UDP];

    #[inline(always)]
    fn new(local: &LaneLocal, packet: &Packet) -> Self {
        let total = packet.length + OVERHEAD as u32;
        let [_, _, a, b] = total.to_be_bytes();
        let begin = Be32::from_octets([0x45, packet.traffic_class, a, b]);
        let [ttl, protocol] = Self::TTL;
        let sum = ChecksumDelta::new()
            .add32(begin)
            .add32(Be32::from_octets([ttl, protocol, 0, 0]))
            .add32(local.address);
        Self { begin, source: local.address, udp_length: (total - IPV4_LEN as u32) as u16, sum }
    }

    /// Identification 0 and no DF: the tunnel may fragment what it makes of it. No UDP checksum: WireGuard has a better one.
    #[inline(always)]
    fn to(&self, member: Be32) -> [Be32; 7] {
        let [ttl, protocol] = Self::TTL;
        let [a, b] = self.sum.add32(member).checksum().octets();
        let port = Be16::new(PORT);
        [
            self.begin,
            Be32::default(),
            Be32::from_octets([ttl, protocol, a, b]),
            self.source,
            member,
            Be32::from_halves(port, port),
            Be32::from_halves(Be16::new(self.udp_length), Be16::default()),
        ]
    }
}
