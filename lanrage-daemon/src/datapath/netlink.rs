//! What the kernel knows about the network: links, addresses, routes and neighbours.

use futures_util::{TryStream, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use rtnetlink::{Error, Handle, RouteMessageBuilder};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// Bytes an IP packet may have.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// One end of a pair of virtual interfaces.
    pub veth: bool,
    /// Of a VLAN: the interface that its frames leave by, and its number.
    pub vlan: Option<(u32, u16)>,
    /// Packets sent since it exists.
    pub sent: u64,
}

/// A route as a lookup gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Egress interface.
    pub ifindex: u32,
    /// Whose MAC address is needed: the router, or the destination itself.
    pub neighbour: IpAddr,
    /// This host's address towards it.
    pub source: IpAddr,
    /// The route's own MTU, when it has one.
    pub mtu: Option<u32>,
}

/// A neighbour's MAC address, and whether the kernel still vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Confirmed lately, or set by hand.
    pub fresh: bool,
}

/// All Ethernet interfaces by index; loopback, tunnels and the like are left out.
pub async fn links(handle: &Handle) -> Result<HashMap<u32, Link>, Error> {
    let mut links = HashMap::new();
    let mut messages = handle.link().get().execute();
    while let Some(message) = messages.try_next().await? {
        if message.header.link_layer_type != LinkLayerType::Ether {
            continue;
        }
        if let Some(link) = parse_link(&message) {
            links.insert(link.index, link);
        }
    }
    Ok(links)
}

fn parse_link(message: &LinkMessage) -> Option<Link> {
    let (mut name, mut mac, mut mtu, mut sent, mut parent) = (None, None, None, 0, None);
    let mut infos: &[LinkInfo] = &[];
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Address(value) => mac = <[u8; 6]>::try_from(value.as_slice()).ok(),
            LinkAttribute::Mtu(value) => mtu = Some(*value),
            LinkAttribute::Link(value) => parent = Some(*value),
            LinkAttribute::LinkInfo(value) => infos = value,
            LinkAttribute::Stats64(stats) => sent = stats.tx_packets,
            _ => {}
        }
    }
    let (index, up) = (message.header.index, message.header.flags.contains(LinkFlags::Up));
    let veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
    let vlan = parent.zip(vlan_id(infos));
    Some(Link { index, name: name?, mac: mac?, mtu: mtu?, up, veth, vlan, sent })
}

fn vlan_id(infos: &[LinkInfo]) -> Option<u16> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    data.iter().find_map(|item| match item {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

/// All addresses with the index of their interface; of IPv6 those that others can reach for good: neither link-local
/// nor temporary, nor still to be checked.
pub async fn addresses(handle: &Handle) -> Result<Vec<(u32, IpAddr)>, Error> {
    let mut addresses = Vec::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await? {
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        // IPv6 has a local address only on point-to-point links
        let address = local.or_else(|| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address @ IpAddr::V6(_)) => Some(*address),
                _ => None,
            })
        });
        addresses.extend(
            address.filter(|address| is_usable(*address, &message)).map(|a| (message.header.index, a)),
        );
    }
    Ok(addresses)
}

fn is_usable(address: IpAddr, message: &AddressMessage) -> bool {
    let IpAddr::V6(address) = address else { return true };
    let unusable =
        AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed | AddressHeaderFlags::Secondary;
    !address.is_unicast_link_local() && !message.header.flags.intersects(unusable)
}

/// All neighbours with a MAC address that can be used.
pub async fn neighbours(handle: &Handle) -> Result<HashMap<(u32, IpAddr), Neighbour>, Error> {
    let mut neighbours = HashMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut messages = handle.neighbours().get().set_address_family(family).execute();
        while let Some(message) = messages.try_next().await? {
            let Some(address) = neighbour_address(&message) else { continue };
            let mac = message.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
                _ => None,
            });
            if let (Some(mac), Some(fresh)) = (mac, usable(message.header.state)) {
                neighbours.insert((message.header.ifindex, address), Neighbour { mac, fresh });
            }
        }
    }
    Ok(neighbours)
}

/// Whom a neighbour message is about.
pub fn neighbour_address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

/// `Some(fresh)` when packets may be sent to the neighbour in that state.
fn usable(state: NeighbourState) -> Option<bool> {
    match state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => Some(true),
        NeighbourState::Delay | NeighbourState::Probe => Some(true),
        NeighbourState::Stale => Some(false),
        _ => None,
    }
}

/// The route to a destination, from `source` when that is not unspecified; `None` when there is none or it does not
/// leave this host.
pub async fn route(handle: &Handle, destination: IpAddr, source: IpAddr) -> Result<Option<Route>, Error> {
    let Some(query) = query(destination, source) else { return Ok(None) };
    let mut messages = handle.route().get(query).execute();
    match first(&mut messages).await {
        Ok(message) => Ok(message.and_then(|message| parse_route(&message, destination, source))),
        // The kernel answers with an error when there is no route.
        Err(Error::NetlinkError(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nothing leads from one IP version to the other; an unspecified source of the wrong one is none at all.
fn query(destination: IpAddr, source: IpAddr) -> Option<RouteMessage> {
    match (destination, source) {
        (IpAddr::V4(destination), source) => {
            let query = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, 32);
            match source {
                IpAddr::V4(source) if !source.is_unspecified() => {
                    Some(query.source_prefix(source, 32).build())
                }
                source => source.is_unspecified().then(|| query.build()),
            }
        }
        (IpAddr::V6(destination), source) => {
            let query = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(destination, 128);
            match source {
                IpAddr::V6(source) if !source.is_unspecified() => {
                    Some(query.source_prefix(source, 128).build())
                }
                source => source.is_unspecified().then(|| query.build()),
            }
        }
    }
}

async fn first<S: TryStream<Ok = RouteMessage, Error = Error> + Unpin>(
    messages: &mut S,
) -> Result<Option<RouteMessage>, Error> {
    messages.try_next().await
}

fn parse_route(message: &RouteMessage, destination: IpAddr, wanted: IpAddr) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut ifindex, mut neighbour, mut source, mut mtu) = (None, destination, wanted, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => neighbour = IpAddr::V4(*gateway),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => neighbour = IpAddr::V6(*gateway),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => neighbour = IpAddr::V6(*gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => neighbour = IpAddr::V4(*gateway),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) if wanted.is_unspecified() => {
                source = IpAddr::V4(*address);
            }
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) if wanted.is_unspecified() => {
                source = IpAddr::V6(*address);
            }
            RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(route_mtu),
            RouteAttribute::Via(_) => return None,
            _ => {}
        }
    }
    if source.is_unspecified() || source.is_ipv4() != destination.is_ipv4() {
        return None;
    }
    Some(Route { ifindex: ifindex?, neighbour, source, mtu })
}

fn route_mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    }
}

/// Asks the kernel to resolve a neighbour, or to check one that it has not heard of lately.
pub async fn resolve(handle: &Handle, ifindex: u32, neighbour: IpAddr) -> Result<(), Error> {
    handle
        .neighbours()
        .add(ifindex, neighbour)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace()
        .execute()
        .await
}
