//! Stateless nonces: a relay proves a source address without remembering the question.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use rand_core::CryptoRngCore;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// How long one secret signs nonces; it verifies them for as long again.
const ROTATION: Duration = Duration::from_secs(120);

/// Makes and checks nonces. Text form: base64url of issue time (8 bytes, microseconds since the relay's start,
/// big-endian) and BLAKE2s-128 over time and source address, keyed by one of two secrets that change every two minutes.
pub struct NonceKeys {
    start: Instant,
    current: [u8; 32],
    previous: [u8; 32],
    rotate_at: Instant,
}

impl fmt::Debug for NonceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKeys(…)")
    }
}

impl NonceKeys {
    /// New secrets.
    pub fn new(rng: &mut impl CryptoRngCore, now: Instant) -> Self {
        let (mut current, mut previous) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut current);
        rng.fill_bytes(&mut previous);
        Self { start: now, current, previous, rotate_at: now + ROTATION }
    }

    /// When [`NonceKeys::rotate`] is due.
    pub fn rotate_at(&self) -> Instant {
        self.rotate_at
    }

    /// Replaces the older secret, if due.
    pub fn rotate(&mut self, rng: &mut impl CryptoRngCore, now: Instant) {
        if now < self.rotate_at {
            return;
        }
        self.previous = self.current;
        rng.fill_bytes(&mut self.current);
        if now >= self.rotate_at + ROTATION {
            rng.fill_bytes(&mut self.previous);
        }
        self.rotate_at = now + ROTATION;
    }

    /// A nonce that only the owner of `source` can present.
    pub fn issue(&self, source: SocketAddr, now: Instant) -> String {
        let at = u64::try_from(now.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX);
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&at.to_be_bytes());
        bytes[8..].copy_from_slice(&mac(&self.current, at, source));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// When `nonce` was issued to `source` (microseconds since start), if it was, and not too long ago.
    pub fn verify(&self, nonce: &str, source: SocketAddr) -> Option<u64> {
        let mut bytes = [0; 24];
        let length = URL_SAFE_NO_PAD.decode_slice(nonce, &mut bytes).ok()?;
        if length != bytes.len() {
            return None;
        }
        let at = u64::from_be_bytes(bytes[..8].try_into().ok()?);
        let is_ours = [&self.current, &self.previous]
            .into_iter()
            .any(|secret| bool::from(mac(secret, at, source).ct_eq(&bytes[8..])));
        is_ours.then_some(at)
    }
}

fn mac(secret: &[u8; 32], at: u64, source: SocketAddr) -> [u8; 16] {
    let mut mac = Blake2sMac::<U16>::new(secret.into());
    mac.update(&at.to_be_bytes());
    match source.ip() {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(&source.port().to_be_bytes());
    mac.finalize_fixed().into()
}
