//! What WireGuard puts in clear (whitepaper, section 5.4): all that a relay reads.

use crate::identity::WgKey;
use crate::wire::WIREGUARD_DATA_LEN;
use blake2::digest::consts::U16;
use blake2::digest::{Digest as _, FixedOutput as _, KeyInit as _, Update as _};
use blake2::{Blake2s256, Blake2sMac};

const INITIATION_LEN: usize = 148;
const RESPONSE_LEN: usize = 92;
const COOKIE_LEN: usize = 64;

/// A well-formed WireGuard message. Indexes are little-endian on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Initiation { sender: u32, mac: Mac1<'a> },
    Response { sender: u32, receiver: u32, mac: Mac1<'a> },
    Cookie { receiver: u32 },
    Data { receiver: u32 },
}

/// A handshake message's first MAC and what it covers: it proves nothing, but names the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac1<'a> {
    covered: &'a [u8],
    mac: &'a [u8],
}

impl Mac1<'_> {
    pub(super) fn is_for(&self, receiver: &Mac1Key) -> bool {
        let mut hasher = Blake2sMac::<U16>::new((&receiver.0).into());
        hasher.update(self.covered);
        hasher.finalize_fixed().as_slice() == self.mac
    }
}

/// Key of mac1 in messages to one member: BLAKE2s-256("mac1----" || public key).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac1Key([u8; 32]);

impl Mac1Key {
    pub(super) fn new(receiver: &WgKey) -> Self {
        Self(Blake2s256::new_with_prefix(b"mac1----").chain_update(receiver.0).finalize().into())
    }
}

/// Whether a datagram claims to be WireGuard.
pub(super) fn is_wireguard(datagram: &[u8]) -> bool {
    matches!(datagram, [1..=4, 0, 0, 0, ..])
}

/// Reads a message that [`is_wireguard`]; `None` when its length is one that WireGuard never sends.
pub(super) fn parse(datagram: &[u8]) -> Option<Message<'_>> {
    let index = |at: usize| {
        let bytes = datagram.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let mac = |at: usize| Mac1 { covered: &datagram[..at], mac: &datagram[at..at + 16] };
    match (datagram.first()?, datagram.len()) {
        (1, INITIATION_LEN) => Some(Message::Initiation { sender: index(4)?, mac: mac(116) }),
        (2, RESPONSE_LEN) => Some(Message::Response { sender: index(4)?, receiver: index(8)?, mac: mac(60) }),
        (3, COOKIE_LEN) => Some(Message::Cookie { receiver: index(4)? }),
        (4, WIREGUARD_DATA_LEN..) => Some(Message::Data { receiver: index(4)? }),
        _ => None,
    }
}
