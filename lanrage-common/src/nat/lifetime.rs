//! How long a NAT keeps a mapping without traffic (RFC 5780, section 4.6).
//!
//! One spare socket makes a mapping; after a silence the other asks for an answer to that mapping's port (RESPONSE-PORT).
//! Silences double until the mapping dies or [`ENOUGH`] is reached, then the gap is halved. A round takes as long as
//! its silence, so this runs in the background.

use super::discovery::{Transmit, Via};
use crate::binding::{BehaviourAnswer, BindingRequest, behaviour_request, parse_behaviour_answer};
use crate::time::Now;
use rand_core::CryptoRngCore;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What RFC 4787 (REQ-5) demands; nobody here needs to know more.
pub const ENOUGH: Duration = Duration::from_secs(120);
/// The first silence.
const FIRST: Duration = Duration::from_secs(15);
/// Known well enough.
const EXACT: Duration = Duration::from_secs(8);
/// Shorter ones are not kept alive by anybody.
const LEAST: Duration = Duration::from_secs(4);
/// An answer takes at most this long.
const ANSWER: Duration = Duration::from_millis(800);
/// Requests before the silence of the server is believed.
const TRIES: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The first socket makes its mapping.
    Making,
    /// Nothing may be sent.
    Silent {
        port: u16,
    },
    /// The second socket has asked for an answer to that port.
    Asking {
        port: u16,
    },
    Done,
}

/// See the module.
pub struct Lifetime {
    server: SocketAddr,
    step: Step,
    transaction: [u8; 12],
    tries: u32,
    due: Instant,
    silence: Duration,
    /// It lived as long as this.
    lived: Duration,
    /// It was dead after this.
    died: Option<Duration>,
    rng: Box<dyn CryptoRngCore + Send>,
    outputs: VecDeque<Transmit>,
}

impl fmt::Debug for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, lived, died, .. } = self;
        f.debug_struct("Lifetime")
            .field("step", step)
            .field("lived", lived)
            .field("died", died)
            .finish_non_exhaustive()
    }
}

impl Lifetime {
    /// Starts against a server that knows RFC 5780.
    pub fn new(server: SocketAddr, rng: impl CryptoRngCore + Send + 'static, now: Now) -> Self {
        Self {
            server,
            step: Step::Making,
            transaction: [0; 12],
            tries: 0,
            due: now.instant,
            silence: FIRST,
            lived: Duration::ZERO,
            died: None,
            rng: Box::new(rng),
            outputs: VecDeque::new(),
        }
    }

    /// How long a mapping certainly lives; `None` as long as nothing is known.
    pub fn lived(&self) -> Option<Duration> {
        (!self.lived.is_zero()).then_some(self.lived)
    }

    /// Whether nothing more will be learnt.
    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// Takes a datagram that came to a socket. Returns whether it was an answer to a question of ours.
    pub fn handle_datagram(&mut self, via: Via, datagram: &[u8], now: Now) -> bool {
        let Some((transaction, answer)) = parse_behaviour_answer(datagram) else { return false };
        if transaction != self.transaction {
            return false;
        }
        match (self.step, via, answer) {
            (Step::Making, Via::Spare(0), BehaviourAnswer::Mapped { mapped, .. }) => {
                self.step = Step::Silent { port: mapped.port() };
                self.due = now.instant + self.silence;
            }
            (Step::Asking { .. }, Via::Spare(0), _) => {
                self.lived = self.silence;
                self.next_round(now.instant);
            }
            // the server does not know RESPONSE-PORT: it answers where it was asked
            (Step::Asking { .. }, ..) | (Step::Making, _, BehaviourAnswer::Unable) => self.step = Step::Done,
            _ => {}
        }
        true
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if now.instant < self.due {
            return;
        }
        match self.step {
            Step::Making if self.tries == TRIES => self.step = Step::Done,
            Step::Making => self.send(Via::Spare(0), None, now.instant),
            Step::Silent { port } => {
                (self.step, self.tries) = (Step::Asking { port }, 0);
                self.send(Via::Spare(1), Some(port), now.instant);
            }
            Step::Asking { port } if self.tries < TRIES => self.send(Via::Spare(1), Some(port), now.instant),
            Step::Asking { .. } => {
                self.died = Some(self.silence);
                self.next_round(now.instant);
            }
            Step::Done => {}
        }
    }

