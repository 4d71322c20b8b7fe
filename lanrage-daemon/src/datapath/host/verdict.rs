//! How a relay would forward on an interface, and why.

use super::HAS_PROGRAM;
use super::drivers::{self, Driver, Offloads, Queues};
use super::interface::Interface;
use super::kernel::{Kernel, OLDEST};
use super::privileges::Privileges;
use crate::config::RelayModeChoice;
use lanrage_common::api::RelayMode;
use serde::Serialize;

/// Bytes that an IPv4 packet grows by when it becomes IPv6.
const MIXED_GROWTH: u16 = 20;

/// What would come of attaching.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The best that should work.
    pub mode: RelayMode,
    /// What it rests on.
    pub basis: Basis,
    /// Whether pairs of an IPv4 and an IPv6 member could be forwarded in the kernel; unknown for unknown drivers.
    pub mixed_pairs: Option<bool>,
    /// What is in the way, and what else to know.
    pub remarks: Vec<Remark>,
}

/// How well a verdict is founded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The kernel says what the driver can, and our tests run on that driver.
    Tested,
    /// The kernel says what the driver can.
    Kernel,
    /// The driver is in the table.
    Table,
    /// Nothing is known of the driver; `--try` would tell.
    Unknown,
}

/// How much a remark weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Good to know.
    Note,
    /// It works, but not as well as it could.
    Slower,
    /// Native XDP is out, generic is not.
    NoNative,
    /// The kernel cannot forward.
    NoKernel,
}

/// One remark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// How much it weighs.
    pub weight: Weight,
    /// What is so.
    pub what: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Remark {
    fn new(weight: Weight, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { weight, what: what.into(), fix: Some(fix.into()) }
    }

    fn note(what: impl Into<String>) -> Self {
        Self { weight: Weight::Note, what: what.into(), fix: None }
    }
}

/// Judges an interface.
pub fn judge(
    interface: &Interface,
    kernel: &Kernel,
    privileges: &Privileges,
    cpus: u32,
    choice: RelayModeChoice,
) -> Verdict {
    let driver = interface.driver.as_deref().and_then(drivers::find);
    let mut remarks = system(kernel, privileges, choice);
    remarks.extend(driver_itself(interface, driver, kernel));
    if let Some(driver) = driver.filter(|driver| driver.native.is_some()) {
        remarks.extend(mtu(interface, driver));
        remarks.extend(offloads(interface, driver));
        remarks.extend(queues(interface, driver, cpus));
        if !driver.note.is_empty() {
            remarks.push(Remark::note(driver.note));
        }
    }
    remarks.extend(conflict(interface));
    remarks.sort_by_key(|remark| std::cmp::Reverse(remark.weight));
    let mode = match remarks.iter().map(|remark| remark.weight).max() {
        Some(Weight::NoKernel) => RelayMode::Userspace,
        Some(Weight::NoNative) if choice == RelayModeChoice::XdpNative => RelayMode::Userspace,
        Some(Weight::NoNative) => RelayMode::XdpGeneric,
        _ if choice == RelayModeChoice::XdpGeneric => RelayMode::XdpGeneric,
        _ => RelayMode::XdpNative,
    };
    let mixed_pairs = match mode {
        RelayMode::XdpGeneric => Some(true),
        RelayMode::XdpNative => driver.map(|driver| driver.headroom >= MIXED_GROWTH),
        RelayMode::Userspace => Some(false),
    };
    Verdict { mode, basis: basis(interface, driver), mixed_pairs, remarks }
}

fn basis(interface: &Interface, driver: Option<&Driver>) -> Basis {
    match (interface.native_xdp, driver) {
        (Some(_), Some(driver)) if driver.tested => Basis::Tested,
        (Some(_), _) => Basis::Kernel,
        (None, Some(_)) => Basis::Table,
        (None, None) => Basis::Unknown,
    }
}

