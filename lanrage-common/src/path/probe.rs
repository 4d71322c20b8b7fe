//! Path probes: authenticated pings between members, direct or through a relay.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic [`MAGIC`]; its first byte is neither a WireGuard type (1–4) nor a STUN class (top bits 00) |
//! | 4 | 1 | kind: 1 ping, 2 pong |
//! | 5 | 3 | zero |
//! | 8 | 8 | [`tag`] of the receiver, by which a relay forwards |
//! | 16 | 8 | [`tag`] of the sender |
//! | 24 | 12 | nonce |
//! | 36 | … | ChaCha20-Poly1305 of the body under [`crate::identity::PartySecret::probe_key`] |

use crate::identity::WgKey;
use blake2::digest::consts::U8;
use blake2::{Blake2s, Digest as _};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First bytes of every probe.
pub const MAGIC: [u8; 4] = [0xA7, b'L', b'R', 1];
/// Bytes before the sealed body.
pub const HEADER_LEN: usize = 36;
/// Longest probe (room for padding that tests the path's MTU).
pub const MAX_LEN: usize = 1472;

/// Short name of a member in probe headers: BLAKE2s-64 over a label and its WireGuard key.
pub fn tag(member: &WgKey) -> [u8; 8] {
    Blake2s::<U8>::new_with_prefix(b"lanrage probe tag v1").chain_update(member.0).finalize().into()
}

/// Whether a datagram claims to be a probe.
pub fn is_probe(datagram: &[u8]) -> bool {
    datagram.starts_with(&MAGIC)
}

/// The receiver's [`tag`] in a well-formed probe header: all that a relay reads.
pub fn receiver_tag(datagram: &[u8]) -> Option<[u8; 8]> {
    if !is_probe(datagram) || !(HEADER_LEN + SEAL..=MAX_LEN).contains(&datagram.len()) {
        return None;
    }
    let is_known = matches!(datagram[4], 1 | 2) && datagram[5..8] == [0; 3];
    is_known.then(|| datagram[8..16].try_into().expect("8 bytes"))
}

/// Bytes of a probe's body: pings and pongs have the same size, so that an answer is never longer than its question.
const BODY: usize = 48;
/// Bytes of the cipher's tag.
const SEAL: usize = 16;
/// Size of every probe that is not padded.
pub const LEN: usize = HEADER_LEN + BODY + SEAL;

/// In a pong: the ping was authentic, but not fresh; it only tells the sessions.
pub const STALE: u8 = 1;
/// In a pong: data of the pinging member came through the tunnel this way a moment ago.
pub const INNER: u8 = 2;
/// In a ping: the sender hears nothing this way, though it should.
pub const DEAF: u8 = 4;

/// In a ping through a relay: the sender hunts for a direct path (see [`super::PathAgent`]); `observed` is where its
/// router should let the receiver in. In the pong: the receiver takes part.
pub const HUNT: u8 = 8;

/// Question or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// "Do you hear me?"
    Ping,
    /// "Yes, and this is the address I see you at."
    Pong,
}

/// What a probe says once opened. All integers travel big-endian.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | `session` |
/// | 8 | 8 | `your_session` |
/// | 16 | 8 | `sequence` |
/// | 24 | 4 | `heard` |
/// | 28 | 1 | flags: [`STALE`], [`INNER`], [`DEAF`], [`HUNT`] |
/// | 29 | 1 | family of `observed`: 0 absent, 4, 6 |
/// | 30 | 2 | its port |
/// | 32 | 16 | its address, IPv4 in the first four bytes |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Question or answer.
    pub kind: Kind,
    /// The sender's session: a number that grows with every start of its agent.
    pub session: u64,
    /// The receiver's session as the sender knows it; 0 = not yet. A ping with another one is not fresh.
    pub your_session: u64,
    /// Of a ping: counts up within the pair of sessions. Of a pong: the ping's.
    pub sequence: u64,
    /// Number of the receiver's newest announcement that the sender holds.
    pub heard: u32,
    /// [`STALE`], [`INNER`], [`DEAF`], [`HUNT`]; others mean nothing yet.
    pub flags: u8,
    /// In a pong: where the ping came from. In a ping: see [`HUNT`].
    pub observed: Option<SocketAddr>,
}

/// Who sends a probe to whom, and the key of that direction.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "holds a key")]
pub struct Direction<'a> {
    /// The sender's [`tag`].
    pub from: [u8; 8],
    /// The receiver's [`tag`].
    pub to: [u8; 8],
    /// [`crate::identity::PartySecret::probe_key`] from sender to receiver.
    pub key: &'a [u8; 32],
}

/// The sender's [`tag`] in a well-formed probe header.
pub fn sender_tag(datagram: &[u8]) -> Option<[u8; 8]> {
    receiver_tag(datagram)?;
    datagram[16..24].try_into().ok()
}

impl Probe {
    /// The probe as a datagram; `nonce` must be random.
    pub fn seal(&self, direction: Direction<'_>, nonce: [u8; 12]) -> Vec<u8> {
        self.seal_padded(direction, nonce, LEN)
    }

