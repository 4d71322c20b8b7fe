//! A way in through the router's IPv6 firewall, where nothing is translated: by PCP (RFC 6887), or by UPnP's
//! WANIPv6FirewallControl. Routers open it only to the address that asks, so all requests leave from the one that the
//! device announces; of several addresses the system would mostly choose another one.

use super::{Held, LIFETIME, Opening, SEARCH, SHORTEST, Shared, control};
use crate::platform;
use crate::roles::addresses;
use igd_next::aio::tokio::search_ipv6_firewall_gateway;
use igd_next::{PortMappingProtocol, SearchOptions};
use lanrage_common::address::is_global_ipv6;
use lanrage_common::nat::PortMapping;
use lanrage_common::pcp::{self, MapError, MapRequest, Mapping};
use rand_core::{OsRng, RngCore as _};
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU16;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// How long a router may take over a PCP answer, at each attempt. One that speaks it answers at once.
const ATTEMPTS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(500)];

/// A pinhole that a router keeps open.
#[derive(Debug)]
pub(super) struct Pinhole {
    own: SocketAddrV6,
    lifetime_s: u32,
    by: By,
}

#[derive(Debug)]
enum By {
    Pcp { router: SocketAddrV6, request: MapRequest },
    Upnp { firewall: Box<control::Firewall>, id: u16 },
}

/// The own global address with the tunnel's port, and the router; `None` without IPv6.
async fn ends(port: u16) -> Option<(SocketAddrV6, SocketAddrV6)> {
    let IpAddr::V6(own) = addresses::default_route_source6().filter(|own| is_global_ipv6(*own))? else {
        return None;
    };
    let (router, interface) = platform::gateway6().await.ok()??;
    let scope = if router.is_unicast_link_local() { interface } else { 0 };
    Some((SocketAddrV6::new(own, port, 0, 0), SocketAddrV6::new(router, pcp::PORT, 0, scope)))
}

impl Held for Pinhole {
    async fn obtain(port: NonZeroU16, state: &Shared) -> Option<Self> {
        let Some((own, router)) = ends(port.get()).await else {
            state.send_modify(|state| state.pinhole = Opening::default());
            return None;
        };
        // one after the other: a router may take both for the same pinhole, and giving one back closes it
        let by_pcp = open_by_pcp(router, own).await;
        let (pinhole, is_refused) = match by_pcp {
            Answer::Open(pinhole) => (Some(pinhole), false),
            by_pcp => match open_by_upnp(*router.ip(), own).await {
                Answer::Open(pinhole) => (Some(pinhole), false),
                by_upnp => (None, [by_pcp, by_upnp].iter().any(|it| matches!(it, Answer::Refused))),
            },
        };
        let opening = Opening {
            address: pinhole.as_ref().map(|it| it.own.into()),
            by: pinhole.as_ref().map(Self::protocol),
            problem: pinhole.is_none().then(|| explain(*router.ip(), is_refused)),
        };
        tracing::info!(address = ?opening.address, by = ?opening.by, problem = ?opening.problem, "IPv6 pinhole");
        state.send_modify(|state| state.pinhole = opening);
        pinhole
    }

    fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime_s.into()).max(SHORTEST)
    }

    async fn renew(mut self) -> Option<Self> {
        let is_still_ours = addresses::default_route_source6() == Some((*self.own.ip()).into());
        let renewed = match &self.by {
            _ if !is_still_ours => None,
            By::Pcp { router, request } => {
                let mapping = exchange(*router, request, LIFETIME).await.ok();
                mapping.filter(|mapping| mapping.external == self.own).map(|mapping| mapping.lifetime_s)
            }
            By::Upnp { firewall, id } => {
                let renewing = firewall.gateway.update_pinhole(*id, LIFETIME);
                let renewed = control::from(*self.own.ip(), renewing).await;
                renewed.map(|()| LIFETIME).inspect_err(note_failure).ok()
            }
        };
        match renewed {
            Some(lifetime_s) => {
                self.lifetime_s = lifetime_s;
                Some(self)
            }
            None => {
                self.release().await;
                None
            }
        }
    }

    async fn release(self) {
        let is_back = match &self.by {
            By::Pcp { router, request } => exchange(*router, request, 0).await.is_ok(),
            By::Upnp { firewall, id } => {
                control::from(*self.own.ip(), firewall.gateway.remove_pinhole(*id)).await.is_ok()
            }
        };
        if !is_back {
            tracing::debug!(own = %self.own, "the pinhole was not given back; it closes by itself");
        }
    }
}

