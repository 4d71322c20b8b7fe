//! The time for the state machines.

use lanrage_common::time::Now;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Both clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix }
}
