//! NAT behaviour discovery (RFC 5780, section 4) against relays and other STUN servers.
//!
//! The caller owns the sockets: the tunnel's, whose mapping is the one that matters, and spare ones on fresh ports
//! without traffic of their own, by which filtering and the allocation of ports show. Steps, each when the one before
//! is answered or given up:
//!
//! 1. *basic*: the tunnel's socket asks every server. No answer from any: UDP is blocked.
//! 2. *fresh*: a spare socket asks the first server, the primary one, and whether it knows RFC 5780; the tunnel's sends a
//!    request to its own mapped address, which comes back if the NAT hairpins.
//! 3. *rules*: at once, as silence has to be waited for. Filtering (section 4.4, tests II and III): the spare socket asks
//!    for answers from elsewhere. Mapping (section 4.3, tests II and III): the tunnel's socket asks the primary server's
//!    other addresses and ports. A server with one address has its other port one above the first, as LANrage's relays
//!    have.
//! 4. *allocation*: spare sockets make mappings one after the other; their ports show a rule, or none.
//!
//! Answers are known by their transaction alone, since some must come from elsewhere.

mod ask;
mod conclude;
#[cfg(test)]
mod tests;

use super::{Allocation, Behaviour, Filtering};
use crate::binding::{BehaviourAnswer, Request, parse_behaviour_answer, parse_request};
use crate::time::Now;
use ask::{Ask, Outcome, Question};
use rand_core::CryptoRngCore;
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Servers that are asked.
pub const MAX_SERVERS: usize = 6;
/// Spare sockets that are needed: a NAT that has one mapping for each shows its rule of ports with three new ones.
pub const SPARES: usize = 4;

/// A socket of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// The tunnel's.
    Tunnel,
    /// One of [`SPARES`] on ports of their own, counted from 0.
    Spare(usize),
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// From which socket.
    pub via: Via,
    /// Where to.
    pub to: SocketAddr,
    /// STUN.
    pub payload: Vec<u8>,
}

/// What a server has answered to the first question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerAnswer {
    /// The server.
    pub server: SocketAddr,
    /// The tunnel's address as it sees it; none if it did not answer.
    pub mapped: Option<SocketAddr>,
    /// Round trip, when the first request was answered.
    pub rtt: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Basic,
    Fresh,
    Rules,
    Allocation,
    Done,
}

/// The server that all further questions go to.
#[derive(Debug, Clone, Copy)]
struct Primary {
    server: SocketAddr,
    mapped: SocketAddr,
    /// Whether it knows RFC 5780.
    is_tester: bool,
    other: Option<SocketAddr>,
}

/// See the module.
pub struct Discovery {
    /// Own addresses, with the tunnel's port.
    local: Vec<SocketAddr>,
    stage: Stage,
    asks: Vec<Ask>,
    primary: Option<Primary>,
    behaviour: Behaviour,
    rng: Box<dyn CryptoRngCore + Send>,
    outputs: VecDeque<Transmit>,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("stage", &self.stage)
            .field("asks", &self.asks)
            .finish_non_exhaustive()
    }
}

impl Discovery {
    /// Starts. `local` are this device's addresses, each with the tunnel socket's port. More than [`MAX_SERVERS`]
    /// servers are cut; without any nothing is learnt.
    pub fn new(
        servers: &[SocketAddr],
        local: Vec<SocketAddr>,
        rng: impl CryptoRngCore + Send + 'static,
        now: Now,
    ) -> Self {
        let mut discovery = Self {
            behaviour: conclude::of_addresses(&local),
            local,
            stage: Stage::Basic,
            asks: Vec::new(),
            primary: None,
            rng: Box::new(rng),
            outputs: VecDeque::new(),
        };
        let has_ipv6 = discovery.local.iter().any(|address| crate::address::is_global_ipv6(address.ip()));
        let reachable = servers.iter().filter(|server| server.is_ipv4() || has_ipv6);
        for (at, server) in reachable.take(MAX_SERVERS).enumerate() {
            discovery.ask(Question::Basic(at), Via::Tunnel, *server, now.instant);
        }
        discovery.advance(now.instant);
        discovery
    }

