//! A device's relays: measures all that are listed, and holds bindings at few of them.
//!
//! A device is bound at its two best relays, and at those that its pairs want ([`crate::path`] decides that from both
//! ends' legs). Round trips are measured by STUN Binding, which needs no ticket and leaves no state at the relay. A
//! relay that is wanted no more is kept for a while, and one that a pair still uses is not let go.

mod rank;
#[cfg(test)]
mod tests;

pub use rank::{Leg, Offer, rank};

use crate::binding::{binding_request, is_stun, parse_binding_answer};
use crate::identity::PartyId;
use crate::path::quality::Quality;
use crate::protocol::{RelayInfo, RelayState};
use crate::time::Now;
use rand_core::{CryptoRngCore, OsRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Relays that are measured, in the order of the list.
const MAX_MEASURED: usize = 16;
/// Relays that a device chooses for itself: the best, and one that can take over.
const OWN: usize = 2;
/// Relays at which a device is bound at once, its pairs' wishes included.
const MAX_HELD: usize = 6;
/// Samples taken one after another at the start.
const FIRST_SAMPLES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(60);
/// Between samples later: of relays that are held, and of others.
const PAUSE_HELD: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(30);
/// A sample without an answer is lost after this.
const LOST: Duration = Duration::from_secs(1);
/// Samples that count.
const SAMPLES: usize = 9;
/// Lost samples in a row after which a relay gives no answer.
const SILENT: u32 = 3;
/// The first choice among several waits this long for round trips.
const FIRST_CHOICE: Duration = Duration::from_millis(250);
/// A relay that is wanted no more is kept this long, and less when it should be left.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_AVOIDED: Duration = Duration::from_secs(2);
/// From this load on a relay counts as farther away, percent and milliseconds.
const BUSY: u8 = 80;
const BUSY_COST_MS: u32 = 20;

/// What the caller must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram from the tunnel's socket.
    Transmit {
        /// A relay.
        to: SocketAddr,
        /// STUN.
        payload: Vec<u8>,
    },
    /// Be bound at these relays and at no others.
    Hold(Vec<RelayInfo>),
    /// Tell the path agent how far the relays are.
    Legs(BTreeMap<String, Leg>),
}

/// A relay as its user sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// What the control server says of it.
    pub info: RelayInfo,
    /// Whether it still says so.
    pub is_listed: bool,
    /// Whether the device wants to be bound there.
    pub is_held: bool,
    /// Median round trip, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Mean difference of successive round trips, milliseconds.
    pub jitter_ms: Option<f64>,
    /// Unanswered samples, 0 to 1.
    pub loss: Option<f64>,
    /// One sentence: why it is used, or not.
    pub why: &'static str,
}

#[derive(Debug)]
struct Relay {
    info: RelayInfo,
    is_listed: bool,
    is_held: bool,
    is_bound: bool,
    /// When it was last among those to be held.
    wanted: Option<Instant>,
    quality: Quality,
    asked: Option<([u8; 12], Instant)>,
    next: Instant,
    sent: u32,
    lost_in_row: u32,
}

/// See the module. Randomness: transaction ids.
#[derive(Debug)]
pub struct RelayChoice<R = OsRng> {
    party: PartyId,
    rng: R,
    relays: BTreeMap<String, Relay>,
    /// The own choice, best first.
    own: Vec<String>,
    /// What pairs want, and how many.
    wishes: BTreeMap<String, u32>,
    /// What pairs use.
    used: BTreeSet<String>,
    /// When the first choice is made at the latest.
    first_choice: Option<Instant>,
    told_held: Option<Vec<RelayInfo>>,
    told_legs: BTreeMap<String, Leg>,
    outputs: VecDeque<Output>,
}

