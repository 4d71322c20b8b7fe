//! Headers that change in size: between IPv4 and IPv6, tagged and untagged.

use crate::packet::{Frame, NewHeaders, layout, move_head};
use aya_ebpf::bindings::xdp_md;
use lanrage_common::forward::{self, Layout};
use lanrage_common::maps::{FlowValue, NextHop};
use lanrage_common::reason::Reason;
use lanrage_common::wire::{ETHERNET_LEN, Family, IPV4_LEN, IPV6_LEN, TAGGED_LEN, UDP_LEN};

/// Moves the head, and then writes. An error other than [`Reason::Broken`] leaves the frame as it was.
#[inline(never)]
pub fn run<const L2: usize, const L3: usize>(
    context: *mut xdp_md,
    flow: &FlowValue,
    hop: &NextHop,
) -> Result<(), Reason> {
    let old = Frame::new(context).begin::<L2, L3, UDP_LEN>().ok_or(Reason::Broken)?;
    let (from, old_headers) = (layout(L2, L3), old.headers());
    let to = Layout { tagged: hop.vlan != 0, family: hop.source.family() };
    let headers = NewHeaders {
        traffic_class: old_headers.traffic_class,
        label: forward::label(&old_headers, from.family, to.family),
        ttl: old_headers.ttl.wrapping_sub(1),
        udp_length: old_headers.udp_length,
        source: hop.source,
        destination: flow.destination,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        udp_checksum: forward::udp_checksum(&old_headers, from.family, flow, hop),
        tag: old.priority() | hop.vlan,
    };
    // forward when the frame becomes shorter
    if !move_head(context, from.len() as i32 - to.len() as i32) {
        return Err(Reason::NoHeadroom);
    }
    let frame = Frame::new(context);
    let written = match (to.tagged, to.family) {
        (false, Family::V4) => write::<ETHERNET_LEN, IPV4_LEN>(&frame, &headers, hop),
        (false, Family::V6) => write::<ETHERNET_LEN, IPV6_LEN>(&frame, &headers, hop),
        (true, Family::V4) => write::<TAGGED_LEN, IPV4_LEN>(&frame, &headers, hop),
        (true, Family::V6) => write::<TAGGED_LEN, IPV6_LEN>(&frame, &headers, hop),
    };
    written.ok_or(Reason::Broken)
}

#[inline(always)]
fn write<const L2: usize, const L3: usize>(frame: &Frame, headers: &NewHeaders, hop: &NextHop) -> Option<()> {
    frame.begin::<L2, L3, UDP_LEN>().map(|bytes| bytes.write_headers(headers, hop.macs))
}
