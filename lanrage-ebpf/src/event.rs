//! Samples of what is not forwarded, for whoever looks into why.

use crate::maps;
use crate::packet::Frame;
use aya_ebpf::bindings::xdp_md;
use lanrage_common::maps::{Event, SourceKey};
use lanrage_common::reason::Reason;
use lanrage_common::wire::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPES_VLAN, IPV4_LEN, IPV6_LEN, PROTOCOL_UDP,
    TAGGED_LEN, UDP_LEN,
};

/// Tells every n-th frame of a reason, the first one included.
#[inline(always)]
pub fn sample(context: *mut xdp_md, reason: Reason, count: u64) {
    let Some(local) = maps::local() else { return };
    let every = u64::from(local.sampling);
    if every != 0 && count.wrapping_sub(1) & (every - 1) == 0 {
        tell(context, reason.index());
    }
}

#[inline(never)]
fn tell(context: *mut xdp_md, reason: u32) -> u32 {
    let frame = Frame::new(context);
    // SAFETY: the context is the program's own.
    let ifindex = unsafe { (*context).ingress_ifindex };
    let mut event =
        Event { reason, ifindex, length: frame.len() as u32, member: Event::NOBODY, ..Event::default() };
    describe(&frame, &mut event);
    maps::tell(event);
    0
}

/// Fills in what the frame has.
#[inline(always)]
fn describe(frame: &Frame, event: &mut Event) -> Option<()> {
    match frame.begin::<ETHERNET_LEN, 0, 0>()?.ethertype() {
        ETHERTYPE_IPV4 => describe_ip::<ETHERNET_LEN, IPV4_LEN>(frame, event),
        ETHERTYPE_IPV6 => describe_ip::<ETHERNET_LEN, IPV6_LEN>(frame, event),
        tag if ETHERTYPES_VLAN.contains(&tag) => match frame.begin::<TAGGED_LEN, 0, 0>()?.ethertype() {
            ETHERTYPE_IPV4 => describe_ip::<TAGGED_LEN, IPV4_LEN>(frame, event),
            ETHERTYPE_IPV6 => describe_ip::<TAGGED_LEN, IPV6_LEN>(frame, event),
            _ => None,
        },
        _ => None,
    }
}

#[inline(always)]
fn describe_ip<const L2: usize, const L3: usize>(frame: &Frame, event: &mut Event) -> Option<()> {
    let ip = frame.begin::<L2, L3, 0>()?;
    event.source = ip.source();
    if ip.protocol() != PROTOCOL_UDP {
        return None;
    }
    let udp = frame.begin::<L2, L3, UDP_LEN>()?;
    (event.source_port, event.destination_port) = (udp.source_port(), udp.destination_port());
    let source = SourceKey::new(event.source, event.source_port);
    event.member = maps::bound(&source).unwrap_or(Event::NOBODY);
    let message = frame.begin::<L2, L3, { UDP_LEN + 8 }>()?;
    (event.kind, event.index) = (message.message_type(), message.receiver_index());
    Some(())
}
