//! Games that run on this machine.

use crate::firewall::PortRange;
use serde::{Deserialize, Serialize};

/// What runs, and what follows from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GamesStatus {
    /// Known games that run.
    pub running: Vec<RunningGame>,
    /// Whether the other members are told.
    pub shared: bool,
    /// Why programs are looked at every two seconds; absent when the system tells of them at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polled: Option<String>,
}

/// A game that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningGame {
    /// Its profile.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Ports that are open to members while it runs.
    pub ports: Vec<PortRange>,
    /// How the datagrams that carry its packets are marked: a DSCP by its name (RFC 4594), such as `CS4`.
    pub dscp: String,
}
