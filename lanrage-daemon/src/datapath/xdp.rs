//! The kernel program and its maps: the only module that speaks aya.

use super::InstallError;
use super::table::Maps;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use lanrage_common::maps::{self, Counter, FlowKey, FlowValue, Local, NextHop};
use lanrage_common::reason::Reason;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// The object that `build.rs` found; empty when there was none.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lanrage-ebpf"));

/// Name of the program in the object.
pub const PROGRAM: &str = "relay";

/// Where a program is attached in the receive path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

/// The program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The daemon was built without it.
    #[error("this daemon was built without eBPF")]
    NotBuilt,
    /// The kernel says who may.
    #[error("no permission to load kernel programs")]
    NotPermitted,
    /// The verifier's log, or the system call that failed.
    #[error("the kernel refused the program: {0}")]
    Refused(String),
}

/// The loaded relay program. Dropping it detaches it.
pub struct Program {
    ebpf: Ebpf,
    flows: HashMap<MapData, FlowKey, FlowValue>,
    next_hops: Array<MapData, NextHop>,
    local: Array<MapData, Local>,
    reasons: PerCpuArray<MapData, Counter>,
    members: PerCpuArray<MapData, Counter>,
    links: BTreeMap<u32, XdpLinkId>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

impl Program {
    /// Loads the embedded program with room for `max_flows` flows. It is attached to nothing yet.
    pub fn load(max_flows: u32) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(maps::FLOWS, max_flows.max(1))
            .load(OBJECT)
            .map_err(|error| refused(&error))?;
        let program: &mut Xdp = ebpf
            .program_mut(PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| LoadError::Refused(format!("the object has no XDP program `{PROGRAM}`")))?;
        program.load().map_err(|error| refused(&error))?;
        Ok(Self {
            flows: take(&mut ebpf, maps::FLOWS)?,
            next_hops: take(&mut ebpf, maps::NEXT_HOPS)?,
            local: take(&mut ebpf, maps::LOCAL)?,
            reasons: take(&mut ebpf, maps::REASONS)?,
            members: take(&mut ebpf, maps::MEMBERS)?,
            links: BTreeMap::new(),
            ebpf,
        })
    }

    /// The program itself, for test runs.
    pub fn xdp(&mut self) -> &mut Xdp {
        let program = self.ebpf.program_mut(PROGRAM).and_then(|program| program.try_into().ok());
        program.expect("checked at load")
    }

    /// Attaches it to an interface until it is detached, dropped, or the interface goes away.
    pub fn attach(&mut self, ifindex: u32, hook: Hook) -> Result<(), io::Error> {
        let mode = match hook {
            Hook::Native => XdpMode::Driver,
            Hook::Generic => XdpMode::Skb,
        };
        let link = self.xdp().attach_to_if_index(ifindex, mode).map_err(|error| os_error(&error))?;
        self.links.insert(ifindex, link);
        Ok(())
    }

    /// Detaches it from an interface, which may be gone.
    pub fn detach(&mut self, ifindex: u32) {
        if let Some(link) = self.links.remove(&ifindex)
            && let Err(error) = self.xdp().detach(link)
        {
            tracing::debug!(ifindex, error = %chain(&error), "cannot detach");
        }
    }

    /// Indexes of the interfaces it was attached to.
    pub fn attached(&self) -> impl Iterator<Item = u32> {
        self.links.keys().copied()
    }

    /// Sets the relay's own addresses and ports.
    pub fn set_local(&mut self, local: Local) -> Result<(), InstallError> {
        self.local.set(0, local, 0).map_err(map_error)
    }

    /// Frames by reason, over all CPUs.
    pub fn reasons(&self) -> Vec<(Reason, Counter)> {
        Reason::ALL.iter().map(|reason| (*reason, total(&self.reasons, reason.index()))).collect()
    }

    /// Frames sent on, over all CPUs.
    pub fn forwarded(&self) -> u64 {
        [Reason::Forwarded, Reason::Redirected]
            .map(|reason| total(&self.reasons, reason.index()).packets)
            .iter()
            .sum()
    }

    /// What was forwarded for a member, over all CPUs.
    pub fn member(&self, slot: u32) -> Counter {
        total(&self.members, slot)
    }
}

impl Maps for Program {
    fn put_flow(&mut self, key: FlowKey, value: FlowValue) -> Result<(), InstallError> {
        self.flows.insert(key, value, 0).map_err(map_error)
    }

    fn remove_flow(&mut self, key: FlowKey) {
        // A flow that is not there is as good as removed.
        let _ = self.flows.remove(&key);
    }

    fn put_next_hop(&mut self, slot: u32, hop: NextHop) -> Result<(), InstallError> {
        self.next_hops.set(slot, hop, 0).map_err(map_error)
    }

    fn next_hops(&self) -> u32 {
        self.next_hops.len()
    }
}

fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map =
        ebpf.take_map(name).ok_or_else(|| LoadError::Refused(format!("the object has no map `{name}`")))?;
    M::try_from(map).map_err(|error| LoadError::Refused(format!("map `{name}`: {error}")))
}

fn total(counters: &PerCpuArray<MapData, Counter>, index: u32) -> Counter {
    let Ok(values) = counters.get(&index, 0) else { return Counter::default() };
    values.iter().fold(Counter::default(), |sum, counter| Counter {
        packets: sum.packets.wrapping_add(counter.packets),
        bytes: sum.bytes.wrapping_add(counter.bytes),
    })
}

fn map_error(error: MapError) -> InstallError {
    match &error {
        MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::E2BIG) => {
            InstallError::Full
        }
        _ => InstallError::Kernel(chain(&error)),
    }
}

/// A load error with everything below it, the verifier's log included.
fn refused<E: std::error::Error + 'static>(error: &E) -> LoadError {
    match find_io(error).and_then(io::Error::raw_os_error) {
        Some(libc::EPERM | libc::EACCES) if !has_verifier_log(error) => LoadError::NotPermitted,
        _ => LoadError::Refused(chain(error)),
    }
}

/// The verifier also refuses with EACCES, but then says why.
fn has_verifier_log(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref::<ProgramError>(), Some(ProgramError::LoadError { verifier_log, .. })
        if !verifier_log.to_string().trim().is_empty())
}

fn find_io<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        if let Some(ProgramError::LoadError { io_error, .. }) = error.downcast_ref::<ProgramError>() {
            return Some(io_error);
        }
        next = error.source();
    }
    None
}

fn os_error(error: &ProgramError) -> io::Error {
    match find_io(error).and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(chain(error)),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
