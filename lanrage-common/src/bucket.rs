//! The one token bucket of all state machines: a point in time each (generic cell rate algorithm).

use std::time::{Duration, Instant};

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    tokens: u64,
    /// Time in which they come back, in nanoseconds.
    nanos: u64,
    /// Tokens in a full bucket.
    burst: u64,
}

impl Rate {
    /// `tokens` (at least one) in each `period`, `burst` (at least one) at once.
    pub const fn new(tokens: u64, period: Duration, burst: u64) -> Self {
        let nanos = period.as_nanos();
        // 584 years
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        Self { tokens: at_least_one(tokens), nanos, burst: at_least_one(burst) }
    }

    /// `tokens` (at least one) a second, `burst` (at least one) at once.
    pub const fn per_second(tokens: u64, burst: u64) -> Self {
        Self::new(tokens, Duration::from_secs(1), burst)
    }

    /// Time in which that many tokens come back, less than a nanosecond short.
    fn time_for(self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens) * u128::from(self.nanos) / u128::from(self.tokens);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

const fn at_least_one(count: u64) -> u64 {
    if count == 0 { 1 } else { count }
}

/// A bucket; full at first.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    rate: Rate,
    /// When the bucket will be full again; `None` as long as nothing was taken.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub const fn new(rate: Rate) -> Self {
        Self { rate, full_at: None }
    }

    /// Takes `tokens`, or none when there are too few. More than a whole bucket counts as a whole bucket.
    pub fn take(&mut self, tokens: u64, now: Instant) -> bool {
        let is_enough = self.wait(tokens, now).is_zero();
        if is_enough {
            self.full_at = Some(self.full_at_least(now) + self.cost(tokens));
        }
        is_enough
    }

    /// How long until [`Bucket::take`] succeeds; zero when it does now.
    pub fn wait(&self, tokens: u64, now: Instant) -> Duration {
        let depth = self.rate.time_for(self.rate.burst);
        (self.full_at_least(now) + self.cost(tokens)).saturating_duration_since(now + depth)
    }

    /// Gives back tokens that were taken for something that proved honest.
    pub fn refund(&mut self, tokens: u64) {
        self.full_at = self.full_at.and_then(|at| at.checked_sub(self.cost(tokens)));
    }

    /// Whether the bucket is as good as new.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }

    fn full_at_least(&self, now: Instant) -> Instant {
        self.full_at.map_or(now, |at| at.max(now))
    }

    fn cost(&self, tokens: u64) -> Duration {
        self.rate.time_for(tokens.min(self.rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_its_burst_then_its_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate::per_second(10, 5));
        let taken = |bucket: &mut Bucket, at| (0..100).filter(|_| bucket.take(1, at)).count();
        assert!(bucket.is_full(now));
        assert_eq!(taken(&mut bucket, now), 5);
        assert_eq!(bucket.wait(1, now), Duration::from_millis(100));
        assert_eq!(taken(&mut bucket, now + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut bucket, now + Duration::from_millis(200)), 2);
        assert!(!bucket.take(1, now), "a clock that steps back gives nothing");
        assert!(!bucket.is_full(now + Duration::from_millis(699)));
        assert!(bucket.is_full(now + Duration::from_millis(700)));
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(60)), 5, "never more than the burst");
    }

    #[test]
    fn more_than_a_bucket_is_a_whole_one_and_a_refund_undoes() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate::new(1, Duration::from_secs(60), 4));
        assert!(bucket.take(100, now));
        assert!(!bucket.take(1, now));
        bucket.refund(2);
        assert_eq!((0..10).filter(|_| bucket.take(1, now)).count(), 2);
        assert_eq!(bucket.wait(1, now), Duration::from_secs(60));
    }

    #[test]
    fn fast_rates_are_kept() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate::per_second(300_000_000, 1_000));
        let mut taken = 0;
        for micros in 0..10_000u64 {
            taken += (0..10).filter(|_| bucket.take(100, start + Duration::from_micros(micros))).count();
        }
        // 300 bytes a microsecond, and each cost is rounded down to a nanosecond
        assert!((30_000..=30_100).contains(&taken), "{taken}");
    }
}
