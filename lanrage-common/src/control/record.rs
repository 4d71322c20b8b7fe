//! What of a party is durable, and how a party comes back from it.

use super::{Change, CodeHash, ControlParty, Seat, StoredDevice};
use crate::identity::{DeviceId, DeviceKey, WgKey};
use crate::ipam::{self, Holder, Ipam, Lease, SubnetError};
use crate::protocol::{Member, Party};
use std::net::Ipv4Addr;

/// One durable fact; each replaces an older one about the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The party exists.
    Founded(Party),
    /// The party and all about it is gone.
    Dissolved,
    /// A device's lease, and its membership while the lease is held.
    Seat(StoredSeat),
    /// A device's lease went to another device.
    SeatGone(DeviceKey),
    /// The lease of a device behind a member.
    Device(StoredDevice),
    /// The lease of a device behind a member went to somebody else.
    DeviceGone(DeviceKey, DeviceId),
    /// An invite as it is now.
    Invite(StoredInvite),
    /// An invite is forgotten.
    InviteGone(CodeHash),
    /// A change of the roster; also the party's newest sequence number.
    Change {
        /// Its number.
        seq: u64,
        /// The party's epoch after it.
        epoch: u32,
        /// The change.
        change: Change,
    },
}

/// A device's lease and membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSeat {
    /// Whose.
    pub device: DeviceKey,
    /// The tunnel key it last proved.
    pub wg: WgKey,
    /// Its address.
    pub address: Ipv4Addr,
    /// Unix seconds at which it left; absent = it is a member.
    pub released: Option<u64>,
    /// What it published.
    pub entry: Option<Member>,
}

/// An invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredInvite {
    /// Hash of its code.
    pub code: CodeHash,
    /// Unix seconds.
    pub expires_at: u64,
    /// Devices that may still use it; absent = no limit.
    pub uses_left: Option<u32>,
    /// Taken back?
    pub revoked: bool,
}

/// All durable facts of one party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredParty {
    /// Its facts.
    pub party: Party,
    /// Number of its newest change.
    pub seq: u64,
    /// Leases and members.
    pub seats: Vec<StoredSeat>,
    /// Leases of devices behind members.
    pub devices: Vec<StoredDevice>,
    /// Invites.
    pub invites: Vec<StoredInvite>,
    /// Number, epoch and content of the newest changes, oldest first.
    pub changes: Vec<(u64, u32, Change)>,
}

/// A party that cannot be restored: its database was damaged or edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Unfit subnet.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// Contradicting leases.
    #[error(transparent)]
    Lease(#[from] ipam::RestoreError),
}

impl ControlParty {
    /// A party as it was stored; nobody is connected.
    pub fn restore(stored: StoredParty) -> Result<Self, RestoreError> {
        let ipam = Ipam::new(stored.party.subnet)?;
        let mut party = Self::empty(stored.party, ipam);
        party.seq = stored.seq;
        for seat in stored.seats {
            party.restore_seat(seat)?;
        }
        for StoredDevice { owner, id, address, released } in stored.devices {
            party.ipam.restore(Holder::Behind(owner, id), Lease { address, released })?;
        }
        for invite in stored.invites {
            party.invites.restore(invite);
        }
        party.restore_changes(stored.changes);
        Ok(party)
    }

    fn restore_seat(&mut self, seat: StoredSeat) -> Result<(), RestoreError> {
        self.ipam.restore(seat.device, Lease { address: seat.address, released: seat.released })?;
        if seat.released.is_none() {
            self.seats.insert(seat.device, Seat { wg: seat.wg, entry: seat.entry, conn: None });
        }
        Ok(())
    }

    /// Keeps the changes only if they lead to the newest state without a gap.
    fn restore_changes(&mut self, changes: Vec<(u64, u32, Change)>) {
        let first = (self.seq + 1).saturating_sub(changes.len() as u64);
        if changes.iter().map(|change| change.0).eq(first..=self.seq) {
            for (seq, epoch, change) in changes {
                let delta = self.delta(seq, epoch, change);
                self.remember(seq, delta);
            }
        }
    }
}
