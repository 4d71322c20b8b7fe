//! Addresses for devices behind members.

use super::{Caller, ControlParty, Record, refusal};
use crate::devices::{DeviceList, MAX_DEVICES, MAX_PARTY_DEVICES};
use crate::identity::{DeviceId, DeviceKey};
use crate::ipam::Holder;
use crate::protocol::{ErrorBody, ErrorCode};
use crate::time::Now;
use std::net::Ipv4Addr;

/// The lease of a device behind a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredDevice {
    /// Behind whom.
    pub owner: DeviceKey,
    /// Which, in the owner's numbering.
    pub id: DeviceId,
    /// Its address.
    pub address: Ipv4Addr,
    /// Unix seconds at which it was given back; absent = it is held.
    pub released: Option<u64>,
}

impl ControlParty {
    /// An address for a device behind the caller; the one it had, if there was one.
    pub fn handle_lease_device(&mut self, caller: &Caller, id: DeviceId) -> Result<Ipv4Addr, ErrorBody> {
        self.seat(&caller.device)?;
        let holder = Holder::Behind(caller.device, id);
        if let Some(address) = self.ipam.address(holder) {
            return Ok(address);
        }
        self.check_room_for_device(&caller.device)?;
        if let Some(forgotten) = self.ipam.forget_behind(&caller.device) {
            self.store(gone(forgotten));
        }
        let leased = self
            .ipam
            .lease(holder)
            .map_err(|error| refusal(ErrorCode::PartyFull, format!("the party is full: {error}")))?;
        if let Some(previous) = leased.taken_from {
            self.store(gone(previous));
        }
        let (owner, address) = (caller.device, leased.address);
        self.store(Record::Device(StoredDevice { owner, id, address, released: None }));
        Ok(address)
    }

    /// Takes a device's address back; it stays reserved for the device while others are free.
    pub fn handle_release_device(
        &mut self,
        caller: &Caller,
        id: DeviceId,
        now: Now,
    ) -> Result<(), ErrorBody> {
        self.seat(&caller.device)?;
        if let Some(address) = self.ipam.address(Holder::Behind(caller.device, id)) {
            self.give_back(caller.device, id, address, now);
        }
        Ok(())
    }

    /// Takes back the addresses of all devices behind a member that leaves.
    pub(super) fn release_devices(&mut self, owner: &DeviceKey, now: Now) {
        for (id, address) in self.ipam.behind(Some(owner)).collect::<Vec<_>>() {
            self.give_back(*owner, id, address, now);
        }
    }

    fn give_back(&mut self, owner: DeviceKey, id: DeviceId, address: Ipv4Addr, now: Now) {
        self.ipam.release(Holder::Behind(owner, id), now.unix);
        self.store(Record::Device(StoredDevice { owner, id, address, released: Some(now.unix) }));
    }

    fn check_room_for_device(&self, owner: &DeviceKey) -> Result<(), ErrorBody> {
        let full = |message: String| Err(refusal(ErrorCode::PartyFull, message));
        if self.ipam.behind(Some(owner)).count() >= MAX_DEVICES {
            return full(format!("a gateway has {MAX_DEVICES} devices at most: remove one first"));
        }
        if self.ipam.behind(None).count() >= MAX_PARTY_DEVICES {
            return full(format!("the gateways of a party have {MAX_PARTY_DEVICES} devices at most"));
        }
        Ok(())
    }

    /// A member may name devices only at addresses that it has leased. The MAC is for the members: the server cannot
    /// check it.
    pub(super) fn check_devices(&self, owner: &DeviceKey, list: &DeviceList) -> Result<(), ErrorBody> {
        let is_leased =
            |address| matches!(self.ipam.holder(address), Some(Holder::Behind(of, _)) if of == *owner);
        match list.is_sane() && list.addresses().all(is_leased) {
            true => Ok(()),
            false => Err(refusal(
                ErrorCode::BadRequest,
                "the list of devices has an address that is not leased for one, or names that cannot be shown",
            )),
        }
    }
}

/// A lease that went to somebody else.
pub(super) fn gone(holder: Holder) -> Record {
    match holder {
        Holder::Member(device) => Record::SeatGone(device),
        Holder::Behind(owner, id) => Record::DeviceGone(owner, id),
    }
}
