mod ipv6;
mod receivers;

use super::*;
use crate::api::LaneStatus;
use crate::wire;
use ipnet::Ipv4Net;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use std::time::Instant;

const ME: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 3);
const LIMITED: Ipv4Addr = Ipv4Addr::BROADCAST;
const DIRECTED: Ipv4Addr = Ipv4Addr::new(10, 66, 255, 255);
const MINECRAFT: Ipv4Addr = Ipv4Addr::new(224, 0, 2, 60);
const HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 255);

fn subnet() -> Ipv4Net {
    "10.66.0.0/16".parse().unwrap()
}

fn lane_of(address: Ipv4Addr) -> Lane {
    let mut lane = Lane::new(address, subnet());
    lane.set_members([ANA, ME, BEN]);
    lane.set_local_broadcasts([HOME]);
    lane
}

/// An IPv4 packet with right checksums.
#[derive(Clone)]
struct Packet {
    from: Ipv4Addr,
    to: Ipv4Addr,
    port: u16,
    id: u16,
    fragment: u16,
    protocol: u8,
    payload: Vec<u8>,
}

impl Packet {
    fn to(to: Ipv4Addr) -> Self {
        Self {
            from: ME,
            to,
            port: 6112,
            id: 9,
            fragment: 0,
            protocol: 17,
            payload: b"who is there?".to_vec(),
        }
    }

    fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    fn from(self, from: Ipv4Addr) -> Self {
        Self { from, ..self }
    }

    fn build(&self) -> Vec<u8> {
        let mut udp = [4001u16.to_be_bytes(), self.port.to_be_bytes()].concat();
        udp.extend_from_slice(&(8 + self.payload.len() as u16).to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(&self.payload);
        let sum = wire::udp_checksum(&self.from.octets(), &self.to.octets(), &udp);
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        self.with_body(if self.fragment & 0x1fff == 0 { &udp } else { &self.payload })
    }

    fn with_body(&self, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&(20 + body.len() as u16).to_be_bytes());
        packet.extend_from_slice(&self.id.to_be_bytes());
        packet.extend_from_slice(&self.fragment.to_be_bytes());
        packet.extend_from_slice(&[3, self.protocol, 0, 0]);
        packet.extend_from_slice(&self.from.octets());
        packet.extend_from_slice(&self.to.octets());
        let sum = wire::checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend_from_slice(body);
        packet
    }
}

fn copies(lane: &mut Lane) -> Vec<(Ipv4Addr, Vec<u8>)> {
    let mut copies = Vec::new();
    while let Some((member, copy)) = lane.poll_copy() {
        copies.push((member, copy.to_vec()));
    }
    copies
}

fn send(lane: &mut Lane, packet: &Packet) -> Vec<(Ipv4Addr, Vec<u8>)> {
    assert_eq!(lane.handle_outbound(&packet.build(), Instant::now()), Outbound::Copies);
    copies(lane)
}

fn header_is_right(packet: &[u8]) -> bool {
    wire::checksum(&packet[..usize::from(packet[0] & 0xf) * 4]) == 0
}

/// Recomputes the UDP checksum of a packet with a 20-byte header and compares.
fn udp_is_right(packet: &[u8]) -> bool {
    let address = |at: usize| -> [u8; 4] { packet[at..at + 4].try_into().unwrap() };
    let mut datagram = packet[20..].to_vec();
    let sum = u16::from_be_bytes([datagram[6], datagram[7]]);
    datagram[6..8].fill(0);
    sum == 0 || sum == wire::udp_checksum(&address(12), &address(16), &datagram)
}

/// What `sender`'s lane makes of a packet, as member ME receives it.
fn wrapped_by(sender: Ipv4Addr, packet: &Packet) -> Vec<u8> {
    let copies = send(&mut lane_of(sender), &packet.clone().from(sender));
    copies.into_iter().find(|(member, _)| *member == ME).unwrap().1
}

fn dropped(lane: &Lane, reason: LaneReason) -> u64 {
    lane.status().dropped.get(reason.name()).copied().unwrap_or_default()
}

