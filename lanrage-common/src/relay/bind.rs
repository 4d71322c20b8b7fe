//! How the relay server answers Bind.

use super::Leg;
use super::member::Member;
use super::reason::Reason;
use super::server::{Output, RelayServer, Unbound};
use crate::binding::{
    BindRequest, LIFETIME, Refusal, bound_answer, challenge_answer, refusal_answer, verify_integrity,
};
use crate::ticket::{Ticket, TicketError};
use crate::time::Now;
use std::net::SocketAddr;
use std::time::Duration;

/// How long after its expiry a ticket still refreshes the live binding that it made: members outlive their control
/// server. A kicked member is out all the same, as the others come with tickets of a newer epoch.
const TICKET_GRACE: u64 = 3600;
/// How long members of an older epoch have to come with a ticket of the new one.
const EPOCH_GRACE: Duration = Duration::from_secs(2);

/// A member that the relay does not know binds with a nonce not older than this. A refresh takes its nonce from the last
/// answer, twenty seconds ago or more: refused with a new one, it tells the member that the relay has forgotten it.
const FRESH: Duration = Duration::from_secs(15);

/// A refusal; the session key when the ticket could be opened.
type Refused = (Refusal, Option<[u8; 32]>);

impl RelayServer {
    /// Nonce first, then ticket, then integrity: nothing is kept and little is computed for an unproven address.
    pub(super) fn handle_bind(
        &mut self,
        leg: Leg,
        datagram: &[u8],
        request: BindRequest,
        now: Now,
    ) -> Result<Reason, Reason> {
        let Some(nonce) = &request.nonce else {
            return self.challenge(leg, datagram, &request, Reason::BindChallenged, now);
        };
        let Some(proven_at) = self.nonces.verify(nonce, leg.remote, now.instant) else {
            return self.challenge(leg, datagram, &request, Reason::BindStaleNonce, now);
        };
        let ticket = match self.check(datagram, &request, now) {
            Ok(checked) => checked,
            Err(refused) => return self.refuse(leg, datagram, &request, refused),
        };
        let known = self.members.by_key(ticket.party, ticket.member);
        if known.and_then(|slot| self.members.at(slot)).is_some_and(|m| is_replay(m, leg, proven_at)) {
            return self.challenge(leg, datagram, &request, Reason::BindReplayed, now);
        }
        let is_fresh = self.nonces.age(proven_at, now.instant) <= FRESH;
        if known.is_none() && !is_fresh && !request.release {
            return self.challenge(leg, datagram, &request, Reason::BindStaleNonce, now);
        }
        if request.release {
            return self.release(leg, datagram, &request, &ticket, now);
        }
        if known.is_none()
            && let Some(refusal) = self.no_room(&ticket, leg.remote)
        {
            return self.refuse(leg, datagram, &request, (refusal, Some(ticket.session_key)));
        }
        let session_key = ticket.session_key;
        self.bind(leg, ticket, request.ticket, proven_at, now);
        let next = self.nonces.issue(leg.remote, now.instant);
        let answer = bound_answer(request.transaction, leg.remote, LIFETIME, &next, &session_key);
        self.answer(leg, datagram, answer, Reason::BindAccepted)
    }

    /// The ticket, if its holder may bind with it.
    fn check(&self, datagram: &[u8], request: &BindRequest, now: Now) -> Result<Ticket, Refused> {
        let ticket = self.open(&request.ticket, now.unix).map_err(|error| match error {
            TicketError::Expired => (Refusal::TicketExpired, None),
            TicketError::Forged | TicketError::Malformed => (Refusal::WrongRelay, None),
        })?;
        if !verify_integrity(datagram, &ticket.session_key) {
            return Err((Refusal::BadIntegrity, None));
        }
        if ticket.epoch < self.members.epoch(ticket.party) {
            return Err((Refusal::OldEpoch, Some(ticket.session_key)));
        }
        Ok(ticket)
    }

    /// Opens a ticket that is valid, or that made a binding which still lives and is not long past its time.
    fn open(&self, sealed: &[u8], unix: u64) -> Result<Ticket, TicketError> {
        let ticket = Ticket::open_any_time(sealed, &self.ticket_key)?;
        let slot = self.members.by_key(ticket.party, ticket.member);
        let is_known = slot.and_then(|slot| self.members.at(slot)).is_some_and(|m| m.sealed == sealed);
        if is_known && unix < ticket.expires.saturating_add(TICKET_GRACE) {
            return Ok(ticket);
        }
        ticket.in_its_time(unix)
    }

