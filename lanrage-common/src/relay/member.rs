//! Bound members: by slot, address, key and probe tag.

use super::wireguard::Mac1Key;
use super::{Leg, MemberLimits, Traffic};
use crate::bucket::{Bucket, Rate};
use crate::identity::{PartyId, WgKey};
use crate::path::probe;
use crate::ticket::Ticket;
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

/// Handshakes a member may be offered: a party of 254 joins in one burst and repeats every 5 s.
const HANDSHAKES_IN: Rate = Rate::per_second(50, 300);
/// Handshake messages a member may send: it starts handshakes and answers them.
const HANDSHAKES_OUT: Rate = Rate::per_second(100, 600);
/// Probes a member may send, and may be sent.
const PROBES: Rate = Rate::per_second(300, 600);

/// A bound member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) party: PartyId,
    pub(super) key: WgKey,
    pub(super) mac1: Mac1Key,
    pub(super) leg: Leg,
    /// The ticket as it came, to know it again after its time.
    pub(super) sealed: Vec<u8>,
    pub(super) ticket: Ticket,
    /// Issue time of the nonce that proved the address.
    pub(super) proven_at: u64,
    pub(super) expires: Instant,
    pub(super) handshakes_out: Bucket,
    pub(super) handshakes_in: Bucket,
    pub(super) probes_out: Bucket,
    pub(super) probes_in: Bucket,
    packets: Option<Bucket>,
    bytes: Option<Bucket>,
    pub(super) traffic: Traffic,
}

impl Member {
    pub(super) fn new(ticket: Ticket, sealed: Vec<u8>, leg: Leg, proven_at: u64, expires: Instant) -> Self {
        let mut member = Self {
            party: ticket.party,
            key: ticket.member,
            mac1: Mac1Key::new(&ticket.member),
            leg,
            sealed: Vec::new(),
            ticket: ticket.clone(),
            proven_at,
            expires,
            handshakes_out: Bucket::new(HANDSHAKES_OUT),
            handshakes_in: Bucket::new(HANDSHAKES_IN),
            probes_out: Bucket::new(PROBES),
            probes_in: Bucket::new(PROBES),
            packets: None,
            bytes: None,
            traffic: Traffic::default(),
        };
        member.set_ticket(ticket, sealed);
        member
    }

    /// What the ticket allows.
    pub(super) fn limits(&self) -> MemberLimits {
        MemberLimits { packets_per_s: self.ticket.packets_per_s, kbit_per_s: self.ticket.kbit_per_s }
    }

    /// Takes a newer ticket of the same member; a changed allowance starts with full buckets.
    pub(super) fn set_ticket(&mut self, ticket: Ticket, sealed: Vec<u8>) {
        let allowance = |ticket: &Ticket| (ticket.packets_per_s, ticket.kbit_per_s);
        if self.sealed.is_empty() || allowance(&self.ticket) != allowance(&ticket) {
            self.packets = packets_rate(ticket.packets_per_s).map(Bucket::new);
            self.bytes = bytes_rate(ticket.kbit_per_s).map(Bucket::new);
        }
        (self.ticket, self.sealed) = (ticket, sealed);
    }

    /// Whether the ticket allows another data packet of this size.
    pub(super) fn may_send(&mut self, bytes: usize, now: Instant) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let allowed = self.packets.as_mut().is_none_or(|bucket| bucket.take(1, now))
            && self.bytes.as_mut().is_none_or(|bucket| bucket.take(bytes, now));
        if allowed {
            self.traffic.packets += 1;
            self.traffic.bytes += bytes;
        } else {
            self.traffic.dropped += 1;
        }
        allowed
    }
}

/// A quarter second's packets at once, at least 64.
fn packets_rate(per_second: u32) -> Option<Rate> {
    let per_second = u64::from(per_second);
    (per_second > 0).then(|| Rate::per_second(per_second, (per_second / 4).max(64)))
}

/// A quarter second's bytes at once, at least 64 KiB.
fn bytes_rate(kbit_per_second: u32) -> Option<Rate> {
    let per_second = u64::from(kbit_per_second) * 125;
    (per_second > 0).then(|| Rate::per_second(per_second, (per_second / 4).max(65_536)))
}

/// A party with bound members.
#[derive(Debug)]
struct Party {
    /// Short name, for tables: other parties have it after this one.
    number: u32,
    /// Newest epoch seen.
    epoch: u32,
    members: BTreeSet<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Members {
    slots: Vec<Option<Member>>,
    free: VecDeque<u32>,
    /// Asked for each flow that is taken over.
    by_address: HashMap<SocketAddr, u32, RandomState>,
    by_key: HashMap<(PartyId, WgKey), u32>,
    by_tag: HashMap<(PartyId, [u8; 8]), u32>,
    parties: HashMap<PartyId, Party>,
    /// Numbers that parties had and have no more; the next new one is how many there are parties.
    free_numbers: Vec<u32>,
    expiry: BTreeSet<(Instant, u32)>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Member)> {
        (0..).zip(&self.slots).filter_map(|(slot, member)| Some((slot, member.as_ref()?)))
    }

