//! The member's side: gets bound, stays bound, says when it is not.

use super::message::{BindAnswer, BindRequest, Refusal, is_stun, parse_answer, verify_integrity};
use crate::ticket::MAX_TICKET_LIFE;
use crate::time::Now;
use rand_core::{CryptoRngCore, OsRng};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// First retransmission; each later one waits twice as long (RFC 8489 section 6.2.1, with a faster start).
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Longest wait between retransmissions.
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Unanswered transmissions after which the binding counts as lost (3.75 s).
const LOST_AFTER: u32 = 4;
/// Challenges in a row that are answered at once.
const MAX_CHALLENGES: u32 = 3;
/// Refresh after this and up to [`REFRESH_JITTER`] more.
const REFRESH: Duration = Duration::from_secs(20);
const REFRESH_JITTER: Duration = Duration::from_secs(5);
/// Wait after a refusal that time may cure.
const REFUSED_RETRY: Duration = Duration::from_secs(5);
/// Half of a ticket's life: time for the next one.
const TICKET_HALF_LIFE: Duration = Duration::from_secs(MAX_TICKET_LIFE / 2);
/// How often an unanswered [`Output::NeedTicket`] is repeated, and the pause before one when the ticket it brought was
/// refused too: with skewed clocks every ticket is.
const TICKET_RETRY: Duration = Duration::from_secs(5);
const RTT_SAMPLES: usize = 9;

/// What the client wants done, or has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram, from the socket that shall be bound.
    Transmit {
        /// The relay.
        to: SocketAddr,
        /// STUN.
        payload: Vec<u8>,
    },
    /// Bound: the relay forwards from and to this address now.
    Bound {
        /// The own address as the relay sees it.
        mapped: SocketAddr,
    },
    /// Still bound, but the NAT has moved the mapping.
    MappedChanged {
        /// The new address.
        mapped: SocketAddr,
    },
    /// Not bound (any more); the client goes on trying.
    Unbound {
        /// Why.
        reason: UnboundReason,
    },
    /// Fetch a ticket for this relay and hand it to [`BindingClient::set_ticket`]. Repeated until that happens.
    NeedTicket,
}

/// Why a member is not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnboundReason {
    /// Several requests in a row went unanswered.
    #[error("the relay does not answer")]
    NoAnswer,
    /// The relay has lost its nonces, hence its flows: it was restarted. Followed by [`Output::Bound`] at once.
    #[error("the relay has forgotten its members")]
    Forgotten,
    /// The relay said no.
    #[error("the relay refused: {}", .0.as_str())]
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    transaction: [u8; 12],
    sent: Instant,
    transmissions: u32,
}

#[derive(Debug)]
struct Credentials {
    ticket: Vec<u8>,
    session_key: [u8; 32],
}

/// Keeps one binding at one relay. Randomness: transaction ids and jitter.
#[derive(Debug)]
pub struct BindingClient<R = OsRng> {
    relay: SocketAddr,
    rng: R,
    credentials: Option<Credentials>,
    nonce: Option<String>,
    ask: Option<Ask>,
    challenges: u32,
    mapped: Option<SocketAddr>,
    reported: Option<UnboundReason>,
    expires: Option<Instant>,
    /// When to transmit next: retransmission, refresh or retry after a refusal.
    next_send: Option<Instant>,
    next_ticket: Option<Instant>,
    /// When a ticket was last asked for.
    asked_ticket: Option<Instant>,
    rtts: VecDeque<Duration>,
    outputs: VecDeque<Output>,
}

impl<R: CryptoRngCore> BindingClient<R> {
    /// A client for `relay` that first asks for a ticket.
    pub fn new(relay: SocketAddr, rng: R) -> Self {
        Self {
            relay,
            rng,
            credentials: None,
            nonce: None,
            ask: None,
            challenges: 0,
            mapped: None,
            reported: None,
            expires: None,
            next_send: None,
            next_ticket: None,
            asked_ticket: None,
            rtts: VecDeque::new(),
            outputs: VecDeque::from([Output::NeedTicket]),
        }
    }

