//! What other members reach on this machine.

use crate::firewall::{Mode, PortRange, Word};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The party firewall, as `lanrage firewall` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallStatus {
    /// What members may reach.
    pub mode: Mode,
    /// What was said about ports, by the configuration first; the last word about a port counts.
    pub words: Vec<Word>,
    /// Ports that members have reached within seconds because a game listens there.
    pub reached: Vec<PortRange>,
    /// Own UDP ports that have searched or answered in the party.
    pub players: Vec<u16>,
    /// Open because a game runs, by its profile.
    #[serde(default)]
    pub games: Vec<PortRange>,
    /// Packets refused since the tunnel came up, by reason.
    pub refused_total: BTreeMap<String, u64>,
    /// What was refused within the hour.
    pub refused: Vec<RefusedPort>,
}

/// Packets of one member to one port that were refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPort {
    /// Whose; absent when it has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// The member's address.
    pub address: Ipv4Addr,
    /// Where to.
    pub port: PortRange,
    /// How many.
    pub packets: u64,
    /// Why.
    pub why: String,
    /// It may be a game: its owner should know.
    pub may_be_game: bool,
}

/// Says something about the firewall; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirewallRequest {
    /// What members may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// About ports, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}
