//! IP packets as the lane looks at them.

use super::maps::{ContentKey, PacketKey, TraceKey};
use super::{Facts, FragmentPart};
use crate::wire::{Address, Be32, Family, IPV4_LEN, IPV6_LEN, PROTOCOL_UDP, UDP_LEN};
use std::net::Ipv4Addr;

/// More fragments follow (RFC 791).
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;
/// IPv6's fragment header (RFC 8200, section 4.5).
const FRAGMENT_HEADER: u8 = 44;
const FRAGMENT_LEN: usize = 8;

/// A packet is not well-formed IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A checked view: version, header length and total length fit the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    bytes: &'a [u8],
    /// Where UDP begins.
    header_len: usize,
    facts: Facts,
    /// Of a fragment: where it belongs.
    offset: u16,
    /// It should have a UDP header, and has none whose length fits.
    lacks_udp: bool,
}

/// The IP version that the bytes claim to be of.
pub(super) fn claimed_family(bytes: &[u8]) -> Option<Family> {
    match bytes.first()? >> 4 {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        _ => None,
    }
}

impl<'a> Packet<'a> {
    /// Checks the lengths; bytes after the packet's own end are cut off.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut packet = match claimed_family(bytes).ok_or(Malformed)? {
            Family::V4 => Self::parse_v4(bytes)?,
            Family::V6 => Self::parse_v6(bytes)?,
        };
        if packet.facts.protocol == PROTOCOL_UDP && packet.facts.part != FragmentPart::Later {
            match packet.udp() {
                Some(port) => packet.facts.port = port,
                None => packet.lacks_udp = true,
            }
        }
        Ok(packet)
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; IPV4_LEN] = bytes.first_chunk().ok_or(Malformed)?;
        let header_len = usize::from(header[0] & 0xf) * 4;
        let total = usize::from(word(header, 2));
        if header_len < IPV4_LEN || header_len > total || total > bytes.len() {
            return Err(Malformed);
        }
        let offset = usize::from(word(header, 6) & OFFSET_MASK) * 8;
        // a fragment that would end past 65535 (the "ping of death")
        if offset + total - header_len > usize::from(u16::MAX) {
            return Err(Malformed);
        }
        let address =
            |at: usize| Address::from_v4(Be32::from_octets([0, 1, 2, 3].map(|byte| header[at + byte])));
        let facts = Facts {
            family: Family::V4,
            source: address(12),
            destination: address(16),
            protocol: header[9],
            part: part(offset, word(header, 6) & MORE_FRAGMENTS != 0),
            port: 0,
        };
        Ok(Self { bytes: &bytes[..total], header_len, facts, offset: offset as u16, lacks_udp: false })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; IPV6_LEN] = bytes.first_chunk().ok_or(Malformed)?;
        let total = IPV6_LEN + usize::from(word(header, 4));
        let bytes = bytes.get(..total).ok_or(Malformed)?;
        let address = |at: usize| {
            Address::from_words(
                [0, 4, 8, 12]
                    .map(|word| Be32::from_octets([0, 1, 2, 3].map(|byte| header[at + word + byte]))),
            )
        };
        let mut facts = Facts {
            family: Family::V6,
            source: address(8),
            destination: address(24),
            protocol: header[6],
            part: FragmentPart::Whole,
            port: 0,
        };
        let (mut header_len, mut offset) = (IPV6_LEN, 0);
        if facts.protocol == FRAGMENT_HEADER {
            let fragment: &[u8; FRAGMENT_LEN] = bytes[IPV6_LEN..].first_chunk().ok_or(Malformed)?;
            let place = word(fragment, 2);
            facts.protocol = fragment[0];
            offset = place & !7;
            facts.part = part(usize::from(offset), place & 1 != 0);
            header_len += FRAGMENT_LEN;
        }
        Ok(Self { bytes, header_len, facts, offset, lacks_udp: false })
    }

    /// Destination port of a UDP header whose length fits.
    fn udp(&self) -> Option<u16> {
        let header: &[u8; UDP_LEN] = self.payload().first_chunk()?;
        let length = usize::from(word(header, 4));
        let fits = self.facts.part != FragmentPart::Whole || length <= self.payload().len();
        (length >= UDP_LEN && fits).then(|| word(header, 2))
    }

    /// Refuses a packet without the UDP header that it announces.
    pub fn check_udp(&self) -> Result<(), Malformed> {
        if self.lacks_udp { Err(Malformed) } else { Ok(()) }
    }

    /// Whether a UDP checksum lies in here.
    pub fn has_udp(&self) -> bool {
        self.facts.protocol == PROTOCOL_UDP && self.facts.part != FragmentPart::Later && !self.lacks_udp
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// UDP header and payload.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Where the payload begins in that of the whole packet, in bytes; 0 but for later fragments.
    pub fn offset(&self) -> u16 {
        self.offset
    }

    /// Type of service, or IPv6's traffic class.
    pub fn traffic_class(&self) -> u8 {
        match self.facts.family {
            Family::V4 => self.bytes[1],
            Family::V6 => (word(self.bytes, 0) >> 4) as u8,
        }
    }

    /// Of wrapped packets: overlay addresses are IPv4.
    pub fn is_to_v4(&self, address: Ipv4Addr) -> bool {
        self.facts.family == Family::V4 && self.facts.destination == address.into()
    }

    /// IPv4 with options, or a fragment.
    pub fn is_odd(&self) -> bool {
        self.header_len > IPV4_LEN || self.facts.part != FragmentPart::Whole
    }

    /// Destination and source port; none where they do not lie in this packet.
    pub fn ports(&self) -> Option<(u16, u16)> {
        self.has_udp().then(|| (self.facts.port, word(self.payload(), 0)))
    }

    /// The conversation that it belongs to, when `source` sends it to everybody, and its source port.
    pub fn trace_key(&self, source: Be32, destination: Address) -> Option<(TraceKey, u16)> {
        let (port, source_port) = self.ports()?;
        Some((TraceKey { destination, source, port: port.into() }, source_port))
    }

    /// What it says; none without ports.
    pub fn content(&self) -> Option<ContentKey> {
        let payload = self.has_udp().then(|| &self.payload()[UDP_LEN..])?;
        let eight =
            |at: u32| payload[at as usize..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        Some(ContentKey::read(self.facts.port, payload.len() as u32, eight, |at| payload[at as usize]))
    }

    /// What tells it from others of its sender; none for IPv6, and for a sender that does not number its packets.
    pub fn key(&self) -> Option<PacketKey> {
        if self.facts.family == Family::V6 || word(self.bytes, 4) == 0 {
            return None;
        }
        let begin = |at: usize| {
            let bytes = self.payload().get(at..at + 4);
            bytes.map_or(Be32::default(), |bytes| Be32::from_octets([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        Some(PacketKey {
            source: self.facts.source.v4_word(),
            destination: self.facts.destination.v4_word(),
            id: Be32::from_octets([4, 5, 6, 7].map(|at| self.bytes[at])),
            length: self.bytes.len() as u32,
            begin: [begin(0), begin(4)],
        })
    }
}

fn part(offset: usize, more: bool) -> FragmentPart {
    match (offset, more) {
        (0, false) => FragmentPart::Whole,
        (0, true) => FragmentPart::First,
        _ => FragmentPart::Later,
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
