//! Keys, and what is derived from them: device identity, party secret, preshared keys, roster MACs.
//!
//! All derivations are HKDF-SHA256 (RFC 5869) with the party's secret as input key material, the party id as salt and
//! a label that names the use, so that no two uses share a key.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, Verifier as _};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use rand_core::CryptoRngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use zeroize::ZeroizeOnDrop;

/// A text that should hold fixed-size bytes does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} bytes written as {encoding}")]
pub struct ParseBytesError {
    expected: usize,
    encoding: &'static str,
}

/// Fixed-size byte newtypes that travel as text: `Display`, `FromStr` and serde agree on the encoding.
macro_rules! text_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal, $engine:ident, $encoding:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$engine.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseBytesError;
            fn from_str(text: &str) -> Result<Self, ParseBytesError> {
                let error = ParseBytesError { expected: $len, encoding: $encoding };
                let bytes = $engine.decode(text).map_err(|_| error)?;
                bytes.try_into().map(Self).map_err(|_| error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_bytes!(
    /// A party's public name for machines: 16 random bytes, base64url.
    PartyId, 16, URL_SAFE_NO_PAD, "base64url"
);
text_bytes!(
    /// A device's Ed25519 public key (RFC 8032), base64url: who a peer is.
    DeviceKey, 32, URL_SAFE_NO_PAD, "base64url"
);
text_bytes!(
    /// An Ed25519 signature (RFC 8032), base64url.
    Signature, 64, URL_SAFE_NO_PAD, "base64url"
);
text_bytes!(
    /// A WireGuard public key (X25519, RFC 7748) in WireGuard's own base64 form.
    WgKey, 32, STANDARD, "base64 as WireGuard writes keys"
);
text_bytes!(
    /// A roster entry's HMAC-SHA256 under the party's secret, base64url.
    RosterMac, 32, URL_SAFE_NO_PAD, "base64url"
);
text_bytes!(
    /// The first 16 bytes of SHA-256 over the host's device key, base64url: in the invite, so that the control server cannot substitute the host.
    Fingerprint, 16, URL_SAFE_NO_PAD, "base64url"
);

text_bytes!(
    /// How a member tells its devices ([`crate::devices`]) apart at the control server, base64url: 16 bytes that say
    /// nothing about the device.
    DeviceId, 16, URL_SAFE_NO_PAD, "base64url"
);

text_bytes!(
    /// SHA-256 of an X.509 certificate (DER), base64url: how members know a relay over TLS.
    CertificateFingerprint, 32, URL_SAFE_NO_PAD, "base64url"
);

impl CertificateFingerprint {
    /// Of this certificate (DER).
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl DeviceKey {
    /// The short form that invites carry.
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = Sha256::digest(self.0);
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        Fingerprint(short)
    }

    /// Whether `signature` was made by this device over `message` under `domain` (see [`Device::sign`]).
    pub fn verify(&self, domain: &str, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(&self.0) else { return false };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify(&domain_separated(domain, message), &signature).is_ok()
    }
}

/// The device's two secret keys. Never serialised by serde; the daemon stores the raw bytes with mode 0600.
pub struct Device {
    signing: ed25519_dalek::SigningKey,
    tunnel: x25519_dalek::StaticSecret,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.key())
    }
}

impl Device {
    /// Makes a new identity.
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        let mut bytes = [0; 64];
        rng.fill_bytes(&mut bytes);
        Self::from_bytes(&bytes)
    }

    /// Restores an identity from what [`Device::to_bytes`] gave: 32 bytes Ed25519 seed, 32 bytes X25519 scalar.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (mut seed, mut scalar) = ([0; 32], [0; 32]);
        seed.copy_from_slice(&bytes[..32]);
        scalar.copy_from_slice(&bytes[32..]);
        Self { signing: ed25519_dalek::SigningKey::from_bytes(&seed), tunnel: scalar.into() }
    }

    /// The secret keys, for the key file.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(self.signing.as_bytes());
        bytes[32..].copy_from_slice(self.tunnel.as_bytes());
        bytes
    }

    /// Who this device is.
    pub fn key(&self) -> DeviceKey {
        DeviceKey(self.signing.verifying_key().to_bytes())
    }

    /// The key by which WireGuard knows this device.
    pub fn wg_key(&self) -> WgKey {
        WgKey(x25519_dalek::PublicKey::from(&self.tunnel).to_bytes())
    }

    /// The WireGuard secret, for the tunnel.
    pub fn wg_secret(&self) -> x25519_dalek::StaticSecret {
        self.tunnel.clone()
    }

    /// Signs `message` for one use, named by `domain`; the domain is part of what is signed.
    pub fn sign(&self, domain: &str, message: &[u8]) -> Signature {
        Signature(self.signing.sign(&domain_separated(domain, message)).to_bytes())
    }

    /// The device key's statement that the WireGuard key is its own.
    pub fn wg_signature(&self) -> Signature {
        self.sign(domain::WG_KEY, &self.wg_key().0)
    }
}

