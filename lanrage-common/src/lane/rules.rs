//! What is carried and what is not: the rules that userspace and the kernel programs share.

use super::LaneReason;
use super::maps::LaneLocal;
use crate::police::Rate;
use crate::wire::{Address, Be32, Family, IPV4_LEN, PROTOCOL_UDP, UDP_LEN};

/// UDP destination port of wrapped packets.
pub const PORT: u16 = 10666;
/// Bytes that wrapping adds: IPv4 and UDP header.
pub const OVERHEAD: usize = IPV4_LEN + UDP_LEN;
/// Packets of one source to one port. Games search in bursts: Civilization VI tries 100 ports, Quake sends each probe
/// twice, Source games try six ports.
pub const RATE: Rate = Rate::new(200, 200);

/// Packets to one group and port that go to everybody, whoever has joined it. So a search is heard also by a member that joins
/// at this moment, and a stream goes only where it is wanted.
pub const SEARCH_RATE: Rate = Rate::new(1, 20);

/// Flag of [`LaneLocal::allowed`]: multicast DNS, port 5353 (RFC 6762).
pub const ALLOW_MDNS: u32 = 1;
/// Flag of [`LaneLocal::allowed`]: UPnP's SSDP, port 1900.
pub const ALLOW_SSDP: u32 = 2;
/// Flag of [`LaneLocal::allowed`]: Web Services Discovery, port 3702.
pub const ALLOW_WSD: u32 = 4;

const PROTOCOL_IGMP: u8 = 2;
/// IPv6's hop-by-hop options: before Multicast Listener Discovery (RFC 3810), and nothing that a game sends.
const HOP_BY_HOP: u8 = 0;

/// `fe80::5efe`, before the IPv4 address.
const PREFIX: [Be32; 3] =
    [Be32::from_octets([0xfe, 0x80, 0, 0]), Be32::from_octets([0; 4]), Be32::from_octets([0, 0, 0x5e, 0xfe])];

/// The link-local IPv6 address of the member with that overlay address: `fe80::5efe:a.b.c.d` (the interface identifier of
/// RFC 5214, section 6.1). So nobody has to be told, and nobody can have another member's.
#[inline(always)]
pub const fn link_local(overlay: Be32) -> Address {
    Address::from_words([PREFIX[0], PREFIX[1], PREFIX[2], overlay])
}

/// The overlay address in a [`link_local`] address.
#[inline(always)]
pub fn member_of(address: &Address) -> Option<Be32> {
    let [a, b, c, overlay] = address.words();
    ([a, b, c] == PREFIX).then_some(overlay)
}

/// Is it a multicast group? IPv6's within an interface are not: they never leave a machine.
#[inline(always)]
pub fn is_multicast(family: Family, address: &Address) -> bool {
    match family {
        Family::V4 => address.v4_word().octets()[0] & 0xf0 == 0xe0,
        Family::V6 => {
            let [first, second, ..] = address.words()[0].octets();
            first == 0xff && second & 0x0f > 1
        }
    }
}

/// Does it go only to members that have joined it? Not so the groups of local networks' own protocols (224.0.0.0/24, RFC 5771
/// section 4; ff02::fb and the like, RFC 4291 section 2.7.1) and SSDP's, which are not announced.
#[inline(always)]
pub fn is_selective(family: Family, group: &Address) -> bool {
    let [_, second, third, last] = group.words();
    let is_local = match family {
        Family::V4 => {
            let [a, b, c, _] = last.octets();
            [a, b, c] == [224, 0, 0] || last == Be32::from_octets([239, 255, 255, 250])
        }
        Family::V6 => {
            let [a, b, c, _] = last.octets();
            let is_low = third.is_zero() && ([a, b, c] == [0; 3] || [a, b] == [0, 1]);
            second.is_zero() && (is_low || third == Be32::from_octets([0, 0, 0, 1]))
        }
    };
    is_multicast(family, group) && !is_local
}

/// The group of a packet that goes only to members that have joined it. A later fragment has no port that tells a stream from a
/// search, and goes to everybody.
#[inline(always)]
pub fn selective_group(facts: &Facts) -> Option<Address> {
    let is_selective = facts.part != FragmentPart::Later && is_selective(facts.family, &facts.destination);
    is_selective.then_some(facts.destination)
}

/// Which part of a datagram a packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FragmentPart {
    /// All of it.
    Whole,
    /// The first fragment: it has the ports.
    First,
    /// Another fragment.
    Later,
}

