//! How much the lane carries: a rate per source and port, no copy twice, and nothing that goes round.

use super::maps::{ContentKey, ContentTimes, MAX_CONTENTS, MAX_SEARCHES, PacketKey};
use super::rules::SEARCH_RATE;
use crate::bucket::{Bucket, Rate};
use crate::wire::Address;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// [`super::RATE`].
const RATE: Rate = Rate::per_second(200, 200);
/// Ports per source that are told apart; more is a scan, not a game.
const MAX_PORTS: usize = 512;
/// An idle port is forgotten after this long: its bucket is full again.
const IDLE: Duration = Duration::from_secs(1);

/// Token buckets per (source, destination port).
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: BTreeMap<(Ipv4Addr, u16), (Bucket, Instant)>,
}

impl Rates {
    /// Whether one more packet may pass.
    pub fn admit(&mut self, source: Ipv4Addr, port: u16, now: Instant) -> bool {
        let key = (source, port);
        if !self.buckets.contains_key(&key) && !self.make_room(source, now) {
            return false;
        }
        let (bucket, used) = self.buckets.entry(key).or_insert_with(|| (Bucket::new(RATE), now));
        *used = now;
        bucket.take(1, now)
    }

    fn make_room(&mut self, source: Ipv4Addr, now: Instant) -> bool {
        let of_source = (source, 0)..=(source, u16::MAX);
        if self.buckets.range(of_source.clone()).count() < MAX_PORTS {
            return true;
        }
        self.buckets.retain(|_, (_, used)| now.saturating_duration_since(*used) < IDLE);
        self.buckets.range(of_source).count() < MAX_PORTS
    }
}

/// Packets to groups that go to everybody, whoever has joined.
#[derive(Debug, Default)]
pub(super) struct Searches {
    /// By group and port, when the bucket is full again.
    full_at: HashMap<(Address, u16), u64>,
    clock: Clock,
}

impl Searches {
    /// Whether one more goes to everybody. Where there is no room to count, it does.
    pub fn admit(&mut self, group: Address, port: u16, now: Instant) -> bool {
        let (key, clock) = ((group, port), self.clock.begin(now));
        if self.full_at.len() >= MAX_SEARCHES as usize && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, full_at| *full_at > clock);
            if self.full_at.len() >= MAX_SEARCHES as usize {
                return true;
            }
        }
        let full_at = self.full_at.entry(key).or_default();
        let after = SEARCH_RATE.take(*full_at, 1, clock);
        *full_at = after.unwrap_or(*full_at);
        after.is_some()
    }
}

/// Nanoseconds since the first look at it.
#[derive(Debug, Default)]
struct Clock(Option<Instant>);

impl Clock {
    fn begin(&mut self, now: Instant) -> u64 {
        self.0.get_or_insert(now);
        self.at(now)
    }

    fn at(&self, now: Instant) -> u64 {
        self.0.map_or(0, |begin| now.saturating_duration_since(begin).as_nanos() as u64)
    }
}

/// A copy is dropped when it comes again within this time.
const WINDOW: Duration = Duration::from_secs(1);
const MAX_REMEMBERED: usize = 4096;

/// Wrapped packets seen within the last second.
///
/// Two packets count as the same only when their identification says something and is the same, as well as all that
/// [`PacketKey`] has. Games send equal payloads in a row on purpose (ioquake3 sends each probe twice), so a payload alone
/// is no sign of a duplicate. A sender that numbers its packets gives the second probe another identification. One that
/// does not (Linux sends DF packets of unconnected sockets with identification 0, which RFC 6864 calls atomic) leaves no
/// way to tell: those all pass, because a packet too many is harmless and one too few hides a game. Loops do not depend
/// on this: an unwrapped packet is never wrapped again.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    seen: HashMap<PacketKey, Instant>,
    order: VecDeque<(Instant, PacketKey)>,
}

impl Duplicates {
    /// Whether the packet was here before; remembers it.
    pub fn is_repeated(&mut self, key: PacketKey, now: Instant) -> bool {
        self.forget(now);
        if self.seen.contains_key(&key) {
            return true;
        }
        self.seen.insert(key, now);
        self.order.push_back((now, key));
        false
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, key)) = self.order.front().copied() {
            let is_old = now.saturating_duration_since(at) >= WINDOW;
            if !is_old && self.order.len() < MAX_REMEMBERED {
                return;
            }
            self.order.pop_front();
            self.seen.remove(&key);
        }
    }
}

