//! A2S_INFO of Source and GoldSrc servers (Valve's description of server queries): little endian, texts end with a zero.

use super::{Info, clean};

const MARK: [u8; 4] = [0xff; 4];
const CHALLENGE: u8 = b'A';
const SOURCE: u8 = b'I';
const GOLDSRC: u8 = b'm';
/// "The Ship" has three bytes more.
const THE_SHIP: u16 = 2400;
const HAS_PORT: u8 = 0x80;

pub(super) fn request(challenge: &[u8]) -> Vec<u8> {
    [&MARK, &b"TSource Engine Query\0"[..], challenge].concat()
}

/// The four bytes that a server wants to see in the question.
pub(super) fn challenge(answer: &[u8]) -> Option<&[u8]> {
    let challenge = answer.strip_prefix(&MARK)?.strip_prefix(&[CHALLENGE])?;
    (challenge.len() == 4).then_some(challenge)
}

pub(super) fn parse(answer: &[u8]) -> Option<Info> {
    let (kind, rest) = answer.strip_prefix(&MARK)?.split_first()?;
    let mut reader = Reader(rest);
    match *kind {
        SOURCE => source(&mut reader),
        GOLDSRC => goldsrc(&mut reader),
        _ => None,
    }
}

fn source(reader: &mut Reader<'_>) -> Option<Info> {
    reader.byte()?;
    let (name, map) = (clean(&reader.text()?), clean(&reader.text()?));
    let (_folder, _game) = (reader.text()?, reader.text()?);
    let app = reader.word()?;
    let (players, max_players) = (reader.byte()?, reader.byte()?);
    let (_bots, _kind, _system) = (reader.byte()?, reader.byte()?, reader.byte()?);
    let is_locked = reader.byte()? != 0;
    reader.byte()?;
    if app == THE_SHIP {
        let _ = (reader.byte()?, reader.byte()?, reader.byte()?);
    }
    // what follows is left out by old servers
    let port = reader.text().and_then(|_| reader.byte()).filter(|flags| flags & HAS_PORT != 0);
    let port = port.and_then(|_| reader.word()).filter(|port| *port != 0);
    Some(Info {
        name,
        map,
        players: Some(players.into()),
        max_players: Some(max_players.into()),
        is_locked,
        port,
    })
}

fn goldsrc(reader: &mut Reader<'_>) -> Option<Info> {
    reader.text()?;
    let (name, map) = (clean(&reader.text()?), clean(&reader.text()?));
    let (_folder, _game) = (reader.text()?, reader.text()?);
    let (players, max_players) = (reader.byte()?, reader.byte()?);
    let (_protocol, _kind, _system) = (reader.byte()?, reader.byte()?, reader.byte()?);
    let is_locked = reader.byte()? != 0;
    Some(Info {
        name,
        map,
        players: Some(players.into()),
        max_players: Some(max_players.into()),
        is_locked,
        port: None,
    })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    fn text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = &self.0[end + 1..];
        Some(text)
    }
}
