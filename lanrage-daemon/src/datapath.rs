//! The relay's data path: kernel programs where they attach, with the daemon's own forwarding as fallback.
//!
//! [`Datapath`] is the only writer of the kernel maps. The relay role
//! 1. opens it once: [`Datapath::open`] always gives one, whose [`Report`] says how it forwards and why not better;
//! 2. calls [`Datapath::install`] and [`Datapath::remove`] as its flow table changes. A flow that cannot be installed, or
//!    whose next hop is not known yet, is no failure: the kernel passes its packets up and the daemon forwards them;
//! 3. polls [`Datapath::maintain`] in its event loop, which keeps next hops in step with routes and neighbours:
//!
//! ```text
//! tokio::select! {
//!     () = datapath.maintain() => {}
//!     received = socket.recv_from(&mut buffer) => { … }
//! }
//! ```
//! 4. drops it to detach. A data path from [`Datapath::resume`] forwards on without the daemon until its flows expire;
//!    [`Datapath::retire`] detaches that one.

#[cfg(target_os = "linux")]
mod batch;
#[cfg(target_os = "linux")]
pub mod host;
#[cfg(target_os = "linux")]
mod interfaces;
#[cfg_attr(not(target_os = "linux"), path = "datapath/no_kernel.rs")]
mod kernel;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod pins;
#[cfg(target_os = "linux")]
mod policy;
mod served;
#[cfg(target_os = "linux")]
mod shape;
#[cfg(target_os = "linux")]
pub mod table;
#[cfg(target_os = "linux")]
mod ways;
#[cfg(target_os = "linux")]
pub mod xdp;

use crate::config::RelayConfig;
use lanrage_common::api::{Problem, RelayMode};
use lanrage_common::maps::{Counter, MemberCounter};
use lanrage_common::reason::Reason;
use lanrage_common::relay::{Flow, MemberLimits, Target};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use served::Served;

/// How the relay forwards, and why not better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is in use.
    pub mode: RelayMode,
    /// Why a better mode could not be used.
    pub reason: Option<String>,
    /// What the operator can do about it.
    pub fix: Option<String>,
    /// Why nothing survives the daemon although it was meant to.
    pub unpinned: Option<Problem>,
}

/// What an earlier daemon's relay knew.
#[derive(Debug, Default)]
pub struct Adopted {
    /// What [`Datapath::persist`] kept, by slot.
    pub records: Vec<(u32, Vec<u8>)>,
    kept: Option<kernel::Kept>,
}

impl Adopted {
    /// Flows that the kernel goes on forwarding.
    pub fn flows(&self) -> impl Iterator<Item = (Flow, Target)> {
        self.kept.iter().flat_map(kernel::Kept::flows)
    }
}

/// A flow could not be installed; its packets are forwarded by the daemon instead.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The table has no room.
    #[error("the kernel flow table is full")]
    Full,
    /// The kernel refused.
    #[error("the kernel refused the flow: {0}")]
    Kernel(String),
}

/// Why something better cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fallback {
    reason: String,
    fix: String,
}

impl Fallback {
    fn new(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { reason: reason.into(), fix: fix.into() }
    }
}

/// The kernel side of the relay, or nothing at all in userspace mode.
#[derive(Debug)]
pub struct Datapath {
    report: Report,
    kernel: Option<kernel::Kernel>,
    /// Where links and maps are kept.
    directory: Option<PathBuf>,
}

impl Datapath {
    /// Attaches the best that works: native XDP, generic XDP, or nothing. Needs a tokio runtime.
    ///
    /// What goes to the served addresses is the relay's.
    pub async fn open(config: &RelayConfig, served: Served) -> Self {
        Self::open_on(config, served, None).await
    }

    /// The same, but links and maps are kept in a directory of bpffs, where the next daemon finds them: it replaces the
    /// program in place, and no packet is lost. With it comes what the last daemon knew: [`Datapath::take_over`] must be
    /// called with it before anything else.
    pub async fn resume(config: &RelayConfig, served: Served, directory: &Path) -> (Self, Adopted) {
        let kept = match kernel::Kept::open(config, directory) {
            Ok(kept) => kept,
            Err(why) => {
                let mut datapath = Self::open_on(config, served, None).await;
                datapath.report.unpinned = datapath.kernel.is_some().then(|| not_pinned(why));
                return (datapath, Adopted::default());
            }
        };
        let mut datapath = Self::open_on(config, served, Some(&kept)).await;
        if datapath.kernel.is_some() {
            datapath.directory = Some(directory.to_owned());
        } else {
            retire(directory);
        }
        (datapath, kept.adopted())
    }

    /// Goes on with the flows of the last daemon.
    pub fn take_over(&mut self, adopted: &Adopted) {
        if let (Some(kernel), Some(kept)) = (&mut self.kernel, &adopted.kept) {
            kernel.take_over(kept);
        }
    }

