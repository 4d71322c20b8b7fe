//! Messages between daemon and control server: JSON over HTTP and WebSocket, all under `/v1`.
//!
//! | request | body → answer | who |
//! |---|---|---|
//! | `POST /v1/auth/challenge` | [`ChallengeRequest`] → [`Challenge`] | anyone |
//! | `POST /v1/auth` | [`Login`] → [`Session`] | anyone |
//! | `POST /v1/parties` | [`CreateParty`] → [`Membership`] | logged in |
//! | `POST /v1/join` | [`Join`] → [`Membership`] | logged in |
//! | `POST /v1/parties/{party}/invites` | [`CreateInvite`] → [`InviteCode`] | members |
//! | `DELETE /v1/parties/{party}/invites/{code}` | → 204 | members |
//! | `DELETE /v1/parties/{party}/members/me` | → 204 | members |
//! | `POST /v1/parties/{party}/devices` | [`LeaseDevice`] → [`DeviceLease`] | members |
//! | `DELETE /v1/parties/{party}/devices/{id}` | → 204 | members |
//! | `GET /v1/ws` | WebSocket: [`ClientMessage`] up, [`ServerMessage`] down | logged in |
//! | `GET /v1/relay` | WebSocket: [`RelayMessage`] up, [`RelayCommand`] down | relays, by operator token |
//! | `GET /healthz`, `GET /j/{code}` | → text, → the page behind an invite link | anyone |
//!
//! A logged-in request carries `Authorization: Bearer <token>`. Every refusal is an [`ErrorBody`] with a matching HTTP
//! status. Members are addressed by WireGuard key, devices by device key.

use crate::api::RelayMode;
use crate::devices::DeviceList;
use crate::identity::{
    CertificateFingerprint, DeviceId, DeviceKey, PartyId, RosterEntry, RosterMac, Signature, WgKey,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// Bytes a WebSocket message may have on its way to the server.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Bytes a WebSocket message may have on its way from the server: the snapshot of a full party is under 150 KiB.
pub const MAX_SERVER_MESSAGE: usize = 256 * 1024;
/// Characters a device or party name may have.
pub const MAX_NAME: usize = 32;
/// Seconds an invite lives unless its maker says otherwise.
pub const DEFAULT_INVITE_LIFE: u64 = 24 * 3600;
/// Base64 characters a signal's body may have: 4 KiB of content, padded.
pub const MAX_SIGNAL: usize = 4096usize.div_ceil(3) * 4;
/// Members one party may have.
pub const MAX_MEMBERS: usize = 254;

/// Whether `name` may be shown to people: 1 to [`MAX_NAME`] characters, no control characters, no outer blanks.
pub fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.chars().count()) && !name.contains(char::is_control) && name.trim() == name
}

/// Why a request was refused. The text form is stable; people read [`ErrorBody::message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed.
    BadRequest,
    /// No or stale login: log in again.
    Unauthorized,
    /// Logged in, but not allowed.
    Forbidden,
    /// No such party, invite or member.
    NotFound,
    /// The invite is past its time.
    InviteExpired,
    /// The invite has been used as often as it may.
    InviteUsedUp,
    /// The invite was taken back.
    InviteRevoked,
    /// The party has no free place.
    PartyFull,
    /// Too many requests: wait.
    RateLimited,
    /// The server failed.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Body of every refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what happened and what to do.
    pub message: String,
}

/// Asks for a challenge to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// Who wants to log in.
    pub device: DeviceKey,
}

/// What to sign: domain [`crate::identity::domain::LOGIN`], message = origin + zero byte + challenge text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Opaque to the client, valid once and for a minute.
    pub challenge: String,
}

/// Proof of the device key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Who logs in.
    pub device: DeviceKey,
    /// Its tunnel key.
    pub wg: WgKey,
    /// `device` over `wg`, domain [`crate::identity::domain::WG_KEY`].
    pub wg_signature: Signature,
    /// From [`Challenge`].
    pub challenge: String,
    /// The origin the client believes it talks to, e.g. `https://play.example:8667`: the server refuses one it does not serve.
    pub origin: String,
    /// `device` over origin, zero byte, challenge, domain [`crate::identity::domain::LOGIN`].
    pub signature: Signature,
}

