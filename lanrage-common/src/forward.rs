//! What forwarding does to a packet: parsed headers and a flow in, edits out.
//!
//! Pure, and the same in the kernel program and in tests. Nothing grows or shrinks, so payload and lengths stay.

use crate::maps::{FlowValue, NextHop};
use crate::reason::Reason;
use crate::wire::{Be16, Be32, ChecksumDelta};

/// The header fields that forwarding reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// IPv4 total length, bytes.
    pub total_length: u16,
    /// Time to live.
    pub ttl: u8,
    /// IP protocol number: shares a checksum word with `ttl`.
    pub protocol: u8,
    /// IPv4 header checksum.
    pub ip_checksum: Be16,
    /// Source address.
    pub source: Be32,
    /// Destination address.
    pub destination: Be32,
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
    /// Destination and source MAC address.
    pub macs: [Be32; 3],
    /// Time to live.
    pub ttl: u8,
    /// IPv4 header checksum.
    pub ip_checksum: Be16,
    /// Source address.
    pub source: Be32,
    /// Destination address.
    pub destination: Be32,
    /// UDP source port.
    pub source_port: Be16,
    /// UDP destination port.
    pub destination_port: Be16,
    /// UDP checksum.
    pub udp_checksum: Be16,
}

/// Which way a packet goes that came in by interface `ingress`: [`Reason::Forwarded`] or [`Reason::Redirected`]; an error
/// says why it cannot go at all.
#[inline(always)]
pub fn route(headers: &Headers, hop: &NextHop, ingress: u32) -> Result<Reason, Reason> {
    if hop.ifindex == 0 {
        return Err(Reason::NoNextHop);
    }
    if u32::from(headers.total_length) > hop.mtu {
        return Err(Reason::TooBig);
    }
    Ok(if hop.ifindex == ingress { Reason::Forwarded } else { Reason::Redirected })
}

/// The packet's new header fields. The time to live must be above 1.
#[inline(always)]
pub fn edit(headers: &Headers, flow: &FlowValue, hop: &NextHop) -> Edits {
    let addresses = ChecksumDelta::new()
        .replace32(headers.source, flow.source)
        .replace32(headers.destination, flow.destination);
    let ttl = headers.ttl.wrapping_sub(1);
    let ip = addresses.replace16(
        Be16::from_octets([headers.ttl, headers.protocol]),
        Be16::from_octets([ttl, headers.protocol]),
    );
    let udp = addresses
        .replace16(headers.source_port, flow.source_port)
        .replace16(headers.destination_port, flow.destination_port);
    Edits {
        macs: hop.macs,
        ttl,
        ip_checksum: ip.apply(headers.ip_checksum),
        source: flow.source,
        destination: flow.destination,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        udp_checksum: udp.apply_udp(headers.udp_checksum),
    }
}

#[cfg(test)]
mod tests;
