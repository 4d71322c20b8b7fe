//! Programs that `lanrage run` has started: each is in a control group of its own, to which kernel programs are attached while
//! anything runs in it. They go with this process, also by SIGKILL.

use crate::bpf::{LoadError, chain, refused, take};
use crate::platform::cgroup;
use aya::maps::{Array, MapData};
use aya::programs::cgroup_sock_addr::CgroupSockAddrLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use aya::{Ebpf, include_bytes_aligned};
use lanrage_common::lane::maps::{LaneLocal, RUN_LOCAL};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The object that `build.rs` found; empty when there was none.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lanrage-run"));
const PROGRAMS: [&str; 5] = ["run_bind4", "run_bind6", "run_connect4", "run_connect6", "run_sendmsg4"];
/// Programs at once.
const MAX_RUNS: usize = 32;

/// A program cannot be made to use the party; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No kernel support.
    #[error(
        "this machine has no control groups of version 2: start it with systemd.unified_cgroup_hierarchy=1"
    )]
    NoGroups,
    /// Not a group of `lanrage run`, or gone.
    #[error("{0}: start programs by `lanrage run`, on this machine and in no container of their own")]
    NotFound(std::io::Error),
    /// Enough.
    #[error("{MAX_RUNS} programs run by `lanrage run` already: end one of them")]
    TooMany,
    /// The kernel refused.
    #[error("{0}: {fix}", fix = .0.fix("5.7"))]
    Load(#[from] LoadError),
    /// The kernel refused.
    #[error(
        "the kernel does not let programs be steered: {0}; run lanrage-daemon as root, or give it CAP_BPF and CAP_NET_ADMIN"
    )]
    Attach(String),
}

/// All of them.
#[derive(Debug, Default)]
pub struct Runs {
    /// While anything runs.
    object: Option<Object>,
    running: BTreeMap<PathBuf, Vec<CgroupSockAddrLink>>,
}

struct Object {
    ebpf: Ebpf,
    map: Array<MapData, LaneLocal>,
    told: LaneLocal,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").finish_non_exhaustive()
    }
}

impl Runs {
    /// Makes what runs in that group use the party, as long as anything runs there.
    pub fn start(&mut self, group: &str, local: LaneLocal) -> Result<(), RunError> {
        let root = cgroup::root().ok_or(RunError::NoGroups)?;
        let directory = cgroup::directory(&root, group).map_err(RunError::NotFound)?;
        self.sweep();
        if self.running.len() >= MAX_RUNS {
            return Err(RunError::TooMany);
        }
        if self.object.is_none() {
            self.object = Some(Object::load()?);
        }
        let started = self.attach(&directory, local);
        if self.running.is_empty() {
            self.object = None;
        }
        started
    }

    fn attach(&mut self, directory: &Path, local: LaneLocal) -> Result<(), RunError> {
        let Some(object) = &mut self.object else { return Ok(()) };
        object.tell(local).map_err(RunError::Attach)?;
        let group = File::open(directory).map_err(RunError::NotFound)?;
        let links = PROGRAMS.iter().map(|name| object.attach(name, &group)).collect::<Result<_, _>>();
        self.running.insert(directory.to_owned(), links.map_err(RunError::Attach)?);
        Ok(())
    }

    /// Tells the programs what the lane knows by now.
    pub fn follow(&mut self, local: LaneLocal) {
        if let Some(object) = &mut self.object
            && let Err(error) = object.tell(local)
        {
            tracing::warn!(error, "programs under `lanrage run` do not learn that networks have changed");
        }
    }

    /// Lets go of groups in which nothing runs any more.
    pub fn sweep(&mut self) {
        self.running.retain(|directory, _| {
            let goes_on = cgroup::is_populated(directory);
            if !goes_on {
                // mostly gone already, or not this user's; the next `lanrage run` there removes it
                let _ = std::fs::remove_dir(directory);
            }
            goes_on
        });
        if self.running.is_empty() {
            self.object = None;
        }
    }
}

impl Object {
    fn load() -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| refused(&error))?;
        for name in PROGRAMS {
            program(&mut ebpf, name)?.load().map_err(|error| refused(&error))?;
        }
        Ok(Self { map: take(&mut ebpf, RUN_LOCAL)?, told: LaneLocal::default(), ebpf })
    }

    fn tell(&mut self, local: LaneLocal) -> Result<(), String> {
        if self.told != local {
            self.map.set(0, local, 0).map_err(|error| chain(&error))?;
            self.told = local;
        }
        Ok(())
    }

    fn attach(&mut self, name: &'static str, group: &File) -> Result<CgroupSockAddrLink, String> {
        let program = program(&mut self.ebpf, name).map_err(|error| error.to_string())?;
        // no flags: a link always lets others attach too
        let link = program.attach(group, CgroupAttachMode::Single).map_err(|error| chain(&error))?;
        program.take_link(link).map_err(|error| chain(&error))
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSockAddr, LoadError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| LoadError::Refused(format!("the object has no program `{name}`")))
}