#[test]
fn every_member_gets_one_copy_with_the_packet_unchanged() {
    for to in [LIMITED, DIRECTED, MINECRAFT] {
        let mut lane = lane_of(ME);
        let packet = Packet::to(to);
        let copies = send(&mut lane, &packet);
        assert_eq!(copies.iter().map(|(member, _)| *member).collect::<Vec<_>>(), [ANA, BEN]);
        for (member, copy) in copies {
            assert!(header_is_right(&copy) && udp_is_right(&copy), "{to}");
            assert_eq!((&copy[12..16], &copy[16..20]), (&ME.octets()[..], &member.octets()[..]));
            assert_eq!(copy[22..24], PORT.to_be_bytes());
            assert_eq!(copy[OVERHEAD..], packet.build());
        }
        assert_eq!((lane.status().seen, lane.status().copied), (1, 2));
    }
}

#[test]
fn unicast_ipv6_and_odd_bytes_pass() {
    let mut lane = lane_of(ME);
    let wrapped = wrapped_by(ANA, &Packet::to(LIMITED));
    let elsewhere = ipv6::v6("fe80::1", "2001:db8::7", 6112);
    for packet in [Packet::to(ANA).build(), elsewhere, vec![], vec![0x10; 60], wrapped] {
        assert_eq!(lane.handle_outbound(&packet, Instant::now()), Outbound::Pass);
    }
    assert_eq!(lane.status(), LaneStatus::default());
}

#[test]
fn a_foreign_source_becomes_the_overlay_address_with_right_checksums() {
    let nic = Ipv4Addr::new(192, 168, 1, 77);
    let packet = Packet::to(LIMITED).from(nic);
    let copy = &send(&mut lane_of(ME), &packet)[0].1[OVERHEAD..];
    assert_eq!(copy, Packet::to(LIMITED).build(), "as if the game had used the overlay address");

    let mut without_sum = packet.build();
    without_sum[26..28].fill(0);
    let mut lane = lane_of(ME);
    assert_eq!(lane.handle_outbound(&without_sum, Instant::now()), Outbound::Copies);
    assert_eq!(copies(&mut lane)[0].1[OVERHEAD + 26..OVERHEAD + 28], [0, 0], "none stays none");
}

#[test]
fn the_home_networks_broadcast_becomes_the_partys() {
    let packet = Packet::to(HOME).from(Ipv4Addr::new(192, 168, 1, 77));
    let copy = &send(&mut lane_of(ME), &packet)[0].1[OVERHEAD..];
    assert_eq!(copy, Packet::to(DIRECTED).build());
    let other = Packet::to(Ipv4Addr::new(192, 168, 2, 255)).build();
    assert_eq!(lane_of(ME).handle_outbound(&other, Instant::now()), Outbound::Pass);
}

#[test]
fn a_copy_is_delivered_as_it_was_sent() {
    for to in [LIMITED, DIRECTED, MINECRAFT] {
        let packet = Packet::to(to).from(ANA);
        let wrapped = wrapped_by(ANA, &packet);
        let mut lane = lane_of(ME);
        assert_eq!(lane.handle_inbound(&wrapped, ANA, Instant::now()), Inbound::Deliver(&packet.build()));
        assert_eq!(lane.status().delivered, 1);
    }
}

#[test]
fn a_kernel_lanes_zero_outer_checksum_is_accepted() {
    let mut wrapped = wrapped_by(ANA, &Packet::to(LIMITED));
    wrapped[26..28].fill(0);
    assert!(matches!(lane_of(ME).handle_inbound(&wrapped, ANA, Instant::now()), Inbound::Deliver(_)));
}

#[test]
fn ports_that_never_cross_do_not_in_either_direction() {
    use LaneReason::{Dhcp, Llmnr, Mdns, Nested, Netbios, Ssdp, Wsd};
    let table = [
        (67, Dhcp),
        (68, Dhcp),
        (137, Netbios),
        (138, Netbios),
        (5355, Llmnr),
        (3702, Wsd),
        (5353, Mdns),
        (1900, Ssdp),
        (PORT, Nested),
    ];
    for (port, reason) in table {
        let mut lane = lane_of(ME);
        let packet = Packet::to(LIMITED).port(port);
        assert_eq!(lane.handle_outbound(&packet.build(), Instant::now()), Outbound::Drop(reason));
        let hostile = wrap_by_hand(ANA, ME, &packet.from(ANA).build());
        assert_eq!(lane.handle_inbound(&hostile, ANA, Instant::now()), Inbound::Drop(reason));
        assert_eq!(dropped(&lane, reason), 2);
    }
}

