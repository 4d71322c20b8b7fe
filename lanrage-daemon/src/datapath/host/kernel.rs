//! What the running kernel has.

use serde::Serialize;
use std::path::Path;

/// Below this the relay forwards in userspace: no CAP_BPF, no ring buffer.
pub const OLDEST: (u32, u32) = (5, 8);

/// The running kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// As `uname -r` gives it.
    pub release: String,
    /// Major and minor version.
    pub version: (u32, u32),
    /// Type information, `/sys/kernel/btf/vmlinux`.
    pub btf: bool,
    /// Where bpffs is mounted: pinned programs and maps survive a restart there.
    pub bpffs: Option<String>,
    /// Compiles programs to machine code; unknown without procfs.
    pub jit: Option<bool>,
    /// The lockdown mode, when one is on.
    pub lockdown: Option<String>,
    /// What it has not, that the relay could use.
    pub lacks: Vec<Lack>,
}

/// Something missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// What.
    pub what: &'static str,
    /// What follows.
    pub so: &'static str,
    /// First kernel that has it.
    pub since: (u32, u32),
}

const FEATURES: &[Lack] = &[
    Lack { what: "BPF ring buffer and CAP_BPF", so: "the relay forwards in userspace", since: (5, 8) },
    Lack {
        what: "XDP links",
        so: "a restart of the daemon detaches the program for a moment",
        since: (5, 9),
    },
    Lack { what: "BPF memory by control group", so: "LimitMEMLOCK=infinity is needed", since: (5, 11) },
    Lack {
        what: "XDP features by netlink",
        so: "native XDP is judged by the table of drivers",
        since: (6, 3),
    },
];

impl Kernel {
    /// Looks.
    pub fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
        let version = version(&release);
        let jit = match read("/proc/sys/net/core/bpf_jit_enable").trim() {
            "" => None,
            value => Some(value != "0"),
        };
        Self {
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            bpffs: bpffs(&read("/proc/self/mounts")),
            jit,
            lockdown: lockdown(&read("/sys/kernel/security/lockdown")),
            lacks: lacks(version),
            release,
            version,
        }
    }

    /// Whether kernel programs can be loaded at all.
    pub fn runs_programs(&self) -> bool {
        self.version >= OLDEST && self.lockdown.as_deref() != Some("confidentiality")
    }
}

fn lacks(version: (u32, u32)) -> Vec<Lack> {
    FEATURES.iter().filter(|feature| version < feature.since).copied().collect()
}

/// `6.1.0-18-cloud-amd64` → (6, 1).
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn bpffs(mounts: &str) -> Option<String> {
    let places = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "bpf").then(|| place.to_owned())
    });
    places.min_by_key(|place| place != "/sys/fs/bpf")
}

/// The word in brackets of `none [integrity] confidentiality`.
fn lockdown(text: &str) -> Option<String> {
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    (mode != "none").then(|| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_compared() {
        assert_eq!(version("6.1.0-18-cloud-amd64"), (6, 1));
        assert_eq!(version("5.10"), (5, 10));
        assert_eq!(version(""), (0, 0));
        assert_eq!(lacks((5, 10)).len(), 2);
        assert!(lacks((6, 3)).is_empty());
        let old = Kernel { version: (5, 4), ..Kernel::default() };
        assert!(!old.runs_programs());
    }

    #[test]
    fn mounts_and_lockdown_are_read() {
        let mounts = "proc /proc proc rw 0 0\nbpf /tmp/x bpf rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert_eq!(bpffs(mounts).as_deref(), Some("/sys/fs/bpf"));
        assert_eq!(bpffs("proc /proc proc rw 0 0\n"), None);
        assert_eq!(lockdown("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(lockdown("[none] integrity confidentiality\n"), None);
        assert_eq!(lockdown(""), None);
    }
}
