//! How a pair of members finds and keeps its path: relay at once, direct as soon as probes prove it.
//!
//! The caller owns one UDP socket, WireGuard's. It tells the agent of relays it is bound at, of candidates, signals
//! and probes that arrive, and of authenticated tunnel data; it sends what [`PathAgent::poll_output`] gives and
//! points the tunnel of a member to the [`Path`] it is told.

pub mod probe;

use crate::api::PathKind;
use crate::identity::{PartyId, PartySecret, WgKey};
use crate::time::Now;
use ipnet::Ipv4Net;
use rand_core::CryptoRngCore;
use std::collections::VecDeque;
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
    /// Send this to a member through the control server ([`crate::protocol::ClientMessage::Signal`]).
    Signal {
        /// To whom.
        to: WgKey,
        /// Base64.
        body: String,
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
    /// Median round trip of the last probes, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Mean difference of successive round trips, milliseconds.
    pub jitter_ms: Option<f64>,
    /// Unanswered probes, 0 to 1.
    pub loss: Option<f64>,
    /// One sentence: why this path.
    pub why: String,
}

/// The paths of one device to all members of one party.
pub struct PathAgent {
    config: Config,
    #[allow(dead_code)]
    rng: Box<dyn CryptoRngCore + Send>,
    outputs: VecDeque<Output>,
}

impl fmt::Debug for PathAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathAgent").field("me", &self.config.me).finish_non_exhaustive()
    }
}

impl PathAgent {
    /// An agent without members.
    pub fn new(config: Config, rng: impl CryptoRngCore + Send + 'static, _now: Now) -> Self {
        Self { config, rng: Box::new(rng), outputs: VecDeque::new() }
    }

    /// Starts to look for paths to a member; does nothing when it is known or is this device.
    pub fn add_member(&mut self, _member: WgKey, _now: Now) {}

    /// Forgets a member. No [`Output::Path`] follows.
    pub fn remove_member(&mut self, _member: &WgKey) {}

    /// Tells this device's own addresses, each with the tunnel socket's port. Call on every change of an interface.
    pub fn set_local_candidates(&mut self, _addresses: Vec<SocketAddr>, _now: Now) {}

    /// A relay has bound this device. Call again when `mapped` or `rtt` changes.
    ///
    /// `relay` is where the relay takes datagrams, `mapped` this device's address as the relay sees it, `rtt` the
    /// round trip to the relay when known.
    pub fn handle_bound(
        &mut self,
        _name: &str,
        _relay: SocketAddr,
        _mapped: SocketAddr,
        _rtt: Option<Duration>,
        _now: Now,
    ) {
    }

    /// A binding is lost.
    pub fn handle_unbound(&mut self, _name: &str, _now: Now) {}

    /// A signal arrived through the control server.
    pub fn handle_signal(&mut self, _from: WgKey, _body: &str, _now: Now) {}

    /// A datagram arrived at the tunnel socket. Returns whether it was a probe, valid or not, and so is used up.
    pub fn handle_datagram(&mut self, _from: SocketAddr, datagram: &[u8], _now: Now) -> bool {
        probe::is_probe(datagram)
    }

    /// The tunnel has authenticated data of `member` that came from `from` (cheap: may be called for every packet).
    pub fn handle_tunnel_rx(&mut self, _member: &WgKey, _from: SocketAddr, _now: Now) {}

    /// Sending to `to` failed at once (unreachable, not permitted): the path is not waited for.
    pub fn handle_send_error(&mut self, _to: SocketAddr, _now: Now) {}

    /// Does what is due.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// When to call [`PathAgent::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What to do next; drain until `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How a member is reached; `None` for strangers.
    pub fn status(&self, _member: &WgKey) -> Option<Status> {
        None
    }
}
