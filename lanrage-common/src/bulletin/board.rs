//! The board of one device: what it tells the other members, and what they have told.

use super::{Announced, Bulletin, Link, MAX_GAMES, MAX_GROUPS, MAX_LINKS, MAX_SERVERS};
use crate::api::PathKind;
use crate::bucket::{Bucket, Rate};
use crate::lane;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// News waits for so long, so that what changes together leaves together.
const GATHER: Duration = Duration::from_secs(2);
/// What has not changed is told again, for whom it was lost on the way, and for who came later.
const REFRESH: Duration = Duration::from_secs(30);
/// What a member has not told again for so long is not believed any more.
const LIFE: Duration = Duration::from_secs(100);
/// News is told so often in a row: it could be lost.
const REPEATS: u8 = 2;
/// Bulletins that one member may send: links to 254 members are four, and servers, games and groups one each.
const RATE: Rate = Rate::new(8, GATHER, 16);

/// When something is told.
#[derive(Debug, Default)]
struct Turn {
    due: Option<Instant>,
    repeats: u8,
}

impl Turn {
    fn has_news(&mut self, now: Instant) {
        self.tell_by(now + GATHER);
    }

    fn tell_by(&mut self, soon: Instant) {
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

/// A list of this device that is told as a whole.
#[derive(Debug)]
struct Own<T> {
    items: Vec<T>,
    turn: Turn,
}

impl<T> Default for Own<T> {
    fn default() -> Self {
        Self { items: Vec::new(), turn: Turn::default() }
    }
}

impl<T: Clone + PartialEq> Own<T> {
    fn set(&mut self, items: Vec<T>, now: Instant) {
        if items != self.items {
            self.items = items;
            self.turn.has_news(now);
        }
    }

    /// What is to be told now. Who has nothing says so no more than it takes to be heard.
    fn take(&mut self, now: Instant) -> Option<Vec<T>> {
        let is_news = self.turn.repeats > 0;
        (self.turn.take(now) && (is_news || !self.items.is_empty())).then(|| self.items.clone())
    }
}

/// A list as a member has told it, and when.
#[derive(Debug)]
struct Word<T> {
    items: Vec<T>,
    at: Instant,
}

impl<T> Word<T> {
    fn new(items: Vec<T>, at: Instant) -> Self {
        Self { items, at }
    }

    fn forget(&mut self, now: Instant) {
        if !is_fresh(self.at, now) {
            self.items.clear();
        }
    }
}

/// What one member has told.
#[derive(Debug)]
struct Told {
    allowance: Bucket,
    links: BTreeMap<Ipv4Addr, (Link, Instant)>,
    servers: Word<Announced>,
    games: Word<String>,
    /// None = not known.
    groups: Option<(BTreeSet<IpAddr>, Instant)>,
}

/// See the module.
#[derive(Debug)]
pub struct Board {
    me: Ipv4Addr,
    links: Vec<Link>,
    links_turn: Turn,
    servers: Own<Announced>,
    games: Own<String>,
    groups: Option<BTreeSet<IpAddr>>,
    groups_turn: Turn,
    groups_version: u64,
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
            servers: Own::default(),
            games: Own::default(),
            groups: None,
            groups_turn: Turn::default(),
            groups_version: 0,
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
                self.servers.turn.has_news(now);
                self.games.turn.has_news(now);
                if self.groups.is_some() {
                    self.groups_turn.has_news(now);
                }
                Told {
                    allowance: Bucket::new(RATE),
                    links: BTreeMap::new(),
                    servers: Word::new(Vec::new(), now),
                    games: Word::new(Vec::new(), now),
                    groups: None,
                }
            });
            self.members.insert(member, told);
        }
        self.groups_version += 1;
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
        self.servers.set(servers, now);
    }

    /// Names of the games that run at this device now and may be told.
    pub fn handle_games(&mut self, mut games: Vec<String>, now: Instant) {
        games.truncate(MAX_GAMES);
        self.games.set(games, now);
    }

    /// The multicast groups that are joined on this device now; none = not known. News is told by the next
    /// [`Board::handle_timeout`], and this says whether it is: a game waits for what it has joined.
    pub fn handle_groups(&mut self, groups: Option<BTreeSet<IpAddr>>, now: Instant) -> bool {
        let groups = groups.filter(|groups| groups.len() <= MAX_GROUPS);
        let is_news = groups != self.groups;
        if is_news {
            self.groups = groups;
            self.groups_turn.tell_by(now);
        }
        is_news
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
            Some(Bulletin::Servers(servers)) => told.servers = Word::new(servers, now),
            Some(Bulletin::Games(games)) => told.games = Word::new(games, now),
            Some(Bulletin::Groups(groups)) => {
                if told.groups.as_ref().map(|(groups, _)| groups) != groups.as_ref() {
                    self.groups_version += 1;
                }
                told.groups = groups.map(|groups| (groups, now));
            }
        }
        true
    }

    /// Tells what is due, and forgets what is old.
    pub fn handle_timeout(&mut self, now: Instant) {
        for told in self.members.values_mut() {
            told.links.retain(|_, (_, at)| is_fresh(*at, now));
            told.servers.forget(now);
            told.games.forget(now);
            if told.groups.take_if(|(_, at)| !is_fresh(*at, now)).is_some() {
                self.groups_version += 1;
            }
        }
        let mut bulletins = Vec::new();
        if self.links_turn.take(now) {
            bulletins.extend(self.links.chunks(MAX_LINKS).map(|links| Bulletin::Links(links.to_vec())));
        }
        bulletins.extend(self.servers.take(now).map(Bulletin::Servers));
        bulletins.extend(self.games.take(now).map(Bulletin::Games));
        if self.groups_turn.take(now) {
            bulletins.push(Bulletin::Groups(self.groups.clone()));
        }
        let payloads: Vec<_> = bulletins.iter().map(Bulletin::payload).collect();
        for member in self.members.keys() {
            self.outputs.extend(payloads.iter().map(|payload| (*member, payload.clone())));
        }
    }

    /// When [`Board::handle_timeout`] has something to tell.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let turns = [&self.links_turn, &self.servers.turn, &self.games.turn, &self.groups_turn];
        turns.into_iter().filter_map(|turn| turn.due).min()
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
        let own = self.servers.items.iter().map(|server| (self.me, server));
        let told =
            self.members.iter().flat_map(|(from, told)| told.servers.items.iter().map(|it| (*from, it)));
        own.chain(told)
    }

    /// The games that run at a member.
    pub fn games_of(&self, member: Ipv4Addr) -> &[String] {
        self.members.get(&member).map_or(&[], |told| &told.games.items)
    }

    /// The members that have said what they have joined, and what.
    pub fn joined(&self) -> impl Iterator<Item = (Ipv4Addr, &BTreeSet<IpAddr>)> {
        self.members.iter().filter_map(|(member, told)| {
            let (groups, _) = told.groups.as_ref()?;
            Some((*member, groups))
        })
    }

    /// Another number after every change of [`Board::joined`].
    pub fn groups_version(&self) -> u64 {
        self.groups_version
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < LIFE
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
