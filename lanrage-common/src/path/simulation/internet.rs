//! How datagrams fare between hosts: links, routers, relays.

use super::flow::Packet;
use super::host::Host;
use super::nat::Router;
use super::{Event, Nat, World};
use crate::binding::{Request, binding_answer, parse_request};
use crate::path::probe;
use rand::Rng as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Through the switch of a home.
const LAN_DELAY: Duration = Duration::from_micros(300);
/// From a relay back.
const STUN_DELAY: Duration = Duration::from_millis(20);

/// How datagrams fare between a host and the internet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    /// One way, milliseconds.
    pub latency_ms: u64,
    /// Up to so many more milliseconds.
    pub jitter_ms: u64,
    /// Share that is lost.
    pub loss: f64,
    /// Share that may overtake others.
    pub reorder: f64,
    /// Share that finds its host busy, and waits for up to [`Link::busy_ms`]; what comes after it waits, too.
    pub busy: f64,
    /// Milliseconds.
    pub busy_ms: u64,
    /// Longer payloads are lost, and nobody is told; 0 = none are.
    pub most: usize,
}

impl World {
    pub(super) fn arrive(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        if let Some((name, relay)) =
            self.relays.iter().find(|(_, relay)| **relay == to).map(|(name, relay)| (name.clone(), *relay))
        {
            return self.forward(from, &name, relay, payload);
        }
        let at = self.at;
        let router =
            self.routers.iter().enumerate().find(|(_, router)| IpAddr::V4(router.outside) == to.ip());
        let inside = match router {
            Some((_, Router { nat: Nat::None, .. })) => Some(to),
            Some((_, router)) => router.admit(from, to.port(), at),
            None => None,
        };
        if let (Some((home, _)), Some(inside)) = (router, inside) {
            self.arrive_inside(from, inside, home, payload);
        }
    }

    pub(super) fn arrive_inside(&mut self, from: SocketAddr, to: SocketAddr, home: usize, payload: Vec<u8>) {
        let is_at = |host: &Host| host.home == home && host.inside.ip() == to.ip();
        let Some(n) = self.hosts.iter().position(is_at) else { return };
        let host = &self.hosts[n];
        let spare = host.spares.iter().position(|port| *port == to.port());
        let is_kept = || host.kept.values().any(|port| *port == to.port());
        if spare.is_none() && host.inside != to && !is_kept() {
            return;
        }
        if self.off.contains(&n) {
            return;
        }
        let now = self.now();
        if let Some(spare) = spare {
            let member = self.hosts[1 - n].key;
            self.hosts[n].agent.handle_spare_datagram(&member, spare, from, &payload, now);
        } else if let Some((_, packet)) = Packet::from_bytes(&payload) {
            let member = self.hosts[packet.from].key;
            self.hosts[n].agent.handle_tunnel_rx(&member, from, now);
            if let Some((flow, number)) = packet.flow {
                self.flows[flow].arrived(number, self.at);
            }
        } else {
            assert!(self.hosts[n].agent.handle_datagram(from, &payload, now), "it is a probe");
        }
        self.drain(n);
    }

    /// The relay: only between bound addresses, by the receiver's tag.
    fn forward(&mut self, from: SocketAddr, name: &str, relay: SocketAddr, payload: Vec<u8>) {
        if self.dead_relays.contains(name) {
            return;
        }
        if let Some(Request::Binding(request)) = parse_request(&payload) {
            let answer = binding_answer(request.transaction, from);
            return self.schedule(STUN_DELAY, Event::Datagram { from: relay, to: from, payload: answer });
        }
        let is_bound = self.hosts.iter().any(|host| host.bound.get(name) == Some(&from));
        let tag = Packet::from_bytes(&payload).map(|(tag, _)| tag).or_else(|| probe::receiver_tag(&payload));
        let target = self.hosts.iter().position(|host| Some(probe::tag(&host.key)) == tag);
        let to = target.and_then(|n| Some((n, *self.hosts[n].bound.get(name)?)));
        if let Some((n, to)) = to.filter(|_| is_bound)
            && let Some(delay) = self.pass(n, payload.len())
        {
            let delay = delay + Duration::from_millis(self.detour(n, name));
            let delay = self.in_order(n, relay, delay);
            self.schedule(delay, Event::Datagram { from: relay, to, payload });
        }
    }

