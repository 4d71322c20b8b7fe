//! The party firewall: which packets of other members reach this machine's programs.
//!
//! Members are friends of friends, and this machine runs more than games. So a member reaches, of what listens here,
//! games alone; and a game that nobody has heard of must work at the first try. What tells them apart is whose program
//! listens:
//!
//! | arrives | passes |
//! |---|---|
//! | ping, errors of ICMP, later fragments, TCP segments that open nothing | always |
//! | packets for everybody | unless a [`service`] would hear them |
//! | UDP from where this machine has sent UDP to | always |
//! | to a port that a person has closed, or has opened | as told |
//! | to the port where `lanrage mods share` offers files | always |
//! | to a port on which a [`service`] lives | never |
//! | to a port of a game that runs, by its profile | always |
//! | UDP to a port that has searched or answered in the party | always |
//! | to a port on which a person's program listens, or one that takes part in LAN discovery | always |
//! | everything else | never |
//!
//! Nothing is decided ahead of time: the first packet to a port is [`Verdict::Ask`], the caller looks who listens there
//! *now* and tells by [`Firewall::handle_owner`]. So a server that was started a moment ago has no port closed, and one that
//! has ended leaves none open.

mod packet;
mod policy;
mod port;
mod services;
mod sockets;
#[cfg(test)]
mod tests;
mod verdict;

pub use policy::{Choice, MAX_WORDS, Mode, Policy, Word};
pub use port::{NoPorts, Port, PortRange, Transport};
pub use services::service;
pub use sockets::{Listener, listeners};
pub use verdict::{Account, Owner, Question, Refusal, Refused, Verdict};

use crate::bucket::{Bucket, Rate};
use crate::lane::maps::LaneLocal;
use crate::lane::packet::Packet;
use crate::lane::{self, FragmentPart, Way, Wrapped};
use crate::mods;
use crate::wire::{Be32, Family, PROTOCOL_UDP};
use packet::{PROTOCOL_TCP, Ports, is_welcome_icmp, overwrites_flags, unwrap};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// An answer may come so long after the last packet that it answers: idle game sessions last.
const ANSWER: Duration = Duration::from_secs(10 * 60);
/// A game that has searched or answered takes part so long.
const TAKES_PART: Duration = Duration::from_secs(2 * 3600);
/// What comes from a port so soon after a packet for everybody to that port is an answer to it.
const HEARD: Duration = Duration::from_secs(60);
/// How long a port stays open, or closed, before somebody looks again.
const OPEN: Duration = Duration::from_secs(10);
const CLOSED: Duration = Duration::from_secs(1);
/// The same where a program of the system listens: finding out that it does not play costs most.
const CLOSED_SYSTEM: Duration = Duration::from_secs(5);
/// Looking is not free. A friend's game tries a few ports, its server list a hundred, a scan thousands; one member's scan is
/// nobody else's matter.
const LOOKS: Rate = Rate::per_second(50, 200);
const LOOKS_FOR_ONE: Rate = Rate::per_second(25, 100);
/// Refusals are told for this long after the last one.
const TOLD: Duration = Duration::from_secs(3600);

const MAX_ANSWERS: usize = 16_384;
const MAX_PORTS: usize = 1024;
/// Pairs of member and port whose refusals are told apart.
const MAX_REFUSED: usize = 256;
const MAX_REFUSED_OF_ONE: usize = 32;
/// Ports of running games that are kept.
const MAX_GAME_PORTS: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Open,
    Closed(Owner),
}

/// A UDP conversation that this machine takes part in: member, its port, own port.
type Conversation = (Ipv4Addr, u16, u16);

/// See the module.
#[derive(Debug)]
pub struct Firewall {
    local: LaneLocal,
    policy: Policy,
    conversations: HashMap<Conversation, Instant>,
    /// Own ports that packets for everybody came to, and when.
    heard: HashMap<u16, Instant>,
    /// Own ports that have searched or answered, and when.
    players: BTreeMap<u16, Instant>,
    known: HashMap<Port, (Known, Instant)>,
    /// Of the games that run.
    games: Vec<PortRange>,
    looks: Bucket,
    looks_for: HashMap<Ipv4Addr, Bucket>,
    refused: BTreeMap<(Ipv4Addr, Port), Refused>,
    counts: BTreeMap<&'static str, u64>,
}

