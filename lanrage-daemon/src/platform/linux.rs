//! Linux: a TUN device, and netlink for everything around it.

#[path = "linux/gateways.rs"]
mod gateways;
#[path = "linux/sockets.rs"]
mod sockets;

pub use gateways::{gateway, gateway6};
pub(super) use sockets::set_option;
pub use sockets::{EthernetPort, prepare_socket, prepare_stream, raw_socket, uncut};

use super::{InterfaceConfig, InterfaceError, Network, Route};
use futures_util::{StreamExt as _, TryStreamExt as _};
use ipnet::Ipv4Net;
use lanrage_common::lane::link_local;
use lanrage_common::wire::Be32;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tun_rs::{AsyncDevice, DeviceBuilder};

/// What a group packet is sent to; both need a route, or a game bound to 0.0.0.0 sends them to the default route.
const GROUP_ROUTES: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::BROADCAST, 32), (Ipv4Addr::new(224, 0, 0, 0), 4)];

/// Packets that may wait on the party's interface: a game that asks 100 ports at once (Civilization VI) makes that many
/// copies for each of 40 members, faster than they are taken.
const QUEUE: u32 = 4096;

/// The party's interface. It vanishes, with its routes, when this is dropped.
pub struct Interface {
    device: AsyncDevice,
    index: u32,
    config: InterfaceConfig,
    netlink: Netlink,
    /// Addresses to which packets are kept shorter.
    lengths: BTreeMap<Ipv4Addr, u16>,
}

impl std::fmt::Debug for Interface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interface").field("index", &self.index).field("config", &self.config).finish()
    }
}

impl Interface {
    /// Makes the interface with address, MTU and routes, and sets it up.
    pub async fn create(config: InterfaceConfig) -> Result<Self, InterfaceError> {
        let name = config.name.clone();
        if !std::path::Path::new("/dev/net/tun").exists() {
            return Err(InterfaceError::NoTun);
        }
        let device = DeviceBuilder::new()
            .name(name.as_str())
            .enable(false)
            .build_async()
            .map_err(|error| InterfaceError::from_io(&name, &error))?;
        let system = |cause: String| InterfaceError::System { name: name.clone(), cause };
        let index = device.if_index().map_err(|error| system(error.to_string()))?;
        if let Err(error) = device.set_tx_queue_len(QUEUE) {
            tracing::debug!(%error, "the interface {name} keeps its short queue");
        }
        let netlink = Netlink::open().map_err(|error| system(error.to_string()))?;
        let interface = Self { device, index, config, netlink, lengths: BTreeMap::new() };
        interface.set_up().await.map_err(|error| system(error.to_string()))?;
        Ok(interface)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its number.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// How it was made.
    pub fn config(&self) -> &InterfaceConfig {
        &self.config
    }

    /// Returns when there is a packet, or when the interface is broken: [`Interface::try_recv`] tells.
    pub async fn readable(&self) -> io::Result<()> {
        self.device.readable().await
    }

    /// The next packet that this machine sends into the party; [`io::ErrorKind::WouldBlock`] when there is none now.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.try_recv(buffer)
    }

