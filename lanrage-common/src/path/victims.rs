//! Whom a member may have probed: itself. What it announces is taken for its own only within narrow bounds, so that
//! nobody can make a party probe a stranger.

use super::announce::Announcement;
use super::candidate::{CandidateKind, public_network};
use super::pair::Pair;
use super::shared::Shared;
use crate::address::is_private;
use crate::bucket::{Bucket, Rate};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Public networks that one announcement may name, for each family.
const MAX_NETWORKS: usize = 2;
/// Those of a member that are remembered.
const MAX_KNOWN: usize = 16;
/// A member that moves about: new networks at once, and time for each further one.
const MOVES: u64 = 4;
const MOVE: Duration = Duration::from_secs(30);

/// The public networks that a member has shown itself in.
#[derive(Debug)]
pub(super) struct Networks {
    known: Vec<IpAddr>,
    moves: Bucket,
}

impl Networks {
    pub fn new() -> Self {
        Self { known: Vec::new(), moves: Bucket::new(Rate::new(1, MOVE, MOVES)) }
    }

    /// Whether the member may be looked for there.
    fn admit(&mut self, ip: IpAddr, now: Instant) -> bool {
        let network = public_network(ip);
        if self.known.contains(&network) {
            return true;
        }
        if !self.moves.take(1, now) {
            return false;
        }
        if self.known.len() == MAX_KNOWN {
            self.known.remove(0);
        }
        self.known.push(network);
        true
    }
}

/// What an announcement says of where its sender is.
#[derive(Debug)]
pub(super) struct Place {
    /// Both are in one home, or nothing is known of that.
    shares_home: bool,
    /// The sender's public networks.
    networks: Vec<IpAddr>,
}

impl Place {
    pub fn new(announcement: &Announcement, shared: &Shared) -> Self {
        let of_kind = |kind| announcement.candidates.iter().filter(move |candidate| candidate.kind == kind);
        let ips = |kind| of_kind(kind).map(|candidate| candidate.address.ip());
        let public: Vec<IpAddr> = shared.public().collect();
        let shares_home = public.is_empty()
            || ips(CandidateKind::Mapped).next().is_none()
            || ips(CandidateKind::Mapped).any(|ip| public.contains(&ip));
        let mut networks = Vec::new();
        for is_ipv4 in [true, false] {
            let mut own: Vec<IpAddr> = Vec::new();
            // where relays see it; its own word only counts when no relay sees it
            let seen = ips(CandidateKind::Mapped).filter(|ip| ip.is_ipv4() == is_ipv4);
            let told = ips(CandidateKind::Host).filter(|ip| ip.is_ipv4() == is_ipv4 && !is_private(*ip));
            let seen: Vec<IpAddr> = seen.collect();
            let all: Vec<IpAddr> = if seen.is_empty() { told.collect() } else { seen };
            for network in all.into_iter().map(public_network) {
                if own.len() < MAX_NETWORKS && !own.contains(&network) {
                    own.push(network);
                }
            }
            networks.extend(own);
        }
        Self { shares_home, networks }
    }
}

impl Pair {
    /// Whether an address that the member announced may be probed.
    pub fn check_candidate(
        &mut self,
        address: SocketAddr,
        place: &Place,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), &'static str> {
        shared.check(address)?;
        let ip = address.ip();
        if is_private(ip) {
            let may_be_near = place.shares_home || shared.is_near(ip);
            return may_be_near.then_some(()).ok_or("candidate_private");
        }
        if !place.networks.contains(&public_network(ip)) {
            return Err("candidate_foreign");
        }
        self.networks.admit(ip, now).then_some(()).ok_or("candidate_moves")
    }

    /// Whether an address that an authentic probe came from may be probed.
    pub fn check_source(
        &mut self,
        from: SocketAddr,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), &'static str> {
        shared.check(from)?;
        let may_be = is_private(from.ip()) || self.networks.admit(from.ip(), now);
        may_be.then_some(()).ok_or("candidate_moves")
    }
}