fn system(kernel: &Kernel, privileges: &Privileges, choice: RelayModeChoice) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut refuse = |what: String, fix: &str| remarks.push(Remark::new(Weight::NoKernel, what, fix));
    if choice == RelayModeChoice::Userspace {
        refuse("the configuration asks for userspace".into(), "set relay.mode = \"auto\"");
    }
    if !HAS_PROGRAM {
        refuse(
            "this build has no kernel program".into(),
            "build with `cargo xtask build-ebpf` first, or take a release",
        );
    }
    if kernel.version < OLDEST {
        refuse(
            format!("Linux {} is too old for the kernel program", kernel.release),
            "use Linux 6.1 or newer",
        );
    }
    if kernel.lockdown.as_deref() == Some("confidentiality") {
        refuse(
            "the kernel is locked down (confidentiality) and loads no programs".into(),
            "boot with lockdown=integrity",
        );
    }
    if !privileges.lacks.is_empty() {
        refuse(
            format!("this process lacks {}", privileges.lacks.join(" ")),
            "run with sudo; the systemd unit grants them, a container needs --cap-add for each",
        );
    }
    remarks
}

fn driver_itself(interface: &Interface, driver: Option<&Driver>, kernel: &Kernel) -> Option<Remark> {
    let name = interface.driver.as_deref().unwrap_or("unknown");
    if !interface.ethernet {
        let fix = "name the card below it in relay.interfaces";
        return Some(Remark::new(Weight::NoKernel, "this interface carries no Ethernet frames", fix));
    }
    if interface.native_xdp == Some(true) {
        return None;
    }
    let other_card = "a card or a virtual machine type whose driver has it (virtio_net, ena, mlx5, ixgbe, i40e, ice, igb, igc) is faster";
    match (driver, interface.native_xdp) {
        (Some(Driver { native: None, note, .. }), _) => {
            let hint = if note.is_empty() { String::new() } else { format!(" ({note})") };
            Some(Remark::new(
                Weight::NoNative,
                format!("the driver {name}{hint} has no native XDP"),
                other_card,
            ))
        }
        (Some(Driver { native: Some(since), .. }), told)
            if told == Some(false) || kernel.version < *since =>
        {
            let (major, minor) = since;
            Some(Remark::new(
                Weight::NoNative,
                format!(
                    "the driver {name} has native XDP since Linux {major}.{minor}, but not as this card is set up"
                ),
                "see the remarks below, and `dmesg` after a trial: lanrage relay check --try",
            ))
        }
        (Some(_), _) => None,
        (None, Some(false)) => Some(Remark::new(
            Weight::NoNative,
            format!("the kernel says that the driver {name} has no native XDP"),
            other_card,
        )),
        (None, _) => Some(Remark::new(
            Weight::Slower,
            format!("nothing is known of the driver {name}"),
            "find out by a trial: lanrage relay check --try",
        )),
    }
}

fn mtu(interface: &Interface, driver: &Driver) -> Option<Remark> {
    let max = driver.max_mtu.filter(|max| interface.mtu > *max)?;
    Some(Remark::new(
        Weight::NoNative,
        format!(
            "the MTU {} is above {max}, the most that {} takes with native XDP",
            interface.mtu, driver.name
        ),
        format!("ip link set dev {} mtu {}", interface.name, max.min(1500)),
    ))
}

fn offloads(interface: &Interface, driver: &Driver) -> Option<Remark> {
    let (names, must_be_fixed) = match driver.offloads {
        Offloads::None => return None,
        Offloads::Off(names) => (names, false),
        Offloads::OffUnlessFixed(names) => (names, true),
    };
    let in_the_way: Vec<_> = names.iter().filter_map(|name| interface.offload(name)).collect();
    let fixed = in_the_way.iter().any(|offload| !offload.changeable);
    if in_the_way.is_empty() || (must_be_fixed && !fixed) {
        return None;
    }
    let list: Vec<_> = in_the_way.iter().map(|offload| offload.name).collect();
    let what = format!("{} forbids native XDP while {} is on", driver.name, list.join(" and "));
    let fix = if fixed {
        "ask the host of this virtual machine for guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"
            .into()
    } else {
        format!(
            "ethtool -K {} {}",
            interface.name,
            list.iter().map(|name| format!("{name} off")).collect::<Vec<_>>().join(" ")
        )
    };
    Some(Remark::new(Weight::NoNative, what, fix))
}

