//! PCP's MAP request for a UDP port of an IPv6 address (RFC 6887, section 11): what opens a router's firewall where nothing
//! is translated.

use std::net::{Ipv6Addr, SocketAddrV6};

/// Where routers listen.
pub const PORT: u16 = 5351;
/// Length of a request and of its answer, without options.
pub const LEN: usize = 60;

const VERSION: u8 = 2;
const MAP: u8 = 1;
const ANSWER: u8 = 0x80;
const UDP: u8 = 17;

/// What is asked for. The same nonce renews it, and takes it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapRequest {
    /// The address and port that others shall reach; the request must be sent from this address.
    pub own: SocketAddrV6,
    /// Chosen by chance; who does not know it cannot change what was given (section 11.2).
    pub nonce: [u8; 12],
}

/// What a router gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Seconds it holds.
    pub lifetime_s: u32,
    /// Where others reach the port: the own address, unless the router translates.
    pub external: SocketAddrV6,
}

/// Why there is no mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Not the answer to this request; the right one may follow.
    #[error("no answer to this request")]
    Foreign,
    /// The router speaks, and refuses: a result code of section 7.4, other than 0.
    #[error("the router refuses: PCP result {0}")]
    Refused(u8),
}

impl MapRequest {
    /// The datagram that asks for so many seconds; for none, it gives back.
    pub fn encode(&self, lifetime_s: u32) -> [u8; LEN] {
        let mut datagram = [0; LEN];
        let port = self.own.port().to_be_bytes();
        // no address and port are given up when the mapping is deleted (section 11.1)
        let (outside, outside_port) = match lifetime_s {
            0 => (Ipv6Addr::UNSPECIFIED, [0; 2]),
            _ => (*self.own.ip(), port),
        };
        datagram[..2].copy_from_slice(&[VERSION, MAP]);
        datagram[4..8].copy_from_slice(&lifetime_s.to_be_bytes());
        datagram[8..24].copy_from_slice(&self.own.ip().octets());
        datagram[24..36].copy_from_slice(&self.nonce);
        datagram[36] = UDP;
        datagram[40..42].copy_from_slice(&port);
        datagram[42..44].copy_from_slice(&outside_port);
        datagram[44..60].copy_from_slice(&outside.octets());
        datagram
    }

    /// Reads an answer. One of another version, from a router that knows NAT-PMP only, is a refusal.
    pub fn decode(&self, datagram: &[u8]) -> Result<Mapping, MapError> {
        let [version, opcode, _, result, ..] = *datagram else { return Err(MapError::Foreign) };
        if opcode & ANSWER == 0 {
            return Err(MapError::Foreign);
        }
        if version != VERSION {
            return Err(MapError::Refused(1)); // UNSUPP_VERSION
        }
        let body: &[u8; LEN] = datagram.first_chunk().ok_or(MapError::Foreign)?;
        let is_ours = opcode == ANSWER | MAP
            && body[24..36] == self.nonce
            && body[36] == UDP
            && body[40..42] == self.own.port().to_be_bytes();
        match (is_ours, result) {
            (false, _) => Err(MapError::Foreign),
            (true, 0) => Ok(mapping(body)),
            (true, code) => Err(MapError::Refused(code)),
        }
    }
}

fn mapping(body: &[u8; LEN]) -> Mapping {
    let outside: [u8; 16] = *body.last_chunk().unwrap_or(&[0; 16]);
    let port = u16::from_be_bytes([body[42], body[43]]);
    Mapping {
        lifetime_s: u32::from_be_bytes([body[4], body[5], body[6], body[7]]),
        external: SocketAddrV6::new(outside.into(), port, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> MapRequest {
        MapRequest { own: "[2001:db8:2:1::2]:41000".parse().unwrap(), nonce: *b"twelve bytes" }
    }

    /// As a router answers that opens what was asked for.
    fn answer(request: &MapRequest, lifetime_s: u32) -> [u8; LEN] {
        let mut datagram = request.encode(lifetime_s);
        datagram[1] |= ANSWER;
        datagram[8..24].fill(0); // epoch and reserved
        datagram
    }

    #[test]
    fn a_request_has_the_bytes_of_the_rfc() {
        let datagram = request().encode(7200);
        let mut expected = vec![2, 1, 0, 0, 0, 0, 0x1c, 0x20];
        let own = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
        expected.extend(own);
        expected.extend(b"twelve bytes");
        expected.extend([17, 0, 0, 0, 0xa0, 0x28, 0xa0, 0x28]);
        expected.extend(own);
        assert_eq!(datagram[..], expected);
        assert!(request().encode(0)[42..].iter().all(|byte| *byte == 0), "no address with a deletion");
    }

    #[test]
    fn answers_and_refusals_are_told_apart() {
        let (request, granted) = (request(), answer(&request(), 3600));
        assert_eq!(request.decode(&granted), Ok(Mapping { lifetime_s: 3600, external: request.own }));
        let changed = |at: usize, byte: u8| {
            let mut datagram = granted;
            datagram[at] = byte;
            request.decode(&datagram)
        };
        assert_eq!(changed(3, 12), Err(MapError::Refused(12)), "ADDRESS_MISMATCH");
        assert_eq!(changed(0, 0), Err(MapError::Refused(1)), "a router with NAT-PMP only");
        assert_eq!(request.decode(&[0, 0x81, 0, 1]), Err(MapError::Refused(1)), "its answer is short");
        for (at, byte) in [(1, 1), (1, 0x82), (24, 0), (36, 6), (41, 0)] {
            assert_eq!(changed(at, byte), Err(MapError::Foreign), "byte {at}");
        }
        assert_eq!(request.decode(&granted[..LEN - 1]), Err(MapError::Foreign));
    }

    proptest! {
        #[test]
        fn no_datagram_is_too_strange(datagram in proptest::collection::vec(any::<u8>(), 0..1200)) {
            prop_assert!(request().decode(&datagram).is_err(), "a stranger knows no nonce");
        }
    }
}
