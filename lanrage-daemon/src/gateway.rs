//! This device as a gateway: others that know nothing of LANrage take part through it.
//!
//! `wireguard` takes devices with a plain WireGuard client, `registry` knows which there are. The peer's session hands in
//! what is for a device, and forwards what comes from one (`crate::peer::behind`).

#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux has Ethernet ports"))]
mod check;
mod homes;
mod lan;
mod registry;
mod wireguard;

pub use check::Machine;
pub use lan::LanTap;
pub use registry::{Registered, Registry};

use crate::config::GatewayConfig;
use crate::peer::store::Store;
use crate::platform::Network;
use homes::Homes;
use ipnet::Ipv4Net;
use lanrage_common::api::{GatewayDevice, GatewayStatus};
use lanrage_common::devices::{DeviceKind, PartyDevice};
use lanrage_common::gateway::{LanOutput, Mac, destination, source, translate};
use lanrage_common::identity::PartyId;
use lanrage_common::lane::{Inbound, Lane, OVERHEAD, Outbound, Service};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;
use wireguard::Wireguard;

/// See the module.
pub struct Gateway {
    config: GatewayConfig,
    store: Store,
    me: Ipv4Addr,
    registry: Registry,
    /// Open while there are devices for it.
    wireguard: Option<Wireguard>,
    homes: Homes,
    /// Everybody in the party but this device and those behind it.
    members: Vec<Ipv4Addr>,
    /// Why the kernel does not help.
    tap_trouble: Option<String>,
    /// Group packets of devices and for them: rates and what was seen are apart from this machine's own.
    pub(crate) lane: Lane,
    scratch: Vec<u8>,
    counts: GatewayStatus,
    dropped: BTreeMap<&'static str, u64>,
    /// Why devices cannot be taken.
    trouble: Option<String>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Gateway {
    /// The gateway of a party, with the devices that it had.
    pub fn new(
        (config, store, mtu): (GatewayConfig, Store, u16),
        party: PartyId,
        (me, subnet): (Ipv4Addr, Ipv4Net),
    ) -> Self {
        let registry = Registry::load(&store, party);
        let mut gateway = Self {
            homes: Homes::new(config.clone(), (me, subnet, mtu)),
            config,
            store,
            me,
            registry,
            wireguard: None,
            members: Vec::new(),
            tap_trouble: None,
            lane: Lane::new(me, subnet),
            scratch: Vec::new(),
            counts: GatewayStatus::default(),
            dropped: BTreeMap::new(),
            trouble: None,
        };
        gateway.follow(Instant::now());
        gateway
    }

    /// The devices behind this one, as everybody shall know them.
    pub fn devices(&self) -> Vec<PartyDevice> {
        let describe = |device: &Registered| PartyDevice {
            name: device.name.clone(),
            kind: DeviceKind::Wireguard,
            address: device.address,
        };
        self.registry.devices().iter().map(describe).chain(self.homes.devices()).collect()
    }

    /// Which devices there are.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Takes a device in, and opens the port if it is the first one.
    pub fn add(&mut self, device: Registered, now: Instant) -> anyhow::Result<()> {
        self.registry.add(device.clone());
        self.follow(now);
        self.follow_members(now);
        let result = match &self.trouble {
            Some(trouble) => Err(anyhow::anyhow!("{trouble}")),
            None => self.registry.save(&self.store),
        };
        if result.is_err() {
            self.registry.remove(&device.name);
            self.follow(now);
        }
        result
    }

    /// Turns a device out; it, if there was one of that name.
    pub fn remove(&mut self, name: &str, now: Instant) -> anyhow::Result<Option<Registered>> {
        let removed = self.registry.remove(name);
        self.follow(now);
        self.registry.save(&self.store)?;
        Ok(removed)
    }

    /// Whether that is the address of a device behind this one.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.homes.has(address) || self.registry.devices().iter().any(|device| device.address == address)
    }

    /// Whether somebody is found there on a home network.
    pub fn is_alias(&self, address: Ipv4Addr) -> bool {
        self.homes.is_alias(address)
    }

    /// Whether there is a home network.
    pub fn has_lan(&self) -> bool {
        !self.homes.is_empty()
    }

    /// Works as the configuration says from now on.
    pub fn configure(&mut self, config: GatewayConfig, networks: &[Network], now: Instant) {
        if config.listen != self.config.listen {
            self.wireguard = None;
        }
        self.config = config.clone();
        self.follow(now);
        self.homes.configure(config, networks, now);
    }

    /// Discovery of whole systems that crosses as well.
    pub fn set_services(&mut self, services: &[Service]) {
        self.lane.set_allowed(services.iter().copied());
        self.homes.set_services(services);
    }

