//! The daemon's local API as `lanrage`, the web UI and scripts see it: JSON on the Unix socket and on loopback.
//!
//! | request | body → answer |
//! |---|---|
//! | `GET /api/v1/status` | → [`Status`] |
//! | `GET /api/v1/events` | → server-sent events, each a whole [`Status`], at most four a second |
//! | `POST /api/v1/party` | [`CreatePartyRequest`] → [`InviteAnswer`] |
//! | `POST /api/v1/party/join` | [`JoinRequest`] → [`Status`] |
//! | `POST /api/v1/party/leave` | → [`Status`] |
//! | `POST /api/v1/party/invite` | [`InviteRequest`] → [`InviteAnswer`] |
//! | `POST /api/v1/party/revoke` | [`RevokeRequest`] → [`Status`] |
//! | `POST /api/v1/up`, `POST /api/v1/down` | → [`Status`] |
//! | `POST /api/v1/ping` | [`PingRequest`] → [`PingAnswer`] |
//! | `POST /api/v1/netcheck` | → [`NetworkStatus`], found out anew; refused while the tunnel is down |
//! | `POST /api/v1/relay/drain` | [`DrainRequest`] → [`Status`] |
//! | `POST /api/v1/ui` | → [`UiAnswer`]; on the Unix socket only, because the answer holds the token |
//! | `GET /api/v1/relay` | → [`RelayDetail`]; refused when this process is no relay |
//! | `GET /metrics` | → the same figures as Prometheus text |
//!
//! On the Unix socket file permissions decide who may ask. On TCP every request needs `Authorization: Bearer <token>`
//! (`state_dir/ui-token`), a loopback `Host`, and, if it has an `Origin`, its own.
//!
//! Refusals are [`crate::protocol::ErrorBody`]. Field names are part of the documented interface: add, do not rename.

mod network;

pub use network::{NetworkStatus, StunServerStatus};

use crate::identity::{CertificateFingerprint, DeviceKey, Fingerprint, PartyId, WgKey};
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

/// How a relay forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayMode {
    /// In the network driver.
    XdpNative,
    /// In the kernel's generic XDP hook.
    XdpGeneric,
    /// In the daemon.
    Userspace,
}

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
    /// Seconds since WireGuard's last handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age_s: Option<u64>,
    /// Payload bytes received from it.
    pub rx_bytes: u64,
    /// Payload bytes sent to it.
    pub tx_bytes: u64,
}

/// Who carries group packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaneMode {
    /// Programs in the kernel, on the party's interface.
    Kernel,
    /// The daemon.
    #[default]
    Userspace,
}

/// What became of a member's copies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneCopies {
    /// Taken by the tunnel.
    pub sent: u64,
    /// Refused by it.
    pub failed: u64,
}

/// What the lane has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Who carries group packets.
    #[serde(default)]
    pub mode: LaneMode,
    /// How the kernel programs are attached: `tcx` or `clsact`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// Why the kernel does not carry them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_reason: Option<String>,
    /// What can be done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_fix: Option<String>,
    /// Group packets seen on the interface.
    pub seen: u64,
    /// Copies sent to members.
    pub copied: u64,
    /// Group packets delivered to this device.
    pub delivered: u64,
    /// Group packets that games sent to a physical network, and that the party got a copy of.
    #[serde(default)]
    pub captured: u64,
    /// Copies of group packets that physical networks got.
    #[serde(default)]
    pub home_copied: u64,
    /// Packets to members that a game sent from a physical network's address.
    #[serde(default)]
    pub source_fixed: u64,
    /// Packets of members that were led to a game on a physical network's address.
    #[serde(default)]
    pub destination_fixed: u64,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Copies by member, while the kernel makes them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<Ipv4Addr, LaneCopies>,
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

