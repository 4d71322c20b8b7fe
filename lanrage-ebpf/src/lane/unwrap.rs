//! The way in: wrapped packets lose their wrapping, and what comes for a game on another address finds it.

use crate::edit::{PASS, set_destination};
use crate::maps;
use crate::packet::Packet;
use crate::trace::{Traced, answer, source_port};
use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, TC_ACT_SHOT, bpf_adj_room_mode,
    bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lanrage_common::lane::maps::{Home, LaneLocal, Step};
use lanrage_common::lane::{FragmentPart, LaneReason, OVERHEAD, PORT, Wrapped, admit};
use lanrage_common::wire::{Be32, Family, IPV4_LEN, PROTOCOL_UDP};

const PROTOCOL_TCP: u8 = 6;

#[classifier]
pub fn lane_ingress(skb: TcContext) -> i32 {
    let Some(local) = maps::local() else { return PASS };
    match handle(&skb, local) {
        Ok(()) => PASS,
        Err(reason) => {
            maps::count_reason(reason);
            TC_ACT_SHOT as i32
        }
    }
}

#[inline(always)]
fn handle(skb: &TcContext, local: &LaneLocal) -> Result<(), LaneReason> {
    let at = maps::link_len();
    // what is not even IP is the kernel's to judge
    let Ok(outer) = Packet::parse(skb, at, skb.len().saturating_sub(at)) else { return Ok(()) };
    if local.is_group(outer.facts.family, &outer.facts.destination) {
        return Err(LaneReason::Unwrapped);
    }
    let is_own = outer.facts.family == Family::V4 && outer.facts.destination.v4_word() == local.address;
    if !is_own {
        return Ok(());
    }
    if outer.has_udp() && outer.facts.port == PORT {
        return unwrap(skb, local, &outer);
    }
    if outer.facts.part == FragmentPart::Whole {
        if outer.has_udp() {
            answer(skb, local, &outer);
        }
        fix_destination(skb, local, &outer);
    }
    Ok(())
}

#[inline(always)]
fn unwrap(skb: &TcContext, local: &LaneLocal, outer: &Packet) -> Result<(), LaneReason> {
    if outer.header_len != IPV4_LEN as u32 || outer.facts.part != FragmentPart::Whole {
        return Err(LaneReason::BadWrapping);
    }
    if u32::from(outer.udp_length) != outer.length - outer.header_len {
        return Err(LaneReason::Malformed);
    }
    let room = outer.length - OVERHEAD as u32;
    let inner = Packet::parse(skb, outer.at + OVERHEAD as u32, room).map_err(|_| LaneReason::Malformed)?;
    if inner.length != room {
        return Err(LaneReason::Malformed);
    }
    // the tunnel has proven the outer source
    let sender = outer.facts.source.v4_word();
    if local.unwrapped(&inner.facts, sender)? == Wrapped::Group {
        let traced = Traced::of(&inner, sender, &inner.facts.destination);
        accept(skb, local, &inner, sender).inspect_err(|reason| traced.dropped(*reason))?;
        traced.count(source_port(skb, &inner));
        maps::count(Step::Delivered);
    }
    // No flag that keeps "checksum verified": the kernel then verifies the inner one.
    let flags = match inner.facts.family {
        Family::V4 => 0,
        Family::V6 => u64::from(BPF_F_ADJ_ROOM_DECAP_L3_IPV6),
    };
    skb.adjust_room(-(OVERHEAD as i32), bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, flags)
        .map_err(|_| LaneReason::Resize)
}

/// May this group packet of a member come in?
#[inline(always)]
fn accept(skb: &TcContext, local: &LaneLocal, inner: &Packet, sender: Be32) -> Result<(), LaneReason> {
    if inner.lacks_udp {
        return Err(LaneReason::Malformed);
    }
    admit(&inner.facts, local.allowed)?;
    if !maps::is_within_rate(sender, inner.facts.port) {
        return Err(LaneReason::RateLimited);
    }
    if inner.key(skb).is_some_and(|key| maps::is_repeated(&key)) {
        return Err(LaneReason::Duplicate);
    }
    if let Some(content) = inner.content(skb) {
        // SAFETY: a helper without arguments.
        maps::note_content(&content, unsafe { bpf_ktime_get_ns() }, false);
    }
    Ok(())
}

