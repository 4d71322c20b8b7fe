//! How good a route is: round trip, jitter and loss of its last probes.

use std::collections::VecDeque;
use std::time::Duration;

const WINDOW: usize = 32;
const LOSS_WEIGHT: f64 = 300.0;

/// Outcomes of the last probes.
#[derive(Debug, Clone)]
pub struct Quality {
    /// Oldest first; `None` = no answer.
    outcomes: VecDeque<Option<Duration>>,
    window: usize,
}

impl Default for Quality {
    /// Of the last 32.
    fn default() -> Self {
        Self::of_last(WINDOW)
    }
}

impl Quality {
    /// Forgets all but the last `window` outcomes.
    pub fn of_last(window: usize) -> Self {
        Self { outcomes: VecDeque::new(), window }
    }

    /// Adds the outcome of a probe.
    pub fn record(&mut self, outcome: Option<Duration>) {
        if self.outcomes.len() == self.window {
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

    /// Score in milliseconds, lower is better: median + 2 × jitter + 300 × loss.
    pub fn score(&self) -> Option<f64> {
        Some(self.delay()? + LOSS_WEIGHT * self.loss()?)
    }

    fn delay(&self) -> Option<f64> {
        Some(self.rtt_ms()? + 2.0 * self.jitter_ms().unwrap_or_default())
    }

    /// The range in which the true loss surely lies: two standard errors, and no loss in n probes allows for two.
    fn loss_range(&self) -> (f64, f64) {
        let count = self.outcomes.len().max(1) as f64;
        let loss = self.loss().unwrap_or_default();
        let error = 2.0 * (loss * (1.0 - loss) / count).sqrt();
        ((loss - error).max(0.0), (loss + error + 2.0 / count).min(1.0))
    }

    /// Whether this route is so surely and so much better than `current` that changing is worth it. Loss counts only as
    /// far as chance cannot explain it: paths of equal loss would be exchanged for ever.
    pub fn is_clearly_better_than(&self, current: &Self) -> bool {
        let ((low, high), (current_low, current_high)) = (self.loss_range(), current.loss_range());
        let more_loss = (low - current_high).max(0.0) - (current_low - high).max(0.0);
        let delays = self.delay().zip(current.delay());
        delays.is_some_and(|(delay, current)| delay * 1.1 + 5.0 + LOSS_WEIGHT * more_loss < current)
    }
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
        let quality = quality(&[&[Some(900); 40][..], &[Some(10), Some(14)].repeat(14), &[None; 4]].concat());
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
    fn small_gains_and_chance_do_not_count() {
        let steady = |ms| quality(&[Some(ms); 8]);
        assert!(!steady(10).is_clearly_better_than(&steady(15)));
        assert!(steady(10).is_clearly_better_than(&steady(17)));
        let lossy = |lost: usize| quality(&[vec![None; lost], vec![Some(10); 32 - lost]].concat());
        assert!(!lossy(0).is_clearly_better_than(&lossy(3)), "three of 32 may be chance");
        assert!(lossy(0).is_clearly_better_than(&lossy(12)));
        assert!(
            !lossy(12).is_clearly_better_than(&quality(&[Some(50); 32])),
            "fast is not good when it loses"
        );
    }
}
