//! Which relay carries a pair, and which one stands by.
//!
//! Both ends tell each other their legs to every relay. The end with the lower key leads: it prefers the relay with the
//! least sum of both legs, keeps it unless another is better by far, and tells the other end, which follows. A relay
//! that has died for one end is left by that end at once, whatever the other thinks: packets arrive through any relay
//! that both are bound at.

use super::announce::AnnouncedRelay;
use super::candidate::CandidateKind;
use super::pair::{Active, Pair};
use super::route::{CONFIRMED, Route};
use super::shared::Shared;
use crate::relays::{Leg, Offer, rank};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Relays of a pair that are probed.
const MAX_WARM: usize = 3;
/// After a relay has died, nobody moves back for the sake of speed before this.
const HOLD: Duration = Duration::from_secs(10);
/// A relay that has died counts as dead at least this long.
const DEAD: Duration = Duration::from_secs(10);
/// And at most this long when nobody probes it any more.
const FORGET: Duration = Duration::from_secs(60);

/// A pair's relays.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The best for both ends: where the pair wants to be.
    pub preferred: Option<String>,
    /// The next best.
    pub standby: Option<String>,
    /// The preference rests on both ends' legs: only then it is worth keeping.
    is_settled: bool,
    /// Where it is: the preferred one, unless that does not work (yet).
    pub carrier: Option<String>,
    failed: BTreeMap<String, Instant>,
    hold: Option<Instant>,
}

impl Choice {
    fn has_failed(&self, name: &str) -> bool {
        self.failed.contains_key(name)
    }
}

impl Pair {
    /// Looks at all relays anew: which are dead, which is best, which one is used.
    pub fn choose_relays(&mut self, shared: &mut Shared, now: Instant) {
        self.note_failures(now);
        let offers = self.offers(shared);
        let wanted_before = (self.choice.preferred.clone(), self.choice.standby.clone());
        let ranked = self.prefer(shared, offers.clone(), now);
        let before = self.choice.carrier.take();
        self.choice.carrier = self.pick_carrier(shared, before.clone(), &offers, &ranked, now);
        if before.as_ref().is_some_and(|before| self.choice.has_failed(before))
            && before != self.choice.carrier
        {
            self.choice.hold = Some(now + HOLD);
        }
        shared.has_new_wishes |= before != self.choice.carrier
            || wanted_before != (self.choice.preferred.clone(), self.choice.standby.clone());
        self.refresh_routes(shared, &ranked, now);
    }

    /// The end whose preference counts.
    fn leads(&self, shared: &Shared) -> bool {
        shared.config.me.0 < self.member.0
    }

    fn note_failures(&mut self, now: Instant) {
        let watched = [&self.choice.carrier, &self.choice.preferred, &self.choice.standby];
        let is_dead = |name: &&String| self.relays.get(*name).is_some_and(|route| route.is_dead(now));
        let dead: Vec<String> = watched.into_iter().flatten().filter(is_dead).cloned().collect();
        for name in dead {
            self.choice.failed.entry(name).or_insert(now);
        }
        let relays = &self.relays;
        self.choice.failed.retain(|name, since| {
            let age = now.saturating_duration_since(*since);
            match relays.get(name) {
                Some(route) => age < DEAD || !is_proven(route, now),
                None => age < FORGET,
            }
        });
    }

    /// What each relay would be like for the pair. Before the member has announced anything, the own relays are tried:
    /// waiting would only cost time.
    fn offers(&self, shared: &Shared) -> Vec<(String, Offer)> {
        let own = shared.relay_names().map(|name| (name.to_owned(), shared.leg(name)));
        own.filter_map(|(name, leg)| match self.remote_relay(&name) {
            Some(theirs) => Some((name, leg.join(&theirs.leg))),
            None if self.remote.number == 0 => Some((name, leg.into())),
            None => None,
        })
        .collect()
    }

    fn remote_relay(&self, name: &str) -> Option<&AnnouncedRelay> {
        self.remote.relays.iter().find(|relay| relay.name == name)
    }

    /// Whether both ends are bound there, as far as this one knows.
    fn is_usable(&self, shared: &Shared, name: &str) -> bool {
        let is_theirs = || self.remote_relay(name).is_some_and(|relay| relay.is_bound);
        shared.bindings.contains_key(name) && (self.remote.number == 0 || is_theirs())
    }

    /// The member speaks through a relay: it is bound there, though its announcement of that is still on its way.
    pub fn note_bound_at(&mut self, from: SocketAddr, shared: &mut Shared, now: Instant) {
        let Some(name) = shared.relay_at(from) else { return };
        let theirs = self.remote.relays.iter_mut().find(|relay| relay.name == name && !relay.is_bound);
        if let Some(theirs) = theirs {
            theirs.is_bound = true;
            self.decide(shared, now);
        }
    }