fn queues(interface: &Interface, driver: &Driver, cpus: u32) -> Option<Remark> {
    let name = &interface.name;
    if let Queues::AtMostCpus(most) = driver.queues {
        let what = format!("{} takes native XDP on up to {most} CPUs, there are {cpus}", driver.name);
        return (cpus > most)
            .then(|| Remark::new(Weight::NoNative, what, format!("boot with maxcpus={most}")));
    }
    let count = interface.queues?;
    let half = (count.max / 2).max(1);
    match driver.queues {
        Queues::HalfOfMaximum if count.now > half => Some(Remark::new(
            Weight::NoNative,
            format!(
                "{} of {} queues are in use; {} wants the other half for XDP",
                count.now, count.max, driver.name
            ),
            format!("ethtool -L {name} combined {half}"),
        )),
        Queues::OnePerCpuFree if count.now + cpus > count.max => Some(Remark::new(
            Weight::Slower,
            format!(
                "{} of {} queues are in use and none is left for each of {cpus} CPUs: sending takes a lock",
                count.now, count.max
            ),
            match count.max.checked_sub(cpus).filter(|now| *now > 0) {
                Some(now) => format!("ethtool -L {name} combined {now}"),
                None => format!("give the virtual machine {} queues, or fewer CPUs", cpus * 2),
            },
        )),
        _ if count.now < cpus.min(count.max) => Some(Remark::new(
            Weight::Slower,
            format!(
                "{} of {} queues are in use on {cpus} CPUs: the others cannot forward",
                count.now, count.max
            ),
            format!("ethtool -L {name} combined {}", cpus.min(count.max)),
        )),
        _ => None,
    }
}

