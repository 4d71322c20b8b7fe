//! What follows when a known game runs: members see it, its packets are marked, its port is open; and nothing of that
//! when it has ended. Needs root.
#![allow(clippy::unwrap_used)]

#[path = "playing/discord.rs"]
mod discord;
mod support;

use lanrage_common::api::{GamesStatus, Status};
use lanrage_tests::lab::capture::{Capture, IPV4};
use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::topology::NIC;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::TestLab;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_millis(1200);
/// Where Chocolate Doom plays.
const DOOM: u16 = 2342;
/// CS4, in the place of the IPv4 header.
const CS4: u8 = 32 << 2;

/// A process that goes by the game's name, as far as anybody sees from outside.
struct Game(Child);

impl Game {
    fn start(place: &Namespace) -> Self {
        Self(place.spawn(Command::new("sleep").arg0("/usr/games/chocolate-doom").arg("600")).unwrap())
    }
}

impl Drop for Game {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Length and type of service of the UDP packets that arrive at a machine from outside.
#[derive(Clone, Default)]
struct Outer(Arc<Mutex<BTreeSet<(u16, u8)>>>);

impl Outer {
    fn begin(place: &Namespace) -> Self {
        let capture = place.run(|| Capture::packets(NIC, IPV4)).unwrap().unwrap();
        let outer = Self::default();
        let seen = outer.clone();
        // ends with its interface, or with this program
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(length) = capture.receive(&mut buffer) {
                if length > 20 && buffer[9] == 17 {
                    let length = u16::from_be_bytes([buffer[2], buffer[3]]);
                    seen.0.lock().unwrap().insert((length, buffer[1]));
                }
            }
        });
        outer
    }

    /// The type of service of what carries `payload` bytes of UDP: WireGuard may pad to 16.
    fn class_of(&self, payload: u16) -> u8 {
        let outer = payload + 28 + 60..payload + 28 + 60 + 16;
        let find = || {
            let seen = self.0.lock().unwrap();
            seen.iter().find(|(length, _)| outer.contains(length)).map(|(_, class)| *class)
        };
        assert!(wait_until(PATIENCE, || find().is_some()), "{payload} bytes did not arrive");
        find().unwrap()
    }
}

struct Evening {
    lab: TestLab,
    ana: Namespace,
    /// A program of the system's, as far as accounts tell.
    server: UdpSocket,
    at_ana: Ipv4Addr,
    at_ben: Ipv4Addr,
}

impl Evening {
    fn status(&self, n: u8) -> Status {
        self.lab.daemon_status(Role::Peer(n)).unwrap()
    }

    fn running(&self, n: u8) -> GamesStatus {
        self.status(n).games.unwrap()
    }

    /// What Ana sees that Ben plays.
    fn ben_plays(&self) -> Vec<String> {
        let members = self.status(1).party.unwrap().members;
        members.into_iter().find(|member| member.name == "ben").unwrap().plays
    }

    /// Whether a new program of Ana's reaches Ben's server.
    fn joins(&self) -> Option<std::net::SocketAddr> {
        let client = self.ana.play(|| UdpSocket::bind((ANY, 0))).unwrap().unwrap();
        client.send_to(b"join", (self.at_ben, DOOM)).unwrap();
        self.server.set_read_timeout(Some(SILENCE)).unwrap();
        self.server.recv_from(&mut [0; 64]).ok().map(|(_, from)| from)
    }

    fn says(&self, socket: &UdpSocket, bytes: u16) {
        socket.send_to(&vec![7; bytes.into()], (self.at_ana, 9999)).unwrap();
    }
}

#[test]
fn a_running_game_is_seen_marked_and_let_in_until_it_ends() {
    let lab = TestLab::party("play", &[Eim, Eim]);
    let [ana, ben] = [1, 2].map(|n| lab.namespace(Role::Peer(n)));
    let server = ben.run(|| UdpSocket::bind((ANY, DOOM))).unwrap().unwrap();
    let other = ben.play(|| UdpSocket::bind((ANY, 0))).unwrap().unwrap();
    let outer = Outer::begin(&ana);
    let [at_ana, at_ben] = [1, 2].map(|n| lab.overlay(n).unwrap());
    let evening = Evening { lab, ana, server, at_ana, at_ben };
    assert_eq!(evening.joins(), None, "nothing tells that this is a game");

    let channel = discord::open_channel(&evening.lab, &evening.ana);
    let game = Game::start(&ben);
    assert!(wait_until(PATIENCE, || evening.ben_plays() == ["Chocolate Doom"]), "{:?}", evening.running(2));
    assert!(evening.lab.lanrage_output(Role::Peer(1), &["status"]).unwrap().contains("plays Chocolate Doom"));
    let text = evening.lab.lanrage_output(Role::Peer(2), &["games", "--running"]).unwrap();
    assert!(text.contains("udp/2342") && text.contains("CS4"), "{text}");
    assert_eq!(evening.running(1).running, [], "Ana's machine is another");
    assert!(evening.joins().is_some(), "its port is open");
    evening.says(&evening.server, 700);
    assert_eq!(outer.class_of(700), CS4);
    evening.says(&other, 800);
    assert_eq!(outer.class_of(800), 0, "no packet of the game");

    discord::channel_hears_of_ben(&channel, &ben, at_ben);
    let party = evening.status(1).party.unwrap().name;
    discord::presence_follows_ana(&evening.lab, &evening.ana, &party);

    drop(game);
    assert!(wait_until(PATIENCE, || evening.ben_plays().is_empty()), "{:?}", evening.running(2));
    assert_eq!(evening.joins(), None, "closed again");
    evening.says(&evening.server, 900);
    assert_eq!(outer.class_of(900), 0);

    evening.lab.lanrage_output(Role::Peer(2), &["settings", "peer.share_game", "false"]).unwrap();
    let _game = Game::start(&ben);
    assert!(wait_until(PATIENCE, || !evening.running(2).running.is_empty()));
    std::thread::sleep(SILENCE);
    assert_eq!(evening.ben_plays(), [""; 0], "Ben does not tell");
}
