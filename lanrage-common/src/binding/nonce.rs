//! Stateless nonces: a relay proves a source address without remembering the question.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// How long a nonce counts.
const LIFE: Duration = Duration::from_secs(240);

/// Makes and checks nonces. Text form: base64url of issue time (8 bytes, microseconds on the relay's clock, big-endian)
/// and BLAKE2s-128 over time and source address, keyed by the relay's secret.
#[derive(Clone)]
pub struct NonceKey {
    secret: [u8; 32],
    /// What issue times count from.
    clock: Instant,
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(…)")
    }
}

impl NonceKey {
    /// Nonces under this secret, with issue times that count from `clock`.
    pub fn new(secret: [u8; 32], clock: Instant) -> Self {
        Self { secret, clock }
    }

    /// What a restarted relay needs to go on where this one ends.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// A nonce that only the owner of `source` can present.
    pub fn issue(&self, source: SocketAddr, now: Instant) -> String {
        let at = self.micros(now);
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&at.to_be_bytes());
        bytes[8..].copy_from_slice(&self.mac(at, source));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// When `nonce` was issued to `source` (microseconds on the relay's clock), if it was, and not too long ago.
    pub fn verify(&self, nonce: &str, source: SocketAddr, now: Instant) -> Option<u64> {
        let mut bytes = [0; 24];
        let length = URL_SAFE_NO_PAD.decode_slice(nonce, &mut bytes).ok()?;
        if length != bytes.len() {
            return None;
        }
        let at = u64::from_be_bytes(bytes[..8].try_into().ok()?);
        let is_ours = bool::from(self.mac(at, source).ct_eq(&bytes[8..]));
        (is_ours && self.age(at, now) < LIFE).then_some(at)
    }

    /// How long ago a nonce of this issue time was made.
    pub fn age(&self, at: u64, now: Instant) -> Duration {
        Duration::from_micros(self.micros(now).saturating_sub(at))
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.clock).as_micros()).unwrap_or(u64::MAX)
    }

    fn mac(&self, at: u64, source: SocketAddr) -> [u8; 16] {
        let mut mac = Blake2sMac::<U16>::new((&self.secret).into());
        mac.update(&at.to_be_bytes());
        match source.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&source.port().to_be_bytes());
        mac.finalize_fixed().into()
    }
}
