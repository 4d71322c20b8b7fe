//! The relay server's four verbs.

use super::member::Members;
use super::reason::{Counters, Reason};
use super::route::{Route, RouteKey, Routes, State};
use super::stun::{Alternates, Budget};
use super::wireguard;
use super::{Flow, Leg, MemberLimits, Target, canonical};
use crate::binding::{NonceKey, Request, is_stun, parse_request};
use crate::identity::{PartyId, WgKey};
use crate::path::probe;
use crate::time::Now;
use rand_core::CryptoRngCore;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// How much a relay takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Members bound at once.
    pub members: usize,
    /// Flows (two a pair, and two more while it rekeys).
    pub flows: usize,
    /// Members of one party bound at once.
    pub party_members: usize,
    /// Flows of one party.
    pub party_flows: usize,
}

/// What a relay server is made of.
#[derive(Clone)]
pub struct Setup {
    /// Opens tickets.
    pub ticket_key: [u8; 32],
    /// The relay's own addresses: datagrams from them are dropped.
    pub own: Vec<SocketAddr>,
    /// Where it also answers STUN.
    pub alternates: Alternates,
    /// How much it takes on.
    pub limits: Limits,
    /// What times in records and nonces count from: zero of a clock that outlives the process and never steps, such as
    /// the machine's start.
    pub clock: Instant,
}

/// What the relay server wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram.
    Transmit {
        /// From which own address, and to whom: a member's proven address, or the sender of a STUN request.
        leg: Leg,
        /// Unchanged, or STUN.
        payload: Vec<u8>,
    },
    /// Make the data path forward a flow, or move it to another target.
    Install {
        /// Which packets.
        flow: Flow,
        /// Where to.
        target: Target,
    },
    /// Make the data path forget a flow.
    Remove {
        /// Which packets.
        flow: Flow,
    },
    /// A member is bound.
    Bound {
        /// Its party.
        party: PartyId,
        /// Who.
        member: WgKey,
        /// Where.
        leg: Leg,
    },
    /// A member's NAT has moved it; its flows moved along.
    Moved {
        /// Who.
        member: WgKey,
        /// Where it was.
        from: Leg,
        /// Where it is.
        to: Leg,
    },
    /// A member is bound no more, its flows are gone.
    Unbound {
        /// Its party.
        party: PartyId,
        /// Who.
        member: WgKey,
        /// Why.
        why: Unbound,
    },
    /// From now on this address is a member's, to be policed by these limits: it was bound, has moved here (after the
    /// [`Output::Dismiss`] of its old address), or has another allowance.
    Admit {
        /// The member's slot.
        slot: u32,
        /// Its address, and the own one by which it is reached.
        leg: Leg,
        /// What it may send.
        limits: MemberLimits,
    },
    /// This address is no member's any more.
    Dismiss {
        /// The slot that the member had, or goes on having at another address.
        slot: u32,
        /// Its address until now.
        address: SocketAddr,
    },
    /// Keep this record of a binding where a restarted relay finds it.
    Persist {
        /// The member's slot; replaces what was kept for it.
        slot: u32,
        /// [`RECORD_LEN`](super::RECORD_LEN) bytes at most.
        record: Vec<u8>,
    },
    /// Drop the record of a binding that is over.
    Forget {
        /// The slot that the member had.
        slot: u32,
    },
}

/// Why a binding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbound {
    /// Not refreshed, or of an epoch that the party has left.
    Expired,
    /// Given back.
    Released,
    /// Somebody else has proven the same address since, or the same member another party.
    Replaced,
}

/// The relay server.
pub struct RelayServer {
    pub(super) ticket_key: [u8; 32],
    own: Vec<SocketAddr>,
    pub(super) alternates: Alternates,
    pub(super) stun_budget: Budget,
    pub(super) limits: Limits,
    /// Whether new members are refused.
    pub(super) draining: bool,
    pub(super) clock: Instant,
    pub(super) nonces: NonceKey,
    pub(super) members: Members,
    pub(super) routes: Routes,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("own", &self.own).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (bindings, flows) = (self.bindings(), self.flows());
        f.debug_struct("RelayServer")
            .field("bindings", &bindings)
            .field("flows", &flows)
            .finish_non_exhaustive()
    }
}

