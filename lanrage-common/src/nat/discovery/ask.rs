//! One question to one server, with its repetitions.

use super::Via;
use crate::binding::{BindingRequest, behaviour_request};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// After these times a question is sent again (RFC 8489, section 6.2.1, with a shorter first wait: a person may wait);
/// the last is when it is given up.
const PATIENT: &[Duration] = &[
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(1000),
    Duration::from_millis(1100),
];
/// The same for what may well stay without an answer, at a server that has just answered.
const BRIEF: &[Duration] =
    &[Duration::from_millis(400), Duration::from_millis(500), Duration::from_millis(600)];

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Under which address does this server see the tunnel's socket?
    Basic(usize),
    /// And a socket that has never sent before? Does the server know RFC 5780?
    Fresh,
    /// Does what is sent to the own mapped address come back?
    Hairpin,
    /// Does an answer from another address come in?
    Elsewhere,
    /// Does one from another port?
    OtherPort,
    /// Under which address does another place see the tunnel's socket?
    Place,
    /// Which port does the next mapping get?
    Port,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer.
    Answer { mapped: SocketAddr, origin: Option<SocketAddr>, other: Option<SocketAddr> },
    /// The server cannot do that.
    Unable,
    /// The request itself came back.
    Returned,
    /// Nothing.
    Silence,
}

#[derive(Debug)]
pub(super) struct Ask {
    pub question: Question,
    pub via: Via,
    pub to: SocketAddr,
    pub transaction: [u8; 12],
    pub outcome: Option<Outcome>,
    started: Instant,
    next: Instant,
    sent: usize,
    answered: Option<Instant>,
}

impl Ask {
    pub fn new(question: Question, via: Via, to: SocketAddr, transaction: [u8; 12], now: Instant) -> Self {
        Self {
            question,
            via,
            to,
            transaction,
            outcome: None,
            started: now,
            next: now,
            sent: 0,
            answered: None,
        }
    }

    pub fn is_finished(&self) -> bool {
        self.outcome.is_some()
    }

    pub fn finish(&mut self, outcome: Outcome, now: Instant) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.answered = Some(now);
        }
    }

    /// The address that the server has seen.
    pub fn mapped(&self) -> Option<SocketAddr> {
        match self.outcome {
            Some(Outcome::Answer { mapped, .. }) => Some(mapped),
            _ => None,
        }
    }

    /// Only of a question that was asked once: otherwise nobody knows which was answered.
    pub fn rtt(&self) -> Option<Duration> {
        let answered = self.answered.filter(|_| self.sent == 1 && self.mapped().is_some())?;
        Some(answered.saturating_duration_since(self.started))
    }

    pub fn due(&self) -> Option<Instant> {
        (!self.is_finished()).then_some(self.next)
    }

    /// What to send now.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.is_finished() || now < self.next {
            return None;
        }
        let is_patient = matches!(self.question, Question::Basic(_));
        let waits = if is_patient { PATIENT } else { BRIEF };
        let Some(wait) = waits.get(self.sent) else {
            self.outcome = Some(Outcome::Silence);
            return None;
        };
        self.sent += 1;
        self.next = now + *wait;
        let request = BindingRequest {
            transaction: self.transaction,
            change_ip: self.question == Question::Elsewhere,
            change_port: matches!(self.question, Question::Elsewhere | Question::OtherPort),
            response_port: None,
            has_padding: false,
        };
        Some(behaviour_request(&request, self.question == Question::Fresh))
    }
}