#[test]
fn a_profile_may_allow_discovery_but_never_dhcp_or_names() {
    let mut lane = lane_of(ME);
    lane.set_allowed([Service::Mdns, Service::Ssdp, Service::Wsd]);
    for port in [5353, 1900, 3702] {
        send(&mut lane, &Packet::to(LIMITED).port(port));
    }
    for port in [67, 137, 5355] {
        let packet = Packet::to(LIMITED).port(port).build();
        assert!(matches!(lane.handle_outbound(&packet, Instant::now()), Outbound::Drop(_)));
    }
}

#[test]
fn other_protocols_are_consumed() {
    let mut lane = lane_of(ME);
    for (protocol, reason) in [(2, LaneReason::Igmp), (6, LaneReason::NotUdp), (1, LaneReason::NotUdp)] {
        let packet = Packet { protocol, ..Packet::to(MINECRAFT) };
        assert_eq!(lane.handle_outbound(&packet.build(), Instant::now()), Outbound::Drop(reason));
        let hostile = wrap_by_hand(ANA, ME, &packet.from(ANA).build());
        assert_eq!(lane.handle_inbound(&hostile, ANA, Instant::now()), Inbound::Drop(reason));
    }
}

#[test]
fn fragments_are_carried_but_a_first_one_must_show_its_ports() {
    let mut lane = lane_of(ME);
    let first = Packet { fragment: 0x2000, payload: vec![1; 1400], ..Packet::to(LIMITED) };
    let later = Packet { fragment: 176, payload: vec![2; 200], ..Packet::to(LIMITED) };
    for packet in [&first, &later] {
        let copy = send(&mut lane, &packet.clone().from(Ipv4Addr::new(192, 168, 1, 77)))[0].1.clone();
        assert!(header_is_right(&copy[OVERHEAD..]));
        let wrapped = wrapped_by(ANA, packet);
        assert!(matches!(lane.handle_inbound(&wrapped, ANA, Instant::now()), Inbound::Deliver(_)));
    }
    assert_eq!(
        &send(&mut lane, &later)[0].1[OVERHEAD + 20..],
        &[2; 200],
        "no checksum is written into its payload"
    );
    let tiny = Packet { fragment: 0x2000, ..Packet::to(LIMITED) }.with_body(&[0; 7]);
    assert_eq!(lane.handle_outbound(&tiny, Instant::now()), Outbound::Drop(LaneReason::Malformed));
    let death = Packet { fragment: 0x1fff, payload: vec![0; 200], ..Packet::to(LIMITED) }.build();
    assert_eq!(lane.handle_outbound(&death, Instant::now()), Outbound::Drop(LaneReason::Malformed));
}

/// What a hostile member could send: any bytes, wrapped.
fn wrap_by_hand(from: Ipv4Addr, to: Ipv4Addr, inner: &[u8]) -> Vec<u8> {
    Packet { from, to, port: PORT, payload: inner.to_vec(), ..Packet::to(to) }.build()
}

#[test]
fn a_hostile_member_gets_nothing_else_delivered() {
    let good = Packet::to(LIMITED).from(ANA).build();
    let spoofed_inner = wrap_by_hand(ANA, ME, &Packet::to(LIMITED).from(BEN).build());
    let spoofed_outer = wrap_by_hand(BEN, ME, &good);
    let unicast = wrap_by_hand(ANA, ME, &Packet::to(ME).from(ANA).build());
    let nested = wrap_by_hand(ANA, ME, &wrap_by_hand(ANA, LIMITED, &good));
    let long = wrap_by_hand(ANA, ME, &[&good[..], &[0]].concat());
    let short = wrap_by_hand(ANA, ME, &good[..good.len() - 1]);
    let empty = wrap_by_hand(ANA, ME, &[]);
    let fragment = Packet { fragment: 0x2000, port: PORT, ..Packet::to(ME).from(ANA) }.build();
    let table = [
        (spoofed_inner, LaneReason::Spoofed),
        (spoofed_outer, LaneReason::Spoofed),
        (unicast, LaneReason::NotGroup),
        (nested, LaneReason::Nested),
        (long, LaneReason::Malformed),
        (short, LaneReason::Malformed),
        (empty, LaneReason::Malformed),
        (fragment, LaneReason::BadWrapping),
        (good.clone(), LaneReason::Unwrapped),
    ];
    for (packet, reason) in table {
        let mut lane = lane_of(ME);
        assert_eq!(lane.handle_inbound(&packet, ANA, Instant::now()), Inbound::Drop(reason));
        assert_eq!((dropped(&lane, reason), lane.status().delivered), (1, 0));
    }
}

