//! Packets as the firewall looks at them.

use crate::lane::packet::Packet;
use crate::lane::{self, FragmentPart};
use crate::wire::{Family, PROTOCOL_UDP, UDP_LEN};

pub(super) const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
const TCP_LEN: usize = 20;
/// SYN without ACK opens a connection (RFC 9293, section 3.5).
const TCP_FLAGS: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What the lane has wrapped.
pub(super) fn unwrap<'a>(outer: &Packet<'a>) -> Option<Packet<'a>> {
    let facts = outer.facts();
    let is_wrapping = facts.family == Family::V4 && outer.has_udp() && facts.port == lane::PORT;
    Packet::parse(outer.payload().get(UDP_LEN..).filter(|_| is_wrapping)?).ok()
}

/// Ping and errors (RFC 792, RFC 4443): no redirects, no router advertisements.
pub(super) fn is_welcome_icmp(packet: &Packet<'_>) -> bool {
    match (packet.facts().protocol, packet.payload().first()) {
        (PROTOCOL_ICMP, Some(kind)) => matches!(kind, 0 | 3 | 8 | 11 | 12),
        (PROTOCOL_ICMPV6, Some(kind)) => matches!(kind, 1..=4 | 128 | 129),
        _ => false,
    }
}

/// A fragment of TCP that begins eight bytes into it would put other flags over those that were judged (RFC 3128).
pub(super) fn overwrites_flags(packet: &Packet<'_>) -> bool {
    packet.offset() == 8
}

/// Ports, and what they are for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub source: u16,
    pub destination: u16,
    /// A TCP segment that opens a connection.
    pub opens: bool,
}

impl Ports {
    /// None when the packet has none: a later fragment, or too short.
    pub fn of(packet: &Packet<'_>) -> Option<Self> {
        if packet.facts().part == FragmentPart::Later {
            return None;
        }
        let bytes = packet.payload();
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let opens = match packet.facts().protocol {
            PROTOCOL_UDP if bytes.len() >= UDP_LEN => false,
            PROTOCOL_TCP if bytes.len() >= TCP_LEN => bytes[TCP_FLAGS] & (SYN | ACK) == SYN,
            _ => return None,
        };
        Some(Self { source: word(0), destination: word(2), opens })
    }
}