    /// The time a datagram takes between a host and the internet; none when it is lost.
    fn pass(&mut self, n: usize, length: usize) -> Option<Duration> {
        let link = self.links[n];
        let is_lost = link.loss > 0.0 && self.rng.gen_bool(link.loss) || link.most > 0 && length > link.most;
        let jitter = self.rng.gen_range(0..=link.jitter_ms * 1000);
        let is_busy = link.busy > 0.0 && self.rng.gen_bool(link.busy);
        let wait = if is_busy { self.rng.gen_range(0..=link.busy_ms) } else { 0 };
        (!is_lost).then(|| Duration::from_millis(link.latency_ms + wait) + Duration::from_micros(jitter))
    }

    /// Datagrams of one way seldom overtake each other.
    fn in_order(&mut self, n: usize, far: SocketAddr, delay: Duration) -> Duration {
        let reorder = self.links[n].reorder;
        let arrival = self.at + delay;
        let last = self.arrivals.entry((n, far)).or_default();
        if reorder > 0.0 && self.rng.gen_bool(reorder) {
            return delay;
        }
        *last = arrival.max(*last);
        *last - self.at
    }

    /// Sends from host `n` through its NAT, by the socket that is meant for there.
    pub fn transmit(&mut self, n: usize, to: SocketAddr, payload: Vec<u8>) {
        let host = &self.hosts[n];
        let port = host.kept.get(&to).copied().unwrap_or(host.inside.port());
        self.transmit_from(n, port, to, payload);
    }

    pub(super) fn transmit_from(&mut self, n: usize, port: u16, to: SocketAddr, payload: Vec<u8>) {
        let (at, home) = (self.at, self.hosts[n].home);
        let inside = SocketAddr::new(self.hosts[n].inside.ip(), port);
        if is_private(to) {
            if self.routers[home].nat != Nat::None {
                self.schedule(LAN_DELAY, Event::Inside { from: inside, to, home, payload });
            }
            return;
        }
        let from = self.routers[home].translate(inside, to, at, &mut self.rng);
        if to.ip() == IpAddr::V4(self.routers[home].outside) {
            if matches!(self.routers[home].nat, Nat::Router(rules) if rules.hairpin) {
                self.schedule(LAN_DELAY, Event::Datagram { from, to, payload });
            }
            return;
        }
        let is_data = Packet::from_bytes(&payload).is_some();
        let target =
            self.hosts.iter().position(|host| IpAddr::V4(self.routers[host.home].outside) == to.ip());
        let is_cut = target.is_some_and(|t| {
            let pair = (n.min(t), n.max(t));
            self.cut.contains(&pair)
                || self.cut_way.contains(&(n, t))
                || is_data && self.cut_data.contains(&pair)
        });
        let is_lost = self.loss > 0.0 && self.rng.gen_bool(self.loss);
        let relay = self.relays.iter().find(|(_, place)| **place == to).map(|(name, _)| name.clone());
        let (Some(near), Some(far)) = (
            self.pass(n, payload.len()),
            target.map_or(Some(Duration::ZERO), |t| self.pass(t, payload.len())),
        ) else {
            return;
        };
        if is_cut || is_lost {
            return;
        }
        let detour = relay.map_or(self.direct_detour, |name| self.detour(n, &name));
        let noise = Duration::from_micros(self.rng.gen_range(0..800));
        let delay = self.in_order(n, to, near + far + Duration::from_millis(detour) + noise);
        self.schedule(delay, Event::Datagram { from, to, payload });
    }

    pub(super) fn detour(&self, n: usize, relay: &str) -> u64 {
        self.far.get(&(n, relay.to_owned())).copied().unwrap_or_default()
    }
}

fn is_private(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V4(ip) if ip.is_private())
}
