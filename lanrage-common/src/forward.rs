//! What forwarding does to a packet: parsed headers and a flow in, edits out.
//!
//! Pure, and the same in the kernel program and in tests. The payload never changes; the headers in front of it do, and
//! may become others when the members' IP versions or VLANs differ.

use crate::maps::{FlowValue, Local, NextHop};
use crate::reason::Reason;
use crate::wire::{
    Address, Be16, Be32, ChecksumDelta, ETHERNET_LEN, Family, IPV4_LEN, PROTOCOL_UDP, TAGGED_LEN,
};

/// How a frame's headers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// With a VLAN tag?
    pub tagged: bool,
    /// IP version.
    pub family: Family,
}

impl Layout {
    /// Bytes before the IP header.
    #[inline(always)]
    pub const fn link_len(self) -> usize {
        if self.tagged { TAGGED_LEN } else { ETHERNET_LEN }
    }

    /// Bytes before the UDP header.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "headers are never empty")]
    pub const fn len(self) -> usize {
        self.link_len() + self.family.header_len()
    }
}

/// The header fields that forwarding reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// Length of the UDP datagram with its header, bytes.
    pub udp_length: u16,
    /// Type of service, or traffic class.
    pub traffic_class: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4's identification and flags, or IPv6's first four bytes.
    pub label: Be32,
    /// IPv4 header checksum; unused in IPv6.
    pub ip_checksum: Be16,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// UDP source port.
    pub source_port: Be16,
    /// UDP destination port.
    pub destination_port: Be16,
    /// UDP checksum; zero = none.
    pub udp_checksum: Be16,
}

/// The header fields that forwarding writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edits {
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4 header checksum; unused in IPv6.
    pub ip_checksum: Be16,
    /// UDP checksum.
    pub udp_checksum: Be16,
}

/// Which way a packet goes that came in by interface `ingress`: [`Reason::Forwarded`] or [`Reason::Redirected`]; an error
/// says why it cannot go at all.
#[inline(always)]
pub fn route(udp_length: u16, flow: &FlowValue, hop: &NextHop, ingress: u32) -> Result<Reason, Reason> {
    let family = hop.source.family();
    if hop.ifindex == 0 || flow.destination.family() != family {
        return Err(Reason::NoNextHop);
    }
    if u32::from(udp_length) + family.header_len() as u32 > hop.mtu {
        return Err(Reason::TooBig);
    }
    Ok(if hop.ifindex == ingress { Reason::Forwarded } else { Reason::Redirected })
}

/// Whether headers may change from one family to another, or gain or lose a VLAN tag.
#[inline(always)]
pub fn may_change(headers: &Headers, from: Family, hop: &NextHop, local: &Local) -> Result<(), Reason> {
    if !local.allows(Local::MIXED) {
        return Err(Reason::Mixed);
    }
    let to_v6 = matches!((from, hop.source.family()), (Family::V4, Family::V6));
    if to_v6 && headers.udp_checksum.is_zero() { Err(Reason::NoChecksum) } else { Ok(()) }
}

/// The packet's new header fields when it stays in its family. The time to live must be above 1.
#[inline(always)]
pub fn edit(family: Family, headers: &Headers, flow: &FlowValue, hop: &NextHop) -> Edits {
    let addresses = addresses(headers, flow, hop, family, family);
    let ttl = headers.ttl.wrapping_sub(1);
    let ip_checksum = match family {
        Family::V4 => {
            let before = Be16::from_octets([headers.ttl, PROTOCOL_UDP]);
            addresses.replace16(before, Be16::from_octets([ttl, PROTOCOL_UDP])).apply(headers.ip_checksum)
        }
        Family::V6 => headers.ip_checksum,
    };
    Edits { ttl, ip_checksum, udp_checksum: udp(addresses, headers, flow) }
}

/// The UDP checksum when the packet goes from one family to the other, or stays.
#[inline(always)]
pub fn udp_checksum(headers: &Headers, from: Family, flow: &FlowValue, hop: &NextHop) -> Be16 {
    udp(addresses(headers, flow, hop, from, hop.source.family()), headers, flow)
}

/// The two pseudo headers differ in the addresses alone: length and protocol are the same numbers in both families.
#[inline(always)]
fn addresses(headers: &Headers, flow: &FlowValue, hop: &NextHop, from: Family, to: Family) -> ChecksumDelta {
    ChecksumDelta::new()
        .replace_address((from, &headers.source), (to, &hop.source))
        .replace_address((from, &headers.destination), (to, &flow.destination))
}

#[inline(always)]
fn udp(addresses: ChecksumDelta, headers: &Headers, flow: &FlowValue) -> Be16 {
    addresses
        .replace16(headers.source_port, flow.source_port)
        .replace16(headers.destination_port, flow.destination_port)
        .apply_udp(headers.udp_checksum)
}

/// Identification and flags of an IPv4 packet that stands for itself: never fragmented, so 0 (RFC 6864, section 4.1).
pub const DONT_FRAGMENT: Be32 = Be32::from_octets([0, 0, 0x40, 0]);

/// [`Headers::label`] in the new header: kept within a family; else IPv6 gets the traffic class and flow label 0, IPv4
/// [`DONT_FRAGMENT`].
#[inline(always)]
pub fn label(headers: &Headers, from: Family, to: Family) -> Be32 {
    match (from, to) {
        (Family::V4, Family::V4) | (Family::V6, Family::V6) => headers.label,
        (Family::V4, Family::V6) => {
            Be32::from_octets([0x60 | headers.traffic_class >> 4, headers.traffic_class << 4, 0, 0])
        }
        (Family::V6, Family::V4) => DONT_FRAGMENT,
    }
}

/// A new IPv4 header for UDP, without options.
#[inline(always)]
pub fn ipv4_header(
    traffic_class: u8,
    udp_length: u16,
    label: Be32,
    ttl: u8,
    source: Be32,
    destination: Be32,
) -> [Be32; 5] {
    let total = Be16::new(udp_length.wrapping_add(IPV4_LEN as u16));
    let first = Be32::from_halves(Be16::from_octets([0x45, traffic_class]), total);
    let life = Be16::from_octets([ttl, PROTOCOL_UDP]);
    let sum = ChecksumDelta::new().add32(first).add32(label).add16(life);
    let checksum = sum.add32(source).add32(destination).checksum();
    [first, label, Be32::from_halves(life, checksum), source, destination]
}

/// The first eight bytes of a new IPv6 header for UDP.
#[inline(always)]
pub fn ipv6_header(label: Be32, udp_length: u16, hop_limit: u8) -> [Be32; 2] {
    let life = Be16::from_octets([PROTOCOL_UDP, hop_limit]);
    [label, Be32::from_halves(Be16::new(udp_length), life)]
}

#[cfg(test)]
mod tests;
