//! What a host offers a relay: kernel, privileges, network cards, limits, ports, clock.
//!
//! `lanrage relay check` shows it before anything is attached, and the data path explains with the same knowledge
//! ([`drivers`]) why an interface refused. Looking changes nothing; only [`trial::attach`] touches an interface.

pub mod clock;
pub mod drivers;
pub mod interface;
pub mod kernel;
pub mod ports;
pub mod privileges;
mod querying;
pub mod refusal;
pub mod trial;
pub mod tuning;
pub mod verdict;
mod xdp_features;

use super::ways;
use super::{Served, interfaces};
use crate::config::RelayConfig;
use anyhow::Context as _;
use interface::Interface;
use lanrage_common::relay::Alternates;
use serde::Serialize;
use verdict::Verdict;

/// Whether this build holds the kernel program; see `build.rs`.
pub const HAS_PROGRAM: bool = !include_bytes!(concat!(env!("OUT_DIR"), "/lanrage-ebpf")).is_empty();

/// Everything that decides how a relay forwards here.
#[derive(Debug, Clone, Serialize)]
pub struct Survey {
    /// The running kernel.
    pub kernel: kernel::Kernel,
    /// What this process may do; the relay's own unit may allow less.
    pub privileges: privileges::Privileges,
    /// CPUs that are online.
    pub cpus: u32,
    /// Candidates, those that the relay would use first.
    pub interfaces: Vec<Surveyed>,
    /// Why the relay finds no interface by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_interface: Option<Choice>,
    /// Kernel settings with advice.
    pub tuning: Vec<tuning::Setting>,
    /// Ports that the relay wants.
    pub ports: Vec<ports::Port>,
    /// Whether the clock is set by somebody.
    pub clock: clock::Clock,
}

/// One candidate and what would come of it.
#[derive(Debug, Clone, Serialize)]
pub struct Surveyed {
    /// What it is.
    #[serde(flatten)]
    pub interface: Interface,
    /// Whether the relay would attach to it.
    pub used: bool,
    /// How it would forward there.
    pub verdict: Verdict,
}

/// Why there is no choice, and what to do.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    /// What is wrong.
    pub reason: String,
    /// What helps.
    pub fix: String,
}

/// Looks at this host with the eyes of a relay of that configuration. Needs a tokio runtime. `only` limits the
/// interfaces to one.
pub async fn survey(config: &RelayConfig, only: Option<&str>) -> anyhow::Result<Survey> {
    let kernel = kernel::Kernel::look();
    let privileges = privileges::Privileges::look();
    let cpus = interface::online_cpus();
    let interfaces = interface::all().await.context("cannot read the network interfaces by netlink")?;
    let (chosen, no_interface) = match choose(config).await {
        Ok(chosen) => (chosen, None),
        Err(choice) => (Vec::new(), Some(choice)),
    };
    let mut interfaces: Vec<_> = interfaces
        .into_iter()
        .filter(|interface| {
            only.map_or(interface.is_candidate() || chosen.contains(&interface.index), |name| {
                interface.name == name
            })
        })
        .map(|interface| Surveyed {
            used: chosen.contains(&interface.index),
            verdict: verdict::judge(&interface, &kernel, &privileges, cpus, config.mode),
            interface,
        })
        .collect();
    interfaces.sort_by_key(|surveyed| (!surveyed.used, surveyed.interface.index));
    if let (Some(name), true) = (only, interfaces.is_empty()) {
        anyhow::bail!("there is no interface {name}; `ip -br link` lists them");
    }
    Ok(Survey {
        tuning: tuning::look(),
        ports: ports::look(config),
        clock: clock::Clock::look(),
        kernel,
        privileges,
        cpus,
        interfaces,
        no_interface,
    })
}

/// Indexes of the interfaces that the data path would attach to.
async fn choose(config: &RelayConfig) -> Result<Vec<u32>, Choice> {
    let refused =
        |reason: String| Choice { reason, fix: "see `ip -br link`, and set `relay.interfaces`".into() };
    let handle = ways::handle().map_err(|error| refused(format!("cannot speak netlink: {error}")))?;
    let host = interfaces::Host::look(&handle)
        .await
        .map_err(|error| refused(format!("cannot ask netlink: {error}")))?;
    let main: Vec<_> =
        [Some(config.listen), config.second_listen(config.listen.port())].into_iter().flatten().collect();
    let served = Served::new(&main, Alternates::default());
    match host.choose(&config.interfaces, &served) {
        Ok(links) => Ok(links.iter().map(|link| link.index).collect()),
        Err(fallback) => Err(Choice { reason: fallback.reason, fix: fallback.fix }),
    }
}
