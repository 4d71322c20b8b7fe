//! A plain WireGuard client takes part, configured with nothing but the file that the gateway prints.

use super::{ANY, Console, EVERYBODY, GATEWAY, GROUP, PATIENCE, connect, devices, gateway_status};
use crate::support::TestLab;
use crate::support::game::{exactly, game, nothing, receive};
use lanrage_common::api::AddDeviceAnswer;
use lanrage_common::devices::DeviceKind;
use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Options;
use std::net::Ipv4Addr;
use std::process::Command;

fn lab(name: &str, lane: &str) -> TestLab {
    TestLab::party_with(Options { lane: lane.into(), ..Options::new(name, &[Eim, Eim]) })
}

/// wg-quick and a WireGuard that has never heard of LANrage.
struct Client<'a> {
    place: &'a Namespace,
    file: tempfile::TempPath,
}

impl<'a> Client<'a> {
    /// The interface is called as the file.
    fn up(place: &'a Namespace, name: &str, config: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}.conf"));
        std::fs::write(&path, config).unwrap();
        let client = Self { place, file: tempfile::TempPath::try_from_path(path).unwrap() };
        client.wg_quick("up");
        client
    }

    fn wg_quick(&self, what: &str) {
        let mut command = Command::new("wg-quick");
        command.arg(what).arg(&self.file).env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        self.place.output(&mut command).unwrap();
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.wg_quick("down");
        }
    }
}

fn add(lab: &TestLab, name: &str) -> AddDeviceAnswer {
    let endpoint = GATEWAY.to_string();
    let arguments = ["gateway", "add-device", name, "--endpoint", &endpoint, "--json"];
    serde_json::from_str(&lab.lanrage_output(Role::Peer(1), &arguments).unwrap()).unwrap()
}

/// Everybody knows the device, and packets go between it and peer 2.
fn wait_for_device(lab: &TestLab, device: &Namespace, address: Ipv4Addr) {
    assert!(wait_until(PATIENCE, || devices(lab, 2) == [address]), "{:?}", devices(lab, 2));
    let (asker, server) = (game(device, 4009), game(&lab.namespace(Role::Peer(2)), 4010));
    let to = (lab.overlay(2).unwrap(), 4010);
    let crosses = || {
        asker.send_to(b"hello", to).unwrap();
        server.recv_from(&mut [0; 16]).is_ok_and(|(_, from)| from == (address, 4009).into())
    };
    assert!(wait_until(PATIENCE * 2, crosses), "{:?}", gateway_status(lab));
}

