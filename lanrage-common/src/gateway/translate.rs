//! Other addresses in a packet (RFC 3022, without ports), with all checksums that cover them carried over (RFC 1624).

use crate::wire::{Be16, Be32, ChecksumDelta, IPV4_LEN, PROTOCOL_UDP};
use std::net::Ipv4Addr;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
/// Types of ICMP messages that quote a packet (RFC 792): unreachable, time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 3] = [3, 11, 12];
const ICMP_LEN: usize = 8;
const OFFSET_MASK: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;
const TCP_LEN: usize = 20;
const SYN: u8 = 2;

/// Destination of an IPv4 packet.
pub fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    header(packet).map(|header| address(header, 16))
}

/// Source of an IPv4 packet.
pub fn source(packet: &[u8]) -> Option<Ipv4Addr> {
    header(packet).map(|header| address(header, 12))
}

/// Copies an IPv4 packet into `copy`, with other addresses. An ICMP error quotes a packet that went the other way: its
/// addresses change too, or nobody would know it again. False when it is not well-formed.
pub fn translate(packet: &[u8], source: Ipv4Addr, destination: Ipv4Addr, copy: &mut Vec<u8>) -> bool {
    let Some(header) = header(packet) else { return false };
    let total = usize::from(word(header, 2));
    copy.clear();
    copy.extend_from_slice(&packet[..total]);
    let protocol = header[9];
    let is_later = word(header, 6) & OFFSET_MASK != 0;
    readdress(copy, source, destination, !is_later);
    if protocol == PROTOCOL_ICMP && !is_later {
        translate_quoted(copy, destination, source);
    }
    true
}

/// Writes addresses into a packet with a checked header.
fn readdress(packet: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr, has_transport: bool) {
    let delta = ChecksumDelta::new()
        .replace32(be32(packet, 12), Be32::from_octets(source.octets()))
        .replace32(be32(packet, 16), Be32::from_octets(destination.octets()));
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let sum = delta.apply(be16(packet, 10));
    packet[10..12].copy_from_slice(&sum.octets());
    let length = header_len(packet);
    let at = match packet[9] {
        PROTOCOL_UDP => length + 6,
        PROTOCOL_TCP => length + 16,
        _ => return,
    };
    if has_transport && packet.len() >= at + 2 {
        let old = be16(packet, at);
        let sum = if packet[9] == PROTOCOL_UDP { delta.apply_udp(old) } else { delta.apply(old) };
        packet[at..at + 2].copy_from_slice(&sum.octets());
    }
}

