//! The three protocols behind one face.

use super::{Forwarding, Held, LIFETIME, SEARCH, SHORTEST, Shared};
use crab_nat::{
    GatewayAddress, InternetProtocol, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{PortMappingProtocol, SearchOptions};
use lanrage_common::nat::PortMapping;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

/// Routers that speak a protocol answer at once; three requests, the first repeated after 250 ms.
const TIMEOUT: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: Some(Duration::from_millis(500)),
};
/// Shown in the router's list of forwarded ports.
const DESCRIPTION: &str = "LANrage";

/// A port that a router forwards.
#[derive(Debug)]
pub enum Lease {
    /// By NAT-PMP or PCP.
    Crab {
        /// The lease.
        mapping: crab_nat::PortMapping,
        /// The router's far side.
        outside: Option<IpAddr>,
    },
    /// By UPnP.
    Upnp {
        /// The router.
        gateway: Box<Gateway<Tokio>>,
        /// This device.
        own: SocketAddr,
        /// The router's far side.
        external: SocketAddr,
        /// Seconds, 0 = for ever.
        lifetime: u32,
    },
}

/// What a router answered.
#[derive(Debug, Default)]
pub struct Found {
    /// A forwarded port.
    pub lease: Option<Lease>,
    /// Protocols it speaks.
    pub protocols: Vec<PortMapping>,
    /// Its address on the far side.
    pub gateway_address: Option<IpAddr>,
}

/// Asks by all protocols at once, and keeps one lease: PCP before NAT-PMP before UPnP.
pub async fn ask(gateway: Ipv4Addr, own: Ipv4Addr, port: NonZeroU16) -> Found {
    let (pcp, natpmp, upnp) =
        tokio::join!(pcp_lease(gateway, own, port), natpmp_address(gateway), search(own));
    let mut found = Found::default();
    if let Some(lease) = pcp {
        found.protocols.push(PortMapping::Pcp);
        found.lease = Some(lease);
    }
    if let Some(outside) = natpmp {
        found.protocols.push(PortMapping::NatPmp);
        found.gateway_address = Some(outside.into());
        if found.lease.is_none() {
            found.lease = natpmp_lease(gateway, outside, port).await;
        }
    }
    if let Some(router) = upnp {
        found.protocols.push(PortMapping::Upnp);
        if found.lease.is_none() {
            found.lease = upnp_lease(router, SocketAddr::new(own.into(), port.get())).await;
        }
    }
    found.gateway_address =
        found.lease.as_ref().and_then(Lease::external).map(|it| it.ip()).or(found.gateway_address);
    found
}

/// Which protocols the router speaks.
pub async fn spoken(gateway: Ipv4Addr, own: Ipv4Addr) -> Vec<PortMapping> {
    let (natpmp, upnp) = tokio::join!(natpmp_address(gateway), search(own));
    let natpmp = natpmp.map(|_| PortMapping::NatPmp);
    natpmp.into_iter().chain(upnp.map(|_| PortMapping::Upnp)).collect()
}

async fn pcp_lease(gateway: Ipv4Addr, own: Ipv4Addr, port: NonZeroU16) -> Option<Lease> {
    let request =
        pcp::BaseMapRequest::new(GatewayAddress::IpV4(gateway), own.into(), InternetProtocol::Udp, port);
    match pcp::port_mapping(request, None, None, options(port)).await {
        Ok(mapping) => Some(Lease::Crab { outside: pcp_address(&mapping), mapping }),
        Err(error) => {
            tracing::debug!(%gateway, %error, "no PCP");
            None
        }
    }
}

fn pcp_address(mapping: &crab_nat::PortMapping) -> Option<IpAddr> {
    match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip: IpAddr::V6(ip), .. } => Some(ip.to_canonical()),
        PortMappingType::Pcp { external_ip, .. } => Some(external_ip),
        PortMappingType::NatPmp => None,
    }
}

async fn natpmp_address(gateway: Ipv4Addr) -> Option<Ipv4Addr> {
    let result = natpmp::external_address(GatewayAddress::IpV4(gateway), Some(TIMEOUT)).await;
    result.inspect_err(|error| tracing::debug!(%gateway, %error, "no NAT-PMP")).ok()
}

async fn natpmp_lease(gateway: Ipv4Addr, outside: Ipv4Addr, port: NonZeroU16) -> Option<Lease> {
    let gateway = GatewayAddress::IpV4(gateway);
    match natpmp::port_mapping(gateway, InternetProtocol::Udp, port, options(port)).await {
        Ok(mapping) => Some(Lease::Crab { mapping, outside: Some(outside.into()) }),
        Err(error) => {
            tracing::debug!(%error, "NAT-PMP forwards no port");
            None
        }
    }
}

