//! IPv4 packets that a NAT changes in place, checksums included (RFC 1624).

use super::table::Protocol;
use std::net::{Ipv4Addr, SocketAddrV4};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where in an IPv4 header its checksum is.
const SUM_AT: usize = 10;
const SOURCE_AT: usize = 12;
const DESTINATION_AT: usize = 16;
/// Bytes of a quoted packet in an ICMP error begin after this.
const ICMP_HEADER: usize = 8;

/// A packet whose IPv4 header is whole. Fields are network byte order on the wire and host order here.
#[derive(Debug)]
pub struct Packet<'a> {
    bytes: &'a mut [u8],
    header: usize,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Something with ports, or an echo, whose identifier is both ports.
    Flow(Protocol),
    /// An ICMP error, which quotes another packet.
    Error,
    /// A fragment without the ports, which are in the first one.
    Fragment,
    /// Nothing that a NAT knows.
    Other,
}

/// What the fragments of a packet have in common (RFC 791 section 3.2).
pub type FragmentKey = (Ipv4Addr, Ipv4Addr, u16, u8);

impl<'a> Packet<'a> {
    /// Looks at a packet; bytes behind its end, as short frames have, are left out.
    pub fn parse(bytes: &'a mut [u8]) -> Option<Self> {
        let total = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        Self::quoted(bytes.get_mut(..total)?)
    }

    /// The same for the beginning of a packet.
    fn quoted(bytes: &'a mut [u8]) -> Option<Self> {
        let header = usize::from(bytes.first()? & 15) * 4;
        let is_whole = bytes[0] >> 4 == 4 && header >= 20 && header <= bytes.len();
        is_whole.then_some(Self { bytes, header })
    }

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// What it carries.
    pub fn content(&self) -> Content {
        if self.word(6) & 0x1fff != 0 {
            return Content::Fragment;
        }
        let body = self.bytes.len() - self.header;
        match (self.bytes[9], body) {
            (UDP, 8..) => Content::Flow(Protocol::Udp),
            (TCP, 20..) => Content::Flow(Protocol::Tcp),
            (ICMP, 8..) => match self.bytes[self.header] {
                0 | 8 => Content::Flow(Protocol::Icmp),
                3 | 11 | 12 => Content::Error,
                _ => Content::Other,
            },
            _ => Content::Other,
        }
    }

    /// Whether it is the first of several fragments.
    pub fn is_first_fragment(&self) -> bool {
        self.word(6) & 0x3fff == 0x2000
    }

    /// Tells which fragments belong together.
    pub fn fragment_key(&self) -> FragmentKey {
        (self.address(SOURCE_AT), self.address(DESTINATION_AT), self.word(4), self.bytes[9])
    }

