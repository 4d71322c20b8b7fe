//! Minecraft: the unconnected ping of RakNet (Bedrock) and the server list ping of Java, as the community describes them.

use super::{Info, MAX_ANSWER, clean, uncoloured};
use serde_json::Value;

/// Offline message data id of RakNet.
const MAGIC: [u8; 16] = *b"\x00\xff\xff\x00\xfe\xfe\xfe\xfe\xfd\xfd\xfd\xfd\x12\x34\x56\x78";
const PING: u8 = 0x01;
const PONG: u8 = 0x1c;
/// Time and the server's id.
const PONG_HEAD: usize = 16;
/// Parts of a text that are looked into.
const MAX_DEPTH: usize = 8;

pub(super) fn ping() -> Vec<u8> {
    [&[PING], &[0; 8][..], &MAGIC, &[0; 8]].concat()
}

/// `MCPE;name;protocol;version;players;most;id;world;…`
pub(super) fn parse_pong(answer: &[u8]) -> Option<Info> {
    let text = answer.strip_prefix(&[PONG])?.get(PONG_HEAD..)?.strip_prefix(&MAGIC)?;
    let (length, text) = text.split_first_chunk()?;
    let text = String::from_utf8_lossy(text.get(..usize::from(u16::from_be_bytes(*length)))?);
    let parts: Vec<&str> = text.split(';').collect();
    let [_edition, name, _protocol, _version, players, most, more @ ..] = &parts[..] else { return None };
    Some(Info {
        name: shown(name),
        map: shown(more.get(1).copied().unwrap_or_default()),
        players: Some(players.parse().ok()?),
        max_players: most.parse().ok(),
        ..Info::default()
    })
}

/// Handshake with the wish for a status, and the request for it. Servers answer whatever version and name they are asked by.
pub(super) fn list_ping() -> Vec<u8> {
    let name = b"localhost";
    let mut shake = vec![0, 0xff, 0xff, 0xff, 0xff, 0x0f, name.len() as u8];
    shake.extend_from_slice(name);
    shake.extend_from_slice(&[0x63, 0xdd, 1]);
    [&[shake.len() as u8][..], &shake, &[1, 0]].concat()
}

pub(super) fn parse_list(answer: &[u8]) -> Option<Info> {
    let (length, rest) = number(answer)?;
    let (kind, rest) = number(rest.get(..length)?)?;
    let (length, text) = number(rest)?;
    let status: Value = serde_json::from_slice(text.get(..length)?).ok().filter(|_| kind == 0)?;
    let players = &status["players"];
    let count = |key| players[key].as_u64().map(|count| count.min(u16::MAX.into()) as u16);
    let mut name = String::new();
    read(&status["description"], MAX_DEPTH, &mut name);
    Some(Info {
        name: shown(&name),
        map: String::new(),
        players: Some(count("online")?),
        max_players: count("max"),
        ..Info::default()
    })
}

/// A number of up to 32 bits, seven in each byte, the lowest first.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().take(5).position(|byte| byte & 0x80 == 0)?;
    let value = bytes[..=end].iter().rev().fold(0u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
    let value = usize::try_from(value).ok().filter(|value| *value <= MAX_ANSWER)?;
    Some((value, &bytes[end + 1..]))
}

/// A text is a string, or parts that hold strings.
fn read(text: &Value, depth: usize, shown: &mut String) {
    if depth == 0 || shown.len() > MAX_ANSWER {
        return;
    }
    match text {
        Value::String(text) => shown.push_str(text),
        Value::Array(parts) => parts.iter().for_each(|part| read(part, depth - 1, shown)),
        Value::Object(part) => {
            for key in ["text", "extra"] {
                part.get(key).into_iter().for_each(|part| read(part, depth - 1, shown));
            }
        }
        _ => {}
    }
}

fn shown(text: &str) -> String {
    clean(&uncoloured(&text.replace('\n', " "), '§', |_| true))
}