#[test]
fn ordinary_traffic_passes_inbound() {
    let mut lane = lane_of(ME);
    let to_another = wrap_by_hand(ANA, BEN, b"x");
    for packet in [Packet::to(ME).from(ANA).build(), to_another, vec![0x60; 50], vec![1, 2, 3]] {
        assert_eq!(lane.handle_inbound(&packet, ANA, Instant::now()), Inbound::Pass);
    }
}

#[test]
fn floods_are_cut_per_source_and_port_in_both_directions() {
    let (mut lane, now) = (lane_of(ME), Instant::now());
    let numbered = |n: u16| Packet { payload: n.to_be_bytes().to_vec(), ..Packet::to(LIMITED) }.build();
    let copied = (0..300).filter(|n| lane.handle_outbound(&numbered(*n), now) == Outbound::Copies).count();
    assert_eq!((copied, dropped(&lane, LaneReason::RateLimited)), (200, 100));
    assert_eq!(lane.handle_outbound(&Packet::to(LIMITED).port(7).build(), now), Outbound::Copies);

    let delivered = |lane: &mut Lane, sender: Ipv4Addr| {
        let packet =
            |id| wrap_by_hand(sender, ME, &Packet { id, ..Packet::to(LIMITED).from(sender) }.build());
        (1..300)
            .filter(|id| matches!(lane.handle_inbound(&packet(*id), sender, now), Inbound::Deliver(_)))
            .count()
    };
    assert_eq!((delivered(&mut lane, ANA), delivered(&mut lane, BEN)), (200, 200));
}

/// A game on Ana's machine asks; on hers and on mine a program repeats what it hears, into the party and out of it. Each
/// sends from a port of its own.
#[test]
fn what_programs_repeat_between_networks_does_not_go_round() {
    let (mut ana, mut me, mut now) = (lane_of(ANA), lane_of(ME), Instant::now());
    let asked = |from, id| Packet { id, ..Packet::to(LIMITED).from(from) }.build();
    let mut crossed = 0;
    let mut waiting = std::collections::VecDeque::from([(true, asked(ANA, 1))]);
    for id in 2..20 {
        let Some((by_ana, packet)) = waiting.pop_front() else { break };
        now += Duration::from_millis(3);
        let (from, to, sender) = if by_ana { (&mut ana, &mut me, ANA) } else { (&mut me, &mut ana, ME) };
        if from.handle_outbound(&packet, now) != Outbound::Copies {
            continue;
        }
        crossed += 1;
        let (_, copy) = copies(from).into_iter().find(|(member, _)| [ANA, ME].contains(member)).unwrap();
        assert!(matches!(to.handle_inbound(&copy, sender, now), Inbound::Deliver(_)));
        // back into the party where it came out, and at the other end of a network that both are on
        waiting.extend([(!by_ana, asked(LIMITED, id)), (by_ana, asked(LIMITED, id + 100))]);
    }
    assert!((1..=3).contains(&crossed) && waiting.is_empty(), "{crossed} crossed");
    assert!(dropped(&ana, LaneReason::Looped) + dropped(&me, LaneReason::Looped) >= 2);
    let again = asked(ANA, 500);
    assert_eq!(ana.handle_outbound(&again, now + Duration::from_secs(1)), Outbound::Copies, "a second later");
}

#[test]
fn exact_copies_are_dropped_for_a_second_but_repeated_probes_pass() {
    let (mut lane, now) = (lane_of(ME), Instant::now());
    let packet = |id| wrapped_by(ANA, &Packet { id, ..Packet::to(LIMITED) });
    let mut verdict = |packet: &[u8], after_ms| match lane.handle_inbound(
        packet,
        ANA,
        now + Duration::from_millis(after_ms),
    ) {
        Inbound::Deliver(_) => None,
        Inbound::Drop(reason) => Some(reason),
        Inbound::Pass => panic!("of the lane"),
    };
    assert_eq!(verdict(&packet(5), 0), None);
    assert_eq!(verdict(&packet(5), 900), Some(LaneReason::Duplicate), "the same packet twice");
    assert_eq!(verdict(&packet(6), 900), None, "the same probe sent again");
    assert_eq!(verdict(&packet(5), 1100), None, "a second later");
    assert_eq!(
        (verdict(&packet(0), 1200), verdict(&packet(0), 1200)),
        (None, None),
        "atomic: cannot be told apart"
    );
}

