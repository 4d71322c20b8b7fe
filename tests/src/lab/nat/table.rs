//! A NAT's mappings: who inside is at which port outside, and who may send there.

use super::behaviour::{Allocation, Behaviour, Scope};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// TCP connections may be silent for hours (RFC 5382 REQ-5).
const TCP_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 240);
/// The ports that are given away; those below belong to servers.
const FIRST_PORT: u16 = 1024;
const MAX_MAPPINGS: usize = 8192;

/// What has ports. The port of ICMP is an echo's identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Echo requests and replies (RFC 5508).
    Icmp,
    /// RFC 5382.
    Tcp,
    /// RFC 4787.
    Udp,
}

/// What of a remote endpoint counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Remote(Option<Ipv4Addr>, Option<u16>);

impl Remote {
    fn of(endpoint: SocketAddrV4, scope: Scope) -> Self {
        match scope {
            Scope::Independent => Self(None, None),
            Scope::Address => Self(Some(*endpoint.ip()), None),
            Scope::AddressAndPort => Self(Some(*endpoint.ip()), Some(endpoint.port())),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    protocol: Protocol,
    inside: SocketAddrV4,
    remote: Remote,
}

#[derive(Debug)]
struct Mapping {
    key: Key,
    /// Who was sent something through it, and when last.
    contacts: HashMap<Remote, Instant>,
    used: Instant,
}

/// All mappings of one NAT.
#[derive(Debug)]
pub struct Table {
    behaviour: Behaviour,
    ports: HashMap<Key, u16>,
    mappings: HashMap<(Protocol, u16), Mapping>,
    last: HashMap<Protocol, u16>,
    dice: ChaCha8Rng,
}

impl Table {
    /// An empty one.
    pub fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            ports: HashMap::new(),
            mappings: HashMap::new(),
            last: HashMap::new(),
            dice: ChaCha8Rng::seed_from_u64(behaviour.seed),
        }
    }

    /// How it behaves.
    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// Behaves otherwise from now on. TCP connections live on, all else is forgotten.
    pub fn change(&mut self, behaviour: Behaviour) {
        self.mappings.retain(|(protocol, _), _| *protocol == Protocol::Tcp);
        self.ports.retain(|key, _| key.protocol == Protocol::Tcp);
        self.last.clear();
        self.behaviour = behaviour;
        self.dice = ChaCha8Rng::seed_from_u64(behaviour.seed);
    }

    /// The port outside of a packet from inside; made if need be. None when the table is full.
    pub fn outward(
        &mut self,
        protocol: Protocol,
        inside: SocketAddrV4,
        to: SocketAddrV4,
        now: Instant,
    ) -> Option<u16> {
        let key = Key { protocol, inside, remote: Remote::of(to, self.mapping_of(protocol)) };
        let port = match self.ports.get(&key).copied().filter(|port| self.lives((protocol, *port), now)) {
            Some(port) => port,
            None => self.open(key, now)?,
        };
        let contact = Remote::of(to, self.filtering_of(protocol));
        let mapping = self.mappings.get_mut(&(protocol, port))?;
        mapping.used = now; // RFC 4787 REQ-6: outbound refresh
        mapping.contacts.insert(contact, now);
        Some(port)
    }

    /// Whom inside a packet from outside is for, if it may pass.
    pub fn inward(
        &self,
        protocol: Protocol,
        port: u16,
        from: SocketAddrV4,
        now: Instant,
    ) -> Option<SocketAddrV4> {
        let mapping = self.mappings.get(&(protocol, port)).filter(|_| self.lives((protocol, port), now))?;
        let contact = Remote::of(from, self.filtering_of(protocol));
        let asked = mapping.contacts.get(&contact)?;
        (now.saturating_duration_since(*asked) < self.timeout(protocol)).then_some(mapping.key.inside)
    }

