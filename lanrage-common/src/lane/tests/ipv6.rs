//! IPv6 in the same wrapping.

use super::*;

/// The link-local address of a member.
fn v6_of(member: Ipv4Addr) -> String {
    std::net::IpAddr::from(link_local(wire::Be32::from_octets(member.octets()))).to_string()
}

/// An IPv6 packet with a UDP datagram and right checksum.
pub(super) fn v6(from: &str, to: &str, port: u16) -> Vec<u8> {
    let [from, to]: [Ipv6Addr; 2] = [from, to].map(|address| address.parse().unwrap());
    let mut udp = [4001u16.to_be_bytes(), port.to_be_bytes(), 21u16.to_be_bytes(), [0, 0]].concat();
    udp.extend_from_slice(b"who is there?");
    let sum = wire::udp_checksum(&from.octets(), &to.octets(), &udp);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    v6_with(from, to, 17, &udp)
}

fn v6_with(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x80, 0, 7];
    packet.extend_from_slice(&(body.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[protocol, 1]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    packet.extend_from_slice(body);
    packet
}

#[test]
fn ipv6_groups_cross_with_the_members_own_source() {
    assert_eq!(v6_of(ME), "fe80::5efe:a42:2");
    let (mut lane, now) = (lane_of(ANA), Instant::now());
    assert_eq!(lane.handle_outbound(&v6("fe80::1234", "ff02::113", 6112), now), Outbound::Copies);
    let (member, copy) = copies(&mut lane).into_iter().next().unwrap();
    assert_eq!((member, copy[1], header_is_right(&copy)), (ME, 0xb8, true), "the traffic class is kept");
    let expected = v6(&v6_of(ANA), "ff02::113", 6112);
    assert_eq!(copy[OVERHEAD..], expected, "as if sent from the overlay, checksum included");
    assert_eq!(lane_of(ME).handle_inbound(&copy, ANA, now), Inbound::Deliver(&expected));
}

#[test]
fn ipv6_between_members_is_wrapped_for_one() {
    let (mut lane, now) = (lane_of(ANA), Instant::now());
    let tcp = v6_with(v6_of(ANA).parse().unwrap(), v6_of(ME).parse().unwrap(), 6, &[1; 40]);
    assert_eq!(lane.handle_outbound(&tcp, now), Outbound::Copies);
    let copies = copies(&mut lane);
    assert_eq!(copies.iter().map(|(member, _)| *member).collect::<Vec<_>>(), [ME]);
    assert_eq!(lane_of(ME).handle_inbound(&copies[0].1, ANA, now), Inbound::Deliver(&tcp));
    assert_eq!(lane_of(BEN).handle_inbound(&copies[0].1, ANA, now), Inbound::Pass, "not to this device");
    let stranger = v6(&v6_of(ANA), "fe80::5efe:a42:99", 1);
    assert_eq!(lane.handle_outbound(&stranger, now), Outbound::Drop(LaneReason::NoMembers));
    let foreign = v6("fe80::1", &v6_of(ME), 1);
    assert_eq!(lane.handle_outbound(&foreign, now), Outbound::Drop(LaneReason::Spoofed));
}

#[test]
fn ipv6_fragments_are_carried_and_what_is_no_game_is_not() {
    let (me, group): (Ipv6Addr, Ipv6Addr) = (v6_of(ME).parse().unwrap(), "ff02::113".parse().unwrap());
    let fragment = |place: u16, body: &[u8]| {
        let header = [&[17, 0][..], &place.to_be_bytes(), &[0, 0, 0, 9], body].concat();
        v6_with(me, group, 44, &header)
    };
    let first = [&[0x0f, 0xa1][..], &6112u16.to_be_bytes(), &[5, 0, 0, 0], &[1; 24]].concat();
    let (mut lane, now) = (lane_of(ME), Instant::now());
    for packet in [fragment(1, &first), fragment(5 << 3, &[2; 40])] {
        assert_eq!(lane.handle_outbound(&packet, now), Outbound::Copies);
        assert!(copies(&mut lane)[0].1[OVERHEAD..] == packet);
    }
    let table = [
        (v6_with(me, group, 0, &[58, 0, 5, 2, 0, 0, 1, 0]), LaneReason::Igmp),
        (v6_with(me, group, 58, &[135; 24]), LaneReason::NotUdp),
        (v6_with(me, group, 17, &[0; 7]), LaneReason::Malformed),
        (v6_with(me, group, 44, &[17; 7]), LaneReason::Malformed),
        (fragment(1, &[0; 7]), LaneReason::Malformed),
        (v6(&v6_of(ME), "ff02::fb", 5353), LaneReason::Mdns),
        (v6(&v6_of(ME), "ff02::1:2", 547), LaneReason::Dhcp),
    ];
    for (packet, reason) in table {
        assert_eq!(lane.handle_outbound(&packet, now), Outbound::Drop(reason));
    }
    let own = v6(&v6_of(ME), "ff01::1", 6112);
    assert_eq!(lane.handle_outbound(&own, now), Outbound::Pass, "never leaves a machine");
}

#[test]
fn ipv6_of_another_member_is_not_believed() {
    let wrap = |inner: &[u8]| wrap_by_hand(ANA, ME, inner);
    let table = [
        (wrap(&v6(&v6_of(BEN), "ff02::113", 6112)), LaneReason::Spoofed),
        (wrap(&v6("fe80::1", "ff02::113", 6112)), LaneReason::Spoofed),
        (wrap(&v6(&v6_of(ANA), &v6_of(BEN), 6112)), LaneReason::NotGroup),
        (wrap(&v6(&v6_of(ANA), "2001:db8::1", 6112)), LaneReason::NotGroup),
        (wrap(&v6(&v6_of(ANA), "ff02::113", PORT)), LaneReason::Nested),
    ];
    for (packet, reason) in table {
        assert_eq!(lane_of(ME).handle_inbound(&packet, ANA, Instant::now()), Inbound::Drop(reason));
    }
}

proptest! {
    #[test]
    fn arbitrary_ipv6_is_survived(
        body in proptest::collection::vec(any::<u8>(), 0..100), protocol in prop_oneof![Just(17u8), Just(44), any::<u8>()],
        to_group in any::<bool>(), cut in 0usize..3,
    ) {
        let to = if to_group { "ff02::113".to_owned() } else { v6_of(ME) };
        let mut packet = v6_with(v6_of(ANA).parse().unwrap(), to.parse().unwrap(), protocol, &body);
        packet.truncate(packet.len() - cut);
        let (mut sender, now) = (lane_of(ANA), Instant::now());
        if sender.handle_outbound(&packet, now) == Outbound::Copies {
            prop_assert_eq!(cut, 0);
            let (_, copy) = copies(&mut sender).into_iter().find(|(member, _)| *member == ME).unwrap();
            prop_assert!(header_is_right(&copy));
            prop_assert_eq!(lane_of(ME).handle_inbound(&copy, ANA, now), Inbound::Deliver(&packet));
        }
        let _ = lane_of(ME).handle_inbound(&wrap_by_hand(ANA, ME, &packet), ANA, now);
    }
}
