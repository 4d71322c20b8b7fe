//! What members' lanes tell each other: small datagrams through the tunnel, to the lane's port. The tunnel has proven who
//! sent them. Their first byte is none that an IP packet begins with, so an older lane drops them as malformed.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version and kind: `0x11` = arrivals; `0x12` to `0x14` are bulletins ([`crate::bulletin`]) |
//! | 1 | number of entries, at most [`MAX_ENTRIES`] |
//! | 16 | each entry: destination, IPv4 as `::ffff:a.b.c.d` |
//! | 2 | UDP destination port |
//! | 4 | packets of the receiver of this datagram that have arrived |
//! | 1 | who hears them: 0 unknown, 1 listening, 2 nobody, 3 elsewhere, 4 not joined |

use super::PORT;
use crate::api::LaneListener;
use crate::wire::{self, IPV4_LEN, PROTOCOL_UDP, UDP_LEN};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Entries of one report.
pub const MAX_ENTRIES: usize = 32;
const ARRIVALS: u8 = 0x11;
const ENTRY: usize = 23;
const TTL: u8 = 64;

/// What arrived of one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Group or broadcast address.
    pub destination: IpAddr,
    /// UDP destination port.
    pub port: u16,
    /// Packets, modulo 2³².
    pub packets: u32,
    /// Who hears them.
    pub listener: LaneListener,
}

/// What a member's lane says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// What arrived there of this device's packets to everybody.
    Arrivals(Vec<Arrival>),
}

impl Report {
    /// The whole IPv4 packet from one overlay address to another. More than [`MAX_ENTRIES`] are left out.
    pub fn packet(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let Self::Arrivals(arrivals) = self;
        let arrivals = &arrivals[..arrivals.len().min(MAX_ENTRIES)];
        let mut payload = vec![ARRIVALS, arrivals.len() as u8];
        for arrival in arrivals {
            payload.extend_from_slice(&mapped(arrival.destination));
            payload.extend_from_slice(&arrival.port.to_be_bytes());
            payload.extend_from_slice(&arrival.packets.to_be_bytes());
            payload.push(listener_number(arrival.listener));
        }
        report_packet(from, to, &payload)
    }

    /// Reads what [`report_in`] found; none when it is not a report that this version knows. Entries beyond their number
    /// belong to later versions.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let [ARRIVALS, count, entries @ ..] = payload else { return None };
        let count = usize::from(*count);
        if count > MAX_ENTRIES || entries.len() < count * ENTRY {
            return None;
        }
        Some(Self::Arrivals(entries.chunks_exact(ENTRY).take(count).filter_map(arrival).collect()))
    }
}

fn arrival(entry: &[u8]) -> Option<Arrival> {
    let address: [u8; 16] = entry.get(..16)?.try_into().ok()?;
    let &[high, low, a, b, c, d, listener] = entry.get(16..)? else { return None };
    Some(Arrival {
        destination: Ipv6Addr::from(address).to_canonical(),
        port: u16::from_be_bytes([high, low]),
        packets: u32::from_be_bytes([a, b, c, d]),
        listener: listener_of(listener),
    })
}

/// The report in a decrypted packet, if it is one: UDP to the lane's port whose payload is no IP packet.
pub fn report_in(packet: &[u8]) -> Option<&[u8]> {
    let header: &[u8; IPV4_LEN] = packet.first_chunk()?;
    let is_udp = header[0] == 0x45 && header[9] == PROTOCOL_UDP && header[6] & 0x3f == 0 && header[7] == 0;
    let udp = packet.get(IPV4_LEN..usize::from(u16::from_be_bytes([header[2], header[3]])))?;
    let payload = udp.get(UDP_LEN..)?;
    let is_ours = is_udp && udp[2..4] == PORT.to_be_bytes() && *payload.first()? >> 4 == ARRIVALS >> 4;
    is_ours.then_some(payload)
}

/// The whole IPv4 packet that carries such a payload from one overlay address to another.
pub fn report_packet(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_len = (UDP_LEN + payload.len()) as u16;
    let mut udp = [PORT.to_be_bytes(), PORT.to_be_bytes(), udp_len.to_be_bytes(), [0; 2]].concat();
    udp.extend_from_slice(payload);
    let checksum = wire::udp_checksum(&from.octets(), &to.octets(), &udp);
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    let total = udp_len + IPV4_LEN as u16;
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, TTL, PROTOCOL_UDP, 0, 0]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let checksum = wire::checksum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend_from_slice(&udp);
    packet
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

const LISTENERS: [LaneListener; 5] = [
    LaneListener::Unknown,
    LaneListener::Listening,
    LaneListener::Nobody,
    LaneListener::Elsewhere,
    LaneListener::NotJoined,
];

fn listener_number(listener: LaneListener) -> u8 {
    LISTENERS.iter().position(|known| *known == listener).unwrap_or(0) as u8
}

fn listener_of(number: u8) -> LaneListener {
    LISTENERS.get(usize::from(number)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
    const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);

    fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
        let address = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(|bytes| Ipv6Addr::from(bytes).to_canonical()),
        ];
        let arrival = (address, any::<u16>(), any::<u32>(), 0..5usize).prop_map(
            |(destination, port, packets, number)| Arrival {
                destination,
                port,
                packets,
                listener: LISTENERS[number],
            },
        );
        proptest::collection::vec(arrival, 0..MAX_ENTRIES)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(arrivals in arrivals()) {
            let packet = Report::Arrivals(arrivals.clone()).packet(ANA, BEN);
            prop_assert_eq!(wire::checksum(&packet[..IPV4_LEN]), 0);
            prop_assert_eq!(Report::parse(report_in(&packet).unwrap()), Some(Report::Arrivals(arrivals)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..900), count in 0u8..64) {
            let _ = report_in(&bytes).map(Report::parse);
            let mut payload = vec![ARRIVALS, count];
            payload.extend_from_slice(&bytes);
            if let Some(Report::Arrivals(arrivals)) = Report::parse(&payload) {
                prop_assert!(arrivals.len() <= MAX_ENTRIES && 2 + arrivals.len() * ENTRY <= payload.len());
            }
        }
    }

    #[test]
    fn wrapped_packets_are_no_reports() {
        for first in [0x45, 0x60] {
            assert_eq!(report_in(&report_packet(ANA, BEN, &[first; 60])), None);
        }
        let mut other_port = report_packet(ANA, BEN, &[ARRIVALS, 0]);
        other_port[IPV4_LEN + 3] ^= 1;
        assert_eq!(report_in(&other_port), None);
        assert!(report_in(&report_packet(ANA, BEN, &[ARRIVALS, 0])).is_some());
    }
}
