//! The party's interface and the networks around it: made, watched, repaired.

use super::commands::Event;
use super::event_loop::Peer;
use super::port_mapping::PortMapper;
use super::status::problem;
use super::wire::Io;
use crate::lane::{Carrier, JOIN_INTERVAL, Joins};
use crate::platform::{self, Interface, InterfaceConfig, Route};
use crate::roles::addresses;
use lanrage_common::api::Problem;
use lanrage_common::lane::maps::LaneLocal;
use lanrage_common::time::Now;
use std::time::{Duration, Instant};

/// Changes come in bunches; they are looked at once.
const CALM: Duration = Duration::from_millis(300);
/// Between attempts to make the interface.
const RETRY: Duration = Duration::from_secs(5);

impl Peer {
    /// Something about links, addresses or routes has changed.
    pub(super) fn note_network_change(&mut self, now: Instant) {
        self.networks_due.get_or_insert(now + CALM);
    }

    /// Looks at the networks anew.
    pub(super) async fn refresh_networks(&mut self, now: Now) {
        self.networks_due = None;
        let networks = match platform::networks(&self.config.interface).await {
            Ok(networks) => networks,
            Err(error) => return tracing::warn!(%error, "cannot list this machine's addresses"),
        };
        let source6 = addresses::default_route_source6();
        let (is_elsewhere, is_readdressed) = (networks != self.networks, source6 != self.source6);
        (self.networks, self.source6) = (networks, source6);
        if is_elsewhere {
            self.tell_networks(true, now);
            self.resolve_stun_servers();
            self.mapper.iter().for_each(PortMapper::handle_network_change);
        } else if is_readdressed {
            // hosts take a new IPv6 address every day (RFC 8981): members must hear of it, all else goes on
            self.tell_networks(false, now);
            self.mapper.iter().for_each(PortMapper::handle_ipv6_change);
        }
        self.repair_interface().await;
        self.ensure_interface(now.instant).await;
    }

    /// Looks up the names of `peer.stun_servers`, beside the event loop.
    pub(super) fn resolve_stun_servers(&self) {
        let (names, events) = (self.config.stun_servers.clone(), self.events.clone());
        if names.is_empty() {
            return;
        }
        tokio::spawn(async move {
            let mut servers = Vec::new();
            for name in names {
                match tokio::net::lookup_host(&name).await {
                    Ok(mut addresses) => servers.extend(addresses.next()),
                    Err(error) => {
                        tracing::warn!(%error, "the STUN server {name} has no address: check peer.stun_servers")
                    }
                }
            }
            let _ = events.send(Event::StunServers(servers));
        });
    }

    /// Tells the session what came of asking the router for a port.
    pub(super) fn tell_forwarding(&mut self, now: Now) {
        if let (Some(session), Some(mapper)) = (&mut self.session, &self.mapper) {
            session.set_forwarding(mapper.state(), now);
        }
    }

    /// Tells the session the networks as they are.
    pub(super) fn tell_networks(&mut self, changed: bool, now: Now) {
        let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
        if let Some(session) = &mut self.session {
            session.handle_networks(&self.networks, self.port, changed, io, now);
        }
    }

    /// Makes the interface when it should exist and does not.
    pub(super) async fn ensure_interface(&mut self, now: Instant) {
        let Some(config) = self.interface_config() else {
            (self.lane, self.interface) = (None, None);
            (self.interface_problem, self.interface_retry) = (None, None);
            return;
        };
        if self.interface.is_some() || self.interface_retry.is_some_and(|at| now < at) {
            return;
        }
        match make_interface(config).await {
            Ok(interface) => {
                tracing::info!(interface = interface.name(), address = %interface.config().address, "interface is up");
                self.open_lane(&interface);
                self.interface = Some(interface);
                self.follow_lane();
                self.follow_lengths().await;
                (self.interface_problem, self.interface_retry) = (None, None);
            }
            Err(found) => {
                if self.interface_problem.as_ref() != Some(&found) {
                    tracing::warn!("{}: {}", found.message, found.fix);
                }
                self.interface_problem = Some(found);
                self.interface_retry = Some(now + RETRY);
            }
        }
    }

    /// The interface is broken: somebody has deleted it.
    pub(super) fn lose_interface(&mut self, error: &std::io::Error, now: Instant) {
        tracing::warn!(%error, "the interface {} is gone; making it again", self.config.interface);
        (self.lane, self.interface) = (None, None);
        self.interface_retry = None;
        self.note_network_change(now);
    }

    pub(super) fn open_lane(&mut self, interface: &Interface) {
        let (name, index) = (interface.name(), interface.index());
        self.lane = Some(Carrier::open(self.config.lane, &mut self.lane_programs, name, index));
    }

    /// Tells the lane's kernel programs what the session knows, and the session whether there are any.
    pub(super) fn follow_lane(&mut self) {
        if let (Some(lane), Some(session)) = (&mut self.lane, &mut self.session) {
            lane.follow(&session.lane);
            session.set_lane_in_kernel(lane.is_kernel());
            let led = lane.follow_lans(session.gateway.taps());
            session.gateway.set_tap_trouble(led.err());
            self.runs.follow(*session.lane.local());
        } else {
            self.runs.follow(LaneLocal::default());
        }
    }

    /// Joins on the party's interface what games have joined elsewhere, and lets go of programs that have ended. The status
    /// wakes the loop often enough.
    pub(super) fn follow_joins(&mut self, now: Now) {
        self.joins_due = now.instant + JOIN_INTERVAL;
        self.runs.sweep();
        let Some(interface) = &self.interface else {
            self.joins = Joins::default();
            return;
        };
        let groups = self.joins.follow(interface.name(), interface.index(), &self.config.lane_services);
        let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
        if let Some(session) = &mut self.session {
            session.tell_joined(groups, io, now);
        }
    }

    /// How the interface should be; none while there should be none.
    fn interface_config(&self) -> Option<InterfaceConfig> {
        let session = self.session.as_ref().filter(|_| self.joining.is_none())?;
        Some(InterfaceConfig {
            name: self.config.interface.clone(),
            address: session.party.own().address,
            subnet: session.party.party().subnet,
            mtu: self.config.mtu,
        })
    }

    async fn repair_interface(&mut self) {
        let Some(interface) = &self.interface else { return };
        if let Err(error) = interface.repair().await {
            tracing::warn!(%error, "cannot put back routes of {}", interface.name());
        }
    }
}

async fn make_interface(config: InterfaceConfig) -> Result<Interface, Problem> {
    let routes = platform::routes().await.unwrap_or_default();
    if let Some(route) = platform::collision(&config.subnet, &routes, &config.name) {
        return Err(collision_problem(&config, route));
    }
    Interface::create(config).await.map_err(|error| problem("tun_failed", error.to_string(), error.fix()))
}

fn collision_problem(config: &InterfaceConfig, route: &Route) -> Problem {
    let via = route.interface.as_ref().map_or(String::new(), |name| format!(" on {name}"));
    problem(
        "subnet_collision",
        format!(
            "the party's network {} collides with {}{via}, which this machine already uses; the tunnel stays off",
            config.subnet, route.destination
        ),
        "disconnect that network or VPN, or ask the host to found the party anew on another subnet (one who has the same collision gets a free one automatically)",
    )
}
