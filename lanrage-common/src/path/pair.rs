//! The paths between this device and one member: what is known of the other end, timers and announcements.

use super::announce::{AnnouncedRelay, Announcement, MAX_CANDIDATES};
use super::candidate::CandidateKind;
use super::hunt::Hunt;
use super::probe::{self, Direction, Kind, Probe};
use super::relays::Choice;
use super::route::{HEARTBEAT, Route, Use};
use super::schedule::Schedule;
use super::shared::Shared;
use super::traffic::Traffic;
use super::victims::{Networks, Place};
use super::window::Window;
use super::{Output, Path};
use crate::bucket::{Bucket, Rate};
use crate::identity::WgKey;
use crate::nat::{self, Behaviour, Verdict};
use crate::time::Now;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Changes of a moment go into one announcement.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(10);
/// At least this long between two announcements of the same facts.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);
/// At most this long while a member does not confirm an announcement.
const ANNOUNCE_RARELY: Duration = Duration::from_secs(60);

/// How packets go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Active {
    Direct(SocketAddr),
    Relay(String),
}

/// What the other end told of itself.
#[derive(Debug, Default)]
pub(super) struct Remote {
    /// 0 = unknown.
    pub session: u64,
    /// Newest announcement held of this session; 0 = none.
    pub number: u32,
    pub relays: Vec<AnnouncedRelay>,
    /// Which relay it would have for the pair, and which one stands by.
    pub wish: (Option<String>, Option<String>),
    /// Where relays see it, by its own word, if it may be probed there.
    pub mapped: Option<SocketAddr>,
    /// It announced addresses of its own behind other, mapped ones.
    pub is_behind_nat: bool,
    /// What it told of its NAT.
    pub nat: Behaviour,
}

/// Announcing to the member.
#[derive(Debug)]
struct Telling {
    due: Option<Instant>,
    sent: Option<Instant>,
    pause: Duration,
    /// Newest announcement that the member holds.
    heard: u32,
}

pub(super) struct Keys {
    tag: [u8; 8],
    probe_out: [u8; 32],
    probe_in: [u8; 32],
    signal_out: [u8; 32],
    signal_in: [u8; 32],
}

pub(super) struct Pair {
    pub member: WgKey,
    pub keys: Keys,
    /// This end's session towards the member.
    pub session: u64,
    pub remote: Remote,
    pub window: Window,
    pub directs: Vec<Route>,
    pub relays: BTreeMap<String, Route>,
    pub choice: Choice,
    pub active: Option<Active>,
    /// When `active` was chosen.
    pub since: Instant,
    /// When the choice was last looked at.
    pub decided: Instant,
    /// No voluntary change before.
    pub hold: Option<Instant>,
    /// The last direct path that died, and when.
    pub lapsed: Option<(SocketAddr, Instant)>,
    pub schedule: Schedule,
    pub traffic: Traffic,
    pub networks: Networks,
    pub pongs: Bucket,
    pub hints: Bucket,
    pub hunt: Hunt,
    pub sequence: u64,
    told: Option<Path>,
    /// The length of packets that the caller was told.
    pub told_mtu: Option<u16>,
    telling: Telling,
}

impl Pair {
    pub fn new(member: WgKey, shared: &mut Shared, now: Now) -> Self {
        let (secret, party, me) = (&shared.config.secret, &shared.config.party, &shared.config.me);
        let keys = Keys {
            tag: probe::tag(&member),
            probe_out: secret.probe_key(party, me, &member),
            probe_in: secret.probe_key(party, &member, me),
            signal_out: secret.signal_key(party, me, &member),
            signal_in: secret.signal_key(party, &member, me),
        };
        let mut pair = Self {
            member,
            keys,
            session: shared.new_session(now),
            remote: Remote::default(),
            window: Window::default(),
            directs: Vec::new(),
            relays: BTreeMap::new(),
            choice: Choice::default(),
            active: None,
            since: now.instant,
            decided: now.instant,
            hold: None,
            lapsed: None,
            schedule: Schedule::new(now.instant),
            traffic: Traffic::new(now.instant),
            networks: Networks::new(),
            pongs: Bucket::new(Rate::per_second(50, 64)),
            hints: Bucket::new(Rate::per_second(1, 2)),
            hunt: Hunt::default(),
            sequence: 0,
            told: None,
            told_mtu: None,
            telling: Telling { due: None, sent: None, pause: ANNOUNCE_AGAIN, heard: 0 },
        };
        pair.handle_local_change(shared, now.instant);
        pair
    }

