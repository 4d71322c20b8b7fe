//! What the flow of data means for a pair: how closely its path is watched, and when packets leave twice.
//!
//! While data is sent and nothing comes back, the path is asked after a moment; when the answer is late, or a steady
//! stream from the other end has broken off, every packet also leaves by the way that stands by, until one of both has
//! proven itself. WireGuard drops the second copy.

use super::pair::{Active, Pair};
use super::route::{ASK, HEARTBEAT, LAPSE, Use};
use super::shared::Shared;
use super::{Output, probe};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A game is on as long as its last packet is not older.
const PLAYING: Duration = Duration::from_secs(10);
/// After this long without data a path is only kept open.
const RESTING: Duration = Duration::from_secs(60);
/// Time between probes of a path that has carried no data for a moment.
const HEARTBEAT_RESTING: Duration = Duration::from_secs(3);
/// Data is being sent as long as the last packet is not older.
const SENDING: Duration = Duration::from_secs(1);
/// The member's word that it hears nothing holds this long.
const DEAF: Duration = Duration::from_secs(1);
/// Packets leave twice for so long at most.
const COPIES: Duration = Duration::from_secs(3);
/// The member says in its answers whether data came this way so recently.
const INNER: Duration = Duration::from_secs(3);
/// After so many packets, and [`INNER`], without the member's word that data arrives, the path is dead inside.
const UNCONFIRMED: u32 = 20;
/// Such a path is not tried for this long.
const BARRED: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Traffic {
    /// The last data of either direction; at first the pair's beginning.
    last: Instant,
    sent: Option<Instant>,
    /// Since when the path in use is in doubt.
    pub doubt: Option<Instant>,
    /// When the member last said that it hears nothing on the path in use.
    deaf: Option<Instant>,
    /// Packets by the path in use since the member last said that some arrived.
    unconfirmed: u32,
    /// The tunnel has a session, as far as is known: so data can confirm a path.
    has_session: bool,
}

impl Traffic {
    pub fn new(now: Instant) -> Self {
        Self { last: now, sent: None, doubt: None, deaf: None, unconfirmed: 0, has_session: true }
    }

    fn is_sending(&self, within: Duration, now: Instant) -> bool {
        self.sent.is_some_and(|sent| now.saturating_duration_since(sent) < within)
    }
}

impl Pair {
    /// What the path in use is probed for.
    pub fn use_in_traffic(&self, shared: &Shared, now: Instant) -> Use {
        let heartbeat = match now.saturating_duration_since(self.traffic.last) {
            idle if idle < PLAYING || shared.is_playing => HEARTBEAT,
            _ if self.is_idle(now) => shared.keepalive(),
            _ => HEARTBEAT_RESTING,
        };
        Use::Active { heartbeat, is_urgent: self.traffic.is_sending(SENDING / 2, now) }
    }

    /// Asks the path in use within a heartbeat, however long it was to rest.
    pub fn look_soon(&mut self, now: Instant) {
        let Some(way) = self.active.clone() else { return };
        if let Some(route) = self.route_mut(&way) {
            route.next_ping = route.next_ping.map(|next| next.min(now + HEARTBEAT));
        }
    }

