//! Token buckets as one point in time each (generic cell rate algorithm), for the kernel program.

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Rate {
    /// Time that one token takes to come back, in 1/1024 nanoseconds; 0 = unlimited.
    pub cost: u64,
    /// Time in which an empty bucket becomes full, nanoseconds.
    pub depth: u64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { cost: 0, depth: 0 };

    /// `per_second` tokens a second, `burst` at once; 0 a second = unlimited.
    pub const fn new(per_second: u64, burst: u64) -> Self {
        if per_second == 0 {
            return Self::UNLIMITED;
        }
        let cost = (1_000_000_000 << 10) / per_second;
        let cost = if cost == 0 { 1 } else { cost };
        Self { cost, depth: cost.saturating_mul(burst) >> 10 }
    }

    /// A member's allowance of packets: a quarter second's at once, at least 64.
    pub const fn of_packets(per_second: u64) -> Self {
        let quarter = per_second / 4;
        Self::new(per_second, if quarter < 64 { 64 } else { quarter })
    }

    /// A member's allowance of bytes: a quarter second's at once, at least 64 KiB.
    pub const fn of_bytes(per_second: u64) -> Self {
        let quarter = per_second / 4;
        Self::new(per_second, if quarter < 65_536 { 65_536 } else { quarter })
    }

    /// When the bucket will be full again after another `tokens`, or nothing when there are not enough. `full_at` is when
    /// it would have been, `now` the time, all in nanoseconds.
    #[inline(always)]
    pub const fn take(self, full_at: u64, tokens: u64, now: u64) -> Option<u64> {
        let from = if full_at > now { full_at } else { now };
        let after = from.wrapping_add(self.cost.wrapping_mul(tokens) >> 10);
        if after > now.wrapping_add(self.depth) { None } else { Some(after) }
    }
}

/// What a member sends to the daemon: initiations and responses for a party of 254 that joins in one burst and repeats
/// every 5 s. Twice the relay server's budget, which counts initiations alone.
pub const CONTROL: Rate = Rate::new(100, 600);
/// Path probes of a member, as the relay server's.
pub const PROBES: Rate = Rate::new(300, 600);

/// A bucket of its own rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Bucket {
    /// When it will be full again, nanoseconds of CLOCK_MONOTONIC.
    pub full_at: u64,
    /// Its rate.
    pub rate: Rate,
}

impl Bucket {
    /// A full bucket.
    pub const fn new(rate: Rate) -> Self {
        Self { full_at: 0, rate }
    }

    /// [`Rate::take`] of this bucket, which it does not change yet.
    #[inline(always)]
    pub const fn take(&self, tokens: u64, now: u64) -> Option<u64> {
        if self.rate.cost == 0 {
            return Some(self.full_at);
        }
        self.rate.take(self.full_at, tokens, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn gives_its_burst_then_its_rate() {
        let mut bucket = Bucket::new(Rate::new(10, 5));
        let taken = |bucket: &mut Bucket, now| {
            (0..100).filter(|_| bucket.take(1, now).map(|full_at| bucket.full_at = full_at).is_some()).count()
        };
        assert_eq!(taken(&mut bucket, SECOND), 5);
        assert_eq!(taken(&mut bucket, SECOND + SECOND / 11), 0);
        assert_eq!(taken(&mut bucket, SECOND + SECOND / 5), 2);
        assert_eq!(taken(&mut bucket, 61 * SECOND), 5, "never more than the burst");
        assert_eq!(bucket.take(6, 600 * SECOND), None, "more than the burst never passes");
    }

    #[test]
    fn fast_rates_are_kept_within_one_percent() {
        for per_second in [125, 1_000_000, 125_000_000, 1_250_000_000] {
            let rate = Rate::of_bytes(per_second);
            let real = (SECOND << 10) / rate.cost;
            assert!(real.abs_diff(per_second) * 100 <= per_second, "{per_second} became {real}");
        }
        assert_eq!(Bucket::new(Rate::new(0, 5)).take(u64::MAX, 0), Some(0), "no limit");
    }
}
