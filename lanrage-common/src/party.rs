//! A member's view of its party: what the control server says, believed only as far as the party's secret proves it.

use crate::api::Problem;
use crate::identity::{Device, DeviceKey, Fingerprint, PartySecret, RosterEntry, WgKey};
use crate::protocol::{ClientMessage, Member, Membership, Party, RelayInfo, ServerMessage};
use crate::time::Now;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Instant;

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
    /// The invite's secret is not this party's: leave, and show the text.
    WrongSecret(String),
    /// [`PartyClient::state`] has changed: save it.
    Save,
}

/// One party as this device sees it.
#[derive(Debug)]
pub struct PartyClient {
    state: PartyState,
    own: Member,
    outputs: VecDeque<Output>,
}

impl PartyClient {
    /// A fresh membership; `host` is from the invite (the own fingerprint for the host itself).
    pub fn new(
        membership: Membership,
        secret: PartySecret,
        host: Fingerprint,
        device: &Device,
        name: &str,
    ) -> Self {
        let state = PartyState { membership, host, seq: None, members: Vec::new(), relays: Vec::new() };
        Self::restore(state, secret, device, name)
    }

    /// A membership from the state file; its members come out as [`Output::MemberUp`] at once.
    pub fn restore(state: PartyState, secret: PartySecret, device: &Device, name: &str) -> Self {
        let entry = RosterEntry {
            name: name.into(),
            device: device.key(),
            wg: device.wg_key(),
            wg_signature: device.wg_signature(),
            address: state.membership.address,
            epoch: state.membership.party.epoch,
        };
        let mac = secret.roster_mac(&state.membership.party.id, &entry);
        Self { own: Member { entry, mac }, state, outputs: VecDeque::new() }
    }

    /// The link to the control server is up and logged in.
    pub fn handle_connected(&mut self, _now: Now) {}

    /// The link to the control server is down: nothing changes but the hints.
    pub fn handle_disconnected(&mut self) {}

    /// A message from the control server; those about other parties are ignored.
    pub fn handle_server_message(&mut self, _message: ServerMessage, _now: Now) {}

    /// Does what is due.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// When to call [`PartyClient::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What to do next; drain until `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What to save.
    pub fn state(&self) -> &PartyState {
        &self.state
    }

    /// The party.
    pub fn party(&self) -> &Party {
        &self.state.membership.party
    }

    /// The own entry.
    pub fn own(&self) -> &RosterEntry {
        &self.own.entry
    }

    /// Verified members, without this device.
    pub fn members(&self) -> impl Iterator<Item = &RosterEntry> {
        self.state.members.iter().map(|member| &member.entry)
    }

    /// Whether a member is connected to the control server (a hint).
    pub fn is_online(&self, _device: &DeviceKey) -> bool {
        false
    }
}
