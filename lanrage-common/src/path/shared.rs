//! What all pairs of one agent share.

use super::announce::MAX_CANDIDATES;
use super::candidate::{self, Candidate};
use super::hunt::{self, Turn};
use super::{Config, Output};
use crate::bucket::{Bucket, Rate};
use crate::nat::Behaviour;
use crate::relays::Leg;
use crate::time::Now;
use rand_core::CryptoRngCore;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Relays of the past that are known as such.
const MAX_FORMER: usize = 16;
/// Probes to candidates that one agent may send: bounds what a member's false candidates can cause.
const PROBE_BURST: u64 = 256;
const PROBES_PER_SECOND: u64 = 500;
/// Time between probes of an idle path when no mapping's life was measured, and the bounds when it was.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_LEAST: Duration = Duration::from_secs(3);
const KEEPALIVE_MOST: Duration = Duration::from_secs(25);
/// Between the first two tellings of a doubt; later ones take twice as long each, up to 80 s.
const DOUBT_AGAIN: Duration = Duration::from_secs(5);

/// A relay that has bound this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Binding {
    pub relay: SocketAddr,
    /// Absent when the binding is carried by TLS: the relay then sees an address of its own.
    pub mapped: Option<SocketAddr>,
    pub rtt: Option<Duration>,
    pub doubt: Doubt,
}

/// Doubts whether a relay still has this device at the right address: told at once, then ever more rarely.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Doubt {
    told: u32,
    next: Option<Instant>,
}

impl Doubt {
    /// Whether to tell now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.next.is_some_and(|next| next > now) {
            return false;
        }
        self.next = Some(now + DOUBT_AGAIN * 2u32.pow(self.told.min(4)));
        self.told += 1;
        true
    }
}

/// Own facts, randomness, budget, output queue and counters.
pub(super) struct Shared {
    pub config: Config,
    pub tag: [u8; 8],
    pub rng: Box<dyn CryptoRngCore + Send>,
    pub local: Vec<SocketAddr>,
    pub bindings: BTreeMap<String, Binding>,
    /// Where relays are that were bound before: through one that has lost its binding, or got it back, members' packets
    /// still come, and its address is none of theirs.
    former: VecDeque<SocketAddr>,
    /// What was measured of relays, bound or not.
    pub legs: BTreeMap<String, Leg>,
    pub candidates: Vec<Candidate>,
    /// What is known of this device's NAT.
    pub nat: Behaviour,
    /// A public address and port that a router forwards to the tunnel's socket.
    pub forwarded: Option<SocketAddr>,
    /// A game runs here.
    pub is_playing: bool,
    /// Number of the current announcement; 0 = there is nothing to announce yet.
    pub number: u32,
    pub budget: Bucket,
    /// Bounds all hunts together.
    pub hunt_budget: Bucket,
    pub hunting: Option<Turn>,
    /// A pair's wishes have changed since they were last told.
    pub has_new_wishes: bool,
    pub outputs: VecDeque<Output>,
    pub counters: BTreeMap<&'static str, u64>,
    last_session: u64,
}

impl Shared {
    pub fn new(config: Config, rng: Box<dyn CryptoRngCore + Send>) -> Self {
        Self {
            tag: super::probe::tag(&config.me),
            config,
            rng,
            local: Vec::new(),
            bindings: BTreeMap::new(),
            former: VecDeque::new(),
            legs: BTreeMap::new(),
            candidates: Vec::new(),
            nat: Behaviour::default(),
            forwarded: None,
            is_playing: false,
            number: 0,
            budget: Bucket::new(Rate::per_second(PROBES_PER_SECOND, PROBE_BURST)),
            hunt_budget: Bucket::new(hunt::BUDGET),
            hunting: None,
            has_new_wishes: false,
            outputs: VecDeque::new(),
            counters: BTreeMap::new(),
            last_session: 0,
        }
    }

