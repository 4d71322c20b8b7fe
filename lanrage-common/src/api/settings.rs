//! Settings that can be changed while the daemon runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// When a changed setting counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// At once.
    Live,
    /// At once, and the tunnel is down for a moment for it.
    Reconnect,
    /// When the daemon is started again.
    Restart,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name in the configuration, e.g. `peer.name`.
    pub key: String,
    /// As the next start of the daemon would find it; `null` = nothing is set.
    pub value: Value,
    /// When a change counts.
    pub effect: Effect,
    /// It was changed, and the running daemon still works with the old value.
    #[serde(default)]
    pub pending: bool,
    /// Where it is fixed so that changing it here would do nothing: a variable of the environment, or a flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<String>,
}

/// All that can be changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// In the order in which they are best shown.
    pub settings: Vec<Setting>,
}

/// Changes settings: all that are named, or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsRequest {
    /// New values by key; `null` goes back to what the configuration file says.
    pub changes: BTreeMap<String, Value>,
}
