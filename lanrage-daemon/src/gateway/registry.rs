//! Which devices with a plain WireGuard client this gateway takes, kept across restarts.

use crate::peer::store::Store;
use lanrage_common::identity::{PartyId, WgKey};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// One device. Of its private key nothing is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Shown to everybody.
    pub name: String,
    /// Its WireGuard public key.
    pub key: WgKey,
    /// In the party.
    pub address: Ipv4Addr,
}

/// All of them, of one party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    party: PartyId,
    devices: Vec<Registered>,
}

impl Registry {
    /// Those of the last run, if they were of the same party.
    pub fn load(store: &Store, party: PartyId) -> Self {
        let stored = store.gateway_devices().unwrap_or_else(|error| {
            tracing::warn!("the gateway's devices are forgotten, add them anew: {error:#}");
            None
        });
        stored
            .filter(|registry: &Self| registry.party == party)
            .unwrap_or(Self { party, devices: Vec::new() })
    }

    /// Keeps them.
    pub fn save(&self, store: &Store) -> anyhow::Result<()> {
        store.save_gateway_devices(self)
    }

    /// The devices, in the order in which they came.
    pub fn devices(&self) -> &[Registered] {
        &self.devices
    }

    pub(super) fn add(&mut self, device: Registered) {
        self.devices.push(device);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Registered> {
        let at = self.devices.iter().position(|device| device.name == name)?;
        Some(self.devices.remove(at))
    }
}
