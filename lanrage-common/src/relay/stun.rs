//! How the relay server answers STUN Binding (RFC 8489), with the NAT behaviour tests of RFC 5780.
//!
//! | request | answer |
//! |---|---|
//! | as long as the full answer | full, from the own address that CHANGE-REQUEST asks for |
//! | shorter, or with RESPONSE-PORT | full, while the [`Budget`] of the sender's network and of the relay lasts |
//! | shorter, but as long as XOR-MAPPED-ADDRESS needs | that, when the budget is used up |
//! | shorter still | none |
//!
//! An answer goes to the address that asked, and nowhere else; RESPONSE-PORT only changes the port.

use super::Leg;
use super::reason::Reason;
use super::server::{Output, RelayServer};
use crate::binding::{BindingRequest, FullAnswer, binding_answer, full_answer, unable_answer};
use crate::bucket::{Bucket, Rate};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Where a relay answers besides its first address and port (RFC 5780, section 6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alternates {
    /// The two ports, when there are two.
    pub ports: Option<[u16; 2]>,
    /// Two addresses of one family each.
    pub addresses: Vec<[IpAddr; 2]>,
}

impl Alternates {
    /// Every address and port of them.
    pub(super) fn all(&self) -> impl Iterator<Item = SocketAddr> {
        let addresses = self.addresses.iter().flatten();
        let ports = self.ports.into_iter().flatten();
        addresses.flat_map(move |ip| ports.clone().map(|port| SocketAddr::new(*ip, port)))
    }

    fn port(&self, port: u16) -> Option<u16> {
        other(&self.ports?, &port)
    }

    fn ip(&self, ip: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().find_map(|pair| other(pair, &ip))
    }

    /// The own address to answer from.
    fn origin(&self, local: SocketAddr, request: &BindingRequest) -> Option<SocketAddr> {
        let ip = if request.change_ip { self.ip(local.ip())? } else { local.ip() };
        let port = if request.change_port { self.port(local.port())? } else { local.port() };
        Some(SocketAddr::new(ip, port))
    }

    /// What OTHER-ADDRESS names. Without a second address there is nothing to name: by a second port alone a client
    /// would take every NAT for one with endpoint-independent mapping.
    fn other(&self, local: SocketAddr) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip(local.ip())?, self.port(local.port())?))
    }
}

fn other<T: Copy + PartialEq>(pair: &[T; 2], one: &T) -> Option<T> {
    let at = pair.iter().position(|it| it == one)?;
    Some(pair[1 - at])
}

/// Answers longer than their requests, for one network (an IPv4 /24, an IPv6 /56) and for all. Even 200 a second, each
/// 128 bytes more than its request, are 0.2 Mbit/s: nothing to reflect with.
const NETWORK: Rate = Rate::per_second(5, 20);
const ALL: Rate = Rate::per_second(200, 400);
/// Networks remembered; those whose bucket is full again, after four seconds, make room.
const MAX_NETWORKS: usize = 4096;

/// How many unpadded requests are answered.
#[derive(Debug)]
pub(super) struct Budget {
    all: Bucket,
    networks: HashMap<IpAddr, Bucket>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { all: Bucket::new(ALL), networks: HashMap::new() }
    }

    /// One answer. A network that has none left costs the others nothing.
    fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        let network = network_of(source);
        let mut bucket = self.networks.get(&network).copied().unwrap_or(Bucket::new(NETWORK));
        if !bucket.take(1, now) || !self.all.take(1, now) {
            return false;
        }
        if self.networks.len() >= MAX_NETWORKS {
            self.networks.retain(|_, bucket| !bucket.is_full(now));
        }
        self.networks.insert(network, bucket);
        true
    }

    #[cfg(test)]
    pub(super) fn networks(&self) -> usize {
        self.networks.len()
    }
}

fn network_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(ip) => (u32::from(ip) & (u32::MAX << 8)).to_be_bytes().into(),
        IpAddr::V6(ip) => (u128::from(ip) & (u128::MAX << 72)).to_be_bytes().into(),
    }
}

impl RelayServer {
    pub(super) fn handle_binding(
        &mut self,
        leg: Leg,
        datagram: &[u8],
        request: BindingRequest,
        now: Instant,
    ) -> Result<Reason, Reason> {
        let port = request.response_port.unwrap_or(leg.remote.port());
        let remote = SocketAddr::new(leg.remote.ip(), port);
        if !self.is_possible_source(remote) {
            return Err(Reason::BadSource);
        }
        let Some(local) = self.alternates.origin(leg.local, &request) else {
            let answer = unable_answer(request.transaction);
            return self.answer(leg, datagram, answer, Reason::StunUnable);
        };
        let from = Leg { local, remote };
        let full = self.full_answer(leg, local, request, datagram.len());
        let is_free = full.len() <= datagram.len() && request.response_port.is_none();
        if is_free || self.stun_budget.take(leg.remote.ip(), now) {
            self.emit(Output::Transmit { leg: from, payload: full });
            return Ok(Reason::StunAnswered);
        }
        if request.response_port.is_some() {
            return Err(Reason::StunBudget);
        }
        let short = binding_answer(request.transaction, leg.remote);
        if short.len() > datagram.len() {
            return Err(Reason::StunBudget);
        }
        self.emit(Output::Transmit { leg: from, payload: short });
        Ok(Reason::StunAnswered)
    }

    /// The answer to a request of `length` bytes: with as much padding as fits, when padding is asked for.
    fn full_answer(&self, leg: Leg, origin: SocketAddr, request: BindingRequest, length: usize) -> Vec<u8> {
        let is_tester = self.alternates != Alternates::default();
        let answer = FullAnswer {
            transaction: request.transaction,
            mapped: leg.remote,
            origin: Some(origin).filter(|origin| is_tester && !origin.ip().is_unspecified()),
            other: self.alternates.other(leg.local),
        };
        full_answer(&answer, request.has_padding.then_some(length))
    }
}
