//! Finds out how this network's NAT behaves, from the tunnel's socket: at start, after changes and now and then.

use super::Reply;
use super::port_mapping::Forwarding;
use crate::netcheck::{self, Spares};
use lanrage_common::api::{NetworkStatus, PinholeStatus, StunServerStatus};
use lanrage_common::nat::discovery::{Discovery, MAX_SERVERS, Transmit, Via};
use lanrage_common::nat::lifetime::Lifetime;
use lanrage_common::nat::{Behaviour, PortMapping};
use lanrage_common::protocol::RelayInfo;
use lanrage_common::time::Now;
use rand_core::OsRng;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Changes come in bunches.
const CALM: Duration = Duration::from_millis(500);
/// A NAT may be another one without notice.
const AGAIN: Duration = Duration::from_secs(20 * 60);
/// Without an answer it is tried again sooner.
const AGAIN_SOON: Duration = Duration::from_secs(60);

/// What the session must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send from the tunnel's socket.
    Transmit {
        /// Where to.
        to: SocketAddr,
        /// STUN.
        payload: Vec<u8>,
    },
    /// Tell the path agent.
    Nat(Behaviour),
}

/// See the module.
#[derive(Debug, Default)]
pub struct NatTest {
    relays: Vec<(String, SocketAddr)>,
    stun_servers: Vec<SocketAddr>,
    local: Vec<SocketAddr>,
    discovery: Option<Discovery>,
    lifetime: Option<Lifetime>,
    spares: Option<Spares>,
    due: Option<Instant>,
    forwarding: Forwarding,
    status: NetworkStatus,
    told: Behaviour,
    waiting: Vec<Reply<NetworkStatus>>,
}

impl NatTest {
    /// The relays as the control server lists them.
    pub fn set_relays(&mut self, list: &[RelayInfo], now: Now) {
        let named = |relay: &RelayInfo, is_ipv4: bool| {
            let address = relay.addresses.iter().find(|address| address.is_ipv4() == is_ipv4)?;
            Some((relay.name.clone(), *address))
        };
        // one IPv6 address is enough to know that IPv6 works
        let ipv6 = list.iter().find_map(|relay| named(relay, false));
        let ipv4 = list.iter().filter_map(|relay| named(relay, true)).take(MAX_SERVERS - 2);
        let relays: Vec<_> = ipv4.chain(ipv6).collect();
        if relays != self.relays {
            self.relays = relays;
            self.start_soon(now);
        }
    }

    /// Further servers.
    pub fn set_stun_servers(&mut self, servers: Vec<SocketAddr>, now: Now) {
        if servers != self.stun_servers {
            self.stun_servers = servers;
            self.start_soon(now);
        }
    }

    /// Own addresses with the tunnel's port; after a change of the network everything is found out anew.
    pub fn set_local(&mut self, local: Vec<SocketAddr>, has_changed: bool, now: Now) {
        if has_changed || local != self.local {
            self.local = local;
            self.start_soon(now);
        }
    }

    /// What came of asking the router to forward a port.
    pub fn set_forwarding(&mut self, forwarding: Forwarding) {
        self.forwarding = forwarding;
    }

    /// Finds out anew and answers with the result.
    pub fn check(&mut self, reply: Reply<NetworkStatus>, now: Now) {
        self.waiting.push(reply);
        if self.discovery.as_ref().is_none_or(Discovery::is_done) {
            self.start(now);
        }
    }

    /// As it is known now.
    pub fn status(&self) -> NetworkStatus {
        let mut status = self.status.clone();
        status.nat = self.behaviour();
        status.protocols.clone_from(&self.forwarding.protocols);
        status.forwarded = self.forwarding.external;
        status.not_forwarded.clone_from(&self.forwarding.problem);
        let pinhole = &self.forwarding.pinhole;
        status.pinhole = pinhole.address.zip(pinhole.by).map(|(address, by)| PinholeStatus { address, by });
        status.no_pinhole.clone_from(&pinhole.problem);
        status
    }

