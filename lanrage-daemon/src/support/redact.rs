//! Takes out of texts what nobody else should have: secrets that are known, whatever looks like a key or an invite, and
//! addresses of the public internet, which become numbers so that it still shows which of them are the same.

use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Shortest text that may be a key.
const KEY: usize = 22;
/// Of a key, enough to tell it from others.
const SHOWN: usize = 6;

/// Remembers which address has which number.
#[derive(Debug)]
pub(crate) struct Redaction<'a> {
    secrets: &'a [&'a str],
    addresses: Vec<IpAddr>,
}

impl<'a> Redaction<'a> {
    /// `secrets` are taken out wherever they are.
    pub(crate) fn new(secrets: &'a [&'a str]) -> Self {
        Self { secrets, addresses: Vec::new() }
    }

    /// All texts in a tree, names of fields included.
    pub(crate) fn value(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => self.text(&text).into(),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (self.text(&name), self.value(value))).collect()
            }
            other => other,
        }
    }

    /// One text.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "[secret]");
        }
        pieces(&text, is_between).map(|piece| self.word(piece)).collect()
    }

    fn word(&mut self, word: &str) -> String {
        if word.contains("/j/") {
            return "[invite]".into();
        }
        if is_like_a_key(word) {
            return format!("{}…", &word[..SHOWN]);
        }
        pieces(word, |c| matches!(c, '/' | '@')).map(|piece| self.address(piece)).collect()
    }

    fn address(&mut self, text: &str) -> String {
        let bare = text.trim_end_matches(['.', ':']);
        let end = &text[bare.len()..];
        if let Ok(ip) = bare.trim_matches(['[', ']']).parse::<IpAddr>() {
            return if is_public(ip) { format!("{}{end}", self.number(ip)) } else { text.into() };
        }
        match bare.parse::<SocketAddr>() {
            Ok(address) if is_public(address.ip()) => {
                format!("{}:{}{end}", self.number(address.ip()), address.port())
            }
            _ => text.into(),
        }
    }

    fn number(&mut self, ip: IpAddr) -> String {
        let known = self.addresses.iter().position(|known| *known == ip);
        let at = known.unwrap_or_else(|| {
            self.addresses.push(ip);
            self.addresses.len() - 1
        });
        format!("public-{}", at + 1)
    }
}

/// The text in pieces that together are all of it: separators alone, and what is between them.
fn pieces(text: &str, is_separator: impl Fn(char) -> bool + Copy) -> impl Iterator<Item = &str> {
    text.split_inclusive(is_separator).flat_map(move |piece| {
        let body = piece.trim_end_matches(is_separator);
        [body, &piece[body.len()..]].into_iter().filter(|part| !part.is_empty())
    })
}

fn is_between(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '"' | '\'' | '(' | ')' | ',' | ';' | '<' | '>' | '{' | '}' | '=' | '|' | '`')
}

/// Long, and of small and capital letters and digits, as base64 is; or long and hexadecimal.
fn is_like_a_key(word: &str) -> bool {
    let has = |class: fn(&u8) -> bool| word.bytes().any(|byte| class(&byte));
    let is_base64 = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+/#.".contains(&byte))
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase);
    let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit()) && has(u8::is_ascii_digit);
    word.len() >= KEY && (is_base64 || is_hex)
}

/// Outside homes, parties and this machine.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let is_carriers = ip.octets()[0] == 100 && (64..128).contains(&ip.octets()[1]);
            let is_group = ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.octets()[0] == 0
                || is_carriers
                || is_group)
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn secrets_keys_invites_and_public_addresses_go_the_rest_stays() {
        let mut redaction = Redaction::new(&["hunter2"]);
        let mut check = |text: &str, wanted: &str| assert_eq!(redaction.text(text), wanted);
        check("the word is hunter2.", "the word is [secret].");
        check("endpoint=203.0.113.7:41641 to 198.51.100.4", "endpoint=public-1:41641 to public-2");
        check("again 203.0.113.7, and [2001:db8::7]:3478", "again public-1, and public-3:3478");
        check("http://203.0.113.7:8667/healthz", "http://public-1:8667/healthz");
        check(
            "home 192.168.1.5:80, party 10.66.0.2/16, fe80::1 0.0.0.0:3478",
            "home 192.168.1.5:80, party 10.66.0.2/16, fe80::1 0.0.0.0:3478",
        );
        check(
            "at 2026-11-27T22:17:21.123456Z INFO lanrage_daemon::peer::event_loop: peer is ready",
            "at 2026-11-27T22:17:21.123456Z INFO lanrage_daemon::peer::event_loop: peer is ready",
        );
        check("join http://192.0.2.1:8667/j/BQUF#AQEB now", "join [invite] now");
        check("key=gI6EdUSYvn8ugXOt8QQD6Yc9JQnEcVyX0BZ0hSQn7Vs=", "key=gI6EdU…=");
        check(
            "/var/lib/lanrage/settings.toml version 1.2.3.4000",
            "/var/lib/lanrage/settings.toml version 1.2.3.4000",
        );
    }

    #[test]
    fn trees_are_redacted_as_a_whole() {
        let tree = json!({ "203.0.113.7": [{ "a": "203.0.113.7:1" }, 7, null], "mine": true });
        let wanted = json!({ "public-1": [{ "a": "public-1:1" }, 7, null], "mine": true });
        assert_eq!(Redaction::new(&[]).value(tree), wanted);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text: String) {
            Redaction::new(&["x"]).text(&text);
        }

        #[test]
        fn no_key_passes(key: [u8; 32], before in "[a-z =:\"]{0,9}", after in "[ ,)\"]{0,3}") {
            use base64::Engine as _;
            for key in [base64::engine::general_purpose::STANDARD.encode(key), base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key)] {
                prop_assume!(key.bytes().any(|byte| byte.is_ascii_digit()));
                let text = Redaction::new(&[]).text(&format!("{before} {key}{after}"));
                prop_assert!(!text.contains(&key[..20]), "{}", text);
            }
        }
    }
}
