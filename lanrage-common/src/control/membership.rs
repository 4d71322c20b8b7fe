//! Who gets in, and who goes.

use super::devices::gone;
use super::{Caller, CodeHash, ControlParty, Output, Record, Seat, StoredInvite, StoredSeat, refusal};
use crate::identity::DeviceKey;
use crate::protocol::{Change, CreateInvite, ErrorBody, ErrorCode, MAX_MEMBERS, Membership};
use crate::time::Now;

impl ControlParty {
    /// Redeems an invite. A member gets its membership again without using the invite up.
    pub fn handle_join(
        &mut self,
        caller: Caller,
        code: &CodeHash,
        now: Now,
    ) -> Result<Membership, ErrorBody> {
        self.invites.check_known(code)?;
        if self.seats.contains_key(&caller.device) {
            return self.membership(&caller.device);
        }
        self.invites.check(code, now.unix)?;
        if self.seats.len() >= MAX_MEMBERS {
            return Err(refusal(
                ErrorCode::PartyFull,
                format!("the party has {MAX_MEMBERS} members, and that is the most it can have"),
            ));
        }
        self.check_wg_is_unique(&caller)?;
        let membership = self.admit(caller)?;
        let used = self.invites.redeem(code);
        self.outputs.extend(used.map(|invite| Output::Store(Record::Invite(invite))));
        Ok(membership)
    }

    /// Registers an invite whose code hashes to `code`; the answer is its stored form.
    pub fn handle_create_invite(
        &mut self,
        caller: &Caller,
        code: CodeHash,
        wish: &CreateInvite,
        now: Now,
    ) -> Result<StoredInvite, ErrorBody> {
        self.seat(&caller.device)?;
        let (invite, forgotten) = self.invites.create(code, wish, now.unix)?;
        self.outputs.extend(forgotten.into_iter().map(|code| Output::Store(Record::InviteGone(code))));
        self.store(Record::Invite(invite));
        Ok(invite)
    }

    /// Takes an invite back.
    pub fn handle_revoke_invite(&mut self, caller: &Caller, code: &CodeHash) -> Result<(), ErrorBody> {
        self.seat(&caller.device)?;
        let invite = self.invites.revoke(code)?;
        self.store(Record::Invite(invite));
        Ok(())
    }

    /// Removes the caller. Its address stays reserved for it. With the host go all invites, since nobody could check
    /// the host's fingerprint in them; with the last member goes the party.
    pub fn handle_leave(&mut self, caller: &Caller, now: Now) -> Result<(), ErrorBody> {
        let wg = self.seat(&caller.device)?.wg;
        let address = self.membership(&caller.device)?.address;
        let left = self.seats.remove(&caller.device);
        self.ipam.release(caller.device, now.unix);
        if self.seats.is_empty() {
            self.store(Record::Dissolved);
            return Ok(());
        }
        self.release_devices(&caller.device, now);
        let released = Some(now.unix);
        self.store(Record::Seat(StoredSeat { device: caller.device, wg, address, released, entry: None }));
        if caller.device == self.party.host {
            let revoked = self.invites.revoke_all();
            self.outputs.extend(revoked.into_iter().map(|invite| Output::Store(Record::Invite(invite))));
        }
        if left.is_some_and(|seat| seat.entry.is_some()) {
            self.change(Change::Left { device: caller.device });
        }
        Ok(())
    }

    /// The membership of a device, if it is a member.
    pub(super) fn membership(&self, device: &DeviceKey) -> Result<Membership, ErrorBody> {
        let address = self.ipam.address(device).ok_or_else(super::not_a_member)?;
        Ok(Membership { party: self.party.clone(), address })
    }

    pub(super) fn admit(&mut self, caller: Caller) -> Result<Membership, ErrorBody> {
        let leased = self
            .ipam
            .lease(caller.device)
            .map_err(|error| refusal(ErrorCode::PartyFull, format!("the party is full: {error}")))?;
        if let Some(previous) = leased.taken_from {
            self.store(gone(previous));
        }
        self.seats.insert(caller.device, Seat { wg: caller.wg, entry: None, conn: None });
        self.store(Record::Seat(StoredSeat {
            device: caller.device,
            wg: caller.wg,
            address: leased.address,
            released: None,
            entry: None,
        }));
        self.membership(&caller.device)
    }

    /// Nobody may claim another member's tunnel key: signals and tickets are addressed by it.
    pub(super) fn check_wg_is_unique(&self, caller: &Caller) -> Result<(), ErrorBody> {
        let taken = self.seats.iter().any(|(device, seat)| *device != caller.device && seat.wg == caller.wg);
        match taken {
            true => Err(refusal(
                ErrorCode::Forbidden,
                "another member already uses this tunnel key: two devices must not share a key file",
            )),
            false => Ok(()),
        }
    }
}