    /// The machine's networks, at start and after every change.
    pub fn follow_networks(&mut self, networks: &[Network], now: Instant) {
        self.homes.follow_networks(networks, now);
    }

    /// Who is in the party, this device and those behind it left out.
    pub fn set_members(&mut self, members: Vec<Ipv4Addr>, now: Instant) {
        self.members = members;
        self.follow_members(now);
    }

    fn follow_members(&mut self, now: Instant) {
        let clients = self.registry.devices().iter().map(|device| device.address);
        self.homes.set_members(self.members.iter().copied().chain(clients).collect(), now);
    }

    /// Members that are on a home network themselves, by overlay address and address there.
    pub fn set_members_at_home(&mut self, members: &[(Ipv4Addr, Ipv4Addr)]) {
        self.homes.set_members_at_home(members);
    }

    /// What the kernel shall do for home networks.
    pub fn taps(&self) -> &[LanTap] {
        self.homes.taps()
    }

    /// Whether it does.
    pub fn set_tap_trouble(&mut self, trouble: Option<String>) {
        self.tap_trouble = trouble;
    }

    /// Takes what home networks have sent to everybody.
    pub fn receive_lan(&mut self, now: Instant) {
        self.homes.receive(now);
    }

    /// A packet that the kernel has led here from a home network, for an alias.
    pub fn handle_from_home(&mut self, packet: &[u8], now: Instant) {
        self.homes.handle_unicast(packet, now);
    }

    /// A device at home has an address in the party, or was refused one.
    pub fn handle_lease(&mut self, mac: Mac, address: Option<Ipv4Addr>, now: Instant) {
        self.homes.handle_lease(mac, address, now);
    }

    /// What the session must do for home networks.
    pub fn poll_lan(&mut self, now: Instant) -> Option<LanOutput> {
        self.homes.poll_event(now)
    }

    /// The public key by which plain WireGuard clients know this device, once it takes any.
    pub fn public_key(&self) -> Option<lanrage_common::identity::WgKey> {
        self.wireguard.as_ref().map(Wireguard::public)
    }

    /// Where they reach it, if the configuration leaves no other choice.
    pub fn port(&self) -> u16 {
        self.config.listen.port()
    }

    /// Why plain WireGuard clients cannot be taken.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Why devices on the home network cannot take part.
    pub fn lan_trouble(&self) -> Option<&str> {
        self.homes.trouble().or(self.tap_trouble.as_deref())
    }

