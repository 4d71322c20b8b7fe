use super::*;
use crate::devices::MAX_DEVICES;
use crate::gateway::arp::{EVERYBODY, request};
use crate::gateway::group::ROUND;
use crate::gateway::guests::SPREAD;
use crate::gateway::translate::tests::{packet, udp};
use proptest::prelude::*;

const GATEWAY: Mac = [2; 6];
const CONSOLE: Mac = [4; 6];
const AT_HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 50);
const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const OVERLAY: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 9);
const PROTOCOL_UDP: u8 = 17;

fn lan() -> Lan {
    lan_of(GATEWAY, 2, ANA)
}

/// A gateway with that Ethernet address, the last byte of that at home, and that overlay address.
fn lan_of(mac: Mac, last: u8, me: Ipv4Addr) -> Lan {
    Lan::new(LanConfig {
        own: format!("192.168.1.{last}/24").parse().unwrap(),
        mac,
        me,
        range: None,
        subnet: "10.66.0.0/16".parse().unwrap(),
        mtu: 1420,
    })
}

fn drain(lan: &mut Lan) -> Vec<Output> {
    std::iter::from_fn(|| lan.poll_output()).collect()
}

fn run_until(lan: &mut Lan, end: Instant) -> Vec<Output> {
    let mut outputs = drain(lan);
    while let Some(due) = lan.poll_timeout().filter(|due| *due <= end) {
        lan.handle_timeout(due);
        outputs.extend(drain(lan));
    }
    outputs
}

/// A network where Ben has an alias.
fn ready() -> (Lan, Ipv4Addr, Instant) {
    let (mut lan, now) = (lan(), Instant::now());
    lan.set_members(&[BEN], now);
    let later = now + Duration::from_secs(10);
    run_until(&mut lan, later);
    let alias = lan.aliases().next().unwrap().1;
    assert!(lan.is_alias(alias));
    (lan, alias, later)
}

fn frame(sender: Mac, packet: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(EVERYBODY, sender, ETHERTYPE_IPV4);
    frame.extend_from_slice(packet);
    frame
}

fn search(to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    packet(PROTOCOL_UDP, AT_HOME, to, &udp([4001, 6112], payload))
}

/// The console has an address in the party.
fn with_console() -> (Lan, Ipv4Addr, Instant) {
    let (mut lan, alias, now) = ready();
    lan.handle_frame(&frame(CONSOLE, &search(Ipv4Addr::BROADCAST, b"first")), now);
    assert_eq!(drain(&mut lan), [Output::Lease(CONSOLE)]);
    lan.handle_lease(CONSOLE, Some(OVERLAY), now);
    assert_eq!(drain(&mut lan), [Output::Changed], "the members must hear of it first");
    let now = now + SPREAD;
    lan.handle_timeout(now);
    let first = search(Ipv4Addr::BROADCAST, b"first");
    assert_eq!(drain(&mut lan), [Output::Group(first, OVERLAY)], "it waited");
    (lan, alias, now)
}

#[test]
fn an_alias_is_asked_for_before_it_is_used() {
    let (mut lan, now) = (lan(), Instant::now());
    lan.set_members(&[BEN], now);
    let alias = Ipv4Addr::new(192, 168, 1, 254);
    let ask = || Output::Frame(super::super::arp::probe(GATEWAY, alias));
    let early = run_until(&mut lan, now + Duration::from_millis(2100));
    assert_eq!(early, [Output::Changed, ask(), ask(), ask()]);
    assert!(!lan.is_alias(alias));
    lan.handle_frame(&request(CONSOLE, AT_HOME, alias), now);
    assert_eq!(drain(&mut lan), [], "not answered for yet");
    let late = run_until(&mut lan, now + Duration::from_secs(5));
    assert_eq!(late, [Output::Frame(super::super::arp::announcement(GATEWAY, alias)), Output::Changed]);
    lan.handle_frame(&request(CONSOLE, AT_HOME, alias), now);
    assert!(matches!(&drain(&mut lan)[..], [Output::Frame(frame)] if frame[..6] == CONSOLE));
    lan.handle_frame(&request(CONSOLE, AT_HOME, Ipv4Addr::new(192, 168, 1, 77)), now);
    assert_eq!(drain(&mut lan), [], "other addresses are others'");
}