    /// Who sent it.
    pub fn source(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(SOURCE_AT), self.port(0))
    }

    /// Whom it is for.
    pub fn destination(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(DESTINATION_AT), self.port(2))
    }

    /// Makes it come from elsewhere.
    pub fn set_source(&mut self, source: SocketAddrV4) {
        self.set_address(SOURCE_AT, *source.ip());
        self.set_port(0, source.port());
    }

    /// Makes it go elsewhere.
    pub fn set_destination(&mut self, destination: SocketAddrV4) {
        self.set_address(DESTINATION_AT, *destination.ip());
        self.set_port(2, destination.port());
    }

    /// Changes only the sender's address.
    pub fn set_source_address(&mut self, address: Ipv4Addr) {
        self.set_address(SOURCE_AT, address);
    }

    /// Changes only the receiver's address.
    pub fn set_destination_address(&mut self, address: Ipv4Addr) {
        self.set_address(DESTINATION_AT, address);
    }

    /// Takes one hop off; whether any are left.
    pub fn hop(&mut self) -> bool {
        let ttl = self.bytes[8];
        if ttl > 1 {
            self.replace(8, [ttl - 1, self.bytes[9]], &[SUM_AT]);
        }
        ttl > 1
    }

    /// Whether routers may not cut it.
    pub fn is_uncuttable(&self) -> bool {
        self.word(6) & 0x4000 != 0
    }

    /// Changes the packet that an ICMP error quotes; none if it quotes nothing useful.
    pub fn change_quoted<T>(&mut self, change: impl FnOnce(&mut Packet) -> Option<T>) -> Option<T> {
        let mut quoted = Packet::quoted(self.bytes.get_mut(self.header + ICMP_HEADER..)?)?;
        quoted.quoted_protocol()?;
        let result = change(&mut quoted)?;
        let (at, body) = (self.header + 2, self.header);
        self.bytes[at..at + 2].fill(0);
        let sum = checksum(&self.bytes[body..]);
        self.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        Some(result)
    }

    /// What a quoted packet carries, of which eight bytes are enough.
    pub fn quoted_protocol(&self) -> Option<Protocol> {
        let has_ports = self.word(6) & 0x1fff == 0 && self.bytes.len() >= self.header + 8;
        match self.bytes[9] {
            _ if !has_ports => None,
            UDP => Some(Protocol::Udp),
            TCP => Some(Protocol::Tcp),
            ICMP if matches!(self.bytes[self.header], 0 | 8) => Some(Protocol::Icmp),
            _ => None,
        }
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::new(self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3])
    }

    /// Where a port is: at `side` (0 source, 2 destination) of TCP and UDP; an echo has one identifier.
    fn port_at(&self, side: usize) -> Option<usize> {
        self.quoted_protocol().map(|protocol| match protocol {
            Protocol::Icmp => self.header + 4,
            _ => self.header + side,
        })
    }

    fn port(&self, side: usize) -> u16 {
        self.port_at(side).map_or(0, |at| self.word(at))
    }

    fn set_port(&mut self, side: usize, port: u16) {
        if let Some(at) = self.port_at(side) {
            let sum = self.transport_sum(true);
            self.replace(at, port.to_be_bytes(), sum.as_slice());
        }
    }

    fn set_address(&mut self, at: usize, address: Ipv4Addr) {
        let sums = [Some(SUM_AT), self.transport_sum(false)];
        let sums: Vec<usize> = sums.into_iter().flatten().collect();
        self.replace(at, address.octets(), &sums);
    }

    /// Where the checksum is that covers ports, or addresses too; absent in UDP's 0 (RFC 768) and where it was cut off.
    fn transport_sum(&self, of_port: bool) -> Option<usize> {
        let at = match self.quoted_protocol()? {
            Protocol::Udp => Some(self.header + 6).filter(|at| self.word(*at) != 0),
            Protocol::Tcp => Some(self.header + 16),
            Protocol::Icmp => Some(self.header + 2).filter(|_| of_port),
        }?;
        (at + 2 <= self.bytes.len()).then_some(at)
    }

    /// Replaces bytes at an even place and corrects the checksums at `sums`.
    fn replace<const N: usize>(&mut self, at: usize, new: [u8; N], sums: &[usize]) {
        let old: [u8; N] = std::array::from_fn(|n| self.bytes[at + n]);
        self.bytes[at..at + N].copy_from_slice(&new);
        for sum_at in sums {
            let sum = adjust(self.word(*sum_at), &old, &new);
            let is_udp = self.bytes[9] == UDP && *sum_at != SUM_AT;
            let sum = if is_udp && sum == 0 { 0xffff } else { sum };
            self.bytes[*sum_at..*sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// RFC 1624, equation 3.
fn adjust(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    !fold(u32::from(!sum) + words(old).map(|word| u32::from(!word)).sum::<u32>() + total(new))
}

/// RFC 1071.
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(total(bytes))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
}

fn total(bytes: &[u8]) -> u32 {
    words(bytes).map(u32::from).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What a router at `router` answers to a packet that is too big for the next link (RFC 1191).
pub fn too_big(packet: &[u8], router: Ipv4Addr, mtu: u16) -> Vec<u8> {
    let quote = &packet[..packet.len().min(usize::from(packet[0] & 15) * 4 + 8)];
    let mut icmp = [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes(), quote].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = u16::try_from(20 + icmp.len()).unwrap_or(u16::MAX);
    let mut header = [&[0x45, 0xc0][..], &length.to_be_bytes(), &[0, 0, 0, 0, 64, ICMP, 0, 0]].concat();
    header.extend(router.octets());
    header.extend(&packet[SOURCE_AT..SOURCE_AT + 4]);
    let sum = checksum(&header);
    header[SUM_AT..SUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
    [header, icmp].concat()
}

/// Cuts a packet for a link (RFC 791 section 3.2); IPv4 options go with the first piece alone.
pub fn cut(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let header = usize::from(packet[0] & 15) * 4;
    let room = usize::from(mtu).saturating_sub(header).max(8) / 8 * 8;
    let flags = u16::from_be_bytes([packet[6], packet[7]]);
    let pieces = packet[header..].chunks(room).enumerate();
    let last = (packet.len() - header).div_ceil(room).saturating_sub(1);
    pieces
        .map(|(n, body)| {
            let mut piece = [&packet[..if n == 0 { header } else { 20 }], body].concat();
            piece[0] = 0x40 | if n == 0 { packet[0] & 15 } else { 5 };
            let offset = (flags & 0x1fff) + (n * room / 8) as u16;
            let more = if n < last { 0x2000 } else { flags & 0x2000 };
            let length = piece.len() as u16;
            piece[2..4].copy_from_slice(&length.to_be_bytes());
            piece[6..8].copy_from_slice(&(offset | more).to_be_bytes());
            piece[SUM_AT..SUM_AT + 2].fill(0);
            let sum = checksum(&piece[..if n == 0 { header } else { 20 }]);
            piece[SUM_AT..SUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
            piece
        })
        .collect()
}

#[cfg(test)]
#[path = "packet_tests.rs"]
pub(super) mod tests;