    /// Own candidates or bindings have changed.
    pub fn handle_local_change(&mut self, shared: &mut Shared, now: Instant) {
        self.directs.retain(|route| shared.is_probeable(route.to));
        self.handle_moved();
        self.announce_soon(now);
        self.restart(now);
        self.decide(shared, now);
    }

    /// The way to the member through the control server may work again.
    pub fn announce_soon(&mut self, now: Instant) {
        self.telling.pause = ANNOUNCE_AGAIN;
        self.telling.due = Some(now + ANNOUNCE_DELAY);
    }

    /// Probes densely again, the active path too.
    pub fn restart(&mut self, now: Instant) {
        self.schedule = Schedule::new(now);
        for route in self.relays.values_mut() {
            route.next_ping = Some(now);
        }
        if let Some(route) = self.active_route_mut() {
            route.next_ping = Some(now);
            route.mtu.renew();
        }
    }

    pub fn handle_signal(&mut self, body: &str, shared: &mut Shared, now: Instant) {
        let Some(announcement) = Announcement::open(body, &self.keys.signal_in) else {
            return shared.count("signal_forged");
        };
        if (announcement.session, announcement.number) <= (self.remote.session, self.remote.number) {
            return shared.count("signal_replayed");
        }
        shared.count("signal_accepted");
        let has_restarted = announcement.session > self.remote.session;
        let names = |relays: &[AnnouncedRelay]| {
            let bound = relays.iter().filter(|relay| relay.is_bound);
            bound.map(|relay| relay.name.clone()).collect::<Vec<_>>()
        };
        let has_moved = names(&announcement.relays) != names(&self.remote.relays);
        self.adopt_session(announcement.session);
        self.note_heard(&announcement, now);
        self.remote.number = announcement.number;
        let has_more = self.take_candidates(&announcement, shared, now);
        (self.remote.relays, self.remote.wish) = (announcement.relays, announcement.wish);
        self.remote.nat = announcement.nat;
        if has_restarted || has_moved || has_more {
            self.restart(now);
        }
        self.decide(shared, now);
    }

    /// Starts afresh with a restarted member; does nothing for its known session.
    pub fn adopt_session(&mut self, session: u64) {
        if session <= self.remote.session {
            return;
        }
        self.remote.session = session;
        self.remote.number = 0;
        self.window = Window::default();
        self.telling.heard = 0;
    }

    fn note_heard(&mut self, announcement: &Announcement, now: Instant) {
        if announcement.your_session == self.session {
            self.handle_heard(announcement.heard);
        } else {
            self.telling.heard = 0;
            self.answer_announcement(now);
        }
    }

    /// The member holds this announcement of ours.
    pub fn handle_heard(&mut self, number: u32) {
        self.telling.heard = self.telling.heard.max(number);
    }

