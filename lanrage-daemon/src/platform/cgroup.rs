//! Control groups (cgroups(7)), version 2: what a program is started in to be known with all its children.

use std::io;
use std::path::{Component, Path, PathBuf};

/// How the groups of `lanrage run` are called; their process's number follows.
pub const PREFIX: &str = "lanrage-run-";

/// Where version 2 is mounted.
pub fn root() -> Option<PathBuf> {
    mounted(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// This process's group, as a path below [`root`] that begins with a slash.
pub fn own() -> Option<String> {
    group_of(&std::fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The directory of a group that `lanrage run` has made. `group` comes from a user: whoever could make a group of that name there
/// may have it steered, and nobody else.
pub fn directory(root: &Path, group: &str) -> io::Result<PathBuf> {
    let path = Path::new(group);
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !path.is_absolute() || !is_plain || !name.starts_with(PREFIX) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{group} is no group of `lanrage run`"),
        ));
    }
    let directory = below(root, group);
    std::fs::metadata(directory.join("cgroup.procs"))?;
    Ok(directory)
}

/// The directory of any group.
pub fn below(root: &Path, group: &str) -> PathBuf {
    root.join(group.trim_start_matches('/'))
}

/// Moves this process into the group.
pub fn enter(directory: &Path) -> io::Result<()> {
    std::fs::write(directory.join("cgroup.procs"), "0")
}

/// Whether processes are left in it, or below it.
pub fn is_populated(directory: &Path) -> bool {
    let events = std::fs::read_to_string(directory.join("cgroup.events"));
    events.is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

/// `36 35 98:0 / /sys/fs/cgroup rw,… shared:9 - cgroup2 cgroup2 rw`: the fields before and after the dash vary in number.
fn mounted(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The line of version 2 is `0::/path`.
fn group_of(cgroup: &str) -> Option<String> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_found_beside_version_1() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mounted(&hybrid.replace("cgroup2", "cgroup")), None);
        assert_eq!(
            group_of("9:name=systemd:/\n0::/user.slice/a.scope\n"),
            Some("/user.slice/a.scope".into())
        );
        assert_eq!(group_of("1:cpu:/\n"), None);
    }

    #[test]
    fn only_groups_of_this_program_are_taken() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a/lanrage-run-7");
        std::fs::create_dir_all(&group).unwrap();
        let find = |text: &str| directory(root.path(), text).ok();
        assert_eq!(find("/a/lanrage-run-7"), None, "no control group");
        for file in [group.join("cgroup.procs"), root.path().join("a/cgroup.procs")] {
            std::fs::write(file, "").unwrap();
        }
        assert_eq!(find("/a/lanrage-run-7"), Some(group));
        for wrong in [
            "",
            "/",
            "/a",
            "a/lanrage-run-7",
            "/a/../a/lanrage-run-7",
            "/a/lanrage-run-8",
            "/a/lanrage-run-7/..",
        ] {
            assert_eq!(find(wrong), None, "{wrong}");
        }
    }
}
