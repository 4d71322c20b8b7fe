//! Network interfaces as XDP sees them.

use super::{querying, xdp_features};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use serde::Serialize;
use std::collections::HashMap;
use std::net::IpAddr;

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Driver of the card, or the kind of a virtual interface; unknown for a few virtual ones.
    pub driver: Option<String>,
    /// Up, as the operator wants it.
    pub up: bool,
    /// Whether it carries Ethernet frames.
    pub ethernet: bool,
    /// Bytes of an IP packet.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Pairs of queues, when the driver tells.
    pub queues: Option<QueueCount>,
    /// Offloads that matter to XDP.
    pub offloads: Vec<Offload>,
    /// Whether its driver runs XDP programs, when the kernel tells.
    pub native_xdp: Option<bool>,
    /// Whether it takes what other interfaces' programs redirect to it, when the kernel tells.
    pub redirect_target: Option<bool>,
    /// A program that is attached.
    pub program: Option<Attached>,
}

/// Queues in use and possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QueueCount {
    /// In use.
    pub now: u32,
    /// Possible.
    pub max: u32,
}

/// One offload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Offload {
    /// As `ethtool -k` writes it in its long form.
    pub name: &'static str,
    /// In use.
    pub on: bool,
    /// May be changed.
    pub changeable: bool,
}

/// An attached program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// Its number, as `bpftool prog` shows it.
    pub id: u32,
    /// Its name, when this process may know.
    pub name: Option<String>,
    /// `native`, `generic`, `offloaded` or `several`.
    pub hook: &'static str,
}

impl Attached {
    /// Whether it is the program of a LANrage relay.
    pub fn is_ours(&self) -> bool {
        self.name.as_deref() == Some(crate::datapath::xdp::PROGRAM)
    }
}

impl Interface {
    /// Worth a look without being asked for: a card that is up and has an address.
    pub fn is_candidate(&self) -> bool {
        self.ethernet && self.up && !self.addresses.is_empty()
    }

    /// Whether an offload is on, and may be changed.
    pub fn offload(&self, name: &str) -> Option<Offload> {
        self.offloads.iter().find(|offload| offload.name == name && offload.on).copied()
    }
}

/// All interfaces but the loopback.
pub async fn all() -> anyhow::Result<Vec<Interface>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let mut interfaces = Vec::new();
    let mut messages = handle.link().get().execute();
    while let Some(message) = messages.try_next().await? {
        if message.header.link_layer_type != LinkLayerType::Loopback {
            interfaces.extend(parse(&message));
        }
    }
    let mut addresses: HashMap<u32, Vec<IpAddr>> = HashMap::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await? {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        addresses.entry(message.header.index).or_default().extend(address.filter(is_usable));
    }
    for interface in &mut interfaces {
        interface.addresses = addresses.remove(&interface.index).unwrap_or_default();
    }
    ask_drivers(&mut interfaces).await?;
    Ok(interfaces)
}

/// What only the drivers know. Not being told is no error.
async fn ask_drivers(interfaces: &mut [Interface]) -> anyhow::Result<()> {
    let (connection, mut handle, _) = ethtool::new_connection()?;
    tokio::spawn(connection);
    let features = xdp_features::all(&handle).await;
    for interface in interfaces {
        interface.queues = querying::queues(&mut handle, &interface.name).await;
        interface.offloads = querying::offloads(&mut handle, &interface.name).await;
        let told = features.get(&interface.index);
        interface.native_xdp = told.map(|features| features.native);
        interface.redirect_target = told.map(|features| features.redirect_target);
    }
    Ok(())
}

fn is_usable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

fn parse(message: &LinkMessage) -> Option<Interface> {
    let mut interface = Interface {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..Interface::default()
    };
    let mut kind = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Xdp(xdp) => interface.program = attached(xdp),
            _ => {}
        }
    }
    interface.driver = card_driver(&interface.name).or(kind);
    (!interface.name.is_empty()).then_some(interface)
}

fn attached(xdp: &[LinkXdp]) -> Option<Attached> {
    let mut id = None;
    let mut hook = None;
    for attribute in xdp {
        match attribute {
            LinkXdp::ProgId(number) => id = Some(*number),
            LinkXdp::DrvProgId(number) | LinkXdp::SkbProgId(number) => id = id.or(Some(*number)),
            LinkXdp::Attached(XdpAttached::Driver) => hook = Some("native"),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => hook = Some("generic"),
            LinkXdp::Attached(XdpAttached::Hardware) => hook = Some("offloaded"),
            LinkXdp::Attached(XdpAttached::Multiple) => hook = Some("several"),
            _ => {}
        }
    }
    let id = id?;
    Some(Attached { id, name: program_name(id), hook: hook? })
}

/// Only a privileged process may know.
fn program_name(id: u32) -> Option<String> {
    let program =
        aya::programs::loaded_programs().filter_map(Result::ok).find(|program| program.id() == id)?;
    program.name_as_str().map(str::to_owned)
}

/// Driver of a card; virtual interfaces have none.
pub fn card_driver(name: &str) -> Option<String> {
    let driver = std::fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
    driver.file_name()?.to_str().map(str::to_owned)
}

/// CPUs that are online: `0-3,8` are five.
pub fn online_cpus() -> u32 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    count_cpus(&text).max(1)
}

fn count_cpus(text: &str) -> u32 {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.saturating_sub(first) + 1)
    });
    ranges.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted() {
        assert_eq!(count_cpus("0-3,8\n"), 5);
        assert_eq!(count_cpus("0\n"), 1);
        assert_eq!(count_cpus(""), 0);
    }

    #[test]
    fn an_attached_program_has_number_and_hook() {
        let xdp = [LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(7), LinkXdp::SkbProgId(7)];
        let program = attached(&xdp).unwrap();
        assert_eq!((program.id, program.hook), (7, "generic"));
        assert_eq!(attached(&[LinkXdp::Attached(XdpAttached::None)]), None);
    }
}
