//! What is known of network drivers: data, each row with its source.
//!
//! The limits hold for programs without fragments, on machines with 4 KiB pages. "Tested" means by this project's own
//! tests; everything else was read in the kernel's sources and is said to be so.

/// One driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driver {
    /// As in `/sys/class/net/NAME/device/driver`, or the kind of a virtual link.
    pub name: &'static str,
    /// First kernel whose driver runs XDP itself; `None` = only the generic hook works.
    pub native: Option<(u32, u32)>,
    /// Largest MTU for native XDP; `None` = no limit known.
    pub max_mtu: Option<u32>,
    /// What it asks of queues.
    pub queues: Queues,
    /// Which offloads forbid it.
    pub offloads: Offloads,
    /// Bytes that a program may grow a packet by at its front.
    pub headroom: u16,
    /// What an operator should know.
    pub note: &'static str,
    /// Where that is written.
    pub source: &'static str,
    /// Whether our own tests run on it.
    pub tested: bool,
}

/// What a driver asks of queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queues {
    /// Nothing.
    Any,
    /// At most half of the maximum in use, or it refuses.
    HalfOfMaximum,
    /// One free for each CPU, or sending takes a lock.
    OnePerCpuFree,
    /// No more than this many CPUs, or it refuses.
    AtMostCpus(u32),
}

/// Which offloads forbid native XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offloads {
    /// None.
    None,
    /// These have to be off.
    Off(&'static [&'static str]),
    /// These are turned off by the driver, unless the host of this virtual machine does not allow that.
    OffUnlessFixed(&'static [&'static str]),
}

const LRO: Offloads = Offloads::Off(&["rx-lro"]);

/// A driver with XDP's usual headroom and no peculiarities.
const fn native(name: &'static str, since: (u32, u32), max_mtu: u32, source: &'static str) -> Driver {
    Driver {
        name,
        native: Some(since),
        max_mtu: Some(max_mtu),
        queues: Queues::Any,
        offloads: Offloads::None,
        headroom: 256,
        note: "",
        source,
        tested: false,
    }
}

/// A driver without native XDP.
const fn generic(name: &'static str, note: &'static str, source: &'static str) -> Driver {
    Driver { native: None, max_mtu: None, note, ..native(name, (0, 0), 0, source) }
}