    /// The member does not know us: announce, but not in a loop.
    pub fn answer_announcement(&mut self, now: Instant) {
        let earliest = self.telling.sent.map_or(now, |sent| (sent + ANNOUNCE_AGAIN).max(now));
        self.telling.pause = ANNOUNCE_AGAIN;
        self.telling.due = Some(self.telling.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// True when there is a new address to try.
    fn take_candidates(&mut self, announcement: &Announcement, shared: &mut Shared, now: Instant) -> bool {
        let offered = &announcement.candidates;
        let active = self.active.clone();
        self.directs.retain(|route| {
            let is_active = active == Some(Active::Direct(route.to));
            let is_offered = offered.iter().any(|candidate| candidate.address == route.to);
            is_active
                || is_offered
                || self.hunt.kept == Some(route.to)
                || route.kind == CandidateKind::Seen
                || route.is_confirmed(now)
        });
        let mut has_more = false;
        self.remote.mapped = None;
        let place = Place::new(announcement, shared);
        for candidate in offered {
            match self.check_candidate(candidate.address, &place, shared, now) {
                Ok(()) => {
                    if candidate.kind == CandidateKind::Mapped {
                        self.remote.mapped = self.remote.mapped.or(Some(candidate.address));
                    }
                    has_more |= self.directs.iter().all(|route| route.to != candidate.address);
                    self.add_direct(candidate.address, candidate.kind, now);
                }
                Err(reason) => shared.count(reason),
            }
        }
        self.remote.is_behind_nat = offered.iter().any(|candidate| candidate.kind == CandidateKind::Mapped);
        has_more
    }

    /// Adds an address to try; one that never answered makes room when there are too many.
    pub fn add_direct(&mut self, to: SocketAddr, kind: CandidateKind, now: Instant) -> bool {
        if self.directs.iter().any(|route| route.to == to) {
            return true;
        }
        if self.directs.len() >= MAX_CANDIDATES {
            let evictable = |route: &Route| route.kind == CandidateKind::Seen && !route.was_answered();
            match self.directs.iter().position(evictable) {
                Some(at) => drop(self.directs.remove(at)),
                None => return false,
            }
        }
        self.directs.push(Route::new(to, kind, now));
        true
    }

    pub fn handle_timeout(&mut self, shared: &mut Shared, now: Instant) {
        let routes = self.directs.iter_mut().chain(self.relays.values_mut());
        routes.for_each(|route| route.expire(now));
        self.decide(shared, now);
        self.warm_relays(now);
        self.send_due_probes(shared, now);
        self.send_round(shared, now);
        self.measure(shared, now);
        self.send_announcement(shared, now);
        self.run_hunt(shared, now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let probes = self.directs.iter().chain(self.relays.values()).filter_map(|route| route.next_ping);
        let round = (!self.directs.is_empty()).then(|| self.schedule.next());
        let waits = [
            self.lapse_due(),
            self.hold_due(),
            self.relay_hold_due(),
            self.doubt_due(),
            self.hunt_due(),
            self.measure_due(),
        ];
        probes.chain([round, self.telling.due].into_iter().chain(waits).flatten()).min()
    }

    /// The way out if the path is dying: know its state before it is needed.
    fn warm_relays(&mut self, now: Instant) {
        let is_dying = match &self.active {
            Some(_) if self.traffic.doubt.is_some() => true,
            Some(way @ Active::Direct(_)) => self.route(way).is_some_and(|route| route.is_suspect(now)),
            Some(way) => self.route(way).is_some_and(|route| route.waits(now) > 0),
            None => false,
        };
        if is_dying {
            for route in self.relays.values_mut().filter(|route| route.silence(now) > HEARTBEAT) {
                let soon = now + HEARTBEAT;
                if !route.was_asked_within(HEARTBEAT, now) && route.next_ping.is_none_or(|next| next > soon) {
                    route.next_ping = Some(now);
                }
            }
        }
    }

    fn send_due_probes(&mut self, shared: &mut Shared, now: Instant) {
        let is_due = |route: &Route| route.next_ping.is_some_and(|next| next <= now);
        let direct = self.directs.iter().filter(|route| is_due(route)).map(|route| Active::Direct(route.to));
        let relay = self
            .relays
            .iter()
            .filter(|(_, route)| is_due(route))
            .map(|(name, _)| Active::Relay(name.clone()));
        for way in direct.chain(relay).collect::<Vec<_>>() {
            self.ping(&way, shared, now);
        }
    }

    /// One round of the schedule: all candidates but those that are probed anyway.
    fn send_round(&mut self, shared: &mut Shared, now: Instant) {
        if self.schedule.next() > now {
            return;
        }
        let idle = self.directs.iter().filter(|route| route.next_ping.is_none());
        let ways: Vec<_> = idle.map(|route| Active::Direct(route.to)).collect();
        if !shared.budget.take(ways.len() as u64, now) {
            shared.count("probe_budget");
            return self.schedule.postpone(now);
        }
        for way in ways {
            self.ping(&way, shared, now);
        }
        self.schedule.advance(now);
    }

    /// Sends a ping. A direct one needs the member's session: without it the answer would be refused anyway.
    pub fn ping(&mut self, way: &Active, shared: &mut Shared, now: Instant) {
        self.sequence += 1;
        let used = self.use_of(way, shared, now);
        let flags = self.ping_flags(way);
        let (sequence, session) = (self.sequence, self.remote.session);
        let Some(route) = self.route_mut(way) else { return };
        route.sent(sequence, used, now);
        let to = route.to;
        if session == 0 && matches!(way, Active::Direct(_)) {
            return;
        }
        let ping = Probe { sequence, flags, ..self.probe(Kind::Ping) };
        shared.count("ping_sent");
        self.transmit(to, &ping, shared);
    }

    /// Asks the way in use together with another one, so that both are measured in the same moment.
    pub fn ping_active_along(&mut self, shared: &mut Shared, now: Instant) {
        let Some(way) = self.active.clone() else { return };
        if self.route(&way).is_some_and(|route| !route.was_asked_just_now(now)) {
            self.ping(&way, shared, now);
        }
    }

    /// A probe with the pair's common fields.
    pub fn probe(&self, kind: Kind) -> Probe {
        Probe {
            kind,
            session: self.session,
            your_session: self.remote.session,
            sequence: 0,
            heard: self.remote.number,
            flags: 0,
            observed: None,
        }
    }

    pub fn transmit(&self, to: SocketAddr, probe: &Probe, shared: &mut Shared) {
        let payload = self.seal(probe, shared);
        shared.outputs.push_back(Output::Transmit { to, payload });
    }

    /// A probe as a datagram.
    pub fn seal(&self, probe: &Probe, shared: &mut Shared) -> Vec<u8> {
        self.seal_padded(probe, probe::LEN, shared)
    }

    /// The same, of that many bytes.
    pub fn seal_padded(&self, probe: &Probe, length: usize, shared: &mut Shared) -> Vec<u8> {
        let direction = Direction { from: shared.tag, to: self.keys.tag, key: &self.keys.probe_out };
        probe.seal_padded(direction, shared.nonce(), length)
    }

    /// Opens a probe that claims to be of this member.
    pub fn open(&self, datagram: &[u8]) -> Option<Probe> {
        Probe::open(datagram, &self.keys.probe_in)
    }

    fn send_announcement(&mut self, shared: &mut Shared, now: Instant) {
        if self.telling.due.is_none_or(|due| due > now) {
            return;
        }
        if shared.number == 0 || self.telling.heard >= shared.number {
            self.telling.due = None;
            return;
        }
        let announcement = self.announcement(shared);
        let nonce = shared.nonce();
        let body = announcement.seal(&self.keys.signal_out, nonce);
        shared.outputs.push_back(Output::Signal { to: self.member, body });
        shared.count("signal_sent");
        self.telling.sent = Some(now);
        self.telling.pause = (self.telling.pause * 2).min(ANNOUNCE_RARELY);
        self.telling.due = Some(now + self.telling.pause);
    }

    fn announcement(&self, shared: &Shared) -> Announcement {
        Announcement {
            session: self.session,
            number: shared.number,
            your_session: self.remote.session,
            heard: self.remote.number,
            relays: shared.announced_relays(),
            wish: (self.choice.preferred.clone(), self.choice.standby.clone()),
            candidates: shared.candidates.clone(),
            nat: shared.nat.clone(),
        }
    }

    /// What both NATs let expect; this device's is the first.
    pub fn verdict(&self, shared: &Shared) -> Verdict {
        nat::verdict(&shared.nat, &self.remote.nat)
    }

    pub fn route(&self, way: &Active) -> Option<&Route> {
        match way {
            Active::Direct(to) => self.directs.iter().find(|route| route.to == *to),
            Active::Relay(name) => self.relays.get(name),
        }
    }

    pub fn route_mut(&mut self, way: &Active) -> Option<&mut Route> {
        match way {
            Active::Direct(to) => self.directs.iter_mut().find(|route| route.to == *to),
            Active::Relay(name) => self.relays.get_mut(name),
        }
    }

    fn active_route_mut(&mut self) -> Option<&mut Route> {
        self.route_mut(&self.active.clone()?)
    }

    /// What a way is used for.
    pub fn use_of(&self, way: &Active, shared: &Shared, now: Instant) -> Use {
        match way {
            _ if self.active.as_ref() == Some(way) => self.use_in_traffic(shared, now),
            Active::Relay(_) => Use::Standby,
            Active::Direct(_) if matches!(self.active, Some(Active::Direct(_))) => Use::Spare,
            Active::Direct(_) => Use::Candidate,
        }
    }

    /// Tells the caller when the path is another one than it was told.
    pub fn tell_path(&mut self, shared: &mut Shared) {
        let copy = self.copy_to(self.decided);
        let path = self.active.as_ref().and_then(|way| self.describe(way));
        let path = path.map(|path| Path { copy, ..path });
        if path != self.told {
            self.told.clone_from(&path);
            shared.outputs.push_back(Output::Path { member: self.member, path });
        }
    }
}
