//! This device as a gateway: others that know nothing of LANrage take part through it.
//!
//! `wireguard` takes devices with a plain WireGuard client, `registry` knows which there are. The peer's session hands in
//! what is for a device, and forwards what comes from one (`crate::peer::behind`).

mod registry;
mod wireguard;

pub use registry::{Registered, Registry};

use crate::config::GatewayConfig;
use crate::peer::store::Store;
use lanrage_common::api::{GatewayDevice, GatewayStatus};
use lanrage_common::devices::{DeviceKind, PartyDevice};
use lanrage_common::gateway::{destination, source, translate};
use lanrage_common::identity::PartyId;
use lanrage_common::lane::{Inbound, Lane, OVERHEAD, Outbound};
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
    /// The gateway of a party, with the devices that it had; `lane` is one without members.
    pub fn new(config: GatewayConfig, store: Store, party: PartyId, me: Ipv4Addr, lane: Lane) -> Self {
        let registry = Registry::load(&store, party);
        let mut gateway = Self {
            config,
            store,
            me,
            registry,
            wireguard: None,
            lane,
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
        self.registry.devices().iter().map(describe).collect()
    }

    /// Which devices there are.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Takes a device in, and opens the port if it is the first one.
    pub fn add(&mut self, device: Registered, now: Instant) -> anyhow::Result<()> {
        self.registry.add(device.clone());
        self.follow(now);
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
        self.registry.devices().iter().any(|device| device.address == address)
    }

    /// The public key by which plain WireGuard clients know this device, once it takes any.
    pub fn public_key(&self) -> Option<lanrage_common::identity::WgKey> {
        self.wireguard.as_ref().map(Wireguard::public)
    }

    /// Where they reach it, if the configuration leaves no other choice.
    pub fn port(&self) -> u16 {
        self.config.listen.port()
    }

    /// What is wrong.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Returns when a device has sent something.
    pub fn readable(&self) -> impl Future<Output = ()> + Send + use<'_> {
        let socket = self.wireguard.as_ref().map(Wireguard::watched);
        async move {
            match socket {
                // an error shows again when the datagram is taken
                Some(socket) => drop(socket.readable().await),
                None => std::future::pending().await,
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
    }

    /// A packet for a device.
    pub fn send(&mut self, packet: &[u8], now: Instant) {
        let known = destination(packet).is_some_and(|to| self.has(to));
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
        if self.registry.devices().is_empty() || !is_wrapped(packet) {
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
        if self.registry.devices().is_empty() {
            return None;
        }
        let mut dropped: BTreeMap<String, u64> =
            self.dropped.iter().map(|(reason, count)| ((*reason).into(), *count)).collect();
        if let Some(wireguard) = &self.wireguard {
            dropped.extend(wireguard.dropped().iter().map(|(reason, count)| ((*reason).into(), *count)));
        }
        Some(GatewayStatus {
            listen: self.wireguard.as_ref().map(|_| self.config.listen),
            public_key: self.public_key(),
            devices: self.registry.devices().iter().map(|device| self.describe(device, now)).collect(),
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
            endpoint: seen.endpoint,
            heard_s: seen.heard.map(|heard| heard.as_secs()),
            rx_bytes: seen.rx_bytes,
            tx_bytes: seen.tx_bytes,
        }
    }

    /// A group packet to every device that is there, but for one.
    fn send_group_to_all(&mut self, packet: &[u8], except: Option<Ipv4Addr>, now: Instant) {
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
