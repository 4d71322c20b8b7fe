//! What a person has said about ports; the last word counts.

use super::port::{Port, PortRange};
use serde::{Deserialize, Serialize};

/// Words that are kept at most.
pub const MAX_WORDS: usize = 128;

/// What members may reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Games.
    #[default]
    Games,
    /// Everything.
    Open,
}

/// What shall become of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Open, whoever listens there.
    Allow,
    /// Closed, whoever listens there.
    Deny,
    /// As if nobody had said anything.
    Auto,
}

/// One word of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// About what.
    pub ports: PortRange,
    /// What.
    pub choice: Choice,
}

/// All that a person has said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What members may reach; none when nothing was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// In the order in which it was said.
    #[serde(default)]
    pub words: Vec<Word>,
}

impl Policy {
    /// Takes a word after those of `base`; own ones that it says anew are forgotten. Refused when there are too many.
    pub fn say(&mut self, word: Word, base: &Self) -> bool {
        self.words.retain(|older| !word.ports.covers(&older.ports));
        let has_room = self.words.len() < MAX_WORDS;
        let mut older = base.words.iter().chain(&self.words);
        // there is nothing to take back
        let says_nothing =
            word.choice == Choice::Auto && !older.any(|older| older.ports.overlaps(&word.ports));
        if has_room && !says_nothing {
            self.words.push(word);
        }
        has_room
    }

    /// This after `base`, which counts where nothing else was said.
    pub fn after(&self, base: &Self) -> Self {
        let words = base.words.iter().chain(&self.words).cloned().collect();
        Self { mode: self.mode.or(base.mode), words }
    }

    /// What was said last about a port.
    pub fn choice(&self, port: Port) -> Choice {
        let last = self.words.iter().rev().find(|word| word.ports.contains(port));
        last.map_or(Choice::Auto, |word| word.choice)
    }

    /// Whether members may reach everything.
    pub fn is_open(&self) -> bool {
        self.mode == Some(Mode::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::Transport;

    fn word(ports: &str, choice: Choice) -> Word {
        Word { ports: ports.parse().unwrap(), choice }
    }

    fn tcp(number: u16) -> Port {
        Port { transport: Transport::Tcp, number }
    }

    #[test]
    fn the_last_word_counts() {
        let mut policy = Policy::default();
        for said in
            [word("tcp/1-100", Choice::Deny), word("tcp/50", Choice::Allow), word("tcp/60", Choice::Auto)]
        {
            assert!(policy.say(said, &Policy::default()));
        }
        let all = [40, 50, 60, 101].map(|number| policy.choice(tcp(number)));
        assert_eq!(all, [Choice::Deny, Choice::Allow, Choice::Auto, Choice::Auto]);
        policy.say(word("tcp/1-200", Choice::Auto), &Policy::default());
        assert_eq!(policy.words, []);
    }

    #[test]
    fn what_is_said_here_counts_more_than_the_file() {
        let base = Policy { mode: Some(Mode::Open), words: vec![word("tcp/50-60", Choice::Allow)] };
        let own = Policy { mode: None, words: vec![word("tcp/50", Choice::Deny)] };
        let policy = own.after(&base);
        assert!(policy.is_open());
        assert_eq!([50, 51].map(|number| policy.choice(tcp(number))), [Choice::Deny, Choice::Allow]);
        let mut own = Policy { mode: Some(Mode::Games), ..own };
        own.say(word("tcp/50-52", Choice::Auto), &base);
        assert_eq!(
            [52, 53].map(|number| own.after(&base).choice(tcp(number))),
            [Choice::Auto, Choice::Allow]
        );
        assert!(!own.after(&base).is_open());
    }

    #[test]
    fn words_are_bounded() {
        let mut policy = Policy::default();
        let said = (1..=1000)
            .filter(|number| policy.say(word(&format!("udp/{number}"), Choice::Allow), &Policy::default()))
            .count();
        assert_eq!((said, policy.words.len()), (MAX_WORDS, MAX_WORDS));
    }
}
