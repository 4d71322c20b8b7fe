//! The bindings of this device at the relays on the list: over UDP, and where that gets no answer over TLS.

use super::tls::fallback::{self, Credentials, Fallback};
use super::tls::{self, Event};
use lanrage_common::binding::{BindingClient, Output as BindingOutput, UnboundReason};
use lanrage_common::protocol::{RelayInfo, RelayTls};
use lanrage_common::time::Now;
use rand_core::OsRng;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A ticket that did not come is asked for again after this.
const TICKET_RETRY: Duration = Duration::from_secs(5);
/// A relay that has never answered by UDP has this long before TLS is tried: three requests.
const SILENT: Duration = Duration::from_millis(900);
/// A relay that has bound this device by UDP has this long: four requests.
const SILENT_BOUND: Duration = Duration::from_secs(2);
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
        /// Where datagrams for it go.
        relay: SocketAddr,
        /// Own address as the relay sees it; none over TLS.
        mapped: Option<SocketAddr>,
        /// Round trip.
        rtt: Option<Duration>,
    },
    /// Tell the path agent.
    Unbound {
        /// The relay's name.
        name: String,
    },
    /// Open a connection to a relay.
    OpenCarrier {
        /// Its number.
        id: u64,
        /// To where.
        place: RelayTls,
    },
    /// End one.
    CloseCarrier {
        /// Its number.
        id: u64,
    },
}

/// How a relay is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// As it should be.
    Udp,
    /// Where UDP is blocked.
    Tls,
}

/// Why there is no binding, or none over UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Bound, but over TLS only.
    Carried {
        /// Names and UDP addresses.
        relays: String,
    },
    /// No relay answers, and somebody else is where one should take TLS.
    Certificate {
        /// What was seen where.
        cause: String,
    },
    /// The list is empty.
    NoRelay,
    /// No relay answers.
    Silent {
        /// Names and addresses, and why TLS does not work either.
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
    fallback: Fallback,
    /// How the relay is reached, while bound.
    over: Option<Over>,
    credentials: Option<Credentials>,
    /// When the ticket was last asked for, while none has come.
    waits_since: Option<Instant>,
    first_sent: Option<Instant>,
    reason: Option<UnboundReason>,
    told: Option<Told>,
}

/// What the path agent knows of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    relay: SocketAddr,
    mapped: Option<SocketAddr>,
    rtt: Option<Duration>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("name", &self.name)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// How long a relay that is left keeps its binding: the other members may still send through it.
const FAREWELL: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug, Default)]
pub struct Relays {
    relays: Vec<Relay>,
    /// Carriers of relays that are off the list.
    orphans: Vec<u64>,
    /// Bindings to give back at relays that are off the list.
    farewells: Vec<(Instant, SocketAddr, Vec<u8>)>,
    /// Number of the last carrier.
    carriers: u64,
    is_known: bool,
}

impl Relays {
    /// Replaces the list: new relays are bound to, vanished ones released. Returns the names of bound ones that vanished.
    pub fn set(&mut self, list: &[RelayInfo], now: Now) -> Vec<String> {
        self.is_known = true;
        let wanted: Vec<(&str, SocketAddr, Option<RelayTls>)> = list
            .iter()
            .filter_map(|relay| {
                let ipv4 = relay.addresses.iter().find(|address| address.is_ipv4());
                Some((relay.name.as_str(), *ipv4.or(relay.addresses.first())?, relay.tls))
            })
            .collect();
        let is_wanted = |relay: &Relay| {
            wanted.iter().any(|(name, address, _)| (*name, *address) == (&relay.name, relay.client.relay()))
        };
        let (kept, gone) = std::mem::take(&mut self.relays).into_iter().partition(is_wanted);
        self.relays = kept;
        self.farewells.retain(|(_, to, _)| !wanted.iter().any(|(_, address, _)| address == to));
        for (name, address, tls) in wanted {
            match self.relays.iter_mut().find(|relay| relay.name == name) {
                Some(relay) => relay.fallback.set_place(tls, now),
                None => self.relays.push(Relay::new(name, address, tls)),
            }
        }
        let gone: Vec<Relay> = gone;
        gone.into_iter().filter_map(|relay| self.forget(relay, now)).collect()
    }

    /// Its name, if it was bound.
    fn forget(&mut self, mut relay: Relay, now: Now) -> Option<String> {
        relay.fallback.stop(UnboundReason::NoAnswer);
        while let Some(output) = relay.fallback.poll_output() {
            if let fallback::Output::Close { id } = output {
                self.orphans.push(id);
            }
        }
        relay.client.release();
        while let Some(output) = relay.client.poll_output() {
            if let BindingOutput::Transmit { to, payload } = output {
                self.farewells.push((now.instant + FAREWELL, to, payload));
            }
        }
        relay.over.map(|_| relay.name)
    }

