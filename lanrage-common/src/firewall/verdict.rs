//! What becomes of a packet, and why.

use super::port::Port;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::time::Instant;

/// Number of a user's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(pub u32);

impl Account {
    /// Whether a person logs in by it. Systems give services lower numbers (`UID_MIN` of login.defs), `nobody` 65534, and
    /// systemd's transient ones 61184 to 65519 (systemd's UIDS-GIDS.md).
    pub fn is_person(self) -> bool {
        self.0 >= 1000 && !(61_184..=65_535).contains(&self.0)
    }
}

/// Who listens on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// Nobody.
    Nobody,
    /// A person's program.
    Person,
    /// A program that takes part in LAN discovery, whoever runs it.
    Player,
    /// Another program of the system.
    System,
    /// This system does not tell.
    Unknown,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on.
    Pass,
    /// Dropped, and counted.
    Refuse,
    /// Depends on who listens: look, and tell [`super::Firewall::handle_owner`].
    Ask(Question),
}

/// A packet that waits for [`super::Firewall::handle_owner`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Who listens there?
    pub port: Port,
    pub(super) member: Ipv4Addr,
}

/// Why packets to a port were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A person has closed it.
    Denied,
    /// A service lives there.
    Service(&'static str),
    /// No game listens there.
    Owner(Owner),
    /// More ports were tried than can be looked at.
    TooMany,
    /// Neither TCP nor UDP, nor ping.
    Protocol,
    /// A fragment that would change what was judged.
    Fragment,
    /// No packet that has ports where it should.
    Malformed,
}

impl Refusal {
    /// The word by which it is counted.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Service(_) => "service",
            Self::Owner(Owner::Nobody) => "nobody",
            Self::Owner(_) => "system",
            Self::TooMany => "too_many",
            Self::Protocol => "protocol",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
        }
    }
}

/// Packets of one member to one port that were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// How many.
    pub packets: u64,
    /// Why, the last time.
    pub why: Refusal,
    pub(super) last: Instant,
}
