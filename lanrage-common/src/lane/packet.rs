//! IPv4 packets as the lane looks at them.

use crate::wire::{IPV4_LEN, PROTOCOL_UDP, UDP_LEN};
use std::net::Ipv4Addr;

/// More fragments follow (RFC 791).
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// A packet is not well-formed IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// A checked view: version, header length and total length fit the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ipv4<'a> {
    bytes: &'a [u8],
    header_len: usize,
}

/// The ports of a UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Udp {
    pub destination: u16,
    pub length: u16,
}

impl<'a> Ipv4<'a> {
    /// Whether the bytes claim to be IPv4 at all.
    pub fn is_claimed(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| first >> 4 == 4)
    }

    /// Checks the lengths; bytes after the packet's own end are cut off.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; IPV4_LEN] = bytes.first_chunk().ok_or(Malformed)?;
        let header_len = usize::from(header[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fits = header_len >= IPV4_LEN && header_len <= total && total <= bytes.len();
        if !Self::is_claimed(bytes) || !fits {
            return Err(Malformed);
        }
        let packet = Self { bytes: &bytes[..total], header_len };
        // a fragment that would end past 65535 (the "ping of death")
        let end = packet.fragment_offset() + total - header_len;
        (end <= usize::from(u16::MAX)).then_some(packet).ok_or(Malformed)
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::new(self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3])
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    pub fn header_len(&self) -> usize {
        self.header_len
    }

    pub fn has_options(&self) -> bool {
        self.header_len > IPV4_LEN
    }

    pub fn type_of_service(&self) -> u8 {
        self.bytes[1]
    }

    pub fn id(&self) -> u16 {
        self.word(4)
    }

    /// Bytes before this fragment's payload in the whole datagram.
    fn fragment_offset(&self) -> usize {
        usize::from(self.word(6) & OFFSET_MASK) * 8
    }

    /// Whether the UDP header is not in here, but in an earlier fragment.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment_offset() > 0
    }

    pub fn is_fragment(&self) -> bool {
        self.is_later_fragment() || self.word(6) & MORE_FRAGMENTS != 0
    }

    pub fn is_udp(&self) -> bool {
        self.bytes[9] == PROTOCOL_UDP
    }

    pub fn protocol(&self) -> u8 {
        self.bytes[9]
    }

    pub fn source(&self) -> Ipv4Addr {
        self.address(12)
    }

    pub fn destination(&self) -> Ipv4Addr {
        self.address(16)
    }

    /// The UDP header of a whole packet or a first fragment; `None` when it does not fit its packet.
    pub fn udp(&self) -> Option<Udp> {
        let header: &[u8; UDP_LEN] = self.payload().first_chunk()?;
        let length = u16::from_be_bytes([header[4], header[5]]);
        let fits = usize::from(length) >= UDP_LEN
            && (self.is_fragment() || usize::from(length) <= self.payload().len());
        fits.then(|| Udp { destination: u16::from_be_bytes([header[2], header[3]]), length })
    }
}
