//! At least one frame for every reason.

use crate::pair::*;
use lanrage_common::maps::Local;
use lanrage_common::police::Rate;
use lanrage_common::reason::Reason;
use lanrage_common::wire::Be16;
use lanrage_tests::frames::{data, stun, tagged_frame, udp_frame};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// A good frame, changed.
pub fn changed(index: u32, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = udp_frame(SENDER, RELAY, &data(index, 48));
    change(&mut frame);
    frame
}

pub fn set(index: u32, at: usize, bytes: &[u8]) -> Vec<u8> {
    changed(index, |frame| frame[at..at + bytes.len()].copy_from_slice(bytes))
}

fn set_v6(index: u32, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = udp_frame(SENDER_V6, RELAY_V6, &data(index, 48));
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn to_port(port: u16) -> SocketAddr {
    SocketAddr::new(RELAY.ip(), port)
}

/// A request as long as its longest answer, by PADDING.
pub fn padded(size: u16) -> Vec<u8> {
    let mut attributes = vec![0x00, 0x26];
    attributes.extend((size - 4).to_be_bytes());
    attributes.resize(usize::from(size), 0xee);
    stun(1, &attributes)
}

/// Frames for the state after [`Pair::reset`].
pub fn fixtures() -> Vec<(Reason, Vec<u8>)> {
    let elsewhere = SocketAddr::new(IpAddr::from([203, 0, 113, 7]), 3478);
    let between = |from: usize, to: usize, index| udp_frame(SENDERS[from], RELAYS[to], &data(index, 48));
    let in_vlan =
        |from: usize, to: usize, index| tagged_frame(SENDERS[from], RELAYS[to], 7, &data(index, 48));
    let probe = [&[0xA7, b'L', b'R', 1][..], &[1; 96]].concat();
    let mut fixtures = vec![
        (Reason::Forwarded, changed(BACK, |_| {})),
        (Reason::Forwarded, udp_frame(SENDER, RELAYS[1], &data(BACK, 16))),
        (Reason::Forwarded, udp_frame(SENDER, RELAY, &data(BACK, 1456))),
        (Reason::Forwarded, udp_frame(SENDER, RELAY, &data(BACK, 17))),
        (Reason::Forwarded, set(BACK, 40, &[0, 0])),
        (Reason::Forwarded, set(BACK, 40, &[0xff, 0xff])),
        (Reason::Forwarded, set(BACK, 24, &[0xff, 0xff])),
        (Reason::Forwarded, set(BACK, 22, &[2])),
        (Reason::Forwarded, set(BACK, 15, &[0xb8])),
        (Reason::Redirected, changed(ACROSS, |_| {})),
        (Reason::Forwarded, between(1, 2, BACK_V6)),
        (Reason::Forwarded, set_v6(BACK_V6, 60, &[0, 0])),
        (Reason::Redirected, between(1, 3, ACROSS_V6)),
        // from one IP version to the other
        (Reason::Forwarded, between(0, 0, BACK_V6)),
        (Reason::Redirected, between(0, 0, ACROSS_V6)),
        (Reason::Forwarded, between(1, 2, BACK)),
        (Reason::Forwarded, set_v6(BACK, 60, &[0, 0])),
        // into, out of and between VLANs
        (Reason::Forwarded, in_vlan(0, 0, BACK_TAGGED)),
        (Reason::Redirected, in_vlan(1, 2, ACROSS_V6_TAGGED)),
        (Reason::Forwarded, in_vlan(0, 0, BACK)),
        (Reason::Forwarded, between(0, 0, BACK_TAGGED)),
        (Reason::Redirected, between(0, 0, ACROSS_V6_TAGGED)),
        (Reason::Forwarded, between(1, 2, BACK_TAGGED)),
        (Reason::Redirected, in_vlan(0, 0, ACROSS_V6_TAGGED)),
        (Reason::Forwarded, in_vlan(1, 2, BACK)),
        (Reason::Redirected, in_vlan(1, 2, ACROSS_V6)),
        (Reason::ShortFrame, set(BACK, 12, &[0x81, 0x00])[..17].to_vec()),
        (Reason::SecondTag, {
            let mut frame = in_vlan(0, 0, BACK);
            frame[16..18].copy_from_slice(&[0x88, 0xa8]);
            frame
        }),
        (Reason::NotIp, set(BACK, 12, &[0x81, 0x00])),
        (Reason::NotIp, set(BACK, 12, &[0x08, 0x06])),
        (Reason::ShortIp, changed(BACK, |frame| frame.truncate(33))),
        (Reason::ShortIp, changed(BACK, |frame| frame.truncate(14))),
        (Reason::ShortIp, set_v6(BACK, 12, &[0x86])[..53].to_vec()),
        (Reason::BadIp, set(BACK, 12, &[0x86, 0xdd])),
        (Reason::BadIp, set_v6(BACK_V6, 14, &[0x45])),
        (Reason::BadIp, set_v6(BACK_V6, 22, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7])),
        (Reason::BadIp, set(BACK, 14, &[0x65])),
        (Reason::BadIp, set(BACK, 14, &[0x44])),
        (Reason::IpOptions, set(BACK, 14, &[0x46])),
        (Reason::OtherAddress, udp_frame(SENDER, elsewhere, &data(BACK, 48))),
        (Reason::OtherAddress, set(BACK, 30, &[0; 4])),
        (Reason::OtherAddress, set_v6(BACK_V6, 38, &[0; 16])),
        (Reason::OtherAddress, set_v6(BACK_V6, 53, &[9])),
        (Reason::NotUdp, set(BACK, 23, &[6])),
        (Reason::NotUdp, set_v6(BACK_V6, 20, &[58])),
        (Reason::ExtensionHeader, set_v6(BACK_V6, 20, &[0])),
        (Reason::ExtensionHeader, set_v6(BACK_V6, 20, &[60])),
        (Reason::Fragment, set_v6(BACK_V6, 20, &[44])),
        (Reason::Fragment, set(BACK, 20, &[0x20, 0x00])),
        (Reason::Fragment, set(BACK, 20, &[0x00, 0x01])),
        (Reason::ShortUdp, changed(BACK, |frame| frame.truncate(41))),
        (Reason::IpLength, changed(BACK, |frame| frame.push(0))),
        (Reason::IpLength, changed(BACK, |frame| frame.truncate(73))),
        (Reason::IpLength, set(BACK, 16, &[0, 0])),
        (Reason::IpLength, set_v6(BACK_V6, 18, &[0xff, 0xff])),
        (Reason::UdpLength, set(BACK, 38, &[0, 7])),
        (Reason::UdpLength, set(BACK, 38, &[0xff, 0xff])),
        (Reason::OtherPort, udp_frame(SENDER, to_port(3479), &data(BACK, 48))),
        (Reason::OtherPort, set(BACK, 36, &[0, 0])),
        (Reason::NotData, udp_frame(SENDER, RELAY, &[1, 0, 0, 0, 9])),
        (Reason::NotData, udp_frame(SENDER, RELAY, &[1; 148])),
        (Reason::NotData, udp_frame(SENDER, RELAY, &[])),
        (Reason::NotData, udp_frame(SENDER, RELAY, &[4, 0, 0])),
        (Reason::Probe, udp_frame(SENDER_V6, RELAY_V6, &probe)),
        (Reason::Reserved, set(BACK, 43, &[1])),
        (Reason::Reserved, set(BACK, 45, &[0x80])),
        (Reason::ShortData, udp_frame(SENDER, RELAY, &data(BACK, 15))),
        (Reason::ShortData, udp_frame(SENDER, RELAY, &[4, 0, 0, 0])),
        (Reason::TtlExpired, set(BACK, 22, &[1])),
        (Reason::TtlExpired, set(BACK, 22, &[0])),
        (Reason::TtlExpired, set_v6(BACK_V6, 21, &[1])),
        (Reason::NoFlow, changed(0xffff_ffff, |_| {})),
        (Reason::FlowExpired, changed(EXPIRED, |_| {})),
        (Reason::RateMember, changed(DRAINED, |_| {})),
        (Reason::RateMember, udp_frame(SPENT, RELAY, &data(BACK, 48))),
        (Reason::RateHandshake, udp_frame(SPENT, RELAY, &[1; 148])),
        (Reason::RateHandshake, udp_frame(SPENT, RELAY, &data(BACK, 15))),
        (Reason::RateProbe, udp_frame(SPENT, RELAY, &probe)),
        (Reason::Unbound, set(BACK, 26, &[198, 51, 100, 9])),
        (Reason::Unbound, set(BACK, 34, &[0, 1])),
        (Reason::NoNextHop, changed(UNRESOLVED, |_| {})),
        (Reason::NoNextHop, changed(NO_SLOT, |_| {})),
        (Reason::NoNextHop, changed(CROSSED, |_| {})),
        (Reason::TooBig, udp_frame(SENDER, RELAY, &data(NARROW, 57))),
        (Reason::Redirected, udp_frame(SENDER, RELAY, &data(NARROW, 56))),
        (Reason::TooBig, udp_frame(SENDER, RELAY, &data(NARROW_V6, 57))),
        (Reason::Redirected, udp_frame(SENDER, RELAY, &data(NARROW_V6, 56))),
        (Reason::NoChecksum, set(BACK_V6, 40, &[0, 0])),
        (Reason::StunAnswered, udp_frame(STRANGERS[0], RELAY, &padded(12))),
        (Reason::StunAnswered, udp_frame(STRANGERS[0], RELAY, &padded(1400))),
        (Reason::StunAnswered, udp_frame(STRANGERS[1], RELAY_V6, &padded(24))),
        (Reason::StunAnswered, udp_frame(STRANGERS[1], RELAY_V6, &padded(100))),
        (Reason::StunAnswered, tagged_frame(STRANGERS[0], RELAY, 9, &padded(40))),
        (Reason::StunAnswered, tagged_frame(STRANGERS[1], RELAY_V6, 9, &padded(40))),
        (Reason::StunPassed, udp_frame(STRANGERS[0], RELAY, &stun(1, &[]))),
        (Reason::StunPassed, udp_frame(STRANGERS[0], RELAY, &padded(8))),
        (Reason::StunPassed, udp_frame(STRANGERS[1], RELAY_V6, &padded(20))),
        // not understood, not a request, damaged, from nowhere
        (Reason::StunPassed, udp_frame(STRANGERS[0], RELAY, &stun(1, &[0, 6, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]))),
        (Reason::StunPassed, udp_frame(STRANGERS[0], RELAY, &stun(0x101, &[0; 24]))),
        (
            Reason::StunPassed,
            udp_frame(STRANGERS[0], RELAY, &stun(1, &[0x80, 0x22, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0])),
        ),
        (Reason::StunPassed, udp_frame(STRANGERS[0], RELAY, &stun(1, &[0x80, 0x22, 0, 0].repeat(9)))),
        (Reason::StunPassed, udp_frame(SocketAddr::new(STRANGERS[0].ip(), 0), RELAY, &padded(12))),
        (Reason::StunPassed, udp_frame(RELAYS[1], RELAY, &padded(12))),
        (Reason::StunPassed, udp_frame(SocketAddr::from(([224, 0, 0, 1], 9)), RELAY, &padded(12))),
    ];
    fixtures.push((
        Reason::StunAnswered,
        udp_frame(STRANGERS[0], RELAY, &stun(1, &[0x80, 0x22, 0, 0].repeat(8))),
    ));
    let ours = lanrage_common::binding::binding_request([7; 12]);
    fixtures.push((Reason::StunAnswered, udp_frame(SENDER, RELAY, &ours)));
    fixtures.push((Reason::StunAnswered, udp_frame(SENDER_V6, RELAY_V6, &ours)));
    fixtures
}

