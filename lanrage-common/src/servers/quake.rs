//! Status of Quake servers: four bytes `ff`, a word, a line of `\key\value`, and a line for each player.

use super::{Info, clean, uncoloured};

const MARK: [u8; 4] = [0xff; 4];

pub(super) fn request(word: &str) -> Vec<u8> {
    [&MARK, word.as_bytes(), b"\n"].concat()
}

pub(super) fn parse(answer: &[u8], word: &str) -> Option<Info> {
    let text = answer.strip_prefix(&MARK)?.strip_prefix(word.as_bytes())?;
    let text = String::from_utf8_lossy(text);
    let mut lines = text.split('\n');
    let facts = lines.next()?;
    let fact = |keys: &[&str]| keys.iter().find_map(|key| value(facts, key));
    let number = |keys: &[&str]| fact(keys).and_then(|value| value.parse().ok());
    let is_code = |c: char| c.is_ascii_alphanumeric();
    let shown = |text: &str| clean(&uncoloured(text, '^', is_code));
    Some(Info {
        name: shown(fact(&["sv_hostname", "hostname"])?),
        map: shown(fact(&["mapname"]).unwrap_or_default()),
        players: Some(lines.filter(|line| !line.trim_matches(['\0', ' ']).is_empty()).count() as u16),
        max_players: number(&["sv_maxclients", "maxclients"]),
        is_locked: fact(&["g_needpass", "needpass"]).is_some_and(|value| value != "0"),
        port: None,
    })
}

/// Keys are the same in any case.
fn value<'a>(facts: &'a str, wanted: &str) -> Option<&'a str> {
    let mut words = facts.split('\\').skip(1);
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        if key.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
    }
    None
}