/// The uses of a device signature.
pub mod domain {
    /// The device's statement about its WireGuard key.
    pub const WG_KEY: &str = "lanrage wireguard key v1";
    /// Login at a control server: message = origin, a zero byte, challenge.
    pub const LOGIN: &str = "lanrage login v1";
}

fn domain_separated(domain: &str, message: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &[0], message].concat()
}

/// The 32-byte party secret K. The control server never sees it.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct PartySecret([u8; 32]);

impl fmt::Debug for PartySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartySecret(…)")
    }
}

impl From<[u8; 32]> for PartySecret {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Label of the key for lists of devices.
const DEVICES: &str = "lanrage devices v1";

impl PartySecret {
    /// Makes a new secret.
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The raw secret, for the invite and the state file.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// WireGuard's preshared key of a pair; the same from both ends.
    pub fn preshared_key(&self, party: &PartyId, a: &WgKey, b: &WgKey) -> [u8; 32] {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        self.derive(party, "lanrage psk v1", &[&low.0, &high.0])
    }

    /// Key of the path probes that `from` sends to `to`.
    pub fn probe_key(&self, party: &PartyId, from: &WgKey, to: &WgKey) -> [u8; 32] {
        self.derive(party, "lanrage probe v1", &[&from.0, &to.0])
    }

    /// Key that seals the signals (path candidates) that `from` sends to `to` through the control server.
    pub fn signal_key(&self, party: &PartyId, from: &WgKey, to: &WgKey) -> [u8; 32] {
        self.derive(party, "lanrage signal v1", &[&from.0, &to.0])
    }

    /// MAC of a roster entry.
    pub fn roster_mac(&self, party: &PartyId, entry: &RosterEntry) -> RosterMac {
        RosterMac(self.roster_hmac(party, entry).finalize().into_bytes().into())
    }

    /// Whether a member who knows the secret wrote this entry; compared in constant time.
    pub fn verifies(&self, party: &PartyId, entry: &RosterEntry, mac: &RosterMac) -> bool {
        self.roster_hmac(party, entry).verify_slice(&mac.0).is_ok()
    }

    /// MAC of what a member says of the devices behind it.
    pub fn devices_mac(&self, party: &PartyId, list: &[u8]) -> RosterMac {
        RosterMac(self.hmac(party, DEVICES, list).finalize().into_bytes().into())
    }

    /// Whether a member who knows the secret wrote this list of devices; compared in constant time.
    pub fn verifies_devices(&self, party: &PartyId, list: &[u8], mac: &RosterMac) -> bool {
        self.hmac(party, DEVICES, list).verify_slice(&mac.0).is_ok()
    }

    /// How a device behind a member is told apart at the control server, which cannot guess from it what is known of the
    /// device: `kind` and `name` are, say, `lan` and a MAC address.
    pub fn device_id(&self, party: &PartyId, owner: &DeviceKey, kind: &str, name: &[u8]) -> DeviceId {
        let message = [&owner.0[..], kind.as_bytes(), &[0], name].concat();
        let mac = self.hmac(party, "lanrage device id v1", &message).finalize().into_bytes();
        let mut id = [0; 16];
        id.copy_from_slice(&mac[..16]);
        DeviceId(id)
    }

    fn roster_hmac(&self, party: &PartyId, entry: &RosterEntry) -> Hmac<Sha256> {
        self.hmac(party, "lanrage roster v1", &entry.canonical())
    }

