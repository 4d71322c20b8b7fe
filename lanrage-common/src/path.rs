//! How a pair of members finds and keeps its path: relay at once, direct as soon as probes prove it.
//!
//! The caller owns one UDP socket, WireGuard's. It tells the agent of relays it is bound at, of candidates, signals
//! and probes that arrive, and of authenticated tunnel data; it sends what [`PathAgent::poll_output`] gives and
//! points the tunnel of a member to the [`Path`] it is told.

pub mod announce;
pub mod candidate;
mod explain;
mod hunt;
mod measure;
pub mod mtu;
mod pair;
pub mod probe;
pub mod quality;
mod receive;
mod relays;
mod route;
mod schedule;
mod select;
mod shared;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod traffic;
mod victims;
mod window;

use crate::api::PathKind;
use crate::identity::{PartyId, PartySecret, WgKey};
use crate::nat::{Behaviour, Fix, Verdict};
use crate::relays::Leg;
use crate::time::Now;
use ipnet::Ipv4Net;
use pair::Pair;
use rand_core::CryptoRngCore;
use shared::{Binding, Doubt, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Who this device is in which party.
#[derive(Debug, Clone)]
pub struct Config {
    /// This device's tunnel key.
    pub me: WgKey,
    /// The party.
    pub party: PartyId,
    /// Its secret.
    pub secret: PartySecret,
    /// The virtual LAN: its addresses are never probed.
    pub subnet: Ipv4Net,
    /// The longest packet on the party's interface, bytes.
    pub mtu: u16,
}

/// How packets go to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Direct or through a relay.
    pub kind: PathKind,
    /// Where WireGuard's datagrams for the member go.
    pub endpoint: SocketAddr,
    /// The relay's name, when it is one.
    pub relay: Option<String>,
    /// Relays through which handshakes go, so that these know the session: the one in use, or next if the path is
    /// direct, and one that stands by.
    pub handshakes: [Option<SocketAddr>; 2],
    /// Where every datagram with data goes as well for now: the way in use does not answer as it should. It is one of
    /// `handshakes`, or a direct one.
    pub copy: Option<SocketAddr>,
}

/// What the caller must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram from WireGuard's socket.
    Transmit {
        /// Where to.
        to: SocketAddr,
        /// A probe.
        payload: Vec<u8>,
    },
    /// Send this datagram from WireGuard's socket, and let nobody cut it (IPv4: don't fragment). That the system refuses
    /// is no [`PathAgent::handle_send_error`]: it is only too long.
    TransmitWhole {
        /// Where to.
        to: SocketAddr,
        /// A padded probe.
        payload: Vec<u8>,
    },
    /// Packets for a member should be no longer than this from now on: its path carries no more in one piece.
    Mtu {
        /// Whose.
        member: WgKey,
        /// Bytes; absent = as long as the interface allows.
        mtu: Option<u16>,
    },
    /// Send this to a member through the control server ([`crate::protocol::ClientMessage::Signal`]).
    Signal {
        /// To whom.
        to: WgKey,
        /// Base64.
        body: String,
    },
    /// Members that answered through this relay no longer do: it may have this device at an address that a router has
    /// given up. Refresh the binding now instead of at its next turn.
    RelaySilent {
        /// The relay's name.
        relay: String,
    },
    /// The relays that pairs would have this device be bound at, with how many pairs, and those that they use now.
    RelayWishes {
        /// How many pairs want each.
        wanted: BTreeMap<String, u32>,
        /// In use: not to be given up.
        used: BTreeSet<String>,
    },
    /// Send a keepalive through the tunnel to this address of a member, and say
    /// [`PathAgent::handle_no_session`] when there is no session: data must arrive there before packets move to it.
    Confirm {
        /// Whose.
        member: WgKey,
        /// Where to.
        to: SocketAddr,
    },
    /// Open so many further sockets for a member, at ports of their own, and say [`PathAgent::handle_spares`]. They take
    /// the place of those that are open.
    OpenSpares {
        /// For whom.
        member: WgKey,
        /// How many.
        count: usize,
    },
    /// Send this datagram from one of them.
    TransmitFrom {
        /// For whom it was opened.
        member: WgKey,
        /// Its place in [`PathAgent::handle_spares`].
        spare: usize,
        /// Where to.
        to: SocketAddr,
        /// A probe, or a question to a relay.
        payload: Vec<u8>,
    },
    /// Keep this one, and close the others: whatever goes to `far` leaves from it from now on, and what comes to it counts
    /// as if it came to the tunnel's socket.
    KeepSpare {
        /// For whom it was opened.
        member: WgKey,
        /// Its place.
        spare: usize,
        /// The member's address that it reaches.
        far: SocketAddr,
    },
    /// Close all of a member's but those that are kept.
    CloseSpares {
        /// Whose.
        member: WgKey,
    },
    /// Close the one that is kept for this address.
    ReleaseSpare {
        /// The member's address.
        far: SocketAddr,
    },
    /// Use this path for a member from now on.
    Path {
        /// Whose.
        member: WgKey,
        /// Absent: there is no path now.
        path: Option<Path>,
    },
}

