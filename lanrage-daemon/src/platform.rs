//! What differs between operating systems: the network interface, its routes, and what else the machine is
//! connected to. One leaf file per system, the same names in each; callers never ask which one it is.

#[cfg(target_os = "linux")]
#[path = "platform/linux.rs"]
mod imp;
#[cfg(not(target_os = "linux"))]
#[path = "platform/other.rs"]
mod imp;

#[cfg(target_os = "linux")]
pub mod cgroup;
pub mod holder;
#[cfg(all(test, target_os = "linux"))]
mod linux_tests;
pub mod processes;
pub mod programs;
pub mod udp;

pub use imp::{
    EthernetPort, Interface, NetworkWatch, allow_files, clock_zero, gateway, gateway6, host_name,
    is_wireless, mtus, networks, prepare_socket, prepare_stream, raw_socket, routes, uncut,
};

use ipnet::Ipv4Net;
use std::io;
use std::net::Ipv4Addr;

/// How the party's interface shall look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Its name.
    pub name: String,
    /// Own address.
    pub address: Ipv4Addr,
    /// The party's subnet.
    pub subnet: Ipv4Net,
    /// Bytes a packet may have.
    pub mtu: u16,
}

/// The interface could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The kernel has no TUN.
    #[error("this machine has no /dev/net/tun")]
    NoTun,
    /// Not enough rights.
    #[error("not permitted to create the network interface {0}")]
    NotPermitted(String),
    /// Somebody else has it.
    #[error("the network interface {0} belongs to another program")]
    NameTaken(String),
    /// Another error of the system.
    #[error("cannot create the network interface {name}: {cause}")]
    System {
        /// Which interface.
        name: String,
        /// What happened.
        cause: String,
    },
    /// No code for this system yet.
    #[error("network interfaces on this operating system are not supported yet")]
    Unsupported,
}

impl InterfaceError {
    /// What to do.
    pub fn fix(&self) -> String {
        match self {
            Self::NoTun => {
                "load the module with `modprobe tun`; in a container, pass it in with `--device /dev/net/tun --cap-add NET_ADMIN`".into()
            }
            Self::NotPermitted(_) => "run lanrage-daemon as root, or give it CAP_NET_ADMIN".into(),
            Self::NameTaken(name) => format!(
                "stop the other lanrage-daemon, remove it with `ip link delete {name}`, or set another name as `peer.interface` in lanrage.toml"
            ),
            Self::System { .. } => "see the log of lanrage-daemon; run it as root".into(),
            Self::Unsupported => "use Linux for now".into(),
        }
    }

    fn from_io(name: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NoTun,
            io::ErrorKind::PermissionDenied => Self::NotPermitted(name.into()),
            io::ErrorKind::ResourceBusy | io::ErrorKind::InvalidInput => Self::NameTaken(name.into()),
            _ => Self::System { name: name.into(), cause: error.to_string() },
        }
    }
}

/// A physical (or other foreign) network that this machine is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Name of the interface.
    pub interface: String,
    /// Own address with the prefix.
    pub address: Ipv4Net,
    /// Its directed broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// Number of the interface.
    pub index: u32,
    /// Its MAC address, if it is an Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Whether the default route leads there.
    pub is_default: bool,
}

/// A route in the main table, default routes left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Net,
    /// Through which interface, when it names one.
    pub interface: Option<String>,
}

/// A foreign route that `subnet` would take traffic from: one inside it, or the very same. Wider routes only lose a
/// corner that nobody uses, so they are no collision.
pub fn collision<'a>(subnet: &Ipv4Net, routes: &'a [Route], own_interface: &str) -> Option<&'a Route> {
    routes.iter().find(|route| {
        route.interface.as_deref() != Some(own_interface) && subnet.contains(&route.destination)
    })
}

/// A subnet for a new party that collides with nothing here; `None` when the server's default is free.
pub fn free_subnet(default: Ipv4Net, routes: &[Route], own_interface: &str) -> Option<Ipv4Net> {
    let is_free = |subnet: &Ipv4Net| collision(subnet, routes, own_interface).is_none();
    if is_free(&default) {
        return None;
    }
    let candidates = (67..128u8)
        .map(|second| Ipv4Addr::new(10, second, 0, 0))
        .chain((20..32).map(|second| Ipv4Addr::new(172, second, 0, 0)));
    candidates.filter_map(|network| Ipv4Net::new(network, 16).ok()).find(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, interface: &str) -> Route {
        Route { destination: destination.parse().unwrap(), interface: Some(interface.into()) }
    }

    #[test]
    fn only_routes_inside_the_subnet_collide() {
        let subnet = "10.66.0.0/16".parse().unwrap();
        let harmless =
            [route("10.0.0.0/8", "vpn0"), route("192.168.1.0/24", "eth0"), route("10.66.0.0/16", "lanrage0")];
        assert_eq!(collision(&subnet, &harmless, "lanrage0"), None);
        for harmful in [route("10.66.0.0/16", "eth0"), route("10.66.7.0/24", "eth0")] {
            let routes = [harmful];
            assert_eq!(collision(&subnet, &routes, "lanrage0"), Some(&routes[0]));
        }
    }

    #[test]
    fn a_free_subnet_is_offered_only_when_needed() {
        let default: Ipv4Net = "10.66.0.0/16".parse().unwrap();
        assert_eq!(free_subnet(default, &[], "lanrage0"), None);
        let taken = [route("10.66.1.0/24", "eth0"), route("10.67.0.0/16", "eth1")];
        assert_eq!(free_subnet(default, &taken, "lanrage0"), Some("10.68.0.0/16".parse().unwrap()));
    }
}