#[test]
fn an_address_that_somebody_has_is_given_up() {
    let (mut lan, alias, now) = ready();
    // another machine asks whether it is free: it is not
    lan.handle_frame(&request([5; 6], Ipv4Addr::UNSPECIFIED, alias), now);
    assert!(matches!(&drain(&mut lan)[..], [Output::Frame(_)]));
    assert!(lan.is_alias(alias));
    // one that does not ask has it
    lan.handle_frame(&request([5; 6], alias, AT_HOME), now);
    assert!(!lan.is_alias(alias));
    let conflict = *lan.conflicts().next().unwrap();
    assert_eq!((conflict.address, conflict.taken), (alias, Taken::By([5; 6])));
    run_until(&mut lan, now + Duration::from_secs(10));
    let (_, other, is_held) = lan.aliases().next().unwrap();
    assert!(is_held && other != alias);
    // the DHCP server gives that one away
    let mut answer = vec![2, 1, 6, 0];
    answer.resize(240, 0);
    answer[16..20].copy_from_slice(&other.octets());
    let given =
        packet(PROTOCOL_UDP, Ipv4Addr::new(192, 168, 1, 1), Ipv4Addr::BROADCAST, &udp([67, 68], &answer));
    lan.handle_frame(&frame([6; 6], &given), now + Duration::from_secs(10));
    assert_eq!(lan.conflicts().last().unwrap().taken, Taken::ByDhcp);
    assert!(lan.aliases().all(|(_, alias, _)| alias != other));
    let used: Vec<_> = drain(&mut lan).into_iter().filter(|it| matches!(it, Output::Group(..))).collect();
    assert_eq!(used, [], "and crosses to nobody");
}

#[test]
fn a_console_finds_a_member_and_plays() {
    let (mut lan, alias, now) = with_console();
    assert!(lan.has(OVERLAY));
    let broadcast = search(Ipv4Addr::new(192, 168, 1, 255), b"second");
    lan.handle_frame(&frame(CONSOLE, &broadcast), now);
    assert_eq!(drain(&mut lan), [Output::Group(broadcast, OVERLAY)]);
    // Ben answers, and it comes from his alias
    let answer = packet(PROTOCOL_UDP, BEN, OVERLAY, &udp([6112, 4001], b"here"));
    lan.handle_party(&answer);
    let expected = packet(PROTOCOL_UDP, alias, AT_HOME, &udp([6112, 4001], b"here"));
    let [Output::Frame(got)] = &drain(&mut lan)[..] else { panic!() };
    assert_eq!((&got[..6], &got[6..12], &got[14..]), (&CONSOLE[..], &GATEWAY[..], &expected[..]));
    // it joins
    lan.handle_unicast(&packet(PROTOCOL_UDP, AT_HOME, alias, &udp([4001, 6112], b"join")), now);
    let joined = packet(PROTOCOL_UDP, OVERLAY, BEN, &udp([4001, 6112], b"join"));
    assert_eq!(drain(&mut lan), [Output::Packet(joined)]);
    let device = lan.devices().next().unwrap();
    assert_eq!((device.mac, device.ip, device.overlay), (CONSOLE, AT_HOME, OVERLAY));
}

#[test]
fn a_device_that_was_forgotten_is_asked_for() {
    let (mut lan, alias, now) = ready();
    let join = packet(PROTOCOL_UDP, AT_HOME, alias, &udp([4001, 6112], b"join"));
    lan.handle_unicast(&join, now);
    lan.handle_unicast(&join, now);
    let own = Ipv4Addr::new(192, 168, 1, 2);
    assert_eq!(drain(&mut lan), [Output::Frame(request(GATEWAY, own, AT_HOME))], "once a second");
    let asked = Arp::parse(&request(GATEWAY, own, AT_HOME)).unwrap();
    lan.handle_frame(&reply(CONSOLE, AT_HOME, &asked), now);
    lan.handle_unicast(&join, now);
    assert_eq!(drain(&mut lan), [Output::Lease(CONSOLE)]);
}

#[test]
fn a_member_finds_a_console() {
    let (mut lan, alias, now) = with_console();
    let home = Ipv4Addr::new(192, 168, 1, 255);
    let group = Ipv4Addr::new(239, 10, 11, 12);
    for (number, (to, at_home, mac)) in [
        (Ipv4Addr::BROADCAST, Ipv4Addr::BROADCAST, EVERYBODY),
        (Ipv4Addr::new(10, 66, 255, 255), home, EVERYBODY),
        (group, group, [1, 0, 0x5e, 10, 11, 12]),
    ]
    .into_iter()
    .enumerate()
    {
        let search = |from, to| packet(PROTOCOL_UDP, from, to, &udp([27960, 27960], &[number as u8]));
        lan.handle_party_group(&search(BEN, to), now);
        let [Output::Frame(got)] = &drain(&mut lan)[..] else { panic!("{to}") };
        assert_eq!((&got[..6], &got[14..]), (&mac[..], &search(alias, at_home)[..]));
    }
    // nobody without an alias
    lan.handle_party_group(&packet(PROTOCOL_UDP, OVERLAY, group, &udp([1, 2], b"x")), now);
    assert_eq!((drain(&mut lan), lan.dropped()["no_alias"]), (vec![], 1));
}

