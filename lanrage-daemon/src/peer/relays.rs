//! The bindings of this device: one client for each address of each relay on the list.

use lanrage_common::binding::{BindingClient, Output as BindingOutput, UnboundReason};
use lanrage_common::protocol::RelayInfo;
use lanrage_common::time::Now;
use rand_core::OsRng;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A ticket that did not come is asked for again after this.
const TICKET_RETRY: Duration = Duration::from_secs(5);
/// Without any answer for this long, UDP is called blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);

/// What the event loop must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram from the tunnel's socket.
    Transmit {
        /// The relay.
        to: SocketAddr,
        /// STUN.
        payload: Vec<u8>,
    },
    /// Ask the control server for a ticket.
    NeedTicket {
        /// For which relay.
        relay: String,
    },
    /// Tell the path agent.
    Bound {
        /// The relay's name.
        name: String,
        /// Its address.
        relay: SocketAddr,
        /// Own address as the relay sees it.
        mapped: SocketAddr,
        /// Round trip.
        rtt: Option<Duration>,
    },
    /// Tell the path agent.
    Unbound {
        /// The relay's name.
        name: String,
    },
}

/// Why there is no binding at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The list is empty.
    NoRelay,
    /// No relay answers.
    Silent {
        /// Names and addresses.
        relays: String,
    },
    /// A relay refuses.
    Refused {
        /// Which and why.
        cause: String,
    },
}

struct Relay {
    name: String,
    client: BindingClient,
    /// When the ticket was last asked for, while none has come.
    waits_since: Option<Instant>,
    first_sent: Option<Instant>,
    reason: Option<UnboundReason>,
    told: Option<(SocketAddr, Option<Duration>)>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("name", &self.name)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Relays {
    relays: Vec<Relay>,
    is_known: bool,
}

impl Relays {
    /// Replaces the list: new relays are bound to, vanished ones released. Returns the names of bound ones that vanished.
    pub fn set(&mut self, list: &[RelayInfo]) -> Vec<String> {
        self.is_known = true;
        let wanted: Vec<(&str, SocketAddr)> = list
            .iter()
            .filter_map(|relay| {
                let ipv4 = relay.addresses.iter().find(|address| address.is_ipv4());
                Some((relay.name.as_str(), *ipv4.or(relay.addresses.first())?))
            })
            .collect();
        let (kept, gone) = std::mem::take(&mut self.relays)
            .into_iter()
            .partition(|relay| wanted.contains(&(relay.name.as_str(), relay.client.relay())));
        self.relays = kept;
        for (name, address) in wanted {
            if !self.relays.iter().any(|relay| relay.name == name) {
                self.relays.push(Relay {
                    name: name.into(),
                    client: BindingClient::new(address, OsRng),
                    waits_since: None,
                    first_sent: None,
                    reason: None,
                    told: None,
                });
            }
        }
        let gone: Vec<Relay> = gone;
        gone.into_iter().filter(|relay| relay.client.is_bound()).map(|relay| relay.name).collect()
    }

    /// A ticket came.
    pub fn set_ticket(&mut self, name: &str, ticket: Vec<u8>, session_key: [u8; 32], now: Now) {
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.name == name) {
            relay.waits_since = None;
            relay.first_sent.get_or_insert(now.instant);
            relay.client.set_ticket(ticket, session_key, now);
        }
    }