/// Reasons that another state leads to.
type Prepare = fn(&mut Local);
fn special() -> Vec<(Reason, Prepare, Vec<u8>)> {
    let tight: Prepare = |local| (local.packets, local.packets_chunk) = (Rate { cost: 1024, depth: 0 }, 1);
    let heavy: Prepare = |local| (local.bytes, local.bytes_chunk) = (Rate { cost: 1024, depth: 0 }, 65_536);
    let deaf: Prepare = |local| local.stun = Rate { cost: 1024, depth: 0 };
    let lax: Prepare = |local| local.flags = 0;
    let paired: Prepare = |local| local.pair_ports = [Be16::new(3478), Be16::new(443)];
    let request = |from: usize, to: usize, size| udp_frame(STRANGERS[from], RELAYS[to], &padded(size));
    vec![
        (Reason::RateGlobal, tight, changed(BACK, |_| {})),
        (Reason::RateGlobal, heavy, changed(BACK, |_| {})),
        (Reason::RateMember, tight, changed(DRAINED, |_| {})),
        (Reason::StunFlood, deaf, udp_frame(STRANGERS[0], RELAY, &stun(1, &[]))),
        (Reason::StunPassed, deaf, udp_frame(SENDER, RELAY, &stun(1, &[]))),
        (Reason::StunFlood, deaf, udp_frame(SPENT, RELAY, &stun(1, &[]))),
        (Reason::Mixed, lax, changed(BACK_V6, |_| {})),
        (Reason::Mixed, lax, changed(BACK_TAGGED, |_| {})),
        (Reason::Mixed, lax, set(BACK_V6, 40, &[0, 0])),
        (Reason::NoFlow, lax, set(BACK, 26, &[198, 51, 100, 9])),
        (Reason::NotData, lax, udp_frame(SPENT, RELAY, &[1; 148])),
        (Reason::StunAnswered, paired, request(0, 0, 36)),
        (Reason::StunAnswered, paired, request(0, 1, 36)),
        (Reason::StunPassed, paired, request(0, 0, 32)),
        (Reason::StunAnswered, paired, request(1, 2, 72)),
        (Reason::StunAnswered, paired, request(1, 3, 72)),
        (Reason::StunPassed, paired, request(1, 3, 68)),
    ]
}