    fn hmac(&self, party: &PartyId, label: &str, message: &[u8]) -> Hmac<Sha256> {
        let key = self.derive(party, label, &[]);
        let mut hmac =
            <Hmac<Sha256> as hmac::Mac>::new_from_slice(&key).expect("HMAC takes keys of any size");
        hmac.update(&party.0);
        hmac.update(message);
        hmac
    }

    fn derive(&self, party: &PartyId, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let info = [&[label.as_bytes()], parts].concat().concat();
        let mut out = [0; 32];
        Hkdf::<Sha256>::new(Some(&party.0), &self.0)
            .expand(&info, &mut out)
            .expect("32 bytes is within HKDF's range");
        out
    }
}

/// What a member says of itself; other members believe it when its MAC verifies under the party's secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterEntry {
    /// Name shown to people, 1 to 32 characters without control characters.
    pub name: String,
    /// Who the peer is.
    pub device: DeviceKey,
    /// Its tunnel key.
    pub wg: WgKey,
    /// `device`'s signature over `wg` ([`domain::WG_KEY`]).
    pub wg_signature: Signature,
    /// Its address in the party's subnet.
    pub address: Ipv4Addr,
    /// The party's epoch in which the entry was made.
    pub epoch: u32,
}

impl RosterEntry {
    /// Whether the device really owns the WireGuard key.
    pub fn wg_key_is_signed(&self) -> bool {
        self.device.verify(domain::WG_KEY, &self.wg.0, &self.wg_signature)
    }

    /// What the MAC covers: fixed-size fields first, so that no two entries share an encoding.
    fn canonical(&self) -> Vec<u8> {
        [
            &self.device.0[..],
            &self.wg.0,
            &self.wg_signature.0,
            &self.address.octets(),
            &self.epoch.to_be_bytes(),
            self.name.as_bytes(),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;

    fn entry(device: &Device) -> RosterEntry {
        RosterEntry {
            name: "Ana".into(),
            device: device.key(),
            wg: device.wg_key(),
            wg_signature: device.wg_signature(),
            address: Ipv4Addr::new(10, 66, 0, 2),
            epoch: 1,
        }
    }

    #[test]
    fn preshared_key_is_the_same_from_both_ends_and_differs_per_party() {
        let secret = PartySecret::generate(&mut OsRng);
        let (a, b) = (WgKey([1; 32]), WgKey([2; 32]));
        let party = PartyId([7; 16]);
        assert_eq!(secret.preshared_key(&party, &a, &b), secret.preshared_key(&party, &b, &a));
        assert_ne!(secret.preshared_key(&party, &a, &b), secret.preshared_key(&PartyId([8; 16]), &a, &b));
    }

    #[test]
    fn roster_mac_fails_after_any_change() {
        let secret = PartySecret::generate(&mut OsRng);
        let party = PartyId([7; 16]);
        let honest = entry(&Device::generate(&mut OsRng));
        let mac = secret.roster_mac(&party, &honest);
        assert!(secret.verifies(&party, &honest, &mac));

        let moved = RosterEntry { address: Ipv4Addr::new(10, 66, 0, 3), ..honest.clone() };
        let renamed = RosterEntry { name: "Bob".into(), ..honest.clone() };
        let rekeyed = RosterEntry { wg: WgKey([9; 32]), ..honest.clone() };
        for changed in [moved, renamed, rekeyed] {
            assert!(!secret.verifies(&party, &changed, &mac));
        }
        assert!(!PartySecret::generate(&mut OsRng).verifies(&party, &honest, &mac));
    }

    #[test]
    fn signatures_are_bound_to_their_domain() {
        let device = Device::generate(&mut OsRng);
        let signature = device.sign(domain::LOGIN, b"x");
        assert!(device.key().verify(domain::LOGIN, b"x", &signature));
        assert!(!device.key().verify(domain::WG_KEY, b"x", &signature));
        assert!(entry(&device).wg_key_is_signed());
    }

    #[test]
    fn identity_survives_its_file_form() {
        let device = Device::generate(&mut OsRng);
        let restored = Device::from_bytes(&device.to_bytes());
        assert_eq!((device.key(), device.wg_key()), (restored.key(), restored.wg_key()));
    }
}
