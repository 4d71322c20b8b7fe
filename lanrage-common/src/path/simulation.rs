//! A small internet in virtual time: hosts behind NATs, one or more relays, a control server that passes signals.
//!
//! Everything random comes from a seed, so a run can be repeated.

pub mod flow;
mod host;
mod internet;
pub mod nat;

pub use internet::Link;
pub use nat::Nat;

use super::{Output, probe};
use crate::api::PathKind;
use crate::identity::WgKey;
use crate::time::Now;
use flow::{Flow, Packet};
use host::{Host, host, place};
use nat::Router;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// The first relay's name.
pub const RELAY: &str = "home";
/// A binding is refreshed this often, which keeps the relay's NAT mapping.
const REFRESH: Duration = Duration::from_secs(20);

enum Event {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    /// Inside a home, or behind its router.
    Inside {
        from: SocketAddr,
        to: SocketAddr,
        home: usize,
        payload: Vec<u8>,
    },
    Send {
        flow: usize,
    },
    Signal {
        from: WgKey,
        to: usize,
        body: String,
    },
    Refresh {
        host: usize,
    },
}

/// The internet and all that is in it.
pub struct World {
    start: Instant,
    /// Now.
    pub at: Duration,
    /// What the wall clocks are ahead of it, seconds: they may jump.
    pub clock: i64,
    pub hosts: Vec<Host>,
    pub routers: Vec<Router>,
    pub flows: Vec<Flow>,
    pub relays: BTreeMap<String, SocketAddr>,
    events: BTreeMap<(Duration, u64), Event>,
    order: u64,
    rng: StdRng,
    pub links: Vec<Link>,
    /// When the last datagram of a way arrived: the next one comes later.
    arrivals: HashMap<(usize, SocketAddr), Duration>,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Direct datagrams between these hosts are dropped (pairs in order).
    pub cut: BTreeSet<(usize, usize)>,
    /// The same, but only data: probes pass.
    pub cut_data: BTreeSet<(usize, usize)>,
    /// Only this direction is cut.
    pub cut_way: BTreeSet<(usize, usize)>,
    /// Switched off: neither sends nor receives.
    pub off: BTreeSet<usize>,
    /// Relays that forward nothing.
    pub dead_relays: BTreeSet<String>,
    /// Extra milliseconds of a host's leg to a relay.
    pub far: BTreeMap<(usize, String), u64>,
    /// Extra milliseconds between two hosts without a relay.
    pub direct_detour: u64,
    pub signals_work: bool,
    /// Whether a doubted binding is refreshed at once.
    pub rebinds: bool,
    /// Further sockets that a host can open.
    pub sockets_left: usize,
    /// How often a relay was doubted.
    pub doubts: u32,
}

impl World {
    /// Hosts behind these NATs, with random latencies, all bound at one relay a little after each other.
    pub fn new(seed: u64, nats: &[Nat]) -> Self {
        let mut world = Self::unbound(seed, nats);
        for host in 0..nats.len() {
            world.bind(host, RELAY);
        }
        world.introduce();
        world
    }

    /// The same, but nobody is bound or knows anybody.
    pub fn unbound(seed: u64, nats: &[Nat]) -> Self {
        let homes: Vec<usize> = (0..nats.len()).collect();
        Self::at_homes(seed, nats, &homes)
    }

