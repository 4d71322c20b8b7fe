//! The model's view of a frame.

use super::{flow_key, number16, source_key};
use lanrage_common::maps::{FlowKey, FlowValue, NextHop, SourceKey};
use lanrage_common::reason::Reason;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A frame with at least a link header, and an IP header's worth of bytes.
pub(super) struct Packet<'a> {
    pub(super) frame: &'a [u8],
    /// Length of the link header.
    pub(super) link: usize,
    /// Length of the IP header: 20 or 40.
    pub(super) header: usize,
}

impl<'a> Packet<'a> {
    pub(super) fn locate(frame: &'a [u8]) -> Result<Self, Reason> {
        let is_tag = |kind: &[u8]| matches!(kind, [0x81, 0x00] | [0x88, 0xa8]);
        let mut link = 14;
        if is_tag(frame.get(12..14).ok_or(Reason::ShortFrame)?) {
            link = 18;
            if is_tag(frame.get(16..18).ok_or(Reason::ShortFrame)?) {
                return Err(Reason::SecondTag);
            }
        }
        let header = match frame[link - 2..link] {
            [0x08, 0x00] => 20,
            [0x86, 0xdd] => 40,
            _ => return Err(Reason::NotIp),
        };
        if frame.len() < link + header { Err(Reason::ShortIp) } else { Ok(Self { frame, link, header }) }
    }

