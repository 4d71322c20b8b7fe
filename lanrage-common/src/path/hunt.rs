//! Looks for a direct path through a router that gives every destination another port, where the verdict says that it
//! can be found.
//!
//! The end behind that router opens sockets and sends from each of them to the member: every one makes a mapping that
//! lets the member in. The member, whose own port is known, sends to the ports that these mappings may have: a few
//! that follow from the router's step, or any if the router picks them at random (256 of them open, a thousand probes
//! find one with 98 in 100). When both routers change ports in steps, both open sockets, and each aims at the other's
//! next port. The socket that a probe comes through is kept as the pair's own.
//!
//! One hunt at a time; it takes [`TRY`] at most, sends at most [`RATE`] packets a second, only to an address at which
//! the member says that relays see it, and both ends must want it. They agree by pings through their relay.

mod chase;
mod plan;
mod round;

use super::Output;
use super::candidate::CandidateKind;
use super::pair::{Active, Pair};
use super::probe::{HUNT, Kind, Probe};
use super::route::Route;
use super::shared::Shared;
use crate::address::is_private;
use crate::bucket::Rate;
use crate::identity::WgKey;
use crate::nat::{Fix, How, sure_fix};
use chase::{Chase, Shot};
use plan::{Plan, Role};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Packets a second of all hunts of a device, those of a moment included.
const RATE: u64 = 100;
const BURST: u64 = 12;
/// Bounds every hunt of a device.
pub(super) const BUDGET: Rate = Rate::per_second(RATE - BURST, BURST);
/// How long one hunt lasts.
const TRY: Duration = Duration::from_secs(20);
/// Time from the beginning of a hunt to the next with the same member; doubles with every failure, up to [`RARELY`].
const AGAIN: Duration = Duration::from_secs(600);
const RARELY: Duration = Duration::from_secs(4 * 3600);
/// Probes that ought to meet have so long before the tests of the routers are doubted; most need half a second.
const DOUBT: Duration = Duration::from_secs(4);
/// The member begins by its own clock, and its call takes time.
const SLACK: Duration = Duration::from_secs(30);
/// Until a member that did not agree is asked again: it may not know its router yet. Doubles, up to [`AGAIN`].
const REFUSED: Duration = Duration::from_secs(3);
/// Calls without an answer until then, and the time between them.
const CALLS: u32 = 4;
const CALL_AGAIN: Duration = Duration::from_millis(300);

/// The rest of it, once both ends know where to aim.
const SHOTS: Duration = Duration::from_millis(600);
/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(40);
/// A kept socket is given back when its path has been silent for so long.
const SILENT: Duration = Duration::from_secs(60);

/// Whose turn it is: a device hunts with one member at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    member: WgKey,
    until: Instant,
}

/// A pair's hunts.
#[derive(Debug, Default)]
pub(super) struct Hunt {
    /// The member was asked so often to join in; since when.
    calls: u32,
    refusals: u32,
    chase: Option<Chase>,
    due: Option<Instant>,
    /// The pair is relayed since then.
    relayed_since: Option<Instant>,
    /// Not before.
    rests: Option<Instant>,
    began: Option<Instant>,
    failed: Option<Instant>,
    failures: u32,
    /// The member's address that a kept socket sends to.
    pub kept: Option<SocketAddr>,
}

impl Pair {
    /// Looks whether it is time for a hunt, or for its end.
    pub fn note_hunt(&mut self, shared: &mut Shared, now: Instant) {
        self.release_if_silent(shared, now);
        if self.hunt.chase.is_some() {
            return;
        }
        self.hunt.relayed_since = self.is_relayed().then(|| self.hunt.relayed_since.unwrap_or(now));
        let plan = self.plan(shared).filter(|plan| plan.leads);
        let since = self.hunt.relayed_since.zip(plan);
        let earliest = since.map(|(since, plan)| if plan.is_guess { since + DOUBT } else { now });
        self.hunt.due = earliest.map(|earliest| {
            self.hunt.due.unwrap_or_else(|| self.hunt.rests.unwrap_or(now).max(now).max(earliest))
        });
    }

    /// When [`Pair::run_hunt`] is due.
    pub fn hunt_due(&self) -> Option<Instant> {
        self.hunt.due
    }

