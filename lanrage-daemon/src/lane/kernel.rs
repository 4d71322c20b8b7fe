//! The lane's programs on the party's interface and on physical networks. They go when the daemon goes, also by SIGKILL:
//! tcx links end with their process, and what clsact holds on the party's interface vanishes with it.

use super::Fallback;
use crate::bpf::{LoadError, chain, refused, take};
use crate::gateway::LanTap;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, TcError};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use lanrage_common::api::{LaneCopies, LaneStatus};
use lanrage_common::lane::maps::{
    self, AnswerKey, JoinKey, LaneLocal, MemberCopies, Step, TraceCount, TraceKey,
};
use lanrage_common::lane::{Lane, LaneReason};
use lanrage_common::wire::{Address, Be32, Family};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::thread::{self, JoinHandle};

/// The object that `build.rs` found; empty when there was none.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lanrage-lane"));

/// A program of the object for traffic control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The party's interface, out.
    Egress,
    /// The party's interface, in.
    Ingress,
    /// Physical networks, out.
    Nic,
    /// A gateway's home network, in.
    Lan,
}

impl Program {
    const ALL: [Self; 4] = [Self::Egress, Self::Ingress, Self::Nic, Self::Lan];

    fn name(self) -> &'static str {
        match self {
            Self::Egress => "lane_egress",
            Self::Ingress => "lane_ingress",
            Self::Nic => "nic_egress",
            Self::Lan => "lan_ingress",
        }
    }

    fn direction(self) -> TcAttachType {
        match self {
            Self::Egress | Self::Nic => TcAttachType::Egress,
            Self::Ingress | Self::Lan => TcAttachType::Ingress,
        }
    }
}

/// The loaded object: programs and maps.
pub struct Object {
    ebpf: Ebpf,
    local: Array<MapData, LaneLocal>,
    members: Array<MapData, Be32>,
    slots: HashMap<MapData, Be32, u32>,
    aliases: HashMap<MapData, Be32, u32>,
    joined: HashMap<MapData, JoinKey, u8>,
    copies: PerCpuArray<MapData, MemberCopies>,
    reasons: PerCpuArray<MapData, u64>,
    steps: PerCpuArray<MapData, u64>,
    trace: HashMap<MapData, TraceKey, TraceCount>,
    answers: HashMap<MapData, AnswerKey, u64>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").finish_non_exhaustive()
    }
}

