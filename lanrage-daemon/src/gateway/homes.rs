//! All home networks behind this gateway. Each has aliases of its own, for members and for devices on the others: to a device,
//! one on another network is as far as a member.

use super::lan::{LanPort, LanTap};
use crate::config::GatewayConfig;
use crate::platform::Network;
use ipnet::Ipv4Net;
use lanrage_common::api::{GatewayDevice, LanStatus};
use lanrage_common::devices::PartyDevice;
use lanrage_common::gateway::{LanOutput, Mac, destination};
use lanrage_common::lane::Service;
use std::net::Ipv4Addr;
use std::task::{Context, Poll};
use std::time::Instant;

/// See the module.
pub(super) struct Homes {
    config: GatewayConfig,
    /// Own address in the party, its subnet, and the longest packet on its interface.
    party: (Ipv4Addr, Ipv4Net, u16),
    services: Vec<Service>,
    ports: Vec<LanPort>,
    /// What the kernel has to do for them.
    taps: Vec<LanTap>,
    /// Why devices on some cannot take part.
    troubles: Vec<String>,
    /// Everybody in the party but this device and those at home.
    members: Vec<Ipv4Addr>,
}

impl Homes {
    pub(super) fn new(config: GatewayConfig, party: (Ipv4Addr, Ipv4Net, u16)) -> Self {
        Self {
            config,
            party,
            services: Vec::new(),
            ports: Vec::new(),
            taps: Vec::new(),
            troubles: Vec::new(),
            members: Vec::new(),
        }
    }

    /// Whether any is wanted.
    pub(super) fn are_wanted(&self) -> bool {
        !self.config.lan.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Why devices on some network cannot take part.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.troubles.first().map(String::as_str)
    }

    /// Other networks, or other addresses there. Those that are the same go on.
    pub(super) fn configure(&mut self, config: GatewayConfig, networks: &[Network], now: Instant) {
        if config.alias_range != self.config.alias_range {
            self.ports.clear();
        }
        self.config = config;
        self.follow_networks(networks, now);
    }

    /// The machine's networks, at start and after every change.
    pub(super) fn follow_networks(&mut self, networks: &[Network], now: Instant) {
        let wanted = |name: &String| networks.iter().find(|network| network.interface == *name);
        let still: Vec<&Network> = self.config.lan.iter().filter_map(wanted).collect();
        self.ports.retain(|port| still.contains(&port.network()));
        self.troubles.clear();
        for name in &self.config.lan {
            if self.ports.iter().any(|port| port.network().interface == *name) {
                continue;
            }
            match wanted(name).map(|network| self.open(network)) {
                Some(Ok(port)) => self.ports.push(port),
                Some(Err(error)) => self.troubles.push(format!("{error:#}")),
                None => self.troubles.push(format!(
                    "{name} is not there, is down or has no address: connect it, or name another with `lanrage gateway lan`"
                )),
            }
        }
        self.follow_members(now);
    }

    fn open(&self, network: &Network) -> anyhow::Result<LanPort> {
        if let Some(other) =
            self.ports.iter().find(|port| port.network().address.contains(&network.address.addr()))
        {
            let (one, other) = (&network.interface, &other.network().interface);
            anyhow::bail!("{one} and {other} are in one network: make a bridge of them, and name that");
        }
        let ranges = self.config.aliases().unwrap_or_default();
        let range = ranges.into_iter().find(|(first, _)| network.address.contains(first));
        let mut port = LanPort::open(network, self.party, range)?;
        port.core.set_services(self.services.iter().copied());
        Ok(port)
    }

    /// Discovery of whole systems that crosses as well.
    pub(super) fn set_services(&mut self, services: &[Service]) {
        self.services = services.to_vec();
        for port in &mut self.ports {
            port.core.set_services(services.iter().copied());
        }
    }

    /// Who is in the party, this device and those on home networks left out.
    pub(super) fn set_members(&mut self, members: Vec<Ipv4Addr>, now: Instant) {
        self.members = members;
        self.follow_members(now);
    }

