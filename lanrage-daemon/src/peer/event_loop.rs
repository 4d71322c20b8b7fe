//! The peer's event loop: everything that moves a party's packets runs here, in one task.
//!
//! A pass has two halves. *Wait* until anything is ready, rare things first: with their order fixed (`biased`), stop,
//! commands and news from the control server are never starved by packets, and are too rare to starve them. *Work*
//! through what is ready, whatever woke us: up to [`BUDGET`] datagrams, up to [`BUDGET`] packets, then timers, then
//! all outputs once. So a flood on the socket cannot hold up the interface or the timers for more than one batch.

use super::commands::{Event, Joining};
use super::port_mapping::PortMapper;
use super::session::{Notice, Session, Surroundings};
use super::socket::Socket;
use super::spares::Arrival;
use super::status;
use super::store::{Store, StoredParty, StoredTicket};
use super::tls;
use super::wire::Io;
use super::{PeerCommand, PeerStatus};
use crate::clock::now;
use crate::config::{GatewayConfig, PeerConfig};
use crate::control::client::{ControlClient, LinkEvent};
use crate::games::{self, Games, Running};
use crate::lane::{Carrier, Joins, Prepared, Runs};
use crate::platform::{self, Interface, Network, NetworkWatch};
use crate::shutdown::Shutdown;
use anyhow::Context as _;
use lanrage_common::api::Problem;
use lanrage_common::firewall::Policy;
use lanrage_common::identity::{Device, PartySecret};
use lanrage_common::party::PartyClient;
use lanrage_common::protocol::{MAX_NAME, is_valid_name};
use lanrage_common::time::Now;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Datagrams, and packets, per pass.
const BUDGET: usize = 64;
/// The status changes at most this often.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);
/// Both ways; bursts of a whole party fit.
/// Any datagram.
const BUFFER: usize = 65_536;

/// The peer role's state.
pub(super) struct Peer {
    pub(super) config: PeerConfig,
    pub(super) gateway_config: GatewayConfig,
    pub(super) device: Arc<Device>,
    pub(super) name: String,
    pub(super) store: Store,
    /// The tunnel's socket, to wait and receive.
    socket: tokio::net::UdpSocket,
    /// The same socket, to send without waiting.
    pub(super) sends: Socket,
    pub(super) port: u16,
    /// The party this device is in.
    pub(super) stored: Option<StoredParty>,
    /// What was said about the party firewall.
    pub(super) said: Policy,
    /// The party at work, or one that is being joined.
    pub(super) session: Option<Session>,
    pub(super) joining: Option<Joining>,
    /// A command that changes the membership is under way.
    pub(super) busy: bool,
    pub(super) interface: Option<Interface>,
    /// Who carries group packets, while there is an interface.
    pub(super) lane: Option<Carrier>,
    /// For its next beginning.
    pub(super) lane_programs: Prepared,
    pub(super) joins: Joins,
    /// Programs that were told to use the party.
    pub(super) runs: Runs,
    /// When to look for groups that games have joined.
    pub(super) joins_due: Instant,
    /// What is known of games.
    pub(super) games: Games,
    /// Which of them run here.
    pub(super) running: watch::Receiver<Running>,
    /// When to look at what the lane has counted.
    pub(super) trace_due: Instant,
    /// When to look at what there is to tell members.
    pub(super) bulletins_due: Instant,
    /// When to look for game servers on this machine; none while that is being done.
    pub(super) servers_due: Option<Instant>,
    pub(super) interface_retry: Option<Instant>,
    pub(super) interface_problem: Option<Problem>,
    pub(super) store_problem: Option<Problem>,
    pub(super) networks: Vec<Network>,
    /// What this machine sends IPv6 to the internet from.
    pub(super) source6: Option<IpAddr>,
    pub(super) networks_due: Option<Instant>,
    /// Addresses of `peer.stun_servers`.
    pub(super) stun_servers: Vec<SocketAddr>,
    /// Asks the router to forward the tunnel's port, while a party is at work.
    pub(super) mapper: Option<PortMapper>,
    watch: NetworkWatch,
    status: watch::Sender<PeerStatus>,
    status_due: Instant,
    pub(super) events: mpsc::UnboundedSender<Event>,
    event_receiver: mpsc::UnboundedReceiver<Event>,
    buffer: Vec<u8>,
}