/// The packet that an ICMP error quotes gets other addresses, and the error's checksum, which covers it, is made anew.
fn translate_quoted(packet: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
    let length = header_len(packet);
    let message = &mut packet[length..];
    if message.len() < ICMP_LEN + IPV4_LEN || !ICMP_ERRORS.contains(&message[0]) {
        return;
    }
    let quoted = &mut message[ICMP_LEN..];
    let is_whole = quoted[0] >> 4 == 4 && (IPV4_LEN..=quoted.len()).contains(&header_len(quoted));
    if !is_whole {
        return;
    }
    let is_first = word(quoted, 6) & OFFSET_MASK == 0;
    readdress(quoted, source, destination, is_first);
    message[2..4].fill(0);
    let sum = crate::wire::checksum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// Finishes a UDP checksum that was left to the network card: then the field holds the sum of the pseudo header alone.
pub(super) fn finish_checksum(packet: &mut [u8]) {
    let Some(length) = header(packet).map(header_len) else { return };
    let is_fragment = word(packet, 6) & (OFFSET_MASK | MORE_FRAGMENTS) != 0;
    if packet[9] != PROTOCOL_UDP || is_fragment || packet.len() < length + 8 {
        return;
    }
    let total = usize::from(word(packet, 2));
    let mut pseudo = packet[12..20].to_vec();
    pseudo.extend_from_slice(&[0, PROTOCOL_UDP]);
    pseudo.extend_from_slice(&((total - length) as u16).to_be_bytes());
    if word(packet, length + 6) != !crate::wire::checksum(&pseudo) {
        return;
    }
    packet[length + 6..length + 8].fill(0);
    let sum = crate::wire::udp_checksum(&pseudo[..4], &pseudo[4..8], &packet[length..total]);
    packet[length + 6..length + 8].copy_from_slice(&sum.to_be_bytes());
}

/// Lets a TCP connection that begins use no longer segments than fit packets of `mtu` bytes (RFC 879's option).
pub(super) fn limit_segments(packet: &mut [u8], mtu: u16) {
    let Some(start) = header(packet).map(header_len) else { return };
    let is_fragment = word(packet, 6) & (OFFSET_MASK | MORE_FRAGMENTS) != 0;
    if packet[9] != PROTOCOL_TCP
        || is_fragment
        || packet.len() < start + TCP_LEN
        || packet[start + 13] & SYN == 0
    {
        return;
    }
    let end = (start + usize::from(packet[start + 12] >> 4) * 4).min(packet.len());
    let most = mtu.saturating_sub((IPV4_LEN + TCP_LEN) as u16);
    let mut at = start + TCP_LEN;
    while at < end {
        match (packet[at], packet.get(at + 1).copied()) {
            (0, _) => return,
            (1, _) => at += 1,
            (2, Some(4)) if at + 4 <= end => return limit(packet, at + 2, start + 16, most),
            (_, Some(length)) if length >= 2 => at += usize::from(length),
            _ => return,
        }
    }
}

/// Lowers the number at `at`, and carries that over into the checksum.
fn limit(packet: &mut [u8], at: usize, checksum: usize, most: u16) {
    if word(packet, at) <= most {
        return;
    }
    let most = most.to_be_bytes();
    // the sum runs over words at even offsets: a number at an odd one is half of two words
    let begin = at - (at - checksum) % 2;
    let length = if begin == at { 2 } else { 4 };
    let Some(old) = packet.get(begin..begin + length).map(<[u8]>::to_vec) else { return };
    packet[at..at + 2].copy_from_slice(&most);
    let mut delta = ChecksumDelta::new();
    for (offset, old) in (0..length).step_by(2).zip(old.chunks(2)) {
        delta = delta.replace16(Be16::from_octets([old[0], old[1]]), be16(packet, begin + offset));
    }
    let sum = delta.apply(be16(packet, checksum));
    packet[checksum..checksum + 2].copy_from_slice(&sum.octets());
}

/// The packet, if version, header length and total length fit.
fn header(packet: &[u8]) -> Option<&[u8]> {
    if packet.len() < IPV4_LEN || packet[0] >> 4 != 4 {
        return None;
    }
    let (header, total) = (header_len(packet), usize::from(word(packet, 2)));
    (header >= IPV4_LEN && header <= total && total <= packet.len()).then_some(packet)
}

fn header_len(packet: &[u8]) -> usize {
    usize::from(packet[0] & 0xf) * 4
}

fn address(packet: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from([0, 1, 2, 3].map(|byte| packet[at + byte]))
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

fn be16(packet: &[u8], at: usize) -> Be16 {
    Be16::from_octets([packet[at], packet[at + 1]])
}

fn be32(packet: &[u8], at: usize) -> Be32 {
    Be32::from_octets([0, 1, 2, 3].map(|byte| packet[at + byte]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire;
    use proptest::prelude::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 50);
    const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 240);
    const C: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 9);
    const D: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);

    /// A packet with right checksums; `rest` is what follows its IP header.
    pub(crate) fn packet(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&(20 + rest.len() as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 9, 0, 0, 64, protocol, 0, 0]);
        packet.extend_from_slice(&source.octets());
        packet.extend_from_slice(&destination.octets());
        let sum = wire::checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend_from_slice(rest);
        let at = match protocol {
            PROTOCOL_UDP => 26,
            PROTOCOL_TCP => 36,
            PROTOCOL_ICMP => {
                let sum = wire::checksum(rest);
                packet[22..24].copy_from_slice(&sum.to_be_bytes());
                return packet;
            }
            _ => return packet,
        };
        let sum = transport_sum(&packet);
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// Over pseudo-header and the rest; zero when the checksum in it is right.
    fn transport_sum(packet: &[u8]) -> u16 {
        let rest = &packet[20..];
        let mut bytes = packet[12..20].to_vec();
        bytes.extend_from_slice(&[0, packet[9]]);
        bytes.extend_from_slice(&(rest.len() as u16).to_be_bytes());
        bytes.extend_from_slice(rest);
        wire::checksum(&bytes)
    }

    pub(crate) fn udp(ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
        let length = 8 + payload.len() as u16;
        let mut rest = [ports[0], ports[1], length, 0].map(u16::to_be_bytes).concat();
        rest.extend_from_slice(payload);
        rest
    }

    fn check(packet: &[u8]) {
        assert_eq!(wire::checksum(&packet[..20]), 0, "header");
        match packet[9] {
            PROTOCOL_ICMP => assert_eq!(wire::checksum(&packet[20..]), 0, "ICMP"),
            _ => assert_eq!(transport_sum(packet), 0, "transport"),
        }
    }

    #[test]
    fn checksums_stay_right_for_each_protocol() {
        let tcp = [&[0x17, 0xe0, 0x17, 0xe1, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 2, 4, 0, 0, 0, 0, 0][..], b"abc"]
            .concat();
        let mut copy = Vec::new();
        for (protocol, rest) in [
            (PROTOCOL_UDP, udp([6112, 6112], b"hello")),
            (PROTOCOL_TCP, tcp),
            (PROTOCOL_ICMP, vec![8, 0, 0, 0, 0, 1, 0, 1, 9]),
        ] {
            let before = packet(protocol, A, B, &rest);
            check(&before);
            assert!(translate(&before, C, D, &mut copy));
            check(&copy);
            assert_eq!((source(&copy), destination(&copy)), (Some(C), Some(D)));
            let rest = if protocol == PROTOCOL_TCP { 38 } else { 28 };
            assert_eq!(copy[rest..], before[rest..], "the rest is as it was");
        }
    }

    #[test]
    fn an_unfinished_checksum_is_finished_and_no_other_one_touched() {
        let right = packet(PROTOCOL_UDP, A, B, &udp([6112, 6112], b"hello"));
        let mut unfinished = right.clone();
        let mut pseudo = right[12..20].to_vec();
        pseudo.extend_from_slice(&[0, PROTOCOL_UDP, 0, 13]);
        unfinished[26..28].copy_from_slice(&(!wire::checksum(&pseudo)).to_be_bytes());
        finish_checksum(&mut unfinished);
        assert_eq!(unfinished, right);
        for sum in [[0, 0], [0x12, 0x34]] {
            let mut other = right.clone();
            other[26..28].copy_from_slice(&sum);
            let before = other.clone();
            finish_checksum(&mut other);
            assert_eq!(other, before, "none, or damaged on the way");
        }
    }

    #[test]
    fn connections_begin_with_segments_that_fit() {
        for padding in [&[][..], &[1], &[1, 1, 1]] {
            let options = [padding, &[2, 4, 0x05, 0xb4, 3, 3, 7, 0][..]].concat();
            let room = options.len().next_multiple_of(4);
            let mut segment = vec![0x17, 0xe0, 0x17, 0xe1, 0, 0, 0, 1, 0, 0, 0, 0, 0, SYN, 4, 0, 0, 0, 0, 0];
            segment[12] = (((20 + room) / 4) << 4) as u8;
            segment.extend_from_slice(&options);
            segment.resize(20 + room, 0);
            let mut syn = packet(PROTOCOL_TCP, A, B, &segment);
            limit_segments(&mut syn, 1420);
            check(&syn);
            let at = 40 + padding.len() + 2;
            assert_eq!(word(&syn, at), 1380);
            let before = syn.clone();
            limit_segments(&mut syn, 1500);
            assert_eq!(syn, before, "never raised");
        }
    }

    #[test]
    fn a_quoted_packet_is_known_again_by_who_sent_it() {
        // the console (A) sent to the alias (B); the member (D) answers the device's overlay address (C) with an error
        let sent = packet(PROTOCOL_UDP, C, D, &udp([6112, 6113], b"hello"));
        let error = packet(PROTOCOL_ICMP, D, C, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &sent].concat());
        let mut copy = Vec::new();
        assert!(translate(&error, B, A, &mut copy));
        check(&copy);
        let quoted = &copy[28..];
        assert_eq!((source(quoted), destination(quoted)), (Some(A), Some(B)));
        check(quoted);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut copy = bytes.clone();
            finish_checksum(&mut copy);
            limit_segments(&mut copy, 1420);
            if translate(&bytes, A, B, &mut copy) {
                prop_assert_eq!((source(&copy), destination(&copy)), (Some(A), Some(B)));
                prop_assert!(copy.len() <= bytes.len());
            }
        }

        #[test]
        fn there_and_back_is_the_same(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let before = packet(PROTOCOL_UDP, A, B, &udp([1, 2], &payload));
            let (mut there, mut back) = (Vec::new(), Vec::new());
            prop_assert!(translate(&before, C, D, &mut there) && translate(&there, A, B, &mut back));
            prop_assert_eq!(back, before);
        }
    }
}
