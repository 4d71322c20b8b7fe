//! What LANrage finds out about networks, and what it does about it. Needs root; port forwarding needs the package
//! miniupnpd-nftables.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "netcheck/lifetime.rs"]
mod lifetime;
#[path = "netcheck/miniupnpd.rs"]
mod miniupnpd;
mod support;

use lanrage_common::api::{MemberStatus, NetworkStatus, PathKind};
use lanrage_common::nat::{Behaviour, Filtering, Fix, How, Mapping, PortMapping, Verdict, Who, Why};
use lanrage_tests::lab::nat::NatKind::{Eim, None as Public, Symmetric, UdpBlocked};
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::site::Site;
use lanrage_tests::lab::topology::{RELAY_ADDRESS, RELAY_ADDRESS6, peer_address6, wan};
use lanrage_tests::lab::traffic::Pulse;
use miniupnpd::{Gateway, OUTSIDE, forwarded_ports, pinholes};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use support::TestLab;

const PATIENCE: Duration = Duration::from_secs(60);

fn network(lab: &TestLab, n: u8) -> NetworkStatus {
    lab.daemon_status(Role::Peer(n)).unwrap().network.unwrap_or_default()
}

/// Waits until a peer has found out all of its NAT.
fn behaviour(lab: &TestLab, n: u8) -> Behaviour {
    let is_known = || network(lab, n).nat.mapping.is_some();
    assert!(wait_until(PATIENCE, is_known), "peer {n} knows no mapping: {:?}", network(lab, n));
    network(lab, n).nat
}

/// How `from` sees the other member of a party of two.
fn member(lab: &TestLab, from: u8) -> MemberStatus {
    let party = lab.daemon_status(Role::Peer(from)).unwrap().party.unwrap();
    party.members.into_iter().find(|member| !member.is_self).unwrap()
}

fn wait_for_verdict(lab: &TestLab, from: u8, expected: Verdict) {
    let has_it = || member(lab, from).verdict == Some(expected);
    assert!(wait_until(PATIENCE, has_it), "{expected:?} is not said: {:#?}", member(lab, from));
}

fn netcheck(lab: &TestLab, n: u8, arguments: &[&str]) -> (bool, NetworkStatus) {
    let mut command = lab.lanrage(Role::Peer(n), &["netcheck", "--json"]).unwrap();
    let output = lab.namespace(Role::Peer(n)).run(|| command.args(arguments).output()).unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let network = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (output.status.success(), network)
}

#[test]
fn peers_know_their_nats_and_both_say_why_they_are_relayed() {
    let lab = TestLab::party("nck", &[Symmetric, Symmetric]);
    for n in [1, 2] {
        let nat = behaviour(&lab, n);
        assert_eq!(nat.mapping, Some(Mapping::AddressAndPortDependent), "{nat:?}");
        assert_eq!(nat.filtering, Some(Filtering::AddressAndPortDependent), "{nat:?}");
        assert_eq!((nat.udp_blocked, nat.is_public, nat.has_ipv6), (Some(false), Some(false), Some(false)));
        assert_eq!(nat.public_address, Some(wan(n, 2)));
        let fix = Fix::MapPort(Who::Either);
        wait_for_verdict(&lab, n, Verdict::Relayed { why: Why::RandomPorts(Who::Both), fix });
        let member = member(&lab, n);
        assert_eq!(member.path, PathKind::Relay);
        assert!(member.why.contains("both routers randomise ports"), "{}", member.why);
        assert_eq!(member.fix.as_deref(), Some("switching on UPnP in either router would fix it"));
    }
    let text = lab.lanrage_output(Role::Peer(1), &["status"]).unwrap();
    assert!(text.contains("switching on UPnP in either router"), "{text}");

    // the daemon's answer, and one from sockets of the command's own
    let (ok, found) = netcheck(&lab, 1, &[]);
    assert!(ok);
    assert_eq!(found.nat.mapping, Some(Mapping::AddressAndPortDependent));
    let relay = &found.servers[0];
    assert!(relay.relay.is_some() && relay.mapped.is_some(), "{relay:?}");
    let server = format!("{RELAY_ADDRESS}:3478");
    let (ok, found) = netcheck(&lab, 1, &["--server", &server]);
    assert!(ok);
    assert_eq!(found.nat.mapping, Some(Mapping::AddressAndPortDependent), "{found:?}");
    let nowhere = netcheck(&lab, 1, &["--server", "192.0.2.6:9"]);
    assert_eq!((nowhere.0, nowhere.1.nat.udp_blocked), (false, Some(true)));
}