impl<R: CryptoRngCore> RelayChoice<R> {
    /// Nothing is known yet.
    pub fn new(party: PartyId, rng: R) -> Self {
        Self {
            party,
            rng,
            relays: BTreeMap::new(),
            own: Vec::new(),
            wishes: BTreeMap::new(),
            used: BTreeSet::new(),
            first_choice: None,
            told_held: None,
            told_legs: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The list as the control server has it now. A relay that is off it is used as long as it goes on answering: the
    /// list of a control server that was started again is empty at first.
    pub fn set_list(&mut self, list: &[RelayInfo], now: Now) {
        let now = now.instant;
        self.relays.values_mut().for_each(|relay| relay.is_listed = false);
        for info in list.iter().take(MAX_MEASURED) {
            match self.relays.get_mut(&info.name) {
                Some(relay) if relay.info.addresses == info.addresses => {
                    (relay.is_listed, relay.info) = (true, info.clone());
                }
                _ => drop(self.relays.insert(info.name.clone(), Relay::new(info.clone(), now))),
            }
        }
        self.relays.retain(|_, relay| relay.is_listed || relay.is_bound);
        self.first_choice.get_or_insert(now + FIRST_CHOICE);
        self.choose(now);
    }

    /// Whether a relay has bound this device.
    pub fn set_bound(&mut self, name: &str, is_bound: bool, now: Now) {
        let Some(relay) = self.relays.get_mut(name) else { return };
        if relay.is_bound && !is_bound {
            relay.next = now.instant; // is it gone, or only the binding?
        }
        relay.is_bound = is_bound;
        self.relays.retain(|_, relay| relay.is_listed || relay.is_bound);
        self.choose(now.instant);
    }

    /// What pairs want, with how many of them, and what they use now.
    pub fn set_wishes(&mut self, wishes: BTreeMap<String, u32>, used: BTreeSet<String>, now: Now) {
        (self.wishes, self.used) = (wishes, used);
        self.choose(now.instant);
    }

    /// The machine's network has changed: all round trips are others now.
    pub fn measure_anew(&mut self, now: Now) {
        for relay in self.relays.values_mut() {
            let info = std::mem::take(&mut relay.info);
            *relay = Relay {
                is_listed: relay.is_listed,
                is_held: relay.is_held,
                is_bound: relay.is_bound,
                wanted: relay.wanted,
                ..Relay::new(info, now.instant)
            };
        }
    }

    /// Takes a STUN datagram; says whether it answers a sample.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Now) -> bool {
        if !is_stun(datagram) {
            return false;
        }
        let Some((transaction, _)) = parse_binding_answer(datagram) else { return false };
        let asked = |relay: &&mut Relay| {
            relay.place() == Some(from) && relay.asked.is_some_and(|(asked, _)| asked == transaction)
        };
        let Some(relay) = self.relays.values_mut().find(asked) else { return false };
        relay.take_answer(now.instant);
        self.choose(now.instant);
        true
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.instant;
        for relay in self.relays.values_mut().filter(|relay| relay.next <= now) {
            if let Some((to, payload)) = relay.sample(&mut self.rng, now) {
                self.outputs.push_back(Output::Transmit { to, payload });
            }
        }
        self.choose(now);
    }

    /// When [`RelayChoice::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let samples = self.relays.values().filter(|relay| relay.place().is_some()).map(|relay| relay.next);
        let first = self.first_choice.filter(|_| self.own.is_empty() && !self.relays.is_empty());
        samples.chain(first).chain(self.release_due()).min()
    }

    /// What to do next; drain until `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// All relays, by name.
    pub fn status(&self) -> impl Iterator<Item = Status> + '_ {
        self.relays.values().map(|relay| Status {
            info: relay.info.clone(),
            is_listed: relay.is_listed,
            is_held: relay.is_held,
            rtt_ms: relay.quality.rtt_ms(),
            jitter_ms: relay.quality.jitter_ms(),
            loss: relay.quality.loss(),
            why: self.explain(relay),
        })
    }

    fn explain(&self, relay: &Relay) -> &'static str {
        let name = &relay.info.name;
        match relay.info.state {
            _ if !relay.is_listed => "off the control server's list; used while it answers",
            RelayState::Draining => "being emptied by its operator",
            RelayState::Full if !relay.is_bound => "full",
            _ if relay.is_silent() => "gives no answer",
            _ if self.own.first() == Some(name) => "this device's best",
            _ if self.own.contains(name) => "this device's second, to take over",
            _ if self.wishes.contains_key(name) => "wanted for members that are near it",
            _ if relay.is_held => "kept for a while",
            _ => "others are nearer, or as near",
        }
    }

    /// Chooses anew, and tells what has changed.
    fn choose(&mut self, now: Instant) {
        self.tell_legs();
        if !self.may_choose(now) {
            return;
        }
        self.choose_own();
        let targets = self.targets();
        for (name, relay) in &mut self.relays {
            if targets.contains(name) {
                (relay.is_held, relay.wanted) = (true, Some(now));
            } else if self.used.contains(name) {
                // the other end may leave it a little later
                relay.wanted = Some(now);
            } else if relay.release_at().is_none_or(|at| at <= now) {
                relay.is_held = false;
            }
        }
        self.tell_held();
    }

    /// With two or fewer there is nothing to wait for.
    fn may_choose(&self, now: Instant) -> bool {
        let is_late = self.first_choice.is_some_and(|due| due <= now);
        let is_measured = |relay: &Relay| relay.quality.samples() > 0;
        !self.own.is_empty() || self.relays.len() <= OWN || is_late || self.relays.values().all(is_measured)
    }

    fn choose_own(&mut self) {
        let mut offers: Vec<(String, Offer)> =
            self.relays.iter().map(|(name, relay)| (name.clone(), relay.offer())).collect();
        let mut own = Vec::new();
        for kept in [self.own.first(), self.own.get(1)] {
            let ranked = rank(&self.party, offers.clone(), kept.map(String::as_str));
            let Some(best) = ranked.into_iter().next() else { break };
            own.push(best.clone());
            // one that should be left is no help beside one that works
            let is_good = offers.iter().any(|(name, offer)| *name == best && !offer.avoid);
            offers.retain(|(name, offer)| *name != best && !(is_good && offer.avoid));
        }
        self.own = own;
    }

    /// The own choice, and what most pairs want.
    fn targets(&self) -> BTreeSet<String> {
        let mut wishes: Vec<_> =
            self.wishes.iter().filter(|(name, _)| self.relays.contains_key(*name)).collect();
        wishes.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
        let wished = wishes.into_iter().map(|(name, _)| name);
        let mut targets = BTreeSet::new();
        for name in self.own.iter().chain(wished) {
            if targets.len() < MAX_HELD {
                targets.insert(name.clone());
            }
        }
        targets
    }

    /// When a relay that is wanted no more may go.
    fn release_due(&self) -> Option<Instant> {
        let targets = self.targets();
        let leaving = self
            .relays
            .iter()
            .filter(|(name, relay)| relay.is_held && !targets.contains(*name) && !self.used.contains(*name));
        leaving.filter_map(|(_, relay)| relay.release_at()).min()
    }

    fn tell_held(&mut self) {
        let held = self.relays.values().filter(|relay| relay.is_held);
        let held: Vec<RelayInfo> = held.map(|relay| relay.info.clone()).collect();
        if self.told_held.as_ref() != Some(&held) {
            self.told_held = Some(held.clone());
            self.outputs.push_back(Output::Hold(held));
        }
    }

    fn tell_legs(&mut self) {
        let told = |name: &String| self.told_legs.get(name).copied();
        let legs: BTreeMap<_, _> =
            self.relays.iter().map(|(name, relay)| (name.clone(), damp(told(name), relay.leg()))).collect();
        if legs != self.told_legs {
            self.told_legs.clone_from(&legs);
            self.outputs.push_back(Output::Legs(legs));
        }
    }
}

