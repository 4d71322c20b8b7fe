//! The lane of one device in userspace: the same rules as the kernel programs', on every operating system.

use super::limit::{Contents, Duplicates, Rates, Searches};
use super::maps::{AnswerKey, Home, JoinKey, LaneLocal, MAX_BROADCASTS, MAX_HOMES, TraceCount, TraceKey};
use super::membership::Joined;
use super::packet::{Packet, claimed_family};
use super::rules::{self, ALLOW_MDNS, ALLOW_SSDP, ALLOW_WSD, OVERHEAD, PORT, Way, Wrapped};
use super::tally::Tally;
use super::{Facts, FragmentPart, LaneReason};
use crate::api::LaneStatus;
use crate::protocol::MAX_MEMBERS;
use crate::wire::{self, Address, Be16, Be32, ChecksumDelta, Family, IPV4_LEN, PROTOCOL_UDP, UDP_LEN};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

const TTL: u8 = 64;

/// Discovery protocols that are carried only when the configuration asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Multicast DNS, port 5353 (RFC 6762).
    Mdns,
    /// UPnP's SSDP, port 1900.
    Ssdp,
    /// Web Services Discovery, port 3702.
    Wsd,
}

/// As flags of [`LaneLocal::allowed`].
pub fn allowed(services: impl IntoIterator<Item = Service>) -> u32 {
    let flag = |service| match service {
        Service::Mdns => ALLOW_MDNS,
        Service::Ssdp => ALLOW_SSDP,
        Service::Wsd => ALLOW_WSD,
    };
    services.into_iter().map(flag).fold(0, |flags, flag| flags | flag)
}

/// What becomes of a packet that this device sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// Not for a group: goes to the tunnel as it is.
    Pass,
    /// Wrapped: take the copies with [`Lane::poll_copy`].
    Copies,
    /// For a group, but not carried.
    Drop(LaneReason),
}

/// What becomes of a packet that came out of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// Not of the lane: goes to the interface as it is.
    Pass,
    /// Unwrapped: this goes to the interface instead.
    Deliver(&'a [u8]),
    /// Refused.
    Drop(LaneReason),
}

/// Who still gets a copy.
#[derive(Debug, Default)]
struct Receivers {
    /// Of [`Lane::members`].
    slots: std::ops::Range<usize>,
    /// Only those that have joined this.
    group: Option<Address>,
}

/// The lane of one device in one party.
#[derive(Debug)]
pub struct Lane {
    address: Ipv4Addr,
    subnet: Ipv4Net,
    local: LaneLocal,
    members: Vec<Ipv4Addr>,
    rates: Rates,
    duplicates: Duplicates,
    contents: Contents,
    joined: Joined,
    joined_version: u64,
    searches: Searches,
    status: LaneStatus,
    dropped: BTreeMap<LaneReason, u64>,
    tally: Tally,
    copy: Vec<u8>,
    /// UDP checksum of `copy` for the destination 0.0.0.0.
    udp_checksum: u16,
    /// Who `copy` still goes to.
    receivers: Receivers,
    next_id: u16,
}

impl Lane {
    /// A lane without members; `address` is the own one in `subnet`.
    pub fn new(address: Ipv4Addr, subnet: Ipv4Net) -> Self {
        let local = LaneLocal {
            address: Be32::from_octets(address.octets()),
            broadcast: Be32::from_octets(subnet.broadcast().octets()),
            ..LaneLocal::default()
        };
        Self {
            address,
            subnet,
            local,
            members: Vec::new(),
            rates: Rates::default(),
            duplicates: Duplicates::default(),
            contents: Contents::default(),
            joined: Joined::default(),
            joined_version: 0,
            searches: Searches::default(),
            status: LaneStatus::default(),
            dropped: BTreeMap::new(),
            tally: Tally::default(),
            copy: Vec::new(),
            udp_checksum: 0,
            receivers: Receivers::default(),
            next_id: 1,
        }
    }

