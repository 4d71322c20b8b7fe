//! Tickets: the control server's permission to use a relay (third-party authorisation in the manner of RFC 7635).
//!
//! Wire form, all integers big-endian: version (1 byte, 1), nonce (24), ciphertext of 100 bytes, tag (16). Sealed with
//! XChaCha20-Poly1305 under the key that the relay gave the control server when it registered. Plaintext: party (16),
//! member's WireGuard key (32), epoch (4), expiry (8, Unix seconds), kbit/s (4), packets/s (4), session key (32).

use crate::identity::{PartyId, WgKey};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand_core::CryptoRngCore;

/// Size of a sealed ticket in bytes.
pub const TICKET_LEN: usize = 1 + NONCE + PLAIN + 16;
/// Longest life of a ticket in seconds.
pub const MAX_TICKET_LIFE: u64 = 600;

const VERSION: u8 = 1;
const NONCE: usize = 24;
const PLAIN: usize = 100;

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The only party whose members the holder may reach.
    pub party: PartyId,
    /// Who the holder is.
    pub member: WgKey,
    /// The party's epoch; a relay refuses tickets older than the newest it has seen of that party.
    pub epoch: u32,
    /// Unix seconds after which the ticket is void.
    pub expires: u64,
    /// Rate the holder may send through the relay, in kbit/s; 0 = the relay's default.
    pub kbit_per_s: u32,
    /// Rate the holder may send through the relay, in packets/s; 0 = the relay's default.
    pub packets_per_s: u32,
    /// Key of MESSAGE-INTEGRITY between holder and relay.
    pub session_key: [u8; 32],
}

/// Why a ticket was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Wrong size or version.
    #[error("malformed ticket")]
    Malformed,
    /// Not sealed by a control server that this relay serves, or altered.
    #[error("ticket not sealed for this relay")]
    Forged,
    /// Too old, or valid for longer than any honest ticket.
    #[error("ticket expired")]
    Expired,
}

impl Ticket {
    /// Seals the ticket for the relay that holds `key`.
    pub fn seal(&self, key: &[u8; 32], rng: &mut impl CryptoRngCore) -> Vec<u8> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let payload = Payload { msg: &self.to_plain(), aad: &[VERSION] };
        let sealed = XChaCha20Poly1305::new(key.into())
            .encrypt(XNonce::from_slice(&nonce), payload)
            .expect("100 bytes are within the cipher's limit");
        [&[VERSION], &nonce[..], &sealed].concat()
    }

    /// Opens a ticket at Unix time `unix`.
    pub fn open(sealed: &[u8], key: &[u8; 32], unix: u64) -> Result<Self, TicketError> {
        Self::open_any_time(sealed, key).and_then(|ticket| ticket.in_its_time(unix))
    }

    /// Opens a ticket without asking whether it is still valid.
    pub fn open_any_time(sealed: &[u8], key: &[u8; 32]) -> Result<Self, TicketError> {
        if sealed.len() != TICKET_LEN || sealed[0] != VERSION {
            return Err(TicketError::Malformed);
        }
        let payload = Payload { msg: &sealed[1 + NONCE..], aad: &sealed[..1] };
        let plain = XChaCha20Poly1305::new(key.into())
            .decrypt(XNonce::from_slice(&sealed[1..1 + NONCE]), payload)
            .map_err(|_| TicketError::Forged)?;
        Ok(Self::from_plain(&plain.try_into().map_err(|_| TicketError::Malformed)?))
    }

    /// The ticket, if it is valid at Unix time `unix`.
    pub fn in_its_time(self, unix: u64) -> Result<Self, TicketError> {
        let latest = unix.saturating_add(MAX_TICKET_LIFE + 60);
        let is_valid = self.expires > unix && self.expires <= latest;
        is_valid.then_some(self).ok_or(TicketError::Expired)
    }

    fn to_plain(&self) -> Vec<u8> {
        [
            &self.party.0[..],
            &self.member.0,
            &self.epoch.to_be_bytes(),
            &self.expires.to_be_bytes(),
            &self.kbit_per_s.to_be_bytes(),
            &self.packets_per_s.to_be_bytes(),
            &self.session_key,
        ]
        .concat()
    }

    fn from_plain(plain: &[u8; PLAIN]) -> Self {
        fn field<const N: usize>(plain: &[u8; PLAIN], at: usize) -> [u8; N] {
            let mut bytes = [0; N];
            bytes.copy_from_slice(&plain[at..at + N]);
            bytes
        }
        Self {
            party: PartyId(field(plain, 0)),
            member: WgKey(field(plain, 16)),
            epoch: u32::from_be_bytes(field(plain, 48)),
            expires: u64::from_be_bytes(field(plain, 52)),
            kbit_per_s: u32::from_be_bytes(field(plain, 60)),
            packets_per_s: u32::from_be_bytes(field(plain, 64)),
            session_key: field(plain, 68),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_core::OsRng;

    const KEY: [u8; 32] = [3; 32];

    fn ticket() -> Ticket {
        Ticket {
            party: PartyId([1; 16]),
            member: WgKey([2; 32]),
            epoch: 3,
            expires: 1_000,
            kbit_per_s: 4,
            packets_per_s: 5,
            session_key: [6; 32],
        }
    }

    #[test]
    fn opens_only_with_its_key_and_in_its_time() {
        let sealed = ticket().seal(&KEY, &mut OsRng);
        assert_eq!(sealed.len(), TICKET_LEN);
        assert_eq!(Ticket::open(&sealed, &KEY, 999), Ok(ticket()));
        assert_eq!(Ticket::open(&sealed, &KEY, 1_000), Err(TicketError::Expired));
        assert_eq!(Ticket::open(&sealed, &KEY, 1), Err(TicketError::Expired));
        assert_eq!(Ticket::open(&sealed, &[4; 32], 999), Err(TicketError::Forged));
    }

    #[test]
    fn every_single_bit_flip_is_refused() {
        let sealed = ticket().seal(&KEY, &mut OsRng);
        for bit in 0..sealed.len() * 8 {
            let mut bent = sealed.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(Ticket::open(&bent, &KEY, 999).is_err());
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Ticket::open(&bytes, &KEY, 999).is_err());
        }
    }
}
