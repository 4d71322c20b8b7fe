//! How good a route is: round trip, jitter and loss of its last probes.

use std::collections::VecDeque;
use std::time::Duration;

const WINDOW: usize = 32;
const JITTER_WEIGHT: f64 = 2.0;
const LOSS_WEIGHT: f64 = 300.0;
/// Fewer differences tell nothing of jitter.
const FEW_STEPS: usize = 7;

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
        let (count, sum) = self.steps().fold((0, 0.0), |(count, sum), step| (count + 1, sum + step));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// Differences of successive round trips.
    fn steps(&self) -> impl Iterator<Item = f64> + '_ {
        self.answers().zip(self.answers().skip(1)).map(|(a, b)| (b - a).abs())
    }

    /// Unanswered share, 0 to 1.
    pub fn loss(&self) -> Option<f64> {
        let lost = self.outcomes.iter().filter(|outcome| outcome.is_none()).count();
        (!self.outcomes.is_empty()).then(|| lost as f64 / self.outcomes.len() as f64)
    }

    /// Score in milliseconds, lower is better: median + 2 × jitter + 300 × loss.
    pub fn score(&self) -> Option<f64> {
        let delay = self.rtt_ms()? + JITTER_WEIGHT * self.jitter_ms().unwrap_or_default();
        Some(delay + LOSS_WEIGHT * self.loss()?)
    }

    /// The range in which the true loss surely lies: two standard errors, and no loss in n probes allows for two.
    fn loss_range(&self) -> (f64, f64) {
        let count = self.outcomes.len().max(1) as f64;
        let loss = self.loss().unwrap_or_default();
        let error = 2.0 * (loss * (1.0 - loss) / count).sqrt();
        ((loss - error).max(0.0), (loss + error + 2.0 / count).min(1.0))
    }

    /// The range in which the true jitter surely lies, milliseconds: two standard errors of its mean.
    fn jitter_range(&self) -> (f64, f64) {
        let steps: Vec<f64> = self.steps().collect();
        if steps.len() < FEW_STEPS {
            return (0.0, f64::INFINITY);
        }
        let count = steps.len() as f64;
        let mean = steps.iter().sum::<f64>() / count;
        let variance = steps.iter().map(|step| (step - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let error = 2.0 * (variance / count).sqrt();
        ((mean - error).max(0.0), mean + error)
    }

    /// Whether this route is so surely better than `current`, and by more than `margin_ms`, that changing is worth it.
    /// Loss and jitter count only as far as chance cannot explain them: paths of equal loss would be exchanged for ever,
    /// and a processor that was busy for a moment would decide between paths.
    pub fn is_clearly_better_than(&self, current: &Self, margin_ms: f64) -> bool {
        let more_loss = surplus(self.loss_range(), current.loss_range());
        let more_jitter = surplus(self.jitter_range(), current.jitter_range());
        let cost = margin_ms + JITTER_WEIGHT * more_jitter + LOSS_WEIGHT * more_loss;
        let medians = self.rtt_ms().zip(current.rtt_ms());
        medians.is_some_and(|(rtt, current)| rtt * 1.1 + cost < current)
    }

    /// What its last few outcomes tell.
    pub fn recent(&self, count: usize) -> Self {
        let skipped = self.outcomes.len().saturating_sub(count);
        Self { outcomes: self.outcomes.iter().skip(skipped).copied().collect(), window: self.window }
    }
}

/// By how much the first of two ranges surely lies above the second; below zero when it lies below.
fn surplus((low, high): (f64, f64), (other_low, other_high): (f64, f64)) -> f64 {
    (low - other_high).max(0.0) - (other_low - high).max(0.0)
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

    const MARGIN: f64 = 5.0;

    #[test]
    fn small_gains_and_chance_do_not_count() {
        let steady = |ms| quality(&[Some(ms); 8]);
        assert!(!steady(10).is_clearly_better_than(&steady(15), MARGIN));
        assert!(steady(10).is_clearly_better_than(&steady(17), MARGIN));
        let lossy = |lost: usize| quality(&[vec![None; lost], vec![Some(10); 32 - lost]].concat());
        assert!(!lossy(0).is_clearly_better_than(&lossy(3), MARGIN), "three of 32 may be chance");
        assert!(lossy(0).is_clearly_better_than(&lossy(12), MARGIN));
        assert!(
            !lossy(12).is_clearly_better_than(&quality(&[Some(50); 32]), MARGIN),
            "fast is not good when it loses"
        );
    }

    #[test]
    fn a_busy_moment_is_no_jitter_but_a_restless_path_is() {
        let steady = quality(&[Some(10); 32]);
        for samples in [3, 8, 32] {
            let mut outcomes = vec![Some(10); samples];
            outcomes[1] = Some(120);
            assert!(!steady.is_clearly_better_than(&quality(&outcomes), MARGIN), "{samples}");
        }
        let restless = quality(&[Some(10), Some(40)].repeat(8));
        assert!(steady.is_clearly_better_than(&restless, MARGIN));
        assert!(!restless.is_clearly_better_than(&quality(&[Some(50); 16]), MARGIN));
    }

    #[test]
    fn the_recent_past_can_be_told_from_the_whole() {
        let quality = quality(&[&[Some(90); 20][..], &[Some(10); 8]].concat());
        assert_eq!((quality.rtt_ms(), quality.recent(8).rtt_ms()), (Some(90.0), Some(10.0)));
        assert_eq!(quality.recent(8).samples(), 8);
    }
}
