//! Linux: recvmmsg and sendmmsg, with receive offload (UDP_GRO) and segmentation offload (UDP_SEGMENT).

mod control;
mod outbox;

pub use outbox::Outbox;

use super::super::imp::set_option;
use super::{Message, Way};
use control::{Buffer, Controls, Writer};
use mio::{Interest, Registry, Token, unix::SourceFd};
use socket2::Domain;
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

/// Messages that one call receives.
const BATCH: usize = 64;
/// Room for a whole offloaded message; the odd rest keeps the beginnings of neighbours apart in the caches.
const STRIDE: usize = 65_536 + 33 * 64;

/// A socket that never blocks.
#[derive(Debug)]
pub struct Socket {
    socket: socket2::Socket,
    bound: SocketAddr,
    can_segment: bool,
}

impl Socket {
    /// Takes a bound socket.
    pub fn new(socket: socket2::Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if socket.domain()? == Domain::IPV6 {
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        } else {
            set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        }
        if let Err(error) = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1) {
            tracing::debug!(%error, "no receive offload: datagrams come one by one");
        }
        // 0 is the default; a kernel without segmentation offload refuses the option itself
        let can_segment = set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { socket, bound, can_segment })
    }

    /// Where it is bound.
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Has `registry` tell when there is something to receive: once for each time that [`Inbox::receive`] found nothing.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), token, Interest::READABLE)
    }

    /// Sends one datagram.
    pub fn send(&self, way: Way, payload: &[u8]) -> io::Result<()> {
        let name = Name::from(way.to);
        let mut buffer = Buffer::default();
        let mut iovec = iovec(payload);
        let length = self.write_controls(&mut buffer, way, None);
        // SAFETY: all-zero is a valid msghdr.
        let mut header: libc::msghdr = unsafe { zeroed() };
        fill(&mut header, &name, std::slice::from_mut(&mut iovec), (&mut buffer, length));
        self.send_message(&header)
    }

    /// Bytes that the receive buffer was allowed to have, without the system's own share of as much.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        self.socket.recv_buffer_size().map(|size| size / 2)
    }

    /// Datagrams that were lost because the receive buffer was full.
    pub fn lost(&self) -> u64 {
        const DROPS: usize = 8;
        let mut counts = [0u32; DROPS + 1];
        let mut length = size_of_val(&counts) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `counts`.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                counts.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 { counts[DROPS].into() } else { 0 }
    }

    fn send_message(&self, header: &libc::msghdr) -> io::Result<()> {
        loop {
            // SAFETY: everything that `header` points to is borrowed by the caller.
            let sent = unsafe {
                libc::sendmsg(self.socket.as_raw_fd(), header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Control messages for one way; `segment` when several datagrams leave as one. Gives their length.
    fn write_controls(&self, buffer: &mut Buffer, way: Way, segment: Option<u16>) -> usize {
        let mut writer = Writer::new(buffer);
        match way.from.filter(|from| *from != self.bound.ip()) {
            Some(IpAddr::V4(from)) => writer.push(
                libc::IPPROTO_IP,
                libc::IP_PKTINFO,
                libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                },
            ),
            Some(IpAddr::V6(from)) => writer.push(
                libc::IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: from.octets() }, ipi6_ifindex: 0 },
            ),
            None => {}
        }
        match way.to {
            _ if way.tos == 0 => {}
            SocketAddr::V4(_) => writer.push(libc::IPPROTO_IP, libc::IP_TOS, libc::c_int::from(way.tos)),
            SocketAddr::V6(_) => {
                writer.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::c_int::from(way.tos))
            }
        }
        if let Some(segment) = segment {
            writer.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        }
        writer.length()
    }
}

/// Where received datagrams lie until the next batch.
pub struct Inbox {
    bytes: Box<[u8]>,
    names: Box<[Name]>,
    controls: Box<[Buffer]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    messages: Vec<Message>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("messages", &self.messages).finish_non_exhaustive()
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            bytes: vec![0; BATCH * STRIDE].into(),
            names: vec![Name::default(); BATCH].into(),
            controls: vec![Buffer::default(); BATCH].into(),
            iovecs: vec![iovec(&[]); BATCH].into(),
            // SAFETY: all-zero is a valid mmsghdr.
            headers: vec![unsafe { zeroed() }; BATCH].into(),
            messages: Vec::with_capacity(BATCH),
        }
    }
}

