//! The relay in XDP: WireGuard data of installed flows is sent on, STUN Binding answered, and of the rest the host gets
//! what it should see.
//!
//! Three steps, each with a type that only the one before can make: [`parse`] and [`plan`] read, [`Plan::apply`] writes and
//! cannot fail once it has begun to. So no frame is passed up half rewritten. Before headers of other sizes are written the
//! kernel must agree to move the frame's head ([`crate::resize`]).
//!
//! The code exists four times, for frames with and without a VLAN tag around IPv4 and IPv6: `L2` and `L3` are the
//! lengths of the two headers, so every offset is a constant.

use crate::admission;
use crate::event;
use crate::maps;
use crate::packet::{Checked, Frame, layout};
use crate::resize;
use crate::stun;
use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::{helpers::bpf_redirect, macros::xdp, programs::XdpContext};
use lanrage_common::forward::{self, Edits};
use lanrage_common::maps::{FlowKey, FlowValue, Local, NextHop, SourceKey};
use lanrage_common::reason::{Budget, Reason, Verdict};
use lanrage_common::wire::{
    Be16, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPES_VLAN, FRAGMENT_MASK, Family, IPV4_LEN,
    IPV6_LEN, PROTOCOL_UDP, TAGGED_LEN, UDP_LEN, WIREGUARD_DATA, WIREGUARD_DATA_LEN,
};

/// First bytes of a path probe, read little-endian.
const PROBE: u32 = u32::from_le_bytes([0xA7, b'L', b'R', 1]);
/// IPv6 next headers of fragments, and of the other extensions.
const FRAGMENT_HEADER: u8 = 44;
const EXTENSION_HEADERS: [u8; 6] = [0, 43, 51, 60, 135, 139];

/// A UDP header, checked to be for the relay.
type Own<const L2: usize, const L3: usize> = Checked<L2, L3, UDP_LEN>;
/// With WireGuard's header and tag behind it.
type Data<const L2: usize, const L3: usize> = Checked<L2, L3, { UDP_LEN + WIREGUARD_DATA_LEN }>;

/// The counter, and the egress interface of what is redirected.
type Sent = (Reason, u32);