/// The relay in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Addresses told to members.
    pub addresses: Vec<SocketAddr>,
    /// Whether the control server has this relay on its list now.
    #[serde(default)]
    pub registered: bool,
    /// Whether it is being emptied.
    #[serde(default)]
    pub draining: bool,
    /// How it forwards.
    pub mode: RelayMode,
    /// Why not better, when there is something better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_reason: Option<String>,
    /// What would make it better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_fix: Option<String>,
    /// Members bound now.
    pub bindings: u32,
    /// Flows installed now.
    pub flows: u32,
    /// Data packets the kernel program forwarded.
    pub kernel_forwarded: u64,
    /// Data packets the daemon forwarded.
    pub userspace_forwarded: u64,
    /// UDP payload of the data that the daemon forwarded, in bytes.
    #[serde(default)]
    pub userspace_bytes: u64,
    /// The daemon's forwarding threads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<RelayWorker>,
    /// Kernel counters by reason: packets.
    pub kernel: BTreeMap<String, u64>,
    /// Daemon counters by reason: packets.
    pub userspace: BTreeMap<String, u64>,
    /// Members over TLS; absent when it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RelayTlsStatus>,
    /// What the operator should know; moved to [`Status::problems`] on the way out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// The relay in this process in all detail, for its operator. Counters only grow while the relay runs; rates are
/// differences between two answers, over the difference of [`RelayDetail::at_ms`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayDetail {
    /// When the counters were read: milliseconds since the relay started.
    pub at_ms: u64,
    /// As in [`Status`].
    pub status: RelayStatus,
    /// Its name at the control server.
    pub name: String,
    /// Its region there.
    pub region: String,
    /// Members it takes.
    pub max_bindings: u32,
    /// Flows it takes.
    pub max_flows: u32,
    /// What the kernel program did, by reason; all of them, in the program's order.
    pub kernel: Vec<ReasonCount>,
    /// What the daemon did, by reason; all of them. It does not count bytes, except of what it forwarded.
    pub userspace: Vec<ReasonCount>,
    /// Everybody who is bound.
    pub members: Vec<RelayMember>,
    /// Next hops that flows need and whose MAC address is not known.
    #[serde(default)]
    pub next_hops_unresolved: u32,
}

/// Packets of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// Stable name.
    pub name: String,
    /// What it means, in a sentence.
    pub what: String,
    /// Packets.
    pub packets: u64,
    /// Bytes: of frames in the kernel, of UDP payload in the daemon.
    pub bytes: u64,
}

/// A bound member, as far as a relay knows it. Keys and ids are cut short: they name, and open nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayMember {
    /// Its place at the relay.
    pub slot: u32,
    /// Begin of its tunnel key.
    pub key: String,
    /// Begin of its party's id.
    pub party: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Packets a second its ticket allows; 0 = no limit.
    pub packets_per_s: u32,
    /// kbit/s its ticket allows; 0 = no limit.
    pub kbit_per_s: u32,
    /// Forwarded for it in the kernel.
    pub kernel_packets: u64,
    /// Bytes of those frames.
    pub kernel_bytes: u64,
    /// Forwarded for it by the daemon.
    pub userspace_packets: u64,
    /// UDP payload of those.
    pub userspace_bytes: u64,
    /// Dropped because it sent more than its ticket allows.
    pub dropped: u64,
}

/// How a relay takes members whose network blocks UDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayTlsStatus {
    /// TCP address.
    pub listen: SocketAddr,
    /// The one told to members.
    pub address: SocketAddr,
    /// By which members know the relay there.
    pub certificate: CertificateFingerprint,
    /// Connections now, each of them a member, or about to be one.
    pub connections: u32,
    /// Datagrams received from members.
    pub received: u64,
    /// Datagrams sent to members.
    pub sent: u64,
    /// Datagrams that TCP could not take in time.
    pub dropped: u64,
    /// Connections that ended or were refused, by reason.
    pub ended: BTreeMap<String, u64>,
}

/// One of the threads that forward what the kernel program does not. All counts are since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayWorker {
    /// Datagrams received.
    pub received: u64,
    /// In how many batches.
    pub batches: u64,
    /// Data sent on.
    pub forwarded: u64,
    /// Those that left together with others of their size and destination (UDP segmentation offload).
    pub offloaded: u64,
    /// What was not data and found the queue to the relay's state full.
    pub queue_full: u64,
    /// Lost because the thread was too slow: the sockets' buffers were full.
    pub lost: u64,
}

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