/// What was said to everybody of late, by this device and by members.
#[derive(Debug, Default)]
pub(super) struct Contents {
    times: HashMap<ContentKey, ContentTimes>,
    clock: Clock,
}

impl Contents {
    /// Whether sending it now would go round.
    pub fn is_loop(&self, key: &ContentKey, now: Instant) -> bool {
        self.times.get(key).is_some_and(|times| times.is_loop(self.clock.at(now)))
    }

    /// Remembers that this device has sent it.
    pub fn note_sent(&mut self, key: ContentKey, now: Instant) {
        let clock = self.clock.begin(now);
        if let Some(times) = self.entry(key, clock) {
            times.note_sent(clock);
        }
    }

    /// Remembers that it came from a member.
    pub fn note_heard(&mut self, key: ContentKey, now: Instant) {
        let clock = self.clock.begin(now);
        if let Some(times) = self.entry(key, clock) {
            times.note_heard(clock);
        }
    }

    /// None when there is no room: then the rates alone hold what goes round.
    fn entry(&mut self, key: ContentKey, clock: u64) -> Option<&mut ContentTimes> {
        let most = MAX_CONTENTS as usize;
        if self.times.len() >= most && !self.times.contains_key(&key) {
            self.times.retain(|_, times| !times.is_over(clock));
        }
        let has_room = self.times.len() < most || self.times.contains_key(&key);
        has_room.then(|| self.times.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);

    #[test]
    fn bursts_pass_per_port_and_source() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let admitted = |rates: &mut Rates, source, port, now| {
            (0..300).filter(|_| rates.admit(source, port, now)).count()
        };
        assert_eq!(admitted(&mut rates, SOURCE, 6112, now), 200);
        assert_eq!(admitted(&mut rates, SOURCE, 6113, now), 200, "another port");
        assert_eq!(admitted(&mut rates, Ipv4Addr::new(10, 66, 0, 3), 6112, now), 200, "another source");
        assert_eq!(admitted(&mut rates, SOURCE, 6112, now + Duration::from_millis(500)), 100);
    }

    #[test]
    fn contents_are_remembered_as_long_as_there_is_room() {
        let (mut contents, now) = (Contents::default(), Instant::now());
        let key = |hash| ContentKey { hash, port: 6112, length: 13 };
        (0..2 * u64::from(MAX_CONTENTS)).for_each(|hash| contents.note_sent(key(hash), now));
        assert_eq!(contents.times.len(), MAX_CONTENTS as usize);
        contents.note_heard(key(0), now + Duration::from_millis(1));
        assert!(contents.is_loop(&key(0), now + Duration::from_millis(2)));
        let later = now + Duration::from_secs(1);
        contents.note_sent(key(u64::MAX), later);
        assert_eq!((contents.times.len(), contents.is_loop(&key(0), later)), (1, false));
    }

    #[test]
    fn a_search_is_for_everybody_and_a_stream_is_not() {
        let (mut searches, now) = (Searches::default(), Instant::now());
        let group = Address::from(Ipv4Addr::new(239, 1, 2, 3));
        let admitted = |searches: &mut Searches, port, now| {
            (0..100).filter(|_| searches.admit(group, port, now)).count()
        };
        assert_eq!(admitted(&mut searches, 6112, now), 20);
        assert_eq!(admitted(&mut searches, 6113, now), 20, "another port");
        assert_eq!(admitted(&mut searches, 6112, now + Duration::from_millis(999)), 0);
        assert_eq!(admitted(&mut searches, 6112, now + Duration::from_secs(3)), 3);
        // without room everything is for everybody
        (0..2_000).for_each(|port| assert!(searches.admit(group, 10_000 + port, now)));
        assert_eq!(searches.full_at.len(), MAX_SEARCHES as usize);
        assert_eq!(admitted(&mut searches, 30_000, now), 100);
        assert_eq!(admitted(&mut searches, 30_000, now + Duration::from_secs(30)), 20);
    }

    #[test]
    fn a_port_scan_neither_grows_state_nor_passes() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let admitted = (0..=u16::MAX).filter(|port| rates.admit(SOURCE, *port, now)).count();
        assert_eq!((admitted, rates.buckets.len()), (MAX_PORTS, MAX_PORTS));
        assert!(rates.admit(SOURCE, 60_000, now + IDLE), "after a second it may");
    }
}
