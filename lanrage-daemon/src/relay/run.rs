//! The relay's event loop.

use super::detail::{self, Identity, Inbox, Inquiry};
use super::load::{Meter, Totals};
use super::loss::Losses;
use super::plane::{Control, Plane};
use super::registration::{HEARTBEAT, Registration};
use super::status::{self, Counts, narrow};
use super::tls::Tls;
use super::{Drain, RelayHandle};
use crate::clock::now;
use crate::datapath::{Datapath, InstallError};
use crate::shutdown::Shutdown;
use lanrage_common::api::{Problem, RelayStatus};
use lanrage_common::protocol::RelayLoad;
use lanrage_common::relay::{Flow, Leg, Limits, Output, RelayServer, Target};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::Instrument as _;

/// Datagrams handled in a row before timers, control server and kernel get their turn.
const BUDGET: usize = 256;
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// What a relay consists of.
pub(super) struct Parts {
    pub(super) plane: Plane,
    pub(super) server: RelayServer,
    pub(super) limits: Limits,
    pub(super) datapath: Datapath,
    pub(super) registration: Registration,
    /// What members are told.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) identity: Identity,
    /// What was wrong from the beginning.
    pub(super) problems: Vec<Problem>,
    pub(super) losses: Losses,
    pub(super) tls: Result<Option<Tls>, Problem>,
    pub(super) shutdown: Shutdown,
}

impl Parts {
    fn describe(&self, counts: Counts) -> RelayStatus {
        let Self { addresses, server, datapath, registration, .. } = self;
        let mut status = status::describe(server, datapath, registration, &self.plane.totals(), counts);
        status.addresses.clone_from(addresses);
        status.problems.extend(self.problems.iter().cloned().chain(self.losses.problem()));
        match &self.tls {
            Ok(tls) => status.tls = tls.as_ref().map(Tls::status),
            Err(problem) => status.problems.push(problem.clone()),
        }
        status
    }
}

/// Runs the relay in a task of its own.
pub(super) fn spawn(parts: Parts) -> RelayHandle {
    let (sender, status) = watch::channel(parts.describe(Counts::default()));
    let (drain, drained) = watch::channel(Drain::No);
    let (inquiry, inbox) = Inquiry::channel();
    let started = Instant::now();
    let (counts, meter) = (Counts::default(), Meter::new(started));
    let relay = Relay { parts, counts, meter, drain: drained, status: sender, inbox, started };
    let span = tracing::info_span!("relay", name = relay.parts.identity.name);
    tokio::spawn(relay.run().instrument(span));
    RelayHandle { status, drain, inquiry }
}

struct Relay {
    parts: Parts,
    counts: Counts,
    meter: Meter,
    drain: watch::Receiver<Drain>,
    status: watch::Sender<RelayStatus>,
    /// Where the operator's questions arrive.
    inbox: Inbox,
    started: Instant,
}