#[test]
fn copies_left_behind_do_not_leak_into_the_next_packet() {
    let mut lane = lane_of(ME);
    assert_eq!(lane.handle_outbound(&Packet::to(LIMITED).build(), Instant::now()), Outbound::Copies);
    assert!(lane.poll_copy().is_some());
    assert_eq!(lane.handle_outbound(&Packet::to(ANA).build(), Instant::now()), Outbound::Pass);
    assert_eq!(lane.poll_copy(), None);
}

fn group() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![Just(LIMITED), Just(DIRECTED), Just(MINECRAFT), Just(HOME)]
}

proptest! {
    #[test]
    fn whatever_is_sent_arrives_the_same_with_right_checksums(
        to in group(), from in any::<[u8; 4]>(), port in any::<u16>(), id in any::<u16>(),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let packet = Packet { to, from: from.into(), port, id, payload, ..Packet::to(to) };
        let mut sender = lane_of(ANA);
        if sender.handle_outbound(&packet.build(), Instant::now()) == Outbound::Copies {
            let (_, wrapped) = copies(&mut sender).into_iter().find(|(member, _)| *member == ME).unwrap();
            prop_assert!(header_is_right(&wrapped) && udp_is_right(&wrapped));
            let to = if to == HOME { DIRECTED } else { to };
            let expected = Packet { from: ANA, to, ..packet }.build();
            prop_assert_eq!(lane_of(ME).handle_inbound(&wrapped, ANA, Instant::now()), Inbound::Deliver(&expected));
        }
    }

    /// Arbitrary bytes shaped ever more like group packets: nothing panics, nothing wrapped is wrapped or unwrapped twice.
    #[test]
    fn arbitrary_packets_are_survived(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..120), to in group(), shape in 0u8..4,
    ) {
        if shape > 0 && bytes.len() >= 28 {
            let len = bytes.len() as u16;
            bytes[0] = 0x45 + (bytes[0] & 1);
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[9] = 17;
            bytes[16..20].copy_from_slice(&to.octets());
        }
        if shape > 1 && bytes.len() >= 28 {
            bytes[12..16].copy_from_slice(&ANA.octets());
            bytes[6..8].fill(0);
        }
        let mut lane = lane_of(ME);
        if lane.handle_outbound(&bytes, Instant::now()) == Outbound::Copies {
            for (_, copy) in copies(&mut lane) {
                prop_assert!(header_is_right(&copy) && udp_is_right(&copy));
                let inner = &copy[OVERHEAD..];
                let at = usize::from(inner[0] & 0xf) * 4;
                let is_first = inner[6] & 0x1f == 0 && inner[7] == 0;
                prop_assert!(!is_first || inner[at + 2..at + 4] != PORT.to_be_bytes());
            }
        }
        if shape > 2 {
            bytes = wrap_by_hand(ANA, ME, &bytes);
        }
        if let Inbound::Deliver(inner) = lane_of(ME).handle_inbound(&bytes, ANA, Instant::now()) {
            prop_assert!(matches!(lane_of(ME).handle_inbound(inner, ANA, Instant::now()), Inbound::Drop(_)));
            prop_assert_eq!(&inner[12..16], &ANA.octets());
        }
    }
}

#[test]
fn what_devices_say_does_not_go_round_either() {
    let (device, elsewhere) = (Ipv4Addr::new(10, 66, 0, 9), Ipv4Addr::new(192, 168, 1, 50));
    let (mut lane, now) = (lane_of(ME), Instant::now());
    let search = Packet::to(LIMITED).from(elsewhere).build();
    // a bridge at home brings it back again and again
    let outcomes =
        [0, 1, 2, 400].map(|ms| lane.handle_device(&search, device, now + Duration::from_millis(ms)));
    let looped = Outbound::Drop(LaneReason::Looped);
    assert_eq!(outcomes, [Outbound::Copies, Outbound::Copies, looped, looped]);
    let later = now + Duration::from_secs(1);
    assert_eq!(lane.handle_device(&search, device, later), Outbound::Copies, "games repeat themselves");
    // what a member has repeated is not sent again
    let repeated = wrapped_by(ANA, &Packet::to(LIMITED));
    assert!(matches!(lane.handle_inbound(&repeated, ANA, later), Inbound::Deliver(_)));
    assert_eq!(lane.handle_device(&search, device, later), looped);
}
