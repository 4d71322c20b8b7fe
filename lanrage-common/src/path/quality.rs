//! How good a route is: round trip, jitter and loss of its last probes.

use std::collections::VecDeque;
use std::time::Duration;

const WINDOW: usize = 16;

/// Outcomes of the last 16 probes.
#[derive(Debug, Clone, Default)]
pub struct Quality {
    /// Oldest first; `None` = no answer.
    outcomes: VecDeque<Option<Duration>>,
}

impl Quality {
    /// Adds the outcome of a probe.
    pub fn record(&mut self, outcome: Option<Duration>) {
        if self.outcomes.len() == WINDOW {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
    }

    fn answers(&self) -> impl Iterator<Item = f64> + '_ {
        self.outcomes.iter().flatten().map(|rtt| rtt.as_secs_f64() * 1e3)
    }

    /// Answered probes in the window.
    pub fn samples(&self) -> usize {
        self.answers().count()
    }

    /// Median round trip in milliseconds.
    pub fn rtt_ms(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.answers().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    /// Mean difference of successive round trips in milliseconds.
    pub fn jitter_ms(&self) -> Option<f64> {
        let pairs = self.answers().zip(self.answers().skip(1));
        let (count, sum) = pairs.fold((0, 0.0), |(count, sum), (a, b)| (count + 1, sum + (b - a).abs()));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// Unanswered share, 0 to 1.
    pub fn loss(&self) -> Option<f64> {
        let lost = self.outcomes.iter().filter(|outcome| outcome.is_none()).count();
        (!self.outcomes.is_empty()).then(|| lost as f64 / self.outcomes.len() as f64)
    }

    /// Milliseconds, lower is better: median + 2 × jitter + 300 × loss.
    pub fn score(&self) -> Option<f64> {
        let loss = self.loss().unwrap_or_default();
        Some(self.rtt_ms()? + 2.0 * self.jitter_ms().unwrap_or_default() + 300.0 * loss)
    }
}

/// Whether a route with score `challenger` is so much better than one with score `current` that changing is worth it.
pub fn is_clearly_better(challenger: f64, current: f64) -> bool {
    challenger * 1.1 + 5.0 < current
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(outcomes: &[Option<u64>]) -> Quality {
        let mut quality = Quality::default();
        outcomes.iter().for_each(|ms| quality.record(ms.map(Duration::from_millis)));
        quality
    }

    #[test]
    fn figures_come_from_the_window_only() {
        let quality =
            quality(&[&[Some(900); 20][..], &[Some(10), Some(14)].repeat(7), &[None, None]].concat());
        assert_eq!(quality.rtt_ms(), Some(14.0));
        assert_eq!(quality.jitter_ms(), Some(4.0));
        assert_eq!(quality.loss(), Some(0.125));
        assert_eq!(quality.score(), Some(14.0 + 8.0 + 37.5));
    }

    #[test]
    fn nothing_is_known_of_a_silent_route() {
        let silent = quality(&[None, None]);
        assert_eq!((silent.rtt_ms(), silent.jitter_ms(), silent.score()), (None, None, None));
        assert_eq!((silent.loss(), Quality::default().loss()), (Some(1.0), None));
    }

    #[test]
    fn small_gains_do_not_count() {
        assert!(!is_clearly_better(10.0, 15.0));
        assert!(is_clearly_better(10.0, 16.1));
    }
}
