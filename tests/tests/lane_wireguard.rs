//! The lane's programs on kernel WireGuard, as they are on the party's TUN. Needs root and a kernel with WireGuard, which
//! not every development machine has: `cargo xtask vm-test` runs it on Debian's.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::LaneStatus;
use lanrage_common::lane::{Lane, PORT as LANE, report_packet};
use lanrage_daemon::lane::{KernelLane, Prepared};
use lanrage_tests::lab::netns::{Namespace, command_output};
use lanrage_tests::lab::process::wait_until;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;
use support::game::{exactly, game, receive};

const EVERYBODY: Ipv4Addr = Ipv4Addr::BROADCAST;
const SUBNET_BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 66, 255, 255);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 10, 11, 12);
const PORT: u16 = 51_820;

/// A machine with kernel WireGuard and the lane's programs on it.
struct Member {
    place: Namespace,
    address: Ipv4Addr,
    lane: Option<KernelLane>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.lane = None;
        if let Err(error) = self.place.clear() {
            eprintln!("cannot remove {}: {error:#}", self.place.name());
        }
    }
}

fn overlay(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 66, 0, n)
}

fn underlay(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, n)
}

/// Members 1 to 3 on one network; the first is its switch, too.
fn members() -> Vec<Member> {
    let members: Vec<Member> = (1..=3)
        .map(|n| {
            let place = Namespace::named(format!("lr-lwg-p{n}"));
            place.clear().unwrap();
            place.create().unwrap();
            Member { place, address: overlay(n), lane: None }
        })
        .collect();
    let first = &members[0].place;
    first
        .ip(&format!("link add br0 type bridge\nlink set br0 up\naddr add {}/24 dev br0", underlay(1)))
        .unwrap();
    for (n, member) in (2..).zip(&members[1..]) {
        let other = &member.place;
        first.ip(&format!("link add to-p{n} type veth peer name eth0 netns {}", other.name())).unwrap();
        first.ip(&format!("link set to-p{n} master br0\nlink set to-p{n} up")).unwrap();
        other.ip(&format!("link set eth0 up\naddr add {}/24 dev eth0", underlay(n))).unwrap();
    }
    join_by_wireguard(&members);
    members
}

/// Keys for each, and everybody a peer of everybody, with a single address.
fn join_by_wireguard(members: &[Member]) {
    let pairs: Vec<_> = members.iter().map(|_| x25519()).collect();
    for (n, member) in (1u8..).zip(members) {
        let mut config =
            format!("[Interface]\nListenPort = {PORT}\nPrivateKey = {}\n", pairs[usize::from(n) - 1].0);
        for (peer, (_, public)) in (1u8..).zip(&pairs).filter(|(peer, _)| *peer != n) {
            let (address, endpoint) = (overlay(peer), underlay(peer));
            write!(
                config,
                "[Peer]\nPublicKey = {public}\nAllowedIPs = {address}/32\nEndpoint = {endpoint}:{PORT}\n"
            )
            .unwrap();
        }
        let file = std::env::temp_dir().join(format!("{}.conf", member.place.name()));
        std::fs::write(&file, config).unwrap();
        member.place.ip("link add lanrage0 mtu 1392 type wireguard").unwrap();
        member.place.output(Command::new("wg").args(["setconf", "lanrage0"]).arg(&file)).unwrap();
        std::fs::remove_file(&file).unwrap();
        member
            .place
            .ip(&format!(
                "link set lanrage0 up\naddr add {}/16 brd + dev lanrage0\n\
                 route add 255.255.255.255/32 dev lanrage0\nroute add 224.0.0.0/4 dev lanrage0",
                member.address
            ))
            .unwrap();
    }
}

/// A private and a public key.
fn x25519() -> (String, String) {
    let make = "key=$(wg genkey); echo $key; echo $key | wg pubkey";
    let said = command_output(Command::new("sh").args(["-c", make])).unwrap();
    let (private, public) = said.trim().split_once('\n').unwrap();
    (private.to_owned(), public.to_owned())
}

/// The programs, on everybody's interface.
fn attach(members: &mut [Member]) {
    let subnet = "10.66.0.0/16".parse().unwrap();
    let addresses: Vec<Ipv4Addr> = members.iter().map(|member| member.address).collect();
    for member in members {
        let mut lane = Lane::new(member.address, subnet);
        lane.set_members(addresses.iter().copied());
        let open = || {
            let index = nix::net::if_::if_nametoindex("lanrage0").unwrap();
            let mut kernel = KernelLane::open(&mut Prepared::default(), "lanrage0", index).unwrap();
            kernel.follow(&lane);
            kernel
        };
        member.lane = Some(member.place.run(open).unwrap());
    }
}

fn counts(member: &Member) -> LaneStatus {
    let mut status = LaneStatus::default();
    member.lane.as_ref().unwrap().count(&mut status);
    status
}

#[test]
fn games_find_each_other_over_kernel_wireguard() {
    let mut members = members();
    // without the lane there is no way for what is for everybody: WireGuard has no peer with that address
    let early = game(&members[0].place, 4000);
    let error = early.send_to(b"?", (EVERYBODY, 37_000)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::ENOKEY), "{error}");
    attach(&mut members);
    println!("by {}", members[0].lane.as_ref().unwrap().hook());

    let sockets = |port| -> Vec<UdpSocket> {
        let open = |member: &Member| {
            let socket = game(&member.place, port);
            member.place.run(|| socket.join_multicast_v4(&GROUP, &member.address)).unwrap().unwrap();
            socket
        };
        members[1..].iter().map(open).collect()
    };
    let ana = game(&members[0].place, 4001);
    let large = vec![9; 8000];
    // the first one also waits for the handshake
    for (port, to, text) in [
        (37_001, EVERYBODY, &b"who is there?"[..]),
        (37_002, SUBNET_BROADCAST, b"and here?"),
        (37_003, GROUP, b"and in the group?"),
        (37_004, EVERYBODY, &large),
    ] {
        let servers = sockets(port);
        ana.send_to(text, (to, port)).unwrap();
        for (server, member) in servers.iter().zip(&members[1..]) {
            exactly(server, text, (overlay(1), 4001));
            server.send_to(b"here", (overlay(1), 4001)).unwrap();
            exactly(&ana, b"here", (member.address, port));
        }
    }

    // who is in a member's packet is who sent it: WireGuard has proven the outside
    let victim = game(&members[1].place, 37_005);
    let mut inner = report_packet(overlay(2), EVERYBODY, b"I am somebody else");
    inner[20..24].copy_from_slice(&[4001u16.to_be_bytes(), 37_005u16.to_be_bytes()].concat());
    inner[26..28].fill(0); // no checksum
    let liar = members[2].place.run(|| UdpSocket::bind((overlay(3), LANE))).unwrap().unwrap();
    members[2].lane = None; // its own programs would not let it out
    liar.send_to(&inner, (overlay(2), LANE)).unwrap();
    let spoofed = || counts(&members[1]).dropped.get("spoofed").copied();
    assert!(wait_until(Duration::from_secs(20), || spoofed() == Some(1)));
    assert!(receive(&victim, 0).is_empty());

    // fragments are wrapped one by one
    let fragments = 8008_u64.div_ceil(1392 - 28);
    let sent = counts(&members[0]);
    assert_eq!((sent.seen, sent.copied), (3 + fragments, 2 * (3 + fragments)), "{sent:?}");
    assert_eq!(counts(&members[1]).delivered, 3 + fragments, "{:?}", counts(&members[1]));
}
