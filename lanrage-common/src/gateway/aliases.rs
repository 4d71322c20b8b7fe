//! Addresses of a home network that stand for members: chosen, asked for (RFC 5227), held, given up when somebody has them.

use super::arp::{self, Mac};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Addresses that stand for members, at most.
pub const MAX_ALIASES: usize = 128;
/// Questions before an address is taken, and the time between them (RFC 5227, section 1.1).
const PROBES: u8 = 3;
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after the last question.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// An address that somebody has is not tried again for so long.
const AVOID: Duration = Duration::from_secs(3600);
/// Conflicts that are remembered.
const MAX_CONFLICTS: usize = 64;

/// Who has an address that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// A machine answered for it, or asked with it.
    By(Mac),
    /// The network's DHCP server hands it out.
    ByDhcp,
}

/// An address that could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: Ipv4Addr,
    /// Who has it.
    pub taken: Taken,
    /// When that was seen.
    pub at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Alias {
    address: Ipv4Addr,
    /// Questions left; then it is held.
    probes: u8,
    due: Option<Instant>,
}

impl Alias {
    fn is_held(&self) -> bool {
        self.due.is_none()
    }
}

/// All aliases on one network.
#[derive(Debug)]
pub(super) struct Aliases {
    mac: Mac,
    own: Ipv4Net,
    range: (Ipv4Addr, Ipv4Addr),
    by_member: BTreeMap<Ipv4Addr, Alias>,
    by_address: BTreeMap<Ipv4Addr, Ipv4Addr>,
    conflicts: VecDeque<Conflict>,
    frames: VecDeque<Vec<u8>>,
    /// Members without an alias, because the range is used up.
    pub(super) without: usize,
}

impl Aliases {
    /// `own` is this machine's address with the network's prefix; without a range the network's upper end is used.
    pub(super) fn new(mac: Mac, own: Ipv4Net, range: Option<(Ipv4Addr, Ipv4Addr)>) -> Self {
        let last = Ipv4Addr::from_bits(own.broadcast().to_bits() - 1);
        let half = Ipv4Addr::from_bits(u32::midpoint(own.network().to_bits(), own.broadcast().to_bits()));
        let range = range.unwrap_or((half, last));
        Self {
            mac,
            own,
            range,
            by_member: BTreeMap::new(),
            by_address: BTreeMap::new(),
            conflicts: VecDeque::new(),
            frames: VecDeque::new(),
            without: 0,
        }
    }

    /// Members that shall have one.
    pub(super) fn set_members(&mut self, members: &[Ipv4Addr], now: Instant) {
        let gone: Vec<Ipv4Addr> =
            self.by_member.keys().filter(|member| !members.contains(member)).copied().collect();
        for member in gone {
            self.give_up(member);
        }
        let wanting: Vec<Ipv4Addr> =
            members.iter().filter(|member| !self.by_member.contains_key(member)).copied().collect();
        self.without = 0;
        for member in wanting {
            match self.free(now).filter(|_| self.by_member.len() < MAX_ALIASES) {
                Some(address) => self.begin(member, address, now),
                None => self.without += 1,
            }
        }
    }

    /// The alias of a member, once it is held.
    pub(super) fn of(&self, member: Ipv4Addr) -> Option<Ipv4Addr> {
        self.by_member.get(&member).filter(|alias| alias.is_held()).map(|alias| alias.address)
    }

    /// The member that a held alias stands for.
    pub(super) fn member(&self, alias: Ipv4Addr) -> Option<Ipv4Addr> {
        let member = *self.by_address.get(&alias)?;
        self.of(member).map(|_| member)
    }

    /// Members and their aliases; those that are not held yet, too.
    pub(super) fn all(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr, bool)> + '_ {
        self.by_member.iter().map(|(member, alias)| (*member, alias.address, alias.is_held()))
    }

    pub(super) fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.conflicts.iter()
    }

    /// Somebody uses, or is given, an address: if it was chosen for a member, another one is looked for.
    pub(super) fn note_taken(&mut self, address: Ipv4Addr, taken: Taken, now: Instant) {
        let Some(member) = self.by_address.get(&address).copied() else { return };
        if self.conflicts.len() >= MAX_CONFLICTS {
            self.conflicts.pop_front();
        }
        self.conflicts.push_back(Conflict { address, taken, at: now });
        self.give_up(member);
        if let Some(address) = self.free(now) {
            self.begin(member, address, now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for alias in self.by_member.values_mut() {
            if alias.due.is_none_or(|due| now < due) {
                continue;
            }
            if alias.probes > 0 {
                alias.probes -= 1;
                self.frames.push_back(arp::probe(self.mac, alias.address));
                let wait = if alias.probes == 0 { ANNOUNCE_WAIT } else { PROBE_INTERVAL };
                alias.due = Some(now + wait);
            } else {
                alias.due = None;
                self.frames.push_back(arp::announcement(self.mac, alias.address));
            }
        }
    }

    /// Says that a gateway has one of them.
    pub(super) fn announce(&mut self) {
        if let Some(alias) = self.by_member.values().find(|alias| alias.is_held()) {
            self.frames.push_back(arp::gateway_announcement(self.mac, alias.address));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.by_member.values().filter_map(|alias| alias.due).min()
    }

    pub(super) fn poll_frame(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    fn begin(&mut self, member: Ipv4Addr, address: Ipv4Addr, now: Instant) {
        self.by_member.insert(member, Alias { address, probes: PROBES, due: Some(now) });
        self.by_address.insert(address, member);
    }

    fn give_up(&mut self, member: Ipv4Addr) {
        if let Some(alias) = self.by_member.remove(&member) {
            self.by_address.remove(&alias.address);
        }
    }

    /// From the range's upper end down: routers and what they hand out are mostly at the lower one.
    fn free(&self, now: Instant) -> Option<Ipv4Addr> {
        let (first, last) = (self.range.0.to_bits(), self.range.1.to_bits());
        let is_avoided = |address: &Ipv4Addr| {
            self.conflicts.iter().any(|it| it.address == *address && now < it.at + AVOID)
        };
        let is_host = |address: &Ipv4Addr| *address != self.own.network() && *address != self.own.broadcast();
        (first..=last).rev().take(4096).map(Ipv4Addr::from_bits).find(|address| {
            self.own.contains(address)
                && is_host(address)
                && *address != self.own.addr()
                && !self.by_address.contains_key(address)
                && !is_avoided(address)
        })
    }
}
