//! The relay's directory in bpffs, where its links and maps outlive the daemon.
//!
//! ```text
//! relay-3478-1a2b3c4d5e6f7081/      one relay
//!   maps-v2-9f86d081/               a set of maps, by layout version and sizes
//!     FLOWS NEXT_HOPS …
//!     program-77                    a program that works on them
//!   maps-new/                       a set that is being made
//!   link-4026531840-2-native        attachment to interface 2 of a network namespace
//! ```
//!
//! Everything is safe to interrupt: a set gets its name only when it is complete, a link moves to another program in one
//! system call, and what is left over is found and removed at the next start.

use super::Fallback;
use super::batch::Entries;
use super::shape::Shape;
use super::xdp::Hook;
use aya::maps::{MapData, MapInfo};
use aya::programs::ProgramInfo;
use aya::programs::links::{FdLink, PinnedLink};
use aya::util::KernelVersion;
use lanrage_common::maps::{self, FlowKey, FlowValue, LAYOUT_VERSION, NextHop, Record};
use nix::sys::statfs::statfs;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// `BPF_FS_MAGIC`.
const BPFFS: i64 = 0xcafe_4a11;
const NEW: &str = "maps-new";

/// A relay's directory in bpffs.
#[derive(Debug, Clone)]
pub struct Pins {
    directory: PathBuf,
    namespace: u64,
}

impl Pins {
    /// Makes the directory if need be, and clears half-made things out of it. Says why links and maps cannot be kept here.
    pub(super) fn open(directory: &Path) -> Result<Self, Fallback> {
        if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 9, 0)) {
            return Err(Fallback::new("XDP links came with Linux 5.9", "run a newer kernel"));
        }
        check_file_system(directory)?;
        let refused = |error: io::Error| {
            Fallback::new(
                format!("{} cannot be used: {error}", directory.display()),
                "let the daemon's user make directories there, or set `relay.pin_dir` to a BPF file system where it \
                 may, then restart",
            )
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refused)?;
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_err(refused)?.ino();
        let pins = Self { directory: directory.to_owned(), namespace };
        pins.clear_half_made().map_err(refused)?;
        Ok(pins)
    }

    fn clear_half_made(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let (path, name) = named(&entry?);
            let known = set_version(&name).is_some() || self.link(&name).is_some() || is_foreign_link(&name);
            if !known {
                tracing::info!(path = %path.display(), "removing what an interrupted start left behind");
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// The set that holds what the last daemon knew: one that an attached program works on before others, then the one
    /// with these shapes.
    fn last_set(&self, shapes: &[Shape]) -> Option<Set> {
        let programs = self.attached_programs();
        let wanted = set_name(shapes);
        let mut sets: Vec<Set> = self.sets().filter(|set| set.is_readable()).collect();
        sets.sort_by_key(|set| (!set.has_program(&programs), set.name != wanted, set.name.clone()));
        sets.into_iter().next()
    }

    /// What the last daemon knew; nothing, if there was none or its maps cannot be read.
    pub fn leftovers(&self, shapes: &[Shape]) -> Leftovers {
        let Some(set) = self.last_set(shapes) else { return Leftovers::default() };
        Leftovers {
            flows: Entries::default(),
            reading: set.read_flows(),
            records: set
                .entries(maps::RECORDS)
                .typed()
                .filter(|(_, record): &(u32, Record)| record.length > 0)
                .collect(),
            next_hops: set.entries(maps::NEXT_HOPS).typed().map(|(_, hop): (u32, NextHop)| hop).collect(),
            set: Some(set),
        }
    }

    fn sets(&self) -> impl Iterator<Item = Set> {
        let names = self.names().into_iter();
        names.filter_map(|name| Some(Set { version: set_version(&name)?, ..self.set(&name) }))
    }

    fn set(&self, name: &str) -> Set {
        Set { directory: self.directory.join(name), name: name.into(), version: LAYOUT_VERSION }
    }

    /// An empty place for a new set.
    pub fn new_set(&self) -> io::Result<Set> {
        let set = self.set(NEW);
        if set.directory.exists() {
            remove(&set.directory)?;
        }
        DirBuilder::new().mode(0o700).create(&set.directory)?;
        Ok(set)
    }

    /// Gives a complete set its name; one that had it goes.
    pub fn complete(&self, set: &Set, shapes: &[Shape]) -> io::Result<Set> {
        let complete = self.set(&set_name(shapes));
        if complete.directory.exists() {
            remove(&complete.directory)?;
        }
        fs::rename(&set.directory, &complete.directory)?;
        Ok(complete)
    }

    /// Removes all but what is in use: other sets, other programs, other links. Links that go detach their programs.
    pub fn keep_only(&self, set: &Set, program: u32, links: &[(u32, Hook)]) {
        let links: Vec<String> =
            links.iter().map(|(ifindex, hook)| link_name(self.namespace, *ifindex, *hook)).collect();
        let others = self.names().into_iter().filter(|name| *name != set.name && !links.contains(name));
        others.for_each(|name| report(&self.directory.join(name)));
        set.forget_programs_but(program);
    }

    /// Detaches everything and removes the directory.
    pub fn remove(directory: &Path) -> io::Result<()> {
        if !directory.exists() {
            return Ok(());
        }
        // Links first: no program should run on while its maps go.
        let names = fs::read_dir(directory)?.flatten().map(|entry| named(&entry));
        let (links, others): (Vec<_>, Vec<_>) = names.partition(|(_, name)| name.starts_with("link-"));
        links.iter().chain(&others).try_for_each(|(path, _)| remove(path))?;
        fs::remove_dir(directory)
    }

    /// Where the link to an interface of this network namespace is pinned.
    pub fn link_path(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.directory.join(link_name(self.namespace, ifindex, hook))
    }

    /// Where interfaces of this network namespace are attached.
    pub fn links(&self) -> Vec<(u32, Hook)> {
        self.names().iter().filter_map(|name| self.link(name)).collect()
    }

    fn link(&self, name: &str) -> Option<(u32, Hook)> {
        let (namespace, ifindex, hook) = parse_link(name)?;
        (namespace == self.namespace).then_some((ifindex, hook))
    }

    fn attached_programs(&self) -> Vec<u32> {
        let links = self.links().into_iter().map(|(ifindex, hook)| self.link_path(ifindex, hook));
        let links = links.filter_map(|path| PinnedLink::from_pin(path).ok());
        links.filter_map(|link| FdLink::from(link).info().ok()).map(|info| info.program_id()).collect()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.map(|entry| named(&entry).1).collect()
    }
}

/// What the last daemon left in its maps.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Where.
    pub set: Option<Set>,
    /// Once they are read.
    flows: Entries,
    /// A million flows take as long to read as the program takes to load: both happen at once.
    reading: Option<JoinHandle<Entries>>,
    /// What they point to, by slot.
    pub next_hops: Vec<NextHop>,
    /// Records of bindings by slot.
    pub records: Vec<(u32, Record)>,
}

