//! What the kernel knows about the network: links, addresses, routes and neighbours.

use futures_util::{TryStream, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType};
use rtnetlink::{Error, Handle, RouteMessageBuilder};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

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
    /// Packets sent since it exists.
    pub sent: u64,
}

/// A route as a lookup gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Egress interface.
    pub ifindex: u32,
    /// Whose MAC address is needed: the router, or the destination itself.
    pub neighbour: Ipv4Addr,
    /// This host's address towards it.
    pub source: Ipv4Addr,
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
    let (mut name, mut mac, mut mtu, mut veth, mut sent) = (None, None, None, false, 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Address(value) => mac = <[u8; 6]>::try_from(value.as_slice()).ok(),
            LinkAttribute::Mtu(value) => mtu = Some(*value),
            LinkAttribute::LinkInfo(infos) => veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
            LinkAttribute::Stats64(stats) => sent = stats.tx_packets,
            _ => {}
        }
    }
    let (index, up) = (message.header.index, message.header.flags.contains(LinkFlags::Up));
    Some(Link { index, name: name?, mac: mac?, mtu: mtu?, up, veth, sent })
}

/// All IPv4 addresses with the index of their interface.
pub async fn addresses(handle: &Handle) -> Result<Vec<(u32, Ipv4Addr)>, Error> {
    let mut addresses = Vec::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await? {
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        addresses.extend(local.map(|address| (message.header.index, address)));
    }
    Ok(addresses)
}

/// All IPv4 neighbours with a MAC address that can be used.
pub async fn neighbours(handle: &Handle) -> Result<HashMap<(u32, Ipv4Addr), Neighbour>, Error> {
    let mut neighbours = HashMap::new();
    let mut messages = handle.neighbours().get().set_address_family(AddressFamily::Inet).execute();
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
    Ok(neighbours)
}

/// Whom a neighbour message is about.
pub fn neighbour_address(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
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
pub async fn route(handle: &Handle, destination: Ipv4Addr, source: Ipv4Addr) -> Result<Option<Route>, Error> {
    let mut query = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, 32);
    if !source.is_unspecified() {
        query = query.source_prefix(source, 32);
    }
    let mut messages = handle.route().get(query.build()).execute();
    match first(&mut messages).await {
        Ok(message) => Ok(message.and_then(|message| parse_route(&message, destination, source))),
        // The kernel answers with an error when there is no route.
        Err(Error::NetlinkError(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn first<S: TryStream<Ok = RouteMessage, Error = Error> + Unpin>(
    messages: &mut S,
) -> Result<Option<RouteMessage>, Error> {
    messages.try_next().await
}

fn parse_route(message: &RouteMessage, destination: Ipv4Addr, wanted: Ipv4Addr) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut ifindex, mut neighbour, mut source, mut mtu) = (None, destination, wanted, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => neighbour = *gateway,
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) if wanted.is_unspecified() => {
                source = *address
            }
            RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(route_mtu),
            // An IPv4 route through an IPv6 router: the daemon's socket can, we cannot.
            RouteAttribute::Via(_) => return None,
            _ => {}
        }
    }
    if source.is_unspecified() {
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
pub async fn resolve(handle: &Handle, ifindex: u32, neighbour: Ipv4Addr) -> Result<(), Error> {
    handle
        .neighbours()
        .add(ifindex, IpAddr::V4(neighbour))
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace()
        .execute()
        .await
}