    /// Gives this machine a packet from the party.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.device.try_send(packet).map(drop)
    }

    /// Puts back what link down and up have removed. Does nothing while somebody holds the link down.
    pub async fn repair(&self) -> io::Result<()> {
        let is_up = self.netlink.links().await?.get(&self.index).is_some_and(|link| link.is_up);
        if !is_up {
            return Ok(());
        }
        self.add_addresses().await?;
        self.add_length_routes(&self.lengths).await
    }

    /// Keeps packets to these addresses as short as told, and those to all others as long as the interface allows.
    pub async fn set_lengths(&mut self, lengths: BTreeMap<Ipv4Addr, u16>) -> io::Result<()> {
        let before = std::mem::replace(&mut self.lengths, lengths);
        for (address, _) in before.iter().filter(|(address, _)| !self.lengths.contains_key(address)) {
            let deleted = self.netlink.handle.route().del(self.host_route(*address, None)).execute().await;
            if let Err(error) = deleted.map_err(to_io)
                && error.raw_os_error() != Some(libc::ESRCH)
            {
                return Err(error);
            }
        }
        let changed = self.lengths.iter().filter(|(address, mtu)| before.get(address) != Some(mtu));
        self.add_length_routes(&changed.map(|(address, mtu)| (*address, *mtu)).collect()).await
    }

    async fn add_length_routes(&self, lengths: &BTreeMap<Ipv4Addr, u16>) -> io::Result<()> {
        for (address, mtu) in lengths {
            let route = self.host_route(*address, Some(*mtu));
            self.netlink.handle.route().add(route).replace().execute().await.map_err(to_io)?;
        }
        Ok(())
    }

    fn host_route(&self, address: Ipv4Addr, mtu: Option<u16>) -> RouteMessage {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(self.index)
            .pref_source(self.config.address)
            .scope(RouteScope::Link);
        let mut route = route.build();
        let metric = mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu.into())]));
        route.attributes.extend(metric);
        route
    }

    async fn set_up(&self) -> io::Result<()> {
        // or the kernel would give it a random link-local address, which no member knows
        let mode = format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", self.config.name);
        if let Err(error) = std::fs::write(&mode, "1") {
            tracing::debug!(mode, %error, "IPv6 is off here");
        }
        let link =
            LinkUnspec::new_with_index(self.index).mtu(self.config.mtu.into()).multicast(true).up().build();
        self.netlink.handle.link().set(link).execute().await.map_err(to_io)?;
        self.add_addresses().await
    }

    async fn add_addresses(&self) -> io::Result<()> {
        let (address, prefix) = (self.config.address, self.config.subnet.prefix_len());
        self.netlink.add_address(self.index, address.into(), prefix).await?;
        let link_local = link_local(Be32::from_octets(address.octets()));
        if let Err(error) = self.netlink.add_address(self.index, link_local.into(), 64).await {
            tracing::debug!(%error, "no IPv6 in the party");
        }
        self.add_group_routes().await
    }

    async fn add_group_routes(&self) -> io::Result<()> {
        for (destination, prefix) in GROUP_ROUTES {
            // metric 0, the lowest: a game bound to 0.0.0.0 finds the party even beside a default route
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(destination, prefix)
                .output_interface(self.index)
                .pref_source(self.config.address)
                .scope(RouteScope::Link)
                .build();
            exists_is_fine(self.netlink.handle.route().add(route).execute().await)?;
        }
        Ok(())
    }
}

/// Wakes on every change of links, addresses and routes.
#[derive(Debug)]
pub struct NetworkWatch {
    changed: Arc<Notify>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl NetworkWatch {
    /// Starts to watch.
    pub fn new() -> io::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, mut events) = rtnetlink::new_multicast_connection(&groups)?;
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let forward = async move {
            while events.next().await.is_some() {
                notify.notify_one();
            }
        };
        Ok(Self { changed, tasks: [tokio::spawn(connection), tokio::spawn(forward)] })
    }

    /// Returns after a change since the last call; many at once count as one.
    pub async fn changed(&mut self) {
        self.changed.notified().await;
    }
}

impl Drop for NetworkWatch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The networks this machine is on, without loopback and the interface `except`.
pub async fn networks(except: &str) -> io::Result<Vec<Network>> {
    let netlink = Netlink::open()?;
    let links = netlink.links().await?;
    let default = netlink.default_interface().await?;
    let mut networks = Vec::new();
    let mut addresses = netlink.handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.map_err(to_io)? {
        let Some(link) = links.get(&message.header.index) else { continue };
        if !link.is_up || link.is_loopback || link.name == except {
            continue;
        }
        let (mut local, mut broadcast) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => local = Some(address),
                AddressAttribute::Broadcast(address) => broadcast = Some(address),
                _ => {}
            }
        }
        if let Some(address) = local.and_then(|local| Ipv4Net::new(local, message.header.prefix_len).ok()) {
            let (index, mac) = (message.header.index, link.mac);
            let is_default = default == Some(index);
            networks.push(Network {
                interface: link.name.clone(),
                address,
                broadcast,
                index,
                mac,
                is_default,
            });
        }
    }
    Ok(networks)
}