    /// Homes behind these NATs, and hosts in them.
    pub fn at_homes(seed: u64, nats: &[Nat], homes: &[usize]) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let outside = |home: usize| Ipv4Addr::new(203, 0, home as u8 + 1, 1);
        let routers: Vec<Router> =
            nats.iter().enumerate().map(|(home, nat)| Router::new(*nat, outside(home), &mut rng)).collect();
        let place = |n: usize| place(&routers[homes[n]], homes[n], n);
        let hosts = (0..homes.len()).map(|n| host(n, place(n), homes[n], rng.r#gen())).collect();
        let links =
            homes.iter().map(|_| Link { latency_ms: rng.gen_range(1..40), ..Link::default() }).collect();
        Self {
            start: Instant::now(),
            at: Duration::ZERO,
            clock: 0,
            hosts,
            routers,
            flows: Vec::new(),
            relays: BTreeMap::from([(RELAY.into(), "192.0.2.1:3478".parse().expect("an address"))]),
            events: BTreeMap::new(),
            order: 0,
            rng,
            links,
            arrivals: HashMap::new(),
            loss: 0.0,
            cut: BTreeSet::new(),
            cut_data: BTreeSet::new(),
            cut_way: BTreeSet::new(),
            off: BTreeSet::new(),
            dead_relays: BTreeSet::new(),
            far: BTreeMap::new(),
            direct_detour: 0,
            signals_work: true,
            rebinds: true,
            sockets_left: 512,
            doubts: 0,
        }
    }

    pub fn now(&self) -> Now {
        Now {
            instant: self.start + self.at,
            unix: (1_800_000_000 + self.at.as_secs()).saturating_add_signed(self.clock),
        }
    }

    pub fn introduce(&mut self) {
        let keys: Vec<WgKey> = self.hosts.iter().map(|host| host.key).collect();
        let now = self.now();
        for n in 0..keys.len() {
            let inside = self.hosts[n].inside;
            self.hosts[n].agent.set_local_candidates(vec![inside], now);
            keys.iter().for_each(|key| self.hosts[n].agent.add_member(*key, now));
            self.drain(n);
        }
    }

    /// Binds, and refreshes regularly.
    pub fn bind(&mut self, n: usize, relay: &str) {
        self.bind_again(n, relay);
        self.schedule(REFRESH, Event::Refresh { host: n });
    }

    fn bind_again(&mut self, n: usize, relay: &str) {
        let (now, at) = (self.now(), self.at);
        let address = self.relays[relay];
        let (home, inside) = (self.hosts[n].home, self.hosts[n].inside);
        let mapped = self.routers[home].translate(inside, address, at, &mut self.rng);
        let rtt = Duration::from_millis(2 * (self.links[n].latency_ms + self.detour(n, relay)));
        let host = &mut self.hosts[n];
        host.bound.insert(relay.into(), mapped);
        host.agent.handle_bound(relay, address, mapped, Some(rtt), now);
        self.drain(n);
    }

    pub fn unbind(&mut self, n: usize, relay: &str) {
        let now = self.now();
        self.hosts[n].bound.remove(relay);
        self.hosts[n].agent.handle_unbound(relay, now);
        self.drain(n);
    }

    /// The same device starts again: a new agent, the same address, bound anew.
    pub fn restart(&mut self, n: usize) {
        let (inside, home) = (self.hosts[n].inside, self.hosts[n].home);
        self.hosts[n] = host(n, inside, home, self.rng.r#gen());
        self.bind(n, RELAY);
        self.introduce();
    }

    /// The router is exchanged: no mapping survives, and the relay has an old address until the binding is refreshed.
    pub fn change_nat(&mut self, n: usize, nat: Nat) {
        let home = self.hosts[n].home;
        self.routers[home].reboot(nat);
    }

    /// The home's internet address becomes another one, as when a provider separates the line.
    pub fn change_address(&mut self, n: usize, outside: Ipv4Addr) {
        let router = &mut self.routers[self.hosts[n].home];
        router.outside = outside;
        router.reboot(router.nat);
        if router.nat == Nat::None {
            // the device sees it, and binds again
            let (inside, now) = ((outside, host::PORT).into(), self.now());
            self.hosts[n].inside = inside;
            self.hosts[n].agent.set_local_candidates(vec![inside], now);
            for relay in self.hosts[n].bound.keys().cloned().collect::<Vec<_>>() {
                self.bind_again(n, &relay);
            }
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.order += 1;
        self.events.insert((self.at + after, self.order), event);
    }

    /// Runs until nothing is left to do before `until`.
    pub fn run_until(&mut self, until: Duration) {
        while self.step(until) {}
        self.at = until;
    }

    /// Runs until the condition holds; the time it took, or `None` when it did not within `limit` from now.
    pub fn run_while(&mut self, limit: Duration, mut holds: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let (from, until) = (self.at, self.at + limit);
        while !holds(self) {
            if !self.step(until) {
                return None;
            }
        }
        Some(self.at - from)
    }

    fn step(&mut self, until: Duration) -> bool {
        let start = self.start;
        let timeout = |host: &Host| host.agent.poll_timeout().map(|due| due.saturating_duration_since(start));
        let timer = (0..self.hosts.len())
            .filter(|n| !self.off.contains(n))
            .filter_map(|n| Some((timeout(&self.hosts[n])?.max(self.at), n)))
            .min();
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let next = [timer.map(|(at, _)| at), event].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= until) else { return false };
        self.at = next;
        if event.is_some_and(|event| event <= next) {
            if let Some((_, event)) = self.events.pop_first() {
                self.handle(event);
            }
        } else if let Some((_, n)) = timer {
            let now = self.now();
            self.hosts[n].agent.handle_timeout(now);
            let again = self.hosts[n].agent.poll_timeout();
            assert!(
                again.is_none_or(|due| due > now.instant),
                "a timer that was handled must not be due again"
            );
            self.drain(n);
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Datagram { from, to, payload } => self.arrive(from, to, payload),
            Event::Inside { from, to, home, payload } => self.arrive_inside(from, to, home, payload),
            Event::Send { flow } => self.send(flow),
            Event::Signal { to, .. } if self.off.contains(&to) => {}
            Event::Refresh { host } if self.off.contains(&host) => {}
            Event::Signal { from, to, body } => {
                let now = self.now();
                self.hosts[to].agent.handle_signal(from, &body, now);
                self.drain(to);
            }
            Event::Refresh { host } => {
                for relay in self.hosts[host].bound.keys().cloned().collect::<Vec<_>>() {
                    self.bind(host, &relay);
                }
            }
        }
    }

    pub fn drain(&mut self, n: usize) {
        while let Some(output) = self.hosts[n].agent.poll_output() {
            match output {
                Output::Transmit { to, payload } | Output::TransmitWhole { to, payload } => {
                    self.hosts[n].sent_to.push((self.at, to));
                    self.transmit(n, to, payload);
                }
                Output::Mtu { member, mtu } => drop(self.hosts[n].mtus.insert(member, mtu)),
                Output::Confirm { member, to } => {
                    let keepalive = Packet { from: n, flow: None };
                    self.transmit(n, to, keepalive.to_bytes(probe::tag(&member)));
                }
                Output::Signal { to, body } if self.signals_work => {
                    let from = self.hosts[n].key;
                    let to = self.hosts.iter().position(|host| host.key == to).expect("a host");
                    let legs = self.links[n].latency_ms + self.links[to].latency_ms;
                    let delay = Duration::from_millis(legs + 3);
                    self.schedule(delay, Event::Signal { from, to, body });
                }
                Output::Signal { .. } => {}
                Output::RelaySilent { relay } => {
                    self.doubts += 1;
                    if self.rebinds {
                        self.bind_again(n, &relay);
                    }
                }
                Output::OpenSpares { member, count } => {
                    let port = self.rng.gen_range(40_000..50_000);
                    self.hosts[n].spares = (port..).take(count.min(self.sockets_left)).collect();
                    let (now, ports) = (self.now(), self.hosts[n].spares.clone());
                    self.hosts[n].agent.handle_spares(&member, &ports, now);
                }
                Output::TransmitFrom { spare, to, payload, .. } => {
                    self.hosts[n].sent_to.push((self.at, to));
                    let port = self.hosts[n].spares[spare];
                    self.transmit_from(n, port, to, payload);
                }
                Output::KeepSpare { spare, far, .. } => {
                    let port = std::mem::take(&mut self.hosts[n].spares)[spare];
                    self.hosts[n].kept.insert(far, port);
                }
                Output::CloseSpares { .. } => self.hosts[n].spares.clear(),
                Output::ReleaseSpare { far } => drop(self.hosts[n].kept.remove(&far)),
                Output::RelayWishes { wanted, used } => self.hosts[n].wishes = (wanted, used),
                Output::Path { member, path } => {
                    let kind = path.as_ref().map(|path| path.kind);
                    self.hosts[n].path_changes.push((self.at, member, kind));
                    match path {
                        Some(path) => self.hosts[n].path.insert(member, path),
                        None => self.hosts[n].path.remove(&member),
                    };
                }
            }
        }
    }

    pub fn kind(&self, n: usize, to: usize) -> PathKind {
        self.hosts[n].path.get(&self.hosts[to].key).map_or(PathKind::None, |path| path.kind)
    }

    pub fn all_are(&self, kind: PathKind) -> bool {
        let pairs = (0..self.hosts.len()).flat_map(|a| (0..self.hosts.len()).map(move |b| (a, b)));
        pairs.filter(|(a, b)| a != b).all(|(a, b)| self.kind(a, b) == kind)
    }

    pub fn why(&self, n: usize, to: usize) -> String {
        self.hosts[n].agent.status(&self.hosts[to].key).map(|status| status.why).unwrap_or_default()
    }

    /// So many times something was counted, by all agents.
    pub fn count(&self, what: &str) -> u64 {
        self.hosts.iter().filter_map(|host| host.agent.counters().get(what)).sum()
    }
}
