//! One party while the tunnel is up: the cores (roster, paths, tunnel, lane, relay bindings) and the wires between them.
//!
//! Nothing here waits: the event loop hands in what arrived, and every method leaves all outputs delivered. What
//! concerns the event loop itself comes out as [`Notice`]. What the cores want done is in `outputs`, who is in the party in
//! `members`.

mod members;
mod outputs;

use super::bulletins::HostPings;
use super::nat::NatTest;
use super::ping::Pings;
use super::port_mapping::Forwarding;
use super::relays::Relays;
use super::spares::{Arrival, Owner, Spares};
use super::store::{Store, StoredTicket};
use super::tls::{self, Carriers};
use super::tunnel::userspace::UserspaceTunnel;
use super::tunnel::{self, Tunnel};
use super::wire::{Delivery, Io, Sender, is_for_lane};
use crate::config::GatewayConfig;
use crate::control::client::{ControlClient, ControlLink, LinkEvent};
use crate::gateway::Gateway;
use crate::lane::{HomeCopies, homes};
use crate::platform::Network;
use crate::roles::addresses;
use lanrage_common::api::{PathKind, Problem};
use lanrage_common::binding::is_stun;
use lanrage_common::bulletin::Board;
use lanrage_common::firewall::{Firewall, Policy};
use lanrage_common::gateway::Mac;
use lanrage_common::identity::{Device, PartySecret, WgKey};
use lanrage_common::lane::maps::MAX_HOMES;
use lanrage_common::lane::{Lane, OVERHEAD, Outbound, Repeats, Service, Trace};
use lanrage_common::marks::Marks;
use lanrage_common::party::PartyClient;
use lanrage_common::path::{Config as PathConfig, PathAgent, probe};
use lanrage_common::relays::RelayChoice;
use lanrage_common::servers::Heard;
use lanrage_common::time::Now;
use rand_core::OsRng;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Within this time everybody is back at a control server that was away: its clients try again every 15 s at least.
const SETTLING: Duration = Duration::from_secs(20);
/// How often the party firewall forgets what is old.
const FIREWALL_SWEEP: Duration = Duration::from_secs(60);

/// What the event loop must do or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The membership is real.
    HostVerified,
    /// The invite does not fit: leave, and tell why.
    WrongSecret(String),
    /// Write the state file.
    Save,
    /// Packets for some members must be shorter, or may be longer: see [`Session::lengths`].
    Lengths,
    /// A device on the home network needs an address in the party.
    LeaseForHome(Mac),
}

/// What a session needs to know of the peer around it.
#[derive(Debug)]
pub struct Surroundings {
    /// Port of the tunnel.
    pub port: u16,
    /// How devices take part through this one.
    pub gateway: GatewayConfig,
    /// Where they are kept.
    pub store: Store,
    /// The longest packet on the party's interface.
    pub mtu: u16,
    /// What members may reach on this machine.
    pub policy: Policy,
}

/// How the link to the control server is.
#[derive(Debug, Clone)]
pub struct ControlHealth {
    /// Since when it is down; none while it is up.
    pub down_since: Option<Instant>,
    /// When it last came up.
    pub up_since: Option<Instant>,
    /// Why it is down.
    pub reason: String,
}

/// See the module.
pub struct Session {
    pub(super) control: ControlClient,
    pub(super) link: ControlLink,
    pub(super) health: ControlHealth,
    pub(super) secret: PartySecret,
    pub(super) party: PartyClient,
    pub(super) paths: PathAgent,
    pub(super) lane: Lane,
    pub(super) firewall: Firewall,
    firewall_due: Instant,
    /// Which packets are of games that run here.
    pub(super) marks: Marks,
    /// The kernel wraps and unwraps group packets; `lane` knows what to tell it.
    lane_in_kernel: bool,
    /// What programs say to everybody, and how far it came.
    pub(super) trace: Trace,
    /// What members tell of themselves.
    pub(super) board: Board,
    /// Which hosts announce themselves.
    pub(super) heard: Heard,
    /// What programs here say again and again.
    pub(super) repeats: Repeats,
    /// [`Board::groups_version`] that the lane knows.
    pub(super) joined_version: u64,
    pub(super) host_pings: HostPings,
    pub(super) home_copies: HomeCopies,
    /// Where to be bound.
    pub(super) choice: RelayChoice,
    pub(super) relays: Relays,
    /// How the network behaves.
    pub(super) nat: NatTest,
    pub(super) carriers: Carriers,
    /// Sockets of hunts for direct paths.
    pub(super) spares: Spares,
    pub(super) pings: Pings,
    pub(super) problems: BTreeMap<String, Problem>,
    pub(super) tunnel: Box<dyn Tunnel>,
    /// The newest ticket for each relay, for the state file.
    pub(super) tickets: BTreeMap<String, StoredTicket>,
    me: Ipv4Addr,
    /// How members are reached.
    kinds: HashMap<WgKey, PathKind>,
    /// The longest packets for members whose paths carry less than the interface.
    pub(super) short: HashMap<WgKey, u16>,
    /// Devices behind this one.
    pub(super) gateway: Gateway,
    pub(super) device_packet: Vec<u8>,
    next_tick: Instant,
    pub(super) next_look: Instant,
    pub(super) notices: VecDeque<Notice>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("party", &self.party.party().id).finish_non_exhaustive()
    }
}

