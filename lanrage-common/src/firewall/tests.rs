use super::*;
use crate::lane::{Lane, Outbound};
use proptest::prelude::*;

const ME: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 3);

/// A lane, of which the firewall knows what a group is.
fn lane(own: Ipv4Addr, other: Ipv4Addr) -> Lane {
    let mut lane = Lane::new(own, "10.66.0.0/16".parse().unwrap());
    lane.set_members([other]);
    lane
}

fn firewall() -> Firewall {
    Firewall::new(*lane(ME, ANA).local(), Policy::default())
}

fn packet(protocol: u8, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    bytes.extend(from.0.octets());
    bytes.extend(to.0.octets());
    bytes.extend(from.1.to_be_bytes());
    bytes.extend(to.1.to_be_bytes());
    bytes.extend(if protocol == PROTOCOL_UDP { vec![0, 8, 0, 0] } else { vec![0; 16] });
    if protocol == PROTOCOL_TCP {
        bytes[IPV4 + 13] = flags;
    }
    let total = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes
}

const IPV4: usize = 20;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PROTOCOL_ICMP: u8 = 1;

fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    packet(PROTOCOL_UDP, from, to, 0)
}

fn syn(to: u16) -> Vec<u8> {
    packet(PROTOCOL_TCP, (ANA, 50_000), (ME, to), SYN)
}

/// As the member's lane sends it.
fn wrapped(inner: &[u8], now: Instant) -> Vec<u8> {
    let mut lane = lane(ANA, ME);
    assert_eq!(lane.handle_outbound(inner, now), Outbound::Copies);
    lane.poll_copy().unwrap().1.to_vec()
}

/// What becomes of it when this is who listens.
fn decide(firewall: &mut Firewall, packet: &[u8], owner: Owner, now: Instant) -> Verdict {
    match firewall.handle_inbound(packet, ANA, now) {
        Verdict::Ask(question) => firewall.handle_owner(question, owner, now),
        verdict => verdict,
    }
}

#[test]
fn who_listens_decides() {
    let now = Instant::now();
    for (owner, verdict) in [
        (Owner::Person, Verdict::Pass),
        (Owner::Player, Verdict::Pass),
        (Owner::Unknown, Verdict::Pass),
        (Owner::System, Verdict::Refuse),
        (Owner::Nobody, Verdict::Refuse),
    ] {
        for packet in [udp((ANA, 5000), (ME, 27015)), syn(25565)] {
            let mut firewall = firewall();
            assert!(matches!(firewall.handle_inbound(&packet, ANA, now), Verdict::Ask(_)));
            assert_eq!(decide(&mut firewall, &packet, owner, now), verdict, "{owner:?}");
            assert_eq!(firewall.handle_inbound(&packet, ANA, now), verdict, "not asked again at once");
        }
    }
}

#[test]
fn somebody_looks_again() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let packet = syn(25565);
    assert_eq!(decide(&mut firewall, &packet, Owner::Nobody, now), Verdict::Refuse);
    let later = now + CLOSED;
    assert_eq!(decide(&mut firewall, &packet, Owner::Person, later), Verdict::Pass, "the server has started");
    let service = syn(25566);
    assert_eq!(decide(&mut firewall, &service, Owner::System, now), Verdict::Refuse);
    assert_eq!(decide(&mut firewall, &service, Owner::Person, later), Verdict::Refuse, "not asked yet");
    assert_eq!(decide(&mut firewall, &service, Owner::Person, now + CLOSED_SYSTEM), Verdict::Pass);
    assert_eq!(decide(&mut firewall, &packet, Owner::System, later + OPEN), Verdict::Refuse, "and ended");
}

#[test]
fn services_are_closed_whoever_runs_them() {
    let (mut firewall, now) = (firewall(), Instant::now());
    for port in [22, 80, 445, 5900, 1023] {
        assert_eq!(firewall.handle_inbound(&syn(port), ANA, now), Verdict::Refuse, "{port}");
    }
    let ssh = Port { transport: Transport::Tcp, number: 22 };
    let refused: Vec<_> = firewall.refused().filter(|(_, port, _)| *port == ssh).collect();
    let [(member, _, Refused { packets: 1, why: Refusal::Service("ssh"), .. })] = refused[..] else {
        panic!("{refused:?}")
    };
    assert_eq!(member, ANA);
    assert_eq!(firewall.counts(), &[("service", 5)].into());
}

