//! One member's WireGuard session in userspace, and the schedule of its handshakes.
//!
//! boringtun retries a lost initiation after 5 s, which is what a joining player would wait; so the schedule here is
//! tighter at first, and looser than boringtun's for a member that stays away.

use super::{TunnelMember, TunnelPath, TunnelSink, TunnelStats};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use lanrage_common::identity::WgKey;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use x25519_dalek::{PublicKey, StaticSecret};

/// Pause after the n-th unanswered initiation; the last one repeats.
const RETRIES: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_millis(4500),
    Duration::from_secs(15),
];
/// The side with the higher key gives the other this long to start first, so that initiations seldom cross.
const COURTESY: Duration = Duration::from_millis(500);
/// The side with the lower key renews the session at this age, traffic or not: the first packet of a game never
/// finds an expired session.
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// Unanswered initiations after which the session starts over under a fresh index: at a relay, the first owner of an
/// index keeps it, so a collision would otherwise last.
const FRESH_INDEX_AFTER: u32 = 5;
/// Unanswered initiations through the relay before the direct path is tried instead.
const RELAY_TRIES: u32 = 2;
/// Initiations that packets without a session may cause: one in this time.
const HURRY: Duration = Duration::from_secs(1);
/// Unanswered initiations up to which a cookie makes the next one leave at once.
const HURRIES: u32 = 2;

/// What all sessions of this device share.
pub(super) struct Local {
    pub(super) secret: StaticSecret,
    pub(super) public: PublicKey,
    pub(super) limiter: Arc<RateLimiter>,
}