impl Relay {
    fn new(info: RelayInfo, now: Instant) -> Self {
        Self {
            info,
            is_listed: true,
            is_held: false,
            is_bound: false,
            wanted: None,
            quality: Quality::of_last(SAMPLES),
            asked: None,
            next: now,
            sent: 0,
            lost_in_row: 0,
        }
    }

    /// Where it takes datagrams: members speak IPv4 to it when they can.
    fn place(&self) -> Option<SocketAddr> {
        let addresses = &self.info.addresses;
        addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
    }

    fn is_silent(&self) -> bool {
        self.lost_in_row >= SILENT && !self.is_bound
    }

    fn is_to_be_left(&self) -> bool {
        match self.info.state {
            _ if !self.is_listed => true,
            RelayState::Draining => true,
            RelayState::Full => !self.is_bound,
            RelayState::Ready | RelayState::Unknown => self.is_silent(),
        }
    }

    fn leg(&self) -> Leg {
        let whole = |ms: f64| ms.round().clamp(0.0, f64::from(u16::MAX - 1)) as u16;
        Leg {
            rtt_ms: self.quality.rtt_ms().filter(|_| self.lost_in_row < SILENT).map(whole),
            jitter_ms: self.quality.jitter_ms().map_or(0, whole),
            avoid: self.is_to_be_left(),
        }
    }

    /// For this device alone: a busy relay is as good as a farther one.
    fn offer(&self) -> Offer {
        let busy = if self.info.load >= BUSY { BUSY_COST_MS } else { 0 };
        let offer = Offer::from(self.leg());
        Offer { cost_ms: offer.cost_ms.map(|cost| cost + busy), ..offer }
    }

    fn release_at(&self) -> Option<Instant> {
        let linger = if self.is_to_be_left() { LINGER_AVOIDED } else { LINGER };
        self.wanted.map(|wanted| wanted + linger)
    }

    /// Gives up the last sample if it is still out, and takes the next.
    fn sample(&mut self, rng: &mut impl CryptoRngCore, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        if self.asked.take().is_some() {
            self.lost_in_row += 1;
            self.quality.record(None);
            self.next = now + if self.lost_in_row < SILENT { FIRST_PAUSE } else { self.pause() };
            if self.lost_in_row >= SILENT {
                return None;
            }
        }
        let to = self.place()?;
        let mut transaction = [0; 12];
        rng.fill_bytes(&mut transaction);
        self.asked = Some((transaction, now));
        self.sent += 1;
        self.next = now + LOST;
        Some((to, binding_request(transaction)))
    }

    fn take_answer(&mut self, now: Instant) {
        let Some((_, asked)) = self.asked.take() else { return };
        self.quality.record(Some(now.saturating_duration_since(asked)));
        self.lost_in_row = 0;
        self.next = now + if self.sent < FIRST_SAMPLES { FIRST_PAUSE } else { self.pause() };
    }

    fn pause(&self) -> Duration {
        if self.is_held { PAUSE_HELD } else { PAUSE }
    }
}

/// A leg that has hardly changed is told as it was: every change is announced to every member.
fn damp(told: Option<Leg>, fresh: Leg) -> Leg {
    let Some(told) = told else { return fresh };
    let is_near = |a: u16, b: u16, slack: u16| a.abs_diff(b) <= slack.max(a / 5);
    let is_similar = match (told.rtt_ms, fresh.rtt_ms) {
        (Some(a), Some(b)) => is_near(a, b, 3) && is_near(told.jitter_ms, fresh.jitter_ms, 5),
        (a, b) => a == b,
    };
    if is_similar && told.avoid == fresh.avoid { told } else { fresh }
}
