//! Changing the list of members, each entry only after it was checked.

use super::verify::{self, Refusal};
use super::{Output, PartyClient};
use crate::api::Problem;
use crate::identity::{DeviceKey, RosterEntry};
use crate::protocol::{MAX_MEMBERS, Member};
use std::collections::BTreeSet;

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
    pub(super) fn put_member(&mut self, member: Member) -> bool {
        if member.entry.device == self.own.entry.device {
            return true;
        }
        if let Err(refusal) = self.check_member(&member) {
            self.refuse(&member.entry, refusal);
            return false;
        }
        let new = member.entry.clone();
        match self.state.members.iter_mut().find(|known| known.entry.device == new.device) {
            Some(known) if known.entry == new => {}
            Some(known) => {
                let old = std::mem::replace(known, member).entry;
                self.outputs.push_back(Output::MemberChanged { old, new });
            }
            None => self.add_member(member),
        }
        true
    }

    fn check_member(&self, member: &Member) -> Result<(), Refusal> {
        verify::check(member, self.party(), &self.secret)?;
        verify::check_against(&member.entry, &self.own.entry)?;
        self.members().try_for_each(|known| verify::check_against(&member.entry, known))?;
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
