//! A device in the simulation, and where it is.

use super::nat::{Nat, Router};
use crate::api::PathKind;
use crate::identity::{PartyId, PartySecret, WgKey};
use crate::path::{Config, Path, PathAgent};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(super) const PORT: u16 = 4001;

/// A device.
pub struct Host {
    pub key: WgKey,
    pub agent: PathAgent,
    /// Its address in its home, or its public one.
    pub inside: SocketAddr,
    /// Which router it is behind.
    pub home: usize,
    /// By relay name: the address the relay has bound.
    pub(super) bound: BTreeMap<String, SocketAddr>,
    pub path: BTreeMap<WgKey, Path>,
    /// How long packets for each member should be at most.
    pub mtus: BTreeMap<WgKey, Option<u16>>,
    /// Ports of further sockets, and those that are kept by the address that they reach.
    pub spares: Vec<u16>,
    pub kept: BTreeMap<SocketAddr, u16>,
    /// What the agent would have it be bound at, and what it uses.
    pub wishes: (BTreeMap<String, u32>, BTreeSet<String>),
    pub path_changes: Vec<(Duration, WgKey, Option<PathKind>)>,
    /// Every probe sent, relays included.
    pub sent_to: Vec<(Duration, SocketAddr)>,
}

/// Where host `n` is in its home.
pub(super) fn place(router: &Router, home: usize, n: usize) -> SocketAddr {
    match router.nat {
        Nat::None => (router.outside, PORT).into(),
        Nat::Router(_) => (Ipv4Addr::new(192, 168, home as u8 + 1, n as u8 + 2), PORT).into(),
    }
}

pub(super) fn host(n: usize, inside: SocketAddr, home: usize, seed: u64) -> Host {
    let key = WgKey([n as u8 + 1; 32]);
    let config = Config {
        me: key,
        party: PartyId([1; 16]),
        secret: PartySecret::from([7; 32]),
        subnet: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 66, 0, 0), 16),
        mtu: 1420,
    };
    Host {
        key,
        agent: PathAgent::new(config, StdRng::seed_from_u64(seed)),
        inside,
        home,
        bound: BTreeMap::new(),
        path: BTreeMap::new(),
        mtus: BTreeMap::new(),
        spares: Vec::new(),
        kept: BTreeMap::new(),
        wishes: Default::default(),
        path_changes: Vec::new(),
        sent_to: Vec::new(),
    }
}
