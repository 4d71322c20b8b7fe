use super::*;
use crate::wire::{checksum, udp_checksum};
use proptest::prelude::*;

/// An IPv4 header and a UDP datagram with right checksums, unless `plain` asks for none in UDP.
fn packet(addresses: [[u8; 4]; 2], ports: [u16; 2], ttl: u8, plain: bool, payload: &[u8]) -> Vec<u8> {
    let total = (28 + payload.len()) as u16;
    let mut bytes = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, ttl, 17, 0, 0];
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes.extend(addresses.concat());
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(ports.map(u16::to_be_bytes).concat());
    bytes.extend((total - 20).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    if !plain {
        let sum = udp_checksum(addresses[0], addresses[1], &bytes[20..]);
        bytes[26..28].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

fn headers(packet: &[u8]) -> Headers {
    let be16 = |at: usize| Be16::from_octets([packet[at], packet[at + 1]]);
    let be32 = |at: usize| Be32::from_octets([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
    Headers {
        total_length: be16(2).value(),
        ttl: packet[8],
        protocol: packet[9],
        ip_checksum: be16(10),
        source: be32(12),
        destination: be32(16),
        source_port: be16(20),
        destination_port: be16(22),
        udp_checksum: be16(26),
    }
}

proptest! {
    /// Changing checksums by the difference gives what computing them from scratch gives.
    #[test]
    fn incremental_equals_full_recompute(
        addresses: [[u8; 4]; 4], ports: [u16; 4], ttl in 2u8.., plain: bool,
        payload in prop::collection::vec(any::<u8>(), 0..96),
    ) {
        let old = packet([addresses[0], addresses[1]], [ports[0], ports[1]], ttl, plain, &payload);
        let new = packet([addresses[2], addresses[3]], [ports[2], ports[3]], ttl - 1, plain, &payload);
        let flow = FlowValue {
            source: Be32::from_octets(addresses[2]),
            destination: Be32::from_octets(addresses[3]),
            source_port: Be16::new(ports[2]),
            destination_port: Be16::new(ports[3]),
            ..FlowValue::default()
        };
        let edits = edit(&headers(&old), &flow, &NextHop::default());
        let want = headers(&new);
        prop_assert_eq!(edits.ttl, want.ttl);
        prop_assert_eq!(edits.ip_checksum, want.ip_checksum);
        prop_assert_eq!(edits.udp_checksum, want.udp_checksum);
        prop_assert_eq!((edits.source, edits.destination), (want.source, want.destination));
        prop_assert_eq!((edits.source_port, edits.destination_port), (want.source_port, want.destination_port));
    }
}

#[test]
fn routes_by_next_hop() {
    let headers = headers(&packet([[192, 0, 2, 1], [198, 51, 100, 1]], [51820, 3478], 64, false, &[4; 32]));
    let hop = NextHop::new(3, 60, [2; 6], [4; 6]);
    assert_eq!(route(&headers, &hop, 3), Ok(Reason::Forwarded));
    assert_eq!(route(&headers, &hop, 4), Ok(Reason::Redirected));
    assert_eq!(route(&headers, &NextHop { mtu: 59, ..hop }, 3), Err(Reason::TooBig));
    assert_eq!(route(&headers, &NextHop::default(), 3), Err(Reason::NoNextHop));
}

#[test]
fn macs_begin_the_frame_in_order() {
    let hop = NextHop::new(1, 1500, [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
    assert_eq!(hop.macs.map(Be32::octets).concat(), (1..=12).collect::<Vec<u8>>());
}
