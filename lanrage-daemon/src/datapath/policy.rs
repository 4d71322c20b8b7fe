//! What the kernel program is told about limits, and about who is bound.

use super::Served;
use super::interfaces::Host;
use super::netlink::Link;
use super::table::Maps;
use crate::config::{MixedChoice, RelayConfig};
use lanrage_common::maps::{Local, MemberState, SourceKey};
use lanrage_common::police::{Bucket, Rate};
use lanrage_common::relay::MemberLimits;
use lanrage_common::wire::Be16;
use std::collections::HashMap;
use std::net::SocketAddr;

/// STUN that the daemon may get in a second, over all CPUs: Bind, and Binding requests that the kernel does not answer.
const STUN_PER_S: u64 = 20_000;
/// Every so many-th packet of a reason is told; a power of two.
const SAMPLING: u32 = 1 << 16;
/// Longest UDP payload: what a CPU takes at once of the bytes for everybody must hold one.
const LONGEST: u64 = 65_536;
/// Drivers that keep at least the 40 bytes in front of a frame that its longest new headers need, and let XDP use them
/// (each reserves XDP_PACKET_HEADROOM, 256 bytes, in its receive path; Linux 6.1 and newer).
const ROOMY_DRIVERS: [&str; 5] = ["i40e", "ice", "igb", "ixgbe", "mlx5_core"];

/// Limits from the configuration, and the members known so far.
#[derive(Debug)]
pub struct Policy {
    packets_per_s: u64,
    bytes_per_s: u64,
    mixed: MixedChoice,
    cpus: u64,
    bound: HashMap<SourceKey, u32>,
    /// Whether strangers are dropped.
    strict: bool,
}

impl Policy {
    /// The configuration's.
    pub fn new(config: &RelayConfig) -> Self {
        Self {
            packets_per_s: config.max_packets_per_s,
            bytes_per_s: config.max_mbit_per_s.saturating_mul(125_000),
            mixed: config.mixed,
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            bound: HashMap::new(),
            strict: false,
        }
    }

    /// Adds flags and limits to the relay's addresses and ports.
    pub fn complete(&self, local: Local, links: &[&Link]) -> Local {
        let mut flags = 0;
        if self.is_mixed(links) {
            flags |= Local::MIXED;
        }
        if self.strict {
            flags |= Local::STRICT;
        }
        let packets_chunk = (self.packets_per_s / 1000).clamp(1, 64);
        Local {
            flags,
            packets: Rate::of_packets(self.packets_per_s),
            bytes: Rate::of_bytes(self.bytes_per_s),
            packets_chunk: packets_chunk as u32,
            bytes_chunk: LONGEST as u32,
            stun: Rate::new((STUN_PER_S / self.cpus).max(1), (STUN_PER_S / self.cpus / 10).max(1)),
            sampling: SAMPLING,
            ..local
        }
    }

    fn is_mixed(&self, links: &[&Link]) -> bool {
        match self.mixed {
            MixedChoice::Kernel => true,
            MixedChoice::Userspace => false,
            MixedChoice::Auto => links.iter().all(|link| link.veth || has_roomy_driver(&link.name)),
        }
    }

    /// A member is bound there.
    pub fn admit(&mut self, maps: &mut impl Maps, slot: u32, address: SocketAddr, limits: MemberLimits) {
        let source = source_key(address);
        let state = MemberState {
            packets: Bucket::new(Rate::of_packets(limits.packets_per_s.into())),
            bytes: Bucket::new(Rate::of_bytes(u64::from(limits.kbit_per_s) * 125)),
            ..MemberState::default()
        };
        let admitted = maps.put_member(slot, state).and_then(|()| maps.put_source(source, slot));
        self.bound.insert(source, slot);
        if let Err(error) = admitted {
            tracing::warn!(slot, %address, %error, "the kernel program does not know a member");
        }
    }

    /// Nobody is bound there any more.
    pub fn dismiss(&mut self, maps: &mut impl Maps, address: SocketAddr) {
        let source = source_key(address);
        maps.remove_source(source);
        self.bound.remove(&source);
    }

    /// From now on strangers are dropped. Members whom an earlier daemon knew, and this one does not, are strangers too.
    pub fn enforce(&mut self, maps: &mut impl Maps) {
        for source in maps.sources().into_iter().filter(|source| !self.bound.contains_key(source)) {
            maps.remove_source(source);
        }
        self.strict = true;
    }
}

fn source_key(address: SocketAddr) -> SourceKey {
    SourceKey::new(address.ip().to_canonical().into(), Be16::new(address.port()))
}

fn has_roomy_driver(name: &str) -> bool {
    let driver = std::fs::read_link(format!("/sys/class/net/{name}/device/driver"));
    let driver = driver.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    driver.is_some_and(|driver| ROOMY_DRIVERS.contains(&driver.as_str()))
}

impl Policy {
    /// [`Policy::complete`] of this host's addresses.
    pub fn local(&self, host: &Host, served: &Served, links: &[&Link]) -> Local {
        let indexes: Vec<u32> = links.iter().map(|link| link.index).collect();
        self.complete(host.local(served, &indexes), links)
    }
}
