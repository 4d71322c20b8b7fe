//! What outlives a relay's process: records of its bindings, and how another one takes over from them.
//!
//! Record, all integers big-endian: version (1 byte, 1), the nonces' secret (32), the party's newest epoch (4), the leg's
//! own and remote address (family 4 or 6, port (2), address (16) each), issue time of the nonce that proved the address
//! (8, µs), end of the binding (8, ms), the sealed ticket. Times count from [`super::Setup::clock`]. Zeros may follow.
//! Nothing authenticates a record: it lives where only root can write.

use super::member::{Member, Members};
use super::route::{CONFIRMED_LIFE, Restored};
use super::server::{Output, RelayServer};
use super::{Flow, Leg, Target};
use crate::binding::{LIFETIME, NonceKey};
use crate::path::probe::{address_from_bytes, address_to_bytes};
use crate::ticket::{TICKET_LEN, Ticket};
use crate::time::Now;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// Longest record of [`Output::Persist`] in bytes.
pub const RECORD_LEN: usize = 256;

const VERSION: u8 = 1;
const LEN: usize = 1 + 32 + 4 + 2 * 19 + 8 + 8 + TICKET_LEN;
const _: () = assert!(LEN <= RECORD_LEN);

/// What [`RelayServer::adopt`] took over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adoption {
    /// Bindings that go on.
    pub members: usize,
    /// Flows that go on.
    pub flows: usize,
    /// Slots whose record was not one: to be forgotten.
    pub refused_records: Vec<u32>,
    /// Flows of members that are not bound any more: to be removed from the data path.
    pub refused_flows: Vec<Flow>,
}

#[derive(Debug, PartialEq, Eq)]
struct Record {
    secret: [u8; 32],
    party_epoch: u32,
    leg: Leg,
    proven_at: u64,
    /// Since the clock's zero.
    expires: Duration,
    sealed: Vec<u8>,
}

impl Record {
    fn to_bytes(&self) -> Vec<u8> {
        let expires = u64::try_from(self.expires.as_millis()).unwrap_or(u64::MAX);
        [
            &[VERSION],
            &self.secret[..],
            &self.party_epoch.to_be_bytes(),
            &address_to_bytes(self.leg.local),
            &address_to_bytes(self.leg.remote),
            &self.proven_at.to_be_bytes(),
            &expires.to_be_bytes(),
            &self.sealed,
        ]
        .concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (record, padding) = bytes.split_at_checked(LEN)?;
        if record[0] != VERSION || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        let word = |at: usize| Some(u64::from_be_bytes(*record[at..].first_chunk()?));
        let address = |at: usize| address_from_bytes(record[at..].first_chunk()?);
        Some(Self {
            secret: *record[1..].first_chunk()?,
            party_epoch: u32::from_be_bytes(*record[33..].first_chunk()?),
            leg: Leg { local: address(37)?, remote: address(56)? },
            proven_at: word(75)?,
            expires: Duration::from_millis(word(83)?),
            sealed: record[91..].to_vec(),
        })
    }
}

impl RelayServer {
    /// Takes over the bindings and flows of the process before this one. `records` are those of [`Output::Persist`] by
    /// slot, zeros where there is none; `flows` are what the data path forwards, with any `local` address. To be called
    /// before anything else; [`Output::Admit`] follows for each binding, and nothing for flows, which are in place.
    pub fn adopt<'a>(
        &mut self,
        records: impl IntoIterator<Item = (u32, &'a [u8])>,
        flows: impl IntoIterator<Item = (Flow, Target)>,
        now: Now,
    ) -> Adoption {
        let mut adoption = Adoption::default();
        self.adopt_members(records, now, &mut adoption);
        let (members, parties) = (&self.members, self.members.party_numbers());
        let known = flows.into_iter().filter_map(|(flow, target)| {
            let known = adoptable(members, &parties, flow, target, now.instant);
            if known.is_none() {
                adoption.refused_flows.push(flow);
            }
            known
        });
        let refused = self.routes.restore(known, now.instant);
        let refused = refused.into_iter().filter_map(|(sender, index)| {
            let source = self.members.at(sender)?.leg.remote;
            Some(Flow { source, index })
        });
        adoption.refused_flows.extend(refused);
        adoption.flows = self.routes.confirmed();
        adoption
    }

    fn adopt_members<'a>(
        &mut self,
        records: impl IntoIterator<Item = (u32, &'a [u8])>,
        now: Now,
        adoption: &mut Adoption,
    ) {
        let mut members = BTreeMap::new();
        let mut epochs = BTreeMap::new();
        let (mut addresses, mut keys) = (HashSet::new(), HashSet::new());
        for (slot, bytes) in records.into_iter().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)) {
            let adoptable = self.adoptable_member(slot, bytes, now).filter(|(_, member)| {
                addresses.insert(member.leg.remote) && keys.insert((member.party, member.key))
            });
            let Some((record, member)) = adoptable else {
                adoption.refused_records.push(slot);
                continue;
            };
            self.nonces = NonceKey::new(record.secret, self.clock);
            let epoch = epochs.entry(member.party).or_insert(0);
            *epoch = record.party_epoch.max(*epoch);
            members.insert(slot, member);
        }
        adoption.members = members.len();
        let slots: Vec<u32> = members.keys().copied().collect();
        self.members.restore(members);
        for (party, epoch) in epochs {
            // who is of an older epoch has its shorter time already
            self.members.set_epoch(party, epoch);
        }
        slots.into_iter().for_each(|slot| self.admit(slot));
    }

    fn adoptable_member(&self, slot: u32, bytes: &[u8], now: Now) -> Option<(Record, Member)> {
        let record = Record::from_bytes(bytes)?;
        let ticket = Ticket::open_any_time(&record.sealed, &self.ticket_key).ok()?;
        let expires = self.clock.checked_add(record.expires)?;
        let is_alive = expires > now.instant && expires <= now.instant + LIFETIME;
        let is_whole = record.party_epoch >= ticket.epoch
            && record.leg == record.leg.canonical()
            && self.is_possible_source(record.leg.remote)
            && (slot as usize) < self.limits.members;
        if !is_alive || !is_whole {
            return None;
        }
        let member = Member::new(ticket, record.sealed.clone(), record.leg, record.proven_at, expires);
        Some((record, member))
    }

    /// Gives the record of a binding to whoever keeps it.
    pub(super) fn persist(&mut self, slot: u32) {
        let Some(member) = self.members.at(slot) else { return };
        let record = Record {
            secret: *self.nonces.secret(),
            party_epoch: self.members.epoch(member.party),
            leg: member.leg,
            proven_at: member.proven_at,
            expires: member.expires.saturating_duration_since(self.clock),
            sealed: member.sealed.clone(),
        };
        self.emit(Output::Persist { slot, record: record.to_bytes() });
    }
}

/// A flow between bound members of one party. `parties` are the numbers of the members' parties by slot.
fn adoptable(
    members: &Members,
    parties: &[Option<u32>],
    flow: Flow,
    target: Target,
    now: Instant,
) -> Option<Restored> {
    let party_of = |slot: u32| parties.get(slot as usize).copied().flatten();
    let sender = target.member;
    members.at(sender).filter(|member| member.leg.remote == flow.source)?;
    let owner = members.by_address(target.leg.remote).filter(|slot| *slot != sender)?;
    let party = party_of(sender).filter(|party| party_of(owner) == Some(*party))?;
    if target.expires <= now {
        return None;
    }
    Some(((sender, flow.index), owner, party, target.expires.min(now + CONFIRMED_LIFE)))
}
