//! A home network without any software in the party: members have aliases on it, its devices addresses in the party.
//!
//! Translation is one to one and without ports (RFC 3022's basic NAT, both ends at once): a device at home sees members
//! at their aliases, members see the device at its overlay address. Nothing of it depends on connections.

use super::aliases::{Aliases, Conflict, Taken};
use super::arp::{Arp, ETHERNET_LEN, Mac, ethernet, reply};
use super::group::{Rounds, Side, given_by_dhcp, group_mac, is_household};
use super::guests::{Guests, LanDevice, Standing};
use super::neighbours::Neighbours;
use super::translate::{destination, finish_checksum, limit_segments, source, translate};
use crate::lane::{self, Service};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const ETHERTYPE_IPV4: u16 = 0x0800;
/// Between questions for Ethernet addresses.
const ASK_WHO: Duration = Duration::from_secs(1);
/// A device that was silent for so long gives its address back.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// The same while another gateway on this network serves its devices.
const FORGET_SERVED: Duration = Duration::from_secs(600);
/// One home network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanConfig {
    /// This machine's address there, with the network's prefix.
    pub own: Ipv4Net,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its address in the party.
    pub me: Ipv4Addr,
    /// Addresses for aliases; the network's upper half when absent.
    pub range: Option<(Ipv4Addr, Ipv4Addr)>,
    /// The party's subnet.
    pub subnet: Ipv4Net,
    /// The longest packet that the party's interface takes.
    pub mtu: u16,
}

/// What the caller must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this frame on the home network.
    Frame(Vec<u8>),
    /// Lease an address for that device, and tell by [`Lan::handle_lease`].
    Lease(Mac),
    /// Give that device's address back.
    Release(Mac),
    /// A device's packet for everybody, its overlay address.
    Group(Vec<u8>, Ipv4Addr),
    /// A device's packet for one in the party, translated.
    Packet(Vec<u8>),
    /// [`Lan::devices`] or [`Lan::aliases`] have changed.
    Changed,
}

/// See the module.
#[derive(Debug)]
pub struct Lan {
    config: LanConfig,
    aliases: Aliases,
    guests: Guests,
    /// Members that are here themselves.
    neighbours: Neighbours,
    /// Services that cross as well ([`lane::maps::LaneLocal::allowed`]).
    allowed: u32,
    /// When somebody's Ethernet address was asked for last.
    asked: Option<Instant>,
    rounds: Rounds,
    outputs: VecDeque<Output>,
    dropped: BTreeMap<&'static str, u64>,
}

impl Lan {
    /// A network without aliases and devices.
    pub fn new(config: LanConfig) -> Self {
        Self {
            aliases: Aliases::new(config.mac, config.own, config.range),
            config,
            guests: Guests::default(),
            neighbours: Neighbours::new(config.me),
            allowed: 0,
            asked: None,
            rounds: Rounds::default(),
            outputs: VecDeque::new(),
            dropped: BTreeMap::new(),
        }
    }

    /// How the network is.
    pub fn config(&self) -> &LanConfig {
        &self.config
    }

    /// Overlay addresses that shall have aliases.
    pub fn set_members(&mut self, members: &[Ipv4Addr], now: Instant) {
        let before: Vec<_> = self.aliases.all().collect();
        self.aliases.set_members(members, now);
        if !self.aliases.all().eq(before) {
            self.outputs.push_back(Output::Changed);
        }
    }

    /// Members that are on this network themselves, by overlay address and address at home: the network has what they send.
    pub fn set_members_at_home(&mut self, members: impl IntoIterator<Item = (Ipv4Addr, Ipv4Addr)>) {
        let own = self.config.own;
        let at_home = members.into_iter().filter(|(_, home)| own.contains(home) && *home != own.addr());
        self.neighbours.set(at_home);
        for home in self.neighbours.without_mac() {
            self.outputs.push_back(Output::Frame(super::arp::request(self.config.mac, own.addr(), home)));
        }
    }

