//! A NAT without sockets and clock: packets in, changed packets out.

use super::behaviour::Behaviour;
use super::packet::{Content, FragmentKey, Packet};
use super::table::{Protocol, Table};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Fragmented packets that are under way at once, and for how long their pieces are known.
const MAX_FRAGMENTED: usize = 256;
const FRAGMENT_LIFE: Duration = Duration::from_secs(10);

/// The two sides of a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The home network.
    Inside,
    /// The internet.
    Outside,
}

/// Why a packet went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is no whole IPv4 packet.
    Malformed,
    /// It is for the router itself, or for the home network.
    Local,
    /// It carries what this NAT does not know.
    Unknown,
    /// Its hops are used up.
    Expired,
    /// UDP is blocked.
    Blocked,
    /// Nobody inside asked for it.
    Unsolicited,
    /// It is for the public address, from inside, where that is not allowed.
    Hairpin,
    /// There is no room for its mapping.
    Full,
    /// The first fragment was not seen, or was refused.
    Fragment,
}

/// A NAT with one public address.
#[derive(Debug)]
pub struct Nat {
    table: Table,
    public: Ipv4Addr,
    fragments: HashMap<(Side, FragmentKey), (Course, Instant)>,
    refused: BTreeMap<Refusal, u64>,
}

/// Where the later fragments of a packet go.
#[derive(Debug, Clone, Copy)]
struct Course {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    to: Side,
}

impl Nat {
    /// A NAT that has seen nothing.
    pub fn new(behaviour: Behaviour, public: Ipv4Addr) -> Self {
        let (fragments, refused) = Default::default();
        Self { table: Table::new(behaviour), public, fragments, refused }
    }

    /// Behaves otherwise from now on, as after a change of the router's settings. TCP lives on if the address does.
    pub fn change(&mut self, behaviour: Behaviour, public: Ipv4Addr) {
        if public == self.public {
            self.table.change(behaviour);
        } else {
            self.table = Table::new(behaviour);
        }
        self.public = public;
        self.fragments.clear();
    }

    /// How many packets went no further, by reason.
    pub fn refused(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }

    /// Changes a packet that came from one side; to which side it goes.
    pub fn handle(&mut self, from: Side, bytes: &mut [u8], now: Instant) -> Result<Side, Refusal> {
        let result = match Packet::parse(bytes) {
            Some(mut packet) => self.pass(from, &mut packet, now),
            None => Err(Refusal::Malformed),
        };
        result.inspect_err(|refusal| *self.refused.entry(*refusal).or_default() += 1)
    }

    fn pass(&mut self, from: Side, packet: &mut Packet, now: Instant) -> Result<Side, Refusal> {
        let destination = *packet.destination().ip();
        match from {
            Side::Inside if is_local(destination) => return Err(Refusal::Local),
            Side::Outside if destination != self.public => return Err(Refusal::Local),
            _ if !packet.hop() => return Err(Refusal::Expired),
            _ => {}
        }
        let key = (from, packet.fragment_key());
        let begins = packet.is_first_fragment();
        let to = match packet.content() {
            Content::Flow(Protocol::Udp) if self.table.behaviour().blocks_udp => Err(Refusal::Blocked),
            Content::Flow(protocol) => self.translate(from, protocol, packet, now),
            Content::Error => self.translate_error(from, packet, now),
            Content::Fragment => self.follow(key, packet, now),
            Content::Other => Err(Refusal::Unknown),
        }?;
        if begins {
            self.remember(key, packet, to, now);
        }
        Ok(to)
    }

    fn translate(
        &mut self,
        from: Side,
        protocol: Protocol,
        packet: &mut Packet,
        now: Instant,
    ) -> Result<Side, Refusal> {
        if from == Side::Outside {
            return self.let_in(protocol, packet, now);
        }
        let is_hairpin = *packet.destination().ip() == self.public;
        if is_hairpin && !self.table.behaviour().hairpin {
            return Err(Refusal::Hairpin);
        }
        let port = self.table.outward(protocol, packet.source(), packet.destination(), now);
        packet.set_source(SocketAddrV4::new(self.public, port.ok_or(Refusal::Full)?));
        // RFC 4787 REQ-9: with the external source address
        if is_hairpin { self.let_in(protocol, packet, now) } else { Ok(Side::Outside) }
    }

    fn let_in(&self, protocol: Protocol, packet: &mut Packet, now: Instant) -> Result<Side, Refusal> {
        let port = packet.destination().port();
        let inside = self.table.inward(protocol, port, packet.source(), now);
        packet.set_destination(inside.ok_or(Refusal::Unsolicited)?);
        Ok(Side::Inside)
    }

    /// An error goes to whoever sent the quoted packet, whoever it comes from (RFC 5508 section 4.2).
    fn translate_error(&self, from: Side, packet: &mut Packet, now: Instant) -> Result<Side, Refusal> {
        let public = self.public;
        if from == Side::Inside {
            let changed = packet.change_quoted(|quoted| {
                let (protocol, inside) = (quoted.quoted_protocol()?, quoted.destination());
                let port = self.table.port_of(protocol, inside, quoted.source())?;
                quoted.set_destination(SocketAddrV4::new(public, port));
                Some(())
            });
            packet.set_source_address(public);
            return changed.map(|()| Side::Outside).ok_or(Refusal::Unsolicited);
        }
        let inside = packet.change_quoted(|quoted| {
            let (protocol, sender) = (quoted.quoted_protocol()?, quoted.source());
            let owner = self.table.owner(protocol, sender.port(), now).filter(|_| *sender.ip() == public)?;
            quoted.set_source(owner);
            Some(owner)
        });
        packet.set_destination_address(*inside.ok_or(Refusal::Unsolicited)?.ip());
        Ok(Side::Inside)
    }

    fn remember(&mut self, key: (Side, FragmentKey), packet: &Packet, to: Side, now: Instant) {
        if self.fragments.len() >= MAX_FRAGMENTED {
            self.fragments.retain(|_, (_, until)| *until > now);
        }
        if self.fragments.len() < MAX_FRAGMENTED {
            let (source, destination) = (*packet.source().ip(), *packet.destination().ip());
            self.fragments.insert(key, (Course { source, destination, to }, now + FRAGMENT_LIFE));
        }
    }

    fn follow(&self, key: (Side, FragmentKey), packet: &mut Packet, now: Instant) -> Result<Side, Refusal> {
        let known = self.fragments.get(&key).filter(|(_, until)| *until > now);
        let (course, _) = known.ok_or(Refusal::Fragment)?;
        packet.set_source_address(course.source);
        packet.set_destination_address(course.destination);
        Ok(course.to)
    }
}

/// What no router passes on: home networks, carriers' inner networks, groups, broadcast.
fn is_local(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    (first == 192 && second == 168) || (first == 100 && second & 0xc0 == 64) || first >= 224 || first == 127
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