#[test]
fn a_plain_wireguard_client_plays_with_everybody() {
    let mut lab = lab("gwk", "kernel");
    let console = Console::beside(&lab);
    let device = &console.0;
    let (ana, ben) = (lab.namespace(Role::Peer(1)), lab.namespace(Role::Peer(2)));
    let [at_ana, at_ben] = [1, 2].map(|n| lab.overlay(n).unwrap());
    let added = add(&lab, "phone");
    let address = added.address;
    let client = Client::up(device, "lrgwk", &added.config);
    wait_for_device(&lab, device, address);

    // its search: heard by members and by the gateway's own machine, from its own address
    for (number, to) in (0u16..).zip([EVERYBODY, GROUP, Ipv4Addr::new(10, 66, 255, 255)]) {
        let port = 35_000 + number;
        let (asker, at_home, server) = (game(device, 4001), game(&ana, port), game(&ben, port));
        for (place, socket, own) in [(&ana, &at_home, at_ana), (&ben, &server, at_ben)] {
            place.run(|| socket.join_multicast_v4(&GROUP, &own)).unwrap().unwrap();
        }
        asker.send_to(b"who is there?", (to, port)).unwrap();
        exactly(&server, b"who is there?", (address, 4001));
        exactly(&at_home, b"who is there?", (address, 4001));
        server.send_to(&[7; 1300], (address, 4001)).unwrap();
        exactly(&asker, &[7; 1300], (at_ben, port));
    }
    // searches of the others reach it as unicast
    for (number, (place, own)) in (0u16..).zip([(&ana, at_ana), (&ben, at_ben)]) {
        for (offset, to) in [(0, EVERYBODY), (10, GROUP)] {
            let port = 35_100 + number + offset;
            let (asker, server) = (game(place, 4002), game(device, port));
            asker.send_to(b"who is there?", (to, port)).unwrap();
            exactly(&server, b"who is there?", (own, 4002));
            server.send_to(b"I am", (own, 4002)).unwrap();
            exactly(&asker, b"I am", (address, port));
        }
    }
    // TCP, whoever hosts; after a multicast on every processor, each of which has a route cache of its own
    multicast_everywhere(device);
    assert_eq!(connect(&ben, device, (at_ben, 4100)), address);
    assert_eq!(connect(device, &ben, (address, 4101)), at_ben);
    assert_eq!(connect(device, &ana, (address, 4102)), at_ana);
    never_crosses(device, &ben);

    let status = gateway_status(&lab);
    let [known] = &status.devices[..] else { panic!("{status:?}") };
    assert_eq!((known.name.as_str(), known.kind, known.address), ("phone", DeviceKind::Wireguard, address));
    assert!(known.rx_bytes > 200_000 && known.tx_bytes > 200_000 && known.endpoint.is_some(), "{known:?}");
    assert_eq!(status.groups_to_devices, 4, "{status:?}");
    assert!(status.dropped.contains_key("dhcp") && status.dropped.contains_key("netbios"), "{status:?}");
    let again = lab.try_lanrage(1, &["gateway", "add-device", "phone"]);
    assert!(
        !again.status.success() && String::from_utf8_lossy(&again.stderr).contains("remove-device phone")
    );

    // a crash of the daemon: the client comes back by itself
    lab.kill(Role::Peer(1)).unwrap();
    lab.restart(Role::Peer(1)).unwrap();
    wait_for_device(&lab, device, address);

    lab.lanrage_output(Role::Peer(1), &["gateway", "remove-device", "phone"]).unwrap();
    assert!(wait_until(PATIENCE, || devices(&lab, 2).is_empty()), "{:?}", devices(&lab, 2));
    let (asker, server) = (game(device, 4001), game(&ben, 35_200));
    asker.send_to(b"let me in", (at_ben, 35_200)).unwrap();
    nothing(&server);
    drop(client);
    let anew = add(&lab, "tablet");
    assert_ne!(anew.address, address, "the phone's stays reserved for it");
}

/// A multicast that nobody hears, from each processor.
fn multicast_everywhere(place: &Namespace) {
    let asker = game(place, 4008);
    place.ip("route flush cache").unwrap();
    let count = std::thread::available_parallelism().unwrap().get();
    for processor in 0..count {
        let mut only = nix::sched::CpuSet::new();
        only.set(processor).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &only).unwrap();
                asker.send_to(b"anybody?", (GROUP, 35_300)).unwrap();
            });
        });
    }
}

/// Neither what configures addresses nor what names Windows machines.
fn never_crosses(from: &Namespace, to: &Namespace) {
    let asker = game(from, 4003);
    for port in [67, 137] {
        let server = to.run(|| std::net::UdpSocket::bind((ANY, port))).unwrap().unwrap();
        asker.send_to(b"names", (EVERYBODY, port)).unwrap();
        nothing(&server);
    }
}

#[test]
fn the_userspace_lane_knows_devices_too() {
    let lab = lab("gwu", "userspace");
    let console = Console::beside(&lab);
    let device = &console.0;
    let (ana, ben) = (lab.namespace(Role::Peer(1)), lab.namespace(Role::Peer(2)));
    let [at_ana, at_ben] = [1, 2].map(|n| lab.overlay(n).unwrap());
    let added = add(&lab, "deck");
    let _client = Client::up(device, "lrgwu", &added.config);
    wait_for_device(&lab, device, added.address);
    let (asker, at_home, server) = (game(device, 4001), game(&ana, 36_000), game(&ben, 36_000));
    asker.send_to(b"who is there?", (EVERYBODY, 36_000)).unwrap();
    exactly(&server, b"who is there?", (added.address, 4001));
    exactly(&at_home, b"who is there?", (added.address, 4001));
    for (place, own) in [(&ana, at_ana), (&ben, at_ben)] {
        let (asker, server) = (game(place, 4002), game(device, 36_001));
        // a datagram of several fragments, too
        for size in [12, 3000] {
            asker.send_to(&vec![8; size], (EVERYBODY, 36_001)).unwrap();
            assert_eq!(receive(&server, 1), [(vec![8; size], (own, 4002).into())]);
        }
    }
}