/// The bytes under a login's signature.
pub fn login_message(origin: &str, challenge: &str) -> Vec<u8> {
    [origin.as_bytes(), &[0], challenge.as_bytes()].concat()
}

/// A granted login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Bearer token.
    pub token: String,
    /// Seconds from now after which to log in again.
    pub expires_in: u64,
}

/// Founds a party; the caller becomes its host and gets the subnet's first address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateParty {
    /// Shown to people.
    pub name: String,
    /// RFC 1918 subnet, /16 to /24; the server's default (10.66.0.0/16) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv4Net>,
}

/// Redeems an invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// From the invite link.
    pub code: String,
}

/// Facts about a party that do not change from member to member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Name for machines.
    pub id: PartyId,
    /// Name for people.
    pub name: String,
    /// The virtual LAN.
    pub subnet: Ipv4Net,
    /// Who owns it.
    pub host: DeviceKey,
    /// Counts kicks: members of an older epoch are out.
    pub epoch: u32,
}

/// Answer to founding or joining: the party, and the address leased to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The party.
    pub party: Party,
    /// Leased to this device for good: joining again gives it again.
    pub address: Ipv4Addr,
}

/// Asks for an invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateInvite {
    /// Seconds it shall live, 60 to 30 days; [`DEFAULT_INVITE_LIFE`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// How many devices may use it, 1 to [`MAX_MEMBERS`]; no limit but the party's size when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// The control server's half of an invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteCode {
    /// 22 characters of base64url.
    pub code: String,
    /// Unix seconds.
    pub expires_at: u64,
    /// Devices that may still use it; absent = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
}

/// Asks for an address for a device behind the caller; asking again gives it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseDevice {
    /// Which device, in the caller's numbering.
    pub id: DeviceId,
}

/// The address of a device behind the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLease {
    /// Held until the caller gives it back or leaves.
    pub address: Ipv4Addr,
}

/// A roster entry with its proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What the member says of itself.
    pub entry: RosterEntry,
    /// Under the party's secret.
    pub mac: RosterMac,
    /// Devices behind the member, which it answers for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Box<DeviceList>>,
}

/// Whether a relay takes members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// It does.
    #[default]
    Ready,
    /// It has no room for another member; those it has may stay.
    Full,
    /// Its operator empties it: no tickets any more, and members move to other relays while it still forwards.
    Draining,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A relay that members may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// Name for machines and people, unique at this control server.
    pub name: String,
    /// Where it takes bindings and datagrams (UDP).
    pub addresses: Vec<SocketAddr>,
    /// Free text such as `eu-west`, may be empty.
    #[serde(default)]
    pub region: String,
    /// Where it takes members whose network lets no UDP out; absent = nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RelayTls>,
    /// Whether it takes members; set by the control server from the relay's heartbeats.
    #[serde(default)]
    pub state: RelayState,
    /// How busy it is, 0 to 100, in steps of ten; set by the control server from the relay's heartbeats.
    #[serde(default)]
    pub load: u8,
}

/// How a relay is reached over TLS; see [`crate::carrier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayTls {
    /// TCP.
    pub address: SocketAddr,
    /// The only certificate that members accept there; its name, issuer and dates do not count.
    pub certificate: CertificateFingerprint,
}

/// How much a relay does; what it does not know is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayLoad {
    /// Members bound now.
    pub bindings: u32,
    /// Flows installed now.
    pub flows: u32,
    /// Members it may have at once.
    pub members_limit: u32,
    /// Flows it may have at once.
    pub flows_limit: u32,
    /// Data packets forwarded a second.
    pub packets_per_s: u64,
    /// Bits of them a second.
    pub bits_per_s: u64,
    /// How it forwards.
    pub mode: Option<RelayMode>,
    /// Processor or queues in use, percent.
    pub pressure: u8,
    /// Its operator empties it.
    pub draining: bool,
}