impl Inbox {
    /// Receives what is there, at most a batch; [`io::ErrorKind::WouldBlock`] when there is nothing.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        self.messages.clear();
        self.prepare();
        // SAFETY: the headers point into buffers of `self`, which nobody else uses until the call returns.
        let received = unsafe {
            libc::recvmmsg(
                socket.socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for n in 0..received {
            let (header, length) = (&self.headers[n].msg_hdr, self.headers[n].msg_len as usize);
            let Some(from) = self.names[n].address() else { continue };
            let (mut to, mut tos, mut segment) = (None, 0, length);
            for control in Controls::of(header) {
                match control.kind() {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        // the address to answer from; differs from the destination of a broadcast
                        let address = control.read::<libc::in_pktinfo>().ipi_spec_dst;
                        to = Some(Ipv4Addr::from(address.s_addr.to_ne_bytes()).into());
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let address = control.read::<libc::in6_pktinfo>().ipi6_addr;
                        to = Some(Ipv6Addr::from(address.s6_addr).into());
                    }
                    (libc::IPPROTO_IP, libc::IP_TOS) => tos = control.read::<u8>(),
                    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => tos = control.read::<libc::c_int>() as u8,
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        segment = usize::try_from(control.read::<libc::c_int>()).unwrap_or(length);
                    }
                    _ => {}
                }
            }
            self.messages.push(Message { from, to, tos, start: n * STRIDE, length, segment: segment.max(1) });
        }
        Ok(())
    }

    /// Whether there may be more of what came last.
    pub fn is_full(&self) -> bool {
        self.messages.len() == BATCH
    }

    /// What came last.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The bytes of all messages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn prepare(&mut self) {
        let parts = self.bytes.chunks_exact_mut(STRIDE).zip(&mut self.names).zip(&mut self.controls);
        for (((bytes, name), control), (iovec, header)) in
            parts.zip(self.iovecs.iter_mut().zip(&mut self.headers))
        {
            *iovec = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            let header = &mut header.msg_hdr;
            header.msg_name = name.0.as_mut_ptr().cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr();
            header.msg_controllen = size_of::<Buffer>() as _;
            header.msg_flags = 0;
        }
    }
}

/// A socket address as the kernel writes it.
#[derive(Clone, Copy)]
struct Name(MaybeUninit<libc::sockaddr_in6>, libc::socklen_t);

impl Default for Name {
    fn default() -> Self {
        Self(MaybeUninit::zeroed(), 0)
    }
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        let mut name = Self::default();
        match address {
            SocketAddr::V4(address) => {
                let v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as _,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_in is the shorter of the two, and no more strictly aligned.
                unsafe { name.0.as_mut_ptr().cast::<libc::sockaddr_in>().write(v4) };
                name.1 = size_of::<libc::sockaddr_in>() as _;
            }
            SocketAddr::V6(address) => {
                name.0.write(libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as _,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                });
                name.1 = size_of::<libc::sockaddr_in6>() as _;
            }
        }
        name
    }
}

impl Name {
    /// Canonical: see [`Message::from`].
    fn address(&self) -> Option<SocketAddr> {
        // SAFETY: zeroed at first, so always initialised; every bit pattern is valid.
        let v6 = unsafe { self.0.assume_init_ref() };
        match libc::c_int::from(v6.sin6_family) {
            libc::AF_INET => {
                // SAFETY: the family says that it is a sockaddr_in.
                let v4 = unsafe { &*self.0.as_ptr().cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddr::new(IpAddr::V6(ip).to_canonical(), u16::from_be(v6.sin6_port)))
            }
            _ => None,
        }
    }
}

/// For sending: the kernel only reads what it points to.
fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// Points a header for sending to its parts.
fn fill(header: &mut libc::msghdr, name: &Name, iovecs: &mut [libc::iovec], controls: (&mut Buffer, usize)) {
    header.msg_name = name.0.as_ptr().cast_mut().cast();
    header.msg_namelen = name.1;
    header.msg_iov = iovecs.as_mut_ptr();
    header.msg_iovlen = iovecs.len() as _;
    header.msg_control = if controls.1 == 0 { std::ptr::null_mut() } else { controls.0.as_mut_ptr() };
    header.msg_controllen = controls.1 as _;
}