    /// The relay's address.
    pub fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// The own address as the relay sees it, while bound.
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// Whether the relay forwards for this member now.
    pub fn is_bound(&self) -> bool {
        self.mapped.is_some()
    }

    /// Since when the relay owes an answer.
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.ask.map(|ask| ask.sent)
    }

    /// Round trip of the last exchange that needed no retransmission.
    pub fn last_rtt(&self) -> Option<Duration> {
        self.rtts.back().copied()
    }

    /// Median round trip of the last nine exchanges that needed no retransmission.
    pub fn median_rtt(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.rtts.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    /// Takes a ticket (raw bytes) and its session key, and binds or refreshes with it at once.
    pub fn set_ticket(&mut self, ticket: Vec<u8>, session_key: [u8; 32], now: Now) {
        self.credentials = Some(Credentials { ticket, session_key });
        self.next_ticket = Some(now.instant + TICKET_HALF_LIFE);
        self.outputs.retain(|output| *output != Output::NeedTicket);
        self.begin(now.instant);
    }

    /// Asks the relay anew at once, e.g. after the machine's network changed.
    pub fn rebind(&mut self, now: Now) {
        if self.credentials.is_some() {
            self.begin(now.instant);
        }
    }

    /// Gives the binding back (one datagram, no answer awaited) and stops until [`BindingClient::set_ticket`].
    pub fn release(&mut self) {
        if let (true, Some(credentials)) = (self.is_bound(), &self.credentials) {
            let request = BindRequest {
                transaction: new_transaction(&mut self.rng),
                ticket: credentials.ticket.clone(),
                nonce: self.nonce.clone(),
                release: true,
            };
            let payload = request.encode(&credentials.session_key);
            self.outputs.push_back(Output::Transmit { to: self.relay, payload });
        }
        self.credentials = None;
        (self.ask, self.mapped, self.expires) = (None, None, None);
        (self.next_send, self.next_ticket) = (None, None);
    }

    /// Takes a datagram; `true` means that it was an answer of the relay to Bind and needs no other handling.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Now) -> bool {
        if from != self.relay || !is_stun(datagram) {
            return false;
        }
        let Some((transaction, answer)) = parse_answer(datagram) else { return false };
        let Some(ask) = self.ask.filter(|ask| ask.transaction == transaction) else { return true };
        match answer {
            BindAnswer::Bound { mapped, lifetime, nonce } => {
                if self.credentials.as_ref().is_some_and(|c| verify_integrity(datagram, &c.session_key)) {
                    self.take_rtt(ask, now.instant);
                    self.take_bound(mapped, lifetime, nonce, now.instant);
                }
            }
            BindAnswer::Challenge { nonce } => {
                self.take_rtt(ask, now.instant);
                self.take_challenge(nonce, now.instant);
            }
            BindAnswer::Refused(refusal) => self.take_refusal(refusal, now.instant),
        }
        true
    }

    /// Does what is due: retransmission, refresh, expiry, ticket.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.instant;
        if self.next_ticket.is_some_and(|at| at <= now) {
            self.ask_for_ticket(now);
        }
        if self.expires.is_some_and(|at| at <= now) {
            self.lose(UnboundReason::NoAnswer);
        }
        if self.next_send.is_some_and(|at| at <= now) {
            match self.ask {
                Some(ask) => self.retransmit(ask, now),
                None => self.begin(now),
            }
        }
    }

    /// When [`BindingClient::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.next_send, self.next_ticket, self.expires].into_iter().flatten().min()
    }

    /// What to do next; call until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn begin(&mut self, now: Instant) {
        self.challenges = 0;
        self.ask_anew(now);
    }

    fn ask_anew(&mut self, now: Instant) {
        let transaction = new_transaction(&mut self.rng);
        self.transmit(Ask { transaction, sent: now, transmissions: 0 }, now);
    }

    fn retransmit(&mut self, ask: Ask, now: Instant) {
        if ask.transmissions >= LOST_AFTER {
            self.lose(UnboundReason::NoAnswer);
        }
        self.transmit(ask, now);
    }

    fn transmit(&mut self, ask: Ask, now: Instant) {
        let Some(credentials) = &self.credentials else { return };
        let request = BindRequest {
            transaction: ask.transaction,
            ticket: credentials.ticket.clone(),
            nonce: self.nonce.clone(),
            release: false,
        };
        let payload = request.encode(&credentials.session_key);
        self.outputs.push_back(Output::Transmit { to: self.relay, payload });
        let wait = FIRST_RETRY.saturating_mul(1 << ask.transmissions.min(8)).min(LAST_RETRY);
        self.ask = Some(Ask { transmissions: ask.transmissions + 1, ..ask });
        self.next_send = Some(now + wait);
    }

    fn take_rtt(&mut self, ask: Ask, now: Instant) {
        if ask.transmissions > 1 {
            return; // which transmission was answered is unknown (Karn)
        }
        if self.rtts.len() == RTT_SAMPLES {
            self.rtts.pop_front();
        }
        self.rtts.push_back(now.saturating_duration_since(ask.sent));
    }

    fn take_bound(&mut self, mapped: SocketAddr, lifetime: Duration, nonce: Option<String>, now: Instant) {
        // a live nonce is refused only for another address, or by a relay that has lost its secrets
        if self.challenges > 0 && self.mapped == Some(mapped) {
            self.lose(UnboundReason::Forgotten);
        }
        match self.mapped.replace(mapped) {
            None => self.outputs.push_back(Output::Bound { mapped }),
            Some(old) if old != mapped => self.outputs.push_back(Output::MappedChanged { mapped }),
            Some(_) => {}
        }
        (self.ask, self.reported, self.challenges) = (None, None, 0);
        self.nonce = nonce.or(self.nonce.take());
        self.expires = Some(now + lifetime);
        let jitter = Duration::from_millis(u64::from(self.rng.next_u32()) % jitter_millis());
        self.next_send = Some(now + (REFRESH + jitter).min(lifetime / 2).max(FIRST_RETRY));
    }

    fn take_challenge(&mut self, nonce: String, now: Instant) {
        self.nonce = Some(nonce);
        self.challenges += 1;
        if self.challenges <= MAX_CHALLENGES {
            self.ask_anew(now);
        } else {
            self.ask = None;
            self.next_send = Some(now + REFUSED_RETRY);
        }
    }

    fn take_refusal(&mut self, refusal: Refusal, now: Instant) {
        self.ask = None;
        self.lose(UnboundReason::Refused(refusal));
        if refusal.needs_ticket() {
            self.credentials = None;
            self.next_send = None;
            match self.asked_ticket {
                Some(at) if now < at + TICKET_RETRY => self.next_ticket = Some(now + TICKET_RETRY),
                _ => self.ask_for_ticket(now),
            }
        } else {
            self.next_send = Some(now + REFUSED_RETRY);
        }
    }

    fn ask_for_ticket(&mut self, now: Instant) {
        self.asked_ticket = Some(now);
        self.next_ticket = Some(now + TICKET_RETRY);
        self.outputs.push_back(Output::NeedTicket);
    }

    /// Reports a reason once until bound again.
    fn lose(&mut self, reason: UnboundReason) {
        let was_bound = self.mapped.take().is_some();
        self.expires = None;
        if was_bound || self.reported != Some(reason) {
            self.reported = Some(reason);
            self.outputs.push_back(Output::Unbound { reason });
        }
    }
}

fn jitter_millis() -> u64 {
    u64::try_from(REFRESH_JITTER.as_millis()).unwrap_or(u64::MAX)
}

fn new_transaction(rng: &mut impl CryptoRngCore) -> [u8; 12] {
    let mut transaction = [0; 12];
    rng.fill_bytes(&mut transaction);
    transaction
}
