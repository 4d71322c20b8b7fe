//! One way to a member, direct or through a relay, and what its probes told.

use super::candidate::CandidateKind;
use super::mtu::Search;
use super::quality::Quality;
use super::select::ENOUGH_SAMPLES;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time between probes of the active path while they are answered.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(1000);
/// A direct path without any proof of life for this long is left.
pub(super) const LAPSE: Duration = Duration::from_millis(2500);
/// Answers after which a first direct path is believed.
pub(super) const CONFIRMED: u32 = 3;

/// A path in use that does not answer is left only when a probe has waited this long, too.
const LAPSE_ASKED: Duration = Duration::from_millis(1500);
/// While data is sent, a path is asked when nothing has come for this long.
pub(super) const ASK: Duration = Duration::from_millis(120);
/// Data that came at least so many times as often was a steady stream, whose end is worth a doubt for so long.
const STEADY: u32 = 3;
const HUSH: Duration = Duration::from_millis(500);
/// And again while an answer is missing.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A path in use is doubted when a probe waits longer than its round trip, four times its jitter and this ...
const PATIENCE: Duration = Duration::from_millis(30);
/// ... but not before this, or this when the round trip is not known ...
const LEAST_PATIENCE: Duration = Duration::from_millis(60);
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(200);
/// ... and at the latest after this.
const MOST_PATIENCE: Duration = Duration::from_millis(600);
/// Data that comes in excuses a missing answer until so many are missing.
const EXCUSED: usize = 3;

/// Time between probes while an answer is missing.
const RETRY: Duration = Duration::from_millis(250);
/// The same of an address that might become a path.
const CANDIDATE_RETRY: Duration = Duration::from_millis(400);
/// Time between the probes that confirm a first answer.
const CONFIRM: Duration = Duration::from_millis(50);
/// A probe is lost after this long.
const LOST: Duration = Duration::from_secs(2);
/// Received data proves the way out only this long after the last answer.
const RX_TRUST: Duration = Duration::from_secs(5);
/// Without an answer for this long something may be wrong with a relay's binding.
const SUSPECT: Duration = Duration::from_secs(1);
/// A relay is dead when so many probes in a row got no answer in good time, and at least this time.
const DEAD_PROBES: usize = 3;
const GOOD_TIME: Duration = Duration::from_millis(200);
/// Or when it is asked, and has been silent for this long.
const DEAD_SILENCE: Duration = Duration::from_secs(5);
/// Probes that may wait for an answer at once; older ones are given up.
const MAX_OUTSTANDING: usize = 16;

/// What a route is used for: decides how often it is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Packets go this way.
    Active {
        /// Time between probes.
        heartbeat: Duration,
        /// Data is being sent right now.
        is_urgent: bool,
    },
    /// Might take over from a relay soon.
    Candidate,
    /// Direct, while another direct one is active.
    Spare,
    /// A relay kept warm.
    Standby,
}

/// A way to a member.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// The member's address, or the relay's.
    pub to: SocketAddr,
    /// Of a direct route.
    pub kind: CandidateKind,
    /// Of a relay: datagrams to it go over TLS.
    pub is_carried: bool,
    /// What its probes told.
    pub quality: Quality,
    /// How long packets may be that go this way whole.
    pub mtu: Search,
    /// Answers since it last was silent for [`LAPSE`].
    pub good: u32,
    /// When to probe next, apart from the member's schedule.
    pub next_ping: Option<Instant>,
    created: Instant,
    outstanding: VecDeque<(u64, Instant)>,
    last_pong: Option<Instant>,
    last_rx: Option<Instant>,
    /// When data of the member last came this way.
    pub data_in: Option<Instant>,
    /// When the member last said that data arrives this way.
    pub data_out: Option<Instant>,
    /// Not to be used before: its probes are answered, but data does not arrive.
    pub barred: Option<Instant>,
    /// Since when probes go unanswered.
    asked_since: Option<Instant>,
    /// Time between packets of data that come this way, of late.
    pace: Option<Duration>,
}