    /// Whose mapping a port is, for errors about its packets.
    pub fn owner(&self, protocol: Protocol, port: u16, now: Instant) -> Option<SocketAddrV4> {
        let mapping = self.mappings.get(&(protocol, port))?;
        self.lives((protocol, port), now).then_some(mapping.key.inside)
    }

    /// At which port somebody inside talks to somebody outside, if at all.
    pub fn port_of(&self, protocol: Protocol, inside: SocketAddrV4, to: SocketAddrV4) -> Option<u16> {
        let remote = Remote::of(to, self.mapping_of(protocol));
        self.ports.get(&Key { protocol, inside, remote }).copied()
    }

    fn mapping_of(&self, protocol: Protocol) -> Scope {
        // an echo has no port at the other end
        if protocol == Protocol::Icmp { Scope::Address } else { self.behaviour.mapping }
    }

    fn filtering_of(&self, protocol: Protocol) -> Scope {
        match protocol {
            Protocol::Udp => self.behaviour.filtering,
            Protocol::Tcp => Scope::AddressAndPort,
            Protocol::Icmp => Scope::Address,
        }
    }

    fn timeout(&self, protocol: Protocol) -> Duration {
        if protocol == Protocol::Tcp { TCP_TIMEOUT } else { self.behaviour.timeout() }
    }

    fn lives(&self, at: (Protocol, u16), now: Instant) -> bool {
        let mapping = self.mappings.get(&at);
        mapping.is_some_and(|mapping| now.saturating_duration_since(mapping.used) < self.timeout(at.0))
    }

    fn open(&mut self, key: Key, now: Instant) -> Option<u16> {
        if self.mappings.len() >= MAX_MAPPINGS {
            self.forget_expired(now);
        }
        if self.mappings.len() >= MAX_MAPPINGS {
            return None;
        }
        let port = self.allocate(key.protocol, key.inside.port(), now);
        if let Some(expired) = self.mappings.remove(&(key.protocol, port)) {
            self.ports.remove(&expired.key);
        }
        self.ports.insert(key, port);
        self.mappings.insert((key.protocol, port), Mapping { key, contacts: HashMap::new(), used: now });
        Some(port)
    }

    /// A port that no living mapping has; there is one, as mappings are fewer than ports.
    fn allocate(&mut self, protocol: Protocol, inside: u16, now: Instant) -> u16 {
        let step = if let Allocation::Sequential(step) = self.behaviour.allocation { step } else { 1 };
        let mut port = match self.behaviour.allocation {
            Allocation::Preserving => inside.max(FIRST_PORT),
            Allocation::Random => self.dice.gen_range(FIRST_PORT..=u16::MAX),
            Allocation::Sequential(_) => match self.last.get(&protocol) {
                Some(last) => after(*last, step),
                None => self.dice.gen_range(FIRST_PORT..=u16::MAX),
            },
        };
        let mut tried = 0u32;
        while self.lives((protocol, port), now) {
            tried += 1;
            port = match self.behaviour.allocation {
                Allocation::Random => self.dice.gen_range(FIRST_PORT..=u16::MAX),
                // a step that divides the range visits only a part of it
                _ => after(port, if tried > u32::from(u16::MAX) { 1 } else { step }),
            };
        }
        self.last.insert(protocol, port);
        port
    }

    fn forget_expired(&mut self, now: Instant) {
        let dead: Vec<_> = self.mappings.keys().copied().filter(|at| !self.lives(*at, now)).collect();
        for at in dead {
            self.mappings.remove(&at).into_iter().for_each(|mapping| {
                self.ports.remove(&mapping.key);
            });
        }
    }
}

/// Ports go round.
fn after(port: u16, step: u16) -> u16 {
    let ports = u32::from(u16::MAX - FIRST_PORT) + 1;
    let at = (u32::from(port - FIRST_PORT) + u32::from(step)) % ports;
    FIRST_PORT + u16::try_from(at).unwrap_or_default()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
