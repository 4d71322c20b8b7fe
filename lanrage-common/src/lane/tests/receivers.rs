//! Who gets copies of what this device says.

use super::*;

#[test]
fn streams_go_to_members_that_joined_and_searches_to_everybody() {
    let (mut lane, mut now) = (lane_of(ME), Instant::now());
    let (joined, none) = ([IpAddr::V4(MINECRAFT)].into(), BTreeSet::new());
    let mut number = 0u32;
    let mut to = |lane: &mut Lane, group: Ipv4Addr, now| {
        number += 1;
        let packet = Packet { payload: number.to_be_bytes().to_vec(), ..Packet::to(group) };
        match lane.handle_outbound(&packet.build(), now) {
            Outbound::Copies => Ok(copies(lane).into_iter().map(|(member, _)| member).collect::<Vec<_>>()),
            other => Err(other),
        }
    };
    lane.set_joined([(ANA, &joined), (BEN, &none)]);
    let mut count = |lane: &mut Lane, group, now| {
        let all: Vec<_> = (0..30).map(|_| to(lane, group, now)).collect();
        [Ok(vec![ANA, BEN]), Ok(vec![ANA]), Err(Outbound::Drop(LaneReason::NotJoined))]
            .map(|wanted| all.iter().filter(|got| **got == wanted).count())
    };
    assert_eq!(count(&mut lane, MINECRAFT, now), [20, 10, 0]);
    assert_eq!(lane.status().spared, 10);
    now += Duration::from_secs(1);
    assert_eq!(count(&mut lane, MINECRAFT, now), [1, 29, 0], "one a second is a search again");
    assert_eq!(count(&mut lane, Ipv4Addr::new(239, 1, 1, 1), now), [20, 0, 10]);
    // everybody is not a group, and mDNS, were it carried, is not announced
    for everybody in [LIMITED, DIRECTED, HOME, Ipv4Addr::new(224, 0, 0, 99)] {
        now += Duration::from_secs(1);
        assert_eq!(count(&mut lane, everybody, now), [30, 0, 0]);
    }
    // who says nothing more gets everything, and so does who joins
    lane.set_joined([(ANA, &joined)]);
    now += Duration::from_secs(1);
    assert_eq!(count(&mut lane, MINECRAFT, now), [30, 0, 0]);
    lane.set_joined([(ANA, &joined), (BEN, &joined)]);
    now += Duration::from_secs(1);
    assert_eq!(count(&mut lane, MINECRAFT, now), [30, 0, 0]);
}

#[test]
fn fifteen_members_get_every_announcement_exactly_once() {
    const ANNOUNCEMENTS: u16 = 2_000;
    let address = |n| Ipv4Addr::new(10, 66, 0, n);
    let members: Vec<_> = (1..=16).map(address).collect();
    let lane = |me| {
        let mut lane = Lane::new(me, "10.66.0.0/16".parse().unwrap());
        lane.set_members(members.iter().copied());
        lane
    };
    let (mut sender, now) = (lane(ME), Instant::now());
    let mut there: BTreeMap<_, _> =
        members.iter().filter(|member| **member != ME).map(|member| (*member, (lane(*member), 0))).collect();
    for number in 0..ANNOUNCEMENTS {
        let packet = Packet { id: number + 1, payload: number.to_be_bytes().to_vec(), ..Packet::to(LIMITED) };
        let packet = packet.port(7000 + number % 20).build();
        assert_eq!(sender.handle_outbound(&packet, now), Outbound::Copies);
        for (member, copy) in copies(&mut sender) {
            let (lane, heard) = there.get_mut(&member).expect("a member, and not the sender");
            assert_eq!(lane.handle_inbound(&copy, ME, now), Inbound::Deliver(&packet));
            *heard += 1;
        }
    }
    assert!(there.len() == 15 && there.values().all(|(_, heard)| *heard == ANNOUNCEMENTS));
    assert_eq!(sender.status().copied, 15 * u64::from(ANNOUNCEMENTS));
}

#[test]
fn who_comes_late_gets_the_very_same_packet_once_more() {
    let (mut lane, packet) = (lane_of(ME), Packet::to(LIMITED));
    let first = send(&mut lane, &packet);
    let inner = lane.carried().to_vec();
    let (member, copy) = &first[1];
    let again = lane.repeat(&inner, *member).unwrap().to_vec();
    assert_eq!((&again[..4], &again[OVERHEAD..]), (&copy[..4], &copy[OVERHEAD..]));
    assert!(lane.poll_copy().is_none(), "nobody else gets it");
    let mut there = lane_of(*member);
    let now = Instant::now();
    assert_eq!(there.handle_inbound(&again, ME, now), Inbound::Deliver(&inner));
    assert_eq!(there.handle_inbound(copy, ME, now), Inbound::Drop(LaneReason::Duplicate));
    assert_eq!((lane.status().copied, lane.status().replayed), (2, 1));
    // only what this device has said to everybody, and only to members
    assert!(lane.repeat(&packet.build(), Ipv4Addr::new(10, 66, 7, 7)).is_none());
    for foreign in [Packet { from: ANA, ..Packet::to(LIMITED) }, Packet { from: ME, ..Packet::to(ANA) }] {
        assert!(lane.repeat(&foreign.build(), ANA).is_none());
    }
}

#[test]
fn alone_or_oversized_nothing_is_sent() {
    let mut lane = Lane::new(ME, subnet());
    let packet = Packet::to(LIMITED).build();
    assert_eq!(lane.handle_outbound(&packet, Instant::now()), Outbound::Drop(LaneReason::NoMembers));
    assert_eq!(lane.carried(), packet, "shown, for who comes");
    assert!(copies(&mut lane).is_empty());
    let dhcp = Packet { port: 67, ..Packet::to(LIMITED) }.build();
    assert!(matches!(lane.handle_outbound(&dhcp, Instant::now()), Outbound::Drop(LaneReason::Dhcp)));
    assert!(lane.carried().is_empty());
    let large = Packet { payload: vec![0; 65_500 - 28], ..Packet::to(LIMITED) }.build();
    assert!(matches!(lane_of(ME).handle_outbound(&large, Instant::now()), Outbound::Copies));
    let larger = Packet { payload: vec![0; 65_535 - 28], ..Packet::to(LIMITED) }.build();
    assert_eq!(lane_of(ME).handle_outbound(&larger, Instant::now()), Outbound::Drop(LaneReason::Oversize));
}

#[test]
fn a_member_list_that_would_loop_is_cleaned() {
    let mut lane = Lane::new(ME, subnet());
    let network = Ipv4Addr::new(10, 66, 0, 0);
    lane.set_members([ME, ANA, ANA, LIMITED, DIRECTED, MINECRAFT, network, Ipv4Addr::new(8, 8, 8, 8)]);
    assert_eq!(lane.members(), [ANA]);
}
