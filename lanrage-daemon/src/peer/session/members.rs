//! Who is in the party, as the cores of a session are told.

use super::{Notice, Session};
use crate::peer::tunnel::TunnelMember;
use lanrage_common::api::PathKind;
use lanrage_common::devices::PartyDevice;
use lanrage_common::identity::{DeviceKey, RosterEntry};
use lanrage_common::time::Now;
use std::net::Ipv4Addr;

impl Session {
    pub(super) fn add_member(&mut self, entry: &RosterEntry, now: Now) {
        let own = self.party.own().wg;
        let preshared_key = self.secret.preshared_key(&self.party.party().id, &own, &entry.wg);
        self.tunnel
            .set_member(TunnelMember { key: entry.wg, preshared_key, address: entry.address }, now.instant);
        self.follow_devices(&entry.device);
        self.paths.add_member(entry.wg, now);
        self.follow_members(now);
    }

    /// Who gets copies of group packets: of this machine's also the devices behind it.
    pub(in crate::peer) fn follow_members(&mut self, now: Now) {
        let members = || self.party.members().map(|member| member.address);
        // what this machine sends to everybody is on the home network anyway
        let clients = self.gateway.registry().devices().iter().map(|device| device.address);
        self.lane.set_members(members().chain(clients));
        self.gateway.lane.set_members(members());
        let behind = self.party.members().flat_map(|member| self.party.devices_of(&member.device));
        let everybody = members().chain(behind.map(|device| device.address)).collect();
        self.gateway.set_members(everybody, now.instant);
        self.trace.set_members(members());
        self.board.set_members(members(), now.instant);
    }

    /// Tells the tunnel which devices are behind a member.
    pub(super) fn follow_devices(&mut self, device: &DeviceKey) {
        let Some(member) = self.party.members().find(|member| member.device == *device) else { return };
        let devices = self.party.devices_of(device).iter().map(|device| device.address);
        self.tunnel.set_devices(&member.wg, &devices.collect::<Vec<_>>());
        if self.short.contains_key(&member.wg) {
            self.notices.push_back(Notice::Lengths);
        }
    }

    pub(super) fn remove_member(&mut self, entry: &RosterEntry, now: Now) {
        self.tunnel.remove_member(&entry.wg);
        self.paths.remove_member(&entry.wg);
        self.kinds.remove(&entry.wg);
        self.set_length(entry.wg, None);
        self.follow_members(now);
    }

    pub(in crate::peer) fn devices_behind(&self, member: &RosterEntry) -> impl Iterator<Item = &PartyDevice> {
        self.party.devices_of(&member.device).iter()
    }

    /// What a member is called, or a device behind one or behind this device.
    pub(in crate::peer) fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        let member = self.party.members().find(|member| member.address == address);
        let device = || {
            let theirs = self.party.members().flat_map(|member| self.devices_behind(member).cloned());
            theirs.chain(self.gateway.devices()).find(|device| device.address == address)
        };
        member.map(|member| member.name.clone()).or_else(|| Some(device()?.name))
    }

    pub(super) fn path_kind(&self, address: Ipv4Addr) -> PathKind {
        let member = self.party.members().find(|member| member.address == address);
        member.and_then(|member| self.kinds.get(&member.wg).copied()).unwrap_or(PathKind::None)
    }
}
