//! Who is bound, for the operator's eyes.

use super::{Leg, MemberLimits, RelayServer};
use crate::identity::{PartyId, WgKey};

/// A bound member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundMember {
    /// Its slot, which also names its counters in the data path.
    pub slot: u32,
    /// Its party.
    pub party: PartyId,
    /// Its tunnel key.
    pub key: WgKey,
    /// Where it is.
    pub leg: Leg,
    /// What its ticket allows.
    pub limits: MemberLimits,
    /// What this server forwarded for it, the data path's share apart.
    pub traffic: Traffic,
}

/// Data of one member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Data packets sent on.
    pub packets: u64,
    /// Their UDP payload.
    pub bytes: u64,
    /// Data packets above what the ticket allows.
    pub dropped: u64,
}

impl RelayServer {
    /// Everybody who is bound, by slot.
    pub fn members(&self) -> impl Iterator<Item = BoundMember> {
        self.members.all().map(|(slot, member)| BoundMember {
            slot,
            party: member.party,
            key: member.key,
            leg: member.leg,
            limits: member.limits(),
            traffic: member.traffic,
        })
    }
}
