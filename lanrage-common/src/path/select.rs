//! Choosing among a member's ways: relay at once, direct when proven, relay again the moment direct falls silent.

use super::Path;
use super::pair::{Active, Pair};
use super::quality::Quality;
use super::route::{CONFIRMED, Route};
use super::shared::Shared;
use crate::api::PathKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// No voluntary change for this long after a change.
const HOLD: Duration = Duration::from_secs(10);
/// The same after a path died that had lasted for [`STEADY`].
const HOLD_AFTER_STEADY: Duration = Duration::from_secs(2);
const STEADY: Duration = Duration::from_secs(30);
/// A silent direct path without any alternative is kept this long.
const LAST_HOPE: Duration = Duration::from_secs(30);
/// Answers of a relay, and of the direct path, before the relay may outweigh it.
pub(super) const ENOUGH_SAMPLES: usize = 8;
/// A way must be faster by so much, milliseconds, to replace one of its kind ...
const MARGIN_MS: f64 = 5.0;
/// ... and a relay by so much to be better than a direct path: its operator pays for the traffic.
const RELAY_MARGIN_MS: f64 = 10.0;
/// A direct path is given up for a relay that answers when so many of its probes in a row got no answer.
const GIVEN_UP: usize = 4;
/// While an answer is missing for this long, nothing is compared.
const MISSING: Duration = Duration::from_millis(500);

impl Pair {
    /// Chooses anew, and tells when the choice has changed.
    pub fn decide(&mut self, shared: &mut Shared, now: Instant) {
        self.decided = now;
        self.choose_relays(shared, now);
        self.note_doubt(now);
        let chosen = self.choose(now);
        if chosen != self.active {
            self.change(chosen, now);
            shared.has_new_wishes = true;
        }
        self.note_hunt(shared, now);
        self.tell_path(shared);
        self.tell_mtu(shared, now);
    }

    /// The operating system refused to send there.
    pub fn handle_send_error(&mut self, to: SocketAddr, shared: &mut Shared, now: Instant) {
        if let Some(route) = self.directs.iter_mut().find(|route| route.to == to) {
            route.reset();
            self.decide(shared, now);
        }
    }

    fn change(&mut self, chosen: Option<Active>, now: Instant) {
        let before = std::mem::replace(&mut self.active, chosen);
        let lasted = now.saturating_duration_since(std::mem::replace(&mut self.since, now));
        self.note_change();
        if let (Some(Active::Relay(_)), Some(way @ Active::Relay(_))) = (&before, self.active.clone()) {
            // between relays: no reason to wait longer for a direct path
            self.route_mut(&way).into_iter().for_each(|route| route.next_ping = Some(now));
            return;
        }
        let mut hold = HOLD;
        if let Some(Active::Direct(to)) = before
            && let Some(route) = self.directs.iter_mut().find(|route| route.to == to)
            && (route.is_lost(now) || route.unanswered(now) >= GIVEN_UP)
        {
            route.reset();
            self.lapsed = Some((to, now));
            if lasted >= STEADY {
                hold = HOLD_AFTER_STEADY;
            }
            self.restart(now);
        }
        // the first path of all is no change
        self.hold = before.is_some().then(|| now + hold);
        if let Some(route) = self.active.clone().and_then(|way| self.route_mut(&way)) {
            route.next_ping = Some(now);
        }
    }

    fn choose(&self, now: Instant) -> Option<Active> {
        let may_change = self.hold.is_none_or(|hold| hold <= now);
        let relay = self.choice.carrier.clone();
        match &self.active {
            Some(Active::Direct(to)) => match self.directs.iter().find(|route| route.to == *to) {
                Some(current) if !current.is_lost(now) && !self.is_given_up(current, now) => {
                    let better =
                        may_change.then(|| self.better_than(current, relay.as_deref(), now)).flatten();
                    Some(better.unwrap_or(Active::Direct(*to)))
                }
                current => self.after_lapse(current, relay, now),
            },
            // a first direct path need not wait, one after a death has to prove itself longer
            _ if may_change || relay.is_none() => {
                let direct =
                    self.best_direct(now).filter(|direct| self.is_worth_it(direct, relay.as_deref()));
                direct.map(|route| Active::Direct(route.to)).or(relay.map(Active::Relay))
            }
            _ => relay.map(Active::Relay),
        }
    }

    fn after_lapse(&self, current: Option<&Route>, relay: Option<String>, now: Instant) -> Option<Active> {
        if let Some(name) = relay {
            return Some(Active::Relay(name));
        }
        if let Some(direct) = self.best_direct(now) {
            return Some(Active::Direct(direct.to));
        }
        // nothing else is left: a short outage of everything must not tear the tunnel down
        current.filter(|route| route.silence(now) < LAST_HOPE).map(|route| Active::Direct(route.to))
    }

