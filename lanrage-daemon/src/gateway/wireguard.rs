//! WireGuard for devices that speak nothing else: a port and a key of its own, beside the party's tunnel.

use super::Registered;
use crate::peer::socket::Socket;
use crate::peer::tunnel::userspace::UserspaceTunnel;
use crate::peer::tunnel::{TICK, Tunnel, TunnelMember, TunnelPath, TunnelSink};
use anyhow::Context as _;
use lanrage_common::identity::WgKey;
use rand_core::OsRng;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use x25519_dalek::{PublicKey, StaticSecret};

/// A device that was silent for so long (clients send a keepalive every 25 s) is away: it gets no group packets, and
/// nobody knocks at its address any more.
const AWAY_AFTER: Duration = Duration::from_secs(180);
const BUFFER: usize = 65_536;

/// See the module.
pub(super) struct Wireguard {
    tunnel: UserspaceTunnel,
    socket: Socket,
    watched: tokio::net::UdpSocket,
    public: WgKey,
    devices: Vec<Device>,
    buffer: Vec<u8>,
    next_tick: Instant,
}

struct Device {
    key: WgKey,
    address: Ipv4Addr,
    /// Where its last authentic datagram came from, and when; clients roam.
    heard: Option<(SocketAddr, Instant)>,
    is_there: bool,
}

/// What is known of a device's session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) heard: Option<Duration>,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
}

impl Wireguard {
    pub(super) fn open(listen: SocketAddr, key: [u8; 32]) -> anyhow::Result<Self> {
        let socket = Socket::listen(listen).with_context(|| {
            format!("the gateway cannot listen on UDP {listen}: stop the program that has the port (another WireGuard?), or set another `gateway.listen`")
        })?;
        let secret = StaticSecret::from(key);
        Ok(Self {
            watched: socket.watched()?,
            socket,
            public: WgKey(PublicKey::from(&secret).to_bytes()),
            tunnel: UserspaceTunnel::new(secret, Box::new(OsRng)),
            devices: Vec::new(),
            buffer: vec![0; BUFFER],
            next_tick: Instant::now(),
        })
    }

    pub(super) fn public(&self) -> WgKey {
        self.public
    }

    pub(super) fn set_devices(&mut self, wanted: &[Registered], now: Instant) {
        let is_wanted =
            |device: &Device| wanted.iter().any(|it| (it.key, it.address) == (device.key, device.address));
        for gone in self.devices.extract_if(.., |device| !is_wanted(device)) {
            self.tunnel.remove_member(&gone.key);
        }
        for Registered { key, address, .. } in wanted {
            if self.devices.iter().all(|device| device.key != *key) {
                // a preshared key of zeros is none (WireGuard paper, section 5.4.2)
                let member = TunnelMember { key: *key, preshared_key: [0; 32], address: *address };
                self.tunnel.set_member(member, now);
                self.devices.push(Device { key: *key, address: *address, heard: None, is_there: false });
            }
        }
    }

    /// The socket, to wait for datagrams.
    pub(super) fn watched(&self) -> &tokio::net::UdpSocket {
        &self.watched
    }

    /// Takes a datagram; what was in it goes to `packet`. False when there was none.
    pub(super) fn receive(&mut self, now: Instant, packet: &mut Vec<u8>) -> bool {
        let Ok((length, from)) = self.watched.try_recv_from(&mut self.buffer) else { return false };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let datagram = &self.buffer[..length];
        if !matches!(datagram.first(), Some(1..=4)) {
            return true;
        }
        let mut sink = Sink { socket: &self.socket, heard: None, packet: Some(packet) };
        self.tunnel.handle_datagram(from, datagram, now, &mut sink);
        if let Some(key) = sink.heard {
            self.note_heard(key, from, now);
        }
        true
    }

    pub(super) fn send(&mut self, packet: &[u8], now: Instant) {
        let mut sink = Sink { socket: &self.socket, heard: None, packet: None };
        self.tunnel.send(packet, now, &mut sink);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        let mut sink = Sink { socket: &self.socket, heard: None, packet: None };
        for device in &mut self.devices {
            let is_silent = device.heard.is_none_or(|(_, at)| now >= at + AWAY_AFTER);
            if device.is_there && is_silent {
                device.is_there = false;
                self.tunnel.set_path(&device.key, None, now, &mut sink);
            }
        }
        self.tunnel.handle_timeout(now, &mut sink);
    }

    /// Addresses of devices that are not away.
    pub(super) fn there(&self, now: Instant) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let is_there = move |device: &&Device| device.heard.is_some_and(|(_, at)| now < at + AWAY_AFTER);
        self.devices.iter().filter(is_there).map(|device| device.address)
    }

    pub(super) fn seen(&self, key: &WgKey, now: Instant) -> Seen {
        let heard = self.devices.iter().find(|device| device.key == *key).and_then(|device| device.heard);
        let stats = self.tunnel.stats(key).unwrap_or_default();
        Seen {
            endpoint: heard.map(|(from, _)| from),
            heard: heard.map(|(_, at)| now.saturating_duration_since(at)),
            rx_bytes: stats.rx_bytes,
            tx_bytes: stats.tx_bytes,
        }
    }

    pub(super) fn dropped(&self) -> &BTreeMap<&'static str, u64> {
        self.tunnel.dropped()
    }

    fn note_heard(&mut self, key: WgKey, from: SocketAddr, now: Instant) {
        let Some(device) = self.devices.iter_mut().find(|device| device.key == key) else { return };
        let is_new = !device.is_there || device.heard.is_none_or(|(last, _)| last != from);
        (device.heard, device.is_there) = (Some((from, now)), true);
        if is_new {
            let mut sink = Sink { socket: &self.socket, heard: None, packet: None };
            let path = TunnelPath { endpoint: from, relay: None, standby: None, copy: None };
            self.tunnel.set_path(&key, Some(path), now, &mut sink);
        }
    }
}

/// Sends at once; keeps who was heard, and the packet.
struct Sink<'a> {
    socket: &'a Socket,
    heard: Option<WgKey>,
    packet: Option<&'a mut Vec<u8>>,
}

impl TunnelSink for Sink<'_> {
    fn transmit(&mut self, to: SocketAddr, datagram: &[u8]) {
        if let Err(error) = self.socket.send_to(datagram, to) {
            tracing::trace!(%to, %error, "not sent to a device");
        }
    }

    fn deliver(&mut self, from: &WgKey, packet: &[u8]) {
        self.heard = Some(*from);
        if let Some(place) = &mut self.packet {
            place.extend_from_slice(packet);
        }
    }

    fn alive(&mut self, from: &WgKey) {
        self.heard = Some(*from);
    }
}