impl Object {
    /// Loads the programs. `link_len` is the length of the header before IP: 0 on the party's interface, 14 in test runs.
    pub fn load(link_len: u32) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let mut loader = EbpfLoader::new();
        loader.override_global(maps::LINK_LEN, &link_len, true);
        let mut ebpf = loader.load(OBJECT).map_err(|error| refused(&error))?;
        for program in Program::ALL {
            classifier(&mut ebpf, program)?.load().map_err(|error| refused(&error))?;
        }
        Ok(Self {
            local: take(&mut ebpf, maps::LOCAL)?,
            members: take(&mut ebpf, maps::MEMBERS)?,
            slots: take(&mut ebpf, maps::SLOTS)?,
            aliases: take(&mut ebpf, maps::ALIASES)?,
            joined: take(&mut ebpf, maps::JOINED)?,
            copies: take(&mut ebpf, maps::COPIES)?,
            reasons: take(&mut ebpf, maps::REASONS)?,
            steps: take(&mut ebpf, maps::STEPS)?,
            trace: take(&mut ebpf, maps::TRACE)?,
            answers: take(&mut ebpf, maps::ANSWERS)?,
            ebpf,
        })
    }

    /// One of its programs, for test runs.
    pub fn program(&mut self, program: Program) -> Result<&mut SchedClassifier, LoadError> {
        classifier(&mut self.ebpf, program)
    }

    /// Tells the programs who is there. A group or foreign address among the members would make a copy come to the
    /// program again as a group packet: [`Lane::set_members`] leaves such out, and what it has is refused here again.
    pub fn tell(&mut self, local: LaneLocal, members: &[Ipv4Addr]) -> Result<(), String> {
        let members: Vec<Be32> = members.iter().map(|member| Be32::from_octets(member.octets())).collect();
        for member in &members {
            let address = Address::from_v4(*member);
            if local.is_group(Family::V4, &address) || !address.is_unicast() || *member == local.address {
                return Err(format!("{member:?} cannot be a member's address"));
            }
        }
        if members.len() > maps::MAX_MEMBERS as usize || local.members as usize != members.len() {
            return Err(format!("{} members do not fit", members.len()));
        }
        let failed = |error: aya::maps::MapError| chain(&error);
        // no copies while the table changes
        self.local.set(0, LaneLocal { members: 0, ..local }, 0).map_err(failed)?;
        let stale: Vec<Be32> = self.slots.keys().filter_map(Result::ok).collect();
        for member in stale.iter().filter(|member| !members.contains(member)) {
            self.slots.remove(member).map_err(failed)?;
        }
        for (slot, member) in (0u32..).zip(&members) {
            self.members.set(slot, *member, 0).map_err(failed)?;
            self.slots.insert(member, slot, 0).map_err(failed)?;
        }
        self.local.set(0, local, 0).map_err(failed)
    }

    /// Tells which addresses of a home network are aliases.
    pub fn tell_aliases(&mut self, aliases: &[Ipv4Addr]) -> Result<(), String> {
        let wanted: Vec<Be32> = aliases.iter().map(|alias| Be32::from_octets(alias.octets())).collect();
        let stale: Vec<Be32> = self.aliases.keys().filter_map(Result::ok).collect();
        for alias in stale.iter().filter(|alias| !wanted.contains(alias)) {
            self.aliases.remove(alias).map_err(|error| chain(&error))?;
        }
        wanted.iter().try_for_each(|alias| self.aliases.insert(alias, 1, 0).map_err(|error| chain(&error)))
    }

    /// Tells the programs what members have joined. In whatever order packets come meanwhile, none is kept from a member that
    /// wants it: that one has said what it has joined comes last and goes first.
    pub fn tell_joins(&mut self, wanted: &HashSet<JoinKey>) -> Result<(), String> {
        let known: HashSet<JoinKey> = self.joined.keys().filter_map(Result::ok).collect();
        let failed = |error: aya::maps::MapError| chain(&error);
        let said_first =
            |keys: Vec<JoinKey>| keys.into_iter().partition::<Vec<_>, _>(|key| key.group.is_none());
        let (said, groups) = said_first(known.difference(wanted).copied().collect());
        said.iter().try_for_each(|key| self.joined.remove(key)).map_err(failed)?;
        let (new_said, new_groups) = said_first(wanted.difference(&known).copied().collect());
        new_groups
            .iter()
            .chain(&new_said)
            .try_for_each(|key| self.joined.insert(key, 1, 0))
            .map_err(failed)?;
        groups.iter().try_for_each(|key| self.joined.remove(key)).map_err(failed)
    }

    /// Packets that came so far, over all CPUs.
    pub fn step(&self, step: Step) -> u64 {
        self.steps.get(&step.index(), 0).map_or(0, |values| values.iter().sum())
    }

    /// Packets dropped, over all CPUs.
    pub fn reason(&self, reason: LaneReason) -> u64 {
        self.reasons.get(&reason.index(), 0).map_or(0, |values| values.iter().sum())
    }

    /// What was counted of each conversation.
    pub fn traced(&self) -> Vec<(TraceKey, TraceCount)> {
        self.trace.iter().filter_map(Result::ok).collect()
    }

    /// Packets of members to ports that asked.
    pub fn answers(&self) -> Vec<(AnswerKey, u64)> {
        self.answers.iter().filter_map(Result::ok).collect()
    }

    /// Forgets a conversation's counts.
    pub fn forget(&mut self, key: &TraceKey) {
        // one that is not there any more is forgotten too
        let _ = self.trace.remove(key);
    }

    /// What became of the copies for the member in a slot.
    pub fn copies(&self, slot: u32) -> MemberCopies {
        let Ok(values) = self.copies.get(&slot, 0) else { return MemberCopies::default() };
        values.iter().fold(MemberCopies::default(), |sum, copies| MemberCopies {
            sent: sum.sent + copies.sent,
            failed: sum.failed + copies.failed,
        })
    }
}

fn classifier(ebpf: &mut Ebpf, program: Program) -> Result<&mut SchedClassifier, LoadError> {
    let name = program.name();
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| LoadError::Refused(format!("the object has no program `{name}`")))
}

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    /// Linux 6.6 and newer; beside what others have attached.
    Tcx,
    /// Older kernels.
    Clsact,
}

