//! The lane's kernel programs: loaded, attached, told what they need, read. Where they do not run, the same rules run in
//! this process ([`lanrage_common::lane::Lane`]), and the status says why.

mod home;
mod joins;
#[cfg_attr(not(target_os = "linux"), path = "lane/no_kernel.rs")]
mod kernel;
#[cfg_attr(not(target_os = "linux"), path = "lane/no_runs.rs")]
mod runs;
mod sockets;

pub use home::HomeCopies;
pub use joins::{INTERVAL as JOIN_INTERVAL, Joins};
pub use kernel::{KernelLane, Prepared};
#[cfg(target_os = "linux")]
pub use kernel::{Object, Program};
pub use runs::Runs;
pub use sockets::sockets;

use crate::config::LaneChoice;
use crate::gateway::LanTap;
use crate::platform::Network;
use lanrage_common::api::{LaneMode, LaneStatus};
use lanrage_common::lane::Lane;
use lanrage_common::lane::maps::{AnswerKey, Home, MAX_HOMES, TraceCount, TraceKey};
use lanrage_common::wire::Be32;

/// Why the kernel does not carry group packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// What happened.
    pub reason: String,
    /// What can be done about it.
    pub fix: String,
}

impl Fallback {
    fn new(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { reason: reason.into(), fix: fix.into() }
    }
}

/// Who carries the group packets of the party's interface.
#[derive(Debug)]
pub enum Carrier {
    /// The kernel.
    Kernel(Box<KernelLane>),
    /// This process, and why.
    Userspace(Fallback),
}

impl Carrier {
    /// Begins what takes long, if this choice needs it.
    pub fn prepare(choice: LaneChoice) -> Prepared {
        match choice {
            LaneChoice::Userspace => Prepared::default(),
            LaneChoice::Auto | LaneChoice::Kernel => Prepared::start(),
        }
    }

    /// The best that works on the party's interface, by its name and index.
    pub fn open(choice: LaneChoice, prepared: &mut Prepared, interface: &str, index: u32) -> Self {
        let opened = match choice {
            LaneChoice::Userspace => {
                Err(Fallback::new("the configuration asks for userspace", "set `peer.lane = \"auto\"`"))
            }
            LaneChoice::Auto | LaneChoice::Kernel => KernelLane::open(prepared, interface, index),
        };
        match opened {
            Ok(kernel) => {
                tracing::info!(interface, hook = kernel.hook(), "the kernel carries group packets");
                Self::Kernel(Box::new(kernel))
            }
            Err(why) => {
                match choice {
                    LaneChoice::Userspace => {}
                    LaneChoice::Auto => {
                        tracing::info!(why.reason, why.fix, "the daemon carries group packets")
                    }
                    LaneChoice::Kernel => {
                        tracing::warn!(why.reason, why.fix, "the daemon carries group packets")
                    }
                }
                Self::Userspace(why)
            }
        }
    }

    /// Whether the kernel wraps and unwraps, so that this process must not.
    pub fn is_kernel(&self) -> bool {
        matches!(self, Self::Kernel(_))
    }

    /// Tells the kernel what `lane` knows by now; attaches to physical networks that are new.
    pub fn follow(&mut self, lane: &Lane) {
        if let Self::Kernel(kernel) = self {
            kernel.follow(lane);
        }
    }

    /// Leads what devices on a gateway's home networks send to aliases to the party's interface; or says why not.
    pub fn follow_lans(&mut self, wanted: &[LanTap]) -> Result<(), String> {
        match (self, wanted) {
            (Self::Kernel(kernel), wanted) => kernel.follow_lans(wanted),
            (Self::Userspace(_), []) => Ok(()),
            (Self::Userspace(why), _) => Err(format!("{}: {}", why.reason, why.fix)),
        }
    }

    /// What was counted of each conversation.
    pub fn traced(&self, lane: &Lane) -> Vec<(TraceKey, TraceCount)> {
        match self {
            Self::Kernel(kernel) => kernel.traced(),
            Self::Userspace(_) => lane.traced(),
        }
    }

    /// Packets of members to ports that asked.
    pub fn answers(&self, lane: &Lane) -> Vec<(AnswerKey, u64)> {
        match self {
            Self::Kernel(kernel) => kernel.answers(),
            Self::Userspace(_) => lane.answers(),
        }
    }

    /// Forgets a conversation's counts.
    pub fn forget(&mut self, lane: &mut Lane, key: &TraceKey) {
        match self {
            Self::Kernel(kernel) => kernel.forget(key),
            Self::Userspace(_) => lane.forget(key),
        }
    }

    /// Adds what this carrier has done, and how, to what the lane in this process has.
    pub fn describe(&self, status: &mut LaneStatus) {
        match self {
            Self::Kernel(kernel) => {
                status.mode = LaneMode::Kernel;
                kernel.count(status);
            }
            Self::Userspace(why) => {
                status.mode = LaneMode::Userspace;
                (status.mode_reason, status.mode_fix) = (Some(why.reason.clone()), Some(why.fix.clone()));
            }
        }
    }
}

/// This machine's addresses on physical networks, the default route's first: it is there that group packets would go
/// without the party, so there they are copied.
pub fn homes(networks: &[Network]) -> impl Iterator<Item = Home> {
    let ethernet = |wanted: bool| {
        networks.iter().filter(move |network| network.mac.is_some() && network.is_default == wanted)
    };
    let describe = |network: &Network| {
        let [a, b, c, d, e, f] = network.mac.unwrap_or_default();
        Home {
            address: Be32::from_octets(network.address.addr().octets()),
            ifindex: network.index,
            mac: [a, b, c, d, e, f, 0, 0],
            copies: u32::from(network.is_default),
        }
    };
    ethernet(true).chain(ethernet(false)).map(describe).take(MAX_HOMES)
}
