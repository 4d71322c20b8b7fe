//! A small internet in virtual time: hosts behind NATs, one or more relays, a control server that passes signals.

use super::{Config, Output, Path, PathAgent, probe};
use crate::api::PathKind;
use crate::identity::{PartyId, PartySecret, WgKey};
use crate::time::Now;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

pub(super) const RELAY: &str = "home";
const PORT: u16 = 4001;
/// A NAT forgets a mapping that was not used outbound for this long (home routers: about 30 s).
const NAT_LIFE: Duration = Duration::from_secs(30);
/// A binding is refreshed this often, which keeps the relay's NAT mapping.
const REFRESH: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nat {
    /// A public address.
    None,
    /// Endpoint-independent mapping, address-and-port-dependent filtering (RFC 4787).
    Eim,
    /// Address-and-port-dependent mapping with random ports and the same filtering.
    Symmetric,
}

#[derive(Debug, Default)]
struct Router {
    /// (inside port, destination when the mapping depends on it) -> (outside port, last use)
    mappings: HashMap<(u16, Option<SocketAddr>), (u16, Duration)>,
    /// (outside port, remote) that may come in.
    open: HashMap<(u16, SocketAddr), Duration>,
}

pub(super) struct Host {
    pub key: WgKey,
    pub agent: PathAgent,
    pub nat: Nat,
    pub inside: SocketAddr,
    outside: Ipv4Addr,
    router: Router,
    /// By relay name: the address the relay has bound.
    bound: BTreeMap<String, SocketAddr>,
    pub path: BTreeMap<WgKey, Path>,
    /// What the agent would have it be bound at, and what it uses.
    pub wishes: (BTreeMap<String, u32>, BTreeSet<String>),
    pub path_changes: Vec<(Duration, WgKey, Option<PathKind>)>,
    /// Every datagram sent, relays included.
    pub sent_to: Vec<(Duration, SocketAddr)>,
}

enum Event {
    Datagram { from: SocketAddr, to: SocketAddr, payload: Vec<u8> },
    Signal { from: WgKey, to: usize, body: String },
    Refresh { host: usize },
}