enum Wake {
    Stop,
    Command(Option<PeerCommand>),
    Event(Option<Event>),
    Control(LinkEvent),
    Carrier(tls::Event),
    Networks,
    Nat,
    Spare(Arrival),
    Forwarding,
    Ready,
}

impl Peer {
    /// Opens everything that needs no party.
    pub(super) fn open(
        config: &PeerConfig,
        gateway: &GatewayConfig,
        state_dir: &Path,
    ) -> anyhow::Result<(Self, watch::Receiver<PeerStatus>)> {
        let store = Store::open(state_dir)?;
        let device = Arc::new(store.device()?);
        let name = device_name(config, &device)?;
        let (stored, store_problem) = match store.party() {
            Ok(stored) => (stored, None),
            Err(error) => {
                tracing::error!("{error:#}");
                let fix = "join again by the invite link, or stop the daemon, restore the file and start it";
                (None, Some(status::problem("party_file_damaged", format!("{error:#}"), fix)))
            }
        };
        let sends = Socket::open(config.port, store.port())?;
        let port = sends.port()?;
        if config.port == 0 && store.port() != Some(port) {
            store.save_port(port)?;
        }
        let socket = sends.watched()?;
        let (status, status_receiver) = watch::channel(status::empty(&device, &name));
        let (events, event_receiver) = mpsc::unbounded_channel();
        let now = Instant::now();
        let games = known_games();
        let peer = Self {
            said: store.firewall(),
            config: config.clone(),
            gateway_config: gateway.clone(),
            device,
            name,
            store,
            socket,
            sends,
            port,
            stored,
            session: None,
            joining: None,
            busy: false,
            interface: None,
            lane: None,
            lane_programs: Carrier::prepare(config.lane),
            joins: Joins::default(),
            runs: Runs::default(),
            joins_due: now,
            running: games::watch(&games),
            games,
            trace_due: now,
            bulletins_due: now,
            servers_due: Some(now),
            interface_retry: None,
            interface_problem: None,
            store_problem,
            networks: Vec::new(),
            source6: None,
            networks_due: Some(now),
            stun_servers: Vec::new(),
            mapper: None,
            watch: NetworkWatch::new().context("cannot watch this machine's networks")?,
            status,
            status_due: now,
            events,
            event_receiver,
            buffer: vec![0; BUFFER],
        };
        Ok((peer, status_receiver))
    }

