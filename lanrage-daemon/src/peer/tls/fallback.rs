//! When one relay is reached over TLS: UDP gives no answer, until it does.

use super::{Event, Trouble};
use lanrage_common::binding::{BindingClient, Output as BindingOutput, UnboundReason};
use lanrage_common::protocol::RelayTls;
use lanrage_common::time::Now;
use rand_core::OsRng;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A connection through which the relay does not answer for so long is given up.
const DEAD: Duration = Duration::from_secs(3);
/// First pause after a failure; later ones twice as long, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// What was on its way when UDP took over still arrives.
const LINGER: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a carrier.
    Open {
        /// Its number.
        id: u64,
        /// To where.
        place: RelayTls,
    },
    /// End a carrier.
    Close {
        /// Its number.
        id: u64,
    },
    /// Of the binding over TLS.
    Binding(BindingOutput),
}

#[derive(Debug)]
enum State {
    /// Not needed.
    Off,
    /// Tried again then.
    Waiting(Instant),
    Opening(u64),
    Open(u64, Box<BindingClient>),
    /// UDP has taken over; ends then.
    Leaving(u64, Instant),
}

/// A ticket and its session key.
pub type Credentials = (Vec<u8>, [u8; 32]);

/// See the module.
#[derive(Debug)]
pub struct Fallback {
    place: Option<RelayTls>,
    state: State,
    failures: u32,
    trouble: Option<Trouble>,
    outputs: VecDeque<Output>,
}

impl Fallback {
    /// For a relay that takes TLS there, or nowhere.
    pub fn new(place: Option<RelayTls>) -> Self {
        Self { place, state: State::Off, failures: 0, trouble: None, outputs: VecDeque::new() }
    }

    /// The relay takes TLS somewhere else, or has another certificate.
    pub fn set_place(&mut self, place: Option<RelayTls>, now: Now) {
        if place != self.place {
            self.place = place;
            self.stop(UnboundReason::NoAnswer);
            // what failed may work now
            (self.state, self.failures, self.trouble) = (State::Waiting(now.instant), 0, None);
        }
    }

    /// Where the relay takes TLS.
    pub fn place(&self) -> Option<RelayTls> {
        self.place
    }

    /// Why it does not work; `None` while that is unknown or it does.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The binding, once there is a connection.
    pub fn client(&self) -> Option<&BindingClient> {
        match &self.state {
            State::Open(_, client) => Some(client),
            _ => None,
        }
    }

    /// Whether the relay forwards for this member over TLS now.
    pub fn is_bound(&self) -> bool {
        self.client().is_some_and(BindingClient::is_bound)
    }

    /// A ticket came.
    pub fn set_ticket(&mut self, (ticket, session_key): &Credentials, now: Now) {
        if let State::Open(_, client) = &mut self.state {
            client.set_ticket(ticket.clone(), *session_key, now);
        }
    }

    /// The machine's network has changed: what failed is tried at once, what works is tested.
    pub fn rebind(&mut self, now: Now) {
        self.failures = 0;
        match &mut self.state {
            State::Waiting(until) => *until = now.instant,
            State::Open(_, client) => client.rebind(now),
            _ => {}
        }
    }

    /// UDP answers: the connection is closed in a moment. Says whether the relay may still prefer it.
    pub fn leave(&mut self, now: Now) -> bool {
        let (state, is_in_doubt) = match std::mem::replace(&mut self.state, State::Off) {
            State::Open(id, client) => {
                (State::Leaving(id, now.instant + LINGER), client.unanswered_since().is_some())
            }
            State::Opening(id) => {
                self.outputs.push_back(Output::Close { id });
                (State::Off, false)
            }
            State::Waiting(_) => (State::Off, false),
            same => (same, false),
        };
        (self.state, self.failures, self.trouble) = (state, 0, None);
        is_in_doubt
    }

    /// Gives the binding back.
    pub fn release(&mut self) {
        if let State::Open(_, client) = &mut self.state {
            client.release();
        }
    }

    /// Ends at once, because the relay is gone. Drain [`Fallback::poll_output`] once more.
    pub fn stop(&mut self, reason: UnboundReason) {
        let was_bound = self.is_bound();
        if let State::Opening(id) | State::Open(id, _) | State::Leaving(id, _) =
            std::mem::replace(&mut self.state, State::Off)
        {
            self.outputs.push_back(Output::Close { id });
        }
        if was_bound {
            self.outputs.push_back(Output::Binding(BindingOutput::Unbound { reason }));
        }
    }