    /// What is known so far.
    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// Whether nothing more will be learnt.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// A server that knows RFC 5780, and the tunnel's address as it sees it.
    pub fn tester(&self) -> Option<SocketAddr> {
        self.primary.filter(|primary| primary.is_tester).map(|primary| primary.server)
    }

    /// What each server has said.
    pub fn servers(&self) -> impl Iterator<Item = ServerAnswer> {
        self.asks.iter().filter(|ask| matches!(ask.question, Question::Basic(_))).map(|ask| ServerAnswer {
            server: ask.to,
            mapped: ask.mapped(),
            rtt: ask.rtt(),
        })
    }

    /// Takes a datagram that came to a socket. Returns whether it was an answer to a question of ours.
    pub fn handle_datagram(&mut self, via: Via, datagram: &[u8], now: Now) -> bool {
        let (transaction, outcome) = match parse_behaviour_answer(datagram) {
            Some((transaction, BehaviourAnswer::Mapped { mapped, origin, other })) => {
                (transaction, Outcome::Answer { mapped, origin, other })
            }
            Some((transaction, BehaviourAnswer::Unable)) => (transaction, Outcome::Unable),
            // nobody asks this device: a Binding request is one of its own that came back
            None => match parse_request(datagram) {
                Some(Request::Binding(request)) => (request.transaction, Outcome::Returned),
                _ => return false,
            },
        };
        let Some(ask) = self.asks.iter_mut().find(|ask| ask.transaction == transaction && ask.via == via)
        else {
            return false;
        };
        let is_hairpin = ask.question == Question::Hairpin;
        if is_hairpin == (outcome == Outcome::Returned) {
            ask.finish(outcome, now.instant);
            self.advance(now.instant);
        }
        true
    }