    /// Asks, shoots, and ends the hunt.
    pub fn run_hunt(&mut self, shared: &mut Shared, now: Instant) {
        if self.hunt.due.is_none_or(|due| due > now) {
            return;
        }
        let Some(chase) = &self.hunt.chase else { return self.ask_for_hunt(shared, now) };
        if !self.is_relayed() || self.plan(shared) != Some(chase.plan) {
            self.hunt.failures = 0;
            return self.end_hunt(shared, now);
        }
        if now >= chase.until {
            shared.count("hunt_failed");
            self.hunt.failed = Some(now);
            self.hunt.failures = (self.hunt.failures + 1).min(8);
            return self.end_hunt(shared, now);
        }
        self.next_round(shared, now);
        self.shoot(shared, now);
        self.tell_aim(shared, now);
        self.hunt.due = Some(now + TICK);
    }

    fn is_relayed(&self) -> bool {
        matches!(&self.active, Some(way @ Active::Relay(_)) if self.route(way).is_some_and(|route| !route.is_carried))
    }

    fn plan(&self, shared: &Shared) -> Option<Plan> {
        Plan::of(&shared.nat, &self.remote.nat, shared.config.me < self.member)
    }

    /// The one address that relays see the member at.
    fn target(&self) -> Option<SocketAddr> {
        self.remote.mapped.filter(|mapped| mapped.is_ipv4() && !is_private(mapped.ip()))
    }

    fn ask_for_hunt(&mut self, shared: &mut Shared, now: Instant) {
        if shared.is_hunting_other(self.member, now) {
            self.hunt.due = Some(now + REFUSED);
            return;
        }
        if self.hunt.calls == CALLS {
            let pause = (REFUSED * 2u32.pow(self.hunt.refusals)).min(AGAIN);
            self.hunt.refusals = (self.hunt.refusals + 1).min(10);
            (self.hunt.calls, self.hunt.due) = (0, Some(now + pause));
            return;
        }
        self.hunt.calls += 1;
        self.hunt.due = Some(now + CALL_AGAIN);
        self.call(None, shared, now);
    }

    /// A ping through the relay in use that speaks of the hunt.
    fn call(&mut self, aim: Option<SocketAddr>, shared: &mut Shared, now: Instant) {
        let Some(way @ Active::Relay(_)) = self.active.clone() else { return };
        self.sequence += 1;
        let (sequence, used) = (self.sequence, self.use_of(&way, shared, now));
        let flags = self.ping_flags(&way) | HUNT;
        let Some(route) = self.route_mut(&way) else { return };
        route.sent(sequence, used, now);
        let to = route.to;
        let ping = Probe { sequence, flags, observed: aim, ..self.probe(Kind::Ping) };
        shared.count("ping_sent");
        self.transmit(to, &ping, shared);
    }

    /// The member speaks of a hunt: joins in if it makes sense, and takes its aim.
    pub fn handle_call(&mut self, aim: Option<SocketAddr>, shared: &mut Shared, now: Instant) {
        if self.hunt.chase.is_none() && !self.join_hunt(shared, now) {
            return shared.count("hunt_refused");
        }
        let Some(aim) = aim else { return };
        if self.target().is_none_or(|target| target.ip() != aim.ip()) || !shared.is_probeable(aim) {
            return shared.count("hunt_foreign");
        }
        let Some(chase) = &mut self.hunt.chase else { return };
        let follows = chase.plan.role == Role::Both && !chase.plan.leads;
        if [chase.aim, chase.old_aim].contains(&Some(aim)) {
            return;
        }
        chase.aim = Some(aim);
        chase.shots.retain(|shot| matches!(shot, Shot::Ask(_)));
        chase.repeat = now;
        match chase.plan.role {
            // the beginning of the other end's round
            Role::Both if follows => chase.round_ends = now,
            Role::Both => chase.round_ends = chase.round_ends.min(now + SHOTS),
            Role::Opener | Role::Shooter => {}
        }
        self.hunt.due = Some(now);
    }

    /// Whether this end takes part in a hunt.
    pub fn is_hunting(&self) -> bool {
        self.hunt.chase.is_some()
    }

    /// The member takes part: it begins.
    pub fn handle_agreed(&mut self, shared: &mut Shared, now: Instant) {
        let is_asking = self.hunt.calls > 0 && self.hunt.chase.is_none();
        if let Some(plan) = self.plan(shared).filter(|plan| is_asking && plan.leads && self.is_relayed()) {
            self.begin_hunt(plan, shared, now);
        }
    }

    fn join_hunt(&mut self, shared: &mut Shared, now: Instant) -> bool {
        let is_rested = self.hunt.rests.is_none_or(|rests| rests <= now + SLACK);
        let plan = self.plan(shared).filter(|plan| !plan.leads && is_rested && self.is_relayed());
        let Some(plan) = plan.filter(|_| !shared.is_hunting_other(self.member, now)) else { return false };
        self.begin_hunt(plan, shared, now);
        true
    }

