//! How long a packet may be that goes one way whole: padded probes that no router may cut (RFC 8899, without its names).
//!
//! The longest is tried first, for most ways carry it. Where it does not arrive, packets are held at a length that nearly
//! every way carries, and the search halves what lies between. What was found is asked again while somebody plays, so that
//! a way that has become narrower is noticed, and now and then the longest is.

use std::time::{Duration, Instant};

/// What WireGuard adds to a packet before it is a UDP payload: header and tag.
const OVERHEAD: u16 = 32;
/// Nearly every way carries this; what is used while nothing better is known (RFC 8899 section 5.1.2).
pub const SAFE: u16 = 1200;
/// What every IPv4 host takes in one piece or several (RFC 1122 section 3.3.2): no way is worth less.
const LEAST: u16 = 576;
/// The search ends when so few bytes are open.
const STEP: u16 = 8;
/// A length is too long when so many probes of it got no answer while short ones did.
const TRIES: u8 = 3;
/// Between two probes of a search.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an answer is waited for, beside twice the round trip.
const WAIT: Duration = Duration::from_millis(250);
/// A probe that says nothing, because nothing at all is answered, is repeated after this.
const SILENCE: Duration = Duration::from_secs(1);
/// What was found is asked again after this ...
const VERIFY: Duration = Duration::from_secs(60);
/// ... and what was refused after this (RFC 8899 section 5.1.1: PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);

/// What is known of one way. Lengths are those of packets inside the tunnel, bytes.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// The longest that has arrived.
    carried: Option<u16>,
    /// The shortest that has not.
    refused: Option<u16>,
    /// What was known before the search began anew.
    before: Option<u16>,
    asked: Option<Asked>,
    misses: u8,
    next: Option<Instant>,
    raise: Option<Instant>,
    is_found: bool,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    sequence: u64,
    length: u16,
    sent: Instant,
}

impl Search {
    /// The longest packet that should be sent; none before anything is known.
    pub fn longest(&self) -> Option<u16> {
        let guess = self.refused.map(|refused| if refused > SAFE { SAFE } else { LEAST });
        self.carried.or(self.before).or(guess)
    }

    /// When there is something to do.
    pub fn due(&self, round_trip: Duration) -> Option<Instant> {
        match self.asked {
            Some(asked) => Some(asked.sent + wait(round_trip)),
            None => self.next,
        }
    }

    /// The way is in use: looks whether there is something to ask.
    pub fn begin(&mut self, now: Instant) {
        if self.asked.is_none() {
            self.next.get_or_insert(now);
        }
    }

    /// Something about the networks has changed: all is asked anew once the search begins again.
    pub fn renew(&mut self) {
        *self = Self { before: self.longest(), ..Self::default() };
    }

    /// There is no leave to send now.
    pub fn postpone(&mut self, now: Instant) {
        self.next = Some(now + WAIT);
    }

    /// Whether nothing is left to do but to verify what was found.
    pub fn is_found(&self) -> bool {
        self.asked.is_none() && self.is_found
    }

    fn is_settled(&self, limit: u16) -> bool {
        let Some(carried) = self.carried else { return false };
        carried >= limit || self.refused.is_some_and(|refused| refused.saturating_sub(carried) <= STEP)
    }

    /// The length of a packet whose probe should leave now. `limit` is the longest that anybody would send, `answered`
    /// when the way last answered a short probe.
    pub fn poll(
        &mut self,
        limit: u16,
        answered: Option<Instant>,
        round_trip: Duration,
        now: Instant,
    ) -> Option<u16> {
        if self.due(round_trip).is_none_or(|due| due > now) {
            return None;
        }
        if let Some(asked) = self.asked.take() {
            let is_alive = answered.is_some_and(|answered| answered >= asked.sent);
            if !is_alive {
                self.next = Some(now + SILENCE);
                return None;
            }
            self.miss(asked.length, now);
            if self.refused.is_some_and(|refused| refused <= LEAST) {
                // nothing long arrives at all: once in a while will do
                (self.refused, self.next) = (Some(LEAST + 1), Some(now + VERIFY));
                return None;
            }
        }
        if self.raise.is_some_and(|raise| raise <= now) {
            (self.refused, self.raise) = (None, None);
        }
        Some(self.candidate(limit))
    }

    /// A probe has left for a packet of that length.
    pub fn sent(&mut self, sequence: u64, length: u16, now: Instant) {
        self.asked = Some(Asked { sequence, length, sent: now });
        self.next = None;
    }

    /// An answer came; false when it is to no probe of this search.
    pub fn answered(&mut self, sequence: u64, limit: u16, now: Instant) -> bool {
        let Some(asked) = self.asked.filter(|asked| asked.sequence == sequence) else { return false };
        self.asked = None;
        self.misses = 0;
        self.carried = self.carried.max(Some(asked.length));
        let is_over = self.candidate(limit) == asked.length || self.is_settled(limit);
        self.is_found = is_over;
        self.next = Some(now + if is_over { VERIFY } else { PAUSE });
        if is_over && self.refused.is_some() {
            self.raise.get_or_insert(now + RAISE);
        }
        true
    }