    /// Repeats and gives up what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        for ask in &mut self.asks {
            if let Some(payload) = ask.handle_timeout(now.instant) {
                self.outputs.push_back(Transmit { via: ask.via, to: ask.to, payload });
            }
        }
        self.advance(now.instant);
    }

    /// When [`Discovery::handle_timeout`] is due; `None` when done.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asks.iter().filter_map(Ask::due).min()
    }

    /// What to send; drain until `None`.
    pub fn poll_output(&mut self) -> Option<Transmit> {
        self.outputs.pop_front()
    }

    fn ask(&mut self, question: Question, via: Via, to: SocketAddr, now: Instant) {
        let mut transaction = [0; 12];
        self.rng.fill_bytes(&mut transaction);
        let mut ask = Ask::new(question, via, to, transaction, now);
        if let Some(payload) = ask.handle_timeout(now) {
            self.outputs.push_back(Transmit { via, to, payload });
        }
        self.asks.push(ask);
    }

    /// Goes on as far as possible.
    fn advance(&mut self, now: Instant) {
        while self.stage != Stage::Done && self.asks.iter().all(|ask| ask.is_finished() || !self.needs(ask)) {
            self.stage = match self.stage {
                Stage::Basic => self.after_basic(now),
                Stage::Fresh => self.after_fresh(now),
                Stage::Rules => self.after_rules(now),
                Stage::Allocation | Stage::Done => self.after_allocation(),
            };
        }
    }

    /// Most NATs do not hairpin, and nothing else depends on it.
    fn needs(&self, ask: &Ask) -> bool {
        (self.stage, ask.question) != (Stage::Fresh, Question::Hairpin)
    }

    fn after_basic(&mut self, now: Instant) -> Stage {
        if self.asks.is_empty() {
            return Stage::Done;
        }
        let has_answer = self.asks.iter().any(|ask| ask.mapped().is_some());
        self.behaviour.udp_blocked = Some(!has_answer);
        let asked_ipv6 = self.asks.iter().any(|ask| ask.to.is_ipv6());
        if asked_ipv6 {
            let is_answer = |ask: &Ask| ask.to.is_ipv6() && ask.mapped().is_some();
            self.behaviour.has_ipv6 = Some(self.asks.iter().any(is_answer));
        }
        self.primary = conclude::primary(&self.asks);
        let Some(primary) = self.primary else { return Stage::Done };
        if let IpAddr::V4(address) = primary.mapped.ip() {
            self.behaviour.public_address = Some(address);
        }
        self.behaviour.is_public = Some(self.local.contains(&primary.mapped));
        self.ask(Question::Fresh, Via::Spare(0), primary.server, now);
        self.ask(Question::Hairpin, Via::Tunnel, primary.mapped, now);
        Stage::Fresh
    }

    fn after_fresh(&mut self, now: Instant) -> Stage {
        let fresh = self.asks.iter().find(|ask| ask.question == Question::Fresh);
        if let (Some(Outcome::Answer { origin, other, .. }), Some(primary)) =
            (fresh.and_then(|ask| ask.outcome), &mut self.primary)
        {
            primary.is_tester |= origin.is_some();
            primary.other = primary.other.or(conclude::other_than(primary.server, other));
        }
        if let Some(primary) = self.primary.filter(|primary| primary.is_tester) {
            if primary.other.is_some() {
                self.ask(Question::Elsewhere, Via::Spare(0), primary.server, now);
            }
            self.ask(Question::OtherPort, Via::Spare(0), primary.server, now);
        }
        for to in self.primary.iter().flat_map(Primary::places).collect::<Vec<_>>() {
            self.ask(Question::Place, Via::Tunnel, to, now);
        }
        Stage::Rules
    }

    fn after_rules(&mut self, now: Instant) -> Stage {
        let Some(primary) = self.primary else { return Stage::Done };
        let hairpin = self.asks.iter().find(|ask| ask.question == Question::Hairpin);
        self.behaviour.hairpin = hairpin.map(|ask| ask.outcome == Some(Outcome::Returned));
        let is_public = self.behaviour.is_public == Some(true);
        self.behaviour.mapping = conclude::mapping(&self.asks, is_public);
        self.behaviour.filtering = self.filtering();
        let places: Vec<SocketAddr> = primary.places().collect();
        for to in places.iter().copied() {
            self.ask(Question::Port, Via::Spare(0), to, now);
        }
        for to in std::iter::once(primary.server).chain(places) {
            self.ask(Question::Port, Via::Spare(1), to, now);
        }
        for spare in 2..SPARES {
            self.ask(Question::Port, Via::Spare(spare), primary.server, now);
        }
        Stage::Allocation
    }

    fn after_allocation(&mut self) -> Stage {
        let port = self.local.first().map(SocketAddr::port);
        let of_tunnel = self.asks.iter().filter(|ask| ask.via == Via::Tunnel).filter_map(Ask::mapped);
        // a symmetric NAT can keep the port of one mapping only: the first of each socket
        let keeps = of_tunnel.into_iter().any(|mapped| Some(mapped.port()) == port);
        self.behaviour.allocation =
            if keeps { Some(Allocation::Preserving) } else { conclude::allocation(&self.asks) };
        Stage::Done
    }

    /// An answer from elsewhere tells at once; silence tells only if the other port answers those who ask it directly.
    fn filtering(&self) -> Option<Filtering> {
        let outcome = |question| self.asks.iter().find(|ask| ask.question == question)?.outcome;
        let came = |question| matches!(outcome(question), Some(Outcome::Answer { .. }));
        if came(Question::Elsewhere) {
            return Some(Filtering::EndpointIndependent);
        }
        if came(Question::OtherPort) {
            return Some(Filtering::AddressDependent);
        }
        let other_port = self.primary?.other_port();
        let answers = self
            .asks
            .iter()
            .any(|ask| ask.question == Question::Place && ask.to == other_port && ask.mapped().is_some());
        let is_silent = outcome(Question::OtherPort) == Some(Outcome::Silence);
        (is_silent && answers).then_some(Filtering::AddressAndPortDependent)
    }
}

impl Primary {
    /// The server's first address with its other port.
    fn other_port(&self) -> SocketAddr {
        let port = self.other.map_or(self.server.port().wrapping_add(1), |other| other.port());
        SocketAddr::new(self.server.ip(), port)
    }

    /// Where else it listens. Only places at the server itself, or that it names itself and that are of its family.
    fn places(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let other = self.other.filter(|other| other.is_ipv4() == self.server.is_ipv4());
        let named = other.map(|other| [SocketAddr::new(other.ip(), self.server.port()), other]);
        let own = (self.is_tester && self.other_port().port() != 0).then(|| self.other_port());
        named.into_iter().flatten().chain(own)
    }
}