impl RelayServer {
    /// A relay without members. Randomness: the nonces' secret.
    pub fn new(setup: Setup, rng: &mut impl CryptoRngCore) -> Self {
        let Setup { ticket_key, own, alternates, limits, clock } = setup;
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        let all = own.into_iter().chain(alternates.all());
        Self {
            ticket_key,
            own: all.map(canonical).collect(),
            alternates,
            stun_budget: Budget::new(),
            limits,
            draining: false,
            clock,
            nonces: NonceKey::new(secret, clock),
            members: Members::default(),
            routes: Routes::new(limits.flows, limits.party_flows),
            counters: Counters::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Refuses new members, or takes them again. Those who are bound stay and are served as before.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Members bound now.
    pub fn bindings(&self) -> usize {
        self.members.len()
    }

    /// Flows installed now.
    pub fn flows(&self) -> usize {
        self.routes.confirmed()
    }

    /// Datagrams by [`Reason`] name since start, without zeros.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.counters.by_name()
    }

    /// Datagrams of one reason since start.
    pub fn count_of(&self, reason: Reason) -> u64 {
        self.counters.of(reason)
    }

    /// Takes any datagram, with both addresses as it carried them.
    pub fn handle_datagram(&mut self, leg: Leg, datagram: &[u8], now: Now) {
        let leg = leg.canonical();
        let from = leg.remote;
        let handled = if !self.is_possible_source(from) {
            Err(Reason::BadSource)
        } else if wireguard::is_wireguard(datagram) {
            self.handle_wireguard(from, datagram, now.instant)
        } else if is_stun(datagram) {
            self.handle_stun(leg, datagram, now)
        } else if probe::is_probe(datagram) {
            self.handle_probe(from, datagram, now.instant)
        } else {
            Err(Reason::UnknownProtocol)
        };
        let (Ok(reason) | Err(reason)) = handled;
        self.counters.count(reason);
    }

    /// Ends what is over: bindings and indexes.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(key) = self.routes.first_expired(now.instant) {
            self.remove_route(key);
        }
        while let Some(slot) = self.members.first_expired(now.instant) {
            self.unbind(slot, Unbound::Expired);
        }
    }

    /// When [`RelayServer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.routes.next_expiry(), self.members.next_expiry()].into_iter().flatten().min()
    }

    /// What to do next; call until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn is_possible_source(&self, from: SocketAddr) -> bool {
        let is_unicast = match from.ip() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        };
        is_unicast && from.port() != 0 && !self.own.contains(&from)
    }

    fn handle_stun(&mut self, leg: Leg, datagram: &[u8], now: Now) -> Result<Reason, Reason> {
        match parse_request(datagram) {
            Some(Request::Bind(request)) => self.handle_bind(leg, datagram, request, now),
            Some(Request::Binding(request)) => self.handle_binding(leg, datagram, request, now.instant),
            None => Err(Reason::StunUnexpected),
        }
    }

    /// Answers a STUN request unless the answer is the longer one.
    pub(super) fn answer(
        &mut self,
        leg: Leg,
        request: &[u8],
        payload: Vec<u8>,
        reason: Reason,
    ) -> Result<Reason, Reason> {
        if payload.len() > request.len() {
            return Err(Reason::StunShort);
        }
        self.outputs.push_back(Output::Transmit { leg, payload });
        Ok(reason)
    }

    pub(super) fn emit(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Ends a binding and its flows.
    pub(super) fn unbind(&mut self, slot: u32, why: Unbound) {
        for key in self.routes.of_member(slot) {
            self.remove_route(key);
        }
        if let Some(member) = self.members.remove(slot) {
            self.emit(Output::Dismiss { slot, address: member.leg.remote });
            self.emit(Output::Forget { slot });
            self.emit(Output::Unbound { party: member.party, member: member.key, why });
        }
    }

    /// Moves a member and all flows that begin or end at it.
    pub(super) fn move_member(&mut self, slot: u32, to: Leg) {
        let Some(member) = self.members.at(slot) else { return };
        let (key, from) = (member.key, member.leg);
        let routes = self.routes.of_member(slot);
        if from.remote != to.remote {
            for route in routes.iter().filter(|(sender, _)| *sender == slot) {
                if self.routes.find(*route).is_some_and(|r| r.state == State::Confirmed) {
                    self.emit(Output::Remove { flow: Flow { source: from.remote, index: route.1 } });
                }
            }
            self.emit(Output::Dismiss { slot, address: from.remote });
        }
        self.members.set_leg(slot, to);
        self.admit(slot);
        for route in routes {
            if self.routes.find(route).is_some_and(|r| r.state == State::Confirmed) {
                self.install_route(route);
            }
        }
        self.emit(Output::Moved { member: key, from, to });
    }

    /// Says who is at a member's address, and what it may do.
    pub(super) fn admit(&mut self, slot: u32) {
        let Some(member) = self.members.at(slot) else { return };
        let (leg, limits) = (member.leg, member.limits());
        self.emit(Output::Admit { slot, leg, limits });
    }

    pub(super) fn install_route(&mut self, key: RouteKey) {
        let Some(route) = self.routes.find(key) else { return };
        if let Some((flow, target)) = self.flow_of(key, route) {
            self.emit(Output::Install { flow, target });
        }
    }

    pub(super) fn remove_route(&mut self, key: RouteKey) {
        let Some(route) = self.routes.remove(key) else { return };
        if let (State::Confirmed, Some((flow, _))) = (route.state, self.flow_of(key, route)) {
            self.emit(Output::Remove { flow });
        }
    }

    /// Every flow, as [`Output::Install`] gives them: also those that [`RelayServer::adopt`] took over.
    pub fn installed(&self) -> impl Iterator<Item = (Flow, Target)> {
        self.routes.all_confirmed().filter_map(|(key, route)| self.flow_of(key, route))
    }

    fn flow_of(&self, (sender, index): RouteKey, route: Route) -> Option<(Flow, Target)> {
        let source = self.members.at(sender)?.leg.remote;
        let leg = self.members.at(route.owner)?.leg;
        Some((Flow { source, index }, Target { leg, member: sender, expires: route.expires }))
    }
}
