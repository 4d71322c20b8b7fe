//! IP headers, read by the kernel's helper: packets of sockets need not lie in one piece.

use aya_ebpf::programs::TcContext;
use lanrage_common::lane::maps::{ContentKey, PacketKey};
use lanrage_common::lane::{Facts, FragmentPart};
use lanrage_common::wire::{Address, Be32, Family, IPV4_LEN, IPV6_LEN, PROTOCOL_UDP, UDP_LEN};

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;
/// IPv6's fragment header (RFC 8200, section 4.5).
const FRAGMENT_HEADER: u8 = 44;
const FRAGMENT_LEN: u32 = 8;

/// Not well-formed IP.
pub struct Malformed;

/// A packet whose lengths fit.
#[derive(Clone, Copy)]
pub struct Packet {
    pub facts: Facts,
    /// Where it begins in the buffer.
    pub at: u32,
    /// Length of what is before UDP.
    pub header_len: u32,
    /// Length in bytes, headers included.
    pub length: u32,
    pub traffic_class: u8,
    /// It should have a UDP header, and has none whose length fits.
    pub lacks_udp: bool,
    pub udp_length: u16,
}

impl Packet {
    /// Reads the packet that begins `at` bytes into the buffer and may have `room` bytes.
    #[inline(always)]
    pub fn parse(skb: &TcContext, at: u32, room: u32) -> Result<Self, Malformed> {
        let first: u8 = skb.load(at as usize).map_err(|_| Malformed)?;
        let mut packet = match first >> 4 {
            4 => Self::parse_v4(skb, at, room)?,
            6 => Self::parse_v6(skb, at, room)?,
            _ => return Err(Malformed),
        };
        if packet.facts.protocol == PROTOCOL_UDP && packet.facts.part != FragmentPart::Later {
            packet.read_udp(skb);
        }
        Ok(packet)
    }

    #[inline(always)]
    fn parse_v4(skb: &TcContext, at: u32, room: u32) -> Result<Self, Malformed> {
        let [first, traffic_class, a, b, _, _, c, d] = load_eight(skb, at)?;
        let protocol = load_four(skb, at + 8)?.octets()[1];
        let header_len = u32::from(first & 0xf) * 4;
        let length = u32::from(u16::from_be_bytes([a, b]));
        let place = u16::from_be_bytes([c, d]);
        let offset = u32::from(place & OFFSET_MASK) * 8;
        if header_len < IPV4_LEN as u32 || header_len > length || length > room {
            return Err(Malformed);
        }
        if offset + length - header_len > u32::from(u16::MAX) {
            return Err(Malformed);
        }
        let facts = Facts {
            family: Family::V4,
            source: Address::from_v4(load_four(skb, at + 12)?),
            destination: Address::from_v4(load_four(skb, at + 16)?),
            protocol,
            part: part(offset, place & MORE_FRAGMENTS != 0),
            port: 0,
        };
        Ok(Self { facts, at, header_len, length, traffic_class, lacks_udp: false, udp_length: 0 })
    }

    #[inline(always)]
    fn parse_v6(skb: &TcContext, at: u32, room: u32) -> Result<Self, Malformed> {
        let [first, second, _, _, a, b, next, _] = load_eight(skb, at)?;
        let length = u32::from(u16::from_be_bytes([a, b])) + IPV6_LEN as u32;
        if length > room {
            return Err(Malformed);
        }
        let mut facts = Facts {
            family: Family::V6,
            source: skb.load((at + 8) as usize).map_err(|_| Malformed)?,
            destination: skb.load((at + 24) as usize).map_err(|_| Malformed)?,
            protocol: next,
            part: FragmentPart::Whole,
            port: 0,
        };
        let mut header_len = IPV6_LEN as u32;
        if next == FRAGMENT_HEADER {
            if length < header_len + FRAGMENT_LEN {
                return Err(Malformed);
            }
            let header = load_four(skb, at + header_len)?.octets();
            let place = u16::from_be_bytes([header[2], header[3]]);
            facts.protocol = header[0];
            facts.part = part(u32::from(place >> 3), place & 1 != 0);
            header_len += FRAGMENT_LEN;
        }
        let traffic_class = (first << 4) | (second >> 4);
        Ok(Self { facts, at, header_len, length, traffic_class, lacks_udp: false, udp_length: 0 })
    }

    #[inline(always)]
    fn read_udp(&mut self, skb: &TcContext) {
        self.lacks_udp = true;
        let payload = self.length - self.header_len;
        if payload < UDP_LEN as u32 {
            return;
        }
        let Ok([_, _, a, b, c, d, _, _]) = load_eight(skb, self.transport()) else { return };
        let (port, length) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let fits = self.facts.part != FragmentPart::Whole || u32::from(length) <= payload;
        if usize::from(length) >= UDP_LEN && fits {
            self.lacks_udp = false;
            self.facts.port = port;
            self.udp_length = length;
        }
    }

    /// Where the transport header begins in the buffer.
    #[inline(always)]
    pub fn transport(&self) -> u32 {
        self.at + self.header_len
    }

    /// Whether a UDP checksum lies in here.
    #[inline(always)]
    pub fn has_udp(&self) -> bool {
        self.facts.protocol == PROTOCOL_UDP && self.facts.part != FragmentPart::Later && !self.lacks_udp
    }

    /// What it says; none without ports.
    #[inline(always)]
    pub fn content(&self, skb: &TcContext) -> Option<ContentKey> {
        if !self.has_udp() {
            return None;
        }
        let begin = self.transport() + UDP_LEN as u32;
        let length = self.length - self.header_len - UDP_LEN as u32;
        let eight = |at: u32| skb.load::<u64>((begin + at) as usize).unwrap_or_default();
        let one = |at: u32| skb.load::<u8>((begin + at) as usize).unwrap_or_default();
        Some(ContentKey::read(self.facts.port, length, eight, one))
    }

    /// What tells it from others of its sender; none for IPv6, and for a sender that does not number its packets.
    #[inline(always)]
    pub fn key(&self, skb: &TcContext) -> Option<PacketKey> {
        if self.facts.family == Family::V6 {
            return None;
        }
        let id: Be32 = skb.load((self.at + 4) as usize).ok()?;
        let [a, b, ..] = id.octets();
        if a | b == 0 {
            return None;
        }
        let payload = self.length - self.header_len;
        let begin = |from: u32| -> Be32 {
            if payload < from + 4 {
                return Be32::default();
            }
            skb.load((self.transport() + from) as usize).unwrap_or_default()
        };
        Some(PacketKey {
            source: self.facts.source.v4_word(),
            destination: self.facts.destination.v4_word(),
            id,
            length: self.length,
            begin: [begin(0), begin(4)],
        })
    }
}

/// Eight bytes in one register: the compiler must not put them on the stack, where it reads them at offsets that the
/// kernel refuses.
#[inline(always)]
fn load_eight(skb: &TcContext, at: u32) -> Result<[u8; 8], Malformed> {
    skb.load::<u64>(at as usize).map(u64::to_ne_bytes).map_err(|_| Malformed)
}

#[inline(always)]
fn load_four(skb: &TcContext, at: u32) -> Result<Be32, Malformed> {
    skb.load(at as usize).map_err(|_| Malformed)
}

#[inline(always)]
fn part(offset: u32, more: bool) -> FragmentPart {
    match (offset, more) {
        (0, false) => FragmentPart::Whole,
        (0, true) => FragmentPart::First,
        _ => FragmentPart::Later,
    }
}
