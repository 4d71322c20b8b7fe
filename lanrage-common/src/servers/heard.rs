//! Hosts that announce themselves: members hear each other's announcements through the lane, and keep them for a while.

use super::Beacon;
use crate::bulletin::{Announced, MAX_SERVERS};
use crate::lane;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Games announce themselves every second to every five.
pub const LIFE: Duration = Duration::from_secs(15);

/// An announcement that may come to a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Id of the game's profile.
    pub game: String,
    /// How it is to be read.
    pub format: Beacon,
    /// Whether the game is played over TCP.
    pub is_tcp: bool,
    /// Where it is played, if the announcement does not say.
    pub port: u16,
}

/// What was announced lately.
#[derive(Debug, Default)]
pub struct Heard {
    known: BTreeMap<u16, Vec<Known>>,
    hosts: BTreeMap<(Ipv4Addr, u16, bool), (Announced, Instant)>,
}

impl Heard {
    /// Replaces what is listened for, by UDP port.
    pub fn set_known(&mut self, known: BTreeMap<u16, Vec<Known>>) {
        self.known = known;
    }

    /// A packet to everybody that the device at `from` has sent, wrapped for the lane or not. The tunnel has proven who
    /// that is, and says so of no address in the packet.
    pub fn handle_packet(&mut self, packet: &[u8], from: Ipv4Addr, now: Instant) {
        let Some((port, payload)) = lane::said_to_everybody(packet) else { return };
        let read = |known: &Known| Some((known.clone(), known.format.parse(payload)?));
        let Some((known, info)) = self.known.get(&port).and_then(|known| known.iter().find_map(read)) else {
            return;
        };
        self.handle_timeout(now);
        let port = info.port.unwrap_or(known.port);
        let key = (from, port, known.is_tcp);
        let of_host = self.hosts.range((from, 0, false)..=(from, u16::MAX, true)).count();
        if of_host >= MAX_SERVERS && !self.hosts.contains_key(&key) {
            return;
        }
        let announced = Announced {
            game: known.game,
            is_tcp: known.is_tcp,
            port,
            name: info.name,
            map: info.map,
            players: info.players,
            max_players: info.max_players,
            is_locked: info.is_locked,
        };
        self.hosts.insert(key, (announced, now));
    }

    /// Forgets who has fallen silent.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.hosts.retain(|_, (_, at)| now.saturating_duration_since(*at) < LIFE);
    }

    /// Who announces itself, and where.
    pub fn servers(&self) -> impl Iterator<Item = (Ipv4Addr, &Announced)> {
        self.hosts.iter().map(|((host, ..), (announced, _))| (*host, announced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::{Inbound, Lane, Outbound};
    use proptest::prelude::*;

    const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
    const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);

    fn heard() -> Heard {
        let known = |game: &str, format, is_tcp, port| Known { game: game.into(), format, is_tcp, port };
        let mut heard = Heard::default();
        heard.set_known(BTreeMap::from([
            (4445, vec![known("minecraft-java", Beacon::MinecraftJava, true, 25565)]),
            (
                6112,
                vec![
                    known("dawn-of-war", Beacon::DawnOfWar, false, 6112),
                    known("warcraft-3", Beacon::Warcraft3, true, 6112),
                ],
            ),
        ]));
        heard
    }

    /// As a program sends it to a group.
    fn packet(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = lane::report_packet(ANA, Ipv4Addr::new(224, 0, 2, 60), payload);
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet[26..28].fill(0);
        packet
    }

    fn told(heard: &Heard) -> Vec<(Ipv4Addr, &str, u16)> {
        heard.servers().map(|(host, it)| (host, it.game.as_str(), it.port)).collect()
    }

    #[test]
    fn an_announcement_is_heard_wrapped_and_bare_and_ages() {
        let (mut heard, now) = (heard(), Instant::now());
        let bare = packet(4445, b"[MOTD]w[/MOTD][AD]50000[/AD]");
        heard.handle_packet(&bare, ANA, now);
        let subnet = "10.66.0.0/16".parse().unwrap();
        let (mut sender, mut receiver) = (Lane::new(ANA, subnet), Lane::new(BEN, subnet));
        sender.set_members([BEN]);
        assert_eq!(sender.handle_outbound(&bare, now), Outbound::Copies);
        let (_, wrapped) = sender.poll_copy().unwrap();
        assert!(matches!(receiver.handle_inbound(wrapped, ANA, now), Inbound::Deliver(_)));
        heard.handle_packet(wrapped, BEN, now + LIFE / 2);
        assert_eq!(told(&heard), [(ANA, "minecraft-java", 50000), (BEN, "minecraft-java", 50000)]);
        heard.handle_timeout(now + LIFE);
        assert_eq!(told(&heard), [(BEN, "minecraft-java", 50000)], "Ana has fallen silent");
    }

    #[test]
    fn games_share_ports_and_a_host_has_no_more_than_its_part() {
        let (mut heard, now) = (heard(), Instant::now());
        heard.handle_packet(&packet(6112, b"\xf7\x32\x10\x00\x01\0\0\0\x02\0\0\0\x0a\0\0\0"), ANA, now);
        assert_eq!(told(&heard), [(ANA, "warcraft-3", 6112)], "it does not say where");
        for port in 1..100 {
            let text = format!("[MOTD]w[/MOTD][AD]{port}[/AD]");
            heard.handle_packet(&packet(4445, text.as_bytes()), ANA, now);
        }
        assert_eq!(heard.servers().count(), MAX_SERVERS);
        heard.handle_packet(&packet(4446, b"[MOTD]w[/MOTD][AD]1[/AD]"), BEN, now);
        assert!(heard.servers().all(|(host, _)| host == ANA), "nobody listens there");
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), port in 0u16..7000) {
            let (mut heard, now) = (heard(), Instant::now());
            heard.handle_packet(&bytes, ANA, now);
            heard.handle_packet(&packet(port, &bytes), ANA, now);
            let mut cut = packet(4445, b"[MOTD]w[/MOTD][AD]1[/AD]");
            cut.truncate(bytes.len());
            heard.handle_packet(&cut, ANA, now);
            prop_assert!(heard.servers().count() <= MAX_SERVERS);
        }
    }
}