#[test]
fn ports_of_a_game_are_open_while_it_runs_and_services_are_not() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let join = udp((ANA, 5000), (ME, 2342));
    assert_eq!(decide(&mut firewall, &join, Owner::System, now), Verdict::Refuse);
    firewall.set_games(["udp/2340-2345", "tcp/22"].map(|ports| ports.parse().unwrap()));
    assert_eq!(firewall.refused().count(), 0, "what is open now is no news");
    assert_eq!(firewall.handle_inbound(&join, ANA, now), Verdict::Pass);
    assert_eq!(firewall.handle_inbound(&syn(22), ANA, now), Verdict::Refuse);
    firewall.set_games([]);
    assert_eq!(firewall.handle_inbound(&join, ANA, now), Verdict::Refuse);
}

#[test]
fn shared_mods_are_reached_whoever_shares_them() {
    let (mut firewall, now) = (firewall(), Instant::now());
    assert_eq!(firewall.handle_inbound(&syn(mods::PORT), ANA, now), Verdict::Pass);
    let denied = Word { ports: "tcp/41870".parse().unwrap(), choice: Choice::Deny };
    firewall.set_policy(Policy { mode: None, words: vec![denied] });
    assert_eq!(firewall.handle_inbound(&syn(mods::PORT), ANA, now), Verdict::Refuse);
}

#[test]
fn what_a_person_says_counts() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let say = |firewall: &mut Firewall, mode, words: &[(&str, Choice)]| {
        let words =
            words.iter().map(|(ports, choice)| Word { ports: ports.parse().unwrap(), choice: *choice });
        firewall.set_policy(Policy { mode, words: words.collect() });
    };
    assert_eq!(firewall.handle_inbound(&syn(22), ANA, now), Verdict::Refuse);
    say(&mut firewall, None, &[("tcp/22", Choice::Allow), ("tcp/25565", Choice::Deny)]);
    assert_eq!(firewall.handle_inbound(&syn(22), ANA, now), Verdict::Pass);
    assert_eq!(firewall.refused().count(), 0, "what is open now is no news");
    assert_eq!(firewall.handle_inbound(&syn(25565), ANA, now), Verdict::Refuse);
    say(&mut firewall, Some(Mode::Open), &[("tcp/25565", Choice::Deny)]);
    assert_eq!(firewall.handle_inbound(&syn(25565), ANA, now), Verdict::Pass);
    assert_eq!(firewall.handle_inbound(&packet(132, (ANA, 1), (ME, 1), 0), ANA, now), Verdict::Pass);
}

#[test]
fn answers_come_in() {
    let (mut firewall, now) = (firewall(), Instant::now());
    firewall.handle_outbound(&udp((ME, 4001), (ANA, 27015)), now);
    let answer = udp((ANA, 27015), (ME, 4001));
    assert_eq!(firewall.handle_inbound(&answer, ANA, now), Verdict::Pass);
    assert!(matches!(firewall.handle_inbound(&udp((ANA, 27016), (ME, 4001)), ANA, now), Verdict::Ask(_)));
    assert!(matches!(firewall.handle_inbound(&answer, ANA, now + ANSWER), Verdict::Ask(_)));
    // TCP: whatever does not open a connection
    for flags in [ACK, SYN | ACK, 0x04, 0] {
        assert_eq!(
            firewall.handle_inbound(&packet(PROTOCOL_TCP, (ANA, 80), (ME, 22), flags), ANA, now),
            Verdict::Pass
        );
    }
}

#[test]
fn a_search_opens_its_port_for_answers() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let answer = udp((ANA, 27960), (ME, 4001));
    assert_eq!(decide(&mut firewall, &answer, Owner::System, now), Verdict::Refuse);
    firewall.handle_outbound(&udp((ME, 4001), (Ipv4Addr::BROADCAST, 27960)), now);
    assert_eq!(firewall.handle_inbound(&answer, ANA, now), Verdict::Pass);
    assert_eq!(firewall.players().collect::<Vec<_>>(), [4001]);
    assert!(matches!(firewall.handle_inbound(&answer, ANA, now + TAKES_PART), Verdict::Ask(_)));
    // what is no game's search
    for port in [1900, 5353, 137, 67] {
        firewall.handle_outbound(&udp((ME, 4002), (Ipv4Addr::BROADCAST, port)), now);
    }
    firewall.handle_outbound(&udp((ME, 1900), (Ipv4Addr::BROADCAST, 27960)), now);
    assert_eq!(firewall.players().collect::<Vec<_>>(), [4001]);
}