    /// Runs until `shutdown`.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<PeerCommand>, shutdown: Shutdown) {
        tracing::info!(device = %self.device.key().fingerprint(), name = self.name, port = self.port, "peer is ready");
        self.restore().await;
        let stop = shutdown.requested();
        tokio::pin!(stop);
        loop {
            let deadline = self.deadline().into();
            let wake = tokio::select! {
                biased;
                () = &mut stop => Wake::Stop,
                command = commands.recv() => Wake::Command(command),
                event = self.event_receiver.recv() => Wake::Event(event),
                wake = session_wakes(&mut self.session) => wake,
                () = self.watch.changed() => Wake::Networks,
                () = mapper_changed(self.mapper.as_mut()) => Wake::Forwarding,
                () = tokio::time::sleep_until(deadline) => Wake::Ready,
                () = interface_ready(self.interface.as_ref()) => Wake::Ready,
                _ = self.socket.readable() => Wake::Ready,
            };
            if self.handle(wake).await.is_break() {
                break;
            }
            self.work().await;
        }
        self.stop().await;
    }

    async fn handle(&mut self, wake: Wake) -> std::ops::ControlFlow<()> {
        let now = now();
        match wake {
            Wake::Stop | Wake::Command(None) => return std::ops::ControlFlow::Break(()),
            Wake::Command(Some(command)) => self.handle_command(command).await,
            Wake::Event(Some(event)) => self.handle_event(event).await,
            Wake::Control(event) => {
                let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
                if let Some(session) = &mut self.session {
                    session.handle_link(event, io, now);
                }
            }
            Wake::Carrier(event) => {
                let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
                if let Some(session) = &mut self.session {
                    session.handle_carrier(&event, io, now);
                }
            }
            Wake::Networks => self.note_network_change(now.instant),
            Wake::Nat => {
                if let Some(session) = &mut self.session {
                    session.nat.receive(now);
                }
            }
            Wake::Spare(arrival) => self.receive_arrivals(arrival, now),
            Wake::Forwarding => self.tell_forwarding(now),
            Wake::Event(None) | Wake::Ready => {}
        }
        std::ops::ControlFlow::Continue(())
    }

    /// One batch of everything.
    async fn work(&mut self) {
        let now = now();
        self.receive_datagrams(now);
        self.receive_packets(now);
        let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
        if let Some(session) = &mut self.session {
            session.handle_devices(io, now);
            if now.instant >= session.poll_timeout() {
                session.handle_timeout(io, now);
            } else {
                session.settle(io, now);
            }
        }
        self.follow_lane();
        self.handle_notices().await;
        self.handle_own_timers(now).await;
    }

    fn receive_datagrams(&mut self, now: Now) {
        let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
        for _ in 0..BUDGET {
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    if let Some(session) = &mut self.session {
                        session.handle_datagram(from, &self.buffer[..length], io, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::debug!(%error, "receiving failed"),
            }
        }
    }

    /// One batch of what came to sockets beside the tunnel's.
    fn receive_arrivals(&mut self, first: Arrival, now: Now) {
        let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
        let Some(session) = &mut self.session else { return };
        let mut next = Some(first);
        for _ in 0..BUDGET {
            let Some(arrival) = next.take().or_else(|| session.spares.try_next()) else { return };
            session.handle_arrival(&arrival, io, now);
        }
    }

    fn receive_packets(&mut self, now: Now) {
        let Some(interface) = &self.interface else { return };
        let io = Io { socket: &self.sends, interface: Some(interface) };
        for _ in 0..BUDGET {
            match interface.try_recv(&mut self.buffer) {
                Ok(length) => {
                    if let Some(session) = &mut self.session {
                        session.handle_packet(&self.buffer[..length], io, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.lose_interface(&error, now.instant),
            }
        }
    }

    async fn handle_notices(&mut self) {
        while let Some(notice) = self.session.as_mut().and_then(Session::poll_notice) {
            match notice {
                Notice::HostVerified => self.complete_join().await,
                Notice::WrongSecret(text) => self.refuse_party(text).await,
                Notice::Save => self.save_roster(),
                Notice::Lengths => self.follow_lengths().await,
                Notice::LeaseForHome(mac) => self.lease_for_home(mac),
            }
        }
    }

    async fn handle_own_timers(&mut self, now: Now) {
        if self.joining.as_ref().is_some_and(|joining| now.instant >= joining.deadline) {
            self.give_up_join().await;
        }
        if self.networks_due.is_some_and(|due| now.instant >= due) {
            self.refresh_networks(now).await;
        }
        if self.interface_retry.is_some_and(|due| now.instant >= due) {
            self.ensure_interface(now.instant).await;
        }
        if now.instant >= self.joins_due {
            self.follow_joins(now);
        }
        self.follow_games(now);
        if now.instant >= self.trace_due {
            self.follow_trace(now);
        }
        if now.instant >= self.bulletins_due {
            self.follow_bulletins(now);
        }
        if now.instant >= self.status_due {
            self.publish();
        }
    }

    /// Shows the status as it is.
    pub(super) fn publish(&mut self) {
        let now = Instant::now();
        self.status_due = now + STATUS_INTERVAL;
        let fresh = self.status(now);
        self.status.send_if_modified(|shown| {
            let changed = *shown != fresh;
            if changed {
                *shown = fresh;
            }
            changed
        });
    }

    fn deadline(&self) -> Instant {
        let timers = [
            self.session.as_ref().map(Session::poll_timeout),
            self.joining.as_ref().map(|joining| joining.deadline),
            self.networks_due,
            self.interface_retry,
        ];
        let due = timers.into_iter().flatten().fold(self.status_due, Instant::min);
        due.max(Instant::now() + Duration::from_millis(1)) // a core that is always due must not spin
    }

    /// Comes back into the party of the last run, also without the control server.
    async fn restore(&mut self) {
        let Some(stored) = self.stored.clone().filter(|stored| stored.up) else { return };
        match ControlClient::new(&stored.control, self.device.clone()) {
            Ok(control) => {
                let party =
                    PartyClient::restore(stored.state, stored.secret.clone(), &self.device, &self.name);
                self.begin_session(control, party, stored.secret, stored.tickets).await;
            }
            Err(error) => tracing::error!(%error, "cannot return to the party"),
        }
    }

    /// Puts a party to work.
    pub(super) async fn begin_session(
        &mut self,
        control: ControlClient,
        party: PartyClient,
        secret: PartySecret,
        tickets: BTreeMap<String, StoredTicket>,
    ) {
        let now = now();
        tracing::info!(party = party.party().name, address = %party.own().address, "party is up");
        let (gateway, store) = (self.gateway_config.clone(), self.store.clone());
        let policy = self.firewall_policy();
        let around = Surroundings { port: self.port, gateway, store, mtu: self.config.mtu, policy };
        self.session = Some(Session::new(control, party, secret, tickets, &self.device, around, now));
        self.apply_games(now);
        self.interface_retry = None;
        self.refresh_networks(now).await;
        self.tell_networks(false, now);
        if let Some(session) = &mut self.session {
            session.nat.set_stun_servers(self.stun_servers.clone(), now);
            session.set_lane_services(&self.config.lane_services);
            session.heard.set_known(self.games.beacons());
        }
        if self.config.port_mapping {
            self.mapper = PortMapper::start(self.port);
        }
    }

    /// Takes the party's work down; what is stored stays.
    pub(super) async fn end_session(&mut self) {
        self.release();
        self.session = None;
        self.joining = None;
        self.close_mapper().await;
        self.ensure_interface(Instant::now()).await;
    }

    /// The router may give the port to others.
    pub(super) async fn close_mapper(&mut self) {
        if let Some(mapper) = self.mapper.take() {
            mapper.close().await;
        }
    }

    fn release(&mut self) {
        let io = Io { socket: &self.sends, interface: None };
        if let Some(session) = &mut self.session {
            session.release(io, now());
        }
    }

    async fn stop(mut self) {
        self.release();
        self.close_mapper().await;
        tracing::info!("peer has stopped");
    }
}

async fn session_wakes(session: &mut Option<Session>) -> Wake {
    let Some(session) = session else { return std::future::pending().await };
    tokio::select! {
        biased;
        Some(event) = session.link.events.recv() => Wake::Control(event),
        event = session.carriers.next() => Wake::Carrier(event),
        () = session.nat.readable() => Wake::Nat,
        () = session.gateway.readable() => Wake::Ready,
        Some(arrival) = session.spares.next() => Wake::Spare(arrival),
    }
}

async fn mapper_changed(mapper: Option<&mut PortMapper>) {
    match mapper {
        Some(mapper) => mapper.changed().await,
        None => std::future::pending().await,
    }
}

async fn interface_ready(interface: Option<&Interface>) {
    match interface {
        // an error shows again, and is handled, when the packet is taken
        Some(interface) => drop(interface.readable().await),
        None => std::future::pending().await,
    }
}

/// Those that are built in and the user's.
fn known_games() -> Games {
    let games = Games::with_directory(Path::new(games::DIRECTORY));
    for left_out in &games.unusable {
        tracing::warn!("{left_out}; `lanrage games` tells what a profile may hold");
    }
    games
}

/// What others see.
pub(super) fn device_name(config: &PeerConfig, device: &Device) -> anyhow::Result<String> {
    if let Some(name) = &config.name {
        anyhow::ensure!(
            is_valid_name(name),
            "peer.name \"{name}\" cannot be shown: use 1 to {MAX_NAME} characters without control characters or outer blanks"
        );
        return Ok(name.clone());
    }
    let host = platform::host_name().map(|name| name.chars().take(MAX_NAME).collect::<String>());
    let fallback = || format!("peer-{}", &device.key().fingerprint().to_string()[..6]);
    Ok(host.filter(|name| is_valid_name(name) && name != "localhost").unwrap_or_else(fallback))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_shown_are_refused() {
        let device = Device::generate(&mut rand_core::OsRng);
        let named = |name: &str| {
            device_name(&PeerConfig { name: Some(name.into()), ..PeerConfig::default() }, &device)
        };
        assert_eq!(named("Ana").unwrap(), "Ana");
        for wrong in ["", " Ana", "A\nna", &"x".repeat(33)] {
            assert!(named(wrong).unwrap_err().to_string().contains("peer.name"));
        }
        assert!(is_valid_name(&device_name(&PeerConfig::default(), &device).unwrap()));
    }
}
