//! Frames for the data path's tests.

use lanrage_common::wire::{checksum, udp_checksum};
use std::net::{IpAddr, SocketAddr};

/// MAC addresses of a frame that arrives.
pub const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// A WireGuard data message with `size` bytes of ciphertext and tag.
pub fn data(index: u32, size: usize) -> Vec<u8> {
    let mut message = vec![4, 0, 0, 0];
    message.extend(index.to_le_bytes());
    message.extend(7u64.to_le_bytes());
    message.extend((0..size).map(|at| (at * 7) as u8));
    message
}

/// A STUN message with these attributes' bytes behind its header.
pub fn stun(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let mut message = kind.to_be_bytes().to_vec();
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend(1..=12);
    message.extend(attributes);
    message
}

/// An Ethernet frame with IP and UDP around `payload`, everything right. Both addresses have the same IP version.
pub fn udp_frame(
    source: impl Into<SocketAddr>,
    destination: impl Into<SocketAddr>,
    payload: &[u8],
) -> Vec<u8> {
    frame(source.into(), destination.into(), None, payload)
}

/// The same in a VLAN, with priority 5.
pub fn tagged_frame(
    source: impl Into<SocketAddr>,
    destination: impl Into<SocketAddr>,
    vlan: u16,
    payload: &[u8],
) -> Vec<u8> {
    frame(source.into(), destination.into(), Some(vlan), payload)
}

fn frame(source: SocketAddr, destination: SocketAddr, vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut frame = MACS.to_vec();
    if let Some(vlan) = vlan {
        frame.extend([0x81, 0x00]);
        frame.extend((0xa000 | vlan).to_be_bytes());
    }
    let length = 8 + payload.len() as u16;
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00, 0x45, 0x00]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0x00, 64, 17, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x6b, 0x81, 0x23, 0x45]);
            frame.extend(length.to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        addresses => panic!("{addresses:?} are of different IP versions"),
    }
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    fix_checksums(&mut frame);
    frame
}

/// Makes the IP and UDP checksums right, if there is room for both headers.
pub fn fix_checksums(frame: &mut [u8]) {
    let link = if frame.len() > 18 && frame[12..14] == [0x81, 0x00] { 18 } else { 14 };
    let is_v6 = frame.len() > link && frame[link] >> 4 == 6;
    let (at, header) = if is_v6 { (8, 40) } else { (12, 20) };
    let udp = link + header;
    if frame.len() < udp + 8 {
        return;
    }
    if !is_v6 {
        frame[link + 10..link + 12].fill(0);
        let sum = checksum(&frame[link..udp]);
        frame[link + 10..link + 12].copy_from_slice(&sum.to_be_bytes());
    }
    frame[udp + 6..udp + 8].fill(0);
    let (from, to) = frame[link + at..udp].split_at((header - at) / 2);
    let sum = udp_checksum(from, to, &frame[udp..]);
    frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
}
