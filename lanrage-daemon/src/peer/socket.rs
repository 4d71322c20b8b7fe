//! The tunnel's one UDP socket: IPv6 and IPv4 through the same port, so that members and relays of both are reached.

use crate::platform;
use anyhow::Context as _;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

const BUFFER: usize = 4 << 20;

/// See the module. Never blocks.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    /// Whether IPv4 addresses must be written as IPv4-mapped IPv6.
    is_dual: bool,
    kept: Kept,
    /// How datagrams are marked (RFC 2474).
    dscp: AtomicU8,
}

/// Sockets that take the tunnel's place towards one address each, because only they get through a router on the way.
#[derive(Debug, Default)]
struct Kept {
    sockets: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
    /// There are any: most devices never have one, and look no further.
    has_any: AtomicBool,
}

impl Kept {
    fn change(&self, change: impl FnOnce(&mut HashMap<SocketAddr, Arc<UdpSocket>>)) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sockets);
        self.has_any.store(!sockets.is_empty(), Relaxed);
    }

    fn find(&self, to: SocketAddr) -> Option<Arc<UdpSocket>> {
        if !self.has_any.load(Relaxed) {
            return None;
        }
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).get(&to).cloned()
    }
}

impl Socket {
    /// At the configured port, or at the last one, so that NAT mappings and port forwardings live on.
    pub fn open(configured: u16, last: Option<u16>) -> anyhow::Result<Self> {
        if configured != 0 {
            return Self::bind(configured).with_context(|| {
                format!("UDP port {configured} is taken: stop the program that uses it, or set another `peer.port` (0 picks a free one)")
            });
        }
        let result = last.map_or_else(|| Self::bind(0), |port| Self::bind(port).or_else(|_| Self::bind(0)));
        result.context("cannot open a UDP socket")
    }

    /// At that address; `[::]` takes IPv4 too.
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        match address.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() => Self::bind(address.port()),
            ip => Ok(Self {
                socket: bind(Domain::for_address(address), address)?,
                is_dual: ip.is_ipv6(),
                kept: Kept::default(),
                dscp: AtomicU8::default(),
            }),
        }
    }

    /// The port.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// The same socket as tokio watches it. Addresses that it gives may be IPv4-mapped.
    pub fn watched(&self) -> io::Result<tokio::net::UdpSocket> {
        tokio::net::UdpSocket::from_std(self.socket.try_clone()?)
    }

    /// What goes to `far` leaves from this other socket from now on.
    pub fn keep(&self, far: SocketAddr, socket: Arc<UdpSocket>) {
        mark(&socket, self.dscp.load(Relaxed));
        self.kept.change(|sockets| drop(sockets.insert(far, socket)));
    }

    /// What goes to `far` leaves from here again.
    pub fn release(&self, far: &SocketAddr) {
        self.kept.change(|sockets| drop(sockets.remove(far)));
    }

    /// Everything leaves from here again.
    pub fn release_all(&self) {
        self.kept.change(HashMap::clear);
    }

    /// Marks what leaves from now on with this code point (RFC 2474). A call of the system only when it is another.
    pub fn set_dscp(&self, dscp: u8) {
        if self.dscp.load(Relaxed) != dscp {
            self.dscp.store(dscp, Relaxed);
            mark(&self.socket, dscp);
            self.kept.change(|sockets| sockets.values().for_each(|socket| mark(socket, dscp)));
        }
    }

    /// Sends to an address of either family.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        if let Some(kept) = self.kept.find(to) {
            return kept.send_to(datagram, to);
        }
        self.socket.send_to(datagram, self.written(to))
    }

    /// The same, and no router may cut the datagram: [`io::ErrorKind::Other`] or the like where this machine would.
    pub fn send_whole(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        match self.kept.find(to) {
            Some(kept) => platform::uncut((&*kept).into(), to, || kept.send_to(datagram, to)),
            None => {
                platform::uncut((&self.socket).into(), to, || self.socket.send_to(datagram, self.written(to)))
            }
        }
    }

    /// An address as this socket takes it.
    fn written(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if self.is_dual => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        }
    }

    fn bind(port: u16) -> io::Result<Self> {
        match bind(Domain::IPV6, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
            Ok(socket) => {
                Ok(Self { socket, is_dual: true, kept: Kept::default(), dscp: AtomicU8::default() })
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            // a system without IPv6
            Err(_) => {
                let socket = bind(Domain::IPV4, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))?;
                Ok(Self { socket, is_dual: false, kept: Kept::default(), dscp: AtomicU8::default() })
            }
        }
    }
}

fn mark(socket: &UdpSocket, dscp: u8) {
    let (socket, class) = (SockRef::from(socket), u32::from(dscp) << 2);
    // each family's; a socket of the other one refuses, and an unmarked datagram arrives as well
    let _ = socket.set_tos_v4(class);
    let _ = socket.set_tclass_v6(class);
}

/// A further socket at any port, for IPv4: only there are ports translated.
pub fn open_spare() -> io::Result<UdpSocket> {
    bind(Domain::IPV4, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))
}

fn bind(domain: Domain, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = RawSocket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    platform::prepare_socket(&socket)?;
    // the kernel's limit caps these; a smaller buffer only loses bursts
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_unless_any_will_do() {
        let first = Socket::bind(0).unwrap();
        let taken = first.port().unwrap();
        let error = Socket::open(taken, None).unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()) && error.contains("peer.port"), "{error}");
        let other = Socket::open(0, Some(taken)).unwrap();
        assert_ne!(other.port().unwrap(), taken);
        drop(first);
        assert_eq!(Socket::open(0, Some(taken)).unwrap().port().unwrap(), taken);
    }

    #[test]
    fn what_goes_to_one_address_can_leave_from_another_socket() {
        let socket = Socket::bind(0).unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let to = far.local_addr().unwrap();
        let source = || {
            socket.send_to(b"hello", to).unwrap();
            far.recv_from(&mut [0; 8]).unwrap().1.port()
        };
        let kept = Arc::new(open_spare().unwrap());
        let port = kept.local_addr().unwrap().port();
        socket.keep(to, kept);
        assert_eq!(source(), port);
        socket.release(&to);
        assert_eq!(source(), socket.port().unwrap());
    }

    #[test]
    fn one_socket_reaches_both_families() {
        let socket = Socket::bind(0).unwrap();
        assert!(socket.is_dual, "this machine has IPv6");
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let other = UdpSocket::bind(loopback).unwrap();
            other.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            let to = other.local_addr().unwrap();
            assert_eq!(socket.send_to(b"hello", to).unwrap(), 5);
            let (_, from) = other.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from, SocketAddr::new(to.ip(), socket.port().unwrap()));
        }
    }
}