    /// A ticket of the last run: used until the fresh one comes that is asked for all the same.
    pub fn set_old_ticket(&mut self, name: &str, ticket: Vec<u8>, session_key: [u8; 32], now: Now) {
        self.set_ticket(name, ticket, session_key, now);
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.name == name) {
            relay.waits_since = Some(now.instant);
        }
    }

    /// Relays that have had no ticket yet.
    pub fn without_ticket(&self) -> impl Iterator<Item = &str> {
        self.relays.iter().filter(|relay| relay.first_sent.is_none()).map(|relay| relay.name.as_str())
    }

    /// The control server is reachable (again): what was asked for in vain is asked for now.
    pub fn ask_again(&mut self) {
        for relay in &mut self.relays {
            if let Some(since) = &mut relay.waits_since {
                *since = since.checked_sub(TICKET_RETRY).unwrap_or(*since);
            }
        }
    }

    /// The machine's network has changed: mappings are probably void.
    pub fn rebind(&mut self, now: Now) {
        self.relays.iter_mut().for_each(|relay| relay.client.rebind(now));
    }

    /// Gives all bindings back.
    pub fn release(&mut self) {
        self.relays.iter_mut().for_each(|relay| relay.client.release());
    }

    /// Takes a STUN datagram; says whether it was a relay's.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Now) -> bool {
        self.relays.iter_mut().any(|relay| relay.client.handle_datagram(from, datagram, now))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.relays.iter_mut().for_each(|relay| relay.client.handle_timeout(now));
    }

    /// When [`Relays::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retries =
            self.relays.iter().filter_map(|relay| relay.waits_since.map(|since| since + TICKET_RETRY));
        self.relays.iter().filter_map(|relay| relay.client.poll_timeout()).chain(retries).min()
    }

    /// What to do next; drain until `None`.
    pub fn poll_output(&mut self, now: Now) -> Option<Output> {
        self.relays.iter_mut().find_map(|relay| relay.poll_output(now))
    }

    /// Why no relay is bound; `None` while one is, or while it is too early to say.
    pub fn trouble(&self, now: Instant) -> Option<Trouble> {
        if !self.is_known || self.relays.iter().any(|relay| relay.client.is_bound()) {
            return None;
        }
        if self.relays.is_empty() {
            return Some(Trouble::NoRelay);
        }
        let refused = self.relays.iter().find_map(|relay| match relay.reason {
            Some(reason @ UnboundReason::Refused(_)) => Some(format!("{}: {reason}", relay.name)),
            _ => None,
        });
        if let Some(cause) = refused {
            return Some(Trouble::Refused { cause });
        }
        let is_silent = |relay: &Relay| relay.first_sent.is_some_and(|at| now >= at + BLOCKED_AFTER);
        let silent: Vec<_> = self.relays.iter().filter(|relay| is_silent(relay)).collect();
        (silent.len() == self.relays.len()).then(|| Trouble::Silent {
            relays: silent
                .iter()
                .map(|relay| format!("{} ({})", relay.name, relay.client.relay()))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

impl Relay {
    fn poll_output(&mut self, now: Now) -> Option<Output> {
        if self.waits_since.is_some_and(|since| now.instant >= since + TICKET_RETRY) {
            return Some(self.ask_for_ticket(now));
        }
        loop {
            let Some(output) = self.client.poll_output() else { return self.tell_rtt() };
            match output {
                BindingOutput::Transmit { to, payload } => return Some(Output::Transmit { to, payload }),
                BindingOutput::NeedTicket => return Some(self.ask_for_ticket(now)),
                BindingOutput::Bound { .. } | BindingOutput::MappedChanged { .. } => {
                    self.reason = None;
                    if let Some(output) = self.tell() {
                        return Some(output);
                    }
                }
                BindingOutput::Unbound { reason } => {
                    tracing::info!(relay = self.name, %reason, "not bound");
                    self.reason = Some(reason);
                    self.told = None;
                    return Some(Output::Unbound { name: self.name.clone() });
                }
            }
        }
    }

    fn ask_for_ticket(&mut self, now: Now) -> Output {
        self.waits_since = Some(now.instant);
        Output::NeedTicket { relay: self.name.clone() }
    }

    /// The path agent hears of round trips only when they have really changed.
    fn tell_rtt(&mut self) -> Option<Output> {
        let (_, told) = self.told?;
        let (old, new) = (told.unwrap_or_default(), self.client.median_rtt()?);
        if new.abs_diff(old) > old / 5 + Duration::from_millis(2) { self.tell() } else { None }
    }

    fn tell(&mut self) -> Option<Output> {
        let mapped = self.client.mapped()?;
        let fresh = (mapped, self.client.median_rtt());
        let old = self.told.replace(fresh);
        if old == Some(fresh) {
            return None;
        }
        if old.map(|old| old.0) != Some(mapped) {
            tracing::info!(relay = self.name, %mapped, "bound");
        }
        Some(Output::Bound { name: self.name.clone(), relay: self.client.relay(), mapped, rtt: fresh.1 })
    }
}
