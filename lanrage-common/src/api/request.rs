//! What is asked, and what is answered.

use super::PathKind;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Founds a party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePartyRequest {
    /// Shown to people.
    pub name: String,
    /// Control server's origin; the daemon's configured one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
}

/// Joins by link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The whole invite link.
    pub invite: String,
}

/// Asks for an invite.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// See [`crate::protocol::CreateInvite`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// See [`crate::protocol::CreateInvite`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// Takes an invite back: nobody else can join by it; who has joined stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The whole invite link.
    pub invite: String,
}

/// A fresh invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteAnswer {
    /// The whole link, secret included: shown once, to whom it was made for.
    pub link: String,
    /// The link as an SVG QR code.
    pub qr_svg: String,
    /// Unix seconds.
    pub expires_at: u64,
    /// Devices that may use it; absent = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
}

/// Pings a member through the tunnel (ICMP echo).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// Name, overlay address, or unique start of a name.
    pub member: String,
    /// How many, 1 to 100.
    #[serde(default = "default_ping_count")]
    pub count: u32,
    /// Whether to find out, too, how long packets may be.
    #[serde(default)]
    pub mtu: bool,
}

fn default_ping_count() -> u32 {
    4
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PingAnswer {
    /// Whom.
    pub member: String,
    /// Where.
    pub address: Ipv4Addr,
    /// One entry per echo sent, in order.
    pub replies: Vec<PingReply>,
    /// Median round trip of the probes outside the tunnel, on the path in use, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_rtt_ms: Option<f64>,
    /// The longest packet that went through the tunnel and back, when asked for; absent when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The longest packet that the path carries in one piece, as probes found; absent before it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u16>,
}

/// One echo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PingReply {
    /// Round trip in milliseconds; absent = no answer within a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The path in use when it was sent.
    pub path: PathKind,
}

/// Makes a program use the party, with all that it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Its control group (version 2), as `/proc/PID/cgroup` tells it; the last part begins with `lanrage-run-`.
    pub group: String,
}

/// What it uses from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAnswer {
    /// The party's interface.
    pub interface: String,
    /// This device's address there.
    pub address: Ipv4Addr,
}

/// Empties the relay in this process, or stops to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Whether members shall go.
    pub drain: bool,
    /// The relay ends after this many seconds even if members are left; 0 = at once.
    #[serde(default = "default_drain_time")]
    pub within_s: u32,
}

fn default_drain_time() -> u32 {
    600
}

/// How to open the web UI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UiAnswer {
    /// Opens it, token in the fragment: for this machine's owner only.
    pub url: String,
}