#[test]
fn a_search_that_the_kernel_has_wrapped_counts_too() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let mut own = lane(ME, ANA);
    assert_eq!(own.handle_outbound(&udp((ME, 4001), (Ipv4Addr::BROADCAST, 27960)), now), Outbound::Copies);
    firewall.handle_outbound(own.poll_copy().unwrap().1, now);
    assert_eq!(firewall.players().collect::<Vec<_>>(), [4001]);
}

#[test]
fn who_answers_a_search_takes_part() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let search = udp((ANA, 4001), (Ipv4Addr::BROADCAST, 27960));
    assert_eq!(firewall.handle_inbound(&wrapped(&search, now), ANA, now), Verdict::Pass);
    assert_eq!(firewall.players().count(), 0, "being asked makes no game");
    let join = syn(7777);
    assert_eq!(decide(&mut firewall, &join, Owner::System, now), Verdict::Refuse);
    firewall.handle_outbound(&udp((ME, 27960), (ANA, 4001)), now);
    assert_eq!(firewall.players().collect::<Vec<_>>(), [27960]);
    assert_eq!(decide(&mut firewall, &join, Owner::Player, now), Verdict::Pass, "looked at anew at once");
}

#[test]
fn nobody_opens_a_service_by_searching_for_it() {
    let (mut firewall, now) = (firewall(), Instant::now());
    for port in [111, 11_211] {
        let search = wrapped(&udp((ANA, 4001), (Ipv4Addr::BROADCAST, port)), now);
        assert_eq!(firewall.handle_inbound(&search, ANA, now), Verdict::Refuse, "it would answer");
    }
    assert_eq!(firewall.counts(), &[("service", 2)].into());
    firewall.handle_outbound(&udp((ME, 111), (ANA, 4001)), now);
    assert_eq!(firewall.players().count(), 0);
    assert_eq!(firewall.handle_inbound(&udp((ANA, 4002), (ME, 111)), ANA, now), Verdict::Refuse);
}

#[test]
fn discovery_that_the_lane_was_told_to_carry_is_no_closed_service() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let question = udp((ANA, 5353), (ME, 5353));
    assert_eq!(firewall.handle_inbound(&question, ANA, now), Verdict::Refuse);
    let mut own = lane(ME, ANA);
    own.set_allowed([lane::Service::Mdns]);
    firewall.set_local(*own.local());
    assert_eq!(decide(&mut firewall, &question, Owner::System, now), Verdict::Refuse);
    firewall.handle_outbound(&udp((ME, 5353), (Ipv4Addr::new(224, 0, 0, 251), 5353)), now);
    assert_eq!(firewall.handle_inbound(&question, ANA, now), Verdict::Pass, "it takes part");
    assert_eq!(firewall.handle_inbound(&udp((ANA, 5353), (ME, 1900)), ANA, now), Verdict::Refuse);
}

#[test]
fn a_search_on_the_home_network_counts_as_one_in_the_party() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let mut own = lane(ME, ANA);
    let home = Ipv4Addr::new(192, 168, 1, 255);
    own.set_local_broadcasts([home]);
    firewall.set_local(*own.local());
    firewall.handle_outbound(&udp((ME, 4001), (home, 27960)), now);
    assert_eq!(firewall.players().collect::<Vec<_>>(), [4001]);
}

#[test]
fn ping_and_later_fragments_pass_and_other_protocols_do_not() {
    let (mut firewall, now) = (firewall(), Instant::now());
    assert_eq!(
        firewall.handle_inbound(&packet(PROTOCOL_ICMP, (ANA, 8 << 8), (ME, 0), 0), ANA, now),
        Verdict::Pass
    );
    let redirect = packet(PROTOCOL_ICMP, (ANA, 5 << 8), (ME, 0), 0);
    assert_eq!(firewall.handle_inbound(&redirect, ANA, now), Verdict::Refuse);
    let mut fragment = udp((ANA, 1), (ME, 22));
    fragment[7] = 9;
    assert_eq!(firewall.handle_inbound(&fragment, ANA, now), Verdict::Pass);
    for (offset, verdict) in [(1, Verdict::Refuse), (2, Verdict::Pass)] {
        let mut fragment = syn(25565);
        fragment[7] = offset;
        assert_eq!(firewall.handle_inbound(&fragment, ANA, now), verdict, "flags at byte 13");
    }
    for protocol in [2, 4, 41, 47, 132] {
        assert_eq!(
            firewall.handle_inbound(&packet(protocol, (ANA, 1), (ME, 1), 0), ANA, now),
            Verdict::Refuse
        );
    }
    // flags in a second fragment: as scanners do
    let mut tiny = syn(22);
    tiny.truncate(IPV4 + 8);
    tiny[2..4].copy_from_slice(&28_u16.to_be_bytes());
    tiny[6] = 0x20;
    assert_eq!(firewall.handle_inbound(&tiny, ANA, now), Verdict::Refuse);
    assert_eq!(firewall.handle_inbound(&[], ANA, now), Verdict::Refuse);
    assert_eq!(firewall.counts(), &[("fragment", 1), ("malformed", 2), ("protocol", 6)].into());
}