    /// When [`Lifetime::handle_timeout`] is due; `None` when done.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_done()).then_some(self.due)
    }

    /// What to send; drain until `None`.
    pub fn poll_output(&mut self) -> Option<Transmit> {
        self.outputs.pop_front()
    }

    fn next_round(&mut self, now: Instant) {
        let next = match self.died {
            None if self.lived >= ENOUGH => None,
            None => Some((self.lived * 2).min(ENOUGH)),
            // that it ever lived has to be seen: without that, probes keep their usual distance
            Some(died)
                if died.saturating_sub(self.lived) <= EXACT && (!self.lived.is_zero() || died < LEAST) =>
            {
                None
            }
            Some(died) => Some((self.lived + died) / 2),
        };
        (self.tries, self.due) = (0, now);
        match next {
            Some(silence) => (self.silence, self.step) = (silence, Step::Making),
            None => self.step = Step::Done,
        }
    }

    fn send(&mut self, via: Via, response_port: Option<u16>, now: Instant) {
        if self.tries == 0 {
            self.rng.fill_bytes(&mut self.transaction);
        }
        self.tries += 1;
        self.due = now + ANSWER;
        let request = BindingRequest {
            transaction: self.transaction,
            change_ip: false,
            change_port: false,
            response_port,
            has_padding: false,
        };
        self.outputs.push_back(Transmit {
            via,
            to: self.server,
            payload: behaviour_request(&request, false),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::{FullAnswer, Request, full_answer, parse_request};
    use proptest::prelude::*;

    /// Runs against a NAT that forgets after this long.
    fn measure(keeps: Duration) -> Option<Duration> {
        let start = Instant::now();
        let mut now = Now { instant: start, unix: 0 };
        let server = "192.0.2.6:3478".parse().unwrap();
        let mut lifetime = Lifetime::new(server, rand_core::OsRng, now);
        let mut made = start;
        while let Some(due) = lifetime.poll_timeout() {
            now.instant = due.max(now.instant);
            lifetime.handle_timeout(now);
            while let Some(transmit) = lifetime.poll_output() {
                let Some(Request::Binding(request)) = parse_request(&transmit.payload) else { panic!() };
                let mapped = match transmit.via {
                    Via::Spare(0) => "203.0.113.9:4000",
                    _ => "203.0.113.9:4001",
                };
                let answer = FullAnswer {
                    transaction: request.transaction,
                    mapped: mapped.parse().unwrap(),
                    origin: Some(server),
                    other: None,
                };
                let is_alive = now.instant.saturating_duration_since(made) < keeps;
                if request.response_port.is_none() {
                    made = now.instant;
                } else if request.response_port != Some(4000) || !is_alive {
                    continue;
                }
                assert!(lifetime.handle_datagram(Via::Spare(0), &full_answer(&answer, None), now));
            }
        }
        lifetime.lived()
    }

    #[test]
    fn lifetimes_are_found_within_eight_seconds() {
        for seconds in [18, 30, 45, 63, 90, 119] {
            let keeps = Duration::from_secs(seconds);
            let found = measure(keeps).unwrap();
            assert!(found <= keeps && keeps - found <= EXACT, "{found:?} instead of {keeps:?}");
        }
        assert_eq!(measure(Duration::from_secs(3600)), Some(ENOUGH));
    }

    #[test]
    fn short_lifetimes_are_found_too() {
        for seconds in [5, 7, 9] {
            let found = measure(Duration::from_secs(seconds)).unwrap();
            assert!(found < Duration::from_secs(seconds), "{found:?}");
        }
        assert_eq!(measure(Duration::from_secs(2)), None);
    }

    proptest! {
        #[test]
        fn any_datagram_is_survived(datagram in proptest::collection::vec(any::<u8>(), 0..200), spare in 0usize..3) {
            let now = Now { instant: Instant::now(), unix: 0 };
            let mut lifetime = Lifetime::new("192.0.2.6:3478".parse().unwrap(), rand_core::OsRng, now);
            lifetime.handle_timeout(now);
            prop_assert!(!lifetime.handle_datagram(Via::Spare(spare), &datagram, now));
        }
    }
}