    fn follow_members(&mut self, now: Instant) {
        let devices: Vec<Vec<Ipv4Addr>> = self
            .ports
            .iter()
            .map(|port| port.core.devices().map(|device| device.overlay).collect())
            .collect();
        for (own, port) in self.ports.iter_mut().enumerate() {
            let elsewhere =
                devices.iter().enumerate().filter(|(at, _)| *at != own).flat_map(|(_, them)| them);
            let all: Vec<Ipv4Addr> = self.members.iter().chain(elsewhere).copied().collect();
            port.core.set_members(&all, now);
        }
        self.taps = self.ports.iter().map(LanPort::tap).collect();
    }

    /// Members that are on a home network themselves, by overlay address and address there.
    pub(super) fn set_members_at_home(&mut self, members: &[(Ipv4Addr, Ipv4Addr)]) {
        for port in &mut self.ports {
            port.core.set_members_at_home(members.iter().copied());
        }
    }

    /// Whether that is the overlay address of a device on one of them.
    pub(super) fn has(&self, overlay: Ipv4Addr) -> bool {
        self.ports.iter().any(|port| port.core.has(overlay))
    }

    /// Whether somebody is found there on one of them.
    pub(super) fn is_alias(&self, address: Ipv4Addr) -> bool {
        self.ports.iter().any(|port| port.core.is_alias(address))
    }

    /// What the kernel has to do for them.
    pub(super) fn taps(&self) -> &[LanTap] {
        &self.taps
    }

    /// Ready when one has a frame.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        let is_ready = self.ports.iter().any(|port| port.port().poll_readable(context).is_ready());
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn receive(&mut self, now: Instant) {
        self.ports.iter_mut().for_each(|port| port.receive(now));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.ports.iter_mut().for_each(|port| port.core.handle_timeout(now));
    }

    /// A packet that the kernel has led here, for an alias.
    pub(super) fn handle_unicast(&mut self, packet: &[u8], now: Instant) {
        let to = destination(packet);
        let port = self.ports.iter_mut().find(|port| to.is_some_and(|to| port.core.is_alias(to)));
        if let Some(port) = port {
            port.core.handle_unicast(packet, now);
        }
    }

    /// A device has an address in the party, or was refused one.
    pub(super) fn handle_lease(&mut self, mac: Mac, address: Option<Ipv4Addr>, now: Instant) {
        self.ports.iter_mut().for_each(|port| port.core.handle_lease(mac, address, now));
    }

    /// A packet of the party for a device on one of them; false when it is of none.
    pub(super) fn send(&mut self, packet: &[u8], to: Ipv4Addr) -> bool {
        let Some(port) = self.ports.iter_mut().find(|port| port.core.has(to)) else { return false };
        port.core.handle_party(packet);
        port.flush();
        true
    }

    /// A group packet of the party to each of them, but that where the sender is; to how many.
    pub(super) fn send_group(&mut self, packet: &[u8], sender: Option<Ipv4Addr>, now: Instant) -> u64 {
        let mut count = 0;
        for port in &mut self.ports {
            if !sender.is_some_and(|sender| port.core.has(sender)) {
                count += u64::from(port.core.handle_party_group(packet, now));
                port.flush();
            }
        }
        count
    }

    /// What the session must do.
    pub(super) fn poll_event(&mut self, now: Instant) -> Option<LanOutput> {
        let (at, event) =
            self.ports.iter_mut().enumerate().find_map(|(at, port)| Some((at, port.poll_event()?)))?;
        match &event {
            // it was plugged in elsewhere
            LanOutput::Lease(mac) => {
                let others = self.ports.iter_mut().enumerate().filter(|(other, _)| *other != at);
                others.for_each(|(_, port)| port.core.let_go(*mac));
            }
            LanOutput::Changed => self.follow_members(now),
            _ => {}
        }
        Some(event)
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = PartyDevice> + '_ {
        self.ports.iter().flat_map(LanPort::devices)
    }

    pub(super) fn describe_devices(&self, now: Instant) -> impl Iterator<Item = GatewayDevice> + '_ {
        self.ports.iter().flat_map(move |port| port.describe_devices(now))
    }

    pub(super) fn status(&self, now: Instant) -> Vec<LanStatus> {
        self.ports.iter().map(|port| port.status(now)).collect()
    }

    /// What was dropped, by reason.
    pub(super) fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.ports.iter().flat_map(|port| port.core.dropped()).map(|(reason, count)| (*reason, *count))
    }
}