/// The lane in the kernel, attached. It ends with this value.
#[derive(Debug)]
pub struct KernelLane {
    object: Object,
    hook: Hook,
    index: u32,
    told: Option<(LaneLocal, Vec<Ipv4Addr>)>,
    /// [`Lane::joined_version`].
    told_joins: u64,
    /// By interface number: attached, or why not.
    nics: BTreeMap<u32, Result<SchedClassifierLinkId, String>>,
    /// The gateway's home networks, by interface number: attached, or why not.
    lans: BTreeMap<u32, Result<SchedClassifierLinkId, String>>,
    /// What was told of them.
    taps: Vec<LanTap>,
}

/// Programs that are loaded before they are needed: the verifier takes a quarter of a second, in which a party's first
/// packets would wait.
#[derive(Debug, Default)]
pub struct Prepared(Option<JoinHandle<Result<Object, LoadError>>>);

impl Prepared {
    /// Begins to load.
    pub fn start() -> Self {
        Self(Some(thread::spawn(|| Object::load(0))))
    }

    /// Those that were loaded, or others: they serve one interface.
    fn take(&mut self) -> Result<Object, LoadError> {
        match self.0.take().map(JoinHandle::join) {
            Some(Ok(loaded)) => loaded,
            _ => Object::load(0),
        }
    }
}

impl KernelLane {
    /// Loads the programs and attaches them to the party's interface; or says why that does not work here.
    pub fn open(prepared: &mut Prepared, interface: &str, index: u32) -> Result<Self, Fallback> {
        let mut object = prepared.take().map_err(load_fallback)?;
        let hook = [Hook::Tcx, Hook::Clsact]
            .into_iter()
            .find(|hook| attach(&mut object, Program::Ingress, interface, *hook).is_ok());
        let hook = hook.ok_or_else(|| attach_fallback(interface, "neither tcx nor clsact is to be had"))?;
        attach(&mut object, Program::Egress, interface, hook)
            .map_err(|error| attach_fallback(interface, &error))?;
        Ok(Self {
            object,
            hook,
            index,
            told: None,
            told_joins: 0,
            nics: BTreeMap::new(),
            lans: BTreeMap::new(),
            taps: Vec::new(),
        })
    }