impl Leftovers {
    /// Its flows, once they are read.
    pub fn flows(&self) -> impl ExactSizeIterator<Item = (FlowKey, FlowValue)> {
        self.flows.typed()
    }

    /// Waits until the flows are read.
    pub fn complete(&mut self) {
        if let Some(reading) = self.reading.take() {
            self.flows = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

/// A directory with all maps of one layout and size.
#[derive(Debug, Clone)]
pub struct Set {
    directory: PathBuf,
    name: String,
    version: u32,
}

impl Set {
    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether a program with maps of these shapes can work on it as it is.
    pub fn fits(&self, shapes: &[Shape]) -> bool {
        self.name == set_name(shapes)
            && shapes.iter().all(|shape| {
                MapInfo::from_pin(self.map(&shape.name)).is_ok_and(|info| shape.describes(&info))
            })
    }

    /// Whether this daemon knows what its entries mean. A later version that changes the layout translates here those of
    /// the versions it knows; what it cannot read, members bring again by their next handshakes.
    fn is_readable(&self) -> bool {
        let readable = self.version == LAYOUT_VERSION;
        if !readable {
            tracing::info!(
                layout = self.version,
                own = LAYOUT_VERSION,
                "flows of another layout are not taken over: members handshake again"
            );
        }
        readable
    }

    /// Entries of a hash or an array.
    fn entries(&self, map: &str) -> Entries {
        self.open(map).and_then(|read| read()).unwrap_or_else(|error| self.cannot_read(map, &error))
    }

    /// Opens a hash or an array, and reads it when the answer is called: the set may be gone by then.
    fn open(&self, map: &str) -> io::Result<impl FnOnce() -> io::Result<Entries> + use<>> {
        let data = MapData::from_pin(self.map(map)).map_err(io::Error::other)?;
        let info = data.info().map_err(io::Error::other)?;
        let (key_size, value_size) = (info.key_size(), info.value_size());
        Ok(move || Entries::read(data.fd().as_fd(), key_size, value_size))
    }

    /// Begins to read all flows.
    fn read_flows(&self) -> Option<JoinHandle<Entries>> {
        let set = self.clone();
        let failed = move |error: &io::Error| set.cannot_read(maps::FLOWS, error);
        let read = self.open(maps::FLOWS).inspect_err(|error| drop(failed(error))).ok()?;
        Some(std::thread::spawn(move || read().unwrap_or_else(|error| failed(&error))))
    }

    fn cannot_read(&self, map: &str, error: &io::Error) -> Entries {
        tracing::warn!(map, %error, set = self.name, "cannot read what the last relay left");
        Entries::default()
    }

    /// Copies what the other set holds, as far as there is room and the entries are of the same size.
    pub fn fill_from(&self, other: &Self, shapes: &[Shape]) -> io::Result<()> {
        for shape in shapes.iter().filter(|shape| shape.is_copied()) {
            let (Ok(from), Ok(to)) =
                (MapData::from_pin(other.map(&shape.name)), MapData::from_pin(self.map(&shape.name)))
            else {
                continue;
            };
            let info = from.info().map_err(io::Error::other)?;
            if !shape.has_entries_of(&info) {
                continue;
            }
            let mut entries = Entries::read(from.fd().as_fd(), info.key_size(), info.value_size())?;
            if shape.is_array() {
                entries.truncate_array(shape.max_entries);
            }
            entries.write(to.fd().as_fd())?;
        }
        Ok(())
    }

    /// Where the program with that number is pinned.
    pub fn program(&self, id: u32) -> PathBuf {
        self.directory.join(format!("program-{id}"))
    }

    fn programs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let named = entries.map(|entry| named(&entry));
        named.filter(|(_, name)| name.starts_with("program-")).map(|(path, _)| path).collect()
    }

    /// Numbers begin anew with each boot, but bpffs is empty then.
    fn has_program(&self, ids: &[u32]) -> bool {
        let programs = self.programs().into_iter();
        programs.filter_map(|path| ProgramInfo::from_pin(path).ok()).any(|info| ids.contains(&info.id()))
    }

    fn forget_programs_but(&self, id: u32) {
        let keep = self.program(id);
        self.programs().iter().filter(|path| **path != keep).for_each(|path| report(path));
    }

    /// Its maps by name, for the log.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn check_file_system(directory: &Path) -> Result<(), Fallback> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let is_bpffs = statfs(existing).is_ok_and(|stat| stat.filesystem_type().0 == BPFFS);
    if is_bpffs {
        return Ok(());
    }
    Err(Fallback::new(
        format!("{} is not on a BPF file system", existing.display()),
        "mount one: `mount -t bpf bpf /sys/fs/bpf` (a container needs the host's, `-v /sys/fs/bpf:/sys/fs/bpf`), or set \
         `relay.pin_dir = \"\"` to do without, then restart",
    ))
}

fn named(entry: &fs::DirEntry) -> (PathBuf, String) {
    (entry.path(), entry.file_name().to_string_lossy().into_owned())
}

/// FNV-1a over everything that must be alike for a program to work on a set.
fn set_name(shapes: &[Shape]) -> String {
    let text: String = shapes.iter().map(|shape| format!("{shape:?}")).collect();
    let fold = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = text.bytes().fold(0x811c_9dc5, fold);
    format!("maps-v{LAYOUT_VERSION}-{hash:08x}")
}

fn set_version(name: &str) -> Option<u32> {
    let (version, _) = name.strip_prefix("maps-v")?.split_once('-')?;
    version.parse().ok()
}

fn link_name(namespace: u64, ifindex: u32, hook: Hook) -> String {
    format!("link-{namespace}-{ifindex}-{}", hook_name(hook))
}

fn parse_link(name: &str) -> Option<(u64, u32, Hook)> {
    let mut parts = name.strip_prefix("link-")?.split('-');
    let (namespace, ifindex) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let hook = parts.next()?;
    let hook = [Hook::Native, Hook::Generic].into_iter().find(|known| hook_name(*known) == hook)?;
    parts.next().is_none().then_some((namespace, ifindex, hook))
}

fn is_foreign_link(name: &str) -> bool {
    parse_link(name).is_some()
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Native => "native",
        Hook::Generic => "generic",
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn report(path: &Path) {
    if let Err(error) = remove(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove what the relay does not use any more: remove it by hand");
    }
}
