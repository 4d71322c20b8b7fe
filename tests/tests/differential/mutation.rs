//! Every frame that differs from a good one in one byte, or in its length.

use crate::fixtures::{changed, padded, set};
use crate::pair::*;
use lanrage_tests::frames::{data, fix_checksums, tagged_frame, udp_frame};

/// One of each kind that the program writes to.
fn kinds() -> Vec<Vec<u8>> {
    let in_vlan =
        |from: usize, to: usize, index| tagged_frame(SENDERS[from], RELAYS[to], 7, &data(index, 48));
    let between = |from: usize, to: usize, index| udp_frame(SENDERS[from], RELAYS[to], &data(index, 48));
    vec![
        changed(BACK, |_| {}),
        changed(ACROSS, |_| {}),
        set(BACK, 40, &[0, 0]),
        between(1, 2, BACK_V6),
        between(0, 0, BACK_V6),
        between(1, 2, BACK),
        in_vlan(0, 0, BACK_TAGGED),
        in_vlan(1, 2, ACROSS_V6_TAGGED),
        in_vlan(1, 2, BACK),
        between(0, 0, ACROSS_V6_TAGGED),
        udp_frame(STRANGERS[0], RELAY, &padded(36)),
        udp_frame(STRANGERS[1], RELAY_V6, &padded(72)),
        tagged_frame(STRANGERS[1], RELAY_V6, 7, &padded(24)),
    ]
}

#[test]
fn every_single_byte_change_agrees() {
    let mut pair = Pair::new();
    let mut wanted = pair.reasons();
    for kind in kinds() {
        for at in 0..kind.len().min(106) {
            for byte in 0..=255 {
                let mut frame = kind.clone();
                frame[at] = byte;
                let outcome = pair.agree(&frame);
                count(&mut wanted, &outcome, frame.len());
            }
        }
    }
    assert_eq!(pair.reasons(), wanted);
    pair.agree_on_members();
}

#[test]
fn every_truncation_agrees() {
    let mut pair = Pair::new();
    for whole in kinds() {
        let link = if whole[12..14] == [0x81, 0] { 18 } else { 14 };
        let is_v6 = whole[link - 2..link] == [0x86, 0xdd];
        let udp = link + if is_v6 { 40 } else { 20 };
        for length in 14..whole.len() {
            let cut = &whole[..length];
            assert_eq!(pair.agree(cut).frame, cut, "a truncated frame was changed");
            let mut fitted = cut.to_vec();
            if length >= udp + 8 {
                let (packet, datagram) = ((length - link) as u16, (length - udp) as u16);
                let (at, value) = if is_v6 { (link + 4, datagram) } else { (link + 2, packet) };
                fitted[at..at + 2].copy_from_slice(&value.to_be_bytes());
                fitted[udp + 4..udp + 6].copy_from_slice(&datagram.to_be_bytes());
                fix_checksums(&mut fitted);
            }
            pair.agree(&fitted);
        }
    }
    pair.agree_on_members();
}
