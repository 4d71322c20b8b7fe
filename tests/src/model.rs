//! What the relay's kernel program must do, said a second time and differently: by slices, with every checksum computed
//! from the whole packet. The differential test compares the two.

use lanrage_common::maps::{FlowKey, FlowValue, NextHop};
use lanrage_common::reason::Reason;
use std::collections::HashMap;
use std::ops::Range;

/// `XDP_PASS`.
pub const PASS: u32 = 2;
/// `XDP_TX`.
pub const TX: u32 = 3;
/// `XDP_REDIRECT`.
pub const REDIRECT: u32 = 4;

const ETHERNET: Range<usize> = 0..14;
const IP_CHECKSUM: Range<usize> = 24..26;
const UDP_CHECKSUM: Range<usize> = 40..42;

/// State that the program would find in its maps.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Own addresses.
    pub addresses: Vec<[u8; 4]>,
    /// Own ports.
    pub ports: Vec<u16>,
    /// The flow table.
    pub flows: HashMap<FlowKey, FlowValue>,
    /// The next hops by slot.
    pub next_hops: Vec<NextHop>,
    /// Where frames come in.
    pub ingress: u32,
}

/// What becomes of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The XDP action.
    pub action: u32,
    /// The counter that goes up by one.
    pub reason: Reason,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// The member for whom it was forwarded.
    pub member: Option<u32>,
}

impl Model {
    /// Runs a frame through.
    pub fn run(&self, frame: &[u8]) -> Outcome {
        match self.forward(frame) {
            Ok(outcome) => outcome,
            Err(reason) => Outcome { action: PASS, reason, frame: frame.to_vec(), member: None },
        }
    }

    fn forward(&self, frame: &[u8]) -> Result<Outcome, Reason> {
        let ethernet = frame.get(ETHERNET).ok_or(Reason::ShortFrame)?;
        match [ethernet[12], ethernet[13]] {
            [0x08, 0x00] => {}
            [0x81, 0x00] | [0x88, 0xa8] => return Err(Reason::Vlan),
            _ => return Err(Reason::NotIpv4),
        }
        let packet = &frame[14..];
        let udp = self.ipv4_payload(packet)?;
        let data = self.udp_payload(udp)?;
        let index = wireguard_index(data)?;
        if packet[8] < 2 {
            return Err(Reason::TtlExpired);
        }
        let key = key(&packet[12..16], &udp[..2], index);
        let flow = self.flows.get(&key).ok_or(Reason::NoFlow)?;
        let hop = self.next_hops.get(flow.next_hop as usize).ok_or(Reason::NoNextHop)?;
        if *hop == NextHop::default() {
            return Err(Reason::NoNextHop);
        }
        if packet.len() > hop.mtu as usize {
            return Err(Reason::TooBig);
        }
        let (action, reason) = if hop.ifindex == self.ingress {
            (TX, Reason::Forwarded)
        } else {
            (REDIRECT, Reason::Redirected)
        };
        Ok(Outcome { action, reason, frame: rewrite(frame, flow, hop), member: Some(flow.member) })
    }

    fn ipv4_payload<'a>(&self, packet: &'a [u8]) -> Result<&'a [u8], Reason> {
        let header = packet.get(..20).ok_or(Reason::ShortIpv4)?;
        let (version, words) = (header[0] / 16, header[0] % 16);
        if version != 4 || words < 5 {
            return Err(Reason::BadIpv4);
        }
        if words > 5 {
            return Err(Reason::IpOptions);
        }
        if !self.addresses.iter().any(|address| header[16..20] == *address) {
            return Err(Reason::OtherAddress);
        }
        if header[9] != 17 {
            return Err(Reason::NotUdp);
        }
        let more_fragments = header[6] & 0x20 != 0;
        let offset = number(&header[6..8]) & 0x1fff;
        if more_fragments || offset > 0 {
            return Err(Reason::Fragment);
        }
        if number(&header[2..4]) != packet.len() || packet.len() < 28 {
            return Err(Reason::Ipv4Length);
        }
        Ok(&packet[20..])
    }

    fn udp_payload<'a>(&self, udp: &'a [u8]) -> Result<&'a [u8], Reason> {
        if number(&udp[4..6]) != udp.len() {
            return Err(Reason::UdpLength);
        }
        if !self.ports.iter().any(|port| number(&udp[2..4]) == usize::from(*port)) {
            return Err(Reason::OtherPort);
        }
        Ok(&udp[8..])
    }
}

fn wireguard_index(data: &[u8]) -> Result<&[u8], Reason> {
    match data.get(..4) {
        Some([4, 0, 0, 0]) => {}
        Some([4, _, _, _]) => return Err(Reason::Reserved),
        _ => return Err(Reason::NotData),
    }
    if data.len() < 32 { Err(Reason::ShortData) } else { Ok(&data[4..8]) }
}

fn key(source: &[u8], port: &[u8], index: &[u8]) -> FlowKey {
    use lanrage_common::wire::{Be16, Be32};
    let four = |bytes: &[u8]| Be32::from_octets([bytes[0], bytes[1], bytes[2], bytes[3]]);
    FlowKey {
        source: four(source),
        index: four(index),
        source_port: Be16::from_octets([port[0], port[1]]),
        reserved: Be16::default(),
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

fn rewrite(frame: &[u8], flow: &FlowValue, hop: &NextHop) -> Vec<u8> {
    let mut new = frame.to_vec();
    new[..12].copy_from_slice(&hop.macs.map(|word| word.octets()).concat());
    new[22] -= 1;
    new[26..30].copy_from_slice(&flow.source.octets());
    new[30..34].copy_from_slice(&flow.destination.octets());
    new[34..36].copy_from_slice(&flow.source_port.octets());
    new[36..38].copy_from_slice(&flow.destination_port.octets());
    let ip = carried(residue(&frame[14..34]), &new[14..34], 10);
    new[IP_CHECKSUM].copy_from_slice(&ip.to_be_bytes());
    if frame[UDP_CHECKSUM] != [0, 0] {
        let udp = match carried(residue(&pseudo(frame)), &pseudo(&new), 12 + 6) {
            0 => 0xffff,
            checksum => checksum,
        };
        new[UDP_CHECKSUM].copy_from_slice(&udp.to_be_bytes());
    }
    new
}

/// Pseudo header and UDP datagram.
fn pseudo(frame: &[u8]) -> Vec<u8> {
    let length = (frame.len() - 34) as u16;
    let mut bytes = frame[26..34].to_vec();
    bytes.extend([0, 17]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(&frame[34..]);
    bytes
}

/// Sum of all 16-bit words modulo 0xFFFF, the checksum included: 0 = right.
fn residue(bytes: &[u8]) -> u64 {
    let words =
        bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |byte| u64::from(*byte)));
    words.sum::<u64>() % 0xffff
}

/// The checksum that leaves `bytes` exactly as wrong as they were: right stays right, a corrupted packet stays corrupted
/// for the receiver to notice. The field at `at` counts as zero.
fn carried(was: u64, bytes: &[u8], at: usize) -> u16 {
    let mut blank = bytes.to_vec();
    blank[at..at + 2].fill(0);
    ((was + 0xffff - residue(&blank)) % 0xffff) as u16
}
