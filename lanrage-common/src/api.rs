//! The daemon's local API as `lanrage`, the web UI and scripts see it: JSON on the Unix socket and on loopback.
//!
//! | request | body → answer |
//! |---|---|
//! | `GET /api/v1/status` | → [`Status`] |
//! | `GET /api/v1/events` | → server-sent events, each a whole [`Status`], at most five a second |
//! | `POST /api/v1/party` | [`CreatePartyRequest`] → [`InviteAnswer`] |
//! | `POST /api/v1/party/join` | [`JoinRequest`] → [`Status`] |
//! | `POST /api/v1/party/leave` | → [`Status`] |
//! | `POST /api/v1/party/invite` | [`InviteRequest`] → [`InviteAnswer`] |
//! | `POST /api/v1/party/revoke` | [`RevokeRequest`] → [`Status`] |
//! | `POST /api/v1/firewall` | [`FirewallRequest`] → [`Status`] |
//! | `POST /api/v1/up`, `POST /api/v1/down` | → [`Status`] |
//! | `POST /api/v1/ping` | [`PingRequest`] → [`PingAnswer`] |
//! | `POST /api/v1/netcheck` | → [`NetworkStatus`], found out anew; refused while the tunnel is down |
//! | `POST /api/v1/gateway/lan` | [`LanRequest`] → [`LanAnswer`] |
//! | `POST /api/v1/gateway/add` | [`AddDeviceRequest`] → [`AddDeviceAnswer`] |
//! | `POST /api/v1/gateway/remove` | [`RemoveDeviceRequest`] → [`Status`] |
//! | `POST /api/v1/doctor` | → [`DoctorAnswer`] |
//! | `GET /api/v1/settings` | → [`Settings`] |
//! | `POST /api/v1/settings` | [`SettingsRequest`] → [`Settings`] |
//! | `GET /api/v1/games` | → what `lanrage games --json` prints: the profiles of games by id |
//! | `GET /api/v1/log` | → [`LogAnswer`] |
//! | `GET /api/v1/bundle` | → [`SupportBundle`] |
//! | `GET /api/v1/mods` | → [`ModsAnswer`]; asks every member that is there |
//! | `GET /api/v1/openapi.json` | → all of this for programs (OpenAPI 3.1): `lanrage-daemon/src/api/openapi.json` |
//! | `POST /api/v1/relay/drain` | [`DrainRequest`] → [`Status`] |
//! | `POST /api/v1/ui` | → [`UiAnswer`]; on the Unix socket only, because the answer holds the token |
//! | `POST /api/v1/run` | [`RunRequest`] → [`RunAnswer`]; on the Unix socket only |
//! | `GET /api/v1/relay` | → [`RelayDetail`]; refused when this process is no relay |
//! | `GET /metrics` | → the same figures as Prometheus text |
//!
//! On the Unix socket file permissions decide who may ask. On TCP every request needs `Authorization: Bearer <token>`
//! (`state_dir/ui-token`), a loopback `Host`, and, if it has an `Origin`, its own.
//!
//! Refusals are [`crate::protocol::ErrorBody`]. Field names are part of the documented interface: add, do not rename.

mod firewall;
mod games;
mod gateway;
mod lane;
mod matrix;
mod mods;
mod network;
mod party;
mod relay;
mod request;
mod settings;
mod support;

pub use firewall::{FirewallRequest, FirewallStatus, RefusedPort};
pub use games::{GamesStatus, RunningGame};
pub use gateway::{
    AddDeviceAnswer, AddDeviceRequest, AliasConflict, AliasStatus, GatewayDevice, GatewayStatus, LanAnswer,
    LanRequest, LanStatus, RemoveDeviceRequest,
};
pub use lane::{LaneConversation, LaneCopies, LaneListener, LaneMode, LaneReceiver, LaneRung, LaneStatus};
pub use matrix::{GameServer, HostStatus, LinkStatus, MatrixStatus};
pub use mods::{ModShare, ModsAnswer, RefusedShare};
pub use network::{NetworkStatus, PinholeStatus, StunServerStatus};
pub use party::{CarrierStatus, MemberStatus, PartyStatus, PathKind, RelayChoiceStatus};
pub use relay::{ReasonCount, RelayDetail, RelayMember, RelayMode, RelayStatus, RelayTlsStatus, RelayWorker};
pub use request::{
    CreatePartyRequest, DrainRequest, InviteAnswer, InviteRequest, JoinRequest, PingAnswer, PingReply,
    PingRequest, RevokeRequest, RunAnswer, RunRequest, UiAnswer,
};

pub use settings::{Effect, Setting, Settings, SettingsRequest};
pub use support::{Cure, DoctorAnswer, Finding, Level, LogAnswer, SupportBundle};

use crate::identity::{DeviceKey, Fingerprint};
use serde::{Deserialize, Serialize};

/// Everything the daemon knows that is fit to show; holds no secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Roles this process runs: `control`, `relay`, `peer`.
    pub roles: Vec<String>,
    /// Whether the tunnel is meant to be up.
    pub up: bool,
    /// This device; absent without the peer role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceStatus>,
    /// The party, when in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub party: Option<PartyStatus>,
    /// The control server this peer uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlStatus>,
    /// The relay in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayStatus>,
    /// The control server in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// The network around this device, while the tunnel is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// The gateway on this device, while it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// What other members reach on this device; absent without the peer role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<FirewallStatus>,
    /// Games that run here; absent without the peer role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub games: Option<GamesStatus>,
    /// What a person should know or do now, most urgent first.
    pub problems: Vec<Problem>,
}

/// Something that is wrong, with its cure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable name, e.g. `control_unreachable`.
    pub code: String,
    /// What happened, to what.
    pub message: String,
    /// What to do.
    pub fix: String,
}

/// This device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Shown to people.
    pub name: String,
    /// Who it is.
    pub key: DeviceKey,
    /// Short form of `key`.
    pub fingerprint: Fingerprint,
}

/// The control server this peer uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Its origin.
    pub url: String,
    /// Connected now?
    pub connected: bool,
}

/// The control server in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Origin that invite links carry.
    pub public_url: String,
    /// Devices connected now.
    pub online: u32,
    /// Relays on its list now.
    pub relays: u32,
}
