//! What members tell of themselves: how they reach each other, and which servers run at them.

use super::PathKind;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddrV4};

/// How members reach each other, as each has measured it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MatrixStatus {
    /// Who reaches whom; both directions of a pair when both have told.
    pub links: Vec<LinkStatus>,
    /// Members that everybody is known to reach, the best host first: the one with the least longest round trip.
    pub hosts: Vec<HostStatus>,
    /// Who should host, in a sentence; absent while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How one member reaches another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Overlay address of the member that has measured.
    pub from: Ipv4Addr,
    /// Of the one that it reaches.
    pub to: Ipv4Addr,
    /// Over what.
    pub path: PathKind,
    /// Median round trip, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Mean difference of successive round trips, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// Probes without an answer, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// How well the two can play together, 0 to 100; see [`crate::score::quality`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<u8>,
}

/// A member as a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its overlay address.
    pub member: Ipv4Addr,
    /// Its name.
    pub name: String,
    /// The longest round trip of another member to it, milliseconds.
    pub worst_rtt_ms: f64,
    /// Whose that is.
    pub worst_with: String,
    /// The least quality of another member's link to it, 0 to 100.
    pub quality: u8,
}

/// A game server that runs at a member, as that member tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GameServer {
    /// Overlay address of the member.
    pub member: Ipv4Addr,
    /// Its name.
    pub host: String,
    /// Does it run on this device?
    pub own: bool,
    /// Id of the game's profile: see `lanrage games`.
    pub game: String,
    /// The game's name; its id when this device has no such profile.
    pub title: String,
    /// What the server is called.
    pub name: String,
    /// What is played on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<String>,
    /// Who plays now; absent when the game does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub players: Option<u16>,
    /// How many may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_players: Option<u16>,
    /// It wants a password.
    pub password: bool,
    /// `udp` or `tcp`.
    pub protocol: String,
    /// Where it is joined.
    pub address: SocketAddrV4,
    /// Median of the last round trips through the tunnel to the member, milliseconds; absent on this device, and while no
    /// echo has come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}