impl Firewall {
    /// Nothing has happened yet. Group addresses are told by `local`, as for the lane.
    pub fn new(local: LaneLocal, policy: Policy) -> Self {
        Self {
            local,
            policy,
            conversations: HashMap::new(),
            heard: HashMap::new(),
            players: BTreeMap::new(),
            known: HashMap::new(),
            games: Vec::new(),
            looks: Bucket::new(LOOKS),
            looks_for: HashMap::new(),
            refused: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// What the lane's rules know of this machine now.
    pub fn set_local(&mut self, local: LaneLocal) {
        self.local = local;
    }

    /// What a person says from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.known.clear();
        self.refused.retain(|(_, port), _| !policy.is_open() && policy.choice(*port) == Choice::Auto);
        self.policy = policy;
    }

    /// Ports that members have reached within ten seconds, because of who listens there.
    pub fn reached(&self, now: Instant) -> impl Iterator<Item = Port> + '_ {
        let is_open = move |(known, until): &(Known, Instant)| *known == Known::Open && now < *until;
        self.known.iter().filter(move |(_, entry)| is_open(entry)).map(|(port, _)| *port)
    }

    /// Own UDP ports that take part in LAN discovery: they have searched, or answered a search, within two hours.
    pub fn players(&self) -> impl Iterator<Item = u16> + '_ {
        self.players.keys().copied()
    }

    /// What was refused within the hour, by member and port.
    pub fn refused(&self) -> impl Iterator<Item = (Ipv4Addr, Port, Refused)> + '_ {
        self.refused.iter().map(|((member, port), refused)| (*member, *port, *refused))
    }

    /// Packets refused since the start, by reason ([`Refusal::reason`]).
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Ports of the games that run from now on. More than 128 ranges are left out.
    pub fn set_games(&mut self, ports: impl IntoIterator<Item = PortRange>) {
        self.games = ports.into_iter().take(MAX_GAME_PORTS).collect();
        let games = &self.games;
        self.refused.retain(|(_, port), _| !games.iter().any(|ports| ports.contains(*port)));
    }

    /// Ports that are open because a game runs.
    pub fn games(&self) -> &[PortRange] {
        &self.games
    }

    /// A packet that this machine sends into the party, wrapped by the lane or not.
    pub fn handle_outbound(&mut self, packet: &[u8], now: Instant) {
        let Ok(outer) = Packet::parse(packet) else { return };
        let inner = unwrap(&outer);
        let packet = inner.as_ref().unwrap_or(&outer);
        let Some(ports) = Ports::of(packet) else { return };
        let facts = packet.facts();
        if facts.protocol != PROTOCOL_UDP {
            return;
        }
        if matches!(self.local.way(facts), Way::Group(_)) {
            if lane::admit(facts, self.local.allowed).is_ok() {
                self.note_player(ports.source, now);
            }
            return;
        }
        let member = match facts.family {
            Family::V4 => Some(facts.destination.v4_word()),
            Family::V6 => lane::member_of(&facts.destination),
        };
        let Some(member) = member.map(address) else { return };
        self.note_conversation((member, ports.destination, ports.source), now);
        if self.heard.get(&ports.source).is_some_and(|heard| now.saturating_duration_since(*heard) < HEARD) {
            self.note_player(ports.source, now);
        }
    }

    /// A packet of `member` for this machine, as it came out of the tunnel.
    pub fn handle_inbound(&mut self, packet: &[u8], member: Ipv4Addr, now: Instant) -> Verdict {
        if self.policy.is_open() {
            return Verdict::Pass;
        }
        let Ok(outer) = Packet::parse(packet) else { return self.count(Refusal::Malformed) };
        let Some(inner) = unwrap(&outer) else { return self.judge(&outer, member, now) };
        match self.local.unwrapped(inner.facts(), Be32::from_octets(member.octets())) {
            Ok(Wrapped::Own) => self.judge(&inner, member, now),
            Ok(Wrapped::Group) => self.judge_group(&inner, member, now),
            // the lane refuses it, and counts why
            Err(_) => Verdict::Pass,
        }
    }

    /// Who listens on the port in question; the verdict is never [`Verdict::Ask`] again.
    pub fn handle_owner(&mut self, question: Question, owner: Owner, now: Instant) -> Verdict {
        let Question { port, member } = question;
        let known = match owner {
            Owner::Person | Owner::Player | Owner::Unknown => Known::Open,
            Owner::Nobody | Owner::System => Known::Closed(owner),
        };
        if self.known.len() >= MAX_PORTS {
            self.known.retain(|_, (_, until)| now < *until);
        }
        if self.known.len() < MAX_PORTS {
            let life = match known {
                Known::Open => OPEN,
                Known::Closed(Owner::System) => CLOSED_SYSTEM,
                Known::Closed(_) => CLOSED,
            };
            self.known.insert(port, (known, now + life));
        }
        match known {
            Known::Open => Verdict::Pass,
            Known::Closed(owner) => self.refuse(member, port, Refusal::Owner(owner), now),
        }
    }

    /// A service that hears everybody would answer, and so open the way to itself.
    fn judge_group(&mut self, packet: &Packet<'_>, member: Ipv4Addr, now: Instant) -> Verdict {
        let Some(ports) = Ports::of(packet).filter(|_| packet.facts().protocol == PROTOCOL_UDP) else {
            return Verdict::Pass;
        };
        let port = Port { transport: Transport::Udp, number: ports.destination };
        match (self.policy.choice(port), self.closed_service(port)) {
            (Choice::Deny, _) => return self.refuse(member, port, Refusal::Denied, now),
            (Choice::Auto, Some(name)) => return self.refuse(member, port, Refusal::Service(name), now),
            _ => {}
        }
        note(&mut self.heard, port.number, now, HEARD);
        Verdict::Pass
    }

    fn judge(&mut self, packet: &Packet<'_>, member: Ipv4Addr, now: Instant) -> Verdict {
        let facts = *packet.facts();
        let transport = match facts.protocol {
            PROTOCOL_TCP if overwrites_flags(packet) => return self.count(Refusal::Fragment),
            // worth nothing without the first one
            _ if facts.part == FragmentPart::Later => return Verdict::Pass,
            _ if is_welcome_icmp(packet) => return Verdict::Pass,
            PROTOCOL_TCP => Transport::Tcp,
            PROTOCOL_UDP => Transport::Udp,
            _ => return self.count(Refusal::Protocol),
        };
        let Some(ports) = Ports::of(packet) else { return self.count(Refusal::Malformed) };
        let is_going_on = match transport {
            Transport::Tcp => !ports.opens,
            Transport::Udp => self.is_answer((member, ports.source, ports.destination), now),
        };
        if is_going_on {
            return Verdict::Pass;
        }
        self.judge_port(Port { transport, number: ports.destination }, member, now)
    }

    fn judge_port(&mut self, port: Port, member: Ipv4Addr, now: Instant) -> Verdict {
        match self.policy.choice(port) {
            Choice::Deny => return self.refuse(member, port, Refusal::Denied, now),
            Choice::Allow => return Verdict::Pass,
            Choice::Auto => {}
        }
        // whoever shares mods has said so
        if (port == Port { transport: Transport::Tcp, number: mods::PORT }) {
            return Verdict::Pass;
        }
        if let Some(service) = self.closed_service(port) {
            return self.refuse(member, port, Refusal::Service(service), now);
        }
        if self.games.iter().any(|ports| ports.contains(port)) {
            return Verdict::Pass;
        }
        let plays = self.players.get(&port.number);
        if port.transport == Transport::Udp && plays.is_some_and(|since| is_fresh(*since, TAKES_PART, now)) {
            return Verdict::Pass;
        }
        match self.known.get(&port).copied() {
            Some((Known::Open, until)) if now < until => Verdict::Pass,
            Some((Known::Closed(owner), until)) if now < until => {
                self.refuse(member, port, Refusal::Owner(owner), now)
            }
            _ if self.may_look(member, now) => Verdict::Ask(Question { port, member }),
            _ => self.refuse(member, port, Refusal::TooMany, now),
        }
    }

    fn may_look(&mut self, member: Ipv4Addr, now: Instant) -> bool {
        let own = self.looks_for.entry(member).or_insert_with(|| Bucket::new(LOOKS_FOR_ONE));
        own.take(1, now) && self.looks.take(1, now)
    }

    fn refuse(&mut self, member: Ipv4Addr, port: Port, why: Refusal, now: Instant) -> Verdict {
        let has_room = self.refused.contains_key(&(member, port)) || self.makes_room(member, now);
        if has_room {
            let entry = self.refused.entry((member, port)).or_insert(Refused { packets: 0, why, last: now });
            *entry = Refused { packets: entry.packets + 1, why, last: now };
        }
        self.count(why)
    }

    /// Whether another port of that member can be told apart.
    fn makes_room(&mut self, member: Ipv4Addr, now: Instant) -> bool {
        if self.refused.len() >= MAX_REFUSED {
            self.refused.retain(|_, refused| is_fresh(refused.last, TOLD, now));
        }
        let of_member = self.refused.keys().filter(|(who, _)| *who == member).count();
        self.refused.len() < MAX_REFUSED && of_member < MAX_REFUSED_OF_ONE
    }

    fn count(&mut self, why: Refusal) -> Verdict {
        *self.counts.entry(why.reason()).or_default() += 1;
        Verdict::Refuse
    }

    /// Forgets what is too old to be told.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.refused.retain(|_, refused| is_fresh(refused.last, TOLD, now));
        self.players.retain(|_, since| is_fresh(*since, TAKES_PART, now));
        self.conversations.retain(|_, last| is_fresh(*last, ANSWER, now));
        // bounded by this: a scan has one burst more a minute, and `looks` limits all together
        self.looks_for.clear();
    }

    /// The service that keeps a port closed; none that the lane was told to carry.
    fn closed_service(&self, port: Port) -> Option<&'static str> {
        let carried = match (port.transport, port.number) {
            (Transport::Udp, 5353) => lane::ALLOW_MDNS,
            (Transport::Udp, 1900) => lane::ALLOW_SSDP,
            (Transport::Udp, 3702) => lane::ALLOW_WSD,
            _ => 0,
        };
        service(port).filter(|_| self.local.allowed & carried == 0)
    }

    fn is_answer(&self, conversation: Conversation, now: Instant) -> bool {
        self.conversations.get(&conversation).is_some_and(|last| is_fresh(*last, ANSWER, now))
    }

    fn note_conversation(&mut self, conversation: Conversation, now: Instant) {
        if let Some(last) = self.conversations.get_mut(&conversation) {
            *last = now;
            return;
        }
        if self.conversations.len() >= MAX_ANSWERS {
            let oldest_half = self.conversations.values().copied().min().map(|oldest| {
                let age = now.saturating_duration_since(oldest);
                now.checked_sub(age / 2).unwrap_or(now)
            });
            self.conversations.retain(|_, last| oldest_half.is_some_and(|limit| *last > limit));
        }
        if self.conversations.len() < MAX_ANSWERS {
            self.conversations.insert(conversation, now);
        }
    }

    fn note_player(&mut self, port: u16, now: Instant) {
        if self.closed_service(Port { transport: Transport::Udp, number: port }).is_some() {
            return;
        }
        if self.players.len() >= MAX_PORTS && !self.players.contains_key(&port) {
            self.players.retain(|_, since| is_fresh(*since, HEARD, now));
        }
        if (self.players.len() < MAX_PORTS || self.players.contains_key(&port))
            && self.players.insert(port, now).is_none()
        {
            // its program may have been taken for one of the system
            self.known.retain(|_, (known, _)| *known == Known::Open);
        }
    }
}

fn is_fresh(since: Instant, life: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) < life
}

fn note(ports: &mut HashMap<u16, Instant>, port: u16, now: Instant, life: Duration) {
    if ports.len() >= MAX_PORTS && !ports.contains_key(&port) {
        ports.retain(|_, since| is_fresh(*since, life, now));
    }
    if ports.len() < MAX_PORTS || ports.contains_key(&port) {
        ports.insert(port, now);
    }
}

fn address(word: Be32) -> Ipv4Addr {
    word.octets().into()
}