impl Route {
    pub fn new(to: SocketAddr, kind: CandidateKind, now: Instant) -> Self {
        Self {
            to,
            kind,
            is_carried: false,
            quality: Quality::default(),
            mtu: Search::default(),
            good: 0,
            next_ping: None,
            created: now,
            outstanding: VecDeque::new(),
            last_pong: None,
            last_rx: None,
            data_in: None,
            data_out: None,
            barred: None,
            asked_since: None,
            pace: None,
        }
    }

    /// A probe was sent.
    pub fn sent(&mut self, sequence: u64, used: Use, now: Instant) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
            self.lose();
        }
        self.outstanding.push_back((sequence, now));
        self.asked_since.get_or_insert(now);
        self.next_ping = self.interval_unanswered(used, now).map(|interval| now + interval);
    }

    /// An answer came. False when nothing was asked with this sequence: a replay.
    pub fn answered(&mut self, sequence: u64, used: Use, now: Instant) -> bool {
        let Some(at) = self.outstanding.iter().position(|(asked, _)| *asked == sequence) else {
            return false;
        };
        let Some((_, sent)) = self.outstanding.remove(at) else { return false };
        // silence between two probes that are both answered means nothing
        if self.is_lapsed(now) && self.asked_since.is_none_or(|since| since < sent) {
            // what was asked before the way was open tells nothing about its loss
            self.outstanding.retain(|(_, asked)| *asked > sent);
            self.good = 0;
        }
        self.quality.record(Some(now.saturating_duration_since(sent)));
        self.good += 1;
        self.last_pong = Some(now);
        self.asked_since = None;
        self.next_ping = self.interval_answered(used).map(|interval| (sent + interval).max(now));
        true
    }

    /// Whether a probe with this sequence waits for its answer; it then waits no longer.
    pub fn take_asked(&mut self, sequence: u64) -> bool {
        let at = self.outstanding.iter().position(|(asked, _)| *asked == sequence);
        at.and_then(|at| self.outstanding.remove(at)).is_some()
    }

    /// Whether it used to be answered, and a probe of a second ago is not.
    pub fn is_suspect(&self, now: Instant) -> bool {
        let oldest =
            self.outstanding.iter().find(|(_, sent)| self.last_pong.is_some_and(|pong| *sent >= pong));
        oldest.is_some_and(|(_, sent)| now.saturating_duration_since(*sent) >= SUSPECT)
    }

    /// Whether a probe without answer left within this time.
    pub fn was_asked_within(&self, time: Duration, now: Instant) -> bool {
        self.outstanding.back().is_some_and(|(_, sent)| now.saturating_duration_since(*sent) < time)
    }

    /// Whether a probe left so recently that another one makes no sense.
    pub fn was_asked_just_now(&self, now: Instant) -> bool {
        self.was_asked_within(CONFIRM, now)
    }

    /// Authenticated data or an authentic probe came this way.
    pub fn heard(&mut self, now: Instant) {
        self.last_rx = Some(now);
    }

    /// Data of the member came this way through the tunnel.
    pub fn carried(&mut self, now: Instant) {
        if let Some(last) = self.data_in.replace(now) {
            let pause = now.saturating_duration_since(last).min(HEARTBEAT);
            self.pace = Some(self.pace.map_or(HEARTBEAT, |pace| (pace * 7 + pause) / 8));
        }
        self.heard(now);
    }

    /// When a steady stream of data that comes this way counts as broken off, unless more comes: long before an answer
    /// could be missed. After a moment it is only over.
    pub fn hushed_at(&self, now: Instant) -> Option<Instant> {
        let is_steady = self.pace.is_some_and(|pace| pace * STEADY <= ASK);
        let last = self.data_in.filter(|last| is_steady && now.saturating_duration_since(*last) < HUSH)?;
        Some(last + ASK)
    }

    /// Probes since the last sign of life that should have been answered by now.
    pub fn waits(&self, now: Instant) -> usize {
        self.late_since(self.life(), now)
    }

    /// The same since the last answer, whatever came in meanwhile.
    pub fn unanswered(&self, now: Instant) -> usize {
        self.late_since(self.last_pong, now)
    }

    fn late_since(&self, life: Option<Instant>, now: Instant) -> usize {
        let time = GOOD_TIME.max(self.round_trip() * 2);
        let is_late = |sent: Instant| now.saturating_duration_since(sent) >= time;
        let counts = |sent: Instant| life.is_none_or(|life| sent >= life) && is_late(sent);
        self.outstanding.iter().filter(|(_, sent)| counts(*sent)).count()
    }

    /// When anything authentic last came this way.
    fn heard_at(&self) -> Option<Instant> {
        self.last_pong.max(self.last_rx)
    }

    /// How long nothing authentic has come this way.
    pub fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at().unwrap_or(self.created))
    }

    /// When the last answer came.
    pub fn answered_at(&self) -> Option<Instant> {
        self.last_pong
    }

    /// The median round trip; zero before any is known.
    pub fn round_trip(&self) -> Duration {
        Duration::from_secs_f64(self.quality.rtt_ms().unwrap_or_default() * 1e-3)
    }

    /// Whether an answer came after this moment.
    pub fn was_answered_since(&self, then: Instant) -> bool {
        self.last_pong.is_some_and(|pong| pong >= then)
    }

    /// When this way becomes doubtful, unless something comes before: a probe waits for longer than it should.
    pub fn doubtful_at(&self, now: Instant) -> Option<Instant> {
        let heard = self.heard_at();
        let waiting = |since: Option<Instant>| {
            self.outstanding.iter().find(move |(_, sent)| since.is_none_or(|since| *sent >= since))
        };
        let due = waiting(heard).map(|(_, sent)| *sent + self.patience());
        match self.unanswered(now) >= EXCUSED {
            true => waiting(self.last_pong).map(|(_, sent)| *sent + self.patience()),
            false => due,
        }
    }

    fn patience(&self) -> Duration {
        let (Some(rtt), jitter) = (self.quality.rtt_ms(), self.quality.jitter_ms().unwrap_or_default())
        else {
            return UNKNOWN_PATIENCE;
        };
        let time = Duration::from_secs_f64((rtt + 4.0 * jitter) * 1e-3) + PATIENCE;
        time.clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }

    /// Whether a relay has ceased to answer, or never has.
    pub fn is_dead(&self, now: Instant) -> bool {
        if !self.was_answered() {
            return self.silence(now) >= DEAD_SILENCE;
        }
        self.waits(now) >= DEAD_PROBES || self.is_suspect(now) && self.silence(now) >= DEAD_SILENCE
    }

    /// Gives up on probes that are out for too long.
    pub fn expire(&mut self, now: Instant) {
        while self.outstanding.front().is_some_and(|(_, sent)| now.saturating_duration_since(*sent) >= LOST) {
            self.outstanding.pop_front();
            self.lose();
        }
    }

    fn lose(&mut self) {
        // before a first answer there is no path whose loss could be told
        if self.last_pong.is_some() {
            self.quality.record(None);
        }
    }

    /// The last proof that packets arrive, on the way out above all.
    pub fn life(&self) -> Option<Instant> {
        let pong = self.last_pong?;
        Some(self.last_rx.map_or(pong, |rx| pong.max(rx.min(pong + RX_TRUST))))
    }

    /// Whether the last proof of life is older than [`LAPSE`].
    pub fn is_lapsed(&self, now: Instant) -> bool {
        self.life().is_none_or(|life| now.saturating_duration_since(life) >= LAPSE)
    }

    /// When a path in use counts as dead, unless it answers before: it may be silent as long as nobody asks.
    pub fn lapse_at(&self) -> Option<Instant> {
        Some((self.life()? + LAPSE).max(self.asked_since? + LAPSE_ASKED))
    }

    /// Whether a path in use is dead.
    pub fn is_lost(&self, now: Instant) -> bool {
        self.last_pong.is_none() || self.lapse_at().is_some_and(|due| due <= now)
    }

    /// How long a probe has been waiting for an answer.
    pub fn asked_for(&self, now: Instant) -> Duration {
        self.asked_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether packets may be sent this way.
    pub fn is_confirmed(&self, now: Instant) -> bool {
        self.good >= CONFIRMED && !self.is_lapsed(now) && self.barred.is_none_or(|barred| barred <= now)
    }

    /// How long it has been silent.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.life().unwrap_or(self.created))
    }

    /// Whether there are answers enough to compare it with others.
    pub fn is_measured(&self) -> bool {
        self.quality.samples() >= ENOUGH_SAMPLES
    }

    /// Whether an answer was ever seen.
    pub fn was_answered(&self) -> bool {
        self.last_pong.is_some()
    }

    /// The path died: believe nothing of before.
    pub fn reset(&mut self) {
        self.good = 0;
        self.next_ping = None;
        self.last_pong = None;
        self.last_rx = None;
        (self.data_in, self.data_out, self.pace) = (None, None, None);
        self.quality = Quality::default();
        self.mtu.renew();
        self.outstanding.clear();
        self.asked_since = None;
    }

    /// Time to the next probe if this one stays unanswered: dense at first, rare once nobody seems to be there.
    fn interval_unanswered(&self, used: Use, now: Instant) -> Option<Duration> {
        let twice_rtt = self.round_trip() * 2;
        let retry = RETRY.max(twice_rtt);
        let asked = self.asked_for(now);
        let silence = self.silence(now);
        match used {
            Use::Candidate => {
                (self.good > 0 && silence < LAPSE).then_some(CANDIDATE_RETRY.max(twice_rtt) / 4)
            }
            Use::Spare => None,
            Use::Active { is_urgent: true, .. } if asked < Duration::from_secs(1) => {
                Some(ASK_AGAIN.max(twice_rtt / 4))
            }
            // a relay that stands by is silent between its probes
            Use::Active { .. } | Use::Standby if asked < Duration::from_secs(2) => Some(retry),
            Use::Active { .. } | Use::Standby if asked < Duration::from_secs(9) => Some(HEARTBEAT),
            Use::Active { .. } | Use::Standby if asked < Duration::from_secs(60) => {
                Some(Duration::from_secs(5))
            }
            Use::Active { .. } | Use::Standby => Some(Duration::from_secs(15)),
        }
    }

    fn interval_answered(&self, used: Use) -> Option<Duration> {
        match used {
            Use::Active { heartbeat, .. } => Some(heartbeat),
            _ if self.good < 2 * CONFIRMED || !self.is_measured() => Some(CONFIRM),
            Use::Spare => None,
            Use::Candidate if self.good < 20 => Some(HEARTBEAT / 2),
            Use::Candidate => Some(HEARTBEAT * 5),
            Use::Standby => Some(HEARTBEAT * 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: Use = Use::Active { heartbeat: HEARTBEAT, is_urgent: false };

    fn route() -> (Route, Instant) {
        let now = Instant::now();
        (Route::new("203.0.113.7:4001".parse().unwrap(), CandidateKind::Mapped, now), now)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_answer_counts_once_and_only_if_asked() {
        let (mut route, now) = route();
        route.sent(1, ACTIVE, now);
        assert!(!route.answered(2, ACTIVE, now));
        assert!(route.answered(1, ACTIVE, now + ms(20)));
        assert!(!route.answered(1, ACTIVE, now + ms(30)));
        assert_eq!((route.good, route.quality.rtt_ms()), (1, Some(20.0)));
    }

    #[test]
    fn probes_from_before_the_way_was_open_are_no_loss() {
        let (mut route, now) = route();
        (0..5).for_each(|n| route.sent(n, Use::Candidate, now + ms(n * 50)));
        route.answered(3, Use::Candidate, now + ms(180));
        route.expire(now + ms(5000));
        assert_eq!(route.quality.loss(), Some(0.5), "the one that was asked after it counts");
    }

    #[test]
    fn received_data_keeps_a_path_alive_but_not_without_answers() {
        let (mut route, now) = route();
        route.sent(1, ACTIVE, now);
        route.answered(1, ACTIVE, now);
        route.heard(now + ms(4000));
        assert!(!route.is_lapsed(now + ms(6000)));
        route.heard(now + ms(9000));
        assert!(route.is_lapsed(now + ms(9000)), "data in does not prove the way out for ever");
    }

    #[test]
    fn silence_makes_probes_rare_but_never_ends_them() {
        let (mut route, now) = route();
        let mut at = now;
        let mut sent = 0;
        while at < now + Duration::from_secs(600) {
            route.expire(at);
            route.sent(sent, ACTIVE, at);
            sent += 1;
            at = route.next_ping.unwrap();
        }
        assert!((50..80).contains(&sent), "{sent}");
        assert!(route.outstanding.len() <= MAX_OUTSTANDING);
    }
}
