//! One peer's sockets, as its games have them open.

use crate::lab::netns::Namespace;
use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

/// How long something that must come may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks at sockets.
const POLL: Duration = Duration::from_millis(5);

/// A datagram that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// On which local port.
    pub port: u16,
    /// Who sent it.
    pub from: SocketAddrV4,
    /// The destination in its header.
    pub to: Ipv4Addr,
    /// The time to live in its header.
    pub ttl: i32,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// The sockets of all games on one peer, by port, and what came there.
#[derive(Debug)]
pub struct Side {
    namespace: Namespace,
    udp: BTreeMap<u16, UdpSocket>,
    tcp: BTreeMap<u16, TcpListener>,
    log: Vec<Arrival>,
}

impl Side {
    /// No sockets yet.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, udp: BTreeMap::new(), tcp: BTreeMap::new(), log: Vec::new() }
    }

    /// Opens a UDP socket, unless it is open; 0 = on any port. The port.
    pub fn open_udp(&mut self, port: u16) -> Result<u16> {
        if self.udp.contains_key(&port) {
            return Ok(port);
        }
        let socket = self.namespace.play(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
        let socket = socket.with_context(|| format!("cannot bind UDP port {port}"))?;
        socket.set_nonblocking(true)?;
        socket.set_broadcast(true)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
        let port = socket.local_addr()?.port();
        self.udp.insert(port, socket);
        Ok(port)
    }

    /// Opens a TCP listener, unless it is open; 0 = on any port. The port.
    pub fn open_tcp(&mut self, port: u16) -> Result<u16> {
        if self.tcp.contains_key(&port) {
            return Ok(port);
        }
        let listener = self.namespace.play(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
        let listener = listener.with_context(|| format!("cannot listen on TCP port {port}"))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        self.tcp.insert(port, listener);
        Ok(port)
    }

    /// Joins a group wherever the routes lead, as games do.
    pub fn join(&self, port: u16, group: Ipv4Addr) -> Result<()> {
        let socket = &self.udp[&port];
        match self.namespace.run(|| socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED))? {
            // another game on this port did
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(()),
            result => result.with_context(|| format!("cannot join {group}")),
        }
    }

    /// Sends from an open port.
    pub fn send(&self, port: u16, bytes: &[u8], to: SocketAddrV4, ttl: u8) -> Result<()> {
        let socket = &self.udp[&port];
        if to.ip().is_multicast() {
            socket.set_multicast_ttl_v4(ttl.into())?;
        } else {
            socket.set_ttl(ttl.into())?;
        }
        socket.send_to(bytes, to).map(drop).with_context(|| format!("cannot send to {to}"))
    }

    /// Connects by TCP from any port.
    pub fn connect(&self, to: SocketAddrV4) -> Result<TcpStream> {
        let stream = self.namespace.run(|| TcpStream::connect_timeout(&to.into(), PATIENCE))?;
        stream.with_context(|| format!("cannot connect to {to}"))
    }

    /// The next connection to an open TCP port.
    pub fn accept(&self, port: u16) -> Result<TcpStream> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.tcp[&port].accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(POLL);
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("nobody connects to TCP port {port}"));
                }
            }
        }
    }

    /// Reads what has come, until `done` says that it is enough, or patience ends.
    pub fn wait(&mut self, mut done: impl FnMut(&[Arrival]) -> bool) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read()?;
            let is_done = done(&self.log);
            if is_done || Instant::now() >= deadline {
                return Ok(is_done);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Reads what comes within a time.
    pub fn listen(&mut self, time: Duration) -> Result<()> {
        std::thread::sleep(time);
        self.read()
    }

    /// What has come so far.
    pub fn log(&self) -> &[Arrival] {
        &self.log
    }

    fn read(&mut self) -> Result<()> {
        for (port, socket) in &self.udp {
            while let Some(arrival) = receive(*port, socket)? {
                self.log.push(arrival);
            }
        }
        Ok(())
    }
}

fn receive(port: u16, socket: &UdpSocket) -> Result<Option<Arrival>> {
    let mut bytes = vec![0; 65_536];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo, i32);
    let message = match recvmsg::<SockaddrIn>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    ) {
        Ok(message) => message,
        Err(nix::errno::Errno::EAGAIN) => return Ok(None),
        // an ICMP error for an earlier datagram
        Err(nix::errno::Errno::ECONNREFUSED) => return receive(port, socket),
        Err(error) => return Err(error).context("cannot receive"),
    };
    let (mut to, mut ttl) = (Ipv4Addr::UNSPECIFIED, 0);
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
            }
            ControlMessageOwned::Ipv4Ttl(value) => ttl = value,
            _ => {}
        }
    }
    let from = message.address.context("a datagram from nowhere")?;
    let (from, length) = (SocketAddrV4::new(from.ip(), from.port()), message.bytes);
    bytes.truncate(length);
    Ok(Some(Arrival { port, from, to, ttl, bytes }))
}