/// Runs `lanrage doctor` where the peer is: exit code 0, and the level of each check.
fn doctor(lab: &TestLab, n: u8) -> (bool, BTreeMap<String, String>) {
    let mut command = lab.lanrage(Role::Peer(n), &["doctor", "--json"]).unwrap();
    let output = lab.namespace(Role::Peer(n)).run(|| command.output()).unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let answer: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let findings = answer["findings"].as_array().unwrap();
    let levels = findings.iter().map(|finding| {
        assert_eq!(finding["level"] == "good", finding["fix"].is_null(), "{finding}");
        (text(&finding["check"]), text(&finding["level"]))
    });
    (output.status.success(), levels.collect())
}

#[test]
fn the_doctor_looks_at_everything() {
    let lab = TestLab::party("ncd", &[Symmetric, Eim]);
    behaviour(&lab, 1);
    let (is_well, levels) = doctor(&lab, 1);
    assert!(is_well, "{levels:?}");
    for check in ["daemon", "control", "tunnel", "relay", "paths", "clock", "mtu", "routes", "firewall"] {
        assert!(levels.contains_key(check), "{check} is missing: {levels:?}");
    }
    assert_eq!((levels["nat"].as_str(), levels["clock"].as_str()), ("warning", "good"));

    lab.lanrage_output(Role::Peer(2), &["down"]).unwrap();
    let (is_well, levels) = doctor(&lab, 2);
    assert_eq!((is_well, levels["tunnel"].as_str()), (false, "bad"));
    check_for_login_page(&lab);
}

#[test]
fn other_networks_are_told_apart() {
    let lab = TestLab::party("nce", &[Eim, Public]);
    let eim = behaviour(&lab, 1);
    assert_eq!(eim.mapping, Some(Mapping::EndpointIndependent), "{eim:?}");
    assert_eq!(eim.filtering, Some(Filtering::AddressAndPortDependent), "{eim:?}");
    let public = behaviour(&lab, 2);
    assert_eq!((public.is_public, public.filtering), (Some(true), Some(Filtering::AddressDependent)));
    wait_for_verdict(&lab, 1, Verdict::Direct(How::Punch));
    wait_for_verdict(&lab, 2, Verdict::Direct(How::Punch));
}

#[test]
fn blocked_udp_is_known_and_said_at_both_ends() {
    let lab = TestLab::party("ncb", &[Eim, UdpBlocked]);
    let relayed = |who| Verdict::Relayed { why: Why::UdpBlocked(who), fix: Fix::AllowUdp(who) };
    wait_for_verdict(&lab, 1, relayed(Who::Second));
    wait_for_verdict(&lab, 2, relayed(Who::First));
    assert!(member(&lab, 1).fix.unwrap().contains("letting UDP out"));
    assert!(!netcheck(&lab, 2, &[]).0);
}

/// A hotel: whatever is asked on the ports of the web, its own page answers, and nothing else gets through.
const HOTEL: &str = "table ip hotel {
 chain pre {
  type nat hook prerouting priority -110;
  iifname \"lan\" tcp dport { 80, 443 } redirect to :8080
 }
 chain forward {
  type filter hook forward priority -10;
  drop
 }
}
";

