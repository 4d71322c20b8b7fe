//! The board of one device: what it tells the other members, and what they have told.

use super::{Announced, Bulletin, Link, MAX_LINKS, MAX_SERVERS};
use crate::api::PathKind;
use crate::bucket::{Bucket, Rate};
use crate::lane;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// News waits for so long, so that what changes together leaves together.
const GATHER: Duration = Duration::from_secs(2);
/// What has not changed is told again, for whom it was lost on the way, and for who came later.
const REFRESH: Duration = Duration::from_secs(30);
/// What a member has not told again for so long is not believed any more.
const LIFE: Duration = Duration::from_secs(100);
/// News is told so often in a row: it could be lost.
const REPEATS: u8 = 2;
/// Bulletins that one member may send: links to 254 members are four.
const RATE: Rate = Rate::new(8, GATHER, 16);

/// When something is told.
#[derive(Debug, Default)]
struct Turn {
    due: Option<Instant>,
    repeats: u8,
}

impl Turn {
    fn has_news(&mut self, now: Instant) {
        let soon = now + GATHER;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        self.repeats = REPEATS;
    }

    /// Whether it is due; if so it is told.
    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.repeats = self.repeats.saturating_sub(1);
            self.due = Some(now + if self.repeats > 0 { GATHER } else { REFRESH });
        }
        is_due
    }
}

/// What one member has told.
#[derive(Debug)]
struct Told {
    allowance: Bucket,
    links: BTreeMap<Ipv4Addr, (Link, Instant)>,
    servers: Vec<Announced>,
    servers_at: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub struct Board {
    me: Ipv4Addr,
    links: Vec<Link>,
    links_turn: Turn,
    servers: Vec<Announced>,
    servers_turn: Turn,
    members: BTreeMap<Ipv4Addr, Told>,
    outputs: VecDeque<(Ipv4Addr, Vec<u8>)>,
}

impl Board {
    /// An empty board of the device with that overlay address.
    pub fn new(me: Ipv4Addr) -> Self {
        Self {
            me,
            links: Vec::new(),
            links_turn: Turn::default(),
            servers: Vec::new(),
            servers_turn: Turn::default(),
            members: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Replaces the members, who tell and are told. Forgets what others have told; who is new hears everything.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = Ipv4Addr>, now: Instant) {
        let mut before = std::mem::take(&mut self.members);
        for member in members.into_iter().filter(|member| *member != self.me) {
            let told = before.remove(&member).unwrap_or_else(|| {
                self.links_turn.has_news(now);
                self.servers_turn.has_news(now);
                Told {
                    allowance: Bucket::new(RATE),
                    links: BTreeMap::new(),
                    servers: Vec::new(),
                    servers_at: None,
                }
            });
            self.members.insert(member, told);
        }
        let members: Vec<_> = self.members.keys().copied().collect();
        for told in self.members.values_mut() {
            told.links.retain(|to, _| *to == self.me || members.contains(to));
        }
    }

    /// How this device reaches the members now.
    pub fn handle_links(&mut self, links: Vec<Link>, now: Instant) {
        let is_same = links.len() == self.links.len()
            && links.iter().zip(&self.links).all(|(new, told)| !is_news(new, told));
        if !is_same {
            self.links = links;
            self.links_turn.has_news(now);
        }
    }

    /// The servers that run at this device now.
    pub fn handle_servers(&mut self, mut servers: Vec<Announced>, now: Instant) {
        servers.sort();
        servers.truncate(MAX_SERVERS);
        if servers != self.servers {
            self.servers = servers;
            self.servers_turn.has_news(now);
        }
    }

    /// A bulletin of the member at `from`, proven by the tunnel. Says whether it was taken.
    pub fn handle_bulletin(&mut self, from: Ipv4Addr, payload: &[u8], now: Instant) -> bool {
        let members: Vec<_> = self.members.keys().copied().collect();
        let is_known = |to: &Ipv4Addr| *to == self.me || members.contains(to);
        let Some(told) = self.members.get_mut(&from) else { return false };
        if !told.allowance.take(1, now) {
            return false;
        }
        match Bulletin::parse(payload) {
            None => return false,
            Some(Bulletin::Links(links)) => {
                let links = links.into_iter().filter(|link| link.to != from && is_known(&link.to));
                told.links.extend(links.map(|link| (link.to, (link, now))));
            }
            Some(Bulletin::Servers(servers)) => {
                (told.servers, told.servers_at) = (servers, Some(now));
            }
        }
        true
    }

    /// Tells what is due, and forgets what is old.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < LIFE;
        for told in self.members.values_mut() {
            told.links.retain(|_, (_, at)| is_fresh(*at));
            if !told.servers_at.is_some_and(is_fresh) {
                (told.servers, told.servers_at) = (Vec::new(), None);
            }
        }
        let mut bulletins = Vec::new();
        if self.links_turn.take(now) {
            bulletins.extend(self.links.chunks(MAX_LINKS).map(|links| Bulletin::Links(links.to_vec())));
        }
        // who runs no server has nothing to say, but for that it has none any more
        let is_repeated = self.servers_turn.repeats > 0;
        if self.servers_turn.take(now) && (is_repeated || !self.servers.is_empty()) {
            bulletins.push(Bulletin::Servers(self.servers.clone()));
        }
        let payloads: Vec<_> = bulletins.iter().map(Bulletin::payload).collect();
        for member in self.members.keys() {
            self.outputs.extend(payloads.iter().map(|payload| (*member, payload.clone())));
        }
    }

    /// When [`Board::handle_timeout`] has something to tell.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.links_turn.due, self.servers_turn.due].into_iter().flatten().min()
    }

    /// The next packet for a member, from this device's overlay address to its.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        let (to, payload) = self.outputs.pop_front()?;
        Some(lane::report_packet(self.me, to, &payload))
    }

    /// Every link that is known: who reaches whom.
    pub fn links(&self) -> impl Iterator<Item = (Ipv4Addr, Link)> {
        let own = self.links.iter().map(|link| (self.me, *link));
        let told =
            self.members.iter().flat_map(|(from, told)| told.links.values().map(|(link, _)| (*from, *link)));
        own.chain(told)
    }

    /// Every server that is known, with the member where it runs; this device's first.
    pub fn servers(&self) -> impl Iterator<Item = (Ipv4Addr, &Announced)> {
        let own = self.servers.iter().map(|server| (self.me, server));
        let told = self.members.iter().flat_map(|(from, told)| told.servers.iter().map(|it| (*from, it)));
        own.chain(told)
    }
}

/// Whether a link has changed so much that others should know: figures always move a little.
fn is_news(new: &Link, told: &Link) -> bool {
    let moves = |new: Option<f64>, told: Option<f64>, least: f64, part: f64| match (new, told) {
        (Some(new), Some(told)) => (new - told).abs() > least.max(told * part),
        (new, told) => new.is_some() != told.is_some(),
    };
    (new.to, new.path) != (told.to, told.path)
        || new.path != PathKind::None
            && (moves(new.rtt_ms, told.rtt_ms, 3.0, 0.15)
                || moves(new.jitter_ms, told.jitter_ms, 5.0, 0.5)
                || moves(new.loss, told.loss, 0.03, 0.5))
}
