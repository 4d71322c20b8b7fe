//! Announcements: where a member can be tried, sealed for one other member and carried by the control server.
//!
//! A signal's body is base64 of: version (1 byte, 1), nonce (12), ChaCha20-Poly1305 under
//! [`crate::identity::PartySecret::signal_key`] with the version as associated data. Plaintext, integers big-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | session |
//! | 4 | number of this announcement within the session |
//! | 8 | the receiver's session as known, 0 = not yet |
//! | 4 | number of the receiver's newest announcement held |
//! | 1 | relays that follow: length of the name (1), name, round trip in ms (2, 0xffff = unknown) |
//! | 1 | candidates that follow: kind (1), address (19 as in a probe) |

use super::candidate::{Candidate, CandidateKind};
use super::probe::{address_from_bytes, address_to_bytes};
use crate::protocol::MAX_SIGNAL;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};

/// Candidates one announcement may carry.
pub const MAX_CANDIDATES: usize = 8;
/// Relays one announcement may carry.
pub const MAX_RELAYS: usize = 8;

const VERSION: u8 = 1;
const NONCE: usize = 12;
const RTT_UNKNOWN: u16 = u16::MAX;

/// What a member tells another about how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The sender's session; see [`super::probe::Probe::session`].
    pub session: u64,
    /// Counts up within a session: an older one is a replay.
    pub number: u32,
    /// The receiver's session as the sender knows it.
    pub your_session: u64,
    /// The receiver's newest announcement that the sender holds.
    pub heard: u32,
    /// Relays the sender is bound at, with the round trip to each in milliseconds where known.
    pub relays: Vec<(String, Option<u16>)>,
    /// Addresses to try.
    pub candidates: Vec<Candidate>,
}

impl Announcement {
    /// Seals the announcement; `nonce` must be random.
    pub fn seal(&self, key: &[u8; 32], nonce: [u8; NONCE]) -> String {
        let payload = Payload { msg: &self.to_plain(), aad: &[VERSION] };
        let sealed = ChaCha20Poly1305::new(key.into())
            .encrypt(&nonce.into(), payload)
            .expect("an announcement is within the cipher's limit");
        STANDARD.encode([&[VERSION], &nonce[..], &sealed].concat())
    }

    /// Opens a signal's body; `None` when it is malformed, of another version or not authentic.
    pub fn open(body: &str, key: &[u8; 32]) -> Option<Self> {
        if body.len() > MAX_SIGNAL {
            return None;
        }
        let bytes = STANDARD.decode(body).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let payload = Payload { msg: sealed, aad: &[VERSION] };
        let plain = ChaCha20Poly1305::new(key.into()).decrypt(Nonce::from_slice(nonce), payload).ok()?;
        if *version != VERSION {
            return None;
        }
        Self::from_plain(&plain)
    }

    fn to_plain(&self) -> Vec<u8> {
        let mut plain = [
            &self.session.to_be_bytes()[..],
            &self.number.to_be_bytes(),
            &self.your_session.to_be_bytes(),
            &self.heard.to_be_bytes(),
        ]
        .concat();
        let relays = &self.relays[..self.relays.len().min(MAX_RELAYS)];
        plain.push(relays.len() as u8);
        for (name, rtt) in relays {
            let name = &name.as_bytes()[..name.len().min(255)];
            plain.push(name.len() as u8);
            plain.extend_from_slice(name);
            plain.extend_from_slice(&rtt.unwrap_or(RTT_UNKNOWN).to_be_bytes());
        }
        let candidates = &self.candidates[..self.candidates.len().min(MAX_CANDIDATES)];
        plain.push(candidates.len() as u8);
        for candidate in candidates {
            plain.push(candidate.kind.to_byte());
            plain.extend_from_slice(&address_to_bytes(candidate.address));
        }
        plain
    }

    fn from_plain(plain: &[u8]) -> Option<Self> {
        let mut reader = Reader(plain);
        let announcement = Self {
            session: u64::from_be_bytes(reader.take()?),
            number: u32::from_be_bytes(reader.take()?),
            your_session: u64::from_be_bytes(reader.take()?),
            heard: u32::from_be_bytes(reader.take()?),
            relays: reader.list(MAX_RELAYS, Reader::relay)?,
            candidates: reader.list(MAX_CANDIDATES, Reader::candidate)?,
        };
        // later versions may append; nothing is appended in this one
        Some(announcement)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn list<T>(&mut self, limit: usize, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let [count] = self.take()?;
        (usize::from(count) <= limit).then(|| (0..count).map(|_| item(self)).collect())?
    }

    fn relay(&mut self) -> Option<(String, Option<u16>)> {
        let [len] = self.take()?;
        let (name, rest) = self.0.split_at_checked(usize::from(len))?;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        self.0 = rest;
        let rtt = u16::from_be_bytes(self.take()?);
        Some((name, (rtt != RTT_UNKNOWN).then_some(rtt)))
    }

    fn candidate(&mut self) -> Option<Candidate> {
        let [kind] = self.take()?;
        let address = address_from_bytes(&self.take()?)?;
        Some(Candidate { kind: CandidateKind::from_byte(kind)?, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [9; 32];

    fn announcement() -> Announcement {
        let candidate = |kind, address: &str| Candidate { kind, address: address.parse().unwrap() };
        Announcement {
            session: 77,
            number: 3,
            your_session: 5,
            heard: 2,
            relays: vec![("home".into(), Some(12)), ("far".into(), None)],
            candidates: vec![
                candidate(CandidateKind::Host, "192.168.1.5:4001"),
                candidate(CandidateKind::Mapped, "203.0.113.7:4001"),
                candidate(CandidateKind::Host, "[2001:db8::5]:4001"),
            ],
        }
    }

    #[test]
    fn announcements_round_trip_and_are_sealed() {
        let body = announcement().seal(&KEY, [1; 12]);
        assert_eq!(Announcement::open(&body, &KEY), Some(announcement()));
        assert_eq!(Announcement::open(&body, &[8; 32]), None);
        assert_eq!(Announcement::open(&body[..body.len() - 4], &KEY), None);
    }

    #[test]
    fn more_than_the_limit_is_cut_when_sent_and_refused_when_received() {
        let mut many = announcement();
        many.candidates = many.candidates.repeat(5);
        let opened = Announcement::open(&many.seal(&KEY, [1; 12]), &KEY).unwrap();
        assert_eq!(opened.candidates.len(), MAX_CANDIDATES);
        let mut plain = announcement().to_plain();
        let count = plain.len() - 3 * 20 - 1;
        assert_eq!(plain[count], 3);
        plain[count] = 9;
        plain.extend_from_slice(&[0; 400]);
        assert_eq!(Announcement::from_plain(&plain), None);
    }

    #[test]
    fn the_largest_announcement_fits_a_signal() {
        let mut large = announcement();
        large.relays = vec![("n".repeat(255), None); MAX_RELAYS];
        large.candidates = large.candidates.repeat(5);
        assert!(large.seal(&KEY, [1; 12]).len() <= MAX_SIGNAL);
    }

    proptest! {
        #[test]
        fn garbage_is_refused(body in "[A-Za-z0-9+/=]{0,300}", plain in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Announcement::open(&body, &KEY), None);
            // an authentic sender may still write nonsense
            let _ = Announcement::from_plain(&plain);
        }
    }
}
