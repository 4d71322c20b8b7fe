//! Token buckets as one point in time each (generic cell rate algorithm).

use std::time::{Duration, Instant};

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Time that one token takes to come back, in nanoseconds.
    interval: u64,
    /// Tokens in a full bucket.
    burst: u64,
}

impl Rate {
    /// `per_second` tokens a second (at least one), `burst` at once.
    pub(super) const fn new(per_second: u64, burst: u64) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        Self { interval: 1_000_000_000 / per_second, burst }
    }
}

/// A bucket; when full it holds its rate's burst.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    rate: Rate,
    /// When the bucket will be full again.
    full_at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Takes `tokens`, or nothing when there are not enough.
    pub(super) fn take(&mut self, tokens: u64, now: Instant) -> bool {
        let cost = Duration::from_nanos(self.rate.interval.saturating_mul(tokens));
        let depth = Duration::from_nanos(self.rate.interval.saturating_mul(self.rate.burst));
        let full_at = self.full_at.max(now) + cost;
        let is_enough = full_at <= now + depth;
        if is_enough {
            self.full_at = full_at;
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_its_burst_then_its_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate::new(10, 5), now);
        let taken = |bucket: &mut Bucket, at| (0..100).filter(|_| bucket.take(1, at)).count();
        assert_eq!(taken(&mut bucket, now), 5);
        assert_eq!(taken(&mut bucket, now + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut bucket, now + Duration::from_millis(200)), 2);
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(60)), 5, "never more than the burst");
        assert!(!bucket.take(6, now + Duration::from_secs(600)), "more than the burst never passes");
    }
}