/// The MTU of every interface, by name.
pub async fn mtus() -> io::Result<HashMap<String, u32>> {
    let links = Netlink::open()?.links().await?;
    Ok(links.into_values().filter_map(|link| Some((link.name, link.mtu?))).collect())
}

/// IPv4 unicast routes of the main table, default routes left out.
pub async fn routes() -> io::Result<Vec<Route>> {
    let netlink = Netlink::open()?;
    let links = netlink.links().await?;
    let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut messages = netlink.handle.route().get(filter).execute();
    let mut routes = Vec::new();
    while let Some(message) = messages.try_next().await.map_err(to_io)? {
        let header = &message.header;
        if header.kind != RouteType::Unicast || header.table != RouteHeader::RT_TABLE_MAIN {
            continue;
        }
        let (mut destination, mut interface) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
                RouteAttribute::Oif(index) => interface = links.get(index).map(|link| link.name.clone()),
                _ => {}
            }
        }
        let prefix = header.destination_prefix_length;
        if let Some(destination) = destination.and_then(|address| Ipv4Net::new(address, prefix).ok()) {
            routes.push(Route { destination, interface });
        }
    }
    Ok(routes)
}

/// Whether that interface is Wi-Fi.
pub fn is_wireless(name: &str) -> bool {
    let about = std::path::Path::new("/sys/class/net").join(name);
    ["wireless", "phy80211"].iter().any(|sign| about.join(sign).exists())
}

/// When the clock of [`Instant`] was zero: the same for all processes until the machine starts again.
pub fn clock_zero() -> Instant {
    let now = Instant::now();
    let since =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    now.checked_sub(since).unwrap_or(now)
}

/// This machine's name.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Lets this process have at least so many files open, as far as the system allows.
pub fn allow_files(count: u64) -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < count.min(hard) {
        setrlimit(Resource::RLIMIT_NOFILE, count.min(hard), hard)?;
    }
    Ok(())
}

struct Link {
    name: String,
    is_up: bool,
    is_loopback: bool,
    mac: Option<[u8; 6]>,
    mtu: Option<u32>,
}

/// A netlink connection that ends with its owner.
struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    async fn links(&self) -> io::Result<HashMap<u32, Link>> {
        let mut messages = self.handle.link().get().execute();
        let mut links = HashMap::new();
        while let Some(message) = messages.try_next().await.map_err(to_io)? {
            let flags = message.header.flags;
            let name = message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            let mac = message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
                _ => None,
            });
            let mtu = message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            });
            let link = Link {
                mtu,
                mac: mac.filter(|_| message.header.link_layer_type == LinkLayerType::Ether),
                name: name.unwrap_or_default(),
                is_up: flags.contains(LinkFlags::Up),
                is_loopback: flags.contains(LinkFlags::Loopback),
            };
            links.insert(message.header.index, link);
        }
        Ok(links)
    }

    /// The interface of the best IPv4 default route in the main table.
    async fn default_interface(&self) -> io::Result<Option<u32>> {
        let mut messages = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let mut best = None;
        while let Some(message) = messages.try_next().await.map_err(to_io)? {
            let header = &message.header;
            let is_default = header.destination_prefix_length == 0 && header.kind == RouteType::Unicast;
            if !is_default || header.table != RouteHeader::RT_TABLE_MAIN {
                continue;
            }
            let (mut metric, mut interface) = (0, None);
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Priority(priority) => metric = *priority,
                    RouteAttribute::Oif(index) => interface = Some(*index),
                    _ => {}
                }
            }
            best = best.into_iter().chain(interface.map(|index| (metric, index))).min();
        }
        Ok(best.map(|(_, index)| index))
    }

    async fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        exists_is_fine(self.handle.address().add(index, address, prefix).execute().await)
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn exists_is_fine(result: Result<(), rtnetlink::Error>) -> io::Result<()> {
    match result.map_err(to_io) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
