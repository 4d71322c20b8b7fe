//! Announcements: where a member can be tried, sealed for one other member and carried by the control server.
//!
//! A signal's body is base64 of: version (1 byte, 2), nonce (12), ChaCha20-Poly1305 under
//! [`crate::identity::PartySecret::signal_key`] with the version as associated data. Plaintext, integers big-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | session |
//! | 4 | number of this announcement within the session |
//! | 8 | the receiver's session as known, 0 = not yet |
//! | 4 | number of the receiver's newest announcement held |
//! | 1 | relays that follow: length of the name (1), name, round trip in ms (2, 0xffff = unknown), jitter in ms (2), flags (1: 1 = bound there, 2 = to be left) |
//! | 2 | which of them the sender would have for the pair: the relay and the one that stands by; 0xff = none |
//! | 1 | candidates that follow: kind (1), address (19 as in a probe) |
//! | 1 | length of what follows; may be missing, more is passed over |
//! | 14 | the sender's NAT ([`crate::nat`]) |

use super::candidate::{Candidate, CandidateKind};
use super::probe::{address_from_bytes, address_to_bytes};
use crate::nat::{self, Behaviour};
use crate::protocol::MAX_SIGNAL;
use crate::relays::Leg;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};

/// Candidates one announcement may carry.
pub const MAX_CANDIDATES: usize = 8;
/// Relays one announcement may carry.
pub const MAX_RELAYS: usize = 8;

const VERSION: u8 = 2;
const NONCE: usize = 12;
const RTT_UNKNOWN: u16 = u16::MAX;
const BOUND: u8 = 1;
const AVOID: u8 = 2;
const NONE: u8 = u8::MAX;

/// A relay as a member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedRelay {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub leg: Leg,
    /// Whether the member is bound there.
    pub is_bound: bool,
}

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
    /// Relays that the sender has measured.
    pub relays: Vec<AnnouncedRelay>,
    /// Which relay the sender would have for the pair, and which one stands by; of those above.
    pub wish: (Option<String>, Option<String>),
    /// Addresses to try.
    pub candidates: Vec<Candidate>,
    /// What the sender knows of its NAT; nothing when it does not tell.
    pub nat: Behaviour,
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
        for AnnouncedRelay { name, leg, is_bound } in relays {
            let name = &name.as_bytes()[..name.len().min(255)];
            plain.push(name.len() as u8);
            plain.extend_from_slice(name);
            plain.extend_from_slice(&leg.rtt_ms.unwrap_or(RTT_UNKNOWN).to_be_bytes());
            plain.extend_from_slice(&leg.jitter_ms.to_be_bytes());
            plain.push((u8::from(*is_bound) * BOUND) | (u8::from(leg.avoid) * AVOID));
        }
        for wished in [&self.wish.0, &self.wish.1] {
            let at = relays.iter().position(|relay| Some(&relay.name) == wished.as_ref());
            plain.push(at.map_or(NONE, |at| at as u8));
        }
        let candidates = &self.candidates[..self.candidates.len().min(MAX_CANDIDATES)];
        plain.push(candidates.len() as u8);
        for candidate in candidates {
            plain.push(candidate.kind.to_byte());
            plain.extend_from_slice(&address_to_bytes(candidate.address));
        }
        plain.push(nat::ENCODED_LEN as u8);
        plain.extend_from_slice(&self.nat.to_bytes());
        plain
    }

    fn from_plain(plain: &[u8]) -> Option<Self> {
        let mut reader = Reader(plain);
        let session = u64::from_be_bytes(reader.take()?);
        let number = u32::from_be_bytes(reader.take()?);
        let your_session = u64::from_be_bytes(reader.take()?);
        let heard = u32::from_be_bytes(reader.take()?);
        let relays = reader.list(MAX_RELAYS, Reader::relay)?;
        let [first, second] = reader.take()?;
        let name = |at: u8| relays.get(usize::from(at)).map(|relay| relay.name.clone());
        let wish = (name(first), name(second));
        let candidates = reader.list(MAX_CANDIDATES, Reader::candidate)?;
        let nat = if reader.0.is_empty() { Behaviour::default() } else { reader.nat()? };
        // later versions may append
        Some(Self { session, number, your_session, heard, relays, wish, candidates, nat })
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

    fn relay(&mut self) -> Option<AnnouncedRelay> {
        let [len] = self.take()?;
        let (name, rest) = self.0.split_at_checked(usize::from(len))?;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        self.0 = rest;
        let rtt = u16::from_be_bytes(self.take()?);
        let jitter_ms = u16::from_be_bytes(self.take()?);
        let [flags] = self.take()?;
        let rtt_ms = (rtt != RTT_UNKNOWN).then_some(rtt);
        let leg = Leg { rtt_ms, jitter_ms, avoid: flags & AVOID != 0 };
        Some(AnnouncedRelay { name, leg, is_bound: flags & BOUND != 0 })
    }

    fn nat(&mut self) -> Option<Behaviour> {
        let [len] = self.take()?;
        let (field, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        Some(field.first_chunk().map(Behaviour::from_bytes).unwrap_or_default())
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

    fn relay(name: &str, leg: Leg, is_bound: bool) -> AnnouncedRelay {
        AnnouncedRelay { name: name.into(), leg, is_bound }
    }

    fn announcement() -> Announcement {
        let candidate = |kind, address: &str| Candidate { kind, address: address.parse().unwrap() };
        Announcement {
            session: 77,
            number: 3,
            your_session: 5,
            heard: 2,
            relays: vec![
                relay("home", Leg { rtt_ms: Some(12), jitter_ms: 3, avoid: false }, true),
                relay("far", Leg { rtt_ms: None, jitter_ms: 0, avoid: true }, false),
            ],
            wish: (Some("home".into()), None),
            candidates: vec![
                candidate(CandidateKind::Host, "192.168.1.5:4001"),
                candidate(CandidateKind::Mapped, "203.0.113.7:4001"),
                candidate(CandidateKind::Host, "[2001:db8::5]:4001"),
            ],
            nat: Behaviour { hairpin: Some(true), lifetime_s: Some(30), ..Behaviour::default() },
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
        plain.truncate(plain.len() - 1 - nat::ENCODED_LEN);
        let count = plain.len() - 3 * 20 - 1;
        assert_eq!(plain[count], 3);
        plain[count] = 9;
        plain.extend_from_slice(&[0; 400]);
        assert_eq!(Announcement::from_plain(&plain), None);
    }

    #[test]
    fn members_that_tell_nothing_of_their_nat_are_understood() {
        let mut plain = announcement().to_plain();
        let end = plain.len() - 1 - nat::ENCODED_LEN;
        plain.extend_from_slice(b"later");
        assert_eq!(Announcement::from_plain(&plain), Some(announcement()));
        let silent = Announcement { nat: Behaviour::default(), ..announcement() };
        assert_eq!(Announcement::from_plain(&plain[..end]), Some(silent.clone()));
        let shorter = [&plain[..end], &[3, 1, 1, 1]].concat();
        assert_eq!(Announcement::from_plain(&shorter), Some(silent));
        assert_eq!(Announcement::from_plain(&plain[..end + 8]), None, "cut off");
    }

    #[test]
    fn the_largest_announcement_fits_a_signal() {
        let mut large = announcement();
        large.relays = vec![relay(&"n".repeat(255), Leg::default(), true); MAX_RELAYS];
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