    pub(super) fn at(&self, slot: u32) -> Option<&Member> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Member> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn by_address(&self, address: SocketAddr) -> Option<u32> {
        self.by_address.get(&address).copied()
    }

    pub(super) fn by_key(&self, party: PartyId, key: WgKey) -> Option<u32> {
        self.by_key.get(&(party, key)).copied()
    }

    pub(super) fn by_tag(&self, party: PartyId, tag: [u8; 8]) -> Option<u32> {
        self.by_tag.get(&(party, tag)).copied()
    }

    pub(super) fn of_party(&self, party: PartyId) -> impl Iterator<Item = (u32, &Member)> {
        let slots = self.parties.get(&party).into_iter().flat_map(|party| &party.members);
        slots.filter_map(|slot| Some((*slot, self.at(*slot)?)))
    }

    pub(super) fn count_of_party(&self, party: PartyId) -> usize {
        self.parties.get(&party).map_or(0, |party| party.members.len())
    }

    /// A party's number, while it has members.
    pub(super) fn party_number(&self, party: PartyId) -> Option<u32> {
        self.parties.get(&party).map(|party| party.number)
    }

    /// Of each slot the party's number.
    pub(super) fn party_numbers(&self) -> Vec<Option<u32>> {
        let mut numbers = vec![None; self.slots.len()];
        for party in self.parties.values() {
            party.members.iter().for_each(|slot| numbers[*slot as usize] = Some(party.number));
        }
        numbers
    }

    /// The newest epoch of which a ticket was seen while members were bound.
    pub(super) fn epoch(&self, party: PartyId) -> u32 {
        self.parties.get(&party).map_or(0, |party| party.epoch)
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiry.first().map(|(at, _)| *at)
    }

    pub(super) fn first_expired(&self, now: Instant) -> Option<u32> {
        self.expiry.first().filter(|(at, _)| *at <= now).map(|(_, slot)| *slot)
    }

    pub(super) fn insert(&mut self, member: Member) -> u32 {
        let slot = self.free.pop_front().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.put(slot, member);
        slot
    }

    /// Fills the slots that these members had before; those between become free.
    pub(super) fn restore(&mut self, members: BTreeMap<u32, Member>) {
        let end = members.last_key_value().map_or(0, |(slot, _)| slot + 1);
        self.slots.resize_with(end as usize, || None);
        self.free = (0..end).filter(|slot| !members.contains_key(slot)).collect();
        for (slot, member) in members {
            self.put(slot, member);
        }
    }

    fn put(&mut self, slot: u32, member: Member) {
        self.by_address.insert(member.leg.remote, slot);
        self.by_key.insert((member.party, member.key), slot);
        self.by_tag.insert((member.party, probe::tag(&member.key)), slot);
        self.expiry.insert((member.expires, slot));
        self.party(member.party).members.insert(slot);
        self.slots[slot as usize] = Some(member);
    }

    fn party(&mut self, party: PartyId) -> &mut Party {
        let fresh = u32::try_from(self.parties.len()).unwrap_or(u32::MAX);
        let free = &mut self.free_numbers;
        self.parties.entry(party).or_insert_with(|| Party {
            number: free.pop().unwrap_or(fresh),
            epoch: 0,
            members: BTreeSet::new(),
        })
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Member> {
        let member = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push_back(slot);
        self.by_address.remove(&member.leg.remote);
        self.by_key.remove(&(member.party, member.key));
        self.by_tag.remove(&(member.party, probe::tag(&member.key)));
        self.expiry.remove(&(member.expires, slot));
        if let Some(party) = self.parties.get_mut(&member.party) {
            party.members.remove(&slot);
            if party.members.is_empty() {
                self.free_numbers.push(party.number);
                self.parties.remove(&member.party);
            }
        }
        Some(member)
    }

    pub(super) fn set_leg(&mut self, slot: u32, leg: Leg) {
        let Some(member) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        self.by_address.remove(&member.leg.remote);
        self.by_address.insert(leg.remote, slot);
        member.leg = leg;
    }

    pub(super) fn set_expiry(&mut self, slot: u32, expires: Instant) {
        let Some(member) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        self.expiry.remove(&(member.expires, slot));
        member.expires = expires;
        self.expiry.insert((expires, slot));
    }

    /// Notes a party's epoch without any consequence for its members.
    pub(super) fn set_epoch(&mut self, party: PartyId, epoch: u32) {
        self.party(party).epoch = epoch;
    }

    /// Notes a newer epoch of a party; members of older ones keep their binding until `grace` at most. Returns those
    /// whose time that shortened.
    pub(super) fn advance_epoch(&mut self, party: PartyId, epoch: u32, grace: Instant) -> Vec<u32> {
        let state = self.party(party);
        if epoch <= state.epoch {
            return Vec::new();
        }
        state.epoch = epoch;
        let old: Vec<_> = self
            .of_party(party)
            .filter(|(_, member)| member.ticket.epoch < epoch && member.expires > grace)
            .map(|(slot, _)| slot)
            .collect();
        for slot in &old {
            self.set_expiry(*slot, grace);
        }
        old
    }
}
