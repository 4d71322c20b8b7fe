//! The kernel program and its maps. Only this module, `pins`, `shape` and `batch` speak aya.

use super::InstallError;
use super::pins::{Pins, Set};
use super::shape::Shape;
use super::table::Maps;
use crate::bpf::{chain, os_error, refused, take};
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use lanrage_common::maps::{
    self, Counter, Event, FlowKey, FlowValue, Local, MemberCounter, MemberState, NextHop, RECORD_LEN, Record,
    SourceKey,
};
use lanrage_common::reason::Reason;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{fmt, fs, io};

pub use crate::bpf::LoadError;

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

/// How often attaching is tried again where another program is, and after how long each time.
const RETRIES: u32 = 8;
const RETRY_AFTER: Duration = Duration::from_millis(25);

/// How the program is attached to an interface.
enum Attachment {
    /// Until the program is dropped.
    Held(XdpLinkId),
    /// Until the pin is removed.
    Pinned { _link: FdLink, hook: Hook },
}

/// Where a pinned program and its maps are.
struct Home {
    pins: Pins,
    set: Set,
    program: u32,
}

/// The loaded relay program. Dropping it detaches it, unless it is pinned.
pub struct Program {
    ebpf: Ebpf,
    flows: HashMap<MapData, FlowKey, FlowValue>,
    next_hops: Array<MapData, NextHop>,
    local: Array<MapData, Local>,
    reasons: PerCpuArray<MapData, Counter>,
    members: Array<MapData, MemberState>,
    sources: HashMap<MapData, SourceKey, u32>,
    counters: PerCpuArray<MapData, MemberCounter>,
    records: Array<MapData, Record>,
    events: RingBuf<MapData>,
    links: BTreeMap<u32, Attachment>,
    home: Option<Home>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

impl Program {
    /// What maps it has with room for `max_flows` flows.
    pub fn shapes(max_flows: u32) -> Result<Vec<Shape>, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        Shape::all(OBJECT, max_flows.max(1))
    }

    /// Loads the embedded program with room for `max_flows` flows. It is attached to nothing yet.
    pub fn load(max_flows: u32) -> Result<Self, LoadError> {
        Self::load_on(&Self::shapes(max_flows)?, None)
    }

    /// The same with the time taken from [`Local::clock`], for tests.
    pub fn load_with_given_clock(max_flows: u32) -> Result<Self, LoadError> {
        let mut loader = EbpfLoader::new();
        loader.override_global(maps::TEST_CLOCK, &1u8, true);
        Self::load_by(loader, &Self::shapes(max_flows)?, None)
    }

    /// The same, on maps that outlive it: those of `last` if they have the right layout and size, else new ones that
    /// begin with what `last` holds.
    pub fn load_pinned(max_flows: u32, pins: &Pins, last: Option<&Set>) -> Result<Self, LoadError> {
        let shapes = Self::shapes(max_flows)?;
        if let Some(last) = last.filter(|set| set.fits(&shapes)) {
            match Self::load_on(&shapes, Some(last)).and_then(|program| program.settle_in(pins, last.clone()))
            {
                Err(LoadError::Refused(error)) => {
                    tracing::warn!(error, set = last.name(), "pinned maps cannot be used: making new ones");
                }
                loaded => return loaded,
            }
        }
        let set = pins.new_set().map_err(not_pinned)?;
        let program = Self::load_on(&shapes, Some(&set))?;
        if let Some(last) = last
            && let Err(error) = set.fill_from(last, &shapes)
        {
            tracing::warn!(%error, set = last.name(), "not all flows could be taken over: members handshake again");
        }
        let mut program = program.settle_in(pins, set)?;
        if let Some(home) = &mut program.home {
            home.set = home.pins.complete(&home.set, &shapes).map_err(not_pinned)?;
        }
        Ok(program)
    }

    fn load_on(shapes: &[Shape], set: Option<&Set>) -> Result<Self, LoadError> {
        Self::load_by(EbpfLoader::new(), shapes, set)
    }

