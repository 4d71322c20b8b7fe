//! The party that this device is in, and its members as this device sees them.

use super::{GameServer, LaneStatus, MatrixStatus};
use crate::devices::PartyDevice;
use crate::identity::{DeviceKey, PartyId, WgKey};
use crate::nat::Verdict;
use crate::protocol::RelayState;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// How a pair of members talks now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Straight to the other's address.
    Direct,
    /// Through a relay, over UDP.
    Relay,
    /// Through a relay, over TLS on TCP.
    Tls,
    /// Not at all yet.
    None,
}

/// The party this device is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartyStatus {
    /// For machines.
    pub id: PartyId,
    /// For people.
    pub name: String,
    /// The virtual LAN.
    pub subnet: Ipv4Net,
    /// Own address in it.
    pub address: Ipv4Addr,
    /// The network interface, when it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Bytes a packet on the interface may have.
    pub mtu: u16,
    /// Is this device the host?
    pub host: bool,
    /// Everybody, this device first.
    pub members: Vec<MemberStatus>,
    /// Lane counters.
    pub lane: LaneStatus,
    /// The relays to choose from, as this device sees them.
    #[serde(default)]
    pub relays: Vec<RelayChoiceStatus>,
    /// Connections to relays over TLS; none while UDP works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carriers: Vec<CarrierStatus>,
    /// What happened to probes, signals and candidates of the path agent, by name (docs/metrics.md).
    #[serde(default)]
    pub path_events: BTreeMap<String, u64>,
    /// How members reach each other, and who should host.
    #[serde(default)]
    pub matrix: MatrixStatus,
    /// Game servers that run at members.
    #[serde(default)]
    pub servers: Vec<GameServer>,
}

/// A connection that carries datagrams to and from a relay, because UDP does not reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierStatus {
    /// The relay's TCP address.
    pub address: SocketAddr,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that TCP could not take in time.
    pub dropped: u64,
}

/// A relay as this device sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RelayChoiceStatus {
    /// Its name.
    pub name: String,
    /// Where it is, in its operator's words.
    #[serde(default)]
    pub region: String,
    /// Where it takes datagrams.
    pub addresses: Vec<SocketAddr>,
    /// Whether it takes members.
    pub state: RelayState,
    /// How busy it is, percent.
    pub load: u8,
    /// Whether this device is bound there, or is about to be.
    pub held: bool,
    /// Median round trip to it, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Mean difference of successive round trips, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// Samples without an answer, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Members that are reached through it now.
    pub members: u32,
    /// Members for which it stands by.
    pub standby_for: u32,
    /// One sentence: why it is used, or not.
    pub why: String,
}

/// One member as this device sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Shown to people.
    pub name: String,
    /// Who it is.
    pub device: DeviceKey,
    /// Its tunnel key.
    pub wg: WgKey,
    /// Its address in the party.
    pub address: Ipv4Addr,
    /// Is it this device?
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Is it the party's host?
    pub host: bool,
    /// Connected to the control server.
    pub online: bool,
    /// How packets go to it.
    pub path: PathKind,
    /// Where they go: its own address, or the relay's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Name of the relay, when `path` uses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Name of the relay that takes over if the path or its relay dies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<String>,
    /// Why `relay`, and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_why: Option<String>,
    /// One sentence: why this path, and what would better it.
    pub why: String,
    /// Games that run there, as it tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plays: Vec<String>,
    /// What the NATs at both ends let expect; this device's is the first. Absent while there is nothing to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The one change that would make the path direct, when it cannot be as things are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Median round trip of the last probes on the path, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Mean difference of successive round trips, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// Probes without an answer, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// How well one can play with it, 0 to 100; see [`crate::score::quality`]. Absent while there is no path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<u8>,
    /// The longest packet that the path carries in one piece, bytes; absent before it was measured, and over TLS. Where
    /// that is less than the interface's MTU, packets for this member are kept as short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Seconds since WireGuard's last handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age_s: Option<u64>,
    /// Payload bytes received from it.
    pub rx_bytes: u64,
    /// Payload bytes sent to it.
    pub tx_bytes: u64,
    /// Devices behind it, when it is a gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<PartyDevice>,
}