    /// Word of a carrier; `true` when it was this one's.
    pub fn handle_event(&mut self, event: &Event, credentials: Option<&Credentials>, now: Now) -> bool {
        let (Event::Opened { id, .. } | Event::Ended { id, .. }) = event;
        if !matches!(&self.state, State::Opening(own) | State::Open(own, _) | State::Leaving(own, _) if own == id)
        {
            return false;
        }
        match (event, &self.state) {
            (Event::Opened { local, .. }, State::Opening(_)) => self.bind(*id, *local, credentials, now),
            (Event::Ended { why, .. }, State::Opening(_) | State::Open(..)) => {
                self.fail(why.clone(), now.instant)
            }
            (Event::Ended { .. }, _) => self.state = State::Off,
            (Event::Opened { .. }, _) => {}
        }
        true
    }

    fn bind(&mut self, id: u64, local: SocketAddr, credentials: Option<&Credentials>, now: Now) {
        let mut client = Box::new(BindingClient::new(local, OsRng));
        if let Some((ticket, session_key)) = credentials {
            client.set_ticket(ticket.clone(), *session_key, now);
        }
        self.state = State::Open(id, client);
    }

    fn fail(&mut self, trouble: Trouble, now: Instant) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(8)).min(LAST_PAUSE);
        let was_bound = self.is_bound();
        self.failures += 1;
        self.trouble = Some(trouble);
        self.state = State::Waiting(now + pause);
        if was_bound {
            let reason = UnboundReason::NoAnswer;
            self.outputs.push_back(Output::Binding(BindingOutput::Unbound { reason }));
        }
    }

    /// Takes a STUN datagram; says whether it was the relay's.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Now) -> bool {
        match &mut self.state {
            State::Open(_, client) => client.handle_datagram(from, datagram, now),
            _ => false,
        }
    }

    /// Does what is due. `needed_at`: when UDP has been silent for too long, unless it answers before; `id`: the number
    /// of the last carrier of all.
    pub fn handle_timeout(&mut self, needed_at: Option<Instant>, id: &mut u64, now: Now) {
        let is_needed = needed_at.is_some_and(|at| at <= now.instant);
        match &mut self.state {
            State::Off if is_needed => self.open(id),
            State::Waiting(until) if *until <= now.instant => match is_needed {
                true => self.open(id),
                false => self.state = State::Off,
            },
            State::Opening(_) if !is_needed => drop(self.leave(now)),
            State::Open(carrier, client) => {
                client.handle_timeout(now);
                let is_dead = client.unanswered_since().is_some_and(|since| now.instant >= since + DEAD);
                if is_dead {
                    self.outputs.push_back(Output::Close { id: *carrier });
                    let text = "the relay does not answer through the connection".into();
                    self.fail(Trouble::Other(text), now.instant);
                }
            }
            State::Leaving(carrier, until) if *until <= now.instant => {
                self.outputs.push_back(Output::Close { id: *carrier });
                self.state = State::Off;
            }
            _ => {}
        }
    }

    fn open(&mut self, id: &mut u64) {
        let Some(place) = self.place else {
            self.state = State::Off;
            return;
        };
        *id += 1;
        self.state = State::Opening(*id);
        self.outputs.push_back(Output::Open { id: *id, place });
    }

    /// When [`Fallback::handle_timeout`] is due.
    pub fn poll_timeout(&self, needed_at: Option<Instant>) -> Option<Instant> {
        match &self.state {
            State::Off => needed_at.filter(|_| self.place.is_some()),
            State::Waiting(until) | State::Leaving(_, until) => Some(*until),
            State::Opening(_) => None,
            State::Open(_, client) => {
                let dead = client.unanswered_since().map(|since| since + DEAD);
                [client.poll_timeout(), dead].into_iter().flatten().min()
            }
        }
    }

    /// What to do next; drain until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let State::Open(_, client) = &mut self.state else { return None };
        let output = client.poll_output()?;
        if matches!(output, BindingOutput::Bound { .. }) {
            (self.failures, self.trouble) = (0, None);
        }
        Some(Output::Binding(output))
    }
}
