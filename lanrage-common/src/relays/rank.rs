//! Which of several relays is the best one: the rule that devices and pairs share.

use crate::identity::PartyId;
use blake2::digest::consts::U8;
use blake2::{Blake2s, Digest as _};
use std::cmp::Reverse;

/// A relay is left for another one that is better by this much and by a third.
const GAIN_MS: u32 = 10;
/// Relays that cost this much more than the best, or a tenth, are as good.
const EQUAL_MS: u32 = 5;

/// One member's leg to a relay, in whole milliseconds: as it is announced, so that both ends of a pair reckon alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leg {
    /// Median round trip; none = not measured.
    pub rtt_ms: Option<u16>,
    /// Mean difference of successive round trips.
    pub jitter_ms: u16,
    /// The relay should be left: it is being emptied, full, off the list, or gives no answer.
    pub avoid: bool,
}

impl Leg {
    /// Round trip and jitter, when measured.
    pub fn cost_ms(&self) -> Option<u32> {
        self.rtt_ms.map(|rtt| u32::from(rtt) + u32::from(self.jitter_ms))
    }

    /// A pair's way over a relay is both ends' legs.
    pub fn join(&self, other: &Self) -> Offer {
        let cost_ms = self.cost_ms().zip(other.cost_ms()).map(|(own, other)| own + other);
        Offer { cost_ms, avoid: self.avoid || other.avoid }
    }
}

impl From<Leg> for Offer {
    fn from(leg: Leg) -> Self {
        Self { cost_ms: leg.cost_ms(), avoid: leg.avoid }
    }
}

/// What a relay would be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Delay; none = unknown, which is worse than any.
    pub cost_ms: Option<u32>,
    /// Taken only if all others are to be avoided too.
    pub avoid: bool,
}

impl Offer {
    fn cost(&self) -> u32 {
        self.cost_ms.unwrap_or(u32::MAX / 4)
    }

    /// Whether it is worth leaving `current` for this one.
    fn is_worth_leaving(&self, current: &Self) -> bool {
        if self.avoid != current.avoid {
            return current.avoid;
        }
        let (new, old) = (self.cost(), current.cost());
        new + GAIN_MS <= old && new * 3 <= old * 2
    }
}

/// Sorts relays, best first. Among those that are as good as the best, the party decides: a party's members come to the
/// same few relays without asking each other, and parties spread over all of them. `kept` stays first unless another one
/// is better by far.
pub fn rank(party: &PartyId, offers: Vec<(String, Offer)>, kept: Option<&str>) -> Vec<String> {
    let mut offers = offers;
    let best = offers.iter().map(|(_, offer)| (offer.avoid, offer.cost())).min();
    let Some((avoid, cost)) = best else { return Vec::new() };
    let limit = cost + EQUAL_MS.max(cost / 10);
    let is_equal = |offer: &Offer| offer.avoid == avoid && offer.cost() <= limit;
    offers.sort_by_cached_key(|(name, offer)| {
        let cost = if is_equal(offer) { 0 } else { offer.cost() };
        (offer.avoid, Reverse(is_equal(offer)), cost, lot(party, name))
    });
    if let Some(at) = offers.iter().position(|(name, _)| Some(name.as_str()) == kept)
        && !offers[0].1.is_worth_leaving(&offers[at].1)
    {
        offers[..=at].rotate_right(1);
    }
    offers.into_iter().map(|(name, _)| name).collect()
}

/// A relay's place in a party's own order: random, but the same for all members.
fn lot(party: &PartyId, relay: &str) -> [u8; 8] {
    let label = b"lanrage relay lot v1";
    Blake2s::<U8>::new_with_prefix(label).chain_update(party.0).chain_update(relay).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const PARTY: PartyId = PartyId([1; 16]);

    fn offers(costs: &[(&str, u32)]) -> Vec<(String, Offer)> {
        let offer =
            |(name, cost): &(&str, u32)| ((*name).to_owned(), Offer { cost_ms: Some(*cost), avoid: false });
        costs.iter().map(offer).collect()
    }

    #[test]
    fn the_nearest_comes_first_and_the_unknown_last() {
        let mut all = offers(&[("far", 90), ("near", 10), ("middle", 40)]);
        all.push(("unknown".into(), Offer { cost_ms: None, avoid: false }));
        all.push(("leaving".into(), Offer { cost_ms: Some(1), avoid: true }));
        assert_eq!(rank(&PARTY, all, None), ["near", "middle", "far", "unknown", "leaving"]);
        assert_eq!(rank(&PARTY, Vec::new(), Some("near")), Vec::<String>::new());
    }

    #[test]
    fn a_choice_is_kept_unless_another_is_better_by_ten_milliseconds_and_a_third() {
        let keeps = |old, new| rank(&PARTY, offers(&[("a", old), ("b", new)]), Some("a"))[0] == "a";
        for (old, new, kept) in [
            (30, 20, false),
            (30, 21, true),
            (12, 3, true),
            (15, 5, false),
            (100, 70, true),
            (100, 66, false),
            (10, 10, true),
        ] {
            assert_eq!(keeps(old, new), kept, "{old} ms against {new} ms");
        }
        let mut leaving = offers(&[("a", 1), ("b", 90)]);
        leaving[0].1.avoid = true;
        assert_eq!(rank(&PARTY, leaving.clone(), Some("a"))[0], "b");
        leaving[1].1.avoid = true;
        assert_eq!(rank(&PARTY, leaving, Some("a"))[0], "a", "when all are to be left, none is");
    }

    #[test]
    fn equals_are_spread_over_parties_and_agreed_within_one() {
        let equal = || offers(&[("a", 10), ("b", 12), ("c", 14), ("d", 30)]);
        let mut firsts = BTreeMap::<String, u32>::new();
        for party in 0..=255 {
            let ranked = rank(&PartyId([party; 16]), equal(), None);
            let reversed = rank(&PartyId([party; 16]), equal().into_iter().rev().collect(), None);
            assert_eq!(ranked, reversed);
            *firsts.entry(ranked[0].clone()).or_default() += 1;
        }
        assert_eq!(firsts.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(firsts.values().all(|count| (50..130).contains(count)), "{firsts:?}");
    }
}
