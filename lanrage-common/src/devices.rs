//! Devices behind a member: consoles on a gateway's LAN, phones with the plain WireGuard app.
//!
//! They have overlay addresses, and no keys that the party knows: their member answers for them. It leases the addresses
//! at the control server ([`crate::control`]), and publishes them as a [`DeviceList`] beside its roster entry, under a
//! MAC of the party's secret like the entry itself. Every member's tunnel then takes packets with those source addresses
//! from that member only, and sends it what goes to them.

use crate::identity::{DeviceKey, PartyId, PartySecret, RosterMac};
use crate::protocol::is_valid_name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Devices behind one member.
pub const MAX_DEVICES: usize = 64;
/// Devices behind all members of a party: with them the snapshot of a full party still fits its message.
pub const MAX_PARTY_DEVICES: usize = 256;

/// How a device reaches its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// On the gateway's physical network, without any software.
    Lan,
    /// By a plain WireGuard client.
    Wireguard,
    /// In a way that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A device behind a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyDevice {
    /// Shown to people, like a member's name.
    pub name: String,
    /// How it reaches its gateway.
    pub kind: DeviceKind,
    /// Its address in the party's subnet.
    pub address: Ipv4Addr,
}

/// All devices behind a member, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceList {
    /// Grows with every change: an older list is not believed after a newer one.
    pub version: u64,
    /// The devices.
    pub devices: Vec<PartyDevice>,
    /// Under the party's secret.
    pub mac: RosterMac,
}

impl DeviceList {
    /// A list that the member `owner` publishes in `epoch`.
    pub fn sign(
        secret: &PartySecret,
        party: &PartyId,
        owner: &DeviceKey,
        epoch: u32,
        (version, devices): (u64, Vec<PartyDevice>),
    ) -> Self {
        let mac = secret.devices_mac(party, &canonical(owner, epoch, version, &devices));
        Self { version, devices, mac }
    }

    /// Whether `owner` itself published it in `epoch`.
    pub fn is_of(&self, secret: &PartySecret, party: &PartyId, owner: &DeviceKey, epoch: u32) -> bool {
        let bytes = canonical(owner, epoch, self.version, &self.devices);
        secret.verifies_devices(party, &bytes, &self.mac)
    }

    /// Whether it makes sense by itself: not too long, names that can be shown, no address twice.
    pub fn is_sane(&self) -> bool {
        let addresses: BTreeSet<Ipv4Addr> = self.addresses().collect();
        self.devices.len() <= MAX_DEVICES
            && addresses.len() == self.devices.len()
            && self.devices.iter().all(|device| is_valid_name(&device.name))
    }

    /// The devices' addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.devices.iter().map(|device| device.address)
    }
}

/// What the MAC covers. Every name goes with its length, so that no two lists share an encoding.
fn canonical(owner: &DeviceKey, epoch: u32, version: u64, devices: &[PartyDevice]) -> Vec<u8> {
    let mut bytes = [&owner.0[..], &epoch.to_be_bytes(), &version.to_be_bytes()].concat();
    for PartyDevice { name, kind, address } in devices {
        let kind = match kind {
            DeviceKind::Lan => 0,
            DeviceKind::Wireguard => 1,
            DeviceKind::Unknown => 255,
        };
        bytes.extend_from_slice(&address.octets());
        bytes.extend_from_slice(&[kind]);
        bytes.extend_from_slice(&(name.len() as u64).to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, last: u8) -> PartyDevice {
        PartyDevice { name: name.into(), kind: DeviceKind::Lan, address: Ipv4Addr::new(10, 66, 0, last) }
    }

    #[test]
    fn a_list_is_its_owners_and_unchanged_or_nothing() {
        let (secret, party, owner) = (PartySecret::from([1; 32]), PartyId([2; 16]), DeviceKey([3; 32]));
        let devices = vec![device("console", 9), device("phone", 10)];
        let list = DeviceList::sign(&secret, &party, &owner, 1, (5, devices));
        let is_fine = |list: &DeviceList| list.is_of(&secret, &party, &owner, 1);
        assert!(is_fine(&list) && list.is_sane());
        let change = |change: fn(&mut DeviceList)| {
            let mut changed = list.clone();
            change(&mut changed);
            changed
        };
        for changed in [
            change(|list| list.version += 1),
            change(|list| list.devices[0].name.push('s')),
            change(|list| list.devices[0].kind = DeviceKind::Wireguard),
            change(|list| list.devices[1].address = Ipv4Addr::new(10, 66, 0, 11)),
            change(|list| drop(list.devices.pop())),
        ] {
            assert!(!is_fine(&changed), "{changed:?}");
        }
        assert!(!list.is_of(&secret, &party, &DeviceKey([4; 32]), 1));
        assert!(!list.is_of(&secret, &party, &owner, 2));
        assert!(!change(|list| list.devices[1].address = list.devices[0].address).is_sane());
        assert!(!change(|list| list.devices[1].name = "a\nb".into()).is_sane());
    }

    #[test]
    fn a_kind_of_a_newer_version_is_read() {
        let json = r#"{"name":"x","kind":"carrier_pigeon","address":"10.66.0.3"}"#;
        assert_eq!(serde_json::from_str::<PartyDevice>(json).unwrap().kind, DeviceKind::Unknown);
    }
}