    /// Its probes get no answers, and the relay's do.
    fn is_given_up(&self, current: &Route, now: Instant) -> bool {
        let relay = self.choice.carrier.as_ref().and_then(|name| self.relays.get(name));
        let relay_works = |since| relay.is_some_and(|relay| relay.was_answered_since(since));
        current.unanswered(now) >= GIVEN_UP && self.traffic.doubt.is_some_and(relay_works)
    }

    /// The best direct path that packets could move to.
    pub fn best_direct(&self, now: Instant) -> Option<&Route> {
        let needs_inner = self.needs_inner();
        let confirmed = self
            .directs
            .iter()
            .filter(|route| route.is_confirmed(now) && (!needs_inner || route.data_out.is_some()));
        confirmed.min_by(|a, b| score(a).total_cmp(&score(b)))
    }

    /// Whether a direct path should replace a relay: unless the relay is clearly better, which is rare. Before there are
    /// enough answers to know, a direct path that seems worse waits for them: a moment, for both are asked at once.
    fn is_worth_it(&self, direct: &Route, relay: Option<&str>) -> bool {
        let relay = relay.and_then(|name| self.relays.get(name));
        relay.is_none_or(|relay| !outweighs(relay, direct))
    }

    /// Whether this direct path is being compared with the relay in use: then the relay is asked along with it, or a busy
    /// moment would count against one of them only.
    pub fn is_compared(&self, way: &Active) -> bool {
        let is_new = |route: &Route| !route.is_measured();
        matches!((way, &self.active), (Active::Direct(_), Some(Active::Relay(_))))
            && self.route(way).is_some_and(is_new)
    }

    fn better_than(&self, current: &Route, relay: Option<&str>, now: Instant) -> Option<Active> {
        if current.asked_for(now) > MISSING {
            // it may be dying: that is the lapse's to decide
            return None;
        }
        let is_better = |route: &&Route| route.quality.is_clearly_better_than(&current.quality, MARGIN_MS);
        let proven = |route: &&Route| route.good >= 2 * CONFIRMED;
        if let Some(direct) = self.best_direct(now).filter(is_better).filter(proven) {
            return Some(Active::Direct(direct.to));
        }
        let name = relay?;
        let relay = self.relays.get(name)?;
        let is_known = relay.is_measured() && current.is_measured();
        (is_known && outweighs(relay, current)).then(|| Active::Relay(name.to_owned()))
    }

    /// When the active direct path will have been silent for too long.
    pub fn lapse_due(&self) -> Option<Instant> {
        let Some(Active::Direct(to)) = &self.active else { return None };
        let route = self.directs.iter().find(|route| route.to == *to)?;
        // without an alternative the path was kept: look again when hope ends
        let end = route.lapse_at().and(route.life()).map(|life| life + LAST_HOPE);
        [route.lapse_at(), end].into_iter().flatten().find(|due| *due > self.decided)
    }

    /// When a confirmed direct path may be taken.
    pub fn hold_due(&self) -> Option<Instant> {
        let is_waiting = !matches!(self.active, Some(Active::Direct(_)))
            && self.directs.iter().any(|route| route.good >= CONFIRMED);
        self.hold.filter(|hold| is_waiting && *hold > self.decided)
    }

    /// The caller's form of a way.
    pub fn describe(&self, way: &Active) -> Option<Path> {
        let route = self.route(way)?;
        let (kind, relay) = match way {
            Active::Direct(_) => (PathKind::Direct, None),
            Active::Relay(name) if route.is_carried => (PathKind::Tls, Some(name.clone())),
            Active::Relay(name) => (PathKind::Relay, Some(name.clone())),
        };
        Some(Path { kind, endpoint: route.to, relay, handshakes: self.handshake_relays(), copy: None })
    }
}

/// Whether a relay is clearly better than a direct path, in all that is known and in what came last.
fn outweighs(relay: &Route, direct: &Route) -> bool {
    let is_better = |relay: &Quality, direct: &Quality| relay.is_clearly_better_than(direct, RELAY_MARGIN_MS);
    let [last, of_direct] = [relay, direct].map(|route| route.quality.recent(ENOUGH_SAMPLES));
    is_better(&relay.quality, &direct.quality) && is_better(&last, &of_direct)
}

/// Score of a route, lower is better; guesses and mapped addresses lose a tie against an address of the same LAN.
fn score(route: &Route) -> f64 {
    use super::candidate::CandidateKind::{Host, Mapped, Predicted, Seen};
    let bias = match route.kind {
        Host => 0.0,
        Mapped | Seen => 1.0,
        Predicted => 1.5,
    };
    route.quality.score().map_or(f64::INFINITY, |score| score + bias)
}
