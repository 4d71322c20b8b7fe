//! Rate limits: token buckets by source address, in bounded memory.

use lanrage_common::bucket::{Bucket, Rate};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Sources that have buckets of their own; all beyond that share one set.
const MAX_SOURCES: usize = 65_536;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Every request.
    Request,
    /// Challenges and logins.
    Login,
    /// Failed logins, and wrong operator tokens.
    FailedLogin,
    /// Invite codes that do not exist.
    WrongCode,
    /// New parties.
    Found,
}

const KINDS: usize = 5;

/// A household of 254 members comes back after an outage without meeting these.
const QUOTAS: [Rate; KINDS] = [
    Rate::per_second(100, 1000),
    Rate::per_second(10, 600),
    Rate::new(20, MINUTE, 20),
    Rate::new(10, MINUTE, 10),
    Rate::new(6, MINUTE, 30),
];
const MINUTE: Duration = Duration::from_secs(60);

type Buckets = [Bucket; KINDS];

/// The buckets of all sources.
#[derive(Debug, Default)]
pub(super) struct Limits {
    sources: Mutex<HashMap<IpAddr, Buckets>>,
}

impl Limits {
    /// Takes a token; without one, the answer is the number of seconds to wait.
    pub(super) fn take(&self, kind: Kind, source: IpAddr, now: Instant) -> Result<(), u64> {
        self.with_bucket(kind, source, now, |bucket| {
            if bucket.take(1, now) { Ok(()) } else { Err(whole_seconds(bucket.wait(1, now))) }
        })
    }

    /// Gives back a token that was taken for something that proved honest.
    pub(super) fn refund(&self, kind: Kind, source: IpAddr, now: Instant) {
        self.with_bucket(kind, source, now, |bucket| bucket.refund(1));
    }

    fn with_bucket<T>(
        &self,
        kind: Kind,
        source: IpAddr,
        now: Instant,
        act: impl FnOnce(&mut Bucket) -> T,
    ) -> T {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = source_key(source);
        if !sources.contains_key(&key) && sources.len() >= MAX_SOURCES {
            drop_idle(&mut sources, now);
            if sources.len() >= MAX_SOURCES {
                key = IpAddr::from([0, 0, 0, 0]);
            }
        }
        act(&mut sources.entry(key).or_insert_with(|| QUOTAS.map(Bucket::new))[kind as usize])
    }
}

/// Forgets sources whose buckets are all full: they are as good as new.
fn drop_idle(sources: &mut HashMap<IpAddr, Buckets>, now: Instant) {
    sources.retain(|_, buckets| !buckets.iter().all(|bucket| bucket.is_full(now)));
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// One household is one source: an IPv4 address, or an IPv6 /64.
pub(super) fn source_key(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            octets.into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let (limits, start) = (Limits::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(limits.take(Kind::WrongCode, ip("192.0.2.1"), start), Ok(()));
        }
        assert_eq!(limits.take(Kind::WrongCode, ip("192.0.2.1"), start), Err(6));
        assert_eq!(limits.take(Kind::WrongCode, ip("192.0.2.2"), start), Ok(()), "others are unaffected");
        let later = start + Duration::from_secs(6);
        assert_eq!(limits.take(Kind::WrongCode, ip("192.0.2.1"), later), Ok(()));
        assert!(limits.take(Kind::WrongCode, ip("192.0.2.1"), later).is_err());
        limits.refund(Kind::WrongCode, ip("192.0.2.1"), later);
        assert_eq!(limits.take(Kind::WrongCode, ip("192.0.2.1"), later), Ok(()));
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let (limits, now) = (Limits::default(), Instant::now());
        for n in 0..10 {
            assert_eq!(limits.take(Kind::WrongCode, ip(&format!("2001:db8::{n}")), now), Ok(()));
        }
        assert!(limits.take(Kind::WrongCode, ip("2001:db8::ffff"), now).is_err());
        assert_eq!(limits.take(Kind::WrongCode, ip("2001:db8:0:1::1"), now), Ok(()));
        assert_eq!(source_key(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn memory_is_bounded_and_idle_sources_make_room() {
        let (limits, now) = (Limits::default(), Instant::now());
        for n in 0..(MAX_SOURCES as u32 + 1000) {
            let source = IpAddr::V4((n + 0x0100_0000).into());
            let _ = limits.take(Kind::Request, source, now);
        }
        assert!(limits.sources.lock().unwrap().len() <= MAX_SOURCES + 1);
        let later = now + Duration::from_secs(3600);
        assert_eq!(limits.take(Kind::Request, ip("203.0.113.1"), later), Ok(()));
        assert_eq!(limits.sources.lock().unwrap().len(), 1);
    }
}
