//! Game servers that run at members: how one is asked what is played there, and what it says.
//!
//! | module | protocol |
//! |---|---|
//! | `quake` | status of Quake II and III and their relatives, over UDP |
//! | `source` | A2S_INFO of Source and GoldSrc, over UDP |
//! | `minecraft` | unconnected ping of Bedrock over UDP, server list ping of Java over TCP |
//! | `beacon` | what hosts announce without being asked; `heard` keeps it for a while |
//!
//! An answer comes from whatever listens at a port, so nothing in it is trusted: lengths are checked, texts are made short
//! and cleaned of what a screen would obey.

mod beacon;
mod heard;
mod minecraft;
mod quake;
mod source;

pub use beacon::Beacon;
pub use heard::{Heard, Known, LIFE as BEACON_LIFE};

use serde::{Deserialize, Serialize};

/// Bytes of a name or a map that are kept.
pub const MAX_TEXT: usize = 48;
/// No answer is longer.
pub const MAX_ANSWER: usize = 64 * 1024;

/// How a kind of server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// `status` of Quake II.
    Quake2,
    /// `getstatus` of Quake III, and of the engines that came from it.
    Quake3,
    /// A2S_INFO of Source and GoldSrc.
    Source,
    /// Unconnected ping of RakNet.
    MinecraftBedrock,
    /// Server list ping.
    MinecraftJava,
}

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// Its name, at most [`MAX_TEXT`] bytes.
    pub name: String,
    /// What is played on, at most [`MAX_TEXT`] bytes; empty when it does not say.
    pub map: String,
    /// Who plays now, if it says so.
    pub players: Option<u16>,
    /// How many may.
    pub max_players: Option<u16>,
    /// It wants a password.
    pub is_locked: bool,
    /// Where it is played, if not where it was asked.
    pub port: Option<u16>,
}

/// What comes after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It wants to be asked like this.
    Ask(Vec<u8>),
    /// That is all.
    Found(Info),
    /// No answer of this protocol, or not yet the whole of it.
    Nothing,
}

impl Query {
    /// Whether it is asked over TCP, so that an answer may come in parts.
    pub const fn is_tcp(self) -> bool {
        matches!(self, Self::MinecraftJava)
    }

    /// The first question.
    pub fn request(self) -> Vec<u8> {
        match self {
            Self::Quake2 => quake::request("status"),
            Self::Quake3 => quake::request("getstatus"),
            Self::Source => source::request(&[]),
            Self::MinecraftBedrock => minecraft::ping(),
            Self::MinecraftJava => minecraft::list_ping(),
        }
    }

    /// Reads an answer: a datagram, or all that has come over TCP so far.
    pub fn handle(self, answer: &[u8]) -> Step {
        let found = match self {
            Self::Quake2 => quake::parse(answer, "print\n"),
            Self::Quake3 => quake::parse(answer, "statusResponse\n"),
            Self::Source => match source::challenge(answer) {
                Some(challenge) => return Step::Ask(source::request(challenge)),
                None => source::parse(answer),
            },
            Self::MinecraftBedrock => minecraft::parse_pong(answer),
            Self::MinecraftJava => minecraft::parse_list(answer),
        };
        found.map_or(Step::Nothing, Step::Found)
    }
}

/// What fits a line on a screen: no control characters, no blanks at the ends, at most [`MAX_TEXT`] bytes.
pub fn clean(text: &str) -> String {
    let shown: String = text.chars().filter(|c| !c.is_control()).collect();
    let shown = shown.trim();
    let fits = shown.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_TEXT);
    shown[..fits.last().unwrap_or(0)].trim_end().to_owned()
}

/// Text without the codes that colour what follows: `mark` and one character.
fn uncoloured(text: &str, mark: char, is_code: impl Fn(char) -> bool) -> String {
    let mut shown = String::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match characters.peek() {
            Some(code) if c == mark && is_code(*code) => drop(characters.next()),
            _ => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests;
