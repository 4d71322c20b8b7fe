//! Budgets over time.

use crate::fixtures::changed;
use crate::pair::*;
use lanrage_common::maps::MemberState;
use lanrage_common::police::{Bucket, Rate};
use lanrage_common::reason::Reason;
use lanrage_tests::frames::{data, stun, udp_frame};

const MILLISECOND: u64 = 1_000_000;

/// Sends that often a second for so many seconds; how many had that reason.
fn offer(pair: &mut Pair, frame: &[u8], per_second: u64, seconds: u64, reason: Reason) -> u64 {
    let mut count = 0;
    for _ in 0..per_second * seconds {
        pair.change_local(|local| local.clock += 1000 * MILLISECOND / per_second);
        count += u64::from(pair.agree(frame).reason == reason);
    }
    pair.agree_on_members();
    count
}

#[test]
fn a_member_gets_what_its_ticket_allows_and_the_others_are_not_touched() {
    let mut pair = Pair::new();
    let packets = Bucket::new(Rate::of_packets(1000));
    pair.put_member(MEMBER, MemberState { packets, ..MemberState::default() });
    let frame = changed(BACK, |_| {});
    let passed = offer(&mut pair, &frame, 4000, 5, Reason::Forwarded);
    assert!((5000..=5300).contains(&passed), "{passed} of 1000 a second in 5 s and a burst of 250");
    assert_eq!(pair.program.member(MEMBER).dropped, 20_000 - passed);
    let bytes = Bucket::new(Rate::of_bytes(100_000));
    pair.put_member(MEMBER, MemberState { bytes, ..MemberState::default() });
    let frame = udp_frame(SENDER, RELAY, &data(BACK, 984));
    let passed = offer(&mut pair, &frame, 1000, 10, Reason::Forwarded);
    assert!((1000..=1070).contains(&passed), "{passed} of 100 kB a second in 10 s and a burst of 64 KiB");
}

#[test]
fn all_members_together_get_what_the_relay_may_send() {
    let mut pair = Pair::new();
    pair.change_local(|local| {
        (local.packets, local.packets_chunk) = (Rate::new(1000, 100), 10);
        (local.bytes, local.bytes_chunk) = (Rate::new(1_000_000_000, 1_000_000), 65_536);
    });
    let frame = changed(BACK, |_| {});
    let passed = offer(&mut pair, &frame, 4000, 5, Reason::Forwarded);
    assert!((4990..=5120).contains(&passed), "{passed} of 1000 a second in 5 s and a burst of 100");
}

#[test]
fn handshakes_probes_and_strangers_have_budgets() {
    let mut pair = Pair::new();
    let handshake = udp_frame(SENDER, RELAY, &[1; 148]);
    let passed = offer(&mut pair, &handshake, 1000, 4, Reason::NotData);
    assert!((990..=1010).contains(&passed), "{passed} of 100 a second in 4 s and a burst of 600");
    let probe = udp_frame(SENDER, RELAY, &[&[0xA7, b'L', b'R', 1][..], &[1; 96]].concat());
    let passed = offer(&mut pair, &probe, 1000, 4, Reason::Probe);
    assert!((1790..=1810).contains(&passed), "{passed} of 300 a second in 4 s and a burst of 600");
    let stranger = udp_frame(STRANGERS[0], RELAY, &[1; 148]);
    assert_eq!(offer(&mut pair, &stranger, 1000, 1, Reason::Unbound), 1000);
    pair.change_local(|local| local.stun = Rate::new(100, 50));
    let bind = udp_frame(STRANGERS[0], RELAY, &stun(0x2C1D, &[0; 40]));
    let passed = offer(&mut pair, &bind, 1000, 2, Reason::StunPassed);
    assert!((245..=255).contains(&passed), "{passed} of 100 a second in 2 s and a burst of 50");
    let refresh = udp_frame(SENDER_V6, RELAY_V6, &stun(0x2C1D, &[0; 40]));
    assert_eq!(offer(&mut pair, &refresh, 20, 2, Reason::StunPassed), 40, "members suffer from the flood");
}

#[test]
fn a_flow_ends_when_nobody_prolongs_it() {
    let mut pair = Pair::new();
    let mut value =
        pair.model.flows[&lanrage_tests::model::flow_key(SENDER.ip(), SENDER.port(), &BACK.to_le_bytes())];
    value.expires = (START / 1_000_000_000) as u32 + 3;
    pair.put_flow(SENDER, BACK, value);
    let frame = changed(BACK, |_| {});
    assert_eq!(offer(&mut pair, &frame, 10, 5, Reason::Forwarded), 29);
    assert_eq!(pair.agree(&frame).reason, Reason::FlowExpired);
}