/// All that is known.
pub const DRIVERS: &[Driver] = &[
    Driver {
        queues: Queues::OnePerCpuFree,
        offloads: Offloads::OffUnlessFixed(&["rx-gro-hw", "rx-lro"]),
        note: "attaching turns off receive offloads; give the virtual machine twice as many queues as CPUs",
        ..native("virtio_net", (4, 10), 3506, "drivers/net/virtio_net.c, virtnet_xdp_set")
    },
    Driver {
        queues: Queues::HalfOfMaximum,
        note: "AWS: the MTU is 9001 unless changed; the link is reset for a moment when a program is attached",
        ..native("ena", (5, 6), 3498, "drivers/net/ethernet/amazon/ena/ena_xdp.c, ENA_XDP_MAX_MTU")
    },
    Driver {
        queues: Queues::HalfOfMaximum,
        offloads: LRO,
        headroom: 0,
        note: "Google Cloud: needs the GQI queue format before Linux 6.16; too little headroom for IPv4 to IPv6",
        ..native("gve", (6, 4), 2032, "drivers/net/ethernet/google/gve/gve_main.c, verify_xdp_configuration")
    },
    Driver {
        offloads: LRO,
        ..native(
            "mlx5_core",
            (4, 9),
            3498,
            "drivers/net/ethernet/mellanox/mlx5/core/en_main.c, mlx5e_xdp_allowed",
        )
    },
    native("mlx4_en", (4, 8), 3498, "drivers/net/ethernet/mellanox/mlx4/en_netdev.c, MLX4_EN_MAX_XDP_MTU"),
    Driver {
        queues: Queues::AtMostCpus(128),
        offloads: LRO,
        note: "refuses while SR-IOV or DCB is in use",
        ..native("ixgbe", (4, 12), 3050, "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_xdp_setup")
    },
    native("ixgbevf", (4, 17), 1500, "drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c, ixgbevf_xdp_setup"),
    native("i40e", (4, 13), 3046, "drivers/net/ethernet/intel/i40e/i40e_main.c, i40e_xdp_setup"),
    native("ice", (5, 5), 3046, "drivers/net/ethernet/intel/ice/ice_main.c, ice_xdp_setup_prog"),
    native("igb", (5, 10), 1500, "drivers/net/ethernet/intel/igb/igb_main.c, igb_xdp_setup"),
    Driver {
        note: "the link goes down for a moment when a program is attached",
        ..native("igc", (5, 13), 1500, "drivers/net/ethernet/intel/igc/igc_xdp.c, igc_xdp_set_prog")
    },
    Driver {
        note: "what XDP sends arrives only if the other end runs an XDP program too, or GRO",
        tested: true,
        ..native("veth", (4, 19), 3504, "drivers/net/veth.c, veth_xdp_set")
    },
    Driver {
        offloads: LRO,
        ..native(
            "vmxnet3",
            (6, 6),
            3400,
            "drivers/net/vmxnet3/vmxnet3_xdp.c, VMXNET3_XDP_MAX_MTU (rounded down)",
        )
    },
    Driver {
        offloads: LRO,
        note: "Azure: with accelerated networking most packets come by the virtual function's driver, which gets the \
               program too",
        ..native("hv_netvsc", (5, 6), 3506, "drivers/net/hyperv/netvsc_bpf.c, netvsc_xdp_set")
    },
    native("mana", (5, 17), 3498, "drivers/net/ethernet/microsoft/mana/mana_bpf.c"),
    Driver {
        offloads: LRO,
        ..native(
            "bnxt_en",
            (4, 11),
            3498,
            "drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c, BNXT_MAX_PAGE_MODE_MTU",
        )
    },
    native("nfp", (4, 10), 3498, "drivers/net/ethernet/netronome/nfp/nfp_net_common.c"),
    native("sfc", (5, 5), 3000, "drivers/net/ethernet/sfc/efx_common.c, efx_xdp_max_mtu (rounded down)"),
    native("xen-netfront", (5, 9), 3498, "drivers/net/xen-netfront.c, xennet_xdp_set"),
    native("stmmac", (5, 13), 1500, "drivers/net/ethernet/stmicro/stmmac/stmmac_xdp.c"),
    native("mvneta", (5, 5), 1500, "drivers/net/ethernet/marvell/mvneta.c, mvneta_xdp_setup"),
    generic("r8169", "a common desktop card", "drivers/net/ethernet/realtek/r8169_main.c has no ndo_bpf"),
    generic("e1000e", "", "drivers/net/ethernet/intel/e1000e/netdev.c has no ndo_bpf"),
    generic(
        "e1000",
        "a virtual machine: choose virtio instead",
        "drivers/net/ethernet/intel/e1000 has no ndo_bpf",
    ),
    generic(
        "8139cp",
        "a virtual machine: choose virtio instead",
        "drivers/net/ethernet/realtek/8139cp.c has no ndo_bpf",
    ),
    generic("tg3", "", "drivers/net/ethernet/broadcom/tg3.c has no ndo_bpf"),
    generic("bcmgenet", "Raspberry Pi 4", "drivers/net/ethernet/broadcom/genet has no ndo_bpf"),
    generic("bridge", "attach to its ports instead: relay.interfaces", "net/bridge has no ndo_bpf"),
    generic("vlan", "attach to the interface below it: relay.interfaces", "net/8021q has no ndo_bpf"),
    generic("ipvlan", "a container's interface", "drivers/net/ipvlan has no ndo_bpf"),
    generic("macvlan", "a container's interface", "drivers/net/macvlan.c has no ndo_bpf"),
];

/// What is known of a driver.
pub fn find(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_is_named_once_and_has_a_source() {
        for driver in DRIVERS {
            assert_eq!(
                DRIVERS.iter().filter(|other| other.name == driver.name).count(),
                1,
                "{}",
                driver.name
            );
            assert!(!driver.source.is_empty(), "{}", driver.name);
            assert_eq!(driver.native.is_some(), driver.max_mtu.is_some(), "{}", driver.name);
        }
        assert_eq!(find("veth").map(|driver| driver.tested), Some(true));
        assert_eq!(find("nothing"), None);
    }
}