/// If nobody listens on the overlay address but somebody on a physical network's, it is for that one.
#[inline(always)]
fn fix_destination(skb: &TcContext, local: &LaneLocal, packet: &Packet) {
    let protocol = packet.facts.protocol;
    if protocol != PROTOCOL_UDP && protocol != PROTOCOL_TCP {
        return;
    }
    let Ok(ports) = skb.load::<[u16; 2]>(packet.transport() as usize) else { return };
    let source = number(packet.facts.source.v4_word());
    let own = tuple(source, number(local.address), ports);
    if protocol == PROTOCOL_UDP && look_up(skb, protocol, own) != Found::Nobody {
        return;
    }
    let mut best = Best { listener: Be32::default(), owner: Be32::default() };
    // no loop: of what the compiler makes of one, the verifier of Linux 6.1 takes only some forms
    let [first, second, third, fourth] = &local.homes;
    best.consider(skb, protocol, first, (source, ports));
    best.consider(skb, protocol, second, (source, ports));
    best.consider(skb, protocol, third, (source, ports));
    best.consider(skb, protocol, fourth, (source, ports));
    let Best { listener, mut owner } = best;
    // a connection is certain; a listener may also be one for all addresses
    if owner.is_zero() && !listener.is_zero() && look_up(skb, protocol, own) == Found::Nobody {
        owner = listener;
    }
    if !owner.is_zero() && set_destination(skb, packet, owner).is_some() {
        maps::count(Step::DestinationFixed);
    }
}

/// Addresses of this machine at which somebody takes a packet.
struct Best {
    listener: Be32,
    owner: Be32,
}

impl Best {
    #[inline(always)]
    fn consider(&mut self, skb: &TcContext, protocol: u8, home: &Home, (source, ports): (u32, [u16; 2])) {
        if home.address.is_zero() {
            return;
        }
        match look_up(skb, protocol, tuple(source, number(home.address), ports)) {
            Found::Nobody => {}
            Found::Listener => self.listener = home.address,
            Found::Owner => self.owner = home.address,
        }
    }
}

/// Whose a packet would be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nobody,
    /// One that waits for connections.
    Listener,
    /// A connection, or a UDP socket.
    Owner,
}

#[inline(always)]
fn look_up(skb: &TcContext, protocol: u8, mut tuple: bpf_sock_tuple) -> Found {
    let (context, netns) = (skb.skb.skb.cast(), BPF_F_CURRENT_NETNS as i64 as u64);
    let size = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>() as u32;
    // SAFETY: the context is the program's own, and the kernel reads `size` bytes of the tuple.
    let socket = unsafe {
        match protocol {
            PROTOCOL_TCP => bpf_sk_lookup_tcp(context, &raw mut tuple, size, netns, 0),
            _ => bpf_sk_lookup_udp(context, &raw mut tuple, size, netns, 0),
        }
    };
    if socket.is_null() {
        return Found::Nobody;
    }
    // SAFETY: not null, and held until it is released.
    let state = unsafe { (*socket).state };
    // SAFETY: as above.
    unsafe { bpf_sk_release(socket.cast()) };
    if protocol == PROTOCOL_TCP && state == BPF_TCP_LISTEN { Found::Listener } else { Found::Owner }
}

#[inline(always)]
fn tuple(source: u32, destination: u32, [sport, dport]: [u16; 2]) -> bpf_sock_tuple {
    let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 { saddr: source, daddr: destination, sport, dport };
    bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv4 } }
}

/// Wire order, as the kernel keeps it.
#[inline(always)]
fn number(word: Be32) -> u32 {
    u32::from_ne_bytes(word.octets())
}
