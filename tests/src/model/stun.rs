//! The model's STUN server.

use super::frame::{Packet, bytes};
use super::{Model, number16};
use lanrage_common::wire::{checksum, udp_checksum};
use std::net::IpAddr;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Whether a datagram looks like STUN.
pub(super) fn is_stun(payload: &[u8]) -> bool {
    payload.len() >= 20 && payload[0] < 0x40 && payload[4..8] == COOKIE
}

/// Whether every attribute may be passed over, and there are at most eight.
fn is_ignorable(mut attributes: &[u8]) -> bool {
    for _ in 0..8 {
        let [kind_high, kind_low, rest @ ..] = attributes else { return attributes.is_empty() };
        let kind = u16::from(*kind_high) * 256 + u16::from(*kind_low);
        let Some(length) = rest.get(..2).map(number16) else { return false };
        if kind < 0x8000 && kind != 0x0026 {
            return false;
        }
        let padded = usize::from(length).next_multiple_of(4);
        let Some(next) = rest.get(2 + padded..) else { return false };
        attributes = next;
    }
    attributes.is_empty()
}

fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            !address.is_loopback() && !address.is_multicast() && first != 0 && first < 240
        }
        IpAddr::V6(address) => !address.is_multicast() && address.segments()[..6] != [0; 6],
    }
}

fn attribute(kind: u16, (address, port): (IpAddr, u16), mask: &[u8]) -> Vec<u8> {
    let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }];
    value.extend(port.to_be_bytes().iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    value.extend(bytes(address).iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), &value].concat()
}

impl Model {
    /// The whole answering frame.
    pub(super) fn answer(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let request = packet.payload();
        let (source, port) = (packet.source(), packet.source_port());
        let own = (packet.destination(), packet.destination_port());
        let is_plain = request[..2] == [0, 1] && usize::from(number16(&request[2..])) + 20 == request.len();
        if !is_plain || port == 0 || !is_reachable(source) || self.addresses.contains(&source) {
            return None;
        }
        if request.len() > 20 + 2048 || !is_ignorable(&request[20..]) {
            return None;
        }
        let mask = &request[4..20];
        let mut attributes = attribute(0x0020, (source, port), mask);
        if let Some(other) = self.other(own) {
            attributes.extend(attribute(0x802b, own, &[0; 16]));
            attributes.extend(attribute(0x802c, other, &[0; 16]));
        }
        if request.len() < 20 + attributes.len() {
            return None;
        }
        let length = (attributes.len() as u16).to_be_bytes();
        let message = [&[0x01, 0x01][..], &length, mask, &attributes].concat();
        Some(self.turn_around(packet, &message))
    }

    fn other(&self, (address, port): (IpAddr, u16)) -> Option<(IpAddr, u16)> {
        let [main, alternate] = self.pair_ports;
        if main == 0 || alternate == 0 {
            return None;
        }
        let [first, second] = self.pair_addresses.iter().find(|pair| pair.contains(&address))?;
        let other = if address == *second { *first } else { *second };
        Some((other, if port == alternate { main } else { alternate }))
    }

    fn turn_around(&self, packet: &Packet<'_>, message: &[u8]) -> Vec<u8> {
        let (from, to) = (bytes(packet.destination()), bytes(packet.source()));
        let mut datagram = [packet.destination_port(), packet.source_port(), 8 + message.len() as u16, 0]
            .map(u16::to_be_bytes)
            .concat();
        datagram.extend(message);
        let sum = udp_checksum(&from, &to, &datagram);
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        let mut frame = [&packet.frame[6..12], &packet.frame[..6], &packet.frame[12..packet.link]].concat();
        let length = datagram.len() as u16;
        if packet.header == 20 {
            let mut header = vec![0x45, 0];
            header.extend((length + 20).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            header.extend([from, to].concat());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        } else {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([17, 64]);
            frame.extend([from, to].concat());
        }
        frame.extend(datagram);
        frame
    }
}
