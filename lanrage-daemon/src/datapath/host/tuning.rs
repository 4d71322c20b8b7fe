//! Kernel settings that a busy relay cares about.

use serde::Serialize;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// As for `sysctl`.
    pub key: &'static str,
    /// What it is.
    pub value: u64,
    /// What is better, when that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub better: Option<u64>,
    /// Why.
    pub why: &'static str,
}

impl Setting {
    /// The command that sets it.
    pub fn fix(&self) -> Option<String> {
        self.better.map(|better| format!("sysctl -w {}={better}", self.key))
    }
}

struct Advice {
    key: &'static str,
    is_good: fn(u64) -> bool,
    better: u64,
    why: &'static str,
}

const ADVICE: &[Advice] = &[
    Advice {
        key: "net.core.rmem_max",
        is_good: |value| value >= 8 << 20,
        better: 8 << 20,
        why: "the daemon's socket wants 8 MiB for bursts; with CAP_NET_ADMIN it takes them anyway",
    },
    Advice {
        key: "net.core.wmem_max",
        is_good: |value| value >= 8 << 20,
        better: 8 << 20,
        why: "the same for sending",
    },
    Advice {
        key: "net.core.netdev_max_backlog",
        is_good: |value| value >= 4096,
        better: 4096,
        why: "packets that wait for a CPU with generic XDP, which drops what is more",
    },
    Advice {
        key: "net.core.netdev_budget",
        is_good: |value| value >= 300,
        better: 300,
        why: "packets a CPU takes from its cards before others get a turn",
    },
    Advice {
        key: "net.core.bpf_jit_enable",
        is_good: |value| value >= 1,
        better: 1,
        why: "without, the kernel interprets the program: ten times slower",
    },
    Advice {
        key: "net.core.bpf_jit_harden",
        is_good: |value| value <= 1,
        better: 1,
        why: "2 blinds the constants of root's programs too and makes them slower",
    },
    Advice {
        key: "kernel.unprivileged_bpf_disabled",
        is_good: |value| value >= 1,
        better: 1,
        why: "nobody but the relay needs to load programs here",
    },
];

/// Reads all that can be read here; network namespaces hide some.
pub fn look() -> Vec<Setting> {
    ADVICE.iter().filter_map(|advice| Some(advice.judge(read(advice.key)?))).collect()
}

impl Advice {
    fn judge(&self, value: u64) -> Setting {
        let better = (!(self.is_good)(value)).then_some(self.better);
        Setting { key: self.key, value, better, why: self.why }
    }
}

fn read(key: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_kept_by_the_file_in_deploy() {
        let file = include_str!("../../../../deploy/sysctl.d/90-lanrage-relay.conf");
        for advice in ADVICE {
            let line = file.lines().find(|line| line.starts_with(&format!("{} = ", advice.key)));
            let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
            assert!(
                value.is_some_and(|value| advice.judge(value).better.is_none()),
                "{}: {line:?}",
                advice.key
            );
        }
    }

    #[test]
    fn a_bad_value_comes_with_the_command() {
        let setting = ADVICE[0].judge(212_992);
        assert_eq!(setting.fix().as_deref(), Some("sysctl -w net.core.rmem_max=8388608"));
        assert_eq!(ADVICE[5].judge(2).better, Some(1));
        assert_eq!(ADVICE[5].judge(0).fix(), None);
    }
}