    /// Why there is no room for another member: the binding that the address has now would make way.
    fn no_room(&self, ticket: &Ticket, address: SocketAddr) -> Option<Refusal> {
        if self.draining {
            return Some(Refusal::Draining);
        }
        let replaced = self.members.by_address(address).and_then(|slot| self.members.at(slot));
        let replaced_here = replaced.is_some_and(|member| member.party == ticket.party);
        let of_party = self.members.count_of_party(ticket.party) - usize::from(replaced_here);
        let all = self.members.len() - usize::from(replaced.is_some());
        match (all >= self.limits.members, of_party >= self.limits.party_members) {
            (true, _) => Some(Refusal::RelayFull),
            (_, true) => Some(Refusal::PartyFull),
            _ => None,
        }
    }

    fn bind(&mut self, leg: Leg, ticket: Ticket, sealed: Vec<u8>, proven_at: u64, now: Now) {
        let (party, key, epoch) = (ticket.party, ticket.member, ticket.epoch);
        let known = self.members.by_key(party, key);
        let occupant = self.members.by_address(leg.remote).filter(|slot| Some(*slot) != known);
        if let Some(slot) = occupant {
            self.unbind(slot, Unbound::Replaced);
        }
        let expires = now.instant + LIFETIME;
        let slot = match known {
            Some(slot) => {
                self.refresh(slot, leg, ticket, sealed, proven_at);
                self.members.set_expiry(slot, expires);
                slot
            }
            None => {
                let member = Member::new(ticket, sealed, leg, proven_at, expires);
                let slot = self.members.insert(member);
                self.emit(Output::Bound { party, member: key, leg });
                self.admit(slot);
                slot
            }
        };
        let outdated = self.members.advance_epoch(party, epoch, now.instant + EPOCH_GRACE);
        outdated.into_iter().chain([slot]).for_each(|slot| self.persist(slot));
    }

    fn refresh(&mut self, slot: u32, leg: Leg, ticket: Ticket, sealed: Vec<u8>, proven_at: u64) {
        let Some(member) = self.members.at_mut(slot) else { return };
        member.proven_at = member.proven_at.max(proven_at);
        let limits = member.limits();
        member.set_ticket(ticket, sealed);
        let is_changed = member.limits() != limits;
        if member.leg != leg {
            self.move_member(slot, leg);
        } else if is_changed {
            self.admit(slot);
        }
    }

    fn release(
        &mut self,
        leg: Leg,
        datagram: &[u8],
        request: &BindRequest,
        ticket: &Ticket,
        now: Now,
    ) -> Result<Reason, Reason> {
        let slot = self.members.by_key(ticket.party, ticket.member);
        if let Some(slot) = slot.filter(|slot| self.members.by_address(leg.remote) == Some(*slot)) {
            self.unbind(slot, Unbound::Released);
        }
        let next = self.nonces.issue(leg.remote, now.instant);
        let answer =
            bound_answer(request.transaction, leg.remote, Duration::ZERO, &next, &ticket.session_key);
        self.answer(leg, datagram, answer, Reason::BindReleased)
    }

    fn challenge(
        &mut self,
        leg: Leg,
        datagram: &[u8],
        request: &BindRequest,
        reason: Reason,
        now: Now,
    ) -> Result<Reason, Reason> {
        let nonce = self.nonces.issue(leg.remote, now.instant);
        let answer = challenge_answer(request.transaction, request.nonce.is_some(), &nonce);
        self.answer(leg, datagram, answer, reason)
    }

    fn refuse(
        &mut self,
        leg: Leg,
        datagram: &[u8],
        request: &BindRequest,
        (refusal, session_key): Refused,
    ) -> Result<Reason, Reason> {
        let answer = refusal_answer(request.transaction, refusal, session_key.as_ref());
        let reason = match refusal {
            Refusal::TicketExpired => Reason::BindTicketExpired,
            Refusal::OldEpoch => Reason::BindOldEpoch,
            Refusal::RelayFull => Reason::BindRelayFull,
            Refusal::PartyFull => Reason::BindPartyFull,
            Refusal::Draining => Reason::BindDraining,
            Refusal::BadIntegrity => Reason::BindBadIntegrity,
            Refusal::WrongRelay | Refusal::Unknown => Reason::BindWrongRelay,
        };
        self.answer(leg, datagram, answer, reason)
    }
}

/// An address is left only for one that was proven later, so that a recorded Bind cannot call a member back.
fn is_replay(member: &Member, leg: Leg, proven_at: u64) -> bool {
    member.leg != leg && proven_at <= member.proven_at
}
