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
    if !is_probe(datagram) || !(HEADER_LEN + 16..=MAX_LEN).contains(&datagram.len()) {
        return None;
    }
    let is_known = matches!(datagram[4], 1 | 2) && datagram[5..8] == [0; 3];
    is_known.then(|| datagram[8..16].try_into().expect("8 bytes"))
}
