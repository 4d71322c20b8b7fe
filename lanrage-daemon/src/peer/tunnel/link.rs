//! One member's WireGuard session in userspace, and the schedule of its handshakes.
//!
//! boringtun retries a lost initiation after 5 s, which is what a joining player would wait; so the schedule here is
//! tighter at first, and looser than boringtun's for a member that stays away.

use super::waiting::Waiting;
use super::{TunnelMember, TunnelPath, TunnelSink, TunnelStats};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use lanrage_common::identity::WgKey;
use std::net::{Ipv4Addr, SocketAddr};
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

/// A relay that does not know the session is told by another handshake, after this; the other side waits longer.
const TELL_RELAY: Duration = Duration::from_secs(1);
const TELL_RELAY_LATER: Duration = Duration::from_secs(3);
/// After each handshake for that in vain it takes this much longer, up to [`LAST_TELL`].
const TELL_AGAIN: Duration = Duration::from_secs(5);
const LAST_TELL: Duration = Duration::from_secs(120);
/// A copy of an initiation is answered only so long after the first.
const COPY_LIFE: Duration = Duration::from_secs(5);
/// Data stays this long where it was, while the relay where it goes next learns the session.
const MOVE_WITHIN: Duration = Duration::from_secs(2);

/// An initiation and the answer that it got.
struct Answered {
    initiation: Vec<u8>,
    response: Vec<u8>,
    at: Instant,
}

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
    /// Addresses of devices behind the member.
    devices: Vec<Ipv4Addr>,
    /// Upper 24 bits of all receiver indexes of this session.
    index: u32,
    path: Option<TunnelPath>,
    /// Where data goes: to the path's endpoint, or where it went before until that relay knows the session.
    data: Option<SocketAddr>,
    /// Data moves to the path's endpoint at the latest then.
    move_by: Option<Instant>,
    /// Data that has nowhere to go.
    waiting: Waiting,
    /// Relays and members that the session's handshake went through.
    known: Vec<SocketAddr>,
    /// The last initiation that was answered and the answer, for copies that come through another relay.
    answered: Option<Answered>,
    /// The last answer that was taken.
    taken: Vec<u8>,
    /// When to shake hands again because a relay does not know the session.
    refresh: Option<Instant>,
    /// Handshakes in a row for that.
    refreshes: u32,
    starts_first: bool,
    /// When to initiate next, if there is reason to.
    next_try: Instant,
    last_try: Option<Instant>,
    unanswered: u32,
    /// `unanswered` when the session last started over.
    restarted_at: u32,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Link {
    pub(super) fn new(local: &Local, member: TunnelMember, index: u32, now: Instant) -> Self {
        let starts_first = local.public.as_bytes() < &member.key.0;
        Self {
            tunn: session(local, &member, index),
            member,
            devices: Vec::new(),
            index,
            path: None,
            data: None,
            move_by: None,
            waiting: Waiting::default(),
            known: Vec::new(),
            answered: None,
            taken: Vec::new(),
            refresh: None,
            refreshes: 0,
            starts_first,
            next_try: now,
            last_try: None,
            unanswered: 0,
            restarted_at: 0,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    pub(super) fn member(&self) -> &TunnelMember {
        &self.member
    }

    pub(super) fn devices(&self) -> &[Ipv4Addr] {
        &self.devices
    }

    pub(super) fn set_devices(&mut self, devices: Vec<Ipv4Addr>) {
        self.devices = devices;
    }

    /// Whether the member may send from that address.
    fn has(&self, source: Ipv4Addr) -> bool {
        source == self.member.address || self.devices.contains(&source)
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

    /// Moves the traffic. A relay that did not see the session's handshake cannot route it: data stays where it was until
    /// another handshake has gone through that relay.
    pub(super) fn set_path(
        &mut self,
        path: Option<TunnelPath>,
        now: Instant,
        scratch: &mut [u8],
        sink: &mut dyn TunnelSink,
    ) {
        let old = std::mem::replace(&mut self.path, path);
        let keeps =
            |address: &SocketAddr| path.is_some_and(|path| path.relays().any(|relay| relay == *address));
        self.known.retain(keeps); // a relay that is lost may have lost its flows
        let Some(path) = path else {
            (self.data, self.move_by, self.refresh) = (None, None, None);
            return;
        };
        if !self.has_session() {
            self.move_data();
            if old.map(|old| old.endpoint) != Some(path.endpoint) {
                self.calm();
                self.next_try = if self.starts_first { now } else { now + COURTESY };
            }
        } else if old.map(|old| old.endpoint) != Some(path.endpoint) {
            self.change_endpoint(path, now, scratch, sink);
        }
        self.refreshes = 0;
        self.plan_refresh(now);
        self.tick(now, scratch, sink);
    }

    fn change_endpoint(
        &mut self,
        path: TunnelPath,
        now: Instant,
        scratch: &mut [u8],
        sink: &mut dyn TunnelSink,
    ) {
        let is_relay = path.relay == Some(path.endpoint);
        if is_relay && !self.known.contains(&path.endpoint) {
            self.move_by = Some(now + MOVE_WITHIN);
            self.calm();
            self.initiate(now, scratch, sink);
            return;
        }
        self.move_data();
        if is_relay {
            // it should know the session; a handshake makes sure before anybody misses anything
            self.refresh = Some(now + if self.starts_first { Duration::ZERO } else { COURTESY });
        }
    }

    fn move_data(&mut self) {
        (self.data, self.move_by) = (self.path.map(|path| path.endpoint), None);
    }

    /// Another handshake, when a relay of the path does not know the session.
    fn plan_refresh(&mut self, now: Instant) {
        let Some(path) = self.path.filter(|_| self.has_session()) else { return };
        if path.relays().all(|relay| self.known.contains(&relay)) {
            self.refreshes = 0;
            return;
        }
        let first = if self.starts_first { TELL_RELAY } else { TELL_RELAY_LATER };
        let pause = first + (TELL_AGAIN * self.refreshes.pow(2)).min(LAST_TELL);
        self.refresh = Some(self.refresh.map_or(now + pause, |refresh| refresh.min(now + pause)));
    }

    /// The session's handshake has gone through there.
    fn note_known(&mut self, from: SocketAddr, is_new_session: bool) {
        if is_new_session {
            self.known.clear();
            self.refresh = None;
        }
        if !self.known.contains(&from) {
            self.known.push(from);
        }
        if self.path.is_some_and(|path| path.relays().all(|relay| self.known.contains(&relay))) {
            (self.refresh, self.refreshes) = (None, 0);
        }
    }

    /// The member's session is in use through there, so data may follow.
    fn note_proven(&mut self, from: SocketAddr) {
        if self.move_by.is_some() && self.path.is_some_and(|path| path.endpoint == from) {
            self.move_data();
        }
    }

    /// A copy of what has just been handled, through another relay: that relay learns the session by the same answer.
    fn handle_copy(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        sink: &mut dyn TunnelSink,
    ) -> bool {
        let is_expected = self.path.is_some_and(|path| path.relays().any(|relay| relay == from));
        if !is_expected {
            return false;
        }
        match (datagram[0], &self.answered) {
            (1, Some(answered)) if answered.initiation == datagram && now < answered.at + COPY_LIFE => {
                sink.transmit(from, &answered.response);
                self.note_known(from, false);
                true
            }
            (2, _) if self.taken == datagram => {
                self.note_known(from, false);
                self.note_proven(from);
                true
            }
            _ => false,
        }
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
        let Some(to) = self.data else { return self.waiting.push(packet, now) };
        self.send_to(to, packet, scratch, sink);
    }

    fn send_to(&mut self, to: SocketAddr, packet: &[u8], scratch: &mut [u8], sink: &mut dyn TunnelSink) {
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(packet, scratch) {
            self.tx_bytes += packet.len() as u64;
            sink.transmit(to, datagram);
            if let Some(copy) = self.path.and_then(|path| path.copy).filter(|copy| *copy != to) {
                sink.transmit(copy, datagram);
            }
        }
    }

    /// Sends an empty data message there, if there is a session that may send.
    pub(super) fn confirm(&mut self, to: SocketAddr, scratch: &mut [u8], sink: &mut dyn TunnelSink) -> bool {
        if !self.has_session() {
            return false;
        }
        match self.tunn.encapsulate(&[], scratch) {
            TunnResult::WriteToNetwork(datagram) if datagram[0] == 4 => {
                sink.transmit(to, datagram);
                true
            }
            _ => false,
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
        if self.handle_copy(from, datagram, now, sink) {
            return Ok(());
        }
        match self.tunn.decapsulate(Some(from.ip()), datagram, scratch) {
            TunnResult::WriteToTunnelV4(packet, source) if self.has(source) => {
                self.rx_bytes += packet.len() as u64;
                sink.deliver(&self.member.key, packet);
                self.note_proven(from);
            }
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
                return Err("spoofed_source");
            }
            // a handshake's answers go back the way it came: only that way's relay knows the indexes
            TunnResult::WriteToNetwork(answer) => {
                sink.transmit(from, answer);
                if matches!(datagram[0], 1 | 2) && answer[0] != 3 {
                    match datagram[0] {
                        1 => {
                            let (initiation, response) = (datagram.to_vec(), answer.to_vec());
                            self.answered = Some(Answered { initiation, response, at: now });
                        }
                        _ => self.taken = datagram.to_vec(),
                    }
                    self.note_known(from, true);
                    if datagram[0] == 2 {
                        self.note_proven(from);
                    }
                    self.calm();
                    self.plan_refresh(now);
                }
            }
            TunnResult::Done if datagram[0] == 4 => {
                sink.alive(&self.member.key);
                self.note_proven(from);
            }
            TunnResult::Done if datagram[0] == 3 => self.hurry(from, now, scratch, sink),
            TunnResult::Done => {}
            TunnResult::Err(error) => return Err(reason(&error)),
        }
        if datagram[0] != 1 {
            self.flush(now, scratch, sink);
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
                send_handshake(path, self.unanswered, self.data, datagram, sink);
                self.unanswered = self.unanswered.saturating_add(u32::from(initiates));
            }
        }
        if self.move_by.is_some_and(|by| by <= now) {
            self.move_data();
        }
        if now >= self.next_try && self.path.is_some() && self.wants_handshake() {
            self.initiate(now, scratch, sink);
        } else if self.refresh.is_some_and(|refresh| refresh <= now) {
            self.refresh = None;
            self.refreshes = self.refreshes.saturating_add(1).min(8);
            self.initiate(now, scratch, sink);
            self.plan_refresh(now);
        }
        self.flush(now, scratch, sink);
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
        let Some(path) = self.path else { return };
        let (unanswered, data) = (self.unanswered, self.data);
        self.initiate_by(now, scratch, |datagram| send_handshake(path, unanswered, data, datagram, sink));
    }

    fn initiate_by(&mut self, now: Instant, scratch: &mut [u8], send: impl FnOnce(&[u8])) {
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.format_handshake_initiation(scratch, true) {
            send(datagram);
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
            self.initiate_by(now, scratch, |datagram| sink.transmit(from, datagram));
        }
    }

    /// Sends what was queued while there was no session, then what waited for a way.
    fn flush(&mut self, now: Instant, scratch: &mut [u8], sink: &mut dyn TunnelSink) {
        let Some(to) = self.data.filter(|_| self.has_session()) else { return };
        while let TunnResult::WriteToNetwork(datagram) = self.tunn.decapsulate(None, &[], scratch) {
            self.tx_bytes += (datagram.len() as u64).saturating_sub(32);
            sink.transmit(to, datagram);
        }
        while let Some(packet) = self.waiting.pop(now) {
            self.send_to(to, &packet, scratch, sink);
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

/// Initiations go through both relays, so that both know the session: the member answers each copy where it came from.
/// Without answers they alternate with the direct path, so that neither dead relays nor a dead path keep the pair apart.
fn send_handshake(
    path: TunnelPath,
    unanswered: u32,
    data: Option<SocketAddr>,
    datagram: &[u8],
    sink: &mut dyn TunnelSink,
) {
    if datagram[0] == 4 {
        return sink.transmit(data.unwrap_or(path.endpoint), datagram);
    }
    let by_relay = path.relay.is_some() && (unanswered < RELAY_TRIES || unanswered.is_multiple_of(2));
    if datagram[0] == 1 && by_relay {
        path.relays().for_each(|relay| sink.transmit(relay, datagram));
    } else {
        sink.transmit(path.endpoint, datagram);
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
