//! The relay role: drives `lanrage_common::relay` with a UDP socket, the data path and the control server.
//!
//! One task owns everything. What the kernel program does not forward itself comes up through the socket, goes through
//! the sans-IO server, and leaves by the socket; flows that the server installs go to the [`Datapath`]. A flow that
//! the kernel does not take is forwarded here, by the same table.

mod detail;
mod key;
mod load;
mod registration;
mod run;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod tls;

pub use detail::Inquiry;

use crate::config::RelayConfig;
use crate::datapath::{self, Adopted, Datapath};
use crate::roles::addresses;
use crate::shutdown::Shutdown;
use anyhow::Context as _;
use lanrage_common::api::RelayStatus;
use lanrage_common::protocol::RelayInfo;
use lanrage_common::relay::{Alternates, Limits, RelayServer, Setup};
use rand_core::OsRng;
use registration::Registration;
use sha2::{Digest as _, Sha256};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// Members bound at once; each costs the relay about a kilobyte.
const MAX_MEMBERS: usize = lanrage_common::maps::DEFAULT_MEMBERS as usize;

/// A running relay.
#[derive(Debug)]
pub struct RelayHandle {
    /// Refreshed every second and on every change; closed when the relay has ended.
    pub status: watch::Receiver<RelayStatus>,
    /// Whether the relay is being emptied: it asks for no more members, and those it has move to other relays.
    pub drain: watch::Sender<bool>,
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
    let listen = ipv4_only(config.listen)?;
    let ticket_key = key::load_or_create(state_dir)?;
    let socket = socket::bind(listen)?;
    let bound = socket::local_address(&socket)?;
    let public = config.public_address.unwrap_or_else(|| {
        addresses::outside_address(SocketAddr::V4(bound), addresses::default_route_source())
    });
    let guessed = config.public_address.is_none() && listen.ip().is_unspecified();
    let address_problem = guessed.then(|| addresses::private_relay_address(public)).flatten();
    let tls = tls::start(config, state_dir, SocketAddr::V4(bound), public, shutdown.clone()).await;
    if let Err(problem) = &tls {
        tracing::warn!(fix = problem.fix, "{}", problem.message);
    }
    let info = RelayInfo {
        name: name(config),
        addresses: vec![public],
        region: config.region.clone(),
        tls: tls.as_ref().ok().and_then(|tls| tls.as_ref()).map(|tls| tls.info),
        ..RelayInfo::default()
    };
    let identity = detail::Identity { name: info.name.clone(), region: info.region.clone() };
    let registration = Registration::open(config, state_dir, info, &ticket_key)?;
    let (mut datapath, adopted) = open_datapath(config, bound, &ticket_key).await;
    let limits = limits(config);
    let own = vec![SocketAddr::V4(bound), public];
    let alternates = Alternates::default();
    let setup = Setup { ticket_key, own, alternates, limits, clock: crate::platform::clock_zero() };
    let mut server = RelayServer::new(setup, &mut OsRng);
    take_over(&mut server, &mut datapath, adopted);
    announce(bound, public, &datapath);
    let bound = SocketAddr::V4(bound);
    let parts = run::Parts {
        socket,
        server,
        limits,
        datapath,
        registration,
        bound,
        public,
        identity,
        address_problem,
        tls,
        shutdown,
    };
    Ok(run::spawn(parts))
}

/// The data path; with it, where it can outlive the daemon, what the last daemon knew.
async fn open_datapath(config: &RelayConfig, bound: SocketAddrV4, key: &[u8; 32]) -> (Datapath, Adopted) {
    if config.pin_dir.as_os_str().is_empty() {
        return (Datapath::open(config, bound).await, Adopted::default());
    }
    Datapath::resume(config, bound, &pin_directory(config, bound.port(), key)).await
}

/// Goes on with what the last daemon knew. Flows of members that are not bound any more end.
fn take_over(server: &mut RelayServer, datapath: &mut Datapath, adopted: Adopted) {
    let records = adopted.records.iter().map(|(slot, record)| (*slot, record.as_slice()));
    let adoption = server.adopt(records, adopted.flows, run::now());
    adoption.refused_flows.into_iter().for_each(|flow| datapath.remove(flow));
    adoption.refused_records.into_iter().for_each(|slot| datapath.forget(slot));
    if adoption.members > 0 {
        tracing::info!(members = adoption.members, flows = adoption.flows, "bindings and flows taken over");
    }
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

fn ipv4_only(listen: SocketAddr) -> anyhow::Result<SocketAddrV4> {
    match listen {
        SocketAddr::V4(listen) => Ok(listen),
        SocketAddr::V6(listen) => anyhow::bail!(
            "the relay cannot listen on {listen}: it serves IPv4 only so far. Set relay.listen = \"0.0.0.0:{}\"",
            listen.port()
        ),
    }
}

fn name(config: &RelayConfig) -> String {
    let name = config.name.clone().or_else(crate::platform::host_name);
    name.unwrap_or_else(|| "relay".into())
}

fn announce(bound: SocketAddrV4, public: SocketAddr, datapath: &Datapath) {
    let report = datapath.report();
    let (reason, fix) = (report.reason.as_deref(), report.fix.as_deref());
    tracing::info!(%bound, %public, mode = ?report.mode, reason, fix, "relay listens");
}
