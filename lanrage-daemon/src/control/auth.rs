//! Logins: single-use challenges, signatures bound to this server's origin, opaque session tokens.

use super::origin;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use lanrage_common::control::{Caller, refusal};
use lanrage_common::identity::{DeviceKey, domain};
use lanrage_common::protocol::{Challenge, ErrorBody, ErrorCode, Login, Session, login_message};
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const CHALLENGE_LIFE: u64 = 60;
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// Sessions kept at most; the oldest give way, and their devices log in again.
const MAX_SESSIONS: usize = 200_000;
/// Used challenges kept at most until they expire.
const MAX_USED: usize = 100_000;

/// 32 fresh random bytes.
pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    bytes
}

/// Which origins a client may have signed for.
#[derive(Debug, Clone)]
pub(super) struct Origins {
    public: String,
}

impl Origins {
    pub(super) fn new(public: String) -> Self {
        Self { public }
    }

    /// Whether a client that reached us at `local`, unless a proxy hides that, may believe to talk to `claimed`. Besides the public origin only
    /// the very address at which this connection arrived counts, never what the request says of itself: otherwise a
    /// hostile server could pass a login on to us.
    fn serves(&self, claimed: &str, local: Option<SocketAddr>) -> bool {
        if claimed == self.public {
            return true;
        }
        let Some(local) = local else { return false };
        let arrived_at = SocketAddr::new(local.ip().to_canonical(), local.port());
        let by_address = origin::normalize(&format!("http://{arrived_at}"));
        let by_name = origin::normalize(&format!("http://localhost:{}", local.port()));
        by_address.as_deref() == Ok(claimed)
            || (arrived_at.ip().is_loopback() && by_name.as_deref() == Ok(claimed))
    }
}

/// Logins and sessions.
#[derive(Debug)]
pub(super) struct Auth {
    origins: Origins,
    key: [u8; 32],
    used: Mutex<HashMap<[u8; 16], u64>>,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    by_token: HashMap<[u8; 32], (Caller, Instant)>,
    /// Tokens' hashes, oldest first; all live equally long.
    order: VecDeque<[u8; 32]>,
}

impl Auth {
    pub(super) fn new(origins: Origins) -> Self {
        Self { origins, key: random_bytes(), used: Mutex::default(), sessions: Mutex::default() }
    }

    /// A challenge: expiry, nonce and MAC, so that nothing is remembered of who only asks.
    pub(super) fn challenge(&self, device: &DeviceKey, unix: u64) -> Challenge {
        let mut bytes = [0; 56];
        bytes[..8].copy_from_slice(&(unix + CHALLENGE_LIFE).to_be_bytes());
        bytes[8..24].copy_from_slice(&random_bytes::<16>());
        let mac = self.mac(device, &bytes[..24]).finalize().into_bytes();
        bytes[24..].copy_from_slice(&mac);
        Challenge { challenge: URL_SAFE_NO_PAD.encode(bytes) }
    }

    /// Checks a login and grants a session.
    pub(super) fn log_in(
        &self,
        login: &Login,
        local: Option<SocketAddr>,
        unix: u64,
    ) -> Result<Session, ErrorBody> {
        if !self.origins.serves(&login.origin, local) {
            return Err(refusal(ErrorCode::Unauthorized, self.foreign_origin(&login.origin)));
        }
        let (nonce, expires) = self.open_challenge(login, unix).ok_or_else(stale_challenge)?;
        let message = login_message(&login.origin, &login.challenge);
        if !login.device.verify(domain::LOGIN, &message, &login.signature) {
            return Err(refusal(
                ErrorCode::Unauthorized,
                "the login's signature is wrong: was the key file damaged?",
            ));
        }
        if !login.device.verify(domain::WG_KEY, &login.wg.0, &login.wg_signature) {
            return Err(refusal(ErrorCode::Unauthorized, "the tunnel key is not signed by the device key"));
        }
        self.use_up(nonce, expires, unix)?;
        Ok(self.grant(Caller { device: login.device, wg: login.wg }))
    }

    /// Who a bearer token belongs to.
    pub(super) fn session(&self, token: &str) -> Option<Caller> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (caller, expires) = sessions.by_token.get(&token_hash(token))?;
        (Instant::now() < *expires).then_some(*caller)
    }

    fn foreign_origin(&self, claimed: &str) -> String {
        let claimed: String = claimed.chars().take(100).collect();
        format!(
            "this control server is {}, not {claimed}: use that address; if {claimed} is right, its operator has to set control.public_url to it",
            self.origins.public
        )
    }

    fn mac(&self, device: &DeviceKey, stamp: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            <Hmac<Sha256> as hmac::Mac>::new_from_slice(&self.key).expect("HMAC takes keys of any size");
        mac.update(&device.0);
        mac.update(stamp);
        mac
    }

    /// Nonce and expiry of a challenge that we gave to this device and that is still good.
    fn open_challenge(&self, login: &Login, unix: u64) -> Option<([u8; 16], u64)> {
        let bytes: [u8; 56] = URL_SAFE_NO_PAD.decode(&login.challenge).ok()?.try_into().ok()?;
        self.mac(&login.device, &bytes[..24]).verify_slice(&bytes[24..]).ok()?;
        let expires = u64::from_be_bytes(bytes[..8].try_into().ok()?);
        let nonce = bytes[8..24].try_into().ok()?;
        (unix < expires).then_some((nonce, expires))
    }

    fn use_up(&self, nonce: [u8; 16], expires: u64, unix: u64) -> Result<(), ErrorBody> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_USED {
            used.retain(|_, expires| unix < *expires);
        }
        if used.len() >= MAX_USED {
            return Err(refusal(
                ErrorCode::RateLimited,
                "too many logins at this server: try again in a minute",
            ));
        }
        match used.insert(nonce, expires) {
            None => Ok(()),
            Some(_) => Err(stale_challenge()),
        }
    }

    fn grant(&self, caller: Caller) -> Session {
        let token = URL_SAFE_NO_PAD.encode(random_bytes::<32>());
        let hash = token_hash(&token);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.drop_old(Instant::now());
        sessions.by_token.insert(hash, (caller, Instant::now() + SESSION_LIFE));
        sessions.order.push_back(hash);
        Session { token, expires_in: SESSION_LIFE.as_secs() }
    }
}