    async fn open_on(config: &RelayConfig, served: Served, kept: Option<&kernel::Kept>) -> Self {
        match kernel::Kernel::open(config, served, kept).await {
            Ok((kernel, report)) => Self { report, kernel: Some(kernel), directory: None },
            Err(Fallback { reason, fix }) => {
                let (reason, fix) = (Some(reason), Some(fix));
                let report = Report { mode: RelayMode::Userspace, reason, fix, unpinned: None };
                Self { report, kernel: None, directory: None }
            }
        }
    }

    /// Detaches for good: nothing is kept for a next daemon.
    pub fn retire(self) {
        let directory = self.directory.clone();
        drop(self);
        if let Some(directory) = directory {
            retire(&directory);
        }
    }

    /// How it forwards. Can change in [`Datapath::maintain`], when an interface goes away or comes back.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Makes the kernel forward a flow, or moves it to a new target.
    pub fn install(&mut self, flow: Flow, target: Target) -> Result<(), InstallError> {
        self.kernel.as_mut().map_or(Ok(()), |kernel| kernel.install(flow, target))
    }

    /// Gives a flow back to the daemon.
    pub fn remove(&mut self, flow: Flow) {
        if let Some(kernel) = &mut self.kernel {
            kernel.remove(flow);
        }
    }

    /// Keeps the record of a binding for the next daemon.
    pub fn persist(&mut self, slot: u32, record: &[u8]) {
        if let Some(kernel) = &mut self.kernel
            && let Err(error) = kernel.keep_record(slot, record)
        {
            tracing::warn!(slot, %error, "a binding cannot be kept for the next start: its member binds anew then");
        }
    }

    /// Drops the record of a binding that is over.
    pub fn forget(&mut self, slot: u32) {
        self.persist(slot, &[]);
    }

    /// A member is bound at that address: the kernel lets its handshakes and probes pass, and polices its data.
    pub fn admit(&mut self, slot: u32, address: SocketAddr, limits: MemberLimits) {
        if let Some(kernel) = &mut self.kernel {
            kernel.admit(slot, address, limits);
        }
    }

    /// Nobody is bound at that address any more.
    pub fn dismiss(&mut self, address: SocketAddr) {
        if let Some(kernel) = &mut self.kernel {
            kernel.dismiss(address);
        }
    }

    /// Everybody who is bound has been admitted: from now on the kernel drops what others send, STUN apart.
    pub fn enforce(&mut self) {
        if let Some(kernel) = &mut self.kernel {
            kernel.enforce();
        }
    }

    /// Has some of the flows follow whose way has changed, if any are left: to be called by whoever is too busy for
    /// [`Datapath::maintain`].
    pub fn catch_up(&mut self) {
        if let Some(kernel) = &mut self.kernel {
            kernel.catch_up();
        }
    }

    /// Waits for the next change of routes, neighbours or interfaces and puts it into the kernel; thousands of flows
    /// follow bit by bit while it is waited. Cancel safe; never ends in userspace mode.
    pub async fn maintain(&mut self) {
        match &mut self.kernel {
            Some(kernel) => kernel.maintain(&mut self.report).await,
            None => std::future::pending().await,
        }
    }

    /// Packets that the kernel program saw since start, by name of `lanrage_common::reason::Reason`.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.kernel.as_ref().map_or_else(BTreeMap::new, kernel::Kernel::counters)
    }

    /// Frames that the kernel program saw since start, and their bytes; nothing in userspace mode.
    pub fn reasons(&self) -> Vec<(Reason, Counter)> {
        self.kernel.as_ref().map_or_else(Vec::new, kernel::Kernel::reasons)
    }

    /// What became of a member's frames in the kernel program.
    pub fn member(&self, slot: u32) -> MemberCounter {
        self.kernel.as_ref().map_or_else(MemberCounter::default, |kernel| kernel.member(slot))
    }

    /// Destinations of flows to which no way is known; the daemon forwards to them.
    pub fn unresolved(&self) -> usize {
        self.kernel.as_ref().map_or(0, kernel::Kernel::unresolved)
    }

    /// Packets that the kernel program sent on since start.
    pub fn forwarded(&self) -> u64 {
        self.kernel.as_ref().map_or(0, kernel::Kernel::forwarded)
    }
}

fn not_pinned(Fallback { reason, fix }: Fallback) -> Problem {
    let message = format!("members lose their connections when the relay restarts: {reason}");
    tracing::warn!(fix, "{message}");
    Problem { code: "relay_not_pinned".into(), message, fix }
}

/// Detaches what a relay that runs no more left in the kernel, and removes the directory.
pub fn detach(directory: &Path) -> io::Result<()> {
    kernel::Kept::remove(directory)
}

fn retire(directory: &Path) {
    if let Err(error) = detach(directory) {
        tracing::warn!(directory = %directory.display(), %error, "cannot remove what the relay kept: remove it by hand");
    }
}