/// What the rules look at, taken from headers whose lengths were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// IP version.
    pub family: Family,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Protocol, behind a fragment header if there is one.
    pub protocol: u8,
    /// Is it a fragment?
    pub part: FragmentPart,
    /// UDP's destination port; 0 when the packet does not have it.
    pub port: u16,
}

/// Where a packet goes that this device sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Not of the lane.
    Pass,
    /// To everybody, with this as destination.
    Group(Address),
    /// IPv6 to one member, whose overlay address this is.
    Member(Be32),
}

/// What is in the wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapped {
    /// A packet for everybody.
    Group,
    /// IPv6 for this device.
    Own,
}

impl LaneLocal {
    /// Where a packet goes.
    #[inline(always)]
    pub fn way(&self, facts: &Facts) -> Way {
        let to = &facts.destination;
        if self.is_group(facts.family, to) {
            return Way::Group(*to);
        }
        match facts.family {
            Family::V4 if self.is_local_broadcast(to.v4_word()) => {
                Way::Group(Address::from_v4(self.broadcast))
            }
            Family::V4 => Way::Pass,
            Family::V6 => member_of(to).filter(|to| *to != self.address).map_or(Way::Pass, Way::Member),
        }
    }

    /// The address that a packet of this device is sent from.
    #[inline(always)]
    pub fn source(&self, family: Family) -> Address {
        match family {
            Family::V4 => Address::from_v4(self.address),
            Family::V6 => link_local(self.address),
        }
    }

    /// Is it for everybody in the party?
    #[inline(always)]
    pub fn is_group(&self, family: Family, address: &Address) -> bool {
        let is_broadcast = match family {
            Family::V4 => {
                address.v4_word() == Be32::from_octets([255; 4]) || address.v4_word() == self.broadcast
            }
            Family::V6 => false,
        };
        is_broadcast || is_multicast(family, address)
    }

    /// Whether physical networks get a copy of a packet that the routes led to the party: UDP to everybody anywhere. What
    /// the party does not carry is theirs too.
    #[inline(always)]
    pub fn is_for_home(&self, facts: &Facts) -> bool {
        facts.family == Family::V4
            && facts.protocol == PROTOCOL_UDP
            && facts.destination.v4_word() != self.broadcast
            && self.is_group(Family::V4, &facts.destination)
    }

    /// Is it the directed broadcast address of a physical network?
    #[inline(always)]
    pub fn is_local_broadcast(&self, address: Be32) -> bool {
        !address.is_zero() && self.broadcasts.contains(&address)
    }

    /// What was in the wrapping that the member at `sender` sent: the inner source must be that member's.
    #[inline(always)]
    pub fn unwrapped(&self, facts: &Facts, sender: Be32) -> Result<Wrapped, LaneReason> {
        let wanted = match facts.family {
            Family::V4 => Address::from_v4(sender),
            Family::V6 => link_local(sender),
        };
        if facts.source != wanted {
            return Err(LaneReason::Spoofed);
        }
        if self.is_group(facts.family, &facts.destination) {
            return Ok(Wrapped::Group);
        }
        let is_own = facts.family == Family::V6 && facts.destination == link_local(self.address);
        if is_own { Ok(Wrapped::Own) } else { Err(LaneReason::NotGroup) }
    }
}

/// Whether a group packet may cross at all. A later fragment has no ports, and passes: what it belongs to is useless
/// without its first fragment, which is checked.
#[inline(always)]
pub fn admit(facts: &Facts, allowed: u32) -> Result<(), LaneReason> {
    match (facts.family, facts.protocol) {
        (_, PROTOCOL_UDP) => {}
        (Family::V4, PROTOCOL_IGMP) | (Family::V6, HOP_BY_HOP) => return Err(LaneReason::Igmp),
        _ => return Err(LaneReason::NotUdp),
    }
    if facts.part == FragmentPart::Later {
        return Ok(());
    }
    match refused_service(facts.port, allowed) {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

#[inline(always)]
const fn refused_service(port: u16, allowed: u32) -> Option<LaneReason> {
    match port {
        PORT => Some(LaneReason::Nested),
        67 | 68 | 546 | 547 => Some(LaneReason::Dhcp),
        137 | 138 => Some(LaneReason::Netbios),
        5355 => Some(LaneReason::Llmnr),
        5353 if allowed & ALLOW_MDNS == 0 => Some(LaneReason::Mdns),
        1900 if allowed & ALLOW_SSDP == 0 => Some(LaneReason::Ssdp),
        3702 if allowed & ALLOW_WSD == 0 => Some(LaneReason::Wsd),
        _ => None,
    }
}
