//! Time as the state machines receive it.

use std::time::{Duration, Instant};

/// A point in time on both clocks: the monotonic one for timeouts, the wall clock for expiry dates that cross machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic clock.
    pub instant: Instant,
    /// Seconds since 1970-01-01 UTC.
    pub unix: u64,
}

impl Now {
    /// The same moment, `by` later on both clocks.
    pub fn after(self, by: Duration) -> Self {
        Self { instant: self.instant + by, unix: self.unix + by.as_secs() }
    }
}