impl Session {
    /// Puts the cores together and opens the link to the control server.
    pub fn new(
        control: ControlClient,
        party: PartyClient,
        secret: PartySecret,
        tickets: BTreeMap<String, StoredTicket>,
        device: &Device,
        around: Surroundings,
        now: Now,
    ) -> Self {
        let (facts, me) = (party.party(), party.own().address);
        let Surroundings { port, gateway, store, mtu, policy } = around;
        let gateway = Gateway::new((gateway, store, mtu), facts.id, (me, facts.subnet));
        let config = PathConfig {
            me: device.wg_key(),
            party: facts.id,
            secret: secret.clone(),
            subnet: facts.subnet,
            mtu,
        };
        let lane = Lane::new(me, facts.subnet);
        let mut session = Self {
            link: control.connect(),
            control,
            health: ControlHealth {
                down_since: Some(now.instant),
                up_since: None,
                reason: "connecting".into(),
            },
            secret,
            paths: PathAgent::new(config, OsRng),
            firewall: Firewall::new(*lane.local(), policy),
            firewall_due: now.instant,
            marks: Marks::default(),
            lane,
            lane_in_kernel: false,
            trace: Trace::new(me),
            board: Board::new(me),
            heard: Heard::default(),
            repeats: Repeats::default(),
            joined_version: 0,
            host_pings: HostPings::default(),
            home_copies: HomeCopies::default(),
            choice: RelayChoice::new(facts.id, OsRng),
            relays: Relays::default(),
            nat: NatTest::default(),
            carriers: Carriers::new(port),
            spares: Spares::default(),
            pings: Pings::default(),
            problems: BTreeMap::new(),
            tunnel: Box::new(UserspaceTunnel::new(device.wg_secret(), Box::new(OsRng))),
            tickets,
            me,
            kinds: HashMap::new(),
            short: HashMap::new(),
            gateway,
            device_packet: Vec::new(),
            next_tick: now.instant,
            next_look: now.instant,
            notices: VecDeque::new(),
            party,
        };
        session.publish_devices(now);
        session
    }

    /// Says who wraps and unwraps group packets from now on.
    pub fn set_lane_in_kernel(&mut self, is_in_kernel: bool) {
        self.lane_in_kernel = is_in_kernel;
    }

    pub(super) fn is_lane_in_kernel(&self) -> bool {
        self.lane_in_kernel
    }

    /// What the event loop must do; drain until `None` after every other call.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Something of the link to the control server.
    pub fn handle_link(&mut self, event: LinkEvent, io: Io<'_>, now: Now) {
        match event {
            LinkEvent::Connected => {
                self.health.down_since = None;
                self.health.up_since = Some(now.instant);
                self.party.handle_connected(now);
                self.relays.ask_again();
            }
            LinkEvent::Disconnected { reason } => {
                tracing::debug!(reason, "control server not connected");
                self.health.down_since.get_or_insert(now.instant);
                self.health.reason = reason;
                self.party.handle_disconnected();
            }
            LinkEvent::Message(message) => self.party.handle_server_message(*message, now),
        }
        self.settle(io, now);
    }

    /// Word of a relay's carrier.
    pub fn handle_carrier(&mut self, event: &tls::Event, io: Io<'_>, now: Now) {
        self.relays.handle_carrier(event, now);
        self.settle(io, now);
    }

