//! What became of group packets.

use super::Problem;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

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
    /// Copies that were not made, because the member has not joined the group.
    #[serde(default)]
    pub spared: u64,
    /// Announcements that were sent once more, to a member that has come late.
    #[serde(default)]
    pub replayed: u64,
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
    /// The multicast groups that members have joined, as they say. One that is not there has not said it, and gets everything.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joined: BTreeMap<Ipv4Addr, BTreeSet<IpAddr>>,
    /// The discovery trace: what games ask everybody, and how far it came. This device's first, then the latest; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<LaneConversation>,
}

/// How far a conversation has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaneRung {
    /// A program of the sender sent it to everybody.
    #[default]
    Seen,
    /// It was copied to members.
    Copied,
    /// A member's machine has got it.
    Delivered,
    /// A member has sent something back to the port that it came from. Games that only announce themselves need none.
    Answered,
}

/// Who would hear a group packet on the machine that got it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaneListener {
    /// It is not known.
    #[default]
    Unknown,
    /// A program.
    Listening,
    /// No program listens on the port.
    Nobody,
    /// A program listens on the port, but only at one address, where group packets do not come.
    Elsewhere,
    /// A program listens on the port, but none has joined the group.
    NotJoined,
}

/// What one program says to everybody: packets of one device to one destination and port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneConversation {
    /// Overlay address of the device that sends.
    pub from: Ipv4Addr,
    /// Its name.
    pub name: String,
    /// Is it this device?
    pub own: bool,
    /// A group or broadcast address.
    pub destination: IpAddr,
    /// UDP destination port.
    pub port: u16,
    /// Games that are known to search or announce themselves at that port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub games: Vec<String>,
    /// Packets sent, or, of another device, arrived here.
    pub seen: u64,
    /// Copies made of them.
    pub copied: u64,
    /// Packets that were not carried.
    pub dropped: u64,
    /// Why the last of those was not: a reason of `dropped` in the lane's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the last packet came, Unix seconds.
    pub last: u64,
    /// How far it came, at the member where it came furthest.
    pub rung: LaneRung,
    /// Who hears it on this device, if another one sent it.
    #[serde(default)]
    pub listener: LaneListener,
    /// Why it came no further, and what helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Problem>,
    /// What became of it at each member, if this device sent it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receivers: Vec<LaneReceiver>,
}

/// What became of a conversation at one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneReceiver {
    /// Its overlay address.
    pub member: Ipv4Addr,
    /// Its name.
    pub name: String,
    /// Packets that its machine has got, as it says itself; absent while it has said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<u64>,
    /// Who hears them there.
    pub listener: LaneListener,
    /// Whether its machine has joined the group; absent where that does not count, or is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<bool>,
    /// Packets that it sent back.
    pub answered: u64,
    /// How far the conversation came with this member.
    pub rung: LaneRung,
    /// Why no further, and what helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Problem>,
}