    /// A ticket came.
    pub fn set_ticket(&mut self, name: &str, ticket: Vec<u8>, session_key: [u8; 32], now: Now) {
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.name == name) {
            relay.waits_since = None;
            relay.first_sent.get_or_insert(now.instant);
            relay.client.set_ticket(ticket.clone(), session_key, now);
            let credentials = relay.credentials.insert((ticket, session_key));
            relay.fallback.set_ticket(credentials, now);
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
        for relay in &mut self.relays {
            relay.client.rebind(now);
            relay.fallback.rebind(now);
        }
    }

    /// Gives all bindings back.
    pub fn release(&mut self) {
        for relay in &mut self.relays {
            relay.client.release();
            relay.fallback.release();
        }
    }

    /// Word of a carrier.
    pub fn handle_carrier(&mut self, event: &Event, now: Now) {
        for relay in &mut self.relays {
            if relay.fallback.handle_event(event, relay.credentials.as_ref(), now) {
                return;
            }
        }
    }

    /// Where a relay takes TLS.
    pub fn tls_address(&self, name: &str) -> Option<SocketAddr> {
        let relay = self.relays.iter().find(|relay| relay.name == name)?;
        relay.fallback.place().map(|place| place.address)
    }

    /// Takes a STUN datagram; says whether it was a relay's.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Now) -> bool {
        self.relays.iter_mut().any(|relay| {
            relay.client.handle_datagram(from, datagram, now)
                || relay.fallback.handle_datagram(from, datagram, now)
        })
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        for relay in &mut self.relays {
            relay.client.handle_timeout(now);
            let needed_at = relay.needs_tls_at();
            relay.fallback.handle_timeout(needed_at, &mut self.carriers, now);
        }
    }

    /// When [`Relays::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retries =
            self.relays.iter().filter_map(|relay| relay.waits_since.map(|since| since + TICKET_RETRY));
        let fallbacks =
            self.relays.iter().filter_map(|relay| relay.fallback.poll_timeout(relay.needs_tls_at()));
        let clients = self.relays.iter().filter_map(|relay| relay.client.poll_timeout());
        let farewells = self.farewells.first().map(|(due, ..)| *due);
        clients.chain(fallbacks).chain(retries).chain(farewells).min()
    }

    /// What to do next; drain until `None`.
    pub fn poll_output(&mut self, now: Now) -> Option<Output> {
        if let Some(id) = self.orphans.pop() {
            return Some(Output::CloseCarrier { id });
        }
        if self.farewells.first().is_some_and(|(due, ..)| *due <= now.instant) {
            let (_, to, payload) = self.farewells.remove(0);
            return Some(Output::Transmit { to, payload });
        }
        self.relays.iter_mut().find_map(|relay| relay.poll_output(now))
    }

    /// Why no relay is bound over UDP; `None` while one is, or while it is too early to say.
    pub fn trouble(&self, now: Instant) -> Option<Trouble> {
        if !self.is_known || self.relays.iter().any(|relay| relay.over == Some(Over::Udp)) {
            return None;
        }
        let carried: Vec<_> = self.relays.iter().filter(|relay| relay.over == Some(Over::Tls)).collect();
        if !carried.is_empty() {
            return Some(Trouble::Carried { relays: list(&carried, Relay::describe) });
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
        if silent.len() < self.relays.len() {
            return None;
        }
        let foreign = silent.iter().find_map(|relay| match relay.fallback.trouble() {
            Some(tls::Trouble::Certificate(cause)) => Some(format!("{}: {cause}", relay.name)),
            _ => None,
        });
        Some(match foreign {
            Some(cause) => Trouble::Certificate { cause },
            None => Trouble::Silent { relays: list(&silent, Relay::describe_silence) },
        })
    }
}

fn list(relays: &[&Relay], describe: impl Fn(&Relay) -> String) -> String {
    relays.iter().map(|relay| describe(relay)).collect::<Vec<_>>().join(", ")
}

impl Relay {
    fn new(name: &str, address: SocketAddr, tls: Option<RelayTls>) -> Self {
        Self {
            name: name.into(),
            client: BindingClient::new(address, OsRng),
            fallback: Fallback::new(tls),
            over: None,
            credentials: None,
            waits_since: None,
            first_sent: None,
            reason: None,
            told: None,
        }
    }

    fn describe(&self) -> String {
        format!("{} ({})", self.name, self.client.relay())
    }

