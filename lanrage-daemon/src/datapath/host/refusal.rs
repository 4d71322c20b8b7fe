//! What to do when an interface refuses a program.

use super::drivers::{self, Driver, Queues};
use crate::datapath::xdp::Hook;

/// What the kernel's answer to an attempt to attach means on this interface, and what helps. `code` is an errno.
pub fn fix(name: &str, mtu: u32, driver: Option<&str>, hook: Hook, code: Option<i32>) -> String {
    let known = driver.and_then(drivers::find);
    match code {
        Some(libc::EPERM | libc::EACCES) => {
            "run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, then restart".into()
        }
        Some(libc::EBUSY | libc::EEXIST) => {
            format!("another XDP program holds {name}: `ip link set dev {name} xdp off`, then restart")
        }
        Some(libc::ENODEV | libc::ENXIO) => {
            format!("{name} is gone: bring it back, the relay attaches by itself")
        }
        _ if hook == Hook::Generic => "see the kernel log (`dmesg`)".into(),
        Some(
            libc::EOPNOTSUPP
            | libc::EINVAL
            | libc::ERANGE
            | libc::E2BIG
            | libc::EFAULT
            | libc::ENOMEM
            | libc::ENOSPC,
        ) => native_fix(name, mtu, driver, known),
        _ => "see the kernel log (`dmesg`)".into(),
    }
}

/// Drivers say little: what they are known to ask is tried in order.
fn native_fix(name: &str, mtu: u32, driver: Option<&str>, known: Option<&Driver>) -> String {
    let Some(known) = known else {
        let driver = driver.map_or_else(|| format!("of {name}"), |driver| format!("{driver} of {name}"));
        return format!(
            "the driver {driver} has no native XDP as far as is known; `lanrage relay check` tells more"
        );
    };
    if known.native.is_none() {
        return format!("the driver {} has no native XDP; a network card that has is faster", known.name);
    }
    if let Some(max) = known.max_mtu.filter(|max| mtu > *max) {
        return format!("`ip link set dev {name} mtu {}`, then restart", max.min(1500));
    }
    match known.queues {
        Queues::HalfOfMaximum => {
            format!(
                "`ethtool -L {name} combined N` with half of the maximum that `ethtool -l {name}` shows, then restart"
            )
        }
        Queues::OnePerCpuFree => format!(
            "turn off receive offloads: `ethtool -K {name} lro off rx-gro-hw off`, then restart; if that is not \
             allowed, ask the host for guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"
        ),
        Queues::Any if known.name == "veth" => {
            format!(
                "the other end of {name} has a larger MTU or more queues than native XDP takes; `ethtool -l {name}` shows queues"
            )
        }
        _ => format!(
            "turn off receive offloads: `ethtool -K {name} lro off`; else see the kernel log (`dmesg`)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_command_that_helps() {
        let fix = |driver, mtu, code| super::fix("eth0", mtu, Some(driver), Hook::Native, Some(code));
        assert_eq!(fix("ena", 9001, libc::EFAULT), "`ip link set dev eth0 mtu 1500`, then restart");
        assert!(fix("ena", 1500, libc::EINVAL).starts_with("`ethtool -L eth0 combined N`"));
        assert!(fix("virtio_net", 1500, libc::EOPNOTSUPP).contains("ethtool -K eth0 lro off rx-gro-hw off"));
        assert!(fix("r8169", 1500, libc::EOPNOTSUPP).contains("r8169 has no native XDP"));
        assert!(fix("ixgbe", 1500, libc::EINVAL).contains("ethtool -K eth0 lro off"));
        assert!(fix("ixgbe", 1500, libc::EBUSY).contains("ip link set dev eth0 xdp off"));
        assert!(fix("nonesuch", 1500, libc::EOPNOTSUPP).contains("as far as is known"));
        assert!(fix("ena", 1500, libc::EPERM).contains("CAP_BPF"));
    }
}