impl Relay {
    /// Priorities, highest first: the request to stop; flows whose time is over; the kernel's view of routes and
    /// neighbours; the control server; status and heartbeat; and then what the workers hand over, at most [`BUDGET`]
    /// datagrams in a row. All but the last are rare, so they never keep datagrams waiting, and datagrams never keep them
    /// waiting.
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BUDGET);
        self.drain();
        let mut heartbeat = interval(HEARTBEAT);
        let mut refresh = interval(STATUS_EVERY);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.parts.shutdown.clone();
        // members taken over are admitted: strangers may be dropped
        self.parts.datapath.enforce();
        loop {
            let due = self.parts.server.poll_timeout().unwrap_or_else(|| Instant::now() + STATUS_EVERY);
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                () = sleep_until(due.into()) => {
                    self.parts.server.handle_timeout(now());
                    self.drain();
                }
                () = self.parts.datapath.maintain() => self.publish(),
                event = self.parts.registration.next() => {
                    self.parts.registration.handle(event);
                    self.publish();
                }
                Ok(()) = self.drain.changed() => self.note_drain(),
                _ = heartbeat.tick() => self.heartbeat(),
                _ = refresh.tick() => {
                    self.refresh();
                    if self.is_drained() {
                        break;
                    }
                }
                Some(reply) = self.inbox.recv() => {
                    let status = self.parts.describe(self.counts);
                    // whoever asked may have gone
                    drop(reply.send(detail::describe(&self.parts, status, self.counts, self.started)));
                }
                () = self.parts.plane.receive(&mut batch, BUDGET) => self.handle(&mut batch),
            }
        }
        if self.is_drained() {
            tracing::info!(members = self.parts.server.bindings(), "relay is drained: it detaches and ends");
            return self.retire();
        }
        tracing::info!("relay stops");
    }

    fn handle(&mut self, batch: &mut Vec<Control>) {
        let (now, bindings) = (now(), self.parts.server.bindings());
        for Control { leg, datagram } in batch.drain(..) {
            self.parts.server.handle_datagram(leg, &datagram, now);
            self.drain();
        }
        // under load nothing else comes to it
        self.parts.datapath.catch_up();
        if self.parts.server.bindings() != bindings {
            self.publish();
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.parts.server.poll_output() {
            match output {
                Output::Transmit { leg, payload } => self.send(leg, &payload),
                Output::Install { flow, target } => self.install(flow, target),
                Output::Remove { flow } => {
                    self.parts.datapath.remove(flow);
                    self.parts.plane.remove(flow);
                }
                Output::Bound { party, member, leg } => {
                    tracing::info!(%party, %member, address = %leg.remote, "member bound");
                }
                Output::Moved { member, from, to } => {
                    tracing::info!(%member, from = %from.remote, to = %to.remote, "member moved");
                }
                Output::Unbound { party, member, why } => {
                    tracing::info!(%party, %member, ?why, "member unbound");
                }
                Output::Admit { slot, leg, limits } => {
                    self.parts.datapath.admit(slot, leg.remote, limits);
                    self.parts.plane.admit(slot, leg, limits);
                }
                Output::Dismiss { address, .. } => {
                    self.parts.datapath.dismiss(address);
                    self.parts.plane.dismiss(address);
                }
                Output::Persist { slot, record } => self.parts.datapath.persist(slot, &record),
                Output::Forget { slot } => {
                    self.parts.datapath.forget(slot);
                    self.parts.plane.forget(slot);
                }
            }
        }
    }

    /// What the kernel does not take is forwarded by the plane.
    fn install(&mut self, flow: Flow, target: Target) {
        self.parts.plane.install(flow, target);
        match self.parts.datapath.install(flow, target) {
            Ok(()) => {}
            Err(InstallError::Full) => self.counts.install_full += 1,
            Err(error) => {
                tracing::debug!(?flow, %error, "flow stays in userspace");
                self.counts.install_failed += 1;
            }
        }
    }

    fn send(&mut self, leg: Leg, payload: &[u8]) {
        match self.parts.plane.send(leg, payload) {
            Ok(()) => {}
            Err(error) if is_full(&error) => self.counts.send_full += 1,
            Err(error) => {
                tracing::trace!(to = %leg.remote, %error, "datagram not sent");
                self.counts.send_failed += 1;
            }
        }
    }

    fn heartbeat(&mut self) {
        let Parts { plane, server, datapath, registration, limits, .. } = &self.parts;
        let rates = self.meter.measure(Totals::of(datapath, plane), Instant::now());
        registration.heartbeat(RelayLoad {
            bindings: narrow(server.bindings()),
            flows: narrow(server.flows()),
            members_limit: narrow(limits.members),
            flows_limit: narrow(limits.flows),
            packets_per_s: rates.packets_per_s,
            bits_per_s: rates.bits_per_s,
            mode: Some(datapath.report().mode),
            pressure: rates.processor,
            draining: is_draining(&self.drain),
        });
    }

    /// Leaves nothing behind in the kernel. That the status is dropped says that this is done.
    fn retire(self) {
        let Self { parts, status, .. } = self;
        parts.datapath.retire();
        drop(status);
    }

    /// The control server must hear at once: the sooner members go, the sooner the relay is empty.
    fn note_drain(&mut self) {
        self.drain.mark_unchanged();
        let draining = is_draining(&self.drain);
        self.parts.server.set_draining(draining);
        tracing::info!(draining, "the operator has changed whether this relay is being emptied");
        self.heartbeat();
        self.publish();
    }

    fn refresh(&mut self) {
        let lost = self.parts.plane.totals().iter().map(|worker| worker.lost).sum();
        self.parts.losses.note(lost, Instant::now());
        self.publish();
    }

    fn is_drained(&self) -> bool {
        match *self.drain.borrow() {
            Drain::No => false,
            Drain::Until(deadline) => self.parts.server.bindings() == 0 || Instant::now() >= deadline,
        }
    }

    fn publish(&self) {
        let status = RelayStatus { draining: is_draining(&self.drain), ..self.parts.describe(self.counts) };
        self.status.send_if_modified(|old| {
            let is_new = *old != status;
            *old = status;
            is_new
        });
    }
}

fn is_draining(drain: &watch::Receiver<Drain>) -> bool {
    *drain.borrow() != Drain::No
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory)
}