    fn describe_silence(&self) -> String {
        match self.fallback.trouble() {
            Some(trouble) => format!("{} by UDP, and {trouble}", self.describe()),
            None => format!("{} by UDP", self.describe()),
        }
    }

    /// When UDP has been silent for too long, unless it answers before.
    fn needs_tls_at(&self) -> Option<Instant> {
        let patience = if self.client.is_bound() { SILENT_BOUND } else { SILENT };
        self.client.unanswered_since().map(|since| since + patience)
    }

    fn poll_output(&mut self, now: Now) -> Option<Output> {
        if self.waits_since.is_some_and(|since| now.instant >= since + TICKET_RETRY) {
            return Some(self.ask_for_ticket(now));
        }
        loop {
            let output = if let Some(output) = self.client.poll_output() {
                self.handle_binding(output, Over::Udp, now)
            } else if let Some(output) = self.fallback.poll_output() {
                self.handle_fallback(output, now)
            } else {
                return self.tell_rtt();
            };
            if output.is_some() {
                return output;
            }
        }
    }

    fn handle_fallback(&mut self, output: fallback::Output, now: Now) -> Option<Output> {
        match output {
            fallback::Output::Binding(output) => self.handle_binding(output, Over::Tls, now),
            fallback::Output::Close { id } => Some(Output::CloseCarrier { id }),
            fallback::Output::Open { id, place } => {
                tracing::info!(relay = self.name, address = %place.address, "UDP gets no answer: trying TLS");
                Some(Output::OpenCarrier { id, place })
            }
        }
    }

    fn handle_binding(&mut self, output: BindingOutput, over: Over, now: Now) -> Option<Output> {
        match output {
            BindingOutput::Transmit { to, payload } => Some(Output::Transmit { to, payload }),
            // both bindings live on the same ticket
            BindingOutput::NeedTicket if over == Over::Tls && self.waits_since.is_some() => None,
            BindingOutput::NeedTicket => Some(self.ask_for_ticket(now)),
            BindingOutput::Bound { .. } | BindingOutput::MappedChanged { .. } => {
                self.reason = None;
                self.take_bound(over, now);
                self.tell()
            }
            BindingOutput::Unbound { reason } => self.take_unbound(reason, over),
        }
    }

    /// The relay knows one address of a member: the one that was bound last.
    fn take_bound(&mut self, over: Over, now: Now) {
        let udp_works = self.over == Some(Over::Udp) && self.client.unanswered_since().is_none();
        if over == Over::Udp {
            self.over = Some(Over::Udp);
            if self.fallback.leave(now) {
                self.client.rebind(now);
            }
        } else if udp_works {
            self.fallback.leave(now);
            self.client.rebind(now);
        } else {
            self.over = Some(Over::Tls);
        }
    }

    fn take_unbound(&mut self, reason: UnboundReason, over: Over) -> Option<Output> {
        self.reason = Some(reason);
        if self.over != Some(over) {
            return None;
        }
        if over == Over::Udp && self.fallback.is_bound() {
            self.over = Some(Over::Tls);
            return self.tell();
        }
        tracing::info!(relay = self.name, ?over, %reason, "not bound");
        (self.over, self.told) = (None, None);
        Some(Output::Unbound { name: self.name.clone() })
    }

    fn ask_for_ticket(&mut self, now: Now) -> Output {
        self.waits_since = Some(now.instant);
        Output::NeedTicket { relay: self.name.clone() }
    }

    /// The path agent hears of round trips only when they have really changed.
    fn tell_rtt(&mut self) -> Option<Output> {
        let old = self.told?.rtt.unwrap_or_default();
        let new = self.bound_client()?.median_rtt()?;
        if new.abs_diff(old) > old / 5 + Duration::from_millis(2) { self.tell() } else { None }
    }

    /// The binding in use.
    fn bound_client(&self) -> Option<&BindingClient> {
        match self.over? {
            Over::Udp => Some(&self.client),
            Over::Tls => self.fallback.client(),
        }
    }

    fn tell(&mut self) -> Option<Output> {
        let (over, client) = (self.over?, self.bound_client()?);
        let mapped = client.mapped()?;
        let shown = (over == Over::Udp).then_some(mapped);
        let fresh = Told { relay: client.relay(), mapped: shown, rtt: client.median_rtt() };
        let old = self.told.replace(fresh);
        if old == Some(fresh) {
            return None;
        }
        if old.map(|old| (old.relay, old.mapped)) != Some((fresh.relay, fresh.mapped)) {
            tracing::info!(relay = self.name, ?over, %mapped, "bound");
        }
        let Told { relay, mapped, rtt } = fresh;
        Some(Output::Bound { name: self.name.clone(), relay, mapped, rtt })
    }
}
