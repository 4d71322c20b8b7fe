//! The relay in this process.

use super::Problem;
use crate::identity::CertificateFingerprint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

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