#[test]
fn what_comes_round_ends() {
    let (mut lan, _, now) = with_console();
    // another gateway at home has put Ben's search there already, from an alias of its own
    let by_another =
        packet(PROTOCOL_UDP, Ipv4Addr::new(192, 168, 1, 130), Ipv4Addr::BROADCAST, &udp([5, 6], b"?"));
    let of_ben = packet(PROTOCOL_UDP, BEN, Ipv4Addr::BROADCAST, &udp([5, 6], b"?"));
    lan.handle_party_group(&of_ben, now);
    drain(&mut lan);
    lan.handle_frame(&frame([7; 6], &by_another), now);
    assert_eq!((drain(&mut lan), lan.dropped()["round"]), (vec![], 1));
    lan.handle_party_group(&of_ben, now);
    assert_eq!(drain(&mut lan).len(), 1, "repeated on the same side: games do that");
    // and the other way
    lan.handle_frame(&frame(CONSOLE, &search(Ipv4Addr::BROADCAST, b"third")), now);
    drain(&mut lan);
    lan.handle_party_group(
        &packet(PROTOCOL_UDP, BEN, Ipv4Addr::BROADCAST, &udp([4001, 6112], b"third")),
        now,
    );
    assert_eq!((drain(&mut lan), lan.dropped()["round"]), (vec![], 2));
    let later = now + ROUND;
    lan.handle_frame(&frame(CONSOLE, &of_ben_from(AT_HOME)), later);
    assert_eq!(drain(&mut lan).len(), 1, "a second later it is another one");
}

fn of_ben_from(from: Ipv4Addr) -> Vec<u8> {
    packet(PROTOCOL_UDP, from, Ipv4Addr::BROADCAST, &udp([5, 6], b"?"))
}

#[test]
fn members_at_home_are_no_devices_and_household_software_no_game() {
    let (mut lan, _, now) = ready();
    lan.set_members_at_home([(BEN, AT_HOME)]);
    let own = Ipv4Addr::new(192, 168, 1, 2);
    assert_eq!(drain(&mut lan), [Output::Frame(request(GATEWAY, own, AT_HOME))], "who is that?");
    lan.handle_frame(&frame(CONSOLE, &search(Ipv4Addr::BROADCAST, b"native")), now);
    lan.handle_party_group(&packet(PROTOCOL_UDP, BEN, Ipv4Addr::BROADCAST, &udp([1, 2], b"x")), now);
    assert_eq!(drain(&mut lan), []);
    lan.set_members_at_home([]);
    for port in [67, 137, 5355, 5353, 1900, 17_500, 10_666] {
        let junk = packet(PROTOCOL_UDP, AT_HOME, Ipv4Addr::BROADCAST, &udp([4001, port], b"x"));
        lan.handle_frame(&frame(CONSOLE, &junk), now);
    }
    let foreign = packet(PROTOCOL_UDP, Ipv4Addr::new(172, 16, 0, 1), Ipv4Addr::BROADCAST, &udp([1, 2], b"x"));
    lan.handle_frame(&frame(CONSOLE, &foreign), now);
    lan.handle_frame(&frame(GATEWAY, &search(Ipv4Addr::BROADCAST, b"own")), now);
    assert_eq!(drain(&mut lan), []);
}

#[test]
fn a_flood_of_devices_has_an_end() {
    let (mut lan, alias, now) = ready();
    for n in 0..1000u16 {
        let [a, b] = n.to_be_bytes();
        lan.handle_frame(&request([8, 0, 0, 0, a, b], Ipv4Addr::new(192, 168, 1, 3), alias), now);
        let packet = packet(PROTOCOL_UDP, AT_HOME, Ipv4Addr::BROADCAST, &udp([1, 2], &[a, b]));
        lan.handle_frame(&frame([9, 0, 0, 0, a, b], &packet), now);
    }
    assert_eq!(lan.guests.len(), MAX_DEVICES);
}

