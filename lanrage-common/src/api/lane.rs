//! What became of group packets.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

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