fn options(port: NonZeroU16) -> PortMappingOptions {
    PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: Some(LIFETIME),
        timeout_config: Some(TIMEOUT),
    }
}

async fn search(own: Ipv4Addr) -> Option<Gateway<Tokio>> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(own.into(), 0);
    (options.timeout, options.single_search_timeout) = (Some(SEARCH), Some(SEARCH));
    search_gateway(options).await.inspect_err(|error| tracing::debug!(%error, "no UPnP")).ok()
}

/// First with a lease, then without: some routers know no other (error 725).
async fn upnp_lease(gateway: Gateway<Tokio>, own: SocketAddr) -> Option<Lease> {
    let outside =
        gateway.get_external_ip().await.inspect_err(|error| tracing::debug!(%error, "UPnP")).ok()?;
    for lifetime in [LIFETIME, 0] {
        if let Some(port) = upnp_port(&gateway, own, lifetime).await {
            let external = SocketAddr::new(outside, port);
            return Some(Lease::Upnp { gateway: Box::new(gateway), own, external, lifetime });
        }
    }
    None
}

/// The same port outside, or any that is free.
async fn upnp_port(gateway: &Gateway<Tokio>, own: SocketAddr, lifetime: u32) -> Option<u16> {
    let udp = PortMappingProtocol::UDP;
    match gateway.add_port(udp, own.port(), own, lifetime, DESCRIPTION).await {
        Ok(()) => Some(own.port()),
        Err(error) => {
            tracing::debug!(%error, lifetime, "UPnP: this port cannot be had");
            let any = gateway.add_any_port(udp, own, lifetime, DESCRIPTION).await;
            any.inspect_err(|error| tracing::debug!(%error, "UPnP forwards no port")).ok()
        }
    }
}

impl Lease {
    /// By which protocol.
    pub fn by(&self) -> PortMapping {
        match self {
            Self::Crab { mapping, .. } => match mapping.mapping_type() {
                PortMappingType::NatPmp => PortMapping::NatPmp,
                PortMappingType::Pcp { .. } => PortMapping::Pcp,
            },
            Self::Upnp { .. } => PortMapping::Upnp,
        }
    }

    /// The router's address and port that lead here.
    pub fn external(&self) -> Option<SocketAddr> {
        match self {
            Self::Crab { mapping, outside } => {
                outside.map(|outside| SocketAddr::new(outside, mapping.external_port().get()))
            }
            Self::Upnp { external, .. } => Some(*external),
        }
    }
}

impl Held for Lease {
    async fn obtain(port: NonZeroU16, state: &Shared) -> Option<Self> {
        let (lease, forwarding) = super::forward(port).await;
        tracing::info!(by = ?forwarding.by, external = ?forwarding.external, problem = ?forwarding.problem, "port forwarding");
        state.send_modify(|state| {
            *state = Forwarding { pinhole: state.pinhole.clone(), ..forwarding };
        });
        lease
    }

    fn lifetime(&self) -> Duration {
        let seconds = match self {
            Self::Crab { mapping, .. } => mapping.lifetime(),
            Self::Upnp { lifetime: 0, .. } => LIFETIME,
            Self::Upnp { lifetime, .. } => *lifetime,
        };
        Duration::from_secs(seconds.into()).max(SHORTEST)
    }

    async fn renew(self) -> Option<Self> {
        let before = self.external();
        let after = match self {
            Self::Crab { mut mapping, outside } => match mapping.renew().await {
                Ok(()) => Some(Self::Crab { outside: pcp_address(&mapping).or(outside), mapping }),
                Err(error) => {
                    tracing::debug!(%error, "the lease was not renewed");
                    None
                }
            },
            Self::Upnp { gateway, own, external, lifetime } => {
                let udp = PortMappingProtocol::UDP;
                let outside = gateway.get_external_ip().await.ok();
                let renewed = gateway.add_port(udp, external.port(), own, lifetime, DESCRIPTION).await;
                let is_same = outside == Some(external.ip()) && renewed.is_ok();
                is_same.then_some(Self::Upnp { gateway, own, external, lifetime })
            }
        };
        after.filter(|lease| lease.external() == before)
    }

    async fn release(self) {
        let result = match self {
            Self::Crab { mapping, .. } => mapping.try_drop().await.map_err(|(error, _)| error.to_string()),
            Self::Upnp { gateway, external, .. } => {
                let removed = gateway.remove_port(PortMappingProtocol::UDP, external.port()).await;
                removed.map_err(|error| error.to_string())
            }
        };
        if let Err(error) = result {
            tracing::debug!(error, "the lease was not given back; it runs out by itself");
        }
    }
}