/// Answers every request with the way to a login page, until the program ends.
fn login_page(router: &Namespace) {
    let listener = router.run(|| TcpListener::bind("0.0.0.0:8080")).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let answer =
                "HTTP/1.1 302 Found\r\nlocation: http://login.hotel.example/\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

fn check_for_login_page(lab: &TestLab) {
    assert_eq!(netcheck(lab, 1, &[]).1.captive_portal, Some(false));
    let router = lab.topology().router(1);
    login_page(&router);
    router.nft(HOTEL).unwrap();
    let (is_well, found) = netcheck(lab, 1, &[]);
    assert_eq!((is_well, found.captive_portal), (false, Some(true)));
    let (is_well, levels) = doctor(lab, 1);
    assert_eq!((is_well, levels["login page"].as_str()), (false, "bad"), "{levels:?}");
    // with the tunnel down the command looks by itself, and for the same control server
    lab.lanrage_output(Role::Peer(1), &["down"]).unwrap();
    assert_eq!(netcheck(lab, 1, &[]).1.captive_portal, Some(true));
    router.nft("delete table ip hotel").unwrap();
    assert_eq!(netcheck(lab, 1, &[]).1.captive_portal, Some(false));
}

/// A pair that only a forwarded port makes direct.
fn check_forwarding(lab: &mut TestLab, protocols: &[PortMapping], by: PortMapping) {
    lab.form_party().unwrap();
    lab.wait_for_path((1, 2), PathKind::Direct, PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{:?}\n{}", network(lab, 1), forwarded_ports(lab, 1)));
    lab.wait_for_traffic((2, 1), PATIENCE);
    let found = network(lab, 1);
    assert_eq!(found.protocols, protocols);
    assert_eq!(found.nat.port_mapping, Some(by));
    assert_eq!(found.forwarded.unwrap().ip().to_string(), OUTSIDE);
    wait_for_verdict(lab, 1, Verdict::Direct(How::Mapped));
    wait_for_verdict(lab, 2, Verdict::Direct(How::Mapped));
    let rules = forwarded_ports(lab, 1);
    assert!(rules.contains("dnat"), "{rules}");
}

/// What was asked for is given back.
fn check_farewell(lab: &TestLab) {
    let own = network(lab, 1).pinhole.unwrap().address;
    lab.lanrage_output(Role::Peer(1), &["down"]).unwrap();
    let rules = forwarded_ports(lab, 1);
    assert!(!rules.contains("dnat"), "{rules}");
    assert!(!stranger_reaches(lab, own, 9002, Duration::from_secs(1)), "{}", pinholes(lab, 1));
}

/// Whether a datagram comes in to peer 1 that nobody there has asked for.
fn stranger_reaches(lab: &TestLab, own: SocketAddr, port: u16, patience: Duration) -> bool {
    let peer = lab.namespace(Role::Peer(1));
    let seen = format!("ip6 saddr {RELAY_ADDRESS6} udp sport {port} counter");
    let table =
        format!("table ip6 seen{port} {{ chain in {{ type filter hook input priority -10; {seen}; }}; }}");
    peer.nft(&table).unwrap();
    let stranger = lab.topology().relay().run(|| UdpSocket::bind((RELAY_ADDRESS6, port))).unwrap().unwrap();
    wait_until(patience, || {
        stranger.send_to(b"nobody asked for this", own).unwrap();
        let mut list = Command::new("nft");
        list.args(["list", "table", "ip6", &format!("seen{port}")]);
        !peer.output(&mut list).unwrap().contains("packets 0 ")
    })
}

/// Everybody reaches peer 1 by IPv6, through a firewall that drops what was not asked for.
fn check_pinhole(lab: &TestLab, by: PortMapping) {
    let is_open = || network(lab, 1).pinhole.is_some_and(|pinhole| pinhole.by == by);
    assert!(wait_until(PATIENCE, is_open), "{:?}\n{}", network(lab, 1), pinholes(lab, 1));
    let own = network(lab, 1).pinhole.unwrap().address;
    assert_eq!(own.ip(), peer_address6(1));
    let text = lab.lanrage_output(Role::Peer(1), &["netcheck"]).unwrap();
    assert!(text.contains(&format!("IPv6 pinhole   {own} by ")), "{text}");
    assert!(stranger_reaches(lab, own, 9001, PATIENCE), "{}", pinholes(lab, 1));
}

#[test]
fn a_forwarded_port_makes_a_relayed_pair_direct() {
    let mut lab =
        TestLab::up("ncp", &["symmetric/dual", "symmetric"].map(|site| site.parse::<Site>().unwrap()));
    let _gateway = Gateway::start(&lab, 1, true);
    check_forwarding(&mut lab, &[PortMapping::Pcp, PortMapping::NatPmp, PortMapping::Upnp], PortMapping::Pcp);
    check_pinhole(&lab, PortMapping::Pcp);
    check_farewell(&lab);
}

/// A network that translates IPv6 with random ports: no probe of the other end could get in there.
const TRANSLATED6: &str = "table ip6 closed
delete table ip6 closed
table ip6 translated {
 chain post {
  type nat hook postrouting priority 100;
  oifname \"wan\" masquerade fully-random
 }
}
";

const CLOSED6: &str = "table ip6 closed {
 chain forward {
  type filter hook forward priority -10;
  drop
 }
}
";

/// Another address by IPv6, as hosts take every day (RFC 8981); IPv4 stays as it is, and the game goes on.
fn check_new_address(lab: &TestLab) {
    let beat = Duration::from_millis(50);
    let pulse = Pulse::start(&lab.station(2), &lab.station(1), 37016, beat).unwrap();
    let old = network(lab, 1).pinhole.unwrap().address;
    let new = Ipv6Addr::from_bits(peer_address6(1).to_bits() + 0x77);
    let addresses = format!("addr add {new}/64 dev eth0 nodad\naddr del {}/64 dev eth0", old.ip());
    lab.topology().peer(1).ip(&addresses).unwrap();
    let start = Instant::now();
    let is_there = || {
        let member = member(lab, 2);
        member.path == PathKind::Direct && member.endpoint == Some(SocketAddr::new(new.into(), old.port()))
    };
    assert!(wait_until(PATIENCE, is_there), "{}\n{}", lab.explain_paths(), pinholes(lab, 1));
    lab.wait_for_traffic((2, 1), PATIENCE);
    let beats = pulse.stop();
    println!("another IPv6 address: direct again after {:?}, {beats:?}", start.elapsed());
    assert!(beats.count.received * 2 > beats.count.sent, "{beats:?}");
}

#[test]
fn upnp_alone_does_it_too_and_by_ipv6() {
    let mut lab = TestLab::up("ncu", &["symmetric/dual"; 2].map(|site| site.parse::<Site>().unwrap()));
    let (_gateway, other) = (Gateway::start(&lab, 1, false), lab.topology().router(2));
    other.nft(CLOSED6).unwrap();
    check_forwarding(&mut lab, &[PortMapping::Upnp], PortMapping::Upnp);
    check_pinhole(&lab, PortMapping::Upnp);

    // with IPv4 closed between the two, only the pinhole is left
    other.nft(TRANSLATED6).unwrap();
    other.nft(&format!("add rule ip lab forward ip daddr {OUTSIDE} drop")).unwrap();
    lab.lanrage_output(Role::Peer(2), &["down"]).unwrap();
    lab.lanrage_output(Role::Peer(2), &["up"]).unwrap();
    let own = network(&lab, 1).pinhole.unwrap().address;
    let is_by_pinhole = || member(&lab, 2).path == PathKind::Direct && member(&lab, 2).endpoint == Some(own);
    assert!(wait_until(PATIENCE, is_by_pinhole), "{}\n{}", lab.explain_paths(), pinholes(&lab, 1));
    lab.wait_for_traffic((2, 1), PATIENCE);
    check_new_address(&lab);
    check_farewell(&lab);
}
