//! What helps to find out what is wrong.

use super::Settings;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Works, but could be better.
    Warning,
    /// Keeps from playing.
    Bad,
}

/// What the daemon can do about a finding by itself, when it is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cure {
    /// `POST /api/v1/up`.
    Up,
    /// `POST /api/v1/down`, then `POST /api/v1/up`.
    Reconnect,
    /// `POST /api/v1/netcheck`.
    Netcheck,
    /// The setting `peer.port_mapping` = true.
    AllowPortMapping,
}

/// What one check says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at: a stable name.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The same, as something that the daemon does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cure: Option<Cure>,
}

impl Finding {
    /// Nothing to do.
    pub fn good(check: &str, what: impl Into<String>) -> Self {
        Self { check: check.into(), level: Level::Good, what: what.into(), fix: None, cure: None }
    }

    /// Something could be better.
    pub fn warning(check: &str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Warning, fix: Some(fix.into()), ..Self::good(check, what) }
    }

    /// Something keeps from playing.
    pub fn bad(check: &str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Bad, ..Self::warning(check, what, fix) }
    }

    /// The daemon can do it by itself.
    pub fn curable(self, cure: Cure) -> Self {
        Self { cure: Some(cure), ..self }
    }
}

/// What the doctor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorAnswer {
    /// One for each check.
    pub findings: Vec<Finding>,
}

/// The last lines of the daemon's log, oldest first, without secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAnswer {
    /// As they were printed.
    pub lines: Vec<String>,
}

/// Everything that somebody needs who helps; no keys, tokens, invites or secrets, and public addresses only by number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SupportBundle {
    /// For whom looks at it.
    pub about: String,
    /// Of the daemon.
    pub version: String,
    /// Operating system and kernel.
    pub system: String,
    /// Unix seconds.
    pub made_at: u64,
    /// As the local API shows it, [`super::Status`], but for what is redacted.
    pub status: serde_json::Value,
    /// What the doctor says.
    pub doctor: Vec<Finding>,
    /// What can be changed.
    pub settings: Settings,
    /// The last lines of the log.
    pub log: Vec<String>,
}
