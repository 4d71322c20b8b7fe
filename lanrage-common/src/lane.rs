//! How broadcast and multicast cross the tunnel: copied per member, carried unchanged in UDP to overlay addresses.
//!
//! Outer packet: IPv4 from the own overlay address to the member's, UDP to [`PORT`]; payload: the group packet as the
//! game sent it, but for its source address (FOU: the payload starts with the inner IP header).
//!
//! A packet that was unwrapped goes to the interface, never back into a lane, so nothing loops however many members
//! there are.

mod limit;
mod packet;
mod reason;
#[cfg(test)]
mod tests;

pub use reason::LaneReason;

use crate::api::LaneStatus;
use crate::protocol::MAX_MEMBERS;
use crate::wire::{self, Be16, Be32, ChecksumDelta, IPV4_LEN, PROTOCOL_UDP, UDP_LEN};
use ipnet::Ipv4Net;
use limit::{Duplicates, Rates};
use packet::Ipv4;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

/// UDP destination port of wrapped packets.
pub const PORT: u16 = 10666;
/// Bytes that wrapping adds: IPv4 and UDP header.
pub const OVERHEAD: usize = IPV4_LEN + UDP_LEN;

const PROTOCOL_IGMP: u8 = 2;
const TTL: u8 = 64;

/// Discovery protocols that are carried only when a game profile asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Multicast DNS, port 5353 (RFC 6762).
    Mdns,
    /// UPnP's SSDP, port 1900.
    Ssdp,
    /// Web Services Discovery, port 3702.
    Wsd,
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

/// The lane of one device in one party.
#[derive(Debug)]
pub struct Lane {
    address: Ipv4Addr,
    subnet: Ipv4Net,
    members: Vec<Ipv4Addr>,
    local_broadcasts: BTreeSet<Ipv4Addr>,
    allowed: BTreeSet<Service>,
    rates: Rates,
    duplicates: Duplicates,
    status: LaneStatus,
    dropped: BTreeMap<LaneReason, u64>,
    copy: Vec<u8>,
    /// UDP checksum of `copy` for the destination 0.0.0.0.
    udp_checksum: u16,
    next_member: usize,
    next_id: u16,
}

impl Lane {
    /// A lane without members; `address` is the own one in `subnet`.
    pub fn new(address: Ipv4Addr, subnet: Ipv4Net) -> Self {
        Self {
            address,
            subnet,
            members: Vec::new(),
            local_broadcasts: BTreeSet::new(),
            allowed: BTreeSet::new(),
            rates: Rates::default(),
            duplicates: Duplicates::default(),
            status: LaneStatus::default(),
            dropped: BTreeMap::new(),
            copy: Vec::new(),
            udp_checksum: 0,
            next_member: usize::MAX,
            next_id: 1,
        }
    }