    /// A datagram from the tunnel's socket: WireGuard (types 1–4), STUN, or a probe. Outputs are left to
    /// [`Session::settle`], so that a batch pays for them once.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], io: Io<'_>, now: Now) {
        if datagram.len() < 4 {
            return;
        }
        if probe::is_probe(datagram) {
            self.paths.handle_datagram(from, datagram, now);
        } else if is_stun(datagram) {
            let _ = self.choice.handle_datagram(from, datagram, now)
                || self.relays.handle_datagram(from, datagram, now)
                || self.nat.handle_datagram(datagram, now);
        } else {
            self.handle_wireguard(from, datagram, io, now);
        }
    }

    /// A datagram from a socket beside the tunnel's.
    pub fn handle_arrival(&mut self, arrival: &Arrival, io: Io<'_>, now: Now) {
        match self.spares.owner(arrival) {
            Some(Owner::Path) => self.handle_datagram(arrival.from, &arrival.datagram, io, now),
            Some(Owner::Hunt(member, spare)) => {
                self.paths.handle_spare_datagram(&member, spare, arrival.from, &arrival.datagram, now);
                // a socket that is kept takes what comes next
                self.settle(io, now);
            }
            None => {}
        }
    }

    fn handle_wireguard(&mut self, from: SocketAddr, datagram: &[u8], io: Io<'_>, now: Now) {
        let mut delivery = Delivery {
            sender: Sender::new(io.socket),
            interface: io.interface,
            lane: (!self.lane_in_kernel).then_some(&mut self.lane),
            firewall: &mut self.firewall,
            paths: &mut self.paths,
            pings: &mut self.pings,
            gateway: &mut self.gateway,
            trace: &mut self.trace,
            board: &mut self.board,
            heard: &mut self.heard,
            me: self.me,
            from,
            now,
        };
        self.tunnel.handle_datagram(from, datagram, now.instant, &mut delivery);
        let failed = delivery.sender.failed;
        self.note_failure(failed, now);
    }

    /// A packet that this machine sends into the party.
    pub fn handle_packet(&mut self, packet: &[u8], io: Io<'_>, now: Now) {
        self.firewall.handle_outbound(packet, now.instant);
        io.socket.set_dscp(self.marks.dscp(packet));
        if let Some(to) = tunnel::destination(packet) {
            if self.gateway.has(to) {
                return self.gateway.send_from_host(packet, now.instant);
            }
            if self.gateway.is_alias(to) {
                self.gateway.handle_from_home(packet, now.instant);
                return self.settle_home(io, now);
            }
        }
        self.note_traffic(packet, io, now);
        let mut sender = Sender::new(io.socket);
        let looked_at = match self.lane_in_kernel {
            true => Outbound::Pass,
            false => {
                self.copy_home(packet, now);
                self.lane.handle_outbound(packet, now.instant)
            }
        };
        let said = match self.lane_in_kernel {
            true if is_for_lane(packet) => packet.get(OVERHEAD..).unwrap_or_default(),
            true => &[],
            false => self.lane.carried(),
        };
        if !said.is_empty() {
            self.heard.handle_packet(packet, self.me, now.instant);
            self.repeats.handle_packet(said, now.instant);
        }
        match looked_at {
            // while nobody is there the kernel lane only shows what it would copy
            Outbound::Pass if tunnel::destination(packet).is_some_and(|to| to != self.me) => {
                self.tunnel.send(packet, now.instant, &mut sender);
            }
            Outbound::Copies => {
                while let Some((to, copy)) = self.lane.poll_copy() {
                    match self.gateway.has(to) {
                        true => self.gateway.send_from_host(copy, now.instant),
                        false => drop(self.tunnel.send(copy, now.instant, &mut sender)),
                    }
                }
            }
            // IPv6 and dropped group packets; the lane has counted its own
            Outbound::Pass | Outbound::Drop(_) => {}
        }
        self.note_failure(sender.failed, now);
    }

    /// Tells the path agent that data leaves: a path that does not answer is then left, or doubled, before the packet.
    pub(super) fn note_traffic(&mut self, packet: &[u8], io: Io<'_>, now: Now) {
        let Some(destination) = tunnel::destination(packet) else { return };
        let is_changed = match self.tunnel.member_at(destination) {
            Some(member) => self.paths.handle_tunnel_tx(&member, now),
            // a group's packet goes to everybody
            None => {
                let members: Vec<WgKey> = self.party.members().map(|member| member.wg).collect();
                let changed = members.iter().filter(|member| self.paths.handle_tunnel_tx(member, now));
                changed.count() > 0
            }
        };
        if is_changed {
            self.settle(io, now);
        }
    }

    /// Physical networks keep what games send to everybody.
    fn copy_home(&mut self, packet: &[u8], now: Now) {
        for slot in 0..MAX_HOMES {
            if let Some((home, copy)) = self.lane.home_copy(packet, slot, now.instant) {
                self.home_copies.send(&home, copy);
            }
        }
    }

    /// The machine's networks, at start and after every change.
    pub fn handle_networks(&mut self, networks: &[Network], port: u16, changed: bool, io: Io<'_>, now: Now) {
        let subnet = self.party.party().subnet;
        let foreign = networks.iter().filter(|network| !subnet.contains(&network.address.addr()));
        let mut candidates: Vec<SocketAddr> =
            foreign.clone().map(|network| SocketAddr::new(network.address.addr().into(), port)).collect();
        candidates.extend(addresses::default_route_source6().map(|ip| SocketAddr::new(ip, port)));
        self.nat.set_local(candidates.clone(), changed, now);
        self.paths.set_local_candidates(candidates, now);
        self.gateway.lane.set_local_broadcasts(foreign.clone().filter_map(|network| network.broadcast));
        self.lane.set_local_broadcasts(foreign.filter_map(|network| network.broadcast));
        self.lane.set_homes(homes(networks));
        self.firewall.set_local(*self.lane.local());
        self.gateway.follow_networks(networks, now.instant);
        self.settle_home(io, now);
        if changed {
            self.choice.measure_anew(now);
            self.relays.rebind(now);
        }
        self.settle(io, now);
    }

    /// Discovery of whole systems that is carried as well.
    pub fn set_lane_services(&mut self, services: &[Service]) {
        self.lane.set_allowed(services.iter().copied());
        self.gateway.set_services(services);
        self.firewall.set_local(*self.lane.local());
    }

    /// What came of asking the router to forward the tunnel's port.
    pub fn set_forwarding(&mut self, forwarding: Forwarding, now: Now) {
        self.paths.set_forwarded(forwarding.external, now);
        self.nat.set_forwarding(forwarding);
    }

    /// Timers that are due.
    pub fn handle_timeout(&mut self, io: Io<'_>, now: Now) {
        self.party.handle_timeout(now);
        self.relays.handle_timeout(now);
        self.choice.handle_timeout(now);
        self.nat.handle_timeout(now);
        self.paths.handle_timeout(now);
        if now.instant >= self.next_tick {
            self.next_tick = now.instant + tunnel::TICK;
            let mut sender = Sender::new(io.socket);
            self.tunnel.handle_timeout(now.instant, &mut sender);
            self.note_failure(sender.failed, now);
        }
        self.gateway.handle_timeout(now.instant);
        self.follow_members_at_home(now);
        self.settle_home(io, now);
        if now.instant >= self.firewall_due {
            self.firewall_due = now.instant + FIREWALL_SWEEP;
            self.firewall.handle_timeout(now.instant);
        }
        self.pings.handle_timeout(now.instant);
        self.settle(io, now);
    }

    /// When [`Session::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        let others = [
            self.party.poll_timeout(),
            self.relays.poll_timeout(),
            self.choice.poll_timeout(),
            self.nat.poll_timeout(),
            self.paths.poll_timeout(),
            self.pings.poll_timeout(),
        ];
        others.into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    /// Gives the bindings back before the session ends.
    pub fn release(&mut self, io: Io<'_>, now: Now) {
        self.relays.release();
        self.settle(io, now);
        io.socket.release_all();
    }

    pub(super) fn note_failure(&mut self, failed: Option<SocketAddr>, now: Now) {
        if let Some(to) = failed {
            self.paths.handle_send_error(to, now);
        }
    }
}

impl ControlHealth {
    /// Down long enough to bother a person with it.
    pub fn is_lasting(&self, now: Instant) -> bool {
        self.down_since.is_some_and(|since| now >= since + Duration::from_secs(3))
    }

    /// Whether members that the server calls away may only not have come back to it yet: it was away itself.
    pub fn is_settling(&self, now: Instant) -> bool {
        self.up_since.is_none_or(|since| now < since + SETTLING)
    }
}