    /// Replaces the members that get copies. Own, foreign and group addresses are left out: they would loop.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = Ipv4Addr>) {
        let members: BTreeSet<Ipv4Addr> =
            members.into_iter().filter(|member| self.is_member(*member)).collect();
        self.members = members.into_iter().take(MAX_MEMBERS).collect();
        self.local.members = self.members.len() as u32;
    }

    /// Replaces what members have joined; one that is not named has not said it, and gets everything.
    pub fn set_joined<'a>(&mut self, members: impl IntoIterator<Item = (Ipv4Addr, &'a BTreeSet<IpAddr>)>) {
        self.joined.set(members);
        self.joined_version += 1;
    }

    /// What members have joined, as the kernel programs are told.
    pub fn joins(&self) -> HashSet<JoinKey> {
        self.joined.keys()
    }

    /// Another number after every change of [`Lane::joins`].
    pub fn joined_version(&self) -> u64 {
        self.joined_version
    }

    /// The members that get copies, in order.
    pub fn members(&self) -> &[Ipv4Addr] {
        &self.members
    }

    /// What the rules know of this machine.
    pub fn local(&self) -> &LaneLocal {
        &self.local
    }

    fn is_member(&self, address: Ipv4Addr) -> bool {
        let is_host = address != self.subnet.network() && address != self.subnet.broadcast();
        let is_group = self.local.is_group(Family::V4, &address.into());
        self.subnet.contains(&address) && is_host && address != self.address && !is_group
    }

    /// Replaces the directed broadcast addresses of the physical networks; they become the party's. There is room for
    /// [`MAX_BROADCASTS`].
    pub fn set_local_broadcasts(&mut self, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        let own = Ipv4Addr::from(self.local.address.octets());
        let useful = |address: &Ipv4Addr| *address != own && !address.is_broadcast();
        let addresses: BTreeSet<Ipv4Addr> = addresses.into_iter().filter(useful).collect();
        self.local.broadcasts = [Be32::default(); MAX_BROADCASTS];
        for (place, address) in self.local.broadcasts.iter_mut().zip(addresses) {
            *place = Be32::from_octets(address.octets());
        }
    }

    /// Replaces this machine's addresses on physical networks. There is room for [`MAX_HOMES`].
    pub fn set_homes(&mut self, homes: impl IntoIterator<Item = Home>) {
        self.local.homes = [Home::default(); MAX_HOMES];
        for (place, home) in self.local.homes.iter_mut().zip(homes) {
            *place = home;
        }
    }

    /// Replaces the discovery protocols that are carried; none at first.
    pub fn set_allowed(&mut self, services: impl IntoIterator<Item = Service>) {
        self.local.allowed = allowed(services);
    }

    /// A packet from the interface (TUN). On [`Outbound::Copies`] drain [`Lane::poll_copy`]: the next call takes back
    /// copies that were left.
    pub fn handle_outbound(&mut self, packet: &[u8], now: Instant) -> Outbound {
        self.receivers = Receivers::default();
        self.copy.clear();
        if claimed_family(packet).is_none() {
            return Outbound::Pass;
        }
        let Ok(packet) = Packet::parse(packet) else {
            return Outbound::Drop(self.drop(LaneReason::Malformed));
        };
        let wrapped = match self.local.way(packet.facts()) {
            Way::Pass => return Outbound::Pass,
            Way::Group(destination) => self.wrap_group(&packet, destination, now),
            Way::Member(member) => self.wrap_for(&packet, member),
        };
        match wrapped {
            Ok(()) => Outbound::Copies,
            Err(reason) => Outbound::Drop(self.drop(reason)),
        }
    }

    /// A group packet of a device behind this one, with that overlay address. On [`Outbound::Copies`] drain
    /// [`Lane::poll_copy`]; this device and others behind it get [`Lane::own_copy`] and [`Lane::carried`].
    pub fn handle_device(&mut self, packet: &[u8], device: Ipv4Addr, now: Instant) -> Outbound {
        self.receivers = Receivers::default();
        let Ok(packet) = Packet::parse(packet) else {
            return Outbound::Drop(self.drop(LaneReason::Malformed));
        };
        let (Family::V4, Way::Group(destination)) = (packet.facts().family, self.local.way(packet.facts()))
        else {
            return Outbound::Pass;
        };
        self.status.seen += 1;
        let checked = self.admit(&packet, device, now).and_then(|()| check_room(&packet));
        if let Err(reason) = checked.and_then(|()| self.check_ring(&packet, now)) {
            return Outbound::Drop(self.drop(reason));
        }
        self.wrap(&packet, device, destination);
        self.receivers.slots = 0..self.members.len();
        Outbound::Copies
    }

    /// The wrapped packet, for this device itself.
    pub fn own_copy(&mut self) -> &[u8] {
        self.address_copy(self.address);
        &self.copy
    }

    /// What is in the wrapping: the packet as everybody in the party gets it, or would get it if anybody were there. Empty
    /// when the last packet was not for everybody, or is not carried.
    pub fn carried(&self) -> &[u8] {
        self.copy.get(OVERHEAD..).unwrap_or_default()
    }

    fn wrap_group(
        &mut self,
        packet: &Packet<'_>,
        destination: Address,
        now: Instant,
    ) -> Result<(), LaneReason> {
        self.status.seen += 1;
        let key = packet.trace_key(self.local.address, destination);
        if let Some((key, source_port)) = key {
            self.tally.asked(key, source_port, now);
        }
        let carried = self.carry(packet, destination, now);
        if let Some((key, _)) = key {
            match carried {
                Ok(copies) => self.tally.copied(key, copies as u64),
                Err(reason) => self.tally.dropped(key, reason),
            }
        }
        carried.map(drop)
    }

    /// Says how many copies there are.
    fn carry(
        &mut self,
        packet: &Packet<'_>,
        destination: Address,
        now: Instant,
    ) -> Result<usize, LaneReason> {
        self.admit(packet, self.address, now)?;
        check_room(packet)?;
        self.check_ring(packet, now)?;
        let group = rules::selective_group(packet.facts())
            .filter(|group| !self.searches.admit(*group, packet.facts().port, now));
        if self.members.is_empty() {
            self.wrap(packet, self.address, destination); // for who comes
            return Err(LaneReason::NoMembers);
        }
        let receivers = Receivers { slots: 0..self.members.len(), group };
        let copies = self.members.iter().filter(|member| self.gets(**member, &receivers)).count();
        self.status.spared += (self.members.len() - copies) as u64;
        if copies == 0 {
            return Err(LaneReason::NotJoined);
        }
        self.wrap(packet, self.address, destination);
        self.receivers = receivers;
        Ok(copies)
    }

    fn gets(&self, member: Ipv4Addr, receivers: &Receivers) -> bool {
        receivers.group.is_none_or(|group| self.joined.wants(member, &group))
    }

    /// What goes round between networks ends here; anything else is noted as sent.
    fn check_ring(&mut self, packet: &Packet<'_>, now: Instant) -> Result<(), LaneReason> {
        let Some(content) = packet.content() else { return Ok(()) };
        if self.contents.is_loop(&content, now) {
            return Err(LaneReason::Looped);
        }
        self.contents.note_sent(content, now);
        Ok(())
    }

    /// IPv6 to one member: any protocol, so its checksums cannot be carried over to another source address.
    fn wrap_for(&mut self, packet: &Packet<'_>, member: Be32) -> Result<(), LaneReason> {
        if packet.facts().source != self.local.source(Family::V6) {
            return Err(LaneReason::Spoofed);
        }
        check_room(packet)?;
        let member = Ipv4Addr::from(member.octets());
        let slot = self.members.binary_search(&member).map_err(|_| LaneReason::NoMembers)?;
        self.wrap(packet, self.address, packet.facts().destination);
        self.receivers.slots = slot..slot + 1;
        Ok(())
    }

    /// The next copy: the member's overlay address and the whole IP packet for it. No allocation.
    pub fn poll_copy(&mut self) -> Option<(Ipv4Addr, &[u8])> {
        let member = loop {
            let member = *self.members.get(self.receivers.slots.next()?)?;
            if self.gets(member, &self.receivers) {
                break member;
            }
        };
        self.status.copied += 1;
        self.address_copy(member);
        Some((member, &self.copy))
    }

    /// A packet of this device that members got before, wrapped for one that has come late. None when it is no such packet.
    pub fn repeat(&mut self, packet: &[u8], member: Ipv4Addr) -> Option<&[u8]> {
        let packet = Packet::parse(packet).ok()?;
        let Facts { family, source, destination, .. } = *packet.facts();
        let is_own = source == self.local.source(family) && self.local.is_group(family, &destination);
        if !is_own || check_room(&packet).is_err() || self.members.binary_search(&member).is_err() {
            return None;
        }
        self.receivers = Receivers::default();
        self.wrap(&packet, self.address, destination);
        self.address_copy(member);
        self.status.replayed += 1;
        Some(&self.copy)
    }

    /// The copy of a packet from the interface for the physical network in that slot of [`LaneLocal::homes`], which the
    /// routes to the party would take it from: with that network's own address as source. None when it gets none: what goes
    /// round does not do so by way of home either. Ask before [`Lane::handle_outbound`].
    pub fn home_copy(&mut self, packet: &[u8], slot: usize, now: Instant) -> Option<(Home, &[u8])> {
        let home = self.local.homes.get(slot).filter(|home| home.copies != 0)?;
        let packet = Packet::parse(packet).ok().filter(|packet| self.local.is_for_home(packet.facts()))?;
        if packet.content().is_some_and(|content| self.contents.is_loop(&content, now)) {
            return None;
        }
        self.receivers = Receivers::default();
        self.copy.clear();
        self.copy.extend_from_slice(packet.bytes());
        readdress(&mut self.copy, &packet, Address::from_v4(home.address), packet.facts().destination);
        Some((*home, &self.copy))
    }

    /// A decrypted packet of the member with overlay address `sender`.
    pub fn handle_inbound<'a>(&mut self, packet: &'a [u8], sender: Ipv4Addr, now: Instant) -> Inbound<'a> {
        // what is not even IP is the kernel's to judge
        let Ok(outer) = Packet::parse(packet) else { return Inbound::Pass };
        if self.local.is_group(outer.facts().family, &outer.facts().destination) {
            return Inbound::Drop(self.drop(LaneReason::Unwrapped));
        }
        if !self.is_wrapped(&outer) {
            self.note_answer(&outer, sender, now);
            return Inbound::Pass;
        }
        match self.unwrap(&outer, sender, now) {
            Ok(inner) => Inbound::Deliver(inner),
            Err(reason) => Inbound::Drop(self.drop(reason)),
        }
    }

    /// Counters.
    pub fn status(&self) -> LaneStatus {
        let dropped = self.dropped.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect();
        LaneStatus { dropped, ..self.status.clone() }
    }

    fn drop(&mut self, reason: LaneReason) -> LaneReason {
        *self.dropped.entry(reason).or_default() += 1;
        reason
    }

    /// The rules that hold in both directions. All of a source's later fragments share one bucket.
    fn admit(&mut self, packet: &Packet<'_>, source: Ipv4Addr, now: Instant) -> Result<(), LaneReason> {
        packet.check_udp().map_err(|_| LaneReason::Malformed)?;
        rules::admit(packet.facts(), self.local.allowed)?;
        self.rates.admit(source, packet.facts().port, now).then_some(()).ok_or(LaneReason::RateLimited)
    }

    /// Builds the copy for destination 0.0.0.0; [`Lane::address_copy`] fills in members.
    fn wrap(&mut self, packet: &Packet<'_>, source: Ipv4Addr, destination: Address) {
        let total = (packet.bytes().len() + OVERHEAD) as u16;
        self.copy.clear();
        self.copy.extend_from_slice(&[0x45, packet.traffic_class()]);
        self.copy.extend_from_slice(&total.to_be_bytes());
        self.copy.extend_from_slice(&self.next_id.to_be_bytes());
        self.copy.extend_from_slice(&[0, 0, TTL, PROTOCOL_UDP, 0, 0]);
        self.copy.extend_from_slice(&source.octets());
        self.copy.extend_from_slice(&[0; 4]);
        self.copy.extend_from_slice(&PORT.to_be_bytes());
        self.copy.extend_from_slice(&PORT.to_be_bytes());
        self.copy.extend_from_slice(&(total - IPV4_LEN as u16).to_be_bytes());
        self.copy.extend_from_slice(&[0; 2]);
        self.copy.extend_from_slice(packet.bytes());
        let inner = match packet.facts().family {
            Family::V4 => source.into(),
            Family::V6 => self.local.source(Family::V6),
        };
        readdress(&mut self.copy[OVERHEAD..], packet, inner, destination);
        self.udp_checksum = wire::udp_checksum(&source.octets(), &[0; 4], &self.copy[IPV4_LEN..]);
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
    }

    fn address_copy(&mut self, member: Ipv4Addr) {
        let delta =
            ChecksumDelta::new().replace32(Be32::from_octets([0; 4]), Be32::from_octets(member.octets()));
        let udp = delta.apply_udp(Be16::new(self.udp_checksum));
        self.copy[16..20].copy_from_slice(&member.octets());
        self.copy[10..12].fill(0);
        let header = wire::checksum(&self.copy[..IPV4_LEN]);
        self.copy[10..12].copy_from_slice(&header.to_be_bytes());
        self.copy[IPV4_LEN + 6..OVERHEAD].copy_from_slice(&udp.octets());
    }

    fn is_wrapped(&self, outer: &Packet<'_>) -> bool {
        outer.has_udp() && outer.facts().port == PORT && outer.is_to_v4(self.address)
    }

    fn unwrap<'a>(
        &mut self,
        outer: &Packet<'a>,
        sender: Ipv4Addr,
        now: Instant,
    ) -> Result<&'a [u8], LaneReason> {
        if outer.is_odd() {
            return Err(LaneReason::BadWrapping);
        }
        let udp = outer.payload();
        if usize::from(u16::from_be_bytes([udp[4], udp[5]])) != udp.len() {
            return Err(LaneReason::Malformed);
        }
        let bytes = &udp[UDP_LEN..];
        let inner = Packet::parse(bytes).map_err(|_| LaneReason::Malformed)?;
        if inner.bytes().len() != bytes.len() {
            return Err(LaneReason::Malformed);
        }
        if outer.facts().source != sender.into() {
            return Err(LaneReason::Spoofed);
        }
        let sender_word = Be32::from_octets(sender.octets());
        if self.local.unwrapped(inner.facts(), sender_word)? == Wrapped::Own {
            return Ok(inner.bytes());
        }
        let key = inner.trace_key(sender_word, inner.facts().destination);
        if let Err(reason) = self.accept(&inner, sender, now) {
            if let Some((key, _)) = key {
                self.tally.dropped(key, reason);
            }
            return Err(reason);
        }
        if let Some((key, source_port)) = key {
            self.tally.seen(key, source_port);
        }
        self.status.delivered += 1;
        Ok(inner.bytes())
    }

    fn accept(&mut self, inner: &Packet<'_>, sender: Ipv4Addr, now: Instant) -> Result<(), LaneReason> {
        self.admit(inner, sender, now)?;
        if inner.key().is_some_and(|key| self.duplicates.is_repeated(key, now)) {
            return Err(LaneReason::Duplicate);
        }
        if let Some(content) = inner.content() {
            self.contents.note_heard(content, now);
        }
        Ok(())
    }

    fn note_answer(&mut self, outer: &Packet<'_>, sender: Ipv4Addr, now: Instant) {
        let is_own = outer.is_to_v4(self.address) && sender != self.address;
        if let Some((port, from_port)) = outer.ports()
            && is_own
            && outer.facts().part == FragmentPart::Whole
        {
            self.tally.received(Be32::from_octets(sender.octets()), port, from_port, now);
        }
    }

    /// What was counted of each conversation, for [`super::Trace`].
    pub fn traced(&self) -> Vec<(TraceKey, TraceCount)> {
        self.tally.counts().collect()
    }

    /// Packets of members to ports that asked, for [`super::Trace`].
    pub fn answers(&self) -> Vec<(AnswerKey, u64)> {
        self.tally.answers().collect()
    }

    /// Forgets a conversation's counts.
    pub fn forget(&mut self, key: &TraceKey) {
        self.tally.forget(key);
    }
}

