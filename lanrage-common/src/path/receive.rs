//! What arrives: pings to answer, pongs to count, tunnel data that proves life.

use super::candidate::CandidateKind;
use super::pair::{Active, Pair};
use super::probe::{self, Kind, Probe};
use super::relays::is_proven;
use super::shared::Shared;
use std::net::SocketAddr;
use std::time::Instant;

impl Pair {
    /// An authentic probe of the member.
    pub fn handle_probe(&mut self, from: SocketAddr, probe: &Probe, shared: &mut Shared, now: Instant) {
        match probe.kind {
            Kind::Ping => self.handle_ping(from, probe, shared, now),
            Kind::Pong if probe.flags & probe::STALE != 0 => self.handle_stale(from, probe, shared, now),
            Kind::Pong => self.handle_pong(from, probe, shared, now),
        }
    }

    fn handle_ping(&mut self, from: SocketAddr, ping: &Probe, shared: &mut Shared, now: Instant) {
        if ping.your_session != self.session || ping.session < self.remote.session {
            shared.count("ping_stale");
            return self.tell_sessions(from, ping, shared, now);
        }
        if ping.session > self.remote.session {
            // restarted since its last announcement: it has forgotten ours
            self.adopt_session(ping.session);
            self.answer_announcement(now);
        }
        if !self.window.accept(ping.sequence) {
            return shared.count("ping_replayed");
        }
        if !self.pongs.take(1, now) {
            return shared.count("pong_budget");
        }
        self.handle_heard(ping.heard);
        let flags = self.pong_flags(from, now) | self.hunt_flag(from, ping, shared, now);
        self.pong(from, ping, flags, shared);
        self.handle_heard_from(from, shared, now);
        if ping.flags & probe::DEAF != 0
            && let Some(way) = self.way(from, shared)
        {
            self.note_deaf(&way, shared, now);
        }
    }

    /// What a ping says of a hunt, and whether this end takes part. Only through a relay: nothing else can be told to
    /// whom no way is known.
    fn hunt_flag(&mut self, from: SocketAddr, ping: &Probe, shared: &mut Shared, now: Instant) -> u8 {
        if ping.flags & probe::HUNT == 0 || shared.relay_at(from).is_none() {
            return 0;
        }
        self.handle_call(ping.observed, shared, now);
        if self.is_hunting() { probe::HUNT } else { 0 }
    }

    fn pong(&self, to: SocketAddr, ping: &Probe, flags: u8, shared: &mut Shared) {
        shared.count("pong_sent");
        let pong = Probe { sequence: ping.sequence, flags, observed: Some(to), ..self.probe(Kind::Pong) };
        self.transmit(to, &pong, shared);
    }

    /// A ping of another session of either end may be a replay, so it is not answered where it claims to come from.
    /// Through a relay it cannot point at a victim: there a restarted member learns the sessions.
    fn tell_sessions(&mut self, from: SocketAddr, ping: &Probe, shared: &mut Shared, now: Instant) {
        if shared.relay_at(from).is_some() && self.hints.take(1, now) {
            self.pong(from, ping, probe::STALE, shared);
        }
    }

    /// The member does not hold this end's session, or knows a later one.
    fn handle_stale(&mut self, from: SocketAddr, hint: &Probe, shared: &mut Shared, now: Instant) {
        let Some(way) = self.way(from, shared) else { return shared.count("pong_unasked") };
        if !self.route_mut(&way).is_some_and(|route| route.take_asked(hint.sequence)) {
            return shared.count("pong_unasked");
        }
        shared.count("pong_stale");
        let is_news = hint.session > self.remote.session || hint.your_session > self.session;
        self.adopt_session(hint.session);
        if hint.your_session > self.session {
            // the wall clock stepped back between two starts of this device
            self.session = hint.your_session.saturating_add(1);
            self.announce_soon(now);
        }
        if is_news && let Some(route) = self.route_mut(&way) {
            route.next_ping = Some(now);
        }
    }

    fn handle_pong(&mut self, from: SocketAddr, pong: &Probe, shared: &mut Shared, now: Instant) {
        let Some(way) = self.way(from, shared) else { return shared.count("pong_unasked") };
        if pong.your_session == self.session && self.note_measured(&way, pong.sequence, shared, now) {
            return;
        }
        let used = self.use_of(&way, shared, now);
        let answered = self.route_mut(&way).is_some_and(|route| route.answered(pong.sequence, used, now));
        if !answered || pong.your_session != self.session {
            return shared.count("pong_unasked");
        }
        shared.count("pong_received");
        self.handle_heard(pong.heard);
        if self.is_compared(&way) {
            self.ping_active_along(shared, now);
        }
        self.note_inner(&way, pong.flags & probe::INNER != 0, shared, now);
        if pong.flags & probe::HUNT != 0 {
            self.handle_agreed(shared, now);
        }
        self.decide(shared, now);
    }

    /// Authenticated data of the member came through the tunnel from this address. True when timers have changed.
    pub fn handle_tunnel_rx(&mut self, from: SocketAddr, shared: &mut Shared, now: Instant) -> bool {
        self.note_data(now);
        self.handle_tunnel_alive(from, shared, now)
    }

    /// Likewise, but it was nothing that somebody plays: a keepalive, or a word between the daemons.
    pub fn handle_tunnel_alive(&mut self, from: SocketAddr, shared: &mut Shared, now: Instant) -> bool {
        self.note_session();
        // nearly always a known route
        if let Some(route) =
            self.directs.iter_mut().chain(self.relays.values_mut()).find(|route| route.to == from)
        {
            route.carried(now);
            return false;
        }
        self.handle_heard_from(from, shared, now);
        if let Some(route) = self.directs.iter_mut().find(|route| route.to == from) {
            route.data_in = Some(now);
        }
        true
    }

    /// Something fresh and authentic came from this address: a way in, which is worth a probe at once.
    fn handle_heard_from(&mut self, from: SocketAddr, shared: &mut Shared, now: Instant) {
        self.note_bound_at(from, shared, now);
        let way = match self.way(from, shared) {
            Some(way) => way,
            None => match self.check_source(from, shared, now) {
                Ok(()) if self.add_direct(from, CandidateKind::Seen, now) => Active::Direct(from),
                Ok(()) => return shared.count("candidate_too_many"),
                Err(reason) => return shared.count(reason),
            },
        };
        let (is_active, is_idle) = (self.active.as_ref() == Some(&way), self.is_idle(now));
        let Some(route) = self.route_mut(&way) else { return };
        route.heard(now);
        let is_direct = matches!(way, Active::Direct(_));
        // while nobody plays, few probes will do
        let is_kept = match &way {
            Active::Direct(_) => is_active && !route.is_lost(now),
            Active::Relay(_) => is_proven(route, now),
        };
        let is_known = route.is_confirmed(now) || is_idle && is_kept;
        let wants_probe = !is_known && !route.was_asked_just_now(now);
        if wants_probe && (!is_direct || shared.budget.take(1, now)) {
            self.ping(&way, shared, now);
        }
    }

    /// The known way whose far end is this address.
    fn way(&self, from: SocketAddr, shared: &Shared) -> Option<Active> {
        if let Some(name) = shared.relay_at(from) {
            return self.relays.contains_key(name).then(|| Active::Relay(name.to_owned()));
        }
        self.directs.iter().any(|route| route.to == from).then_some(Active::Direct(from))
    }
}
