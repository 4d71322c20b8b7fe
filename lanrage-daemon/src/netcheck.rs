//! A look at the network around this machine, with and without a running daemon.

mod portal;

pub(crate) use portal::NOTHING;
pub use portal::captive_portal;

use crate::clock::now;
use crate::peer::port_mapping;
use crate::roles::addresses;
use lanrage_common::address;
use lanrage_common::api::{NetworkStatus, StunServerStatus};
use lanrage_common::nat::discovery::{Discovery, SPARES, ServerAnswer, Transmit, Via};
use rand_core::OsRng;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use tokio::net::UdpSocket;

/// Longest datagram that can be an answer.
const ANSWER: usize = 1500;

/// Sockets on fresh ports, IPv4 only: behind which NAT IPv6 is nobody asks.
#[derive(Debug)]
pub struct Spares(Vec<UdpSocket>);

impl Spares {
    /// Opens them.
    pub fn open() -> io::Result<Self> {
        let open = || {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        };
        let mut sockets = Vec::with_capacity(SPARES);
        for _ in 0..SPARES {
            sockets.push(open()?);
        }
        Ok(Self(sockets))
    }

    /// Sends or drops.
    pub fn send(&self, at: usize, to: SocketAddr, payload: &[u8]) {
        if let Some(Err(error)) = self.0.get(at).map(|socket| socket.try_send_to(payload, to)) {
            tracing::trace!(%to, %error, "not sent");
        }
    }

    /// Returns when one has datagrams. Cancel safe.
    pub async fn readable(&self) {
        let mut ready: Vec<_> = self.0.iter().map(|socket| Box::pin(socket.readable())).collect();
        poll_fn(|context| {
            let is_ready = ready.iter_mut().any(|socket| socket.as_mut().poll(context).is_ready());
            if is_ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The next datagram.
    pub fn try_recv(&self) -> Option<(Via, Vec<u8>)> {
        let mut buffer = [0; ANSWER];
        self.0.iter().enumerate().find_map(|(at, socket)| {
            let (length, _) = socket.try_recv_from(&mut buffer).ok()?;
            Some((Via::Spare(at), buffer[..length].to_vec()))
        })
    }
}

/// Looks from sockets of its own.
pub async fn run(servers: &[SocketAddr], control: Option<&str>) -> io::Result<NetworkStatus> {
    let (found, protocols, captive_portal) =
        tokio::join!(discover(servers), port_mapping::protocols(), captive_portal(control));
    let discovery = found?;
    Ok(NetworkStatus {
        nat: discovery.behaviour().clone(),
        servers: discovery.servers().map(|answer| describe(answer, None)).collect(),
        protocols,
        forwarded: None,
        not_forwarded: None,
        pinhole: None,
        no_pinhole: None,
        captive_portal,
    })
}

async fn discover(servers: &[SocketAddr]) -> io::Result<Discovery> {
    let tunnel = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let tunnel6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok();
    let spares = Spares::open()?;
    let port = tunnel.local_addr()?.port();
    let mut discovery = Discovery::new(servers, local_addresses(port), OsRng, now());
    let (mut buffer, mut buffer6) = ([0; ANSWER], [0; ANSWER]);
    loop {
        while let Some(Transmit { via, to, payload }) = discovery.poll_output() {
            match (via, &tunnel6) {
                (Via::Spare(at), _) => spares.send(at, to, &payload),
                (Via::Tunnel, Some(tunnel6)) if to.is_ipv6() => drop(tunnel6.try_send_to(&payload, to)),
                (Via::Tunnel, _) => drop(tunnel.try_send_to(&payload, to)),
            }
        }
        let Some(due) = discovery.poll_timeout() else { return Ok(discovery) };
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => discovery.handle_timeout(now()),
            () = spares.readable() => while let Some((via, datagram)) = spares.try_recv() {
                discovery.handle_datagram(via, &datagram, now());
            },
            received = tunnel.recv(&mut buffer) => if let Ok(length) = received {
                discovery.handle_datagram(Via::Tunnel, &buffer[..length], now());
            },
            received = receive(tunnel6.as_ref(), &mut buffer6) => if let Ok(length) = received {
                discovery.handle_datagram(Via::Tunnel, &buffer6[..length], now());
            },
        }
    }
}

async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<usize> {
    match socket {
        Some(socket) => socket.recv(buffer).await,
        None => std::future::pending().await,
    }
}

/// The addresses that this machine sends from to the internet, by either family.
pub fn local_addresses(port: u16) -> Vec<SocketAddr> {
    let own = [addresses::default_route_source(), addresses::default_route_source6()];
    own.into_iter().flatten().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Whether an address is certainly not the internet's: private, a carrier's, link-local, loopback.
pub fn is_inside(ip: Ipv4Addr) -> bool {
    address::is_private(ip.into()) || ip.is_link_local() || ip.is_loopback() || ip.is_unspecified()
}

/// For people and scripts.
pub fn describe(answer: ServerAnswer, relay: Option<String>) -> StunServerStatus {
    let rtt_ms = answer.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0);
    StunServerStatus { relay, address: answer.server, mapped: answer.mapped, rtt_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_the_internet_does_not_route_are_private() {
        for private in
            ["10.0.0.1", "192.168.7.1", "172.31.0.1", "100.64.0.1", "100.127.255.255", "169.254.1.1"]
        {
            assert!(is_inside(private.parse().unwrap()), "{private}");
        }
        for public in ["203.0.113.7", "100.63.0.1", "100.128.0.1", "8.8.4.4"] {
            assert!(!is_inside(public.parse().unwrap()), "{public}");
        }
    }
}