#[test]
fn a_silent_device_gives_its_address_back() {
    let (mut lan, _, now) = with_console();
    lan.handle_timeout(now + FORGET);
    assert_eq!(drain(&mut lan), [Output::Release(CONSOLE), Output::Changed]);
    assert!(!lan.has(OVERLAY));
}

#[test]
fn services_cross_when_they_are_asked_for() {
    let (mut lan, alias, now) = with_console();
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let query = |from| packet(PROTOCOL_UDP, from, group, &udp([5353, 5353], b"who has a game?"));
    lan.handle_frame(&frame(CONSOLE, &query(AT_HOME)), now);
    assert_eq!(drain(&mut lan), []);
    lan.set_services([Service::Mdns]);
    lan.handle_frame(&frame(CONSOLE, &query(AT_HOME)), now);
    assert_eq!(drain(&mut lan), [Output::Group(query(AT_HOME), OVERLAY)]);
    let later = now + ROUND;
    assert!(lan.handle_party_group(&query(BEN), later));
    assert!(matches!(&drain(&mut lan)[..], [Output::Frame(got)] if got[14..] == query(alias)));
    let search =
        packet(PROTOCOL_UDP, AT_HOME, Ipv4Addr::new(239, 255, 255, 250), &udp([4001, 1900], b"M-SEARCH"));
    lan.handle_frame(&frame(CONSOLE, &search), later);
    assert_eq!(drain(&mut lan), [], "the other service is not");
}

/// What one gateway puts on the wire.
fn hear(lan: &mut Lan, output: &Output, now: Instant) {
    if let Output::Frame(frame) = output {
        lan.handle_frame(frame, now);
    }
}

#[test]
fn of_two_gateways_one_serves() {
    const CLEO: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 3);
    const OTHER: Mac = [3; 6];
    let start = Instant::now();
    let (mut ana, mut cleo) = (lan(), lan_of(OTHER, 3, CLEO));
    let homes = [2, 3].map(|last| Ipv4Addr::new(192, 168, 1, last));
    let mut now = start;
    let search = |n: u8| packet(PROTOCOL_UDP, AT_HOME, Ipv4Addr::BROADCAST, &udp([4001, 6112], &[n]));
    let leased = |outputs: &[Output]| outputs.contains(&Output::Lease(CONSOLE));
    for lan in [&mut ana, &mut cleo] {
        lan.set_members(&[BEN], now);
    }
    ana.set_members_at_home([(CLEO, homes[1])]);
    cleo.set_members_at_home([(ANA, homes[0])]);
    // their kernels ask for each other
    ana.handle_frame(&request(OTHER, homes[1], homes[0]), now);
    cleo.handle_frame(&request(GATEWAY, homes[0], homes[1]), now);
    while now < start + Duration::from_secs(15) {
        ana.handle_timeout(now);
        drain(&mut ana).iter().for_each(|output| hear(&mut cleo, output, now));
        cleo.handle_timeout(now);
        drain(&mut cleo).iter().for_each(|output| hear(&mut ana, output, now));
        now += Duration::from_millis(500);
    }
    assert_eq!((ana.served_by(now), cleo.served_by(now)), (None, Some(ANA)));
    let of_ben = packet(PROTOCOL_UDP, BEN, Ipv4Addr::BROADCAST, &udp([5, 6], b"?"));
    assert!(ana.handle_party_group(&of_ben, now) && !cleo.handle_party_group(&of_ben, now));
    for lan in [&mut ana, &mut cleo] {
        drain(lan);
        lan.handle_frame(&frame(CONSOLE, &search(1)), now);
    }
    assert!(leased(&drain(&mut ana)) && drain(&mut cleo).is_empty());
    assert_eq!(cleo.dropped()["other_gateway"], 2);
    // it went away
    now += Duration::from_secs(35);
    cleo.handle_frame(&frame(CONSOLE, &search(2)), now);
    assert!(leased(&drain(&mut cleo)));
    // a member that is no gateway says nothing of the kind, whatever addresses it has
    cleo.handle_frame(&super::super::arp::announcement(GATEWAY, Ipv4Addr::new(192, 168, 1, 77)), now);
    assert_eq!(cleo.served_by(now), None);
}

proptest! {
    #[test]
    fn any_frame_is_survived(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..20)) {
        let (mut lan, _, now) = with_console();
        for mut bytes in frames {
            lan.handle_unicast(&bytes, now);
            lan.handle_party(&bytes);
            if bytes.len() > 13 {
                bytes[12..14].copy_from_slice(&[8, 0]);
            }
            lan.handle_frame(&bytes, now);
        }
        prop_assert!(drain(&mut lan).len() < 1000);
    }
}