    fn miss(&mut self, length: u16, now: Instant) {
        self.misses += 1;
        if self.misses < TRIES {
            return;
        }
        (self.misses, self.is_found) = (0, false);
        self.refused = Some(self.refused.map_or(length, |refused| refused.min(length)));
        // it used to arrive: nothing of before counts
        self.carried = self.carried.filter(|carried| *carried < length);
        self.before = self.before.filter(|before| *before < length);
        self.raise = Some(now + RAISE);
    }

    /// What to ask next.
    fn candidate(&self, limit: u16) -> u16 {
        let least = LEAST.min(limit);
        match (self.carried, self.refused) {
            (None, None) => limit,
            (Some(_), None) => limit,
            (Some(carried), Some(_)) if self.is_settled(limit) => carried,
            (Some(carried), Some(refused)) => carried + (refused - carried) / 2,
            (None, Some(refused)) if refused > SAFE => SAFE,
            (None, Some(refused)) => (least + (refused.max(least) - least) / 2).max(least),
        }
    }
}

/// Bytes of UDP payload that carry such a packet.
pub fn payload(length: u16) -> usize {
    usize::from(length + OVERHEAD)
}

fn wait(round_trip: Duration) -> Duration {
    WAIT + round_trip * 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u16 = 1420;
    const RTT: Duration = Duration::from_millis(40);

    /// A way, and a search that is asked again and again.
    struct Way {
        now: Instant,
        carries: u16,
        search: Search,
        probes: u32,
    }

    impl Way {
        fn new(carries: u16) -> Self {
            let mut way = Self { now: Instant::now(), carries, search: Search::default(), probes: 0 };
            way.search.begin(way.now);
            way
        }

        fn run(&mut self, time: Duration, is_alive: bool) {
            let end = self.now + time;
            while let Some(due) = self.search.due(RTT).filter(|due| *due <= end) {
                self.now = self.now.max(due);
                let answered = is_alive.then_some(self.now);
                let Some(length) = self.search.poll(LIMIT, answered, RTT, self.now) else { continue };
                self.probes += 1;
                self.search.sent(self.probes.into(), length, self.now);
                if is_alive && length <= self.carries {
                    self.now += RTT;
                    assert!(self.search.answered(self.probes.into(), LIMIT, self.now));
                }
            }
            self.now = end;
        }
    }

    #[test]
    fn one_probe_is_enough_for_most_ways() {
        let mut way = Way::new(1500);
        assert_eq!(way.search.longest(), None);
        way.run(Duration::from_secs(10), true);
        assert_eq!((way.search.longest(), way.probes), (Some(LIMIT), 1));
    }

    #[test]
    fn a_narrow_way_is_safe_within_a_second_and_known_soon() {
        let mut way = Way::new(1220);
        way.run(Duration::from_millis(1100), true);
        assert!(way.search.longest().is_some_and(|length| length <= 1220), "{:?}", way.search);
        way.run(Duration::from_secs(15), true);
        let found = way.search.longest().unwrap();
        assert!((1220 - STEP..=1220).contains(&found), "{found}");
        let before = way.probes;
        way.run(Duration::from_secs(300), true);
        assert!(way.probes - before <= 6, "then it is only verified");
    }

    #[test]
    fn a_way_that_becomes_narrower_or_wider_is_noticed() {
        let mut way = Way::new(1500);
        way.run(Duration::from_secs(10), true);
        way.carries = 1300;
        way.run(VERIFY + Duration::from_secs(15), true);
        assert!(way.search.longest().is_some_and(|length| (1292..=1300).contains(&length)));
        way.carries = 1500;
        way.run(RAISE + VERIFY + Duration::from_secs(15), true);
        assert_eq!(way.search.longest(), Some(LIMIT));
    }

    #[test]
    fn silence_says_nothing_of_lengths() {
        let mut way = Way::new(1500);
        way.run(Duration::from_secs(60), false);
        assert_eq!(way.search.longest(), None);
        way.run(Duration::from_secs(5), true);
        assert_eq!(way.search.longest(), Some(LIMIT));
    }

    #[test]
    fn after_a_change_the_old_length_is_kept_until_a_new_one_is_known() {
        let mut way = Way::new(1300);
        way.run(Duration::from_secs(20), true);
        let before = way.search.longest();
        way.search.renew();
        assert_eq!(way.search.longest(), before);
        way.search.begin(way.now);
        way.carries = 1500;
        way.run(Duration::from_secs(5), true);
        assert_eq!(way.search.longest(), Some(LIMIT));
    }

    proptest! {
        #[test]
        fn what_is_found_always_arrives(carries in LEAST..1500) {
            let mut way = Way::new(carries);
            way.run(Duration::from_secs(60), true);
            let found = way.search.longest().unwrap();
            prop_assert!(found <= carries.min(LIMIT), "{found} of {carries}");
            prop_assert!(found + STEP >= carries.min(LIMIT), "{found} of {carries}");
        }
    }
}