    /// Sets the preference; the answer is all relays that are left, best first.
    fn prefer(&mut self, shared: &mut Shared, offers: Vec<(String, Offer)>, now: Instant) -> Vec<String> {
        let alive: Vec<_> =
            offers.iter().filter(|(name, _)| !self.choice.has_failed(name)).cloned().collect();
        // when nothing answers it is the member that is away
        let offers = if alive.is_empty() { offers } else { alive };
        let wish = |name: &Option<String>| {
            name.clone().filter(|name| offers.iter().any(|(offered, _)| offered == name))
        };
        let (mut first, mut second) = (self.choice.preferred.clone(), self.choice.standby.clone());
        let avoided: Vec<_> =
            offers.iter().filter(|(_, offer)| offer.avoid).map(|(name, _)| name.clone()).collect();
        let leads = self.leads(shared);
        if !leads && let Some(wished) = wish(&self.remote.wish.0) {
            (first, second) = (Some(wished), wish(&self.remote.wish.1));
            let at =
                |name: &String| [&first, &second].iter().position(|wished| wished.as_ref() == Some(name));
            let mut ranked = rank(&shared.config.party, offers, None);
            ranked.sort_by_key(|name| at(name).unwrap_or(2));
            return self.set_preference(ranked, &avoided);
        }
        let kept = first.as_deref().filter(|_| self.choice.is_settled);
        let mut ranked = rank(&shared.config.party, offers.clone(), kept);
        let is_known =
            |name: &String| offers.iter().any(|(offered, offer)| offered == name && offer.cost_ms.is_some());
        self.choice.is_settled = self.remote.number > 0 && ranked.first().is_some_and(is_known);
        let rest = offers.iter().filter(|(name, _)| Some(name) != ranked.first()).cloned().collect();
        let rest = rank(&shared.config.party, rest, second.as_deref());
        ranked.truncate(1);
        ranked.extend(rest);
        let ranked = self.set_preference(ranked, &avoided);
        if leads && (&first, &second) != (&self.choice.preferred, &self.choice.standby) && shared.number > 0 {
            shared.number += 1;
            self.announce_soon(now);
        }
        ranked
    }

    /// The first two; one that should be left does not stand by.
    fn set_preference(&mut self, ranked: Vec<String>, avoided: &[String]) -> Vec<String> {
        let standby = ranked.get(1).filter(|name| !avoided.contains(name));
        (self.choice.preferred, self.choice.standby) = (ranked.first().cloned(), standby.cloned());
        ranked
    }

    /// The preferred relay once it has proven itself; until then the one in use, and the next best when that is dead.
    fn pick_carrier(
        &self,
        shared: &Shared,
        current: Option<String>,
        offers: &[(String, Offer)],
        ranked: &[String],
        now: Instant,
    ) -> Option<String> {
        let works = |name: &String| self.is_usable(shared, name) && !self.choice.has_failed(name);
        let current = current.filter(works);
        let preferred = self.choice.preferred.clone().filter(works);
        match (current, preferred) {
            (Some(current), Some(preferred)) if current != preferred => {
                let avoids =
                    |name: &str| offers.iter().any(|(offered, offer)| offered == name && offer.avoid);
                let may_move = avoids(&current) || self.choice.hold.is_none_or(|hold| hold <= now);
                let has = |name: &str, is: fn(&Route, Instant) -> bool| {
                    self.relays.get(name).is_some_and(|route| is(route, now))
                };
                // while nothing has been answered yet, one is as good as the other
                let is_ready = has(&preferred, is_proven) || !has(&current, |route, _| route.was_answered());
                Some(if may_move && is_ready { preferred } else { current })
            }
            (None, Some(name)) | (Some(name), _) => Some(name),
            (None, None) => {
                let usable = |name: &&String| self.is_usable(shared, name);
                ranked.iter().find(|name| works(name)).or_else(|| ranked.iter().find(usable)).cloned()
            }
        }
    }

    /// Probes the relays that matter, and forgets the others.
    fn refresh_routes(&mut self, shared: &Shared, ranked: &[String], now: Instant) {
        let mut warm: Vec<&String> = Vec::new();
        for name in self.choice.carrier.iter().chain(ranked).chain(self.choice.failed.keys()) {
            if warm.len() < MAX_WARM && !warm.contains(&name) && self.is_usable(shared, name) {
                warm.push(name);
            }
        }
        let place = |name: &str| shared.bindings.get(name).map(|binding| binding.relay);
        self.relays.retain(|name, route| warm.contains(&name) && place(name) == Some(route.to));
        for name in warm {
            let Some(binding) = shared.bindings.get(name) else { continue };
            self.relays.entry(name.clone()).or_insert_with(|| {
                let mut route = Route::new(binding.relay, CandidateKind::Mapped, now);
                route.is_carried = binding.mapped.is_none();
                route.next_ping = Some(now);
                route
            });
        }
    }