    /// Replaces the members that get copies. Own, foreign and group addresses are left out: they would loop.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = Ipv4Addr>) {
        let members: BTreeSet<Ipv4Addr> =
            members.into_iter().filter(|member| self.is_member(*member)).collect();
        self.members = members.into_iter().take(MAX_MEMBERS).collect();
    }

    fn is_member(&self, address: Ipv4Addr) -> bool {
        let is_host = address != self.subnet.network() && address != self.subnet.broadcast();
        self.subnet.contains(&address) && is_host && address != self.address && !self.is_group(address)
    }

    /// Replaces the directed broadcast addresses of the physical networks; they become the party's.
    pub fn set_local_broadcasts(&mut self, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        self.local_broadcasts = addresses.into_iter().collect();
    }

    /// Replaces the discovery protocols that are carried; none at first.
    pub fn set_allowed(&mut self, services: impl IntoIterator<Item = Service>) {
        self.allowed = services.into_iter().collect();
    }

    /// A packet from the interface (TUN). On [`Outbound::Copies`] drain [`Lane::poll_copy`]: the next call takes back
    /// copies that were left.
    pub fn handle_outbound(&mut self, packet: &[u8], now: Instant) -> Outbound {
        self.next_member = usize::MAX;
        if !Ipv4::is_claimed(packet) {
            return Outbound::Pass;
        }
        let Ok(packet) = Ipv4::parse(packet) else { return Outbound::Drop(self.drop(LaneReason::Malformed)) };
        let to = packet.destination();
        let is_local_broadcast = self.local_broadcasts.contains(&to);
        if !self.is_group(to) && !is_local_broadcast {
            return Outbound::Pass;
        }
        self.status.seen += 1;
        if let Err(reason) = self.admit(&packet, self.address, now).and_then(|()| self.check_room(&packet)) {
            return Outbound::Drop(self.drop(reason));
        }
        let destination = if is_local_broadcast { self.subnet.broadcast() } else { to };
        self.wrap(&packet, destination);
        Outbound::Copies
    }

    /// The next copy: the member's overlay address and the whole IP packet for it. No allocation.
    pub fn poll_copy(&mut self) -> Option<(Ipv4Addr, &[u8])> {
        let member = *self.members.get(self.next_member)?;
        self.next_member += 1;
        self.status.copied += 1;
        self.address_copy(member);
        Some((member, &self.copy))
    }

    /// A decrypted packet of the member with overlay address `sender`.
    pub fn handle_inbound<'a>(&mut self, packet: &'a [u8], sender: Ipv4Addr, now: Instant) -> Inbound<'a> {
        // what is not even IPv4 is the kernel's to judge
        let Ok(outer) = Ipv4::parse(packet) else { return Inbound::Pass };
        if self.is_group(outer.destination()) {
            return Inbound::Drop(self.drop(LaneReason::Unwrapped));
        }
        if !self.is_wrapped(&outer) {
            return Inbound::Pass;
        }
        match self.unwrap(&outer, sender, now) {
            Ok(inner) => {
                self.status.delivered += 1;
                Inbound::Deliver(inner)
            }
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

    fn is_group(&self, address: Ipv4Addr) -> bool {
        address.is_broadcast() || address.is_multicast() || address == self.subnet.broadcast()
    }

    /// The rules that hold in both directions.
    fn admit(&mut self, packet: &Ipv4<'_>, source: Ipv4Addr, now: Instant) -> Result<(), LaneReason> {
        match packet.protocol() {
            PROTOCOL_UDP => {}
            PROTOCOL_IGMP => return Err(LaneReason::Igmp),
            _ => return Err(LaneReason::NotUdp),
        }
        // A later fragment has no ports. It passes: what it belongs to is useless without its first fragment, which is
        // checked. All of a source's later fragments share one bucket.
        let port = match packet.is_later_fragment() {
            true => 0,
            false => packet.udp().ok_or(LaneReason::Malformed)?.destination,
        };
        if let Some(reason) = self.refused_service(port) {
            return Err(reason);
        }
        self.rates.admit(source, port, now).then_some(()).ok_or(LaneReason::RateLimited)
    }

    fn refused_service(&self, port: u16) -> Option<LaneReason> {
        let unless = |service, reason| (!self.allowed.contains(&service)).then_some(reason);
        match port {
            PORT => Some(LaneReason::Nested),
            67 | 68 => Some(LaneReason::Dhcp),
            137 | 138 => Some(LaneReason::Netbios),
            5355 => Some(LaneReason::Llmnr),
            5353 => unless(Service::Mdns, LaneReason::Mdns),
            1900 => unless(Service::Ssdp, LaneReason::Ssdp),
            3702 => unless(Service::Wsd, LaneReason::Wsd),
            _ => None,
        }
    }

    fn check_room(&self, packet: &Ipv4<'_>) -> Result<(), LaneReason> {
        if packet.bytes().len() + OVERHEAD > usize::from(u16::MAX) {
            return Err(LaneReason::Oversize);
        }
        (!self.members.is_empty()).then_some(()).ok_or(LaneReason::NoMembers)
    }

    /// Builds the copy for destination 0.0.0.0; [`Lane::address_copy`] fills in members.
    fn wrap(&mut self, packet: &Ipv4<'_>, destination: Ipv4Addr) {
        let total = (packet.bytes().len() + OVERHEAD) as u16;
        self.copy.clear();
        self.copy.extend_from_slice(&[0x45, packet.type_of_service()]);
        self.copy.extend_from_slice(&total.to_be_bytes());
        self.copy.extend_from_slice(&self.next_id.to_be_bytes());
        self.copy.extend_from_slice(&[0, 0, TTL, PROTOCOL_UDP, 0, 0]);
        self.copy.extend_from_slice(&self.address.octets());
        self.copy.extend_from_slice(&[0; 4]);
        self.copy.extend_from_slice(&PORT.to_be_bytes());
        self.copy.extend_from_slice(&PORT.to_be_bytes());
        self.copy.extend_from_slice(&(total - IPV4_LEN as u16).to_be_bytes());
        self.copy.extend_from_slice(&[0; 2]);
        self.copy.extend_from_slice(packet.bytes());
        readdress(&mut self.copy[OVERHEAD..], packet, self.address, destination);
        self.udp_checksum = wire::udp_checksum(&self.address.octets(), &[0; 4], &self.copy[IPV4_LEN..]);
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_member = 0;
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

    fn is_wrapped(&self, outer: &Ipv4<'_>) -> bool {
        let to_lane = || outer.udp().is_some_and(|udp| udp.destination == PORT);
        outer.is_udp() && !outer.is_later_fragment() && outer.destination() == self.address && to_lane()
    }

    fn unwrap<'a>(
        &mut self,
        outer: &Ipv4<'a>,
        sender: Ipv4Addr,
        now: Instant,
    ) -> Result<&'a [u8], LaneReason> {
        if outer.has_options() || outer.is_fragment() {
            return Err(LaneReason::BadWrapping);
        }
        let udp = outer.udp().ok_or(LaneReason::Malformed)?;
        if usize::from(udp.length) != outer.payload().len() {
            return Err(LaneReason::Malformed);
        }
        let bytes = &outer.payload()[UDP_LEN..];
        let inner = Ipv4::parse(bytes).map_err(|_| LaneReason::Malformed)?;
        if inner.bytes().len() != bytes.len() {
            return Err(LaneReason::Malformed);
        }
        if outer.source() != sender || inner.source() != sender {
            return Err(LaneReason::Spoofed);
        }
        if !self.is_group(inner.destination()) {
            return Err(LaneReason::NotGroup);
        }
        self.admit(&inner, sender, now)?;
        if self.duplicates.is_repeated(&inner, now) {
            return Err(LaneReason::Duplicate);
        }
        Ok(inner.bytes())
    }
}

/// Writes new addresses into a copy of `packet` and carries the change over into its checksums (RFC 1624). The UDP
/// checksum covers the addresses (RFC 768) and is in the first fragment only; zero stays "none".
fn readdress(copy: &mut [u8], packet: &Ipv4<'_>, source: Ipv4Addr, destination: Ipv4Addr) {
    let be = |address: Ipv4Addr| Be32::from_octets(address.octets());
    let delta = ChecksumDelta::new()
        .replace32(be(packet.source()), be(source))
        .replace32(be(packet.destination()), be(destination));
    copy[12..16].copy_from_slice(&source.octets());
    copy[16..20].copy_from_slice(&destination.octets());
    let header = delta.apply(Be16::from_octets([copy[10], copy[11]]));
    copy[10..12].copy_from_slice(&header.octets());
    if !packet.is_later_fragment() {
        let at = packet.header_len() + 6;
        let udp = delta.apply_udp(Be16::from_octets([copy[at], copy[at + 1]]));
        copy[at..at + 2].copy_from_slice(&udp.octets());
    }
}