/// How a member is reached, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// How.
    pub kind: PathKind,
    /// Where packets go.
    pub endpoint: Option<SocketAddr>,
    /// Through which relay.
    pub relay: Option<String>,
    /// Which relay takes over.
    pub standby: Option<String>,
    /// Why this relay.
    pub relay_why: Option<String>,
    /// Median round trip of the last probes, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Mean difference of successive round trips, milliseconds.
    pub jitter_ms: Option<f64>,
    /// Unanswered probes, 0 to 1.
    pub loss: Option<f64>,
    /// Whether the member answers on this path.
    pub answers: bool,
    /// The longest packet that the path carries in one piece, bytes; none before it was measured, and over TLS.
    pub mtu: Option<u16>,
    /// One sentence: why this path.
    pub why: String,
    /// What the NATs at both ends let expect; this device's is the first.
    pub verdict: Verdict,
    /// What would make a direct path sure, after one was looked for in vain where it takes luck.
    pub fix: Option<Fix>,
}

/// What TLS costs beside its round trip, because one lost packet holds up all after it: a relay over UDP that is this
/// much farther away is preferred.
const TLS_COST: Duration = Duration::from_millis(40);
/// An answer is of lately for so long: candidates beside the path are asked once a minute.
const ANSWERED: Duration = Duration::from_secs(150);
/// Own addresses that are looked at.
const MAX_LOCAL: usize = 32;
/// Members of one party, and so the pairs of one agent.
const MAX_PAIRS: usize = crate::protocol::MAX_MEMBERS;

/// The paths of one device to all members of one party.
pub struct PathAgent {
    shared: Shared,
    pairs: BTreeMap<WgKey, Pair>,
    tags: BTreeMap<[u8; 8], WgKey>,
    /// What [`PathAgent::poll_timeout`] says; asking is part of every turn of the caller's loop and must cost nothing.
    next: Option<Instant>,
    told_wishes: (BTreeMap<String, u32>, BTreeSet<String>),
}

impl fmt::Debug for PathAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.pairs.len();
        f.debug_struct("PathAgent").field("me", &self.shared.config.me).field("members", &members).finish()
    }
}

impl PathAgent {
    /// An agent without members.
    pub fn new(config: Config, rng: impl CryptoRngCore + Send + 'static) -> Self {
        let shared = Shared::new(config, Box::new(rng));
        Self {
            shared,
            pairs: BTreeMap::new(),
            tags: BTreeMap::new(),
            next: None,
            told_wishes: Default::default(),
        }
    }

    /// Starts to look for paths to a member; does nothing when it is known or is this device.
    pub fn add_member(&mut self, member: WgKey, now: Now) {
        let is_new = member != self.shared.config.me && !self.pairs.contains_key(&member);
        if is_new && self.pairs.len() < MAX_PAIRS {
            self.tags.insert(probe::tag(&member), member);
            let pair = Pair::new(member, &mut self.shared, now);
            self.pairs.insert(member, pair);
            self.note_timeout();
        }
    }

    /// Forgets a member. No [`Output::Path`] follows.
    pub fn remove_member(&mut self, member: &WgKey) {
        if let Some(pair) = self.pairs.remove(member) {
            pair.forget(&mut self.shared);
            self.shared.has_new_wishes = true;
        }
        self.tags.remove(&probe::tag(member));
    }