/// One member.
pub(super) struct Link {
    tunn: Tunn,
    member: TunnelMember,
    /// Upper 24 bits of all receiver indexes of this session.
    index: u32,
    path: Option<TunnelPath>,
    starts_first: bool,
    /// When to initiate next, if there is reason to.
    next_try: Instant,
    last_try: Option<Instant>,
    unanswered: u32,
    /// `unanswered` when the session last started over.
    restarted_at: u32,
    /// Where the last handshake message came from.
    shaken_with: Option<SocketAddr>,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Link {
    pub(super) fn new(local: &Local, member: TunnelMember, index: u32, now: Instant) -> Self {
        let starts_first = local.public.as_bytes() < &member.key.0;
        Self {
            tunn: session(local, &member, index),
            member,
            index,
            path: None,
            starts_first,
            next_try: now,
            last_try: None,
            unanswered: 0,
            restarted_at: 0,
            shaken_with: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    pub(super) fn member(&self) -> &TunnelMember {
        &self.member
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn stats(&self) -> TunnelStats {
        TunnelStats {
            handshake_age: self.tunn.time_since_last_handshake(),
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
        }
    }

    pub(super) fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    /// Moves the traffic. A relay that did not see the session's handshake cannot route it, so moving there shakes
    /// hands again.
    pub(super) fn set_path(
        &mut self,
        path: Option<TunnelPath>,
        now: Instant,
        scratch: &mut [u8],
        sink: &mut dyn TunnelSink,
    ) {
        let (old, had_path) = (self.path, self.path.is_some());
        self.path = path;
        if path.and_then(|path| path.relay).is_none() {
            self.shaken_with = None; // a relay that is lost may have lost its flows
        }
        let Some(path) = path else { return };
        if !self.has_session() {
            if !had_path || old.map(|old| old.endpoint) != Some(path.endpoint) {
                self.calm();
                self.next_try = if self.starts_first { now } else { now + COURTESY };
            }
        } else if path.relay == Some(path.endpoint) && self.shaken_with != Some(path.endpoint) {
            self.calm();
            self.initiate(now, scratch, sink);
        }
        self.tick(now, scratch, sink);
    }

    /// Encrypts and sends, or queues.
    pub(super) fn send(
        &mut self,
        packet: &[u8],
        now: Instant,
        scratch: &mut [u8],
        sink: &mut dyn TunnelSink,
    ) {
        if !self.has_session() {
            self.tunn.encapsulate(packet, scratch); // queues; our own schedule initiates
            if self.last_try.is_none_or(|last| now >= last + HURRY) {
                self.next_try = self.next_try.min(now);
                self.tick(now, scratch, sink);
            }
            return;
        }
        let Some(path) = self.path else { return };
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(packet, scratch) {
            self.tx_bytes += packet.len() as u64;
            sink.transmit(path.endpoint, datagram);
        }
    }

    /// Takes a datagram that belongs to this member. The error names why it was dropped.
    pub(super) fn handle_datagram(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        scratch: &mut [u8],
        sink: &mut dyn TunnelSink,
    ) -> Result<(), &'static str> {
        match self.tunn.decapsulate(Some(from.ip()), datagram, scratch) {
            TunnResult::WriteToTunnelV4(packet, source) if source == self.member.address => {
                self.rx_bytes += packet.len() as u64;
                sink.deliver(&self.member.key, packet);
            }
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
                return Err("spoofed_source");
            }
            // a handshake's answers go back the way it came: only that way's relay knows the indexes
            TunnResult::WriteToNetwork(answer) => {
                sink.transmit(from, answer);
                if matches!(datagram[0], 1 | 2) && answer[0] != 3 {
                    self.shaken_with = Some(from);
                    self.calm();
                }
            }
            TunnResult::Done if datagram[0] == 3 => self.hurry(from, now, scratch, sink),
            TunnResult::Done => {}
            TunnResult::Err(error) => return Err(reason(&error)),
        }
        if datagram[0] != 1 {
            self.flush(scratch, sink);
        }
        Ok(())
    }

    /// Timers of the session, then ours.
    pub(super) fn tick(&mut self, now: Instant, scratch: &mut [u8], sink: &mut dyn TunnelSink) {
        if self.path.is_none() && !self.has_session() {
            return;
        }
        let has_session = self.has_session();
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.update_timers(scratch)
            && let Some(path) = self.path
        {
            let initiates = datagram[0] == 1;
            // without a session our own schedule initiates
            if has_session || !initiates {
                sink.transmit(handshake_endpoint(path, self.unanswered, datagram[0]), datagram);
                self.unanswered = self.unanswered.saturating_add(u32::from(initiates));
            }
        }
        if now >= self.next_try && self.path.is_some() && self.wants_handshake() {
            self.initiate(now, scratch, sink);
        }
    }

    /// Whether so many initiations went unanswered that the session should start over under another index.
    pub(super) fn is_stuck(&self) -> bool {
        !self.has_session() && self.unanswered >= self.restarted_at.saturating_add(FRESH_INDEX_AFTER)
    }

    /// Starts over under another index; what was queued is stale by now and goes.
    pub(super) fn restart(&mut self, local: &Local, index: u32) {
        self.tunn = session(local, &self.member, index);
        self.index = index;
        self.restarted_at = self.unanswered;
    }

    fn calm(&mut self) {
        self.unanswered = 0;
        self.restarted_at = 0;
    }

    fn wants_handshake(&self) -> bool {
        match self.tunn.time_since_last_handshake() {
            None => true,
            Some(age) => self.starts_first && age >= REKEY_AFTER,
        }
    }

    fn initiate(&mut self, now: Instant, scratch: &mut [u8], sink: &mut dyn TunnelSink) {
        if let Some(path) = self.path {
            self.initiate_at(handshake_endpoint(path, self.unanswered, 1), now, scratch, sink);
        }
    }

    fn initiate_at(&mut self, to: SocketAddr, now: Instant, scratch: &mut [u8], sink: &mut dyn TunnelSink) {
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.format_handshake_initiation(scratch, true) {
            sink.transmit(to, datagram);
        }
        self.last_try = Some(now);
        self.next_try = now + RETRIES[(self.unanswered as usize).min(RETRIES.len() - 1)];
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// A cookie came: the member is under load and answers only the next initiation. Hurries once per round, or two
    /// sides that disagree about the cookie would keep each other busy.
    fn hurry(&mut self, from: SocketAddr, now: Instant, scratch: &mut [u8], sink: &mut dyn TunnelSink) {
        if self.unanswered <= HURRIES {
            self.unanswered = HURRIES;
            self.initiate_at(from, now, scratch, sink);
        }
    }

    /// Sends what was queued while there was no session.
    fn flush(&mut self, scratch: &mut [u8], sink: &mut dyn TunnelSink) {
        let Some(path) = self.path else { return };
        while self.has_session() {
            let TunnResult::WriteToNetwork(datagram) = self.tunn.decapsulate(None, &[], scratch) else {
                return;
            };
            self.tx_bytes += (datagram.len() as u64).saturating_sub(32);
            sink.transmit(path.endpoint, datagram);
        }
    }
}

fn session(local: &Local, member: &TunnelMember, index: u32) -> Tunn {
    Tunn::new(
        local.secret.clone(),
        PublicKey::from(member.key.0),
        Some(member.preshared_key),
        None,
        index,
        Some(local.limiter.clone()),
    )
}

fn handshake_endpoint(path: TunnelPath, unanswered: u32, message_type: u8) -> SocketAddr {
    match path.relay {
        Some(relay) if message_type == 1 && unanswered < RELAY_TRIES => relay,
        // alternate, so that neither a dead relay nor a dead direct path keeps the pair apart
        Some(relay) if message_type == 1 && unanswered.is_multiple_of(2) => relay,
        _ => path.endpoint,
    }
}

fn reason(error: &boringtun::noise::errors::WireGuardError) -> &'static str {
    use boringtun::noise::errors::WireGuardError as E;
    match error {
        E::InvalidCounter | E::DuplicateCounter => "replayed",
        E::NoCurrentSession | E::WrongIndex => "unknown_session",
        E::WrongTai64nTimestamp | E::InvalidTai64nTimestamp => "old_handshake",
        E::InvalidMac | E::InvalidAeadTag | E::WrongKey => "not_authentic",
        E::UnderLoad => "under_load",
        _ => "malformed",
    }
}

/// The sender's key in an authentic-looking initiation.
pub(super) fn initiator(local: &Local, initiation: &boringtun::noise::HandshakeInit<'_>) -> Option<WgKey> {
    boringtun::noise::handshake::parse_handshake_anon(&local.secret, &local.public, initiation)
        .ok()
        .map(|half| WgKey(half.peer_static_public))
}
