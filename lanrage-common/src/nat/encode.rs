//! A behaviour in few bytes, for announcements. Integers are big-endian; 0 is unknown, and what a later version may
//! mean by other values is unknown too.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | mapping, 1 to 3 in the order of [`Mapping`] |
//! | 1 | filtering, likewise |
//! | 1 | allocation: 1 preserving, 2 step, 3 random |
//! | 2 | the step |
//! | 1 | port mapping: 1 none, 2 UPnP, 3 NAT-PMP, 4 PCP |
//! | 2 | six answers of two bits each, 1 = no, 2 = yes, from the lowest: UDP blocked, public, hairpin, carrier's NAT, IPv6, 0 |
//! | 2 | lifetime in seconds |
//! | 4 | IPv4 address that the internet sees, 0 = unknown |

use super::{Allocation, Behaviour, Filtering, Mapping, PortMapping};
use std::net::Ipv4Addr;

/// Bytes of an encoded behaviour.
pub const ENCODED_LEN: usize = 14;

const MAPPINGS: [Mapping; 3] =
    [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
const FILTERINGS: [Filtering; 3] =
    [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
const PORT_MAPPINGS: [PortMapping; 4] =
    [PortMapping::None, PortMapping::Upnp, PortMapping::NatPmp, PortMapping::Pcp];

impl Behaviour {
    /// The encoded form.
    pub fn to_bytes(&self) -> [u8; ENCODED_LEN] {
        let (allocation, step) = match self.allocation {
            None => (0, 0),
            Some(Allocation::Preserving) => (1, 0),
            Some(Allocation::Step(step)) => (2, step),
            Some(Allocation::Random) => (3, 0),
        };
        let answers = [self.udp_blocked, self.is_public, self.hairpin, self.is_cgnat, self.has_ipv6];
        let bits = answers.iter().rev().fold(0, |bits, answer| bits << 2 | answer_bits(*answer));
        let mut bytes = [0; ENCODED_LEN];
        bytes[0] = number(&MAPPINGS, self.mapping);
        bytes[1] = number(&FILTERINGS, self.filtering);
        bytes[2] = allocation;
        bytes[3..5].copy_from_slice(&step.to_be_bytes());
        bytes[5] = number(&PORT_MAPPINGS, self.port_mapping);
        bytes[6..8].copy_from_slice(&bits.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.lifetime_s.unwrap_or(0).to_be_bytes());
        bytes[10..14].copy_from_slice(&self.public_address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        bytes
    }

    /// Reads the encoded form.
    pub fn from_bytes(bytes: &[u8; ENCODED_LEN]) -> Self {
        let [mapping, filtering, allocation, s1, s2, port_mapping, a1, a2, l1, l2, address @ ..] = *bytes;
        let bits = u16::from_be_bytes([a1, a2]);
        let answer = |at: u16| match bits >> (2 * at) & 3 {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        };
        Self {
            udp_blocked: answer(0),
            is_public: answer(1),
            public_address: Some(Ipv4Addr::from(address)).filter(|address| !address.is_unspecified()),
            mapping: at(&MAPPINGS, mapping),
            filtering: at(&FILTERINGS, filtering),
            allocation: match allocation {
                1 => Some(Allocation::Preserving),
                2 => Some(Allocation::Step(i16::from_be_bytes([s1, s2]))),
                3 => Some(Allocation::Random),
                _ => None,
            },
            hairpin: answer(2),
            is_cgnat: answer(3),
            has_ipv6: answer(4),
            port_mapping: at(&PORT_MAPPINGS, port_mapping),
            lifetime_s: Some(u16::from_be_bytes([l1, l2])).filter(|lifetime| *lifetime > 0),
        }
    }
}

fn answer_bits(answer: Option<bool>) -> u16 {
    match answer {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    }
}

/// Its place, from 1.
fn number<T: PartialEq>(all: &[T], one: Option<T>) -> u8 {
    all.iter().position(|it| Some(it) == one.as_ref()).map_or(0, |at| at as u8 + 1)
}

fn at<T: Copy>(all: &[T], number: u8) -> Option<T> {
    all.get(usize::from(number).checked_sub(1)?).copied()
}
