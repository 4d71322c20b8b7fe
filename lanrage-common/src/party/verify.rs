//! Which roster entries a member believes.

use crate::devices::DeviceList;
use crate::identity::{DeviceKey, PartySecret, RosterEntry};
use crate::protocol::{Member, Membership, Party, is_valid_name};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Why a roster entry is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Nobody who knows the party's secret wrote it.
    BadMac,
    /// The device has not signed the tunnel key.
    UnsignedKey,
    /// Made in an epoch that is over: its owner may have been removed since.
    OldEpoch,
    /// Made in an epoch that the party has not reached.
    FutureEpoch,
    /// The name is empty, too long, or has control characters.
    BadName,
    /// The address is not a host address of the party's subnet.
    BadAddress,
    /// Another member has the address.
    AddressTaken,
    /// Another member has the tunnel key, or it is this device's.
    KeyTaken,
    /// The party is full.
    TooMany,
    /// Its list of devices was not written by the member, or makes no sense.
    BadDevices,
    /// Its list of devices is older than one that was seen.
    OldDevices,
    /// A device has an address of somebody else, or of no party.
    DeviceAddressTaken,
    /// All members together have too many devices.
    TooManyDevices,
}

impl Refusal {
    /// Stable name, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadMac => "bad_mac",
            Self::UnsignedKey => "unsigned_key",
            Self::OldEpoch => "old_epoch",
            Self::FutureEpoch => "future_epoch",
            Self::BadName => "bad_name",
            Self::BadAddress => "bad_address",
            Self::AddressTaken => "address_taken",
            Self::KeyTaken => "key_taken",
            Self::TooMany => "too_many",
            Self::BadDevices => "bad_devices",
            Self::OldDevices => "old_devices",
            Self::DeviceAddressTaken => "device_address_taken",
            Self::TooManyDevices => "too_many_devices",
        }
    }
}

/// Whether a member of `party` wrote the entry and it makes sense by itself.
pub fn check(member: &Member, party: &Party, secret: &PartySecret) -> Result<(), Refusal> {
    let entry = &member.entry;
    if !secret.verifies(&party.id, entry, &member.mac) {
        return Err(Refusal::BadMac);
    }
    if !entry.wg_key_is_signed() {
        return Err(Refusal::UnsignedKey);
    }
    if entry.epoch < party.epoch {
        return Err(Refusal::OldEpoch);
    }
    if entry.epoch > party.epoch {
        return Err(Refusal::FutureEpoch);
    }
    if !is_valid_name(&entry.name) {
        return Err(Refusal::BadName);
    }
    if !is_host_address(entry.address, party.subnet) {
        return Err(Refusal::BadAddress);
    }
    Ok(())
}

/// Whether `owner` wrote the list of devices and it makes sense by itself.
pub fn check_devices(
    list: &DeviceList,
    party: &Party,
    owner: &DeviceKey,
    secret: &PartySecret,
) -> Result<(), Refusal> {
    if !list.is_of(secret, &party.id, owner, party.epoch) || !list.is_sane() {
        return Err(Refusal::BadDevices);
    }
    match list.addresses().all(|address| is_host_address(address, party.subnet)) {
        true => Ok(()),
        false => Err(Refusal::DeviceAddressTaken),
    }
}

/// Whether the entry takes nothing that `other`, of another device, has.
pub fn check_against(entry: &RosterEntry, other: &RosterEntry) -> Result<(), Refusal> {
    if entry.device == other.device {
        return Ok(());
    }
    if entry.address == other.address {
        return Err(Refusal::AddressTaken);
    }
    if entry.wg == other.wg {
        return Err(Refusal::KeyTaken);
    }
    Ok(())
}

/// Whether the lease can be real: a private subnet of /16 to /24 (RFC 1918) and a host address in it. Routes follow from
/// it, so a hostile server must not choose freely.
pub fn is_sane(membership: &Membership) -> bool {
    let subnet = membership.party.subnet;
    let is_private = subnet.network().is_private() && (16..=24).contains(&subnet.prefix_len());
    is_private && is_host_address(membership.address, subnet)
}

fn is_host_address(address: Ipv4Addr, subnet: Ipv4Net) -> bool {
    subnet.contains(&address) && address != subnet.network() && address != subnet.broadcast()
}
