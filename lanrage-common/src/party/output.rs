//! What a party client says, and what it keeps.

use crate::api::Problem;
use crate::identity::{DeviceKey, Fingerprint, RosterEntry, WgKey};
use crate::protocol::{ClientMessage, Member, Membership, RelayInfo};
use serde::{Deserialize, Serialize};

/// What survives a restart. Holds no secret; the daemon keeps the party's secret beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyState {
    /// The party and the own address.
    pub membership: Membership,
    /// Whom the invite named as host.
    pub host: Fingerprint,
    /// Number of the newest change held.
    pub seq: Option<u64>,
    /// Verified members, without this device.
    pub members: Vec<Member>,
    /// The last relay list.
    pub relays: Vec<RelayInfo>,
}

/// What the caller must do or know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to the control server.
    Send(ClientMessage),
    /// The host's entry was verified: the membership is real. Once.
    HostVerified,
    /// A verified member is new.
    MemberUp(RosterEntry),
    /// A verified member has changed its entry.
    MemberChanged {
        /// As it was.
        old: RosterEntry,
        /// As it is.
        new: RosterEntry,
    },
    /// The devices behind a member are others than before.
    DevicesChanged {
        /// Which member.
        device: DeviceKey,
    },
    /// A member has left.
    MemberGone(RosterEntry),
    /// A member connected to the control server, or went.
    Presence {
        /// Who.
        device: DeviceKey,
        /// Now connected?
        online: bool,
    },
    /// The relays to choose from.
    Relays(Vec<RelayInfo>),
    /// A ticket for a relay.
    Ticket {
        /// For which relay.
        relay: String,
        /// The sealed ticket.
        ticket: Vec<u8>,
        /// Key of MESSAGE-INTEGRITY.
        session_key: [u8; 32],
        /// Seconds from now.
        expires_in: u64,
    },
    /// A member's signal: for the path agent.
    Signal {
        /// From whom.
        from: WgKey,
        /// Base64.
        body: String,
    },
    /// Something a person should know; replaces an earlier one with the same code.
    Problem(Problem),
    /// The problem with this code is over.
    Solved(&'static str),
    /// The invite does not fit this party: do not join, and show the text.
    WrongSecret(String),
    /// [`super::PartyClient::state`] has changed: save it.
    Save,
}
