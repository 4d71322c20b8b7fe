//! The relay role: drives `lanrage_common::relay` with UDP sockets, the data path and the control server.
//!
//! One task owns the truth: bindings, handshakes and flows are the sans-IO server's. What it installs goes to the
//! [`Datapath`] and to the [`plane`], whose workers own the sockets: they forward the data that the kernel program passes
//! up, by the same flows, and hand the rest to the task.

mod detail;
mod key;
mod load;
mod loss;
mod plane;
mod reach;
mod registration;
mod run;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod tls;

pub use detail::Inquiry;

use crate::config::RelayConfig;
use crate::datapath::{self, Adopted, Datapath, Served};
use crate::shutdown::Shutdown;
use anyhow::Context as _;
use lanrage_common::api::RelayStatus;
use lanrage_common::protocol::RelayInfo;
use lanrage_common::relay::{Limits, RelayServer, Setup};
use loss::Losses;
use plane::Plane;
use rand_core::OsRng;
use reach::Reach;
use registration::Registration;
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::sync::watch;

/// Members bound at once; each costs the relay about a kilobyte.
const MAX_MEMBERS: usize = lanrage_common::maps::DEFAULT_MEMBERS as usize;

/// Whether a relay is being emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drain {
    /// It serves.
    #[default]
    No,
    /// It takes no more members, and ends when it has none, at this time at the latest.
    Until(Instant),
}

/// A running relay.
#[derive(Debug)]
pub struct RelayHandle {
    /// Refreshed every second and on every change; closed when the relay has ended.
    pub status: watch::Receiver<RelayStatus>,
    /// Whether the relay is being emptied: it asks for no more members, and those it has move to other relays.
    pub drain: watch::Sender<Drain>,
    /// For more than the status.
    pub inquiry: Inquiry,
}

/// Starts a relay that runs until `shutdown`. Keeps its ticket key in `state_dir`; there it also looks for the control
/// server's token when none is configured. Errors are meant to be shown to a person as they are.
pub async fn start(
    config: &RelayConfig,
    state_dir: &Path,
    shutdown: Shutdown,
) -> anyhow::Result<RelayHandle> {
    let ticket_key = key::load_or_create(state_dir)?;
    let listening = socket::listen(config, socket::workers(config.workers))?;
    let reach = Reach::of(config, &listening.main);
    let (main, public) = (listening.main[0], reach.addresses[0]);
    let tls = tls::start(config, state_dir, main, public, shutdown.clone()).await;
    if let Err(problem) = &tls {
        tracing::warn!(fix = problem.fix, "{}", problem.message);
    }
    let info = RelayInfo {
        name: name(config),
        addresses: reach.addresses.clone(),
        region: config.region.clone(),
        tls: tls.as_ref().ok().and_then(|tls| tls.as_ref()).map(|tls| tls.info),
        ..RelayInfo::default()
    };
    let identity = detail::Identity { name: info.name.clone(), region: info.region.clone() };
    let registration = Registration::open(config, state_dir, info, &ticket_key)?;
    let alternates = listening.alternates(config);
    let served = Served::new(&listening.main, alternates.clone());
    let (mut datapath, adopted) = open_datapath(config, served, &ticket_key).await;
    let limits = limits(config);
    let own = listening.main.iter().chain(&reach.addresses).copied().collect();
    let setup = Setup { ticket_key, own, alternates, limits, clock: crate::platform::clock_zero() };
    let mut server = RelayServer::new(setup, &mut OsRng);
    let table = take_over(&mut server, &mut datapath, &adopted, &listening.endpoints);
    drop(adopted);
    announce(&listening.main, &reach, &datapath);
    let losses = Losses::new(listening.is_cramped, Instant::now());
    let problems = listening.problems.into_iter().chain(reach.problem).collect();
    let parts = run::Parts {
        plane: Plane::start(listening.endpoints, table)?,
        server,
        limits,
        datapath,
        registration,
        addresses: reach.addresses,
        identity,
        problems,
        losses,
        tls,
        shutdown,
    };
    Ok(run::spawn(parts))
}

/// The data path; with it, where it can outlive the daemon, what the last daemon knew.
async fn open_datapath(config: &RelayConfig, served: Served, key: &[u8; 32]) -> (Datapath, Adopted) {
    if config.pin_dir.as_os_str().is_empty() {
        return (Datapath::open(config, served).await, Adopted::default());
    }
    let directory = pin_directory(config, served.port(), key);
    Datapath::resume(config, served, &directory).await
}

/// Goes on with what the last daemon knew. Flows of members that are not bound any more end.
fn take_over(
    server: &mut RelayServer,
    datapath: &mut Datapath,
    adopted: &Adopted,
    endpoints: &[socket::Endpoint],
) -> plane::Table {
    let records = adopted.records.iter().map(|(slot, record)| (*slot, record.as_slice()));
    let (adoption, table) = std::thread::scope(|scope| {
        // of a million flows each takes its time, and neither needs the other
        scope.spawn(|| datapath.take_over(adopted));
        let adoption = server.adopt(records, adopted.flows(), crate::clock::now());
        (adoption, plane::table(endpoints, server))
    });
    adoption.refused_flows.into_iter().for_each(|flow| datapath.remove(flow));
    adoption.refused_records.into_iter().for_each(|slot| datapath.forget(slot));
    if adoption.members > 0 {
        tracing::info!(members = adoption.members, flows = adoption.flows, "bindings and flows taken over");
    }
    table
}

/// A relay is known by its port and its key: another relay's flows are not to be taken over.
fn pin_directory(config: &RelayConfig, port: u16, key: &[u8; 32]) -> PathBuf {
    let digest = Sha256::new().chain_update(b"lanrage relay pins").chain_update(key).finalize();
    let id: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    config.pin_dir.join(format!("relay-{port}-{id}"))
}

/// Ends what a stopped relay still forwards in the kernel.
pub fn detach(config: &RelayConfig, state_dir: &Path) -> anyhow::Result<()> {
    let key = key::load_or_create(state_dir)?;
    let directory = pin_directory(config, config.listen.port(), &key);
    datapath::detach(&directory)
        .with_context(|| format!("cannot remove {}: run as the relay's user or as root", directory.display()))
}

fn limits(config: &RelayConfig) -> Limits {
    Limits {
        members: MAX_MEMBERS,
        flows: config.max_flows as usize,
        party_members: config.max_party_members as usize,
        party_flows: config.max_party_flows.unwrap_or(config.max_flows.div_ceil(2)) as usize,
    }
}

fn name(config: &RelayConfig) -> String {
    let name = config.name.clone().or_else(crate::platform::host_name);
    name.unwrap_or_else(|| "relay".into())
}

fn announce(listen: &[SocketAddr], reach: &Reach, datapath: &Datapath) {
    let report = datapath.report();
    let (reason, fix) = (report.reason.as_deref(), report.fix.as_deref());
    tracing::info!(?listen, public = ?reach.addresses, mode = ?report.mode, reason, fix, "relay listens");
}