#[xdp]
pub fn relay(context: XdpContext) -> u32 {
    let context = context.ctx;
    let frame = Frame::new(context);
    let bytes = frame.len() as u64;
    let (reason, egress) = handle(context, &frame).unwrap_or_else(|reason| (reason, 0));
    let count = maps::count_reason(reason, bytes);
    match reason.verdict() {
        Verdict::Transmit => return xdp_action::XDP_TX,
        // SAFETY: a helper without memory arguments; its value is the verdict.
        Verdict::Redirect => return unsafe { bpf_redirect(egress, 0) as u32 },
        Verdict::Pass | Verdict::Drop => {}
    }
    event::sample(context, reason, count);
    if matches!(reason.verdict(), Verdict::Drop) { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

#[inline(always)]
fn handle(context: *mut xdp_md, frame: &Frame) -> Result<Sent, Reason> {
    let link = frame.begin::<ETHERNET_LEN, 0, 0>().ok_or(Reason::ShortFrame)?;
    match link.ethertype() {
        ETHERTYPE_IPV4 => run::<ETHERNET_LEN, IPV4_LEN>(context, frame),
        ETHERTYPE_IPV6 => run::<ETHERNET_LEN, IPV6_LEN>(context, frame),
        ethertype if ETHERTYPES_VLAN.contains(&ethertype) => handle_tagged(context, frame),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn handle_tagged(context: *mut xdp_md, frame: &Frame) -> Result<Sent, Reason> {
    let link = frame.begin::<TAGGED_LEN, 0, 0>().ok_or(Reason::ShortFrame)?;
    match link.ethertype() {
        ETHERTYPE_IPV4 => run::<TAGGED_LEN, IPV4_LEN>(context, frame),
        ETHERTYPE_IPV6 => run::<TAGGED_LEN, IPV6_LEN>(context, frame),
        ethertype if ETHERTYPES_VLAN.contains(&ethertype) => Err(Reason::SecondTag),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn run<const L2: usize, const L3: usize>(context: *mut xdp_md, frame: &Frame) -> Result<Sent, Reason> {
    // The entry always exists; all zero, it matches nothing.
    let local = maps::local().ok_or(Reason::OtherAddress)?;
    let own = parse::<L2, L3>(frame, local)?;
    match check_data(context, frame, own) {
        // SAFETY: the context is the program's own.
        Ok(data) => match plan(unsafe { (*context).ingress_ifindex }, local, data) {
            Ok(plan) => plan.apply(context, frame.len() as u64),
            Err(reason) => Err(admit::<L2, L3>(context, local, reason)),
        },
        Err(reason) => Err(admit::<L2, L3>(context, local, reason)),
    }
}

/// The UDP header of a packet to one of the relay's addresses and ports.
#[inline(always)]
fn parse<const L2: usize, const L3: usize>(frame: &Frame, local: &Local) -> Result<Own<L2, L3>, Reason> {
    let ip = frame.begin::<L2, L3, 0>().ok_or(Reason::ShortIp)?;
    if L3 == IPV4_LEN {
        check_ipv4(ip, local)?;
    } else {
        check_ipv6(ip, local)?;
    }
    let own = frame.begin::<L2, L3, UDP_LEN>().ok_or(Reason::ShortUdp)?;
    if local.has_port(own.destination_port()) { Ok(own) } else { Err(Reason::OtherPort) }
}

#[inline(always)]
fn check_ipv4<const L2: usize, const L3: usize>(ip: Checked<L2, L3, 0>, local: &Local) -> Result<(), Reason> {
    match ip.version() {
        (4, 5) => {}
        (4, 6..) => return Err(Reason::IpOptions),
        _ => return Err(Reason::BadIp),
    }
    if !local.has_address(Family::V4, &ip.destination()) {
        return Err(Reason::OtherAddress);
    }
    if ip.fragment() & FRAGMENT_MASK != 0 {
        return Err(Reason::Fragment);
    }
    if ip.protocol() == PROTOCOL_UDP { Ok(()) } else { Err(Reason::NotUdp) }
}

#[inline(always)]
fn check_ipv6<const L2: usize, const L3: usize>(ip: Checked<L2, L3, 0>, local: &Local) -> Result<(), Reason> {
    // no packet on the wire has a mapped address, and in the tables it would be somebody else's
    if ip.version().0 != 6 || ip.source().family() == Family::V4 {
        return Err(Reason::BadIp);
    }
    if !local.has_address(Family::V6, &ip.destination()) {
        return Err(Reason::OtherAddress);
    }
    match ip.protocol() {
        PROTOCOL_UDP => Ok(()),
        FRAGMENT_HEADER => Err(Reason::Fragment),
        header if EXTENSION_HEADERS.contains(&header) => Err(Reason::ExtensionHeader),
        _ => Err(Reason::NotUdp),
    }
}

/// WireGuard data of the right lengths. STUN that was answered is no data either: [`Reason::StunAnswered`].
#[inline(always)]
fn check_data<const L2: usize, const L3: usize>(
    context: *mut xdp_md,
    frame: &Frame,
    own: Own<L2, L3>,
) -> Result<Data<L2, L3>, Reason> {
    if own.ip_length() + L2 != frame.len() {
        return Err(Reason::IpLength);
    }
    if usize::from(own.udp_length()) + L3 != own.ip_length() {
        return Err(Reason::UdpLength);
    }
    match frame.begin::<L2, L3, { UDP_LEN + WIREGUARD_DATA_LEN }>() {
        Some(data) if data.message_type() == WIREGUARD_DATA => Ok(data),
        _ => Err(classify::<L2, L3>(context, frame)),
    }
}

/// What it is if not data.
#[inline(always)]
fn classify<const L2: usize, const L3: usize>(context: *mut xdp_md, frame: &Frame) -> Reason {
    let Some(message) = frame.begin::<L2, L3, { UDP_LEN + 4 }>() else { return Reason::NotData };
    match message.message_type() {
        WIREGUARD_DATA => Reason::ShortData,
        PROBE => Reason::Probe,
        1..=3 => Reason::NotData,
        kind if kind & 0xff == WIREGUARD_DATA => Reason::Reserved,
        _ if stun::is_stun::<L2, L3>(frame) => stun::answer::<L2, L3>(context),
        _ => Reason::NotData,
    }
}

/// The reason that remains of one that needs a budget. The frame is looked at afresh: its tail may have been asked to move.
#[inline(always)]
fn admit<const L2: usize, const L3: usize>(
    context: *mut xdp_md,
    local: &'static Local,
    reason: Reason,
) -> Reason {
    let Some(budget) = reason.budget() else { return reason };
    if budget != Budget::Stun && !local.allows(Local::STRICT) {
        return reason;
    }
    let Some(own) = Frame::new(context).begin::<L2, L3, UDP_LEN>() else { return reason };
    let source = SourceKey::new(own.source(), own.source_port());
    let bytes = u64::from(own.udp_length()).saturating_sub(UDP_LEN as u64);
    admission::check(local, &source, budget, bytes).err().unwrap_or(reason)
}

/// Everything that will be done to a frame. Nothing can fail after the first write.
enum Plan<const L2: usize, const L3: usize> {
    /// The headers keep their sizes.
    Rewrite { data: Data<L2, L3>, edits: Edits, flow: FlowValue, hop: &'static NextHop, reason: Reason },
    /// They are replaced by others, if the kernel lets the head move.
    Replace { flow: &'static FlowValue, hop: &'static NextHop, reason: Reason },
}

#[inline(always)]
fn plan<const L2: usize, const L3: usize>(
    ingress: u32,
    local: &'static Local,
    data: Data<L2, L3>,
) -> Result<Plan<L2, L3>, Reason> {
    let headers = data.headers();
    if headers.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let key = FlowKey {
        source: headers.source,
        index: data.receiver_index(),
        source_port: headers.source_port,
        reserved: Be16::default(),
    };
    let entry = maps::flow(&key).ok_or(Reason::NoFlow)?;
    let flow = *entry;
    let now = maps::now(local);
    if u64::from(flow.expires) * 1_000_000_000 <= now {
        return Err(Reason::FlowExpired);
    }
    admission::spend(local, flow.member, u64::from(headers.udp_length) - UDP_LEN as u64, now)?;
    let hop = maps::next_hop(flow.next_hop).ok_or(Reason::NoNextHop)?;
    let reason = forward::route(headers.udp_length, &flow, hop, ingress)?;
    let from = layout(L2, L3);
    if from.family == hop.source.family() && from.tagged == (hop.vlan != 0) {
        let edits = forward::edit(from.family, &headers, &flow, hop);
        return Ok(Plan::Rewrite { data, edits, flow, hop, reason });
    }
    forward::may_change(&headers, from.family, hop, local)?;
    Ok(Plan::Replace { flow: entry, hop, reason })
}

impl<const L2: usize, const L3: usize> Plan<L2, L3> {
    /// Gives the reason to count and the egress interface; or why the frame is as it was.
    #[inline(always)]
    fn apply(self, context: *mut xdp_md, bytes: u64) -> Result<Sent, Reason> {
        let (member, hop, reason) = match self {
            Self::Rewrite { data, edits, flow, hop, reason } => {
                data.rewrite(&edits, &flow, hop);
                (flow.member, hop, reason)
            }
            Self::Replace { flow, hop, reason } => {
                resize::run::<L2, L3>(context, flow, hop)?;
                (flow.member, hop, reason)
            }
        };
        maps::count_member(member, bytes);
        Ok((reason, hop.ifindex))
    }
}
