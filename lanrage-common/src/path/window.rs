//! Replay protection that never grows.

/// Sliding window over sequence numbers (RFC 6479 in its simplest form): each is accepted once, very old ones never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    newest: u64,
    /// Bit n: `newest - n` was seen.
    seen: u64,
}

impl Window {
    /// Whether `sequence` is new; remembers it.
    pub fn accept(&mut self, sequence: u64) -> bool {
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.seen = if ahead < 64 { self.seen << ahead } else { 0 };
            self.newest = sequence;
        }
        let behind = self.newest - sequence;
        if behind >= 64 || self.seen & 1 << behind != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn every_sequence_is_accepted_at_most_once(sequences in proptest::collection::vec(0u64..200, 0..300)) {
            let (mut window, mut accepted) = (Window::default(), BTreeSet::new());
            for sequence in sequences {
                if window.accept(sequence) {
                    prop_assert!(accepted.insert(sequence));
                }
            }
        }

        #[test]
        fn rising_sequences_are_all_accepted(steps in proptest::collection::vec(1u64..1000, 1..100)) {
            let mut window = Window::default();
            let mut sequence = 0;
            for step in steps {
                sequence += step;
                prop_assert!(window.accept(sequence));
            }
        }
    }
}
