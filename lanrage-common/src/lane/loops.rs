//! What goes round in circles. A program that repeats broadcasts between a member's networks, on two members at once, makes
//! a ring: what one of them repeats into the party comes to the other, which repeats it too.
//!
//! The addresses and the source port change on the way round, so what is the same is told by the destination port and
//! the payload ([`ContentKey`]). That alone proves nothing: all games of one kind search with the same payload, each of them again
//! every second, some of them twice in a row. So a device never keeps back what it has not sent for [`LOOP_WINDOW`]. After
//! that first packet, more of the same wait for the window's end when a member has said the same in that time, or when
//! [`MOST_SENT`] are out. A ring has no packet left then, and does not begin again by itself.

use super::maps::{ContentKey, ContentTimes};

/// For so long the same from this device may be a ring, nanoseconds. Longer than a round trip, shorter than the second
/// after which games repeat themselves.
pub const LOOP_WINDOW: u64 = 500_000_000;
/// The same from this device within [`LOOP_WINDOW`], while nobody else says it.
pub const MOST_SENT: u32 = 2;
/// Bytes of the payload that are looked at, beside the last eight and the length.
const LOOKED_AT: u32 = 128;
const EIGHT: u32 = 8;

impl ContentKey {
    /// The key of `length` bytes to a port, read by place: eight bytes at once, or one.
    #[inline(always)]
    pub fn read(port: u16, length: u32, eight: impl Fn(u32) -> u64, one: impl Fn(u32) -> u8) -> Self {
        let mut hash = 0;
        if length < EIGHT {
            for at in 0..EIGHT {
                if at < length {
                    hash = mix(hash, u64::from(one(at)));
                }
            }
        } else {
            for word in 0..LOOKED_AT / EIGHT {
                if (word + 1) * EIGHT <= length {
                    hash = mix(hash, eight(word * EIGHT));
                }
            }
            hash = mix(hash, eight(length - EIGHT));
        }
        Self { hash, port: u32::from(port), length }
    }
}

/// One step of the hash that the Rust compiler uses.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

impl ContentTimes {
    /// Whether sending it now would go round. `now` is in nanoseconds, of any clock.
    #[inline(always)]
    pub fn is_loop(&self, now: u64) -> bool {
        let is_heard = self.heard != 0 && is_within(self.heard_at, now);
        let is_sent = self.sent != 0 && is_within(self.sent_since, now);
        is_sent && (is_heard || self.sent >= MOST_SENT)
    }

    /// After this device has sent it.
    #[inline(always)]
    pub fn note_sent(&mut self, now: u64) {
        if self.sent == 0 || !is_within(self.sent_since, now) {
            (self.sent_since, self.sent) = (now, 0);
        }
        self.sent = self.sent.saturating_add(1);
    }

    /// After a member's has come.
    #[inline(always)]
    pub fn note_heard(&mut self, now: u64) {
        self.heard = self.heard.saturating_add(1);
        self.heard_at = now;
    }

    /// Whether it says nothing any more.
    #[inline(always)]
    pub fn is_over(&self, now: u64) -> bool {
        !is_within(self.sent_since, now) && !is_within(self.heard_at, now)
    }
}

#[inline(always)]
const fn is_within(since: u64, now: u64) -> bool {
    now.wrapping_sub(since) < LOOP_WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn key(port: u16, payload: &[u8]) -> ContentKey {
        let eight = |at: u32| u64::from_ne_bytes(payload[at as usize..at as usize + 8].try_into().unwrap());
        ContentKey::read(port, payload.len() as u32, eight, |at| payload[at as usize])
    }

    #[test]
    fn other_ports_lengths_beginnings_and_ends_are_other_contents() {
        let long = |at: usize| {
            let mut payload = vec![7; 1400];
            payload[at] ^= 1;
            payload
        };
        let all =
            [vec![], vec![0], vec![0, 0], vec![0; 7], vec![0; 8], vec![0; 9], long(0), long(127), long(1399)];
        let keys: std::collections::HashSet<_> =
            all.iter().flat_map(|payload| [key(6112, payload), key(6113, payload)]).collect();
        assert_eq!(keys.len(), 2 * all.len());
        assert_eq!(key(1, b"who is there?"), key(1, b"who is there?"));
    }

    /// Sends at these milliseconds, hears at those; which sends would go round.
    fn kept_back(sends: &[u64], heard: &[u64]) -> Vec<u64> {
        let mut times = ContentTimes::default();
        let mut events: Vec<_> =
            sends.iter().map(|at| (*at, true)).chain(heard.iter().map(|at| (*at, false))).collect();
        events.sort_unstable();
        let mut kept = Vec::new();
        for (at, is_sent) in events {
            let now = (at + 10_000) * MS;
            match is_sent {
                true if times.is_loop(now) => kept.push(at),
                true => times.note_sent(now),
                false => times.note_heard(now),
            }
        }
        kept
    }

    #[test]
    fn games_that_repeat_themselves_are_let_pass() {
        let every_second: Vec<u64> = (0..20).map(|n| n * 1000).collect();
        let others: Vec<u64> = (0..2000).map(|n| n * 10 + 3).collect();
        assert_eq!(kept_back(&every_second, &others), [0; 0], "however many search with the same payload");
        assert_eq!(kept_back(&[0, 0, 1000, 1000], &[]), [0; 0], "two in a row");
        assert_eq!(kept_back(&[5], &[1, 2, 3, 4]), [0; 0], "the first one, whoever was faster");
    }

    #[test]
    fn what_comes_back_is_not_sent_again() {
        assert_eq!(kept_back(&[0, 2, 4, 499, 500], &[1, 3]), [2, 4, 499]);
        assert_eq!(kept_back(&[2, 4, 6, 8], &[1]), [4, 6, 8], "heard, and repeated once");
        assert_eq!(kept_back(&[0, 2, 4, 6], &[]), [4, 6], "a ring that comes back another way");
    }
}
