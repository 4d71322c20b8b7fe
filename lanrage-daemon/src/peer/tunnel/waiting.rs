//! Packets for a member to whom there is a session but, for a moment, no way: it is just binding, or a relay has yet to
//! learn the session.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Longer than a relay takes to learn a session. What is older is of no use to a game.
const LIFE: Duration = Duration::from_secs(3);
/// For each member; the oldest make way.
const MOST: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<(Instant, Vec<u8>)>);

impl Waiting {
    pub(super) fn push(&mut self, packet: &[u8], now: Instant) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((now, packet.to_vec()));
    }

    /// The oldest that is still worth sending.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        while let Some((since, packet)) = self.0.pop_front() {
            if now.saturating_duration_since(since) < LIFE {
                return Some(packet);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_wait_in_order_not_for_long_and_not_without_end() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        (0..200).for_each(|n| waiting.push(&[n], start + Duration::from_millis(10 * u64::from(n))));
        let left: Vec<u8> = std::iter::from_fn(|| waiting.pop(start + LIFE + Duration::from_secs(1)))
            .map(|packet| packet[0])
            .collect();
        assert_eq!(left, (101..200).collect::<Vec<_>>(), "one second has gone by for the rest");
        (0..200).for_each(|n| waiting.push(&[n], start));
        assert_eq!(waiting.pop(start), Some(vec![200 - MOST as u8]));
    }
}
