//! Which routers the default routes lead to.

use super::{Netlink, to_io};
use futures_util::TryStreamExt as _;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The router that the default route of the main table with the lowest metric leads to.
pub async fn gateway() -> io::Result<Option<Ipv4Addr>> {
    let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
    Ok(default_gateway(filter).await?.and_then(|(gateway, _)| match gateway {
        RouteAddress::Inet(gateway) => Some(gateway),
        _ => None,
    }))
}

/// The same for IPv6, with the number of the interface that it is at.
pub async fn gateway6() -> io::Result<Option<(Ipv6Addr, u32)>> {
    let filter = RouteMessageBuilder::<Ipv6Addr>::new().build();
    Ok(default_gateway(filter).await?.and_then(|(gateway, interface)| match gateway {
        RouteAddress::Inet6(gateway) => Some((gateway, interface)),
        _ => None,
    }))
}

async fn default_gateway(filter: RouteMessage) -> io::Result<Option<(RouteAddress, u32)>> {
    let netlink = Netlink::open()?;
    let mut messages = netlink.handle.route().get(filter).execute();
    let mut best: Option<(u32, (RouteAddress, u32))> = None;
    while let Some(message) = messages.try_next().await.map_err(to_io)? {
        let header = &message.header;
        if header.table != RouteHeader::RT_TABLE_MAIN || header.destination_prefix_length > 0 {
            continue;
        }
        let (mut metric, mut gateway, mut interface) = (0, None, 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Gateway(address) => gateway = Some(address.clone()),
                RouteAttribute::Priority(priority) => metric = *priority,
                RouteAttribute::Oif(index) => interface = *index,
                _ => {}
            }
        }
        if let Some(gateway) = gateway.filter(|_| best.as_ref().is_none_or(|(lowest, _)| metric < *lowest)) {
            best = Some((metric, (gateway, interface)));
        }
    }
    Ok(best.map(|(_, found)| found))
}
