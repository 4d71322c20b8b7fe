//! The relay's data path: kernel programs where they attach, with the daemon's own forwarding as fallback.
//!
//! [`Datapath`] is the only writer of the kernel maps.

use lanrage_common::api::RelayMode;
use lanrage_common::relay::{Flow, Target};
use std::collections::BTreeMap;

/// How the relay forwards, and why not better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is in use.
    pub mode: RelayMode,
    /// Why a better mode could not be used.
    pub reason: Option<String>,
    /// What the operator can do about it.
    pub fix: Option<String>,
}

/// A flow could not be installed; its packets are forwarded by the daemon instead.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The table has no room.
    #[error("the kernel flow table is full")]
    Full,
    /// The kernel refused.
    #[error("the kernel refused the flow: {0}")]
    Kernel(String),
}

/// The kernel side of the relay, or nothing at all in userspace mode.
#[derive(Debug)]
pub struct Datapath {
    report: Report,
}

impl Datapath {
    /// How it forwards.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Makes the kernel forward a flow, or moves it to a new target.
    pub fn install(&mut self, _flow: Flow, _target: Target) -> Result<(), InstallError> {
        Ok(())
    }

    /// Gives a flow back to the daemon.
    pub fn remove(&mut self, _flow: Flow) {}

    /// Packets by reason since start; `forwarded` is what the kernel program sent on.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}
