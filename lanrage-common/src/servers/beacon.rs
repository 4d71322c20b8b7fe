//! What hosts announce by themselves, without being asked. Each format has its source beside it.

use super::{Info, clean, uncoloured};

/// How a game announces its hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beacon {
    /// A world that was opened to LAN.
    MinecraftJava,
    /// A local game.
    AmongUs,
    /// A hosted game.
    Factorio,
    /// A game that waits for players.
    #[serde(rename = "warcraft-3")]
    Warcraft3,
    /// A game that waits for players.
    DawnOfWar,
    /// A server; only when a client searches.
    Freeciv,
}

impl Beacon {
    /// What the announcement says, if it is one. Whoever sends it is not trusted.
    pub fn parse(self, payload: &[u8]) -> Option<Info> {
        match self {
            Self::MinecraftJava => minecraft(payload),
            Self::AmongUs => among_us(payload),
            Self::Factorio => factorio(payload),
            Self::Warcraft3 => warcraft(payload),
            Self::DawnOfWar => dawn_of_war(payload),
            Self::Freeciv => freeciv(payload),
        }
    }
}

/// `[MOTD]text[/MOTD][AD]port[/AD]`; the address is the sender's (the game's LAN pinger). Before 1.4 it was `address:port`.
fn minecraft(payload: &[u8]) -> Option<Info> {
    let text = String::from_utf8_lossy(payload);
    let between = |begin: &str, end: &str| Some(text.split_once(begin)?.1.split_once(end)?.0);
    let place = between("[AD]", "[/AD]")?;
    let port = place.rsplit(':').next()?.trim().parse().ok().filter(|port| *port != 0)?;
    let name = between("[MOTD]", "[/MOTD]").unwrap_or_default();
    Some(Info { name: clean(&uncoloured(name, '§', |_| true)), port: Some(port), ..Info::default() })
}

/// Two bytes, then `name~state~players~` (SkeldJS).
fn among_us(payload: &[u8]) -> Option<Info> {
    let text = String::from_utf8_lossy(payload.strip_prefix(&[4, 2])?);
    let mut parts = text.split('~');
    let (name, _state, players) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Info { name: clean(name), players: Some(players.parse().ok()?), ..Info::default() })
}

/// One byte, then the port, little endian (captures in two relays for these announcements).
fn factorio(payload: &[u8]) -> Option<Info> {
    let &[0x0f, low, high] = payload else { return None };
    let port = u16::from_le_bytes([low, high]);
    (port != 0).then(|| Info { port: Some(port), ..Info::default() })
}

/// `W3GS_REFRESHGAME`: mark, length, number of the game, players, slots (GHost, Aura).
fn warcraft(payload: &[u8]) -> Option<Info> {
    let rest = payload.strip_prefix(&[0xf7, 0x32, 16, 0])?;
    let (_game, players, slots) = (rest.get(..4)?, number(rest, 4)?, number(rest, 8)?);
    let (players, slots) = (u16::try_from(players).ok()?, u16::try_from(slots).ok()?);
    (rest.len() == 12).then(|| Info { players: Some(players), max_players: Some(slots), ..Info::default() })
}

/// Mark, a GUID, the host's name, players, slots, 9 bytes, its address, its port (opengsq). What follows is left alone.
fn dawn_of_war(payload: &[u8]) -> Option<Info> {
    const GUID: usize = 38;
    let rest = payload.strip_prefix(&[8, 1])?;
    let guid = number(rest, 0)? as usize;
    let rest = rest.get(4 + GUID..).filter(|_| guid == GUID)?;
    let length = usize::try_from(number(rest, 0)?).ok().filter(|units| *units <= 64)? * 2;
    let name: Vec<u16> =
        rest.get(4..4 + length)?.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    let rest = rest.get(4 + length + 4..)?;
    let (players, slots) = (u16::try_from(number(rest, 0)?).ok()?, u16::try_from(number(rest, 4)?).ok()?);
    let port = rest.get(8 + 9 + 4..8 + 9 + 6)?;
    let port = u16::from_le_bytes([port[0], port[1]]);
    Some(Info {
        name: clean(&String::from_utf16_lossy(&name)),
        players: Some(players),
        max_players: Some(slots),
        port: Some(port).filter(|port| *port != 0),
        ..Info::default()
    })
}