    /// Returns when a device has sent something.
    pub fn readable(&self) -> impl Future<Output = ()> + Send + use<'_> {
        let socket = self.wireguard.as_ref().map(Wireguard::watched);
        let homes = &self.homes;
        async move {
            let client = async {
                match socket {
                    // an error shows again when the datagram is taken
                    Some(socket) => drop(socket.readable().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = client => {}
                () = std::future::poll_fn(|context| homes.poll_readable(context)) => {}
            }
        }
    }

    /// The next datagram of a device: false when there is none, the packet in it otherwise, or nothing.
    pub fn receive(&mut self, now: Instant, packet: &mut Vec<u8>) -> bool {
        packet.clear();
        self.wireguard.as_mut().is_some_and(|wireguard| wireguard.receive(now, packet))
    }

    /// Timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.handle_timeout(now);
        }
        self.homes.handle_timeout(now);
    }

    /// A packet for a device.
    pub fn send(&mut self, packet: &[u8], now: Instant) {
        let to = destination(packet);
        if to.is_some_and(|to| self.homes.send(packet, to)) {
            self.counts.to_devices += 1;
            return;
        }
        let known = to.is_some_and(|to| self.has(to));
        match &mut self.wireguard {
            Some(wireguard) if known => {
                wireguard.send(packet, now);
                self.counts.to_devices += 1;
            }
            _ => self.drop_for("no_such_device"),
        }
    }

    /// What this machine sends to a device's address: one packet, or a group packet that the lane has wrapped for it.
    pub fn send_from_host(&mut self, packet: &[u8], now: Instant) {
        match (is_wrapped(packet), destination(packet)) {
            (true, Some(to)) => self.send_group(&packet[OVERHEAD..], to, now),
            _ => self.send(packet, now),
        }
    }

    /// A member's packet for this machine: if it is a wrapped group packet, devices get it too.
    pub fn see_group(&mut self, packet: &[u8], sender: Ipv4Addr, now: Instant) {
        if (self.registry.devices().is_empty() && self.homes.is_empty()) || !is_wrapped(packet) {
            return;
        }
        if let Inbound::Deliver(inner) = self.lane.handle_inbound(packet, sender, now) {
            self.send_group_to_all(inner, None, now);
        }
    }

    /// Wraps a device's group packet: copies for members come from [`Gateway::lane`]; other devices have theirs already.
    pub fn handle_group(&mut self, packet: &[u8], device: Ipv4Addr, now: Instant) -> Outbound {
        let outbound = self.lane.handle_device(packet, device, now);
        match outbound {
            Outbound::Copies => {
                self.counts.groups_from_devices += 1;
                let carried = self.lane.carried().to_vec();
                self.send_group_to_all(&carried, Some(device), now);
            }
            Outbound::Drop(reason) => self.drop_for(reason.name()),
            Outbound::Pass => {}
        }
        outbound
    }

    /// Counts a packet that went into the party.
    pub fn count_forwarded(&mut self) {
        self.counts.from_devices += 1;
    }

    /// Counts a packet that went nowhere.
    pub fn drop_for(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }

    /// What it does; none while nobody uses it.
    pub fn status(&self, now: Instant) -> Option<GatewayStatus> {
        if self.registry.devices().is_empty() && !self.homes.are_wanted() {
            return None;
        }
        let clients =
            self.wireguard.iter().flat_map(Wireguard::dropped).map(|(reason, count)| (*reason, *count));
        let own = self.dropped.iter().map(|(reason, count)| (*reason, *count));
        let mut dropped = BTreeMap::<String, u64>::new();
        for (reason, count) in own.chain(self.homes.dropped()).chain(clients) {
            *dropped.entry(reason.into()).or_default() += count;
        }
        Some(GatewayStatus {
            listen: self.wireguard.as_ref().map(|_| self.config.listen),
            public_key: self.public_key(),
            devices: self
                .registry
                .devices()
                .iter()
                .map(|device| self.describe(device, now))
                .chain(self.homes.describe_devices(now))
                .collect(),
            lan: self.homes.status(now),
            dropped,
            ..self.counts.clone()
        })
    }

    fn describe(&self, device: &Registered, now: Instant) -> GatewayDevice {
        let seen =
            self.wireguard.as_ref().map(|wireguard| wireguard.seen(&device.key, now)).unwrap_or_default();
        GatewayDevice {
            name: device.name.clone(),
            kind: DeviceKind::Wireguard,
            address: device.address,
            public_key: Some(device.key),
            mac: None,
            endpoint: seen.endpoint,
            heard_s: seen.heard.map(|heard| heard.as_secs()),
            rx_bytes: seen.rx_bytes,
            tx_bytes: seen.tx_bytes,
        }
    }

    /// A group packet to every device that is there, but for one.
    fn send_group_to_all(&mut self, packet: &[u8], except: Option<Ipv4Addr>, now: Instant) {
        self.counts.groups_to_devices += self.homes.send_group(packet, except, now);
        let Some(wireguard) = &self.wireguard else { return };
        let there: Vec<Ipv4Addr> = wireguard.there(now).filter(|address| Some(*address) != except).collect();
        for address in there {
            self.send_group(packet, address, now);
        }
    }

    /// A group packet as unicast: of all sources a client takes packets only to its own address.
    fn send_group(&mut self, packet: &[u8], to: Ipv4Addr, now: Instant) {
        let Some(from) = source(packet) else { return };
        let mut copy = std::mem::take(&mut self.scratch);
        if let Some(wireguard) = &mut self.wireguard
            && translate(packet, from, to, &mut copy)
        {
            wireguard.send(&copy, now);
            self.counts.groups_to_devices += 1;
        }
        self.scratch = copy;
    }

    /// Opens or closes the port, and tells the tunnel who may come.
    fn follow(&mut self, now: Instant) {
        self.trouble = None;
        if self.registry.devices().is_empty() {
            self.wireguard = None;
            return;
        }
        if self.wireguard.is_none() {
            match self.store.gateway_key().and_then(|key| Wireguard::open(self.config.listen, key)) {
                Ok(wireguard) => self.wireguard = Some(wireguard),
                Err(error) => {
                    tracing::warn!("{error:#}");
                    self.trouble = Some(format!("{error:#}"));
                }
            }
        }
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.set_devices(self.registry.devices(), now);
        }
    }

    /// Own address in the party.
    pub fn me(&self) -> Ipv4Addr {
        self.me
    }
}

/// A lane's wrapping: IPv4 without options, UDP to the lane's port.
fn is_wrapped(packet: &[u8]) -> bool {
    let port = packet.get(22..24).map(|port| u16::from_be_bytes([port[0], port[1]]));
    packet.len() > OVERHEAD
        && packet[0] == 0x45
        && packet[9] == lanrage_common::wire::PROTOCOL_UDP
        && port == Some(lanrage_common::lane::PORT)
}