    /// Returns when a spare socket has datagrams. Cancel safe.
    pub async fn readable(&mut self) {
        match &self.spares {
            Some(spares) => spares.readable().await,
            None => std::future::pending().await,
        }
    }

    /// Takes what has come to the spare sockets.
    pub fn receive(&mut self, now: Now) {
        let Some(spares) = &self.spares else { return };
        while let Some((via, datagram)) = spares.try_recv() {
            self.discovery.iter_mut().for_each(|discovery| {
                discovery.handle_datagram(via, &datagram, now);
            });
            self.lifetime.iter_mut().for_each(|lifetime| {
                lifetime.handle_datagram(via, &datagram, now);
            });
        }
    }

    /// Takes a STUN datagram from the tunnel's socket; says whether it was an answer to this test.
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Now) -> bool {
        let discovery = self.discovery.as_mut();
        discovery.is_some_and(|discovery| discovery.handle_datagram(Via::Tunnel, datagram, now))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.due.is_some_and(|due| due <= now.instant) {
            self.start(now);
        }
        if let Some(discovery) = &mut self.discovery {
            discovery.handle_timeout(now);
        }
        if let Some(lifetime) = &mut self.lifetime {
            lifetime.handle_timeout(now);
        }
    }

    /// When [`NatTest::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let discovery = self.discovery.as_ref().and_then(Discovery::poll_timeout);
        let lifetime = self.lifetime.as_ref().and_then(Lifetime::poll_timeout);
        [self.due, discovery, lifetime].into_iter().flatten().min()
    }

    /// What to do next; drain until `None`.
    pub fn poll_output(&mut self, now: Now) -> Option<Output> {
        while let Some(Transmit { via, to, payload }) = self.next_transmit() {
            match (via, &self.spares) {
                (Via::Tunnel, _) => return Some(Output::Transmit { to, payload }),
                (Via::Spare(at), Some(spares)) => spares.send(at, to, &payload),
                (Via::Spare(_), None) => {}
            }
        }
        self.finish(now);
        let behaviour = self.behaviour();
        (behaviour != self.told).then(|| {
            self.told.clone_from(&behaviour);
            Output::Nat(behaviour)
        })
    }

    fn next_transmit(&mut self) -> Option<Transmit> {
        let discovery = self.discovery.as_mut().and_then(Discovery::poll_output);
        discovery.or_else(|| self.lifetime.as_mut().and_then(Lifetime::poll_output))
    }

    fn start_soon(&mut self, now: Now) {
        self.due = Some(now.instant + CALM);
    }

    fn start(&mut self, now: Now) {
        let servers: Vec<SocketAddr> = self
            .relays
            .iter()
            .map(|(_, address)| *address)
            .chain(self.stun_servers.iter().copied())
            .collect();
        self.due = Some(now.instant + AGAIN);
        self.lifetime = None;
        // fresh ports: nothing of an earlier test is left in the NAT
        self.spares = Spares::open().inspect_err(|error| tracing::debug!(%error, "no spare sockets")).ok();
        let servers = &servers[..servers.len().min(MAX_SERVERS)];
        self.discovery = Some(Discovery::new(servers, self.local.clone(), OsRng, now));
    }

    /// Keeps the results when a test is over.
    fn finish(&mut self, now: Now) {
        if let Some(discovery) = self.discovery.take_if(|discovery| discovery.is_done()) {
            let lifetime_s = self.status.nat.lifetime_s;
            self.status.nat = Behaviour { lifetime_s, ..discovery.behaviour().clone() };
            self.status.servers = discovery.servers().map(|answer| self.describe(answer)).collect();
            self.lifetime = discovery.tester().map(|server| Lifetime::new(server, OsRng, now));
            if discovery.behaviour().udp_blocked != Some(false) {
                self.due = Some(now.instant + AGAIN_SOON);
            }
            tracing::debug!(nat = ?self.behaviour(), "the network is known");
            let status = self.status();
            for reply in self.waiting.drain(..) {
                let _ = reply.send(Ok(status.clone()));
            }
        }
        if let Some(lifetime) = self.lifetime.take_if(|lifetime| lifetime.is_done()) {
            let seconds = lifetime.lived().and_then(|lived| u16::try_from(lived.as_secs()).ok());
            self.status.nat.lifetime_s = seconds.or(self.status.nat.lifetime_s);
        }
        if self.discovery.is_none() && self.lifetime.is_none() {
            self.spares = None;
        }
    }

    fn describe(&self, answer: lanrage_common::nat::discovery::ServerAnswer) -> StunServerStatus {
        let relay = self.relays.iter().find(|(_, address)| *address == answer.server);
        netcheck::describe(answer, relay.map(|(name, _)| name.clone()))
    }

    /// What the test and the router together tell.
    fn behaviour(&self) -> Behaviour {
        let Forwarding { by, external, gateway_address, .. } = &self.forwarding;
        let mut behaviour = self.status.nat.clone();
        behaviour.port_mapping = match external {
            Some(_) => *by,
            None => by.map(|_| PortMapping::None),
        };
        if let Some(IpAddr::V4(outside)) = gateway_address {
            let is_seen = behaviour.public_address.is_none_or(|seen| seen == *outside);
            behaviour.is_cgnat = Some(netcheck::is_inside(*outside) || !is_seen);
        }
        behaviour
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    fn with_router(seen: &str, outside: &str) -> Behaviour {
        let mut test = NatTest::default();
        test.status.nat.public_address = seen.parse().ok();
        test.set_forwarding(Forwarding {
            by: Some(PortMapping::Upnp),
            external: Some(SocketAddr::new(outside.parse().unwrap(), 4000)),
            gateway_address: outside.parse().ok(),
            ..Forwarding::default()
        });
        test.behaviour()
    }

    #[test]
    fn a_router_that_is_not_the_internets_end_has_a_carriers_nat_in_front() {
        for (seen, outside, is_cgnat) in [
            ("203.0.113.7", "203.0.113.7", false),
            ("203.0.113.7", "100.64.3.2", true),
            ("203.0.113.7", "192.168.1.2", true),
            ("203.0.113.7", "198.51.100.9", true),
            ("unknown", "198.51.100.9", false),
        ] {
            let behaviour = with_router(seen, outside);
            assert_eq!(behaviour.is_cgnat, Some(is_cgnat), "{seen} {outside}");
            assert_eq!(behaviour.port_mapping, Some(PortMapping::Upnp));
        }
        let mut test = NatTest::default();
        test.set_forwarding(Forwarding { by: Some(PortMapping::Upnp), ..Forwarding::default() });
        assert_eq!(test.behaviour().port_mapping, Some(PortMapping::None), "a lease that leads nowhere");
    }

    /// Where the test asks at first.
    fn asked(test: &mut NatTest) -> Vec<SocketAddr> {
        let now = now().after(2 * CALM);
        test.handle_timeout(now);
        let outputs = std::iter::from_fn(|| test.poll_output(now));
        outputs.filter_map(|it| if let Output::Transmit { to, .. } = it { Some(to) } else { None }).collect()
    }

    #[tokio::test]
    async fn servers_of_the_configuration_are_asked_beside_relays() {
        let (relay, stun) = ("192.0.2.6:3478".parse().unwrap(), "192.0.2.99:3478".parse().unwrap());
        let mut test = NatTest::default();
        test.set_stun_servers(vec![stun], now());
        assert_eq!(asked(&mut test), [stun], "alone, where there is no relay yet");
        test.relays = vec![("lab".into(), relay)];
        test.set_local(vec!["192.168.1.2:4000".parse().unwrap()], true, now());
        let both = asked(&mut test);
        assert!(both.contains(&relay) && both.contains(&stun), "{both:?}");
    }
}
