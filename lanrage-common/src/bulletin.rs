//! Bulletins: what members tell each other of themselves, in small datagrams through the tunnel, to the lane's port. The tunnel has
//! proven who sent them, and whatever is in one is of its sender alone: how it reaches the others, which
//! servers run there, what is played, and which multicast groups are joined.
//! Their first byte is none that an IP packet begins with, so an older lane drops them as malformed.
//!
//! | bytes | links |
//! |---|---|
//! | 1 | `0x12` |
//! | 1 | number of entries, at most [`MAX_LINKS`] |
//! | 4 | each entry: overlay address of the member that is reached |
//! | 1 | how: 0 not at all, 1 direct, 2 relay, 3 TLS |
//! | 4 | round trip, microseconds; `0xffffffff` = not known |
//! | 4 | jitter, likewise |
//! | 1 | probes without an answer, percent; 255 = not known |
//!
//! | bytes | servers, all that run there |
//! |---|---|
//! | 1 | `0x13` |
//! | 1 | number of entries, at most [`MAX_SERVERS`] |
//! | 1 | each entry: 1 = wants a password, 2 = played over TCP, 4 = `max_players` is known, 8 = players are not known |
//! | 2 | port |
//! | 2 + 2 | players, and how many may play |
//! | 1 + n | length and bytes of the game's id; then of the server's name, and of its map |
//!
//! | bytes | games, all that run there |
//! |---|---|
//! | 1 | `0x14` |
//! | 1 | number of entries, at most [`MAX_GAMES`] |
//! | 1 + n | each entry: length and bytes of the game's name |
//!
//! | bytes | multicast groups, all that are joined there and not of local networks' own protocols |
//! |---|---|
//! | 1 | `0x15` |
//! | 1 | number of entries, at most [`MAX_GROUPS`]; 255 = more than can be said, or not known |
//! | 16 | each entry: the group, IPv4 as `::ffff:a.b.c.d` |
//!
//! Numbers are big endian. Entries beyond the number belong to later versions.

mod board;
pub mod hosts;

pub use board::Board;

use crate::api::PathKind;
pub use crate::lane::maps::MAX_GROUPS;
use crate::servers::clean;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Entries of one bulletin of links.
pub const MAX_LINKS: usize = 64;
/// Servers that one member tells of.
pub const MAX_SERVERS: usize = 8;
/// Games that one member tells of.
pub const MAX_GAMES: usize = 4;
/// Bytes of a game's id.
const MAX_ID: usize = 40;
const LINKS: u8 = 0x12;
const SERVERS: u8 = 0x13;
const GAMES: u8 = 0x14;
const GROUPS: u8 = 0x15;
const GROUP: usize = 16;
const UNKNOWN: u8 = 255;
const LINK: usize = 14;
/// A round trip or jitter that is longer is none.
const MAX_MICROS: u32 = 60_000_000;
const LOCKED: u8 = 1;
const TCP: u8 = 2;
const HAS_MAX: u8 = 4;
const NO_PLAYERS: u8 = 8;
const PATHS: [PathKind; 4] = [PathKind::None, PathKind::Direct, PathKind::Relay, PathKind::Tls];

/// How a member reaches another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// The other's overlay address.
    pub to: Ipv4Addr,
    /// Over what.
    pub path: PathKind,
    /// Median round trip, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Mean difference of successive round trips, milliseconds.
    pub jitter_ms: Option<f64>,
    /// Probes without an answer, 0 to 1.
    pub loss: Option<f64>,
}

/// A game server that runs at a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Announced {
    /// Id of the game's profile.
    pub game: String,
    /// Whether it is played over TCP.
    pub is_tcp: bool,
    /// Where it is played.
    pub port: u16,
    /// What it is called.
    pub name: String,
    /// What is played on; empty when it does not say.
    pub map: String,
    /// Who plays now, if it says so.
    pub players: Option<u16>,
    /// How many may.
    pub max_players: Option<u16>,
    /// It wants a password.
    pub is_locked: bool,
}

/// One datagram.
#[derive(Debug, Clone, PartialEq)]
pub enum Bulletin {
    /// How the sender reaches others.
    Links(Vec<Link>),
    /// All servers that run at the sender.
    Servers(Vec<Announced>),
    /// Names of all games that run at the sender.
    Games(Vec<String>),
    /// All multicast groups that are joined at the sender; none = not known.
    Groups(Option<BTreeSet<IpAddr>>),
}

impl Bulletin {
    /// Whether what [`crate::lane::report_in`] found is a bulletin.
    pub fn is_in(payload: &[u8]) -> bool {
        matches!(payload.first(), Some(&LINKS | &SERVERS | &GAMES | &GROUPS))
    }

    /// The payload of the datagram. Entries that are too many are left out, and texts that are too long cut.
    pub fn payload(&self) -> Vec<u8> {
        match self {
            Self::Links(links) => {
                let links = &links[..links.len().min(MAX_LINKS)];
                let mut payload = vec![LINKS, links.len() as u8];
                links.iter().for_each(|link| link.write(&mut payload));
                payload
            }
            Self::Servers(servers) => {
                let servers = &servers[..servers.len().min(MAX_SERVERS)];
                let mut payload = vec![SERVERS, servers.len() as u8];
                servers.iter().for_each(|server| server.write(&mut payload));
                payload
            }
            Self::Games(games) => {
                let games = &games[..games.len().min(MAX_GAMES)];
                let mut payload = vec![GAMES, games.len() as u8];
                games.iter().for_each(|name| write_text(clean(name).as_bytes(), &mut payload));
                payload
            }
            Self::Groups(groups) => {
                let groups = groups.as_ref().filter(|groups| groups.len() <= MAX_GROUPS);
                let Some(groups) = groups else { return vec![GROUPS, UNKNOWN] };
                let mut payload = vec![GROUPS, groups.len() as u8];
                groups.iter().for_each(|group| payload.extend_from_slice(&mapped(*group)));
                payload
            }
        }
    }