    /// Where handshakes go: through the relay in use, or ready to be, and through the one that stands by.
    pub fn handshake_relays(&self) -> [Option<SocketAddr>; 2] {
        let place = |name: &String| self.relays.get(name).map(|route| route.to);
        [self.choice.carrier.as_ref().and_then(place), self.spare_relay().and_then(place)]
    }

    /// The relay that takes over when the one in use dies.
    pub fn spare_relay(&self) -> Option<&String> {
        let wanted = [&self.choice.preferred, &self.choice.standby].into_iter().flatten();
        let is_spare = |name: &&String| Some(*name) != self.choice.carrier.as_ref();
        let works = |name: &&String| self.relays.contains_key(*name) && !self.choice.has_failed(name);
        wanted.chain(self.relays.keys()).filter(is_spare).find(works)
    }

    /// When a relay that was left may be taken again.
    pub fn relay_hold_due(&self) -> Option<Instant> {
        let is_away = self.choice.carrier != self.choice.preferred;
        self.choice.hold.filter(|hold| is_away && *hold > self.decided)
    }

    /// Why this relay and no other.
    pub fn explain_relay(&self, shared: &Shared) -> Option<String> {
        let carrier = self.choice.carrier.as_ref()?;
        let offers = self.offers(shared);
        let cost = |name: &str| offers.iter().find(|(offered, _)| offered == name)?.1.cost_ms;
        if let Some((dead, _)) = self.choice.failed.iter().max_by_key(|(_, since)| **since)
            && dead != carrier
        {
            return Some(format!("{dead} gives no answer"));
        }
        let own = cost(carrier).map_or("delay unknown".into(), |ms| format!("{ms} ms over both legs"));
        let others = offers.iter().filter(|(name, _)| name != carrier);
        let next = others.filter_map(|(name, offer)| Some((offer.cost_ms?, name))).min();
        Some(match (&self.choice.preferred, next) {
            (Some(preferred), _) if preferred != carrier => format!("{own}; moving to {preferred}"),
            (_, Some((ms, name))) => format!("{own}; {name}: {ms} ms"),
            (_, None) => format!("{own}; no other that both can use"),
        })
    }

    /// What this pair would have its device be bound at.
    pub fn wanted_relays(&self) -> impl Iterator<Item = &String> {
        [&self.choice.preferred, &self.choice.standby].into_iter().flatten()
    }

    /// What packets or handshakes of this pair go through.
    pub fn used_relays(&self) -> impl Iterator<Item = &String> {
        let active = match &self.active {
            Some(Active::Relay(name)) => Some(name),
            _ => None,
        };
        active.into_iter().chain(&self.choice.carrier)
    }
}

/// Answered several times, and still answering.
pub(super) fn is_proven(route: &Route, now: Instant) -> bool {
    route.good >= CONFIRMED && !route.is_dead(now)
}

impl Shared {
    /// All relays that are known, bound or only measured.
    fn relay_names(&self) -> impl Iterator<Item = &str> {
        let unbound = self.legs.keys().filter(|name| !self.bindings.contains_key(*name));
        self.bindings.keys().chain(unbound).map(String::as_str)
    }

    /// The own leg. Over TLS it is the binding's; otherwise what was measured, or the binding's until then.
    pub fn leg(&self, name: &str) -> Leg {
        let binding = self.bindings.get(name);
        let measured = self.legs.get(name).copied().unwrap_or_default();
        let rtt = binding.and_then(|binding| binding.rtt).map(whole_ms);
        match binding {
            Some(binding) if binding.mapped.is_none() => Leg { rtt_ms: rtt, jitter_ms: 0, ..measured },
            _ => Leg { rtt_ms: measured.rtt_ms.or(rtt), ..measured },
        }
    }

    /// What other members are told: relays with a binding first.
    pub fn announced_relays(&self) -> Vec<AnnouncedRelay> {
        let announce = |name: &str| AnnouncedRelay {
            name: name.to_owned(),
            leg: self.leg(name),
            is_bound: self.bindings.contains_key(name),
        };
        self.relay_names().map(announce).collect()
    }
}

fn whole_ms(rtt: Duration) -> u16 {
    u16::try_from(rtt.as_millis()).unwrap_or(u16::MAX - 1)
}