fn conflict(interface: &Interface) -> Option<Remark> {
    let program = interface.program.as_ref()?;
    if program.is_ours() {
        return Some(Remark::note(format!("a relay's program is attached now ({})", program.hook)));
    }
    let name = program.name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    Some(Remark::new(
        Weight::NoKernel,
        format!("the XDP program number {}{name} is attached already ({})", program.id, program.hook),
        format!("if it is not needed: ip link set dev {} xdp off", interface.name),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::host::interface::{Attached, Offload, QueueCount};

    fn card(driver: &str) -> Interface {
        Interface {
            index: 2,
            name: "eth0".into(),
            driver: Some(driver.into()),
            up: true,
            ethernet: true,
            mtu: 1500,
            addresses: vec!["192.0.2.1".parse().unwrap()],
            ..Interface::default()
        }
    }

    fn on(interface: &Interface, version: (u32, u32), cpus: u32) -> Verdict {
        let kernel = Kernel {
            version,
            release: format!("{}.{}", version.0, version.1),
            btf: true,
            ..Kernel::default()
        };
        let mut verdict = judge(interface, &kernel, &Privileges::default(), cpus, RelayModeChoice::Auto);
        verdict.remarks.retain(|remark| !remark.what.contains("this build has"));
        verdict
    }

    fn fixes(verdict: &Verdict) -> Vec<&str> {
        verdict.remarks.iter().filter_map(|remark| remark.fix.as_deref()).collect()
    }

    /// The mode as it is in a build with the kernel program.
    fn mode(verdict: &Verdict) -> RelayMode {
        match verdict.remarks.first().map(|remark| remark.weight) {
            Some(Weight::NoKernel) => RelayMode::Userspace,
            Some(Weight::NoNative) => RelayMode::XdpGeneric,
            _ => RelayMode::XdpNative,
        }
    }

    #[test]
    fn amazon_needs_a_smaller_mtu_and_half_the_queues() {
        let interface = Interface {
            mtu: 9001,
            queues: Some(QueueCount { now: 8, max: 8 }),
            native_xdp: Some(true),
            ..card("ena")
        };
        let verdict = on(&interface, (6, 5), 8);
        assert_eq!(mode(&verdict), RelayMode::XdpGeneric);
        assert_eq!(fixes(&verdict), ["ip link set dev eth0 mtu 1500", "ethtool -L eth0 combined 4"]);
        let cured = Interface { mtu: 1500, queues: Some(QueueCount { now: 4, max: 8 }), ..interface };
        let verdict = on(&cured, (6, 5), 4);
        assert_eq!((mode(&verdict), verdict.basis), (RelayMode::XdpNative, Basis::Kernel));
    }

    #[test]
    fn virtio_is_refused_only_by_offloads_that_cannot_be_changed() {
        let offload = |changeable| vec![Offload { name: "rx-gro-hw", on: true, changeable }];
        let free = Interface { offloads: offload(true), ..card("virtio_net") };
        assert_eq!(mode(&on(&free, (6, 1), 2)), RelayMode::XdpNative);
        let fixed = Interface { offloads: offload(false), ..card("virtio_net") };
        let verdict = on(&fixed, (6, 1), 2);
        assert_eq!(mode(&verdict), RelayMode::XdpGeneric);
        assert!(fixes(&verdict)[0].contains("guest_tso4=off"));
        let crowded = Interface { queues: Some(QueueCount { now: 2, max: 2 }), ..card("virtio_net") };
        let verdict = on(&crowded, (6, 1), 2);
        assert_eq!((mode(&verdict), verdict.remarks[0].weight), (RelayMode::XdpNative, Weight::Slower));
        assert_eq!(fixes(&verdict), ["give the virtual machine 4 queues, or fewer CPUs"]);
    }

    #[test]
    fn what_the_kernel_says_beats_the_table() {
        let verdict = on(&Interface { native_xdp: Some(true), ..card("brand_new") }, (6, 18), 1);
        assert_eq!(
            (mode(&verdict), verdict.basis, verdict.mixed_pairs),
            (RelayMode::XdpNative, Basis::Kernel, None)
        );
        let verdict = on(&Interface { native_xdp: Some(false), ..card("gve") }, (6, 18), 1);
        assert_eq!(mode(&verdict), RelayMode::XdpGeneric);
        assert_eq!(mode(&on(&card("gve"), (6, 1), 1)), RelayMode::XdpGeneric, "since 6.4");
        let verdict = on(&card("brand_new"), (6, 1), 1);
        assert_eq!(verdict.basis, Basis::Unknown);
        assert!(fixes(&verdict)[0].contains("--try"));
    }

    #[test]
    fn headroom_decides_mixed_pairs() {
        let gve = on(&Interface { native_xdp: Some(true), ..card("gve") }, (6, 18), 1);
        let veth = on(&Interface { native_xdp: Some(true), ..card("veth") }, (6, 18), 1);
        if HAS_PROGRAM {
            assert_eq!(
                (gve.mixed_pairs, veth.mixed_pairs, veth.basis),
                (Some(false), Some(true), Basis::Tested)
            );
        }
    }

    #[test]
    fn lro_goes_off_by_command() {
        let lro = vec![Offload { name: "rx-lro", on: true, changeable: true }];
        let verdict = on(&Interface { offloads: lro, ..card("mlx5_core") }, (6, 1), 2);
        assert_eq!(
            (mode(&verdict), fixes(&verdict)[0]),
            (RelayMode::XdpGeneric, "ethtool -K eth0 rx-lro off")
        );
    }

    #[test]
    fn another_program_and_missing_privileges_leave_userspace() {
        let program = Some(Attached { id: 9, name: Some("cil_from_net".into()), hook: "native" });
        let verdict = on(&Interface { program, ..card("veth") }, (6, 18), 1);
        assert_eq!(mode(&verdict), RelayMode::Userspace);
        assert!(verdict.remarks[0].what.contains("number 9 (cil_from_net)"));
        let ours = Some(Attached { id: 9, name: Some("relay".into()), hook: "native" });
        assert_eq!(mode(&on(&Interface { program: ours, ..card("veth") }, (6, 18), 1)), RelayMode::XdpNative);
        let lacks = Privileges { lacks: vec!["CAP_BPF"], ..Privileges::default() };
        let kernel = Kernel { version: (6, 1), ..Kernel::default() };
        let verdict = judge(&card("veth"), &kernel, &lacks, 1, RelayModeChoice::Auto);
        assert_eq!(verdict.mode, RelayMode::Userspace);
        assert_eq!(mode(&on(&card("veth"), (5, 4), 1)), RelayMode::Userspace, "too old");
    }
}