    /// Name of the hook in use.
    pub fn hook(&self) -> &'static str {
        match self.hook {
            Hook::Tcx => "tcx",
            Hook::Clsact => "clsact",
        }
    }

    /// Tells the programs what has changed.
    pub fn follow(&mut self, lane: &Lane) {
        self.follow_joins(lane);
        let local = LaneLocal { ifindex: self.index, ..*lane.local() };
        if self.told.as_ref().is_some_and(|(old, members)| *old == local && members == lane.members()) {
            return;
        }
        if let Err(error) = self.object.tell(local, lane.members()) {
            tracing::warn!(
                error,
                "the kernel does not learn who is in the party: some members get no group packets"
            );
        }
        self.follow_nics(&local);
        self.told = Some((local, lane.members().to_vec()));
    }

    fn follow_joins(&mut self, lane: &Lane) {
        if self.told_joins == lane.joined_version() {
            return;
        }
        self.told_joins = lane.joined_version();
        if let Err(error) = self.object.tell_joins(&lane.joins()) {
            // half the truth would keep packets from members
            let _ = self.object.tell_joins(&HashSet::new());
            tracing::warn!(error, "the kernel does not learn what members have joined: they get everything");
        }
    }

    /// Leads what comes for aliases on home networks to the party's interface.
    pub fn follow_lans(&mut self, wanted: &[LanTap]) -> Result<(), String> {
        if self.taps != wanted {
            self.taps = wanted.to_vec();
            let aliases: Vec<Ipv4Addr> = wanted.iter().flat_map(|tap| &tap.aliases).copied().collect();
            if let Err(error) = self.object.tell_aliases(&aliases) {
                self.taps.clear(); // so it is tried again
                return Err(error);
            }
            self.attach_lans(wanted);
        }
        let refused = self.lans.values().find_map(|link| link.as_ref().err());
        refused.map_or(Ok(()), |error| Err(error.clone()))
    }

    fn attach_lans(&mut self, wanted: &[LanTap]) {
        let is_wanted = |index: &u32| wanted.iter().any(|tap| tap.index == *index);
        let gone = self.lans.extract_if(.., |index, _| !is_wanted(index)).filter_map(|(_, link)| link.ok());
        let gone: Vec<SchedClassifierLinkId> = gone.collect();
        if let Ok(program) = self.object.program(Program::Lan) {
            for link in gone {
                // an interface that is gone took the program with it
                let _ = program.detach(link);
            }
        }
        for LanTap { index, .. } in wanted {
            if !self.lans.contains_key(index) {
                let attached =
                    name_of(*index).and_then(|name| attach(&mut self.object, Program::Lan, &name, self.hook));
                self.lans.insert(*index, attached);
            }
        }
    }

    fn follow_nics(&mut self, local: &LaneLocal) {
        let wanted: Vec<u32> =
            local.homes.iter().map(|home| home.ifindex).filter(|index| *index != 0).collect();
        self.nics.retain(|index, link| {
            let keep = wanted.contains(index);
            if let (false, Ok(program)) = (keep, self.object.program(Program::Nic))
                && let Ok(link) = std::mem::replace(link, Err(String::new()))
            {
                // an interface that is gone took the program with it
                let _ = program.detach(link);
            }
            keep
        });
        for index in wanted {
            if self.nics.contains_key(&index) {
                continue;
            }
            let link =
                name_of(index).and_then(|name| attach(&mut self.object, Program::Nic, &name, self.hook));
            if let Err(error) = &link {
                tracing::warn!(
                    index,
                    error,
                    "games that are bound to this interface are not heard in the party"
                );
            }
            self.nics.insert(index, link);
        }
    }

    /// What was counted of each conversation.
    pub fn traced(&self) -> Vec<(TraceKey, TraceCount)> {
        self.object.traced()
    }

    /// Packets of members to ports that asked.
    pub fn answers(&self) -> Vec<(AnswerKey, u64)> {
        self.object.answers()
    }

    /// Forgets a conversation's counts.
    pub fn forget(&mut self, key: &TraceKey) {
        self.object.forget(key);
    }

    /// Adds what the programs have counted.
    pub fn count(&self, status: &mut LaneStatus) {
        status.hook = Some(self.hook().into());
        status.seen += self.object.step(Step::Seen);
        status.copied += self.object.step(Step::Copied);
        status.spared += self.object.step(Step::Spared);
        status.delivered += self.object.step(Step::Delivered);
        status.captured += self.object.step(Step::Captured);
        status.home_copied += self.object.step(Step::HomeCopied);
        status.source_fixed += self.object.step(Step::SourceFixed);
        status.destination_fixed += self.object.step(Step::DestinationFixed);
        for reason in LaneReason::ALL {
            let count = self.object.reason(*reason);
            if count > 0 {
                *status.dropped.entry(reason.name().into()).or_default() += count;
            }
        }
        let members = self.told.iter().flat_map(|(_, members)| members);
        for (slot, member) in (0u32..).zip(members) {
            let MemberCopies { sent, failed } = self.object.copies(slot);
            status.members.insert(*member, LaneCopies { sent, failed });
        }
    }
}

fn name_of(index: u32) -> Result<String, String> {
    let name = nix::net::if_::if_indextoname(index).map_err(|error| error.to_string())?;
    name.into_string().map_err(|error| error.to_string())
}

fn attach(
    object: &mut Object,
    program: Program,
    interface: &str,
    hook: Hook,
) -> Result<SchedClassifierLinkId, String> {
    let options = match hook {
        Hook::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
        Hook::Clsact => {
            add_clsact(interface)?;
            // left by a daemon that was killed
            let _ = tc::qdisc_detach_program(interface, program.direction(), program.name());
            TcAttachOptions::Netlink(NlOptions::default())
        }
    };
    let loaded = object.program(program).map_err(|error| error.to_string())?;
    let attached = loaded.attach_with_options(interface, program.direction(), options);
    attached.map_err(|error: ProgramError| chain(&error))
}

/// One that is there already is fine: others may use it too, so it stays.
fn add_clsact(interface: &str) -> Result<(), String> {
    match tc::qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if chain(&error).contains("exists") => Ok(()),
        result => result.map_err(|error| chain(&error)),
    }
}

fn load_fallback(error: LoadError) -> Fallback {
    Fallback::new(error.to_string(), error.fix("5.17"))
}

fn attach_fallback(interface: &str, error: &str) -> Fallback {
    Fallback::new(
        format!("the kernel programs cannot be attached to {interface}: {error}"),
        "load the modules `sch_ingress` and `cls_bpf`, or use Linux 6.6 or newer, then restart",
    )
}