    /// Tells this device's own addresses, each with the tunnel socket's port. Call on every change of an interface.
    pub fn set_local_candidates(&mut self, addresses: Vec<SocketAddr>, now: Now) {
        let addresses: Vec<_> = addresses.into_iter().take(MAX_LOCAL).collect();
        if addresses != self.shared.local {
            self.shared.local = addresses;
            self.handle_local_change(now.instant);
        }
    }

    /// A relay has bound this device. Call again when `mapped` or `rtt` changes.
    ///
    /// `relay` is where the relay takes datagrams, `mapped` this device's address as the relay sees it, `rtt` the
    /// round trip to the relay when known.
    pub fn handle_bound(
        &mut self,
        name: &str,
        relay: SocketAddr,
        mapped: SocketAddr,
        rtt: Option<Duration>,
        now: Now,
    ) {
        self.bind(name, relay, Some(mapped), rtt, now);
    }

    /// The same, over TLS: datagrams for the relay go to `carrier`, an address of this machine, and the relay sees one
    /// of its own. So there is nothing to announce but the relay itself.
    pub fn handle_carried(&mut self, name: &str, carrier: SocketAddr, rtt: Option<Duration>, now: Now) {
        self.bind(name, carrier, None, rtt.map(|rtt| rtt + TLS_COST), now);
    }

    fn bind(
        &mut self,
        name: &str,
        relay: SocketAddr,
        mapped: Option<SocketAddr>,
        rtt: Option<Duration>,
        now: Now,
    ) {
        let known = self.shared.bindings.get(name).copied();
        let is_same_place = known.is_some_and(|known| (known.relay, known.mapped) == (relay, mapped));
        if is_same_place && known.is_some_and(|known| is_similar(known.rtt, rtt)) {
            return;
        }
        let doubt = known.map(|known| known.doubt).unwrap_or_default();
        if known.is_some_and(|known| known.relay != relay) {
            self.shared.unbind(name);
        }
        self.shared.bindings.insert(name.to_owned(), Binding { relay, mapped, rtt, doubt });
        match is_same_place {
            true => self.handle_rtt_change(now.instant),
            false => self.handle_local_change(now.instant),
        }
    }

    /// Round trips decide between relays, and a NAT explains, so they are announced; they are no reason to probe.
    fn handle_rtt_change(&mut self, now: Instant) {
        self.shared.number += 1;
        for pair in self.pairs.values_mut() {
            pair.announce_soon(now);
            pair.decide(&mut self.shared, now);
        }
        self.note_timeout();
    }

    /// How far all relays are, bound or not.
    pub fn set_legs(&mut self, legs: BTreeMap<String, Leg>, now: Now) {
        if legs != self.shared.legs {
            self.shared.legs = legs;
            self.handle_rtt_change(now.instant);
        }
    }

    /// What is known of this device's NAT: members are told.
    pub fn set_nat(&mut self, nat: Behaviour, now: Now) {
        if nat != self.shared.nat {
            self.shared.nat = nat;
            self.handle_rtt_change(now.instant);
        }
    }

    /// A public address that a router forwards to the tunnel's socket, or none any more.
    pub fn set_forwarded(&mut self, forwarded: Option<SocketAddr>, now: Now) {
        if forwarded != self.shared.forwarded {
            self.shared.forwarded = forwarded;
            self.handle_local_change(now.instant);
        }
    }

    /// Whether a game runs on this machine: paths are then watched as closely in its pauses as while data flows.
    pub fn set_playing(&mut self, is_playing: bool, now: Now) {
        if is_playing != self.shared.is_playing {
            self.shared.is_playing = is_playing;
            self.pairs.values_mut().for_each(|pair| pair.look_soon(now.instant));
            self.note_timeout();
        }
    }

    /// A binding is lost.
    pub fn handle_unbound(&mut self, name: &str, now: Now) {
        if self.shared.unbind(name) {
            self.handle_local_change(now.instant);
        }
    }

    fn handle_local_change(&mut self, now: Instant) {
        self.shared.refresh_candidates();
        self.shared.number += 1;
        for pair in self.pairs.values_mut() {
            pair.handle_local_change(&mut self.shared, now);
        }
        self.note_timeout();
    }