    fn load_by<'a>(
        mut loader: EbpfLoader<'a>,
        shapes: &'a [Shape],
        set: Option<&Set>,
    ) -> Result<Self, LoadError> {
        for shape in shapes {
            loader.map_max_entries(&shape.name, shape.max_entries);
            if let Some(set) = set {
                loader.map_pin_path(&shape.name, set.map(&shape.name));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| refused(&error))?;
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
            sources: take(&mut ebpf, maps::SOURCES)?,
            counters: take(&mut ebpf, maps::COUNTERS)?,
            records: take(&mut ebpf, maps::RECORDS)?,
            events: take(&mut ebpf, maps::EVENTS)?,
            links: BTreeMap::new(),
            home: None,
            ebpf,
        })
    }

    /// Pins the program beside its maps, which is how the next daemon knows whose maps an attached program uses.
    fn settle_in(mut self, pins: &Pins, set: Set) -> Result<Self, LoadError> {
        let id = self.xdp().info().map_err(|error| refused(&error))?.id();
        self.xdp().pin(set.program(id)).map_err(|error| refused(&error))?;
        self.home = Some(Home { pins: pins.clone(), set, program: id });
        Ok(self)
    }

    /// The program itself, for test runs.
    pub fn xdp(&mut self) -> &mut Xdp {
        let program = self.ebpf.program_mut(PROGRAM).and_then(|program| program.try_into().ok());
        program.expect("checked at load")
    }

    /// Attaches it to an interface until it is detached, dropped (unless it is pinned), or the interface goes away. Takes
    /// the place of an earlier daemon's program at the same hook in one step.
    pub fn attach(&mut self, ifindex: u32, hook: Hook) -> Result<(), io::Error> {
        let mode = match hook {
            Hook::Native => XdpMode::Driver,
            Hook::Generic => XdpMode::Skb,
        };
        let Some(home) = &self.home else {
            let link = self.attach_anew(ifindex, mode)?;
            self.links.insert(ifindex, Attachment::Held(link));
            return Ok(());
        };
        let path = home.pins.link_path(ifindex, hook);
        for other in [Hook::Native, Hook::Generic].into_iter().filter(|other| *other != hook) {
            unpin(&home.pins.link_path(ifindex, other))?;
        }
        let link = match self.take_over(&path)? {
            Some(link) => link,
            None => self.attach_and_pin(ifindex, mode, &path)?,
        };
        self.links.insert(ifindex, Attachment::Pinned { _link: link, hook });
        Ok(())
    }

    /// Puts the program into a pinned link. One that leads nowhere any more is removed.
    fn take_over(&mut self, path: &Path) -> io::Result<Option<FdLink>> {
        if !path.exists() {
            return Ok(None);
        }
        let link = PinnedLink::from_pin(path).map_err(|error| chain(&error));
        let link = link.and_then(|link| XdpLink::try_from(FdLink::from(link)).map_err(|error| chain(&error)));
        let link = link.and_then(|link| self.xdp().attach_to_link(link).map_err(|error| chain(&error)));
        match link {
            Ok(link) => self.take(link).map(Some),
            Err(error) => {
                tracing::info!(path = %path.display(), error, "a pinned link cannot be used: attaching anew");
                unpin(path).map(|()| None)
            }
        }
    }

    fn attach_and_pin(&mut self, ifindex: u32, mode: XdpMode, path: &Path) -> io::Result<FdLink> {
        let link = self.attach_anew(ifindex, mode)?;
        let link = self.take(link)?;
        let pinned = link.pin(path).map_err(|error| io::Error::other(chain(&error)))?;
        Ok(FdLink::from(pinned))
    }

    /// The kernel lets go of a link only some moments after it was removed.
    fn attach_anew(&mut self, ifindex: u32, mode: XdpMode) -> io::Result<XdpLinkId> {
        for _ in 0..RETRIES {
            match self.xdp().attach_to_if_index(ifindex, mode).map_err(|error| os_error(&error)) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
                    std::thread::sleep(RETRY_AFTER);
                }
                result => return result,
            }
        }
        self.xdp().attach_to_if_index(ifindex, mode).map_err(|error| os_error(&error))
    }

    fn take(&mut self, link: XdpLinkId) -> io::Result<FdLink> {
        let link = self.xdp().take_link(link).map_err(|error| os_error(&error))?;
        FdLink::try_from(link).map_err(|error| io::Error::other(chain(&error)))
    }

    /// Detaches it from an interface, which may be gone.
    pub fn detach(&mut self, ifindex: u32) {
        let detached = match (self.links.remove(&ifindex), &self.home) {
            (Some(Attachment::Held(link)), _) => self.xdp().detach(link).map_err(|error| chain(&error)),
            (Some(Attachment::Pinned { hook, .. }), Some(home)) => {
                unpin(&home.pins.link_path(ifindex, hook)).map_err(|error| error.to_string())
            }
            _ => Ok(()),
        };
        if let Err(error) = detached {
            tracing::debug!(ifindex, error, "cannot detach");
        }
    }

    /// Removes what earlier daemons pinned and this one does not use.
    pub fn tidy(&self) {
        if let Some(Home { pins, set, program }) = &self.home {
            let links = self.links.iter().filter_map(|(ifindex, attachment)| match attachment {
                Attachment::Pinned { hook, .. } => Some((*ifindex, *hook)),
                Attachment::Held(_) => None,
            });
            pins.keep_only(set, *program, &links.collect::<Vec<_>>());
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

    /// Keeps what the relay server remembers of the binding in a slot; empty = nothing.
    pub fn put_record(&mut self, slot: u32, bytes: &[u8]) -> Result<(), InstallError> {
        let mut record = Record { length: bytes.len() as u32, bytes: [0; RECORD_LEN] };
        let Some(place) = record.bytes.get_mut(..bytes.len()) else {
            return Err(InstallError::Kernel(format!("a record of {} bytes is too long", bytes.len())));
        };
        place.copy_from_slice(bytes);
        self.records.set(slot, record, 0).map_err(map_error)
    }

    /// Frames by reason, over all CPUs.
    pub fn reasons(&self) -> Vec<(Reason, Counter)> {
        Reason::ALL.iter().map(|reason| (*reason, self.reason(*reason))).collect()
    }

    fn reason(&self, reason: Reason) -> Counter {
        let Ok(values) = self.reasons.get(&reason.index(), 0) else { return Counter::default() };
        values.iter().fold(Counter::default(), |sum, counter| Counter {
            packets: sum.packets.wrapping_add(counter.packets),
            bytes: sum.bytes.wrapping_add(counter.bytes),
        })
    }

    /// Frames sent on, over all CPUs.
    pub fn forwarded(&self) -> u64 {
        [Reason::Forwarded, Reason::Redirected].map(|reason| self.reason(reason).packets).iter().sum()
    }

    /// What became of a member's packets, over all CPUs.
    pub fn member(&self, slot: u32) -> MemberCounter {
        let Ok(values) = self.counters.get(&slot, 0) else { return MemberCounter::default() };
        values.iter().fold(MemberCounter::default(), |sum, counter| MemberCounter {
            packets: sum.packets.wrapping_add(counter.packets),
            bytes: sum.bytes.wrapping_add(counter.bytes),
            dropped: sum.dropped.wrapping_add(counter.dropped),
        })
    }

    /// Samples of what was not forwarded since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            events.extend(Event::from_bytes(&item));
        }
        events
    }

    /// What a member may still send.
    pub fn member_state(&self, slot: u32) -> Option<MemberState> {
        self.members.get(&slot, 0).ok()
    }
}

impl Maps for Program {
    fn put_flow(&mut self, key: FlowKey, value: FlowValue) -> Result<(), InstallError> {
        self.flows.insert(key, value, 0).map_err(map_error)
    }

    fn flow(&self, key: FlowKey) -> Option<FlowValue> {
        self.flows.get(&key, 0).ok()
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

    fn put_member(&mut self, slot: u32, state: MemberState) -> Result<(), InstallError> {
        self.members.set(slot, state, 0).map_err(map_error)
    }

    fn put_source(&mut self, source: SourceKey, slot: u32) -> Result<(), InstallError> {
        self.sources.insert(source, slot, 0).map_err(map_error)
    }

    fn remove_source(&mut self, source: SourceKey) {
        // As for flows.
        let _ = self.sources.remove(&source);
    }

    fn sources(&self) -> Vec<SourceKey> {
        self.sources.keys().filter_map(Result::ok).collect()
    }
}

fn not_pinned(error: io::Error) -> LoadError {
    LoadError::Refused(format!("maps cannot be pinned: {error}"))
}

fn unpin(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn map_error(error: MapError) -> InstallError {
    match &error {
        MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::E2BIG) => {
            InstallError::Full
        }
        _ => InstallError::Kernel(chain(&error)),
    }
}