    /// Discovery of whole systems that crosses as well; none at first.
    pub fn set_services(&mut self, services: impl IntoIterator<Item = Service>) {
        self.allowed = lane::allowed(services);
    }

    /// The device is on another network of this gateway now.
    pub fn let_go(&mut self, mac: Mac) {
        if self.guests.remove(mac) {
            self.outputs.push_back(Output::Changed);
        }
    }

    /// The member that serves this network's devices instead, if another gateway does.
    pub fn served_by(&self, now: Instant) -> Option<Ipv4Addr> {
        self.neighbours.served_by(now)
    }

    /// Members' overlay addresses, their aliases, and whether those are held.
    pub fn aliases(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr, bool)> + '_ {
        self.aliases.all()
    }

    /// Aliases that somebody else had, newest last.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.aliases.conflicts()
    }

    /// Members for whom there is no alias left.
    pub fn without_alias(&self) -> usize {
        self.aliases.without
    }

    /// Devices that have an address in the party.
    pub fn devices(&self) -> impl Iterator<Item = LanDevice> + '_ {
        self.guests.all()
    }

    /// Whether that is the overlay address of a device at home.
    pub fn has(&self, overlay: Ipv4Addr) -> bool {
        self.guests.at_overlay(overlay).is_some()
    }

    /// Whether that is a held alias.
    pub fn is_alias(&self, address: Ipv4Addr) -> bool {
        self.aliases.member(address).is_some()
    }

    /// What was dropped, by reason.
    pub fn dropped(&self) -> &BTreeMap<&'static str, u64> {
        &self.dropped
    }

    /// What to do next; drain until `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Lan::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.aliases.poll_timeout()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let held = |aliases: &Aliases| aliases.all().filter(|alias| alias.2).count();
        let before = held(&self.aliases);
        self.aliases.handle_timeout(now);
        if self.neighbours.is_announcement_due(now) {
            self.aliases.announce();
        }
        self.send_frames();
        if held(&self.aliases) != before {
            self.outputs.push_back(Output::Changed);
        }
        for mac in self.guests.spread(now) {
            self.release(mac);
        }
        let patience = if self.served_by(now).is_some() { FORGET_SERVED } else { FORGET };
        for mac in self.guests.silent(patience, now) {
            self.forget(mac);
        }
    }

    /// A frame of the home network that is for everybody, or ARP.
    pub fn handle_frame(&mut self, frame: &[u8], now: Instant) {
        let Some(sender) = frame.get(6..12).and_then(|bytes| Mac::try_from(bytes).ok()) else { return };
        if frame.len() < ETHERNET_LEN || sender == self.config.mac {
            return;
        }
        if let Some(arp) = Arp::parse(frame) {
            self.handle_arp(&arp, now);
            if super::arp::is_of_gateway(frame) {
                self.neighbours.handle_gateway(sender, now);
            }
        } else if frame[12..14] == ETHERTYPE_IPV4.to_be_bytes() && frame[0] & 1 == 1 {
            self.handle_group(&frame[ETHERNET_LEN..], sender, now);
        }
    }

    /// A packet of a device to an alias.
    pub fn handle_unicast(&mut self, packet: &[u8], now: Instant) {
        let Some((from, to)) = source(packet).zip(destination(packet)) else { return self.drop("malformed") };
        let (Some(mac), Some(member)) = (self.guests.at_home(from), self.aliases.member(to)) else {
            self.ask_for(from, now);
            return self.drop("unknown_device");
        };
        match self.overlay_of(mac, from, now) {
            Some(overlay) => self.forward(packet, mac, overlay, member),
            None => self.keep(mac, packet),
        }
    }

    /// A packet of the party to a device at home.
    pub fn handle_party(&mut self, packet: &[u8]) {
        let Some((from, to)) = source(packet).zip(destination(packet)) else { return self.drop("malformed") };
        let Some(mac) = self.guests.at_overlay(to) else { return self.drop("no_such_device") };
        let Some(alias) = self.aliases.of(from) else { return self.drop("no_alias") };
        let Some(device) = self.guests.get_mut(mac) else { return };
        device.tx += packet.len() as u64;
        let ip = device.ip;
        self.send(packet, alias, ip, mac);
    }

    /// A group packet of the party, as everybody in it gets it. Says whether this network gets it from here.
    pub fn handle_party_group(&mut self, packet: &[u8], now: Instant) -> bool {
        let told = self.tell_home(packet, now);
        if let Err(reason) = told
            && !reason.is_empty()
        {
            self.drop(reason);
        }
        told.is_ok()
    }

    /// On an error the reason for which it is dropped; none when the network has it already.
    fn tell_home(&mut self, packet: &[u8], now: Instant) -> Result<(), &'static str> {
        let (from, to) = source(packet).zip(destination(packet)).ok_or("malformed")?;
        if self.neighbours.has(from) {
            return Err("");
        }
        if self.served_by(now).is_some() {
            return Err("other_gateway");
        }
        let alias = self.aliases.of(from).ok_or("no_alias")?;
        if self.rounds.has_come(packet, Side::Party, now) {
            return Err("round");
        }
        let to = if to == self.config.subnet.broadcast() { self.config.own.broadcast() } else { to };
        self.send(packet, alias, to, group_mac(to));
        Ok(())
    }

    /// The answer to [`Output::Lease`]; none when it was refused.
    pub fn handle_lease(&mut self, mac: Mac, overlay: Option<Ipv4Addr>, now: Instant) {
        if !self.guests.handle_lease(mac, overlay, now) {
            return;
        }
        match overlay {
            Some(_) => self.outputs.push_back(Output::Changed),
            None => self.drop("no_address"),
        }
    }

    /// What has waited goes.
    fn release(&mut self, mac: Mac) {
        let Some((overlay, pending)) = self.guests.release(mac) else { return };
        for packet in pending {
            match destination(&packet).and_then(|to| self.aliases.member(to)) {
                Some(member) => self.forward(&packet, mac, overlay, member),
                None => self.tell_group(packet, mac, overlay),
            }
        }
    }

    fn handle_arp(&mut self, arp: &Arp, now: Instant) {
        let asks_for_free = arp.is_probe();
        let claimed = if asks_for_free { arp.target_ip } else { arp.sender_ip };
        let is_held = self.aliases.member(claimed).is_some();
        if !(asks_for_free && is_held) {
            self.note_taken(claimed, Taken::By(arp.sender), now);
        }
        self.neighbours.handle_sender(arp.sender, arp.sender_ip);
        if !arp.is_request && arp.target_ip == self.config.own.addr() {
            self.learn(arp.sender, arp.sender_ip, now);
        }
        if !arp.is_request || self.aliases.member(arp.target_ip).is_none() {
            return;
        }
        if !asks_for_free {
            self.learn(arp.sender, arp.sender_ip, now);
        }
        self.outputs.push_back(Output::Frame(reply(self.config.mac, arp.target_ip, arp)));
    }

    /// After a restart devices know the aliases still, but are not known here.
    fn ask_for(&mut self, ip: Ipv4Addr, now: Instant) {
        if self.asked.is_none_or(|asked| now >= asked + ASK_WHO) && self.config.own.contains(&ip) {
            self.asked = Some(now);
            let request = super::arp::request(self.config.mac, self.config.own.addr(), ip);
            self.outputs.push_back(Output::Frame(request));
        }
    }

    fn handle_group(&mut self, packet: &[u8], sender: Mac, now: Instant) {
        if let Some(given) = given_by_dhcp(packet) {
            self.note_taken(given, Taken::ByDhcp, now);
        }
        let Some((from, to)) = source(packet).zip(destination(packet)) else { return };
        let is_ours = self.aliases.member(from).is_some() || from == self.config.own.addr();
        if is_ours || !self.config.own.contains(&from) || self.neighbours.handle_sender(sender, from) {
            return;
        }
        let is_group = to.is_broadcast() || to.is_multicast() || to == self.config.own.broadcast();
        if !is_group || !lane::may_cross(packet, self.allowed) || is_household(packet) {
            return;
        }
        if self.served_by(now).is_some() {
            return self.drop("other_gateway");
        }
        if self.rounds.has_come(packet, Side::Home, now) {
            return self.drop("round");
        }
        let mut packet = packet.to_vec();
        finish_checksum(&mut packet);
        match self.overlay_of(sender, from, now) {
            Some(overlay) => self.tell_group(packet, sender, overlay),
            None => self.keep(sender, &packet),
        }
    }

    fn tell_group(&mut self, packet: Vec<u8>, mac: Mac, overlay: Ipv4Addr) {
        if let Some(device) = self.guests.get_mut(mac) {
            device.rx += packet.len() as u64;
        }
        self.outputs.push_back(Output::Group(packet, overlay));
    }

    fn forward(&mut self, packet: &[u8], mac: Mac, overlay: Ipv4Addr, member: Ipv4Addr) {
        let mut copy = Vec::new();
        if !translate(packet, overlay, member, &mut copy) {
            return self.drop("malformed");
        }
        limit_segments(&mut copy, self.config.mtu);
        if let Some(device) = self.guests.get_mut(mac) {
            device.rx += copy.len() as u64;
        }
        self.outputs.push_back(Output::Packet(copy));
    }

    fn send(&mut self, packet: &[u8], from: Ipv4Addr, to: Ipv4Addr, mac: Mac) {
        let mut copy = Vec::new();
        if !translate(packet, from, to, &mut copy) {
            return self.drop("malformed");
        }
        limit_segments(&mut copy, self.config.mtu);
        let mut frame = ethernet(mac, self.config.mac, ETHERTYPE_IPV4);
        frame.extend_from_slice(&copy);
        self.outputs.push_back(Output::Frame(frame));
    }

    /// The device's address in the party; asks for one when it has none.
    fn overlay_of(&mut self, mac: Mac, ip: Ipv4Addr, now: Instant) -> Option<Ipv4Addr> {
        if !self.learn(mac, ip, now) {
            return None;
        }
        match self.guests.standing(mac, now) {
            Standing::Speaks(overlay) => return Some(overlay),
            Standing::Wants => self.outputs.push_back(Output::Lease(mac)),
            Standing::Waits => {}
        }
        None
    }

    /// Knows the device, by its Ethernet address; false when there is no room.
    fn learn(&mut self, mac: Mac, ip: Ipv4Addr, now: Instant) -> bool {
        if !self.config.own.contains(&ip) || self.neighbours.is_mac(mac) {
            return false;
        }
        let is_known = self.guests.learn(mac, ip, now);
        if !is_known {
            self.drop("too_many_devices");
        }
        is_known
    }

    fn keep(&mut self, mac: Mac, packet: &[u8]) {
        if !self.guests.keep(mac, packet) {
            self.drop("no_address");
        }
    }

    fn forget(&mut self, mac: Mac) {
        if self.guests.remove(mac) {
            self.outputs.extend([Output::Release(mac), Output::Changed]);
        }
    }

    fn note_taken(&mut self, address: Ipv4Addr, taken: Taken, now: Instant) {
        let before = self.aliases.conflicts().count();
        self.aliases.note_taken(address, taken, now);
        if self.aliases.conflicts().count() != before {
            self.outputs.push_back(Output::Changed);
        }
    }

    fn send_frames(&mut self) {
        while let Some(frame) = self.aliases.poll_frame() {
            self.outputs.push_back(Output::Frame(frame));
        }
    }

    fn drop(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}

#[cfg(test)]
mod tests;