#[test]
fn every_reason_has_a_frame_with_the_same_verdict_bytes_and_counters() {
    let mut pair = Pair::new();
    let nothing: Prepare = |_| {};
    let mut seen = BTreeSet::new();
    let plain = fixtures().into_iter().map(|(reason, frame)| (reason, nothing, frame));
    for (reason, prepare, frame) in plain.chain(special()) {
        pair.reset();
        pair.change_local(prepare);
        let mut wanted = pair.reasons();
        let outcome = pair.agree(&frame);
        assert_eq!(outcome.reason, reason, "the model itself, for {frame:02x?}");
        count(&mut wanted, &outcome, frame.len());
        assert_eq!(pair.reasons(), wanted, "counters after {reason:?}");
        pair.agree_on_members();
        seen.insert(reason);
    }
    no_headroom(&mut pair);
    // `Broken` is there to be counted should the impossible happen.
    seen.extend([Reason::NoHeadroom, Reason::Broken]);
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !seen.contains(reason)).collect();
    assert!(missing.is_empty(), "no frame for {missing:?}");
    assert_eq!(pair.model.run(&[0; 13]).reason, Reason::ShortFrame);
}

/// A test run gives 256 bytes before the frame; metadata takes most of them away. Before Linux 6.9 it cannot: metadata has
/// 32 bytes at most there.
fn no_headroom(pair: &mut Pair) {
    if kernel_release() < (6, 9) {
        println!("frames without headroom are not tried on this kernel");
        return;
    }
    pair.reset();
    for (index, larger) in [(BACK_V6, true), (BACK_TAGGED, true), (BACK, false)] {
        let frame = changed(index, |_| {});
        let before = pair.reasons();
        let (action, bytes) = pair.kernel_behind(216, &frame);
        let count = pair.reasons()[&Reason::NoHeadroom][0] - before[&Reason::NoHeadroom][0];
        let fits = pair.kernel_behind(160, &frame).0;
        if larger {
            assert_eq!((action, count), (lanrage_tests::model::PASS, 1), "index {index}");
            assert_eq!(bytes, frame, "a frame without room was changed");
        } else {
            assert_eq!(count, 0);
        }
        assert_eq!(fits, lanrage_tests::model::TX, "index {index} with enough room");
    }
    // the model's counters do not know of these
    let (model, program) = (&mut pair.model, &pair.program);
    model.counters[MEMBER as usize] = program.member(MEMBER);
}

fn kernel_release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
