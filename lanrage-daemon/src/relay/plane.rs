//! Forwarding by the daemon itself: what no kernel program takes.
//!
//! Each worker is a thread with sockets of its own at the relay's port, between which the system spreads the members. It
//! forwards data by a table that only the relay task writes, and hands everything else to that task: what bound members
//! send through one queue, what strangers send through another, so that no flood of the one kind keeps the other waiting.

mod allowance;
mod counters;
mod table;
mod worker;

pub(super) use allowance::Traffic;
pub(super) use counters::Totals;
pub(super) use table::Table;

use super::socket::Endpoint;
use crate::platform::udp::{Socket, Way};
use anyhow::Context as _;
use counters::Counters;
use lanrage_common::relay::{Flow, Leg, MemberLimits, RelayServer, Target};
use mio::{Poll, Token, Waker};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc;
use worker::{Queues, Worker};

/// Datagrams of bound members that may wait for the relay task.
const MEMBERS_WAITING: usize = 4096;
/// Datagrams of strangers that may wait for the relay task.
const STRANGERS_WAITING: usize = 1024;
/// The token that wakes a worker; sockets have those from 0 on.
const WAKE: Token = Token(usize::MAX);

/// A datagram for the relay task.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) leg: Leg,
    pub(super) datagram: Box<[u8]>,
}

/// The running workers. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Plane {
    table: Arc<Table>,
    /// One for each endpoint, for what the relay task itself sends.
    sockets: Vec<Arc<Socket>>,
    workers: Vec<Running>,
    members: mpsc::Receiver<Control>,
    strangers: mpsc::Receiver<Control>,
}

#[derive(Debug)]
struct Running {
    counters: Arc<Counters>,
    sockets: Vec<Arc<Socket>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// What workers at these endpoints forward by, with all that the relay server knows already.
pub(super) fn table(endpoints: &[Endpoint], server: &RelayServer) -> Table {
    let table = Table::new(endpoints.iter().map(|endpoint| endpoint.bound).collect());
    server.members().for_each(|member| table.admit(member.slot, member.leg, member.limits));
    table.install_all(server.installed());
    table
}

impl Plane {
    /// Starts a worker for each socket of the endpoints that have most. They forward by the table, made for these
    /// endpoints.
    pub(super) fn start(endpoints: Vec<Endpoint>, table: Table) -> anyhow::Result<Self> {
        let count = endpoints.iter().map(|endpoint| endpoint.sockets.len()).max().unwrap_or_default();
        let table = Arc::new(table);
        let (to_members, members) = mpsc::channel(MEMBERS_WAITING);
        let (to_strangers, strangers) = mpsc::channel(STRANGERS_WAITING);
        let queues = Queues { members: to_members, strangers: to_strangers };
        let polls = (0..count).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>();
        let polls = polls.context("cannot watch the relay's sockets")?;
        let sockets = register(endpoints, &polls).context("cannot watch the relay's sockets")?;
        let first = sockets.iter().filter_map(|sockets| sockets.first().cloned()).collect();
        let mut plane = Self { table, sockets: first, workers: Vec::new(), members, strangers };
        for (n, poll) in polls.into_iter().enumerate() {
            plane.run(n, poll, &sockets, queues.clone())?;
        }
        Ok(plane)
    }

    fn run(
        &mut self,
        n: usize,
        poll: Poll,
        sockets: &[Vec<Arc<Socket>>],
        queues: Queues,
    ) -> anyhow::Result<()> {
        let counters = Arc::new(Counters::default());
        let waker = Waker::new(poll.registry(), WAKE).context("cannot make a waker")?;
        // an endpoint with fewer sockets than workers is received from by the first ones, and sent through by all
        let own = sockets.iter().filter_map(|sockets| sockets.get(n).cloned()).collect();
        let out = sockets.iter().filter_map(|sockets| sockets.get(n).or(sockets.first()).cloned()).collect();
        let receives = sockets.iter().map(|sockets| sockets.len() > n).collect();
        let worker = Worker::new(poll, out, receives, self.table.clone(), queues, counters.clone());
        let thread = std::thread::Builder::new()
            .name(format!("relay-{n}"))
            .spawn(move || worker.run())
            .context("cannot start a thread for the relay")?;
        self.workers.push(Running { counters, sockets: own, waker, thread: Some(thread) });
        Ok(())
    }

    /// Puts what the relay task is to handle into `batch`, members' datagrams first, then at most `limit` in all; waits
    /// until there is something. However much members send, strangers, who may become members, have a quarter. Cancel
    /// safe.
    pub(super) async fn receive(&mut self, batch: &mut Vec<Control>, limit: usize) {
        std::future::poll_fn(|context| {
            let (strangers, members) = (limit / 4, limit - limit / 4);
            let some = self.members.poll_recv_many(context, batch, members).is_ready()
                | self.strangers.poll_recv_many(context, batch, strangers).is_ready();
            if some { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// Sends one datagram.
    pub(super) fn send(&self, leg: Leg, payload: &[u8]) -> io::Result<()> {
        let endpoint = self.table.endpoint_of(leg.local).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let way = Way { from: Some(leg.local.ip()), to: leg.remote, tos: 0 };
        self.sockets[usize::from(endpoint)].send(way, payload)
    }

    /// Forwards a flow from now on, or forwards it elsewhere.
    pub(super) fn install(&self, flow: Flow, target: Target) {
        self.table.install(flow, target);
    }

    /// Forgets a flow.
    pub(super) fn remove(&self, flow: Flow) {
        self.table.remove(flow);
    }

    /// Takes what comes from an address for a member's, and sends there what is for it.
    pub(super) fn admit(&self, slot: u32, leg: Leg, limits: MemberLimits) {
        self.table.admit(slot, leg, limits);
    }

    /// Takes what comes from an address for a stranger's.
    pub(super) fn dismiss(&self, address: SocketAddr) {
        self.table.dismiss(address);
    }

    /// The next member in this slot is another one.
    pub(super) fn forget(&self, slot: u32) {
        self.table.forget(slot);
    }

    /// What was forwarded for the member in a slot.
    pub(super) fn traffic(&self, slot: u32) -> Traffic {
        self.table.traffic(slot)
    }

    /// What each worker has counted.
    pub(super) fn totals(&self) -> Vec<Totals> {
        let totals = |worker: &Running| {
            let lost = worker.sockets.iter().map(|socket| socket.lost()).sum();
            worker.counters.totals(lost)
        };
        self.workers.iter().map(totals).collect()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.table.stop();
        for worker in &mut self.workers {
            if let Err(error) = worker.waker.wake() {
                tracing::warn!(%error, "a relay worker cannot be woken to stop");
                continue;
            }
            if worker.thread.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("a relay worker had stopped by itself: report this with the log before it");
            }
        }
    }
}

/// Each endpoint's sockets, the nth watched by the nth poll under the endpoint's number.
fn register(endpoints: Vec<Endpoint>, polls: &[Poll]) -> io::Result<Vec<Vec<Arc<Socket>>>> {
    let watch = |(number, endpoint): (usize, Endpoint)| {
        let sockets = endpoint.sockets.into_iter().zip(polls);
        let watched = sockets.map(|(mut socket, poll)| {
            socket.register(poll.registry(), Token(number))?;
            Ok(Arc::new(socket))
        });
        watched.collect()
    };
    endpoints.into_iter().enumerate().map(watch).collect()
}
