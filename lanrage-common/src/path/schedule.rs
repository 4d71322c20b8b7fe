//! When to try a member's candidates: dense after every event, so that both ends' probes meet, then ever rarer.

use std::time::{Duration, Instant};

const BURST_MS: [u64; 12] = [0, 50, 150, 350, 750, 1150, 1550, 2350, 3550, 5550, 7550, 9550];
const SLOW: Duration = Duration::from_secs(30);
const SLOWEST: Duration = Duration::from_secs(60);
const SLOW_ROUNDS: u32 = 10;

/// One member's probing rounds.
#[derive(Debug, Clone)]
pub struct Schedule {
    started: Instant,
    round: u32,
    next: Instant,
}

impl Schedule {
    /// The first round is due at once.
    pub fn new(now: Instant) -> Self {
        Self { started: now, round: 0, next: now }
    }

    /// When the next round is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// A round was done.
    pub fn advance(&mut self, now: Instant) {
        self.round += 1;
        self.next = match BURST_MS.get(self.round as usize) {
            // after a long sleep a round is not done twice
            Some(ms) => (self.started + Duration::from_millis(*ms)).max(now),
            None if self.round < BURST_MS.len() as u32 + SLOW_ROUNDS => now + SLOW,
            None => now + SLOWEST,
        };
    }

    /// The round could not be done now: again a little later.
    pub fn postpone(&mut self, now: Instant) {
        self.next = now + Duration::from_millis(100);
    }

    /// Whether the dense part is over.
    pub fn is_slow(&self) -> bool {
        self.round as usize >= BURST_MS.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_follow_the_table() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut offsets = Vec::new();
        for _ in 0..24 {
            offsets.push((schedule.next() - start).as_millis());
            schedule.advance(schedule.next());
        }
        assert_eq!(offsets[..8], [0, 50, 150, 350, 750, 1150, 1550, 2350]);
        assert_eq!(offsets[8..13], [3550, 5550, 7550, 9550, 39_550]);
        assert_eq!(offsets[23] - offsets[22], 60_000);
    }
}