impl Pinhole {
    fn protocol(&self) -> PortMapping {
        match self.by {
            By::Pcp { .. } => PortMapping::Pcp,
            By::Upnp { .. } => PortMapping::Upnp,
        }
    }
}

/// What a router says by one protocol.
enum Answer {
    Open(Pinhole),
    Refused,
    /// Does not speak it.
    Silent,
}

async fn open_by_pcp(router: SocketAddrV6, own: SocketAddrV6) -> Answer {
    let mut nonce = [0; 12];
    OsRng.fill_bytes(&mut nonce);
    let request = MapRequest { own, nonce };
    match exchange(router, &request, LIFETIME).await {
        Ok(mapping) => {
            let by = By::Pcp { router, request };
            let pinhole = Pinhole { own, lifetime_s: mapping.lifetime_s, by };
            if mapping.external == own {
                return Answer::Open(pinhole);
            }
            tracing::debug!(external = %mapping.external, "the router translates IPv6");
            pinhole.release().await;
            Answer::Refused
        }
        Err(error) => {
            tracing::debug!(%router, %error, "no pinhole by PCP");
            if error.kind() == io::ErrorKind::PermissionDenied { Answer::Refused } else { Answer::Silent }
        }
    }
}

/// Asks until there is an answer.
async fn exchange(router: SocketAddrV6, request: &MapRequest, lifetime_s: u32) -> io::Result<Mapping> {
    let socket = UdpSocket::bind(SocketAddr::new((*request.own.ip()).into(), 0)).await?;
    socket.connect(router).await?;
    for patience in ATTEMPTS {
        socket.send(&request.encode(lifetime_s)).await?;
        if let Ok(answer) = timeout_at(Instant::now() + patience, answer(&socket, request)).await {
            return answer;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

async fn answer(socket: &UdpSocket, request: &MapRequest) -> io::Result<Mapping> {
    let mut buffer = [0; 1100]; // RFC 6887, section 7
    loop {
        let length = socket.recv(&mut buffer).await?;
        match request.decode(&buffer[..length]) {
            Ok(mapping) => return Ok(mapping),
            Err(MapError::Foreign) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::PermissionDenied, error)),
        }
    }
}

async fn open_by_upnp(router: Ipv6Addr, own: SocketAddrV6) -> Answer {
    let Some(firewall) = search(router, own).await else { return Answer::Silent };
    let opening = firewall.gateway.add_pinhole(PortMappingProtocol::UDP, own, LIFETIME);
    match control::from(*own.ip(), opening).await.inspect_err(note_failure) {
        Ok(id) => Answer::Open(Pinhole { own, lifetime_s: LIFETIME, by: By::Upnp { firewall, id } }),
        Err(_) => Answer::Refused,
    }
}

fn note_failure(error: &impl Display) {
    tracing::debug!(%error, "no pinhole by UPnP");
}

/// From the own global address: a router answers it from its own, which its URLs have too. Those of others are not followed.
async fn search(router: Ipv6Addr, own: SocketAddrV6) -> Option<Box<control::Firewall>> {
    let (_, interface) = platform::gateway6().await.ok()??;
    let mut options = SearchOptions::ipv6(interface);
    options.bind_addr = SocketAddr::new((*own.ip()).into(), 0);
    options.allowed_gateway_ips.push(router.into());
    (options.timeout, options.single_search_timeout) = (Some(SEARCH), Some(SEARCH));
    let found = search_ipv6_firewall_gateway(options).await;
    found
        .map(|found| Box::new(control::Firewall::new(found)))
        .inspect_err(|error| tracing::debug!(%error, "no UPnP by IPv6"))
        .ok()
}

fn explain(router: Ipv6Addr, is_refused: bool) -> String {
    match is_refused {
        true => format!(
            "the router {router} refuses to let others in by IPv6; allow pinholes in its settings of UPnP or PCP"
        ),
        false => format!(
            "the router {router} speaks neither PCP nor UPnP by IPv6; if it has a firewall for IPv6, both ends' probes \
             open it"
        ),
    }
}
