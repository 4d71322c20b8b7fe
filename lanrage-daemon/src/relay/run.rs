//! The relay's event loop.

use super::RelayHandle;
use super::detail::{self, Identity, Inbox, Inquiry};
use super::load::Meter;
use super::registration::{HEARTBEAT, Registration};
use super::status::{self, Counts, narrow};
use super::tls::Tls;
use crate::datapath::{Datapath, InstallError};
use crate::shutdown::Shutdown;
use lanrage_common::api::{Problem, RelayStatus};
use lanrage_common::protocol::RelayLoad;
use lanrage_common::relay::{Flow, Leg, Limits, Output, Reason, RelayServer, Target};
use lanrage_common::time::Now;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

/// Datagrams handled in a row before timers, control server and kernel get their turn.
const BUDGET: usize = 256;
/// Largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// First byte of WireGuard's transport messages.
const DATA: u8 = 4;

/// Both clocks.
pub(super) fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix }
}

/// What a relay consists of.
pub(super) struct Parts {
    pub(super) socket: UdpSocket,
    pub(super) server: RelayServer,
    pub(super) limits: Limits,
    pub(super) datapath: Datapath,
    pub(super) registration: Registration,
    /// Where the socket is bound: the local end of every leg.
    pub(super) bound: SocketAddr,
    pub(super) public: SocketAddr,
    pub(super) identity: Identity,
    /// What is wrong with a guessed `public`.
    pub(super) address_problem: Option<Problem>,
    pub(super) tls: Result<Option<Tls>, Problem>,
    pub(super) shutdown: Shutdown,
}

impl Parts {
    fn describe(&self, counts: Counts) -> RelayStatus {
        let Self { public, server, datapath, registration, .. } = self;
        let mut status = status::describe(*public, server, datapath, registration, counts);
        status.problems.extend(self.address_problem.clone());
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
    let (drain, drained) = watch::channel(false);
    let (inquiry, inbox) = Inquiry::channel();
    let started = Instant::now();
    let (counts, meter) = (Counts::default(), Meter::new(started));
    let relay = Relay { parts, counts, meter, drain: drained, status: sender, inbox, started };
    tokio::spawn(relay.run());
    RelayHandle { status, drain, inquiry }
}

struct Relay {
    parts: Parts,
    counts: Counts,
    meter: Meter,
    drain: watch::Receiver<bool>,
    status: watch::Sender<RelayStatus>,
    /// Where the operator's questions arrive.
    inbox: Inbox,
    started: Instant,
}

impl Relay {
    /// Priorities, highest first: the request to stop; flows whose time is over; the kernel's view of routes and
    /// neighbours; the control server; status and heartbeat; and then datagrams, at most [`BUDGET`] in a row. All but
    /// the last are rare, so they never keep datagrams waiting, and datagrams never keep them waiting.
    async fn run(mut self) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        let mut heartbeat = interval(HEARTBEAT);
        let mut refresh = interval(STATUS_EVERY);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.parts.shutdown.clone();
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
                _ = refresh.tick() => self.publish(),
                Some(reply) = self.inbox.recv() => {
                    let status = self.parts.describe(self.counts);
                    // whoever asked may have gone
                    drop(reply.send(detail::describe(&self.parts, status, self.counts, self.started)));
                }
                ready = self.parts.socket.readable() => {
                    match ready {
                        Ok(()) => self.receive(&mut buffer),
                        Err(_) => self.counts.receive_failed += 1,
                    }
                }
            }
        }
        tracing::info!("relay stops");
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        let now = now();
        for _ in 0..BUDGET {
            match self.parts.socket.try_recv_from(buffer) {
                Ok((length, remote)) => {
                    let leg = Leg { local: self.parts.bound, remote };
                    self.handle(leg, &buffer[..length], now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.counts.receive_failed += 1;
                    return;
                }
            }
        }
    }

    /// Data goes straight from buffer to socket; everything else through the server's outputs.
    fn handle(&mut self, leg: Leg, datagram: &[u8], now: Now) {
        if datagram.first() == Some(&DATA) {
            if let Some(to) = self.parts.server.forward_data(leg.remote, datagram, now) {
                self.send(to, datagram);
            }
            return;
        }
        let bindings = self.parts.server.bindings();
        self.parts.server.handle_datagram(leg, datagram, now);
        self.drain();
        if self.parts.server.bindings() != bindings {
            self.publish();
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.parts.server.poll_output() {
            match output {
                Output::Transmit { leg, payload } => self.send(leg, &payload),
                Output::Install { flow, target } => self.install(flow, target),
                Output::Remove { flow } => self.parts.datapath.remove(flow),
                Output::Bound { party, member, leg } => {
                    tracing::info!(%party, %member, address = %leg.remote, "member bound");
                }
                Output::Moved { member, from, to } => {
                    tracing::info!(%member, from = %from.remote, to = %to.remote, "member moved");
                }
                Output::Unbound { party, member, why } => {
                    tracing::info!(%party, %member, ?why, "member unbound");
                }
                Output::Persist { slot, record } => self.parts.datapath.persist(slot, &record),
                Output::Forget { slot } => self.parts.datapath.forget(slot),
                // the kernel program does not police members yet
                Output::Admit { .. } | Output::Dismiss { .. } => {}
            }
        }
    }

    /// A flow that the kernel does not take is forwarded here.
    fn install(&mut self, flow: Flow, target: Target) {
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
        match self.parts.socket.try_send_to(payload, leg.remote) {
            Ok(_) => {}
            Err(error) if is_full(&error) => self.counts.send_full += 1,
            Err(error) => {
                tracing::trace!(to = %leg.remote, %error, "datagram not sent");
                self.counts.send_failed += 1;
            }
        }
    }

    fn heartbeat(&mut self) {
        let Parts { server, datapath, registration, limits, .. } = &self.parts;
        let forwarded = datapath.forwarded() + server.count_of(Reason::Forwarded);
        let rates = self.meter.measure(forwarded, Instant::now());
        registration.heartbeat(RelayLoad {
            bindings: narrow(server.bindings()),
            flows: narrow(server.flows()),
            members_limit: narrow(limits.members),
            flows_limit: narrow(limits.flows),
            packets_per_s: rates.packets_per_s,
            bits_per_s: 0,
            mode: Some(datapath.report().mode),
            pressure: rates.processor,
            draining: *self.drain.borrow(),
        });
    }

    /// The control server must hear at once: the sooner members go, the sooner the relay is empty.
    fn note_drain(&mut self) {
        let draining = *self.drain.borrow_and_update();
        tracing::info!(draining, "the operator has changed whether this relay is being emptied");
        self.heartbeat();
        self.publish();
    }

    fn publish(&self) {
        let status = RelayStatus { draining: *self.drain.borrow(), ..self.parts.describe(self.counts) };
        self.status.send_if_modified(|old| {
            let is_new = *old != status;
            *old = status;
            is_new
        });
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory)
}
