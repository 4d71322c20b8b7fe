//! Rate limits as the state machines keep them.

use std::time::{Duration, Instant};

/// Token bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    tokens: f64,
    burst: f64,
    per_second: f64,
    filled: Option<Instant>,
}

impl Bucket {
    /// A full bucket of `burst` tokens that regains `per_second`.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let burst = f64::from(burst);
        Self { tokens: burst, burst, per_second: f64::from(per_second), filled: None }
    }

    /// Takes `count` tokens, or none when there are too few. More than a whole bucket counts as a whole bucket.
    pub fn take(&mut self, count: u32, now: Instant) -> bool {
        let idle = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        self.filled = Some(self.filled.map_or(now, |filled| filled.max(now)));
        self.tokens = (self.tokens + idle.as_secs_f64() * self.per_second).min(self.burst);
        let count = f64::from(count).min(self.burst);
        let is_enough = self.tokens >= count;
        if is_enough {
            self.tokens -= count;
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 5);
        assert_eq!((0..20).filter(|_| bucket.take(1, start)).count(), 10);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| bucket.take(1, later)).count(), 5);
        assert!(!bucket.take(1, start), "a clock that steps back gives nothing");
    }
}