    fn begin_hunt(&mut self, plan: Plan, shared: &mut Shared, now: Instant) {
        shared.count("hunt_begun");
        shared.hunting = Some(Turn { member: self.member, until: now + TRY });
        (self.hunt.calls, self.hunt.refusals) = (0, 0);
        (self.hunt.began, self.hunt.failed) = (Some(now), None);
        self.hunt.chase = Some(Chase::new(plan, shared, self.sequence, now));
        self.hunt.due = Some(now);
    }

    fn end_hunt(&mut self, shared: &mut Shared, now: Instant) {
        let Some(chase) = self.hunt.chase.take() else { return };
        if !chase.sockets.is_empty() {
            shared.outputs.push_back(Output::CloseSpares { member: self.member });
        }
        shared.hunting = None;
        let pause = (AGAIN * 2u32.pow(self.hunt.failures.saturating_sub(1))).min(RARELY);
        let rests = self.hunt.began.unwrap_or(now) + pause;
        (self.hunt.rests, self.hunt.due) = (Some(rests), None);
        self.decide(shared, now);
    }

    /// This device is elsewhere: what failed there may work here, as soon as the member may be hunted for again.
    pub fn handle_moved(&mut self) {
        self.hunt.failures = 0;
        self.hunt.rests = self.hunt.began.map(|began| began + AGAIN);
        if self.hunt.chase.is_none() {
            self.hunt.due = None;
        }
    }

    /// The member is no longer there.
    pub fn forget(mut self, shared: &mut Shared) {
        self.release(shared);
        if self.hunt.chase.is_some() {
            shared.outputs.push_back(Output::CloseSpares { member: self.member });
            shared.hunting = None;
        }
    }

    fn release_if_silent(&mut self, shared: &mut Shared, now: Instant) {
        let Some(far) = self.hunt.kept else { return };
        let is_used = self.active == Some(Active::Direct(far));
        let route = self.directs.iter().find(|route| route.to == far);
        if !is_used && route.is_none_or(|route| route.silence(now) >= SILENT) {
            self.release(shared);
            // from the tunnel's socket again
            if let Some(route) = self.directs.iter_mut().find(|route| route.to == far) {
                *route = Route::new(far, CandidateKind::Mapped, now);
            }
        }
    }

    /// Gives the kept socket back.
    pub fn release(&mut self, shared: &mut Shared) {
        if let Some(far) = self.hunt.kept.take() {
            shared.outputs.push_back(Output::ReleaseSpare { far });
        }
    }

    /// What would make a direct path sure, when a hunt has failed.
    pub fn fix_after_hunt(&self, shared: &Shared) -> Option<Fix> {
        let is_in_vain = self.hunt.failed.is_some() && self.is_relayed() && self.plan(shared).is_some();
        is_in_vain.then(|| sure_fix(&shared.nat, &self.remote.nat))
    }

    /// How the hunt stands, as part of a sentence; none when there was none.
    pub fn explain_hunt(&self, now: Instant) -> Option<String> {
        if let Some(chase) = &self.hunt.chase {
            let left = chase.until.saturating_duration_since(now).as_secs();
            let what = match chase.plan.how {
                _ if chase.plan.is_guess => {
                    "as they do not, perhaps one router gives every address another port; trying those that should come \
                     next"
                }
                How::Birthday => "trying its random ports with many probes",
                _ => "trying the ports that should come next",
            };
            return Some(format!("{what}, for {left} s more at most"));
        }
        let failed = self.hunt.failed.filter(|_| self.hunt.rests.is_some())?;
        let ago = now.saturating_duration_since(failed).as_secs() / 60;
        let wait = self.hunt.rests?.saturating_duration_since(now).as_secs().div_ceil(60);
        Some(format!("the search for such a port failed {ago} min ago and is repeated in {wait} min"))
    }
}

impl Shared {
    fn is_hunting_other(&self, member: WgKey, now: Instant) -> bool {
        self.hunting.is_some_and(|turn| turn.member != member && turn.until > now)
    }

    /// A relay that tells this device's mappings.
    fn stun_server(&self) -> Option<SocketAddr> {
        let bound = self.bindings.values().filter(|binding| binding.mapped.is_some());
        bound.map(|binding| binding.relay).find(SocketAddr::is_ipv4)
    }
}