    /// Whether nobody has played for long.
    pub fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.traffic.last) >= RESTING
    }

    /// Data leaves for the member. True when something has to be done first.
    pub fn handle_tunnel_tx(&mut self, shared: &mut Shared, now: Instant) -> bool {
        self.traffic.last = now;
        self.traffic.sent = Some(now);
        self.traffic.unconfirmed = self.traffic.unconfirmed.saturating_add(1);
        let Some(way) = self.active.clone() else { return false };
        let Some(route) = self.route(&way) else { return false };
        let (quiet, asked) = (route.quiet(now), route.asked_for(now));
        if quiet < ASK || (asked > Duration::ZERO || route.was_asked_just_now(now)) && quiet < LAPSE {
            return false;
        }
        if asked.is_zero() && !route.was_asked_just_now(now) {
            self.ping(&way, shared, now);
        } else if self.traffic.doubt.is_some() {
            return false;
        }
        self.decide(shared, now);
        true
    }

    /// Data came from the member.
    pub fn note_data(&mut self, now: Instant) {
        self.traffic.last = now;
    }

    /// The tunnel has a session.
    pub fn note_session(&mut self) {
        self.traffic.has_session = true;
    }

    /// The tunnel has no session by which data could confirm a path.
    pub fn handle_no_session(&mut self, shared: &mut Shared, now: Instant) {
        self.traffic.has_session = false;
        self.decide(shared, now);
    }

    /// The member says that it hears nothing this way.
    pub fn note_deaf(&mut self, way: &Active, shared: &mut Shared, now: Instant) {
        if self.active.as_ref() == Some(way) {
            self.traffic.deaf = Some(now);
            self.decide(shared, now);
        }
    }

    /// Looks whether the path in use answers as it should.
    pub fn note_doubt(&mut self, now: Instant) {
        let Some(route) = self.active.as_ref().and_then(|way| self.route(way)) else {
            self.traffic.doubt = None;
            return;
        };
        let is_late = route.doubtful_at(now).is_some_and(|due| due <= now);
        let is_deaf = self.traffic.deaf.is_some_and(|at| now.saturating_duration_since(at) < DEAF);
        let is_stale = route.quiet(now) >= LAPSE;
        let is_hushed = route.hushed_at(now).is_some_and(|due| due <= now) && route.quiet(now) >= ASK;
        let has_reason = is_late || is_deaf || is_stale || is_hushed;
        let is_doubtful = self.traffic.is_sending(SENDING, now) && has_reason;
        let begins = is_doubtful && self.traffic.doubt.is_none();
        self.traffic.doubt = is_doubtful.then(|| self.traffic.doubt.unwrap_or(now));
        if begins {
            // the member shall know at once; and a way out is taken only once it has answered
            let way_out = self.choice.carrier.clone().map(Active::Relay);
            for way in self.active.clone().into_iter().chain(way_out) {
                self.route_mut(&way).into_iter().for_each(|route| route.next_ping = Some(now));
            }
        }
    }

    /// When [`Pair::note_doubt`] may find something.
    pub fn doubt_due(&self) -> Option<Instant> {
        let due = match self.traffic.doubt {
            Some(since) => since + COPIES,
            None => {
                let route = self.active.as_ref().and_then(|way| self.route(way))?;
                self.traffic.sent?;
                let late = route.doubtful_at(self.decided).filter(|due| *due > self.decided);
                late.into_iter().chain(route.hushed_at(self.decided)).min()?
            }
        };
        Some(due).filter(|due| *due > self.decided)
    }

    /// Where packets leave for a second time.
    pub fn copy_to(&self, now: Instant) -> Option<SocketAddr> {
        let since = self.traffic.doubt?;
        if now.saturating_duration_since(since) >= COPIES {
            return None;
        }
        let direct = || self.best_direct(now);
        let other = match self.active.as_ref()? {
            Active::Direct(_) => {
                self.choice.carrier.as_ref().and_then(|name| self.relays.get(name)).or_else(direct)
            }
            Active::Relay(_) => self.spare_relay().and_then(|name| self.relays.get(name)).or_else(direct),
        };
        let active = self.active.as_ref().and_then(|way| self.route(way))?.to;
        other.map(|route| route.to).filter(|to| *to != active)
    }

    /// The flags of a ping this way.
    pub fn ping_flags(&self, way: &Active) -> u8 {
        let is_doubted = self.traffic.doubt.is_some() && self.active.as_ref() == Some(way);
        if is_doubted { probe::DEAF } else { 0 }
    }

    /// The flags of an answer that goes to this address.
    pub fn pong_flags(&self, to: SocketAddr, now: Instant) -> u8 {
        let mut routes = self.directs.iter().chain(self.relays.values());
        let data = routes.find(|route| route.to == to).and_then(|route| route.data_in);
        let is_recent = data.is_some_and(|at| now.saturating_duration_since(at) < INNER);
        if is_recent { probe::INNER } else { 0 }
    }

    /// An answer came this way; `is_inner` says whether data arrives there, too.
    pub fn note_inner(&mut self, way: &Active, is_inner: bool, shared: &mut Shared, now: Instant) {
        let is_active = self.active.as_ref() == Some(way);
        if is_inner {
            self.route_mut(way).into_iter().for_each(|route| route.data_out = Some(now));
            if is_active {
                self.traffic.unconfirmed = 0;
            }
            return;
        }
        let Active::Direct(to) = way else { return };
        if !is_active {
            let is_barred =
                self.route(way).is_some_and(|route| route.barred.is_some_and(|until| until > now));
            if self.needs_inner() && !is_barred {
                // the next answer has to come while the member remembers
                let soon = now + HEARTBEAT;
                if let Some(route) = self.route_mut(way) {
                    route.next_ping = Some(route.next_ping.map_or(soon, |next| next.min(soon)));
                }
                shared.count("confirm_sent");
                shared.outputs.push_back(Output::Confirm { member: self.member, to: *to });
            }
            return;
        }
        let confirmed = self.route(way).and_then(|route| route.data_out).max(Some(self.since));
        let is_overdue = confirmed.is_some_and(|at| now.saturating_duration_since(at) >= INNER);
        let is_dead = is_overdue && self.traffic.unconfirmed >= UNCONFIRMED && self.traffic.has_session;
        if is_dead && let Some(route) = self.route_mut(way) {
            shared.count("path_without_data");
            route.reset();
            route.barred = Some(now + BARRED);
            self.lapsed = Some((*to, now));
        }
    }

    /// Whether a direct path must have carried data before packets move to it: there is a relay to lose.
    pub fn needs_inner(&self) -> bool {
        matches!(self.active, Some(Active::Relay(_))) && self.traffic.has_session
    }

    /// The path in use has changed.
    pub fn note_change(&mut self) {
        self.traffic.unconfirmed = 0;
        (self.traffic.doubt, self.traffic.deaf) = (None, None);
    }
}