    /// What follows from every change of a pair.
    fn note_timeout(&mut self) {
        self.next = self.pairs.values().filter_map(Pair::poll_timeout).min();
        if std::mem::take(&mut self.shared.has_new_wishes) {
            self.tell_wishes();
        }
    }

    fn tell_wishes(&mut self) {
        let mut wanted = BTreeMap::<String, u32>::new();
        for name in self.pairs.values().flat_map(Pair::wanted_relays) {
            *wanted.entry(name.clone()).or_default() += 1;
        }
        let used: BTreeSet<String> = self.pairs.values().flat_map(Pair::used_relays).cloned().collect();
        if self.told_wishes != (wanted.clone(), used.clone()) {
            self.told_wishes = (wanted.clone(), used.clone());
            self.shared.outputs.push_back(Output::RelayWishes { wanted, used });
        }
    }

    /// Signals can reach a member again (it, or this device, connected to the control server): tell what it missed.
    pub fn handle_reachable(&mut self, member: &WgKey, now: Now) {
        if let Some(pair) = self.pairs.get_mut(member) {
            pair.announce_soon(now.instant);
            self.note_timeout();
        }
    }

    /// A signal arrived through the control server.
    pub fn handle_signal(&mut self, from: WgKey, body: &str, now: Now) {
        match self.pairs.get_mut(&from) {
            Some(pair) => pair.handle_signal(body, &mut self.shared, now.instant),
            None => self.shared.count("signal_of_stranger"),
        }
        self.note_timeout();
    }

