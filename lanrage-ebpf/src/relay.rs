//! The relay in XDP: WireGuard data of installed flows is sent on, everything else belongs to the host.
//!
//! Three steps, each with a type that only the one before can make: [`parse`] and [`Parsed::plan`] read, [`Plan::apply`]
//! writes and cannot fail. So no frame is passed up half rewritten.

use crate::maps;
use crate::packet::{Checked, Frame, PAYLOAD};
use aya_ebpf::{bindings::xdp_action, helpers::bpf_redirect, macros::xdp, programs::XdpContext};
use lanrage_common::forward::{self, Edits, Headers};
use lanrage_common::maps::{FlowKey, Local};
use lanrage_common::reason::{Reason, Verdict};
use lanrage_common::wire::{
    Be16, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPES_VLAN, FRAGMENT_MASK, IPV4_LEN, PROTOCOL_UDP, UDP_LEN,
    WIREGUARD_DATA, WIREGUARD_DATA_LEN,
};

#[xdp]
pub fn relay(context: XdpContext) -> u32 {
    let frame = Frame::new(&context);
    let bytes = frame.len() as u64;
    let ingress = context.ingress_ifindex() as u32;
    let (reason, egress) = match parse(&frame).and_then(|parsed| parsed.plan(ingress)) {
        Ok(plan) => plan.apply(bytes),
        Err(reason) => (reason, 0),
    };
    maps::count_reason(reason, bytes);
    match reason.verdict() {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Transmit => xdp_action::XDP_TX,
        // SAFETY: a helper without memory arguments; its value is the verdict.
        Verdict::Redirect => unsafe { bpf_redirect(egress, 0) as u32 },
    }
}

/// WireGuard data for the relay, every header checked.
struct Parsed {
    bytes: Checked<PAYLOAD>,
    headers: Headers,
    key: FlowKey,
}

#[inline(always)]
fn parse(frame: &Frame) -> Result<Parsed, Reason> {
    check_ethernet(frame)?;
    // The entry always exists; all zero, it matches nothing.
    let local = maps::local().ok_or(Reason::OtherAddress)?;
    check_ipv4(frame, local)?;
    let bytes = check_udp(frame, local)?;
    let data = check_wireguard(frame)?;
    let headers = bytes.headers();
    let key = FlowKey {
        source: headers.source,
        index: data.receiver_index(),
        source_port: headers.source_port,
        reserved: Be16::default(),
    };
    Ok(Parsed { bytes, headers, key })
}

#[inline(always)]
fn check_ethernet(frame: &Frame) -> Result<(), Reason> {
    let ethertype = frame.begin::<ETHERNET_LEN>().ok_or(Reason::ShortFrame)?.ethertype();
    if ETHERTYPES_VLAN.contains(&ethertype) {
        return Err(Reason::Vlan);
    }
    if ethertype == ETHERTYPE_IPV4 { Ok(()) } else { Err(Reason::NotIpv4) }
}

#[inline(always)]
fn check_ipv4(frame: &Frame, local: &Local) -> Result<(), Reason> {
    let ip = frame.begin::<{ ETHERNET_LEN + IPV4_LEN }>().ok_or(Reason::ShortIpv4)?;
    match ip.version_and_words() {
        (4, 5) => {}
        (4, 6..) => return Err(Reason::IpOptions),
        _ => return Err(Reason::BadIpv4),
    }
    if !local.has_address(ip.destination()) {
        return Err(Reason::OtherAddress);
    }
    if ip.protocol() != PROTOCOL_UDP {
        return Err(Reason::NotUdp);
    }
    if ip.fragment() & FRAGMENT_MASK != 0 {
        return Err(Reason::Fragment);
    }
    Ok(())
}

#[inline(always)]
fn check_udp(frame: &Frame, local: &Local) -> Result<Checked<PAYLOAD>, Reason> {
    let bytes = frame.begin::<PAYLOAD>().ok_or(Reason::Ipv4Length)?;
    let headers = bytes.headers();
    if usize::from(headers.total_length) + ETHERNET_LEN != frame.len() {
        return Err(Reason::Ipv4Length);
    }
    if usize::from(bytes.udp_length()) + IPV4_LEN != usize::from(headers.total_length) {
        return Err(Reason::UdpLength);
    }
    if !local.has_port(headers.destination_port) {
        return Err(Reason::OtherPort);
    }
    Ok(bytes)
}

#[inline(always)]
fn check_wireguard(frame: &Frame) -> Result<Checked<{ PAYLOAD + WIREGUARD_DATA_LEN }>, Reason> {
    let message_type = frame.begin::<{ PAYLOAD + 4 }>().ok_or(Reason::NotData)?.message_type();
    if message_type != WIREGUARD_DATA {
        let typed = message_type & 0xff == WIREGUARD_DATA;
        return Err(if typed { Reason::Reserved } else { Reason::NotData });
    }
    frame.begin().ok_or(Reason::ShortData)
}

/// Everything that will be done to a frame; nothing of it can fail.
struct Plan {
    bytes: Checked<PAYLOAD>,
    edits: Edits,
    reason: Reason,
    egress: u32,
    member: u32,
}

impl Parsed {
    #[inline(always)]
    fn plan(self, ingress: u32) -> Result<Plan, Reason> {
        if self.headers.ttl <= 1 {
            return Err(Reason::TtlExpired);
        }
        let flow = maps::flow(&self.key).ok_or(Reason::NoFlow)?;
        let hop = maps::next_hop(flow.next_hop).ok_or(Reason::NoNextHop)?;
        let reason = forward::route(&self.headers, hop, ingress)?;
        let edits = forward::edit(&self.headers, &flow, hop);
        Ok(Plan { bytes: self.bytes, edits, reason, egress: hop.ifindex, member: flow.member })
    }
}

impl Plan {
    /// Rewrites the frame; gives the reason to count and the egress interface.
    #[inline(always)]
    fn apply(self, bytes: u64) -> (Reason, u32) {
        self.bytes.apply(&self.edits);
        maps::count_member(self.member, bytes);
        (self.reason, self.egress)
    }
}

const _: () = assert!(UDP_LEN + IPV4_LEN + ETHERNET_LEN == PAYLOAD);