fn check_room(packet: &Packet<'_>) -> Result<(), LaneReason> {
    let fits = packet.bytes().len() + OVERHEAD <= usize::from(u16::MAX);
    fits.then_some(()).ok_or(LaneReason::Oversize)
}

/// Writes new addresses into a copy of `packet` and carries the change over into its checksums (RFC 1624). The UDP
/// checksum covers the addresses (RFC 768, RFC 8200) and is in the first fragment only; zero stays "none".
fn readdress(copy: &mut [u8], packet: &Packet<'_>, source: Address, destination: Address) {
    let family = packet.facts().family;
    let delta = ChecksumDelta::new()
        .replace_address((family, &packet.facts().source), (family, &source))
        .replace_address((family, &packet.facts().destination), (family, &destination));
    match family {
        Family::V4 => {
            copy[12..16].copy_from_slice(&source.v4_word().octets());
            copy[16..20].copy_from_slice(&destination.v4_word().octets());
            let header = delta.apply(Be16::from_octets([copy[10], copy[11]]));
            copy[10..12].copy_from_slice(&header.octets());
        }
        Family::V6 => {
            for (at, word) in source.words().into_iter().chain(destination.words()).enumerate() {
                copy[8 + at * 4..12 + at * 4].copy_from_slice(&word.octets());
            }
        }
    }
    if packet.has_udp() {
        let at = packet.header_len() + 6;
        let udp = delta.apply_udp(Be16::from_octets([copy[at], copy[at + 1]]));
        copy[at..at + 2].copy_from_slice(&udp.octets());
    }
}