/// From a member's daemon to the control server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientMessage {
    /// Subscribes to a party and publishes the own entry. Answer: [`ServerMessage::Snapshot`], or nothing but later
    /// deltas when `have` is the newest state.
    Hello {
        /// Which party.
        party: PartyId,
        /// The own entry; its device, key and address must be the leased ones.
        member: Member,
        /// Sequence of the newest change the client holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        have: Option<u64>,
    },
    /// Passes `body` to another member, as it is.
    Signal {
        /// Which party.
        party: PartyId,
        /// To whom.
        to: WgKey,
        /// Sealed end to end; at most [`MAX_SIGNAL`] characters of base64.
        body: String,
    },
    /// Asks for a relay ticket.
    Ticket {
        /// For which party.
        party: PartyId,
        /// For which relay.
        relay: String,
    },
}

/// One change of a party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A member is new or has changed its entry.
    Member {
        /// The entry as it is now.
        member: Member,
    },
    /// A member has left.
    Left {
        /// Who.
        device: DeviceKey,
    },
}

/// From the control server to a member's daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The whole state of a party.
    Snapshot {
        /// The party.
        party: Party,
        /// Sequence of the newest change in it.
        seq: u64,
        /// All members that have published an entry.
        members: Vec<Member>,
        /// Who is connected to the control server now (a hint: paths decide who is reachable).
        online: Vec<DeviceKey>,
    },
    /// One change; `seq` follows the last one, or the client asks again with [`ClientMessage::Hello`].
    Delta {
        /// Which party.
        party: PartyId,
        /// The party's epoch after the change.
        epoch: u32,
        /// Number of this change.
        seq: u64,
        /// The change.
        change: Change,
    },
    /// A member connected or went; not numbered, not stored.
    Presence {
        /// Which party.
        party: PartyId,
        /// Who.
        device: DeviceKey,
        /// Now connected?
        online: bool,
    },
    /// The relays to choose from; sent after every [`ClientMessage::Hello`], when there is a new one, and rarely when
    /// only their states have changed.
    Relays {
        /// All live relays.
        relays: Vec<RelayInfo>,
    },
    /// A relay's state has changed; sent at once to those who hold a ticket for it.
    Relay {
        /// As it is now.
        relay: RelayInfo,
    },
    /// A relay is gone; sent at once to those who hold a ticket for it.
    RelayGone {
        /// Its name.
        relay: String,
    },
    /// From another member.
    Signal {
        /// Which party.
        party: PartyId,
        /// From whom: the server vouches only for the login, the seal inside proves more.
        from: WgKey,
        /// As sent.
        body: String,
    },
    /// Permission to use a relay.
    Ticket {
        /// For which party.
        party: PartyId,
        /// For which relay.
        relay: String,
        /// Base64 of the sealed [`crate::ticket::Ticket`].
        ticket: String,
        /// Base64 of its 32-byte session key.
        session_key: String,
        /// Seconds from now after which it is void; ask again at half of it.
        expires_in: u64,
    },
    /// A [`ClientMessage`] was refused.
    Error {
        /// Which party it was about, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        party: Option<PartyId>,
        /// Why.
        error: ErrorBody,
    },
}

/// From a relay to its control server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RelayMessage {
    /// First message.
    Register {
        /// What members shall know.
        relay: RelayInfo,
        /// Base64 of the 32-byte key that seals tickets for this relay.
        ticket_key: String,
    },
    /// Every 5 s, and at once when it begins or ends to drain.
    Heartbeat {
        /// What it does.
        load: RelayLoad,
    },
}

/// From the control server to a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RelayCommand {
    /// The relay is on the list.
    Registered,
    /// It is not.
    Refused {
        /// Why.
        error: ErrorBody,
    },
}
