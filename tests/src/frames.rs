//! Frames for the data path's tests.

use lanrage_common::wire::{checksum, udp_checksum};
use std::net::SocketAddrV4;

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

/// An Ethernet frame with IPv4 and UDP around `payload`, everything right.
pub fn udp_frame(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut frame = MACS.to_vec();
    frame.extend([0x08, 0x00, 0x45, 0x00]);
    frame.extend((28 + payload.len() as u16).to_be_bytes());
    frame.extend([0x12, 0x34, 0x40, 0x00, 64, 17, 0, 0]);
    frame.extend(source.ip().octets());
    frame.extend(destination.ip().octets());
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    fix_checksums(&mut frame);
    frame
}

/// Makes the IPv4 and UDP checksums right, if there is room for both headers.
pub fn fix_checksums(frame: &mut [u8]) {
    if frame.len() < 42 {
        return;
    }
    frame[24..26].fill(0);
    let ip = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    frame[40..42].fill(0);
    let address = |at: usize| [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]];
    let udp = udp_checksum(address(26), address(30), &frame[34..]);
    frame[40..42].copy_from_slice(&udp.to_be_bytes());
}
