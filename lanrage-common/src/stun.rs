//! STUN Binding (RFC 8489) as the kernel program answers it, with the addresses of RFC 5780 where they fit.

use crate::wire::{Address, Be16, Be32, Family};

/// Length of a STUN header.
pub const HEADER_LEN: usize = 20;
/// The magic cookie.
pub const COOKIE: Be32 = Be32::from_octets([0x21, 0x12, 0xa4, 0x42]);
/// Message type of a Binding request.
pub const BINDING_REQUEST: Be16 = Be16::new(0x0001);
/// Attributes of a request that are looked at; one with more goes to the daemon.
pub const MAX_ATTRIBUTES: usize = 8;
/// Bytes of attributes of a request that is answered; a longer one goes to the daemon.
pub const MAX_ATTRIBUTES_LEN: usize = 2048;

const BINDING_SUCCESS: Be16 = Be16::new(0x0101);
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PADDING: u16 = 0x0026;
const RESPONSE_ORIGIN: u16 = 0x802b;
const OTHER_ADDRESS: u16 = 0x802c;

/// May an attribute of this type be passed over in a request? Those that need not be understood, and PADDING (RFC 5780,
/// section 7.6), which is only there to make the request long.
#[inline(always)]
pub const fn is_ignorable(kind: u16) -> bool {
    kind >= 0x8000 || kind == PADDING
}

/// Words of an address attribute.
#[inline(always)]
const fn attribute_words(family: Family) -> usize {
    match family {
        Family::V4 => 3,
        Family::V6 => 6,
    }
}

/// Words of an answer with that many addresses.
#[inline(always)]
const fn words(family: Family, addresses: usize) -> usize {
    HEADER_LEN / 4 + addresses * attribute_words(family)
}

/// Bytes of an answer that tells nothing but the mapped address.
#[inline(always)]
pub const fn short_len(family: Family) -> usize {
    words(family, 1) * 4
}

/// Bytes of an answer with all three addresses.
#[inline(always)]
pub const fn long_len(family: Family) -> usize {
    words(family, 3) * 4
}

/// What an answer says. All addresses have the same family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The request's transaction.
    pub transaction: [Be32; 3],
    /// Who asks.
    pub mapped: (Address, Be16),
    /// Who answers, and who else could (OTHER-ADDRESS); only in a long answer.
    pub others: Option<[(Address, Be16); 2]>,
}

impl Answer {
    /// Hands out its words with their places, from the beginning on.
    #[inline(always)]
    pub fn write(&self, family: Family, mut put: impl FnMut(usize, Be32)) {
        let count = words(family, if self.others.is_some() { 3 } else { 1 });
        let length = Be16::new((count * 4 - HEADER_LEN) as u16);
        put(0, Be32::from_halves(BINDING_SUCCESS, length));
        put(1, COOKIE);
        put(2, self.transaction[0]);
        put(3, self.transaction[1]);
        put(4, self.transaction[2]);
        let step = attribute_words(family);
        attribute(&mut put, 5, family, XOR_MAPPED_ADDRESS, self.masked(family));
        if let Some([origin, other]) = self.others {
            attribute(&mut put, 5 + step, family, RESPONSE_ORIGIN, origin);
            attribute(&mut put, 5 + 2 * step, family, OTHER_ADDRESS, other);
        }
    }

    /// The mapped address under the mask of RFC 8489, section 14.2.
    #[inline(always)]
    fn masked(&self, family: Family) -> (Address, Be16) {
        let ([a, b, c, d], [first, second, third]) = (self.mapped.0.words(), self.transaction);
        let address = match family {
            Family::V4 => Address::from_v4(d.xor(COOKIE)),
            Family::V6 => Address::from_words([a.xor(COOKIE), b.xor(first), c.xor(second), d.xor(third)]),
        };
        let [high, low, _, _] = COOKIE.octets();
        (address, self.mapped.1.xor(Be16::from_octets([high, low])))
    }
}

#[inline(always)]
fn attribute(
    put: &mut impl FnMut(usize, Be32),
    at: usize,
    family: Family,
    kind: u16,
    (address, port): (Address, Be16),
) {
    let length = Be16::new((attribute_words(family) * 4 - 4) as u16);
    let (number, [a, b, c, d]) = (if matches!(family, Family::V4) { 1 } else { 2 }, address.words());
    put(at, Be32::from_halves(Be16::new(kind), length));
    put(at + 1, Be32::from_halves(Be16::new(number), port));
    match family {
        Family::V4 => put(at + 2, d),
        Family::V6 => {
            put(at + 2, a);
            put(at + 3, b);
            put(at + 4, c);
            put(at + 5, d);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::parse_binding_answer;
    use core::net::{IpAddr, SocketAddr};

    fn bytes(answer: &Answer) -> Vec<u8> {
        let mut words = Vec::new();
        answer.write(answer.mapped.0.family(), |at, word| {
            assert_eq!(at, words.len());
            words.push(word.octets());
        });
        words.concat()
    }

    fn answer(mapped: &str) -> Answer {
        let mapped: SocketAddr = mapped.parse().unwrap();
        let transaction = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]].map(Be32::from_octets);
        Answer { transaction, mapped: (mapped.ip().into(), Be16::new(mapped.port())), others: None }
    }

    #[test]
    fn answers_are_read_by_a_stun_library() {
        for mapped in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
            let short = answer(mapped);
            let (transaction, found) = parse_binding_answer(&bytes(&short)).unwrap();
            assert_eq!(transaction, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
            assert_eq!(found, mapped.parse().unwrap());
            let family = short.mapped.0.family();
            assert_eq!(bytes(&short).len(), short_len(family));
            let long = Answer { others: Some([short.mapped; 2]), ..short };
            assert_eq!(parse_binding_answer(&bytes(&long)).unwrap().1, mapped.parse().unwrap());
            assert_eq!(bytes(&long).len(), long_len(family));
        }
    }

    /// IPv4 addresses under the mask stay IPv4 whatever they look like.
    #[test]
    fn mapped_addresses_survive() {
        let address: IpAddr = Address::from("203.0.113.5".parse::<IpAddr>().unwrap()).into();
        assert_eq!(address.to_string(), "203.0.113.5");
    }
}
