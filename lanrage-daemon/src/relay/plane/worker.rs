//! The thread that receives, forwards and sorts.

use super::allowance::{Allowance, Traffic};
use super::counters::{Counters, Tally};
use super::table::{Entries, Entry, Table};
use super::{Control, WAKE};
use crate::platform::udp::{Inbox, Message, Outbox, Socket, Way};
use lanrage_common::binding::is_stun;
use lanrage_common::path::probe::is_probe;
use lanrage_common::relay::{Leg, Reason};
use lanrage_common::wire::WIREGUARD_DATA_LEN;
use mio::{Events, Poll};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;

/// Times that a socket is received from, 64 datagrams each, before what came leaves. That is some milliseconds where one
/// cannot keep up, of the many that the socket's own queue then takes.
const ROUNDS: usize = 32;
/// Bytes that leave at once, however little time it took to receive them.
const ENOUGH: usize = 1 << 20;
/// First byte of WireGuard's transport messages.
const DATA: u8 = 4;

/// The ways to the relay task.
#[derive(Debug, Clone)]
pub(super) struct Queues {
    pub(super) members: Sender<Control>,
    pub(super) strangers: Sender<Control>,
}

/// See the module.
pub(super) struct Worker {
    poll: Poll,
    /// One for each endpoint.
    sockets: Vec<Arc<Socket>>,
    /// Which of them this worker receives from.
    receives: Vec<bool>,
    table: Arc<Table>,
    queues: Queues,
    counters: Arc<Counters>,
}

impl Worker {
    pub(super) fn new(
        poll: Poll,
        sockets: Vec<Arc<Socket>>,
        receives: Vec<bool>,
        table: Arc<Table>,
        queues: Queues,
        counters: Arc<Counters>,
    ) -> Self {
        Self { poll, sockets, receives, table, queues, counters }
    }

    /// Runs until the table says stop. Sockets take turns, a batch each, until none has more; then the thread sleeps.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(self.sockets.len() + 1);
        let mut inbox = Inbox::default();
        let mut outboxes: Vec<_> = self.sockets.iter().map(|_| Outbox::default()).collect();
        // the first look at every socket: what came before it was watched tells nobody
        let mut is_ready = self.receives.clone();
        while !self.table.is_stopping() {
            for (endpoint, is_ready) in is_ready.iter_mut().enumerate() {
                if *is_ready && !self.table.is_stopping() {
                    *is_ready = self.forward_batch(endpoint, &mut inbox, &mut outboxes);
                }
            }
            if is_ready.contains(&true) {
                continue;
            }
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "a relay worker cannot wait for datagrams: it ends");
                return;
            }
            let tokens = events.iter().map(|event| event.token()).filter(|token| *token != WAKE);
            tokens.for_each(|token| is_ready[token.0] = true);
        }
    }

    /// Whether there may be more.
    fn forward_batch(&self, endpoint: usize, inbox: &mut Inbox, outboxes: &mut [Outbox]) -> bool {
        let mut tally = Tally::default();
        let may_be_more = self.collect(endpoint, inbox, outboxes, &mut tally);
        for (outbox, socket) in
            outboxes.iter_mut().zip(&self.sockets).filter(|(outbox, _)| !outbox.is_empty())
        {
            tally.add_sent(outbox.flush(socket));
        }
        self.counters.add(&tally);
        may_be_more
    }

    /// Fills the outboxes with what is there. Only a socket that cannot be emptied is received from more than once: the more
    /// flows there are, the more datagrams it takes until several have the same destination, and those leave together.
    fn collect(
        &self,
        endpoint: usize,
        inbox: &mut Inbox,
        outboxes: &mut [Outbox],
        tally: &mut Tally,
    ) -> bool {
        for _ in 0..ROUNDS {
            match inbox.receive(&self.sockets[endpoint]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => {
                    tally.receive_failed += 1;
                    // the next datagram wakes the worker again; to go on at once could go on for ever
                    return false;
                }
            }
            self.sort(endpoint, inbox, outboxes, tally);
            if !inbox.is_full() || outboxes.iter().any(|outbox| outbox.waiting() >= ENOUGH) {
                break;
            }
        }
        true
    }

    /// Data to the outboxes, the rest to the relay task.
    fn sort(&self, endpoint: usize, inbox: &Inbox, outboxes: &mut [Outbox], tally: &mut Tally) {
        let entries = self.table.read();
        let mut batch = Batch {
            entries: &entries,
            queues: &self.queues,
            bound: self.table.bound(endpoint),
            now: self.table.now(),
            last: None,
            tally,
        };
        for message in inbox.messages() {
            for range in message.datagrams() {
                let datagram = &inbox.bytes()[range];
                if let Some((out, way)) = batch.handle(message, datagram) {
                    outboxes[out].push(way, datagram);
                }
            }
        }
    }
}

