//! Changing the list of members, each entry only after it was checked.

use super::verify::{self, Refusal};
use super::{Output, PartyClient};
use crate::api::Problem;
use crate::devices::{DeviceList, MAX_PARTY_DEVICES};
use crate::identity::{DeviceKey, RosterEntry};
use crate::protocol::{MAX_MEMBERS, Member};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

impl PartyClient {
    /// Takes over a whole roster.
    pub(super) fn replace_members(&mut self, mut members: Vec<Member>) {
        let offered: BTreeSet<_> = members.iter().map(|member| member.entry.device).collect();
        let gone = self.members().map(|entry| entry.device).filter(|device| !offered.contains(device));
        for device in gone.collect::<Vec<_>>() {
            self.drop_member(&device);
        }
        // who held an address before keeps it, whatever order the server chose
        members.sort_by_key(|member| !self.holds(&member.entry));
        let refused = members.into_iter().filter(|member| !self.put_member(member.clone())).count();
        if refused == 0 {
            self.outputs.push_back(Output::Solved("roster_refused"));
        }
    }

    fn holds(&self, entry: &RosterEntry) -> bool {
        self.members().any(|known| known.device == entry.device && known.address == entry.address)
    }

    /// Believes a member's entry or counts why not; false when it was refused.
    pub(super) fn put_member(&mut self, mut member: Member) -> bool {
        if member.entry.device == self.own.entry.device {
            return true;
        }
        if let Err(refusal) = self.check_member(&member) {
            self.refuse(&member.entry, refusal);
            return false;
        }
        member.devices = self.believed_devices(&mut member);
        let new = member.entry.clone();
        let changed = match self.state.members.iter_mut().find(|known| known.entry.device == new.device) {
            Some(known) => {
                let old = std::mem::replace(known, member);
                let changed = old.devices != known.devices;
                if old.entry != new {
                    self.outputs.push_back(Output::MemberChanged { old: old.entry, new: new.clone() });
                }
                changed
            }
            None => {
                let has_devices = member.devices.is_some();
                self.add_member(member);
                has_devices
            }
        };
        if changed {
            self.outputs.push_back(Output::DevicesChanged { device: new.device });
        }
        true
    }

    /// The offered list of devices, if it is to be believed; else what was known before. The member stays either way.
    fn believed_devices(&mut self, member: &mut Member) -> Option<Box<DeviceList>> {
        let offered = member.devices.take()?;
        let known = self.state.members.iter().find(|known| known.entry.device == member.entry.device);
        let known = known.and_then(|known| known.devices.clone());
        match self.check_devices(member, &offered, known.as_deref()) {
            Ok(()) => Some(offered),
            Err(refusal) => {
                self.count(refusal.name());
                known.filter(|known| {
                    known.is_of(&self.secret, &self.party().id, &member.entry.device, self.party().epoch)
                })
            }
        }
    }

    fn check_devices(
        &self,
        member: &Member,
        list: &DeviceList,
        known: Option<&DeviceList>,
    ) -> Result<(), Refusal> {
        let (party, owner) = (self.party(), &member.entry.device);
        verify::check_devices(list, party, owner, &self.secret)?;
        if known.is_some_and(|known| known.version > list.version) {
            return Err(Refusal::OldDevices);
        }
        let is_free = |address| address != member.entry.address && self.is_free(address, owner);
        if !list.addresses().all(is_free) {
            return Err(Refusal::DeviceAddressTaken);
        }
        let others = self.state.members.iter().filter(|other| other.entry.device != *owner);
        let count: usize = others.filter_map(|other| Some(other.devices.as_ref()?.devices.len())).sum();
        if count + list.devices.len() > MAX_PARTY_DEVICES {
            return Err(Refusal::TooManyDevices);
        }
        Ok(())
    }

    /// Whether nobody but `owner` has the address, for itself or for a device.
    fn is_free(&self, address: Ipv4Addr, owner: &DeviceKey) -> bool {
        let everybody = self.state.members.iter().chain([&self.own]);
        let others = everybody.filter(|other| other.entry.device != *owner);
        others.into_iter().all(|other| {
            other.entry.address != address
                && other.devices.as_ref().is_none_or(|list| list.addresses().all(|taken| taken != address))
        })
    }

    fn check_member(&self, member: &Member) -> Result<(), Refusal> {
        verify::check(member, self.party(), &self.secret)?;
        verify::check_against(&member.entry, &self.own.entry)?;
        self.members().try_for_each(|known| verify::check_against(&member.entry, known))?;
        if !self.is_free(member.entry.address, &member.entry.device) {
            return Err(Refusal::AddressTaken);
        }
        let is_known = self.members().any(|known| known.device == member.entry.device);
        if !is_known && self.state.members.len() + 1 >= MAX_MEMBERS {
            return Err(Refusal::TooMany);
        }
        Ok(())
    }

    fn add_member(&mut self, member: Member) {
        let device = member.entry.device;
        self.outputs.push_back(Output::MemberUp(member.entry.clone()));
        self.state.members.push(member);
        if self.online.contains(&device) {
            self.outputs.push_back(Output::Presence { device, online: true });
        }
        if device == self.party().host {
            self.verify_host();
        }
    }

    pub(super) fn verify_host(&mut self) {
        if !std::mem::replace(&mut self.host_verified, true) {
            self.outputs.push_back(Output::HostVerified);
        }
    }

    fn refuse(&mut self, entry: &RosterEntry, refusal: Refusal) {
        self.count(refusal.name());
        let message = format!(
            "the control server offered an entry for device {} that was refused ({})",
            entry.device.fingerprint(),
            refusal.name()
        );
        self.outputs.push_back(Output::Problem(Problem {
            code: "roster_refused".into(),
            message,
            fix: "if that is a friend of yours, let them leave and join again with a new invite; else do not trust \
                  this control server"
                .into(),
        }));
    }

    pub(super) fn drop_member(&mut self, device: &DeviceKey) {
        let Some(at) = self.state.members.iter().position(|member| member.entry.device == *device) else {
            return;
        };
        let gone = self.state.members.remove(at).entry;
        self.outputs.push_back(Output::MemberGone(gone));
    }
}
