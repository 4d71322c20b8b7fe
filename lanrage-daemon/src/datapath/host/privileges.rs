//! What this process may do.

use serde::Serialize;

/// Number and name of what a relay needs; numbers as in `linux/capability.h`.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// On kernels before 5.8, and accepted ever since.
const SYS_ADMIN: u32 = 21;
const BIND_SERVICE: u32 = 10;

/// Privileges of the running process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Privileges {
    /// Effective user id.
    pub user: u32,
    /// Those a relay needs that are effective here.
    pub has: Vec<&'static str>,
    /// Those a relay needs that are not.
    pub lacks: Vec<&'static str>,
    /// Whether it may listen on ports below 1024.
    pub low_ports: bool,
    /// Bytes it may lock; absent = no limit.
    pub memlock: Option<u64>,
}

impl Privileges {
    /// Looks.
    pub fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/status"), &read("/proc/self/limits"))
    }

    fn parse(status: &str, limits: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let set = u64::from_str_radix(field("CapEff:").trim(), 16).unwrap_or(0);
        let has = |bit: u32| set & (1 << bit) != 0;
        let granted = |(bit, _): &(u32, &str)| has(*bit) || (*bit > SYS_ADMIN && has(SYS_ADMIN));
        let (present, absent): (Vec<_>, Vec<_>) = NEEDED.iter().partition(|needed| granted(needed));
        let names = |list: Vec<&(u32, &'static str)>| list.into_iter().map(|(_, name)| *name).collect();
        let memlock = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
        Self {
            user: field("Uid:").split_whitespace().nth(1).and_then(|id| id.parse().ok()).unwrap_or(u32::MAX),
            has: names(present),
            lacks: names(absent),
            low_ports: has(BIND_SERVICE),
            memlock: memlock.and_then(|rest| rest.split_whitespace().next()?.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_and_limits_are_read() {
        let limits = "Limit    Soft Limit  Hard Limit  Units\nMax locked memory   8388608  8388608  bytes\n";
        let status = "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t000000c000001000\n";
        let privileges = Privileges::parse(status, limits);
        assert_eq!(privileges.user, 1000);
        assert_eq!(privileges.has, ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        assert!(privileges.lacks.is_empty() && !privileges.low_ports);
        assert_eq!(privileges.memlock, Some(8_388_608));
        let root = Privileges::parse(
            "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
            "Max locked memory unlimited unlimited bytes\n",
        );
        assert_eq!((root.user, root.memlock, root.low_ports), (0, None, true));
        let none = Privileges::parse("Uid:\t7\t7\t7\t7\nCapEff:\t0000000000000000\n", "");
        assert_eq!(none.lacks, ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        let admin = Privileges::parse("CapEff:\t0000000000200000\n", "");
        assert_eq!(admin.lacks, ["CAP_NET_ADMIN"], "CAP_SYS_ADMIN includes the two newer ones");
    }
}