    /// Reads a payload; none when it is not a bulletin, or is not whole.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let [kind, count, entries @ ..] = payload else { return None };
        let (count, mut entries) = (usize::from(*count), entries);
        match *kind {
            LINKS if count <= MAX_LINKS && entries.len() >= count * LINK => {
                Some(Self::Links(entries.chunks_exact(LINK).take(count).filter_map(Link::read).collect()))
            }
            SERVERS if count <= MAX_SERVERS => {
                (0..count).map(|_| Announced::read(&mut entries)).collect::<Option<_>>().map(Self::Servers)
            }
            GAMES if count <= MAX_GAMES => {
                let name = |_| text(&mut entries).map(|name| clean(&name)).filter(|name| !name.is_empty());
                (0..count).map(name).collect::<Option<_>>().map(Self::Games)
            }
            GROUPS if count == usize::from(UNKNOWN) => Some(Self::Groups(None)),
            GROUPS if count <= MAX_GROUPS && entries.len() >= count * GROUP => {
                let groups = entries.chunks_exact(GROUP).take(count).filter_map(group);
                Some(Self::Groups(Some(groups.filter(IpAddr::is_multicast).collect())))
            }
            _ => None,
        }
    }
}

impl Link {
    fn write(&self, payload: &mut Vec<u8>) {
        let micros = |value: Option<f64>| {
            let micros = value.map(|ms| ms * 1000.0).filter(|micros| *micros <= f64::from(MAX_MICROS));
            micros.map_or(u32::MAX, |micros| micros as u32)
        };
        payload.extend_from_slice(&self.to.octets());
        payload.push(PATHS.iter().position(|path| *path == self.path).unwrap_or(0) as u8);
        payload.extend_from_slice(&micros(self.rtt_ms).to_be_bytes());
        payload.extend_from_slice(&micros(self.jitter_ms).to_be_bytes());
        payload.push(self.loss.map_or(u8::MAX, |loss| (loss.clamp(0.0, 1.0) * 100.0).round() as u8));
    }

    fn read(entry: &[u8]) -> Option<Self> {
        let &[a, b, c, d, path, r0, r1, r2, r3, j0, j1, j2, j3, loss] = entry else { return None };
        let milliseconds = |bytes| {
            let micros = u32::from_be_bytes(bytes);
            (micros <= MAX_MICROS).then(|| f64::from(micros) / 1000.0)
        };
        Some(Self {
            to: Ipv4Addr::new(a, b, c, d),
            path: *PATHS.get(usize::from(path))?,
            rtt_ms: milliseconds([r0, r1, r2, r3]),
            jitter_ms: milliseconds([j0, j1, j2, j3]),
            loss: (loss <= 100).then(|| f64::from(loss) / 100.0),
        })
    }
}

impl Announced {
    fn write(&self, payload: &mut Vec<u8>) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        payload.push(
            flag(self.is_locked, LOCKED)
                | flag(self.is_tcp, TCP)
                | flag(self.max_players.is_some(), HAS_MAX)
                | flag(self.players.is_none(), NO_PLAYERS),
        );
        for number in [self.port, self.players.unwrap_or_default(), self.max_players.unwrap_or_default()] {
            payload.extend_from_slice(&number.to_be_bytes());
        }
        let game = &self.game.as_bytes()[..self.game.len().min(MAX_ID)];
        for text in [game, clean(&self.name).as_bytes(), clean(&self.map).as_bytes()] {
            write_text(text, payload);
        }
    }

    fn read(entries: &mut &[u8]) -> Option<Self> {
        let (&[flags, p0, p1, n0, n1, m0, m1], rest) = entries.split_first_chunk()?;
        *entries = rest;
        let game = text(entries)?;
        let is_id = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let port = u16::from_be_bytes([p0, p1]);
        let is_sound = port != 0 && (1..=MAX_ID).contains(&game.len()) && game.chars().all(is_id);
        let (name, map) = (clean(&text(entries)?), clean(&text(entries)?));
        is_sound.then(|| Self {
            game,
            is_tcp: flags & TCP != 0,
            port,
            name,
            map,
            players: (flags & NO_PLAYERS == 0).then(|| u16::from_be_bytes([n0, n1])),
            max_players: (flags & HAS_MAX != 0).then(|| u16::from_be_bytes([m0, m1])),
            is_locked: flags & LOCKED != 0,
        })
    }
}

fn mapped(address: IpAddr) -> [u8; GROUP] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn group(entry: &[u8]) -> Option<IpAddr> {
    let octets: [u8; GROUP] = entry.try_into().ok()?;
    Some(Ipv6Addr::from(octets).to_canonical())
}

fn write_text(text: &[u8], payload: &mut Vec<u8>) {
    payload.push(text.len() as u8);
    payload.extend_from_slice(text);
}

fn text(entries: &mut &[u8]) -> Option<String> {
    let (length, rest) = entries.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    *entries = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests;
