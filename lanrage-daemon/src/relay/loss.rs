//! Datagrams that were lost before a worker could take them.

use lanrage_common::api::Problem;
use std::time::{Duration, Instant};

/// How long a loss is worth the operator's attention.
const REMEMBERED: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Losses {
    /// Whether the sockets have less room than they asked for.
    is_cramped: bool,
    /// Total at the beginning of the current minute with losses.
    before: u64,
    total: u64,
    last: Option<Instant>,
    started: Instant,
}

impl Losses {
    pub(super) fn new(is_cramped: bool, now: Instant) -> Self {
        Self { is_cramped, before: 0, total: 0, last: None, started: now }
    }

    /// Takes the sockets' total. Warns of the first loss after a quiet minute.
    pub(super) fn note(&mut self, total: u64, now: Instant) {
        let is_quiet = self.last.is_none_or(|last| now.saturating_duration_since(last) >= REMEMBERED);
        if is_quiet {
            (self.before, self.last) = (self.total, None);
        }
        if total > self.total {
            (self.total, self.last) = (total, Some(now));
            if is_quiet {
                self.started = now;
                if let Some(problem) = self.problem() {
                    tracing::warn!(fix = problem.fix, "{}", problem.message);
                }
            }
        }
    }

    /// What the operator should know, as long as it is news.
    pub(super) fn problem(&self) -> Option<Problem> {
        let last = self.last?;
        let lost = self.total - self.before;
        let seconds = last.saturating_duration_since(self.started).as_secs() + 1;
        let fix = if self.is_cramped {
            "give the sockets room: sysctl -w net.core.rmem_max=8388608 net.core.wmem_max=8388608, or CAP_NET_ADMIN, and \
             restart the relay"
        } else {
            "let the kernel forward (see the relay's mode), or give the relay more cores; members' tickets limit what \
             each may send"
        };
        Some(Problem {
            code: "relay_overload".into(),
            message: format!(
                "the relay lost {lost} datagrams within {seconds} s: they came faster than it forwards"
            ),
            fix: fix.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_news_for_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut losses = Losses::new(true, start);
        losses.note(0, at(1));
        assert_eq!(losses.problem(), None);
        losses.note(5, at(2));
        losses.note(9, at(4));
        losses.note(9, at(63));
        let problem = losses.problem().unwrap();
        assert!(problem.message.contains("lost 9 datagrams within 3 s"), "{}", problem.message);
        assert!(problem.fix.contains("net.core.rmem_max=8388608"), "{}", problem.fix);
        losses.note(9, at(64));
        assert_eq!(losses.problem(), None);
        losses.note(10, at(70));
        assert!(losses.problem().unwrap().message.contains("lost 1 datagrams within 1 s"));
    }
}