/// What datagrams that came together share.
struct Batch<'a> {
    entries: &'a Entries,
    queues: &'a Queues,
    /// Where the endpoint is bound.
    bound: SocketAddr,
    now: u64,
    /// The last flow: the next datagram is often of the same.
    last: Option<Last<'a>>,
    tally: &'a mut Tally,
}

/// A flow and what of it is not yet noted.
struct Last<'a> {
    source: SocketAddr,
    index: u32,
    entry: Entry<'a>,
    traffic: Traffic,
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.entry.allowance.note(self.traffic);
    }
}

impl<'a> Batch<'a> {
    /// The endpoint and way by which a datagram is to be sent on, if it is.
    fn handle(&mut self, message: &Message, datagram: &[u8]) -> Option<(usize, Way)> {
        self.tally.received += 1;
        if datagram.first() != Some(&DATA) {
            self.ask(message, datagram);
            return None;
        }
        match self.route(message.from, datagram) {
            Ok(entry) => {
                self.tally.count(Reason::Forwarded);
                self.tally.bytes += datagram.len() as u64;
                let way = Way { from: Some(entry.leg.local.ip()), to: entry.leg.remote, tos: message.tos };
                Some((usize::from(entry.endpoint), way))
            }
            Err(reason) => {
                self.tally.count(reason);
                None
            }
        }
    }

    fn route(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<Entry<'a>, Reason> {
        let index = match datagram {
            [DATA, 0, 0, 0, a, b, c, d, ..] if datagram.len() >= WIREGUARD_DATA_LEN => {
                u32::from_le_bytes([*a, *b, *c, *d])
            }
            _ => return Err(Reason::Malformed),
        };
        if !self.last.as_ref().is_some_and(|last| last.source == from && last.index == index) {
            let entry = self.entries.flow(from, index).ok_or_else(|| self.unknown(from))?;
            self.last = Some(Last { source: from, index, entry, traffic: Traffic::default() });
        }
        let Some(Last { entry, traffic, .. }) = &mut self.last else { return Err(Reason::IndexUnknown) };
        let entry = *entry;
        if self.now >= entry.expires {
            return Err(Reason::IndexUnknown);
        }
        if !entry.allowance.may_send(datagram.len(), self.now) {
            traffic.dropped += 1;
            return Err(Reason::RateMember);
        }
        traffic.packets += 1;
        traffic.bytes += datagram.len() as u64;
        Ok(entry)
    }

    fn unknown(&self, from: SocketAddr) -> Reason {
        if self.entries.member(from).is_some() { Reason::IndexUnknown } else { Reason::Unbound }
    }

    /// Gives the relay task what only it can decide, and drops what it would drop.
    fn ask(&mut self, message: &Message, datagram: &[u8]) {
        let member = self.entries.member(message.from);
        if let Err(reason) = self.check(member, datagram) {
            self.tally.count(reason);
            return;
        }
        let (queue, full) = match member {
            Some(_) => (&self.queues.members, &mut self.tally.members_full),
            None => (&self.queues.strangers, &mut self.tally.strangers_full),
        };
        // first the place, so that a flood costs no allocation
        let Ok(place) = queue.try_reserve() else {
            *full += 1;
            return;
        };
        let local = SocketAddr::new(message.to.unwrap_or(self.bound.ip()), self.bound.port());
        place.send(Control { leg: Leg { local, remote: message.from }, datagram: datagram.into() });
    }

    fn check(&self, member: Option<&Allowance>, datagram: &[u8]) -> Result<(), Reason> {
        let is_handshake = matches!(datagram, [1..DATA, 0, 0, 0, ..]);
        match member {
            None if is_stun(datagram) => Ok(()),
            None if is_handshake || is_probe(datagram) => Err(Reason::Unbound),
            Some(member) if is_handshake || is_stun(datagram) || is_probe(datagram) => {
                if member.may_ask(self.now) { Ok(()) } else { Err(Reason::BudgetSource) }
            }
            _ => Err(Reason::UnknownProtocol),
        }
    }
}