#[test]
fn ipv6_in_the_wrapping_is_judged_as_ipv4_is() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let inner = |to: u16| {
        let ends = [ANA, ME].map(|end| lane::link_local(Be32::from_octets(end.octets())).words());
        let mut bytes = vec![0x60, 0, 0, 0, 0, 20, PROTOCOL_TCP, 64];
        bytes.extend(ends.iter().flatten().flat_map(|word| word.octets()));
        bytes.extend([50_000_u16, to].iter().flat_map(|port| port.to_be_bytes()));
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, SYN, 0, 0, 0, 0, 0, 0]);
        wrapped(&bytes, now)
    };
    assert_eq!(firewall.handle_inbound(&inner(22), ANA, now), Verdict::Refuse);
    assert_eq!(decide(&mut firewall, &inner(25565), Owner::Person, now), Verdict::Pass);
}

#[test]
fn scans_cost_little_and_leave_little() {
    let (mut firewall, now) = (firewall(), Instant::now());
    let mut asked = 0;
    for port in 1024..=u16::MAX {
        if let Verdict::Ask(question) = firewall.handle_inbound(&syn(port), ANA, now) {
            asked += 1;
            firewall.handle_owner(question, Owner::Nobody, now);
        }
    }
    assert!((1..=100).contains(&asked), "{asked}");
    assert_eq!(firewall.refused().count(), MAX_REFUSED_OF_ONE);
    let other = packet(PROTOCOL_TCP, (BEN, 50_000), (ME, 25565), SYN);
    let Verdict::Ask(question) = firewall.handle_inbound(&other, BEN, now) else {
        panic!("another's scan counts")
    };
    assert_eq!(firewall.handle_owner(question, Owner::System, now), Verdict::Refuse);
    assert!(firewall.refused().any(|(member, ..)| member == BEN), "and another's refusals are told");
    for member in 3..=u8::MAX {
        for port in 2000..2100 {
            let member = Ipv4Addr::new(10, 66, 0, member);
            firewall.handle_inbound(&packet(PROTOCOL_TCP, (member, 1), (ME, port), SYN), member, now);
        }
    }
    assert_eq!(firewall.refused().count(), MAX_REFUSED);
    for port in 1..=u16::MAX {
        firewall.handle_outbound(&udp((ME, port), (ANA, port)), now);
        firewall.handle_outbound(&udp((ME, port), (Ipv4Addr::BROADCAST, 27960)), now);
    }
    assert!(firewall.conversations.len() <= MAX_ANSWERS && firewall.players.len() <= MAX_PORTS);
    firewall.handle_timeout(now + TAKES_PART);
    assert_eq!(
        (firewall.refused().count(), firewall.players().count(), firewall.conversations.len()),
        (0, 0, 0)
    );
}

proptest! {
    #[test]
    fn any_packet_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..120), wrap in any::<bool>()) {
        let (mut firewall, now) = (firewall(), Instant::now());
        let mut bytes = bytes;
        if wrap {
            let mut outer = udp((ANA, lane::PORT), (ME, lane::PORT));
            outer.extend(&bytes);
            let (total, length) = (outer.len() as u16, outer.len() as u16 - 20);
            outer[2..4].copy_from_slice(&total.to_be_bytes());
            outer[24..26].copy_from_slice(&length.to_be_bytes());
            bytes = outer;
        }
        firewall.handle_outbound(&bytes, now);
        let _ = decide(&mut firewall, &bytes, Owner::System, now);
    }
}