/// Version, then texts that end with a zero: host, port, release, state, players, since version 2 how many of them are people,
/// what the server says of itself (Freeciv's source). The host's own idea of its name is not where it is reached.
fn freeciv(payload: &[u8]) -> Option<Info> {
    let (version, rest) = payload.split_first()?;
    let texts: Vec<_> = rest.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let [host, port, _release, state, players, more @ ..] = &texts[..] else { return None };
    let (people, message) = match (version, more) {
        (1, [message, ..]) => (players, message),
        (2, [people, message, ..]) => (people, message),
        _ => return None,
    };
    let name = [message, host].into_iter().map(|text| clean(text)).find(|text| !text.is_empty());
    Some(Info {
        name: name.unwrap_or_default(),
        map: clean(state),
        players: Some(people.parse().ok()?),
        port: Some(port.parse().ok().filter(|port| *port != 0)?),
        ..Info::default()
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Beacon; 6] = [
        Beacon::MinecraftJava,
        Beacon::AmongUs,
        Beacon::Factorio,
        Beacon::Warcraft3,
        Beacon::DawnOfWar,
        Beacon::Freeciv,
    ];

    /// Name, players, places, port.
    type Told = (String, Option<u16>, Option<u16>, Option<u16>);

    fn told(format: Beacon, payload: &[u8]) -> Option<Told> {
        format.parse(payload).map(|it| (it.name, it.players, it.max_players, it.port))
    }

    #[test]
    fn a_world_says_its_name_and_port() {
        let said = |text: &str| told(Beacon::MinecraftJava, text.as_bytes());
        let world = |name: &str, port| Some((name.to_owned(), None, None, Some(port)));
        assert_eq!(said("[MOTD]Ana - §aWorld[/MOTD][AD]54321[/AD]"), world("Ana - World", 54321));
        assert_eq!(said("[MOTD]old[/MOTD][AD]10.0.0.1:25565[/AD]"), world("old", 25565));
        assert_eq!(said("[AD]7[/AD]"), world("", 7));
        for wrong in ["[MOTD]x[/MOTD]", "[AD]0[/AD]", "[AD]65536[/AD]", "[AD]port[/AD]", "[/AD]7[AD]"] {
            assert_eq!(said(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn small_announcements_are_read() {
        assert_eq!(told(Beacon::AmongUs, b"\x04\x02Ana~Open~3~"), Some(("Ana".into(), Some(3), None, None)));
        assert_eq!(told(Beacon::Factorio, b"\x0f\x95\x85"), Some((String::new(), None, None, Some(34197))));
        let refresh = b"\xf7\x32\x10\x00\x01\0\0\0\x02\0\0\0\x0a\0\0\0";
        assert_eq!(told(Beacon::Warcraft3, refresh), Some((String::new(), Some(2), Some(10), None)));
        // a client that searches is no host
        assert_eq!(told(Beacon::Warcraft3, b"\xf7\x2f\x10\x00PX3W\x1b\0\0\0\0\0\0\0"), None);
    }

    #[test]
    fn a_dawn_of_war_host_says_its_name_and_players() {
        let mut packet =
            b"\x08\x01\x26\0\0\0{12345678-1234-1234-1234-123456789abc}\x03\0\0\0A\0n\0a\0".to_vec();
        packet.extend_from_slice(b"\0\0\0\0\x01\0\0\0\x08\0\0\0.........\x0a\x42\x00\x02\xe0\x17....");
        assert_eq!(told(Beacon::DawnOfWar, &packet), Some(("Ana".into(), Some(1), Some(8), Some(6112))));
    }

    #[test]
    fn both_versions_of_freeciv_are_read() {
        let one = b"\x01ana\x005556\x002.0.9\0Running\x003\0hello\0";
        assert_eq!(told(Beacon::Freeciv, one), Some(("hello".into(), Some(3), None, Some(5556))));
        let two = b"\x0210.66.0.2\x005557\x003.0.6\0Pregame\x005\x001\0\0";
        assert_eq!(told(Beacon::Freeciv, two), Some(("10.66.0.2".into(), Some(1), None, Some(5557))));
        assert_eq!(told(Beacon::Freeciv, b"\x02"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), whole in 0usize..6) {
            let begins: [&[u8]; 6] =
                [b"[MOTD]", b"\x04\x02", b"\x0f", b"\xf7\x32\x10\x00", b"\x08\x01\x26\0\0\0", b"\x02"];
            let begun = [begins[whole], &bytes].concat();
            for (format, bytes) in ALL.into_iter().flat_map(|format| [(format, &bytes), (format, &begun)]) {
                if let Some(info) = format.parse(bytes) {
                    prop_assert!(info.name.len() <= super::super::MAX_TEXT && info.port != Some(0));
                }
            }
        }
    }
}