pub(super) struct World {
    start: Instant,
    pub at: Duration,
    pub hosts: Vec<Host>,
    pub relays: BTreeMap<String, SocketAddr>,
    events: BTreeMap<(Duration, u64), Event>,
    order: u64,
    rng: StdRng,
    latency_ms: Vec<u64>,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Direct datagrams between these hosts are dropped (pairs in order).
    pub cut: BTreeSet<(usize, usize)>,
    /// Switched off: neither sends nor receives.
    pub off: BTreeSet<usize>,
    /// Relays that forward nothing.
    pub dead_relays: BTreeSet<String>,
    /// Extra milliseconds of a host's leg to a relay.
    pub far: BTreeMap<(usize, String), u64>,
    pub signals_work: bool,
    /// Whether a doubted binding is refreshed at once.
    pub rebinds: bool,
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
        let mut rng = StdRng::seed_from_u64(seed);
        let secret = PartySecret::from([7; 32]);
        let hosts =
            nats.iter().enumerate().map(|(n, nat)| host(n as u8 + 1, *nat, &secret, rng.r#gen())).collect();
        let latency_ms = nats.iter().map(|_| rng.gen_range(1..40)).collect();
        Self {
            start: Instant::now(),
            at: Duration::ZERO,
            hosts,
            relays: BTreeMap::from([(RELAY.into(), "192.0.2.1:3478".parse().unwrap())]),
            events: BTreeMap::new(),
            order: 0,
            rng,
            latency_ms,
            loss: 0.0,
            cut: BTreeSet::new(),
            off: BTreeSet::new(),
            dead_relays: BTreeSet::new(),
            far: BTreeMap::new(),
            signals_work: true,
            rebinds: true,
            doubts: 0,
        }
    }

    pub fn now(&self) -> Now {
        Now { instant: self.start + self.at, unix: 1_800_000_000 + self.at.as_secs() }
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
        let mapped = self.hosts[n].translate(address, at, &mut self.rng);
        let rtt = Duration::from_millis(2 * (self.latency_ms[n] + self.detour(n, relay)));
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
        let fresh = host(n as u8 + 1, self.hosts[n].nat, &PartySecret::from([7; 32]), self.rng.r#gen());
        let old = std::mem::replace(&mut self.hosts[n], fresh);
        self.hosts[n].router = old.router;
        self.bind(n, RELAY);
        self.introduce();
    }

    /// The router is exchanged: no mapping survives, and the relay has an old address until the binding is refreshed.
    pub fn change_nat(&mut self, n: usize, nat: Nat) {
        self.hosts[n].nat = nat;
        self.hosts[n].router = Router::default();
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
            let (_, event) = self.events.pop_first().unwrap();
            self.handle(event);
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

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        if let Some((name, relay)) =
            self.relays.iter().find(|(_, relay)| **relay == to).map(|(n, r)| (n.clone(), *r))
        {
            return self.forward(from, &name, relay, payload);
        }
        let at = self.at;
        let Some(n) = self.hosts.iter().position(|host| host.admits(from, to, at)) else { return };
        if self.off.contains(&n) {
            return;
        }
        let now = self.now();
        assert!(self.hosts[n].agent.handle_datagram(from, &payload, now), "everything sent here is a probe");
        self.drain(n);
    }

    /// The relay: only between bound addresses, by the receiver's tag.
    fn forward(&mut self, from: SocketAddr, name: &str, relay: SocketAddr, payload: Vec<u8>) {
        if self.dead_relays.contains(name) {
            return;
        }
        let is_bound = self.hosts.iter().any(|host| host.bound.get(name) == Some(&from));
        let tag = probe::receiver_tag(&payload);
        let target = self.hosts.iter().position(|host| Some(probe::tag(&host.key)) == tag);
        let to = target.and_then(|n| Some((n, *self.hosts[n].bound.get(name)?)));
        if let Some((n, to)) = to.filter(|_| is_bound) {
            let delay = Duration::from_millis(self.latency_ms[n] + self.detour(n, name));
            self.schedule(delay, Event::Datagram { from: relay, to, payload });
        }
    }

    pub fn drain(&mut self, n: usize) {
        while let Some(output) = self.hosts[n].agent.poll_output() {
            match output {
                Output::Transmit { to, payload } => self.transmit(n, to, payload),
                Output::Signal { to, body } if self.signals_work => {
                    let from = self.hosts[n].key;
                    let to = self.hosts.iter().position(|host| host.key == to).unwrap();
                    let delay = Duration::from_millis(self.latency_ms[n] + self.latency_ms[to] + 3);
                    self.schedule(delay, Event::Signal { from, to, body });
                }
                Output::Signal { .. } => {}
                Output::RelaySilent { relay } => {
                    self.doubts += 1;
                    if self.rebinds {
                        self.bind_again(n, &relay);
                    }
                }
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

    /// Sends from host `n` through its NAT.
    pub fn transmit(&mut self, n: usize, to: SocketAddr, payload: Vec<u8>) {
        let at = self.at;
        self.hosts[n].sent_to.push((at, to));
        let from = self.hosts[n].translate(to, at, &mut self.rng);
        let target =
            self.hosts.iter().position(|host| SocketAddr::new(host.public(), to.port()).ip() == to.ip());
        let is_cut = target.is_some_and(|t| self.cut.contains(&(n.min(t), n.max(t))));
        if is_cut || self.rng.gen_bool(self.loss) {
            return;
        }
        let relay = self.relays.iter().find(|(_, place)| **place == to);
        let detour = relay.map_or(0, |(name, _)| self.detour(n, name));
        let far = target.map_or(detour, |t| self.latency_ms[t]);
        let delay = Duration::from_millis(self.latency_ms[n] + far)
            + Duration::from_micros(self.rng.gen_range(0..800));
        self.schedule(delay, Event::Datagram { from, to, payload });
    }

    fn detour(&self, n: usize, relay: &str) -> u64 {
        self.far.get(&(n, relay.to_owned())).copied().unwrap_or_default()
    }

    /// Data of host `from` arrives at `to` by its path, if that works.
    pub fn play(&mut self, from: usize, to: usize) -> bool {
        let (sender, receiver) = (self.hosts[from].key, self.hosts[to].key);
        let Some(path) = self.hosts[from].path.get(&receiver).cloned() else { return false };
        let source = match &path.relay {
            Some(name) if self.dead_relays.contains(name) => return false,
            Some(name) if !self.hosts[to].bound.contains_key(name) => return false,
            Some(name) => self.relays[name],
            None => self.hosts[from].inside,
        };
        let now = self.now();
        self.hosts[to].agent.handle_tunnel_rx(&sender, source, now);
        self.drain(to);
        true
    }

    pub fn kind(&self, n: usize, to: usize) -> PathKind {
        self.hosts[n].path.get(&self.hosts[to].key).map_or(PathKind::None, |path| path.kind)
    }

    pub fn all_are(&self, kind: PathKind) -> bool {
        let pairs = (0..self.hosts.len()).flat_map(|a| (0..self.hosts.len()).map(move |b| (a, b)));
        pairs.filter(|(a, b)| a != b).all(|(a, b)| self.kind(a, b) == kind)
    }

    pub fn why(&self, n: usize, to: usize) -> String {
        self.hosts[n].agent.status(&self.hosts[to].key).unwrap().why
    }
}

fn host(n: u8, nat: Nat, secret: &PartySecret, seed: u64) -> Host {
    let outside = Ipv4Addr::new(203, 0, 113, n);
    let inside = match nat {
        Nat::None => outside,
        _ => Ipv4Addr::new(192, 168, n, 2),
    };
    let key = WgKey([n; 32]);
    let config = Config {
        me: key,
        party: PartyId([1; 16]),
        secret: secret.clone(),
        subnet: "10.66.0.0/16".parse().unwrap(),
    };
    Host {
        key,
        agent: PathAgent::new(config, rand::rngs::StdRng::seed_from_u64(seed)),
        nat,
        inside: (inside, PORT).into(),
        outside,
        router: Router::default(),
        bound: BTreeMap::new(),
        path: BTreeMap::new(),
        wishes: Default::default(),
        path_changes: Vec::new(),
        sent_to: Vec::new(),
    }
}

impl Host {
    fn public(&self) -> std::net::IpAddr {
        self.outside.into()
    }

    /// The source that a datagram to `to` has outside; opens the way back.
    fn translate(&mut self, to: SocketAddr, at: Duration, rng: &mut StdRng) -> SocketAddr {
        if self.nat == Nat::None {
            return self.inside;
        }
        let key = (PORT, (self.nat == Nat::Symmetric).then_some(to));
        let fresh = rng.gen_range(10_000..60_000);
        let mapping = self.router.mappings.entry(key).or_insert((fresh, at));
        if at - mapping.1 > NAT_LIFE {
            mapping.0 = fresh;
        }
        mapping.1 = at;
        let port = mapping.0;
        self.router.open.insert((port, to), at);
        (self.outside, port).into()
    }

    /// Whether a datagram to `to` reaches this host.
    fn admits(&self, from: SocketAddr, to: SocketAddr, at: Duration) -> bool {
        if self.nat == Nat::None {
            return to == self.inside;
        }
        let used = self.router.open.get(&(to.port(), from));
        to.ip() == self.public() && used.is_some_and(|used| at - *used <= NAT_LIFE)
    }
}