    /// Time between probes that only keep routers' mappings: half of their life, within bounds.
    pub fn keepalive(&self) -> Duration {
        let life = self.nat.lifetime_s.map(|life| Duration::from_secs(life.into()));
        let measured = life.map(|life| (life / 2).saturating_sub(Duration::from_secs(1)));
        measured.map_or(KEEPALIVE, |pause| pause.clamp(KEEPALIVE_LEAST, KEEPALIVE_MOST))
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_default() += 1;
    }

    pub fn nonce(&mut self) -> [u8; 12] {
        let mut nonce = [0; 12];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    /// A session number: later ones are greater, also across restarts as long as the wall clock does not step back
    /// (and where it does, the other end tells).
    pub fn new_session(&mut self, now: Now) -> u64 {
        let random = u64::from(self.rng.next_u32() >> 8);
        self.last_session = (now.unix << 24 | random).max(self.last_session + 1);
        self.last_session
    }

    /// Collects the own candidates anew; true when they have changed and must be announced.
    pub fn refresh_candidates(&mut self) -> bool {
        let seen = self.bindings.values().filter_map(|binding| binding.mapped);
        let mapped: Vec<SocketAddr> = self.forwarded.into_iter().chain(seen).collect();
        let new = candidate::collect(&self.local, &mapped, self.config.subnet, MAX_CANDIDATES);
        let has_changed = new != self.candidates;
        self.candidates = new;
        has_changed
    }

    /// Which relay sends from this address.
    pub fn relay_at(&self, address: SocketAddr) -> Option<&str> {
        self.bindings.iter().find(|(_, binding)| binding.relay == address).map(|(name, _)| name.as_str())
    }

    /// Forgets a binding; false if there was none.
    pub fn unbind(&mut self, name: &str) -> bool {
        let Some(Binding { relay, .. }) = self.bindings.remove(name) else { return false };
        self.former.retain(|former| *former != relay);
        self.former.truncate(MAX_FORMER - 1);
        self.former.push_front(relay);
        true
    }

    /// Whether probes to an address can make sense: ordinary, not a relay's, not this device's own. The error is the
    /// reason, as it is counted.
    pub fn check(&self, address: SocketAddr) -> Result<(), &'static str> {
        candidate::check(address, self.config.subnet)?;
        // without an own IPv6 address the socket cannot send there
        if address.is_ipv6() && !self.local.iter().any(SocketAddr::is_ipv6) {
            return Err("candidate_no_ipv6");
        }
        if self.relay_at(address).is_some() || self.former.contains(&address) {
            return Err("candidate_relay");
        }
        let is_mapped = || self.bindings.values().any(|binding| binding.mapped == Some(address));
        if self.local.contains(&address) || self.forwarded == Some(address) || is_mapped() {
            return Err("candidate_own");
        }
        match address.ip() {
            // the directed broadcast of a network of usual size
            IpAddr::V4(ip) if matches!(ip.octets()[3], 0 | 255) && self.is_near(address.ip()) => {
                Err("candidate_broadcast")
            }
            _ => Ok(()),
        }
    }

    /// Whether [`Shared::check`] has nothing against it.
    pub fn is_probeable(&self, address: SocketAddr) -> bool {
        self.check(address).is_ok()
    }

    /// Whether an address is in a network of usual size (/24, /64) that this device is in.
    pub fn is_near(&self, ip: IpAddr) -> bool {
        self.local.iter().any(|own| match (own.ip(), ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => own.octets()[..3] == ip.octets()[..3],
            (IpAddr::V6(own), IpAddr::V6(ip)) => own.segments()[..4] == ip.segments()[..4],
            _ => false,
        })
    }

    /// The public addresses that relays see.
    pub fn public(&self) -> impl Iterator<Item = IpAddr> {
        self.bindings.values().filter_map(|binding| binding.mapped).map(|mapped| mapped.ip())
    }
}
