//! WireGuard in this process, by boringtun.

use super::link::{Link, Local, initiator};
use super::{Tunnel, TunnelMember, TunnelPath, TunnelSink, TunnelStats, destination};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};
use lanrage_common::identity::WgKey;
use rand_core::RngCore;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use x25519_dalek::{PublicKey, StaticSecret};

/// Handshake messages a second that are answered without asking for a cookie first. boringtun counts an initiation
/// twice here (once to learn whose it is), and it comes through two relays, hence four times the 50 that a whole party
/// joining at once may need.
const HANDSHAKES_PER_SECOND: u64 = 200;
/// Room for the largest datagram, and for every handshake message.
const SCRATCH: usize = 65_536 + 64;

/// See the module.
pub struct UserspaceTunnel {
    local: Local,
    links: HashMap<WgKey, Link>,
    by_address: HashMap<Ipv4Addr, WgKey>,
    by_index: HashMap<u32, WgKey>,
    rng: Box<dyn RngCore + Send>,
    scratch: Vec<u8>,
    dropped: BTreeMap<&'static str, u64>,
}

impl std::fmt::Debug for UserspaceTunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserspaceTunnel").field("links", &self.links.len()).finish_non_exhaustive()
    }
}

impl UserspaceTunnel {
    /// A tunnel without members; `rng` picks receiver indexes.
    pub fn new(secret: StaticSecret, rng: Box<dyn RngCore + Send>) -> Self {
        let public = PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SECOND));
        Self {
            local: Local { secret, public, limiter },
            links: HashMap::new(),
            by_address: HashMap::new(),
            by_index: HashMap::new(),
            rng,
            scratch: vec![0; SCRATCH],
            dropped: BTreeMap::new(),
        }
    }

    /// 24 random bits that no other link has: relays know sessions by index, and the first owner keeps one.
    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.next_u32() >> 8;
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    fn drop_for(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }

    /// Whose datagram it is; answers with a cookie when there are too many handshakes.
    fn owner(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        sink: &mut dyn TunnelSink,
    ) -> Result<WgKey, &'static str> {
        match boringtun::noise::Tunn::parse_incoming_packet(datagram).map_err(|_| "malformed")? {
            Packet::HandshakeInit(_) => self.owner_of_initiation(from, datagram, sink),
            Packet::HandshakeResponse(packet) => self.owner_of_index(packet.receiver_idx),
            Packet::PacketCookieReply(packet) => self.owner_of_index(packet.receiver_idx),
            Packet::PacketData(packet) => self.owner_of_index(packet.receiver_idx),
        }
    }

    fn owner_of_index(&self, index: u32) -> Result<WgKey, &'static str> {
        self.by_index.get(&(index >> 8)).copied().ok_or("unknown_session")
    }

    fn owner_of_initiation(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        sink: &mut dyn TunnelSink,
    ) -> Result<WgKey, &'static str> {
        match self.local.limiter.verify_packet(Some(from.ip()), datagram, &mut self.scratch) {
            Ok(Packet::HandshakeInit(initiation)) => {
                let key = initiator(&self.local, &initiation).ok_or("not_authentic")?;
                self.links.contains_key(&key).then_some(key).ok_or("unknown_key")
            }
            Err(TunnResult::WriteToNetwork(cookie)) => {
                sink.transmit(from, cookie);
                Err("under_load")
            }
            _ => Err("not_authentic"),
        }
    }

    fn restart_if_stuck(&mut self, key: WgKey) {
        if !self.links.get(&key).is_some_and(Link::is_stuck) {
            return;
        }
        let index = self.fresh_index();
        if let Some(link) = self.links.get_mut(&key) {
            self.by_index.remove(&link.index());
            self.by_index.insert(index, key);
            link.restart(&self.local, index);
        }
    }
}

impl Tunnel for UserspaceTunnel {
    fn set_member(&mut self, member: TunnelMember, now: Instant) {
        if self.links.get(&member.key).is_some_and(|link| *link.member() == member) {
            return;
        }
        self.remove_member(&member.key);
        let index = self.fresh_index();
        self.by_index.insert(index, member.key);
        self.by_address.insert(member.address, member.key);
        self.links.insert(member.key, Link::new(&self.local, member, index, now));
    }

    fn set_devices(&mut self, key: &WgKey, addresses: &[Ipv4Addr]) {
        let Some(link) = self.links.get_mut(key) else { return };
        for gone in link.devices().iter().filter(|address| !addresses.contains(address)) {
            self.by_address.remove(gone);
        }
        let is_free = |address: &&Ipv4Addr| {
            **address != link.member().address
                && self.by_address.get(*address).is_none_or(|owner| owner == key)
        };
        let devices: Vec<Ipv4Addr> = addresses.iter().filter(is_free).copied().collect();
        self.by_address.extend(devices.iter().map(|address| (*address, *key)));
        link.set_devices(devices);
    }

    fn remove_member(&mut self, key: &WgKey) {
        if let Some(link) = self.links.remove(key) {
            self.by_index.remove(&link.index());
            self.by_address.retain(|_, owner| owner != key);
        }
    }

    fn set_path(&mut self, key: &WgKey, path: Option<TunnelPath>, now: Instant, sink: &mut dyn TunnelSink) {
        if let Some(link) = self.links.get_mut(key) {
            link.set_path(path, now, &mut self.scratch, sink);
        }
    }

    fn send(&mut self, packet: &[u8], now: Instant, sink: &mut dyn TunnelSink) -> bool {
        let key = destination(packet).and_then(|address| self.by_address.get(&address));
        let Some(link) = key.and_then(|key| self.links.get_mut(key)) else {
            self.drop_for("no_such_member");
            return false;
        };
        link.send(packet, now, &mut self.scratch, sink);
        true
    }

    fn handle_datagram(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        sink: &mut dyn TunnelSink,
    ) {
        let handled = self.owner(from, datagram, sink).and_then(|key| {
            let link = self.links.get_mut(&key).ok_or("unknown_key")?;
            link.handle_datagram(from, datagram, now, &mut self.scratch, sink)
        });
        if let Err(reason) = handled {
            self.drop_for(reason);
        }
    }

    fn handle_timeout(&mut self, now: Instant, sink: &mut dyn TunnelSink) {
        self.local.limiter.reset_count();
        let mut stuck = Vec::new();
        for (key, link) in &mut self.links {
            link.tick(now, &mut self.scratch, sink);
            if link.is_stuck() {
                stuck.push(*key);
            }
        }
        for key in stuck {
            self.restart_if_stuck(key);
        }
    }

    fn member_at(&self, address: Ipv4Addr) -> Option<WgKey> {
        self.by_address.get(&address).copied()
    }

    fn confirm(&mut self, key: &WgKey, to: SocketAddr, sink: &mut dyn TunnelSink) -> bool {
        let link = self.links.get_mut(key);
        link.is_some_and(|link| link.confirm(to, &mut self.scratch, sink))
    }

    fn stats(&self, key: &WgKey) -> Option<TunnelStats> {
        self.links.get(key).map(Link::stats)
    }

    fn dropped(&self) -> &BTreeMap<&'static str, u64> {
        &self.dropped
    }
}
