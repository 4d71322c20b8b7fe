//! Who may connect: bounds for all, and for each source.

use lanrage_common::bucket::{Bucket, Rate};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Connections at once.
pub(super) const CONNECTIONS: usize = 1000;
/// Of one source: a whole LAN party behind one router.
pub(super) const PER_SOURCE: usize = 64;
/// New connections, each of which costs a TLS handshake.
const NEW: Rate = Rate::per_second(100, 300);

/// A source: an IPv4 address, or the /64 that one IPv6 subscriber has.
type Source = u128;

#[derive(Debug)]
struct Table {
    sources: HashMap<Source, usize>,
    count: usize,
    new: Bucket,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Admission(Mutex<Table>);

impl Default for Admission {
    fn default() -> Self {
        Self(Mutex::new(Table { sources: HashMap::new(), count: 0, new: Bucket::new(NEW) }))
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    source: Source,
}

impl Admission {
    /// A place, or the name of the limit that is reached.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr, now: Instant) -> Result<Place, &'static str> {
        let source = source(from);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.count >= CONNECTIONS {
            return Err("full");
        }
        if table.sources.get(&source).is_some_and(|count| *count >= PER_SOURCE) {
            return Err("full_for_source");
        }
        if !table.new.take(1, now) {
            return Err("too_fast");
        }
        table.count += 1;
        *table.sources.entry(source).or_default() += 1;
        Ok(Place { admission: self.clone(), source })
    }

    /// Connections now.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.admission.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.count -= 1;
        if let Some(count) = table.sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                table.sources.remove(&self.source);
            }
        }
    }
}

fn source(from: IpAddr) -> Source {
    match from.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits() & !u128::from(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Admits from a source, with time between.
    fn admit(
        admission: &Arc<Admission>,
        count: usize,
        from: &str,
        now: &mut Instant,
    ) -> Vec<Result<Place, &'static str>> {
        let mut one = || {
            *now += Duration::from_millis(20);
            admission.admit(ip(from), *now)
        };
        (0..count).map(|_| one()).collect()
    }

    #[test]
    fn one_source_gets_its_share_and_what_it_gives_back() {
        let (admission, mut now) = (Arc::<Admission>::default(), Instant::now());
        for (from, neighbour, stranger) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
            ("::ffff:192.0.2.3", "192.0.2.3", "192.0.2.4"),
        ] {
            let mut places = admit(&admission, PER_SOURCE, from, &mut now);
            assert!(places.iter().all(Result::is_ok));
            assert_eq!(admit(&admission, 1, neighbour, &mut now)[0].as_ref().err(), Some(&"full_for_source"));
            assert!(admit(&admission, 1, stranger, &mut now)[0].is_ok());
            places.pop();
            assert!(admit(&admission, 1, neighbour, &mut now)[0].is_ok());
        }
        assert_eq!(admission.count(), 0);
        assert!(admission.0.lock().unwrap().sources.is_empty());
    }

    #[test]
    fn there_is_a_limit_for_all() {
        let (admission, mut now) = (Arc::<Admission>::default(), Instant::now());
        let places: Vec<_> = (0..CONNECTIONS)
            .flat_map(|n| admit(&admission, 1, &format!("10.0.{}.{}", n / 250, n % 250), &mut now))
            .collect();
        assert!(places.iter().all(Result::is_ok));
        assert_eq!(admit(&admission, 1, "192.0.2.1", &mut now)[0].as_ref().err(), Some(&"full"));
    }

    #[test]
    fn a_burst_of_new_connections_has_a_limit() {
        let (admission, now) = (Arc::<Admission>::default(), Instant::now());
        let results: Vec<_> =
            (0..400).map(|n| admission.admit(ip(&format!("10.0.0.{}", n % 250)), now)).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 300);
        assert_eq!(results[399].as_ref().err(), Some(&"too_fast"));
    }
}
