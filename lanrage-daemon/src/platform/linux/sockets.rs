//! Sockets, made fit for what they carry.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

/// Unsent bytes that TCP takes before it says that it is full: what waits in the program can still be given up.
const UNSENT: u32 = 16 * 1024;
/// A connection whose data nobody acknowledges for this long is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Lets routers and this machine fragment the tunnel's datagrams: a group packet of full size needs two.
pub fn prepare_socket(socket: &socket2::Socket) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    if socket.domain()? == socket2::Domain::IPV6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
    }
    Ok(())
}

/// Lets `send` send to an address, and meanwhile nobody cut what it sends; the path MTU that the system believes in does
/// not count, for finding it out is the purpose (IP_PMTUDISC_PROBE).
pub fn uncut<T>(
    socket: socket2::SockRef<'_>,
    to: SocketAddr,
    send: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let (level, name, [on, off]) = match to {
        SocketAddr::V4(_) => {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, [libc::IP_PMTUDISC_PROBE, libc::IP_PMTUDISC_DONT])
        }
        SocketAddr::V6(_) => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            [libc::IPV6_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_DONT],
        ),
    };
    set_option(&socket, level, name, on)?;
    let sent = send();
    set_option(&socket, level, name, off)?;
    sent
}

/// A socket for whole IPv4 packets that leave by that interface.
pub fn raw_socket(index: u32) -> io::Result<socket2::Socket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let name = nix::net::if_::if_indextoname(index)?;
    socket.bind_device(Some(name.to_bytes()))?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One Ethernet interface, as far as a gateway needs it: takes ARP and what is for everybody or a group, sends any frame.
#[derive(Debug)]
pub struct EthernetPort {
    socket: tokio::io::unix::AsyncFd<socket2::Socket>,
}

impl EthernetPort {
    /// On the interface with that number.
    pub fn open(index: u32) -> io::Result<Self> {
        use socket2::{Domain, SockFilter, Socket, Type};
        // protocol 0: nothing comes before the filter is there
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.attach_filter(&[
            SockFilter::new(0x30, 0, 0, 0),      // the first byte: its lowest bit is "group"
            SockFilter::new(0x45, 2, 0, 1),      // set: take it
            SockFilter::new(0x28, 0, 0, 12),     // the frame's type
            SockFilter::new(0x15, 0, 1, 0x0806), // ARP
            SockFilter::new(0x06, 0, 0, 0x40000), // take it
            SockFilter::new(0x06, 0, 0, 0),      // leave it
        ])?;
        socket.set_nonblocking(true)?;
        take_all_groups(&socket, index)?;
        socket.bind(&link_layer(index)?)?;
        // SAFETY: the socket has its descriptor until it is dropped, and nobody takes it out.
        let socket = unsafe { tokio::io::unix::AsyncFd::register(socket) }?;
        Ok(Self { socket })
    }

    /// Ready when there is a frame.
    pub fn poll_readable(&self, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        // readiness stays noted until nothing was there
        self.socket.poll_read_ready(context).map(drop)
    }

    /// The next frame; [`io::ErrorKind::WouldBlock`] when there is none now.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::io::Read as _;
        self.socket.try_io(tokio::io::Interest::READABLE, |mut socket| socket.read(buffer))
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send(frame).map(drop)
    }
}

/// The address of an interface (packet(7)), for all kinds of frames.
fn link_layer(index: u32) -> io::Result<socket2::SockAddr> {
    // SAFETY: the type is plain numbers, for which zeros are fine.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: the storage is larger than every address, and its length is told.
    let ((), address) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// The card hands up frames of groups that this machine has not joined, until the socket is closed.
fn take_all_groups(socket: &socket2::Socket, index: u32) -> io::Result<()> {
    let wish = libc::packet_mreq {
        mr_ifindex: index as i32,
        mr_type: libc::PACKET_MR_ALLMULTI as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads `size_of(wish)` bytes of `wish`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const wish).cast(),
            size_of_val(&wish) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn set_option(
    socket: &socket2::Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads `size_of(value)` bytes of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a TCP connection fit for datagrams: little waits inside, and a dead one is noticed.
pub fn prepare_stream(stream: socket2::SockRef<'_>) -> io::Result<()> {
    stream.set_tcp_nodelay(true)?;
    stream.set_tcp_notsent_lowat(UNSENT)?;
    stream.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}