    pub(super) fn ip(&self) -> &'a [u8] {
        &self.frame[self.link..]
    }

    fn is_v4(&self) -> bool {
        self.header == 20
    }

    pub(super) fn check_version(&self) -> Result<(), Reason> {
        let (version, words) = (self.ip()[0] / 16, self.ip()[0] % 16);
        if self.is_v4() {
            return match (version, words) {
                (4, 5) => Ok(()),
                (4, 6..) => Err(Reason::IpOptions),
                _ => Err(Reason::BadIp),
            };
        }
        let disguised = self.ip()[8..20] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        if version == 6 && !disguised { Ok(()) } else { Err(Reason::BadIp) }
    }

    pub(super) fn check_protocol(&self) -> Result<(), Reason> {
        if self.is_v4() {
            let fragment = number16(&self.ip()[6..8]);
            if fragment & 0x2000 != 0 || fragment & 0x1fff != 0 {
                return Err(Reason::Fragment);
            }
            return if self.ip()[9] == 17 { Ok(()) } else { Err(Reason::NotUdp) };
        }
        match self.ip()[6] {
            17 => Ok(()),
            44 => Err(Reason::Fragment),
            0 | 43 | 51 | 60 | 135 | 139 => Err(Reason::ExtensionHeader),
            _ => Err(Reason::NotUdp),
        }
    }

    fn addresses(&self) -> (&'a [u8], &'a [u8]) {
        let at = if self.is_v4() { 12 } else { 8 };
        let size = (self.header - at) / 2;
        (&self.ip()[at..at + size], &self.ip()[at + size..self.header])
    }

    pub(super) fn source(&self) -> IpAddr {
        address(self.addresses().0)
    }

    pub(super) fn destination(&self) -> IpAddr {
        address(self.addresses().1)
    }

    /// The UDP header.
    pub(super) fn udp(&self) -> Result<&'a [u8], Reason> {
        self.ip().get(self.header..self.header + 8).ok_or(Reason::ShortUdp)
    }

    /// The UDP datagram.
    fn datagram(&self) -> &'a [u8] {
        &self.ip()[self.header..]
    }

    pub(super) fn source_port(&self) -> u16 {
        number16(self.datagram())
    }

    pub(super) fn destination_port(&self) -> u16 {
        number16(&self.datagram()[2..])
    }

    fn ip_length(&self) -> usize {
        if self.is_v4() {
            usize::from(number16(&self.ip()[2..]))
        } else {
            usize::from(number16(&self.ip()[4..])) + 40
        }
    }

    pub(super) fn check_lengths(&self) -> Result<(), Reason> {
        if self.ip_length() != self.ip().len() {
            return Err(Reason::IpLength);
        }
        let udp = usize::from(number16(&self.datagram()[4..]));
        if udp == self.datagram().len() { Ok(()) } else { Err(Reason::UdpLength) }
    }

    pub(super) fn payload(&self) -> &'a [u8] {
        &self.datagram()[8..]
    }

    /// Bytes of payload as the UDP header says.
    pub(super) fn declared_payload(&self) -> u64 {
        u64::from(number16(&self.datagram()[4..])).saturating_sub(8)
    }

    pub(super) fn ttl(&self) -> u8 {
        self.ip()[if self.is_v4() { 8 } else { 7 }]
    }

    pub(super) fn key(&self) -> FlowKey {
        flow_key(self.source(), self.source_port(), &self.payload()[4..8])
    }

    pub(super) fn source_key(&self) -> SourceKey {
        source_key(self.source(), self.source_port())
    }

    /// The frame with its new headers.
    pub(super) fn rewrite(&self, flow: &FlowValue, hop: &NextHop) -> Vec<u8> {
        let (source, destination) = (IpAddr::from(hop.source), IpAddr::from(flow.destination));
        let mut new = self.link_header(hop, source.is_ipv4());
        let link = new.len();
        new.extend(self.ip_header(source, destination, link));
        let start = new.len();
        new.extend(flow.source_port.octets());
        new.extend(flow.destination_port.octets());
        new.extend(&self.datagram()[4..]);
        if new[start + 6..start + 8] != [0, 0] {
            let (from, to) = self.addresses();
            let was = residue(&[from, to, &pseudo(self.datagram()), self.datagram()]);
            new[start + 6..start + 8].fill(0);
            let (from, to) = (bytes(source), bytes(destination));
            let now = residue(&[&from, &to, &pseudo(&new[start..]), &new[start..]]);
            let checksum = match carried(was, now) {
                0 => 0xffff,
                checksum => checksum,
            };
            new[start + 6..start + 8].copy_from_slice(&checksum.to_be_bytes());
        }
        new
    }

    fn link_header(&self, hop: &NextHop, to_v4: bool) -> Vec<u8> {
        let mut link = Vec::with_capacity(self.frame.len() + 24);
        hop.macs.iter().for_each(|word| link.extend(word.octets()));
        if hop.vlan != 0 {
            let (kind, priority) = match self.link {
                18 if self.header == if to_v4 { 20 } else { 40 } => {
                    (number16(&self.frame[12..]), self.frame[14])
                }
                18 => (0x8100, self.frame[14]),
                _ => (0x8100, 0),
            };
            link.extend(kind.to_be_bytes());
            link.extend((u16::from(priority & 0xf0) << 8 | hop.vlan).to_be_bytes());
        }
        link.extend(if to_v4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        link
    }

    /// A header of the same family is kept but for addresses and time to live; another is made from nothing.
    fn ip_header(&self, source: IpAddr, destination: IpAddr, link: usize) -> Vec<u8> {
        let mut header = match (self.is_v4(), source.is_ipv4()) {
            (true, true) | (false, false) => self.ip()[..self.header].to_vec(),
            (true, false) => {
                let class = self.ip()[1];
                let length = self.datagram().len() as u16;
                let mut header = vec![0x60 + class / 16, class % 16 * 16, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([17, self.ttl()]);
                header.resize(40, 0);
                header
            }
            (false, true) => {
                let class = self.ip()[0] % 16 * 16 + self.ip()[1] / 16;
                let length = self.datagram().len() as u16 + 20;
                let mut header = vec![0x45, class];
                header.extend(length.to_be_bytes());
                header.extend([0, 0, 0x40, 0, self.ttl(), 17]);
                header.resize(20, 0);
                header
            }
        };
        let (ttl, at) = if source.is_ipv4() { (8, 12) } else { (7, 8) };
        header[ttl] -= 1;
        header.truncate(at);
        header.extend(bytes(source));
        header.extend(bytes(destination));
        if source.is_ipv4() {
            let is_same = self.link == link && self.is_v4();
            let was = if is_same { residue(&[&self.ip()[..20]]) } else { 0 };
            header[10..12].fill(0);
            let checksum = carried(was, residue(&[&header]));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        header
    }
}

/// Length and protocol of the pseudo header.
fn pseudo(datagram: &[u8]) -> [u8; 4] {
    let [high, low] = (datagram.len() as u16).to_be_bytes();
    [high, low, 0, 17]
}

pub(super) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(octets) => Ipv4Addr::from(octets).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap_or_default()).into(),
    }
}

/// Sum of all 16-bit words modulo 0xFFFF, over parts of which only the last may have an odd length.
fn residue(parts: &[&[u8]]) -> u64 {
    let sum: u64 = parts.iter().map(|part| sum(part)).sum();
    sum % 0xffff
}

fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    // 0xFFFF divides 2^64 - 1, so a long word has the residue of its four short ones
    let whole: u64 =
        words.by_ref().map(|word| word.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)) % 0xffff).sum();
    let rest = words.remainder().chunks(2);
    whole
        + rest
            .map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |byte| u64::from(*byte)))
            .sum::<u64>()
}

/// The checksum that leaves a packet exactly as wrong as it was: right stays right, a corrupted one stays corrupted for
/// the receiver to notice. `now` is with a checksum field of zero.
fn carried(was: u64, now: u64) -> u16 {
    ((was + 0xffff - now) % 0xffff) as u16
}
