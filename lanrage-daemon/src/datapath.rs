//! The relay's data path: kernel programs where they attach, with the daemon's own forwarding as fallback.
//!
//! [`Datapath`] is the only writer of the kernel maps. The relay role
//! 1. opens it once: [`Datapath::open`] always gives one, whose [`Report`] says how it forwards and why not better;
//! 2. calls [`Datapath::install`] and [`Datapath::remove`] as its flow table changes. A flow that cannot be installed, or
//!    whose next hop is not known yet, is no failure: the kernel passes its packets up and the daemon forwards them;
//! 3. polls [`Datapath::maintain`] in its event loop, which keeps next hops in step with routes and neighbours:
//!
//! ```ignore
//! tokio::select! {
//!     () = datapath.maintain() => {}
//!     received = socket.recv_from(&mut buffer) => { … }
//! }
//! ```
//! 4. drops it to detach.

#[cfg(target_os = "linux")]
pub mod host;
#[cfg(target_os = "linux")]
mod interfaces;
#[cfg_attr(not(target_os = "linux"), path = "datapath/no_kernel.rs")]
mod kernel;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
pub mod table;
#[cfg(target_os = "linux")]
mod ways;
#[cfg(target_os = "linux")]
pub mod xdp;

use crate::config::RelayConfig;
use lanrage_common::api::RelayMode;
use lanrage_common::relay::{Flow, Target};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;

/// How the relay forwards, and why not better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is in use.
    pub mode: RelayMode,
    /// Why a better mode could not be used.
    pub reason: Option<String>,
    /// What the operator can do about it.
    pub fix: Option<String>,
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
}

impl Datapath {
    /// Attaches the best that works: native XDP, generic XDP, or nothing. Needs a tokio runtime.
    ///
    /// `listen` is the relay socket's bound address; when it is unspecified, every address of this host counts as the
    /// relay's, as for the socket itself.
    pub async fn open(config: &RelayConfig, listen: SocketAddrV4) -> Self {
        match kernel::Kernel::open(config, listen).await {
            Ok((kernel, report)) => Self { report, kernel: Some(kernel) },
            Err(Fallback { reason, fix }) => {
                let report = Report { mode: RelayMode::Userspace, reason: Some(reason), fix: Some(fix) };
                Self { report, kernel: None }
            }
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

    /// Waits for the next change of routes, neighbours or interfaces and puts it into the kernel. Cancel safe; never
    /// ends in userspace mode.
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

    /// Packets that the kernel program sent on since start.
    pub fn forwarded(&self) -> u64 {
        self.kernel.as_ref().map_or(0, kernel::Kernel::forwarded)
    }
}