    /// The same, filled up with zeros to that many bytes, within [`LEN`] and [`MAX_LEN`].
    pub fn seal_padded(&self, direction: Direction<'_>, nonce: [u8; 12], length: usize) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Ping => 1,
            Kind::Pong => 2,
        };
        let mut datagram = [&MAGIC[..], &[kind, 0, 0, 0], &direction.to, &direction.from, &nonce].concat();
        let mut body = self.to_body().to_vec();
        body.resize(length.clamp(LEN, MAX_LEN) - HEADER_LEN - SEAL, 0);
        let payload = Payload { msg: &body, aad: &datagram };
        let sealed = ChaCha20Poly1305::new(direction.key.into())
            .encrypt(&nonce.into(), payload)
            .expect("a datagram is within the cipher's limit");
        datagram.extend_from_slice(&sealed);
        datagram
    }

    /// Opens a datagram whose tags the caller has matched to `key`; `None` when it is malformed or not authentic.
    pub fn open(datagram: &[u8], key: &[u8; 32]) -> Option<Self> {
        receiver_tag(datagram)?;
        let (header, sealed) = datagram.split_at(HEADER_LEN);
        let body = ChaCha20Poly1305::new(key.into())
            .decrypt(Nonce::from_slice(&header[24..]), Payload { msg: sealed, aad: header })
            .ok()?;
        let kind = if header[4] == 1 { Kind::Ping } else { Kind::Pong };
        // longer bodies are padding that tests the path's MTU
        Self::from_body(kind, body.first_chunk()?)
    }

    fn to_body(self) -> [u8; BODY] {
        let mut body = [0; BODY];
        body[..8].copy_from_slice(&self.session.to_be_bytes());
        body[8..16].copy_from_slice(&self.your_session.to_be_bytes());
        body[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        body[24..28].copy_from_slice(&self.heard.to_be_bytes());
        body[28] = self.flags;
        if let Some(observed) = self.observed {
            body[29..].copy_from_slice(&address_to_bytes(observed));
        }
        body
    }

    fn from_body(kind: Kind, body: &[u8; BODY]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_be_bytes(*body[at..].first_chunk()?));
        Some(Self {
            kind,
            session: word(0)?,
            your_session: word(8)?,
            sequence: word(16)?,
            heard: u32::from_be_bytes(*body[24..].first_chunk()?),
            flags: body[28],
            observed: address_from_bytes(body[29..].first_chunk()?),
        })
    }
}

/// Family (4 or 6), port (big-endian), 16 bytes of address.
pub(crate) fn address_to_bytes(address: SocketAddr) -> [u8; 19] {
    let mut bytes = [0; 19];
    bytes[1..3].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes[0] = 4;
            bytes[3..7].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes[0] = 6;
            bytes[3..].copy_from_slice(&ip.octets());
        }
    }
    bytes
}

/// The inverse of [`address_to_bytes`]; `None` for other families.
pub(crate) fn address_from_bytes(bytes: &[u8; 19]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([bytes[1], bytes[2]]);
    let ip: [u8; 16] = *bytes[3..].first_chunk()?;
    match bytes[0] {
        4 => Some((Ipv4Addr::from(*ip.first_chunk::<4>()?), port).into()),
        6 => Some((Ipv6Addr::from(ip), port).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [3; 32];

    fn direction() -> Direction<'static> {
        Direction { from: [1; 8], to: [2; 8], key: &KEY }
    }

    fn pong() -> Probe {
        Probe {
            kind: Kind::Pong,
            session: 1 << 60,
            your_session: 5,
            sequence: 9,
            heard: 2,
            flags: 0,
            observed: Some("203.0.113.7:4001".parse().unwrap()),
        }
    }

    #[test]
    fn probes_round_trip_and_all_have_one_size() {
        let ping = Probe { kind: Kind::Ping, observed: None, ..pong() };
        let six = Probe { observed: Some("[2001:db8::1]:9".parse().unwrap()), flags: STALE | DEAF, ..pong() };
        for probe in [ping, pong(), six] {
            let datagram = probe.seal(direction(), [7; 12]);
            assert_eq!((datagram.len(), Probe::open(&datagram, &KEY)), (LEN, Some(probe)));
            assert_eq!((receiver_tag(&datagram), sender_tag(&datagram)), (Some([2; 8]), Some([1; 8])));
        }
    }

    #[test]
    fn padding_changes_nothing_but_the_length() {
        for length in [0, LEN, LEN + 1, 1452, MAX_LEN, 9000] {
            let datagram = pong().seal_padded(direction(), [7; 12], length);
            assert_eq!(datagram.len(), length.clamp(LEN, MAX_LEN));
            assert_eq!(Probe::open(&datagram, &KEY), Some(pong()));
        }
    }

    #[test]
    fn every_bit_flip_and_every_truncation_is_refused() {
        let datagram = pong().seal(direction(), [7; 12]);
        for bit in 0..datagram.len() * 8 {
            let mut bent = datagram.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Probe::open(&bent, &KEY), None, "bit {bit}");
        }
        for len in 0..datagram.len() {
            assert_eq!(Probe::open(&datagram[..len], &KEY), None, "{len} bytes");
        }
        assert_eq!(Probe::open(&datagram, &[4; 32]), None);
    }

    #[test]
    fn the_magic_is_neither_wireguard_nor_stun() {
        assert!(!(1..=4).contains(&MAGIC[0]));
        assert_ne!(MAGIC[0] >> 6, 0);
    }

    proptest! {
        #[test]
        fn garbage_is_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic: bool) {
            if magic && bytes.len() > 8 {
                bytes[..8].copy_from_slice(&[MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], 1, 0, 0, 0]);
            }
            prop_assert_eq!(Probe::open(&bytes, &KEY), None);
        }
    }
}