impl Sessions {
    fn drop_old(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front() {
            let expired = self.by_token.get(oldest).is_none_or(|(_, expires)| *expires <= now);
            if !expired && self.order.len() < MAX_SESSIONS {
                break;
            }
            self.by_token.remove(oldest);
            self.order.pop_front();
        }
    }
}

fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn stale_challenge() -> ErrorBody {
    refusal(
        ErrorCode::Unauthorized,
        "the login's challenge is used up, expired or not ours: ask for a new one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanrage_common::identity::Device;
    use rand_core::OsRng;

    const PUBLIC: &str = "https://play.example";

    fn auth() -> Auth {
        Auth::new(Origins::new(PUBLIC.into()))
    }

    fn local() -> Option<SocketAddr> {
        Some("192.0.2.1:8667".parse().unwrap())
    }

    fn login(device: &Device, origin: &str, challenge: Challenge) -> Login {
        let challenge = challenge.challenge;
        Login {
            device: device.key(),
            wg: device.wg_key(),
            wg_signature: device.wg_signature(),
            origin: origin.into(),
            signature: device.sign(domain::LOGIN, &login_message(origin, &challenge)),
            challenge,
        }
    }

    #[test]
    fn a_login_is_good_once_and_for_a_minute() {
        let (auth, device) = (auth(), Device::generate(&mut OsRng));
        let good = login(&device, PUBLIC, auth.challenge(&device.key(), 100));
        let session = auth.log_in(&good, local(), 159).unwrap();
        assert_eq!(auth.session(&session.token).unwrap().device, device.key());
        assert_eq!(auth.session("guess"), None);
        assert!(auth.log_in(&good, local(), 120).is_err(), "replayed");
        let late = login(&device, PUBLIC, auth.challenge(&device.key(), 100));
        assert!(auth.log_in(&late, local(), 160).is_err(), "expired");
    }

    #[test]
    fn only_origins_that_are_ours() {
        let (auth, device) = (auth(), Device::generate(&mut OsRng));
        let try_at = |origin: &str, local: &str| {
            let login = login(&device, origin, auth.challenge(&device.key(), 100));
            auth.log_in(&login, local.parse().ok(), 100).is_ok()
        };
        assert!(try_at(PUBLIC, "192.0.2.1:8667"));
        assert!(try_at("http://192.0.2.1:8667", "192.0.2.1:8667"));
        assert!(try_at("http://192.0.2.1:8667", "[::ffff:192.0.2.1]:8667"));
        assert!(try_at("http://localhost:8667", "127.0.0.1:8667"));
        assert!(!try_at("http://localhost:8667", "192.0.2.1:8667"));
        assert!(!try_at("http://127.0.0.1:8667", "192.0.2.1:8667"));
        assert!(!try_at("http://192.0.2.1:8668", "192.0.2.1:8667"));
        assert!(!try_at("https://evil.example", "192.0.2.1:8667"));
        assert!(try_at(PUBLIC, "hidden by a proxy"));
        assert!(!try_at("http://127.0.0.1:8667", "hidden by a proxy"));
    }

    #[test]
    fn a_signature_for_another_server_or_device_is_refused() {
        let (auth, device) = (auth(), Device::generate(&mut OsRng));
        let mut relayed = login(&device, "https://evil.example", auth.challenge(&device.key(), 100));
        relayed.origin = PUBLIC.into();
        assert!(auth.log_in(&relayed, local(), 100).is_err());

        let other = Device::generate(&mut OsRng);
        let stolen = login(&device, PUBLIC, auth.challenge(&other.key(), 100));
        assert!(auth.log_in(&stolen, local(), 100).is_err(), "challenges belong to one device");

        let mut foreign_key = login(&device, PUBLIC, auth.challenge(&device.key(), 100));
        foreign_key.wg = other.wg_key();
        assert!(auth.log_in(&foreign_key, local(), 100).is_err());
        let elsewhere =
            login(&device, PUBLIC, Auth::new(Origins::new(PUBLIC.into())).challenge(&device.key(), 100));
        assert!(auth.log_in(&elsewhere, local(), 100).is_err(), "another process's challenge");
    }
}