    /// A datagram arrived at the tunnel socket. Returns whether it was a probe, valid or not, and so is used up.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Now) -> bool {
        if !probe::is_probe(datagram) {
            return false;
        }
        if let Err(reason) = self.handle_probe(from, datagram, now.instant) {
            self.shared.count(reason);
            return true;
        }
        self.note_timeout();
        true
    }

    /// The sockets of [`Output::OpenSpares`] are open at these ports; fewer, or none, when the system has no more.
    pub fn handle_spares(&mut self, member: &WgKey, ports: &[u16], now: Now) {
        if let Some(pair) = self.pairs.get_mut(member) {
            pair.handle_spares(ports, &mut self.shared, now.instant);
            self.note_timeout();
        }
    }

    /// A datagram arrived at one of them; see [`Output::TransmitFrom`] for its name.
    pub fn handle_spare_datagram(
        &mut self,
        member: &WgKey,
        spare: usize,
        from: SocketAddr,
        datagram: &[u8],
        now: Now,
    ) {
        if let Some(pair) = self.pairs.get_mut(member) {
            pair.handle_spare_datagram(spare, from, datagram, &mut self.shared, now.instant);
            self.note_timeout();
        }
    }

    fn handle_probe(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> Result<(), &'static str> {
        let to = probe::receiver_tag(datagram).ok_or("probe_malformed")?;
        if to != self.shared.tag {
            return Err("probe_for_another");
        }
        let sender = probe::sender_tag(datagram).and_then(|tag| self.tags.get(&tag));
        let pair = sender.and_then(|sender| self.pairs.get_mut(sender)).ok_or("probe_of_stranger")?;
        let probe = pair.open(datagram).ok_or("probe_forged")?;
        pair.handle_probe(from, &probe, &mut self.shared, now);
        Ok(())
    }

    /// The tunnel has authenticated data of `member` that came from `from` (cheap: may be called for every packet).
    pub fn handle_tunnel_rx(&mut self, member: &WgKey, from: SocketAddr, now: Now) {
        let Some(pair) = self.pairs.get_mut(member) else { return };
        if pair.handle_tunnel_rx(from, &mut self.shared, now.instant) {
            self.note_timeout();
        }
    }

    /// Likewise, but it was nothing that somebody plays: the path stays as idle as it is.
    pub fn handle_tunnel_alive(&mut self, member: &WgKey, from: SocketAddr, now: Now) {
        let Some(pair) = self.pairs.get_mut(member) else { return };
        if pair.handle_tunnel_alive(from, &mut self.shared, now.instant) {
            self.note_timeout();
        }
    }

    /// Data is about to leave for `member` (cheap: call for every packet). True when there are outputs to handle before
    /// the packet leaves, because it may have to go another way.
    pub fn handle_tunnel_tx(&mut self, member: &WgKey, now: Now) -> bool {
        let Some(pair) = self.pairs.get_mut(member) else { return false };
        let is_changed = pair.handle_tunnel_tx(&mut self.shared, now.instant);
        if is_changed {
            self.note_timeout();
        }
        is_changed
    }

    /// The tunnel has no session with `member`, so nothing could be sent for [`Output::Confirm`].
    pub fn handle_no_session(&mut self, member: &WgKey, now: Now) {
        if let Some(pair) = self.pairs.get_mut(member) {
            pair.handle_no_session(&mut self.shared, now.instant);
            self.note_timeout();
        }
    }

    /// Sending to `to` failed at once (unreachable, not permitted): a direct path there is left without waiting.
    pub fn handle_send_error(&mut self, to: SocketAddr, now: Now) {
        for pair in self.pairs.values_mut() {
            pair.handle_send_error(to, &mut self.shared, now.instant);
        }
        self.note_timeout();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.next.is_none_or(|next| next > now.instant) {
            return;
        }
        for pair in self.pairs.values_mut() {
            if pair.poll_timeout().is_some_and(|due| due <= now.instant) {
                pair.handle_timeout(&mut self.shared, now.instant);
            }
        }
        self.doubt_relays(now.instant);
        self.note_timeout();
    }

    /// A relay is doubted when nobody answers through it who did before; one answer by anybody ends the doubt.
    fn doubt_relays(&mut self, now: Instant) {
        for (name, binding) in &mut self.shared.bindings {
            let routes = || self.pairs.values().filter_map(|pair| pair.relays.get(name));
            if routes().any(|route| !route.is_lapsed(now) && !route.is_suspect(now)) {
                binding.doubt = Doubt::default();
            } else if routes().any(|route| route.is_suspect(now)) && binding.doubt.is_due(now) {
                self.shared.outputs.push_back(Output::RelaySilent { relay: name.clone() });
            }
        }
    }

    /// When to call [`PathAgent::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// What to do next; drain until `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outputs.pop_front()
    }

    /// How a member is reached; `None` for strangers.
    pub fn status(&self, member: &WgKey) -> Option<Status> {
        let pair = self.pairs.get(member)?;
        let path = pair.active.as_ref().and_then(|way| pair.describe(way));
        let route = pair.active.as_ref().and_then(|way| pair.route(way));
        let quality = route.map(|route| &route.quality);
        Some(Status {
            kind: path.as_ref().map_or(PathKind::None, |path| path.kind),
            endpoint: path.as_ref().map(|path| path.endpoint),
            relay_why: path
                .as_ref()
                .and_then(|path| path.relay.as_ref())
                .and(pair.explain_relay(&self.shared)),
            relay: path.and_then(|path| path.relay),
            standby: pair.spare_relay().cloned(),
            rtt_ms: quality.and_then(quality::Quality::rtt_ms),
            jitter_ms: quality.and_then(quality::Quality::jitter_ms),
            loss: quality.and_then(quality::Quality::loss),
            answers: route.is_some_and(|route| route.was_answered() && route.unanswered(pair.decided) == 0),
            mtu: route.and_then(|route| route.mtu.longest()),
            why: pair.explain(&self.shared),
            verdict: pair.verdict(&self.shared),
            fix: pair.fix_after_hunt(&self.shared),
        })
    }

    /// Where a member has answered lately, whichever path is in use.
    pub fn answers_at(&self, member: &WgKey, now: Instant) -> impl Iterator<Item = SocketAddr> {
        let routes = self.pairs.get(member).into_iter().flat_map(|pair| &pair.directs);
        let is_recent = move |at: Instant| now.saturating_duration_since(at) < ANSWERED;
        routes.filter(move |route| route.answered_at().is_some_and(is_recent)).map(|route| route.to)
    }

    /// What happened to probes and signals, by name.
    pub fn counters(&self) -> &BTreeMap<&'static str, u64> {
        &self.shared.counters
    }
}

/// Round trips so close that nobody needs to hear of the difference.
fn is_similar(a: Option<Duration>, b: Option<Duration>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.abs_diff(b) <= Duration::from_millis(5).max(a / 4),
        (a, b) => a == b,
    }
}
