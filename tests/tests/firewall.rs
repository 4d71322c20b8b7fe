//! What members reach on each other's machines. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::{FirewallStatus, RefusedPort};
use lanrage_common::firewall::Mode;
use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Options;
use lanrage_tests::lab::traffic::ping;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;
use support::TestLab;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection that is refused in silence is given up after this.
const SILENCE: Duration = Duration::from_millis(1200);

/// Ana and Ben; Ben hosts.
struct Evening {
    lab: TestLab,
    ana: Namespace,
    ben: Namespace,
    at_ben: Ipv4Addr,
}

impl Evening {
    fn begin(name: &str, lane: &str) -> Self {
        let lab = TestLab::party_with(Options { lane: lane.into(), ..Options::new(name, &[Eim, Eim]) });
        let [ana, ben] = [1, 2].map(|n| lab.namespace(Role::Peer(n)));
        let at_ben = lab.overlay(2).unwrap();
        Self { lab, ana, ben, at_ben }
    }

    /// Whether Ana's program gets a connection, at the first try.
    fn connects(&self, port: u16, patience: Duration) -> bool {
        let connected = self.ana.play(|| TcpStream::connect_timeout(&(self.at_ben, port).into(), patience));
        connected.unwrap().is_ok()
    }

    fn joins(&self, listener: &TcpListener) {
        let to = (self.at_ben, listener.local_addr().unwrap().port()).into();
        let mut client = self.ana.play(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"welcome").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut greeting = [0; 7];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"welcome");
    }

    fn firewall(&self) -> FirewallStatus {
        self.lab.daemon_status(Role::Peer(2)).unwrap().firewall.unwrap()
    }

    /// Once Ben's status tells what was refused at a port.
    fn refused(&self, port: &str) -> RefusedPort {
        let port = port.parse().unwrap();
        let find = || self.firewall().refused.into_iter().find(|refused| refused.port == port);
        assert!(wait_until(PATIENCE, || find().is_some()), "{:?}", self.firewall());
        find().unwrap()
    }

    fn say(&self, words: &[&str]) -> String {
        self.lab.lanrage_output(Role::Peer(2), &[&["firewall"], words].concat()).unwrap()
    }

    /// A server that the system runs, not a person: found in the LAN list, joined at another port.
    fn a_game_is_found_and_joined(&self) {
        let server = service(&self.ben, |at| UdpSocket::bind((ANY, at)), 37_960);
        let join = service(&self.ben, |at| TcpListener::bind((ANY, at)), 7777);
        assert!(!self.connects(7777, SILENCE), "nothing tells that this is a game");
        let refused = self.refused("tcp/7777");
        assert_eq!((refused.member.as_deref(), refused.may_be_game), (Some("ana"), true), "{refused:?}");
        let problems = self.lab.daemon_status(Role::Peer(2)).unwrap().problems;
        let problem = problems.iter().find(|problem| problem.code == "firewall_refused").unwrap();
        assert!(problem.fix.contains("`lanrage firewall allow tcp/7777`"), "{problem:?}");
        assert!(problem.message.contains("of ana to tcp/7777"), "{problem:?}");

        let asker = self.ana.play(|| UdpSocket::bind((ANY, 0))).unwrap().unwrap();
        asker.set_broadcast(true).unwrap();
        asker.send_to(b"getinfo", (Ipv4Addr::BROADCAST, 37_960)).unwrap();
        let from = hears(&server, b"getinfo");
        server.send_to(b"info", from).unwrap();
        assert_eq!(hears(&asker, b"info"), SocketAddr::from((self.at_ben, 37_960)));
        self.joins(&join);
        let plays = || self.firewall().players.contains(&37_960);
        assert!(wait_until(PATIENCE, plays), "{:?}", self.firewall());
    }
}

/// What a service of the system has opened.
fn service<T: Send>(place: &Namespace, bind: impl FnOnce(u16) -> std::io::Result<T> + Send, port: u16) -> T {
    place.run(|| bind(port)).unwrap().unwrap()
}

fn hears(socket: &UdpSocket, text: &[u8]) -> SocketAddr {
    let mut buffer = [0; 64];
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], text);
    from
}

#[test]
fn members_reach_games_at_the_first_try_and_nothing_else() {
    let mut evening = Evening::begin("fwk", "auto");
    let _ssh = service(&evening.ben, |at| TcpListener::bind((ANY, at)), 22);
    assert!(!evening.connects(22, SILENCE), "ssh is no game");
    let refused = evening.refused("tcp/22");
    assert!(refused.packets >= 1 && refused.why.contains("ssh") && !refused.may_be_game, "{refused:?}");
    assert!(evening.say(&[]).contains("lanrage firewall allow tcp/22"));
    assert_eq!(ping(&evening.lab.station(1), evening.at_ben, 3).unwrap().received, 3);

    // nobody has heard of these games: a person has started them, and that is enough
    let direct = evening.ben.play(|| TcpListener::bind((ANY, 35_565))).unwrap().unwrap();
    evening.joins(&direct);
    let server = evening.ben.play(|| UdpSocket::bind((ANY, 34_197))).unwrap().unwrap();
    let client = evening.ana.play(|| UdpSocket::bind((ANY, 0))).unwrap().unwrap();
    client.send_to(b"first packet", (evening.at_ben, 34_197)).unwrap();
    hears(&server, b"first packet");
    // even there a person's remote desktop is none
    let _vnc = evening.ben.play(|| TcpListener::bind((ANY, 5900))).unwrap().unwrap();
    assert!(!evening.connects(5900, SILENCE));

    evening.a_game_is_found_and_joined();
    assert!(!evening.connects(22, SILENCE), "still no game");

    evening.say(&["deny", "tcp/35565"]);
    assert!(!evening.connects(35_565, SILENCE));
    evening.say(&["auto", "tcp/35565"]);
    evening.joins(&direct);
    evening.say(&["allow", "tcp/22"]);
    assert!(evening.connects(22, PATIENCE));
    evening.say(&["auto", "tcp/22"]);
    assert!(!evening.connects(22, SILENCE));
    evening.say(&["open"]);
    assert!(evening.connects(22, PATIENCE));
    what_is_said_survives_and_blocks_nothing_else(&mut evening);
}

fn what_is_said_survives_and_blocks_nothing_else(evening: &mut Evening) {
    evening.lab.kill(Role::Peer(2)).unwrap();
    let rules = evening.ben.output(Command::new("nft").args(["list", "ruleset"])).unwrap();
    assert_eq!(rules, "", "the system's firewall is not touched");
    evening.lab.restart(Role::Peer(2)).unwrap();
    evening.lab.wait_for_traffic((1, 2), Duration::from_secs(30));
    assert_eq!(evening.firewall().mode, Mode::Open);
    assert!(evening.connects(22, PATIENCE));
    evening.say(&["close"]);
    assert!(!evening.connects(22, SILENCE));
}

#[test]
fn a_game_is_found_and_joined_over_the_userspace_lane() {
    Evening::begin("fwu", "userspace").a_game_is_found_and_joined();
}
