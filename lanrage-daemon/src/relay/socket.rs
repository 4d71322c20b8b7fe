//! The relay's one UDP socket.

use crate::platform::holder;
use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4};
use tokio::net::UdpSocket;

/// Room for a burst while the daemon is busy: about 3000 datagrams of 1400 bytes, as the kernel counts them.
const BUFFER: usize = 8 << 20;

/// Opens the socket. Without SO_REUSEADDR: on UDP it would let a second process steal the port.
pub(super) fn bind(listen: SocketAddrV4) -> anyhow::Result<UdpSocket> {
    let socket =
        Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).context("cannot open a UDP socket")?;
    socket.set_nonblocking(true).context("cannot make the UDP socket non-blocking")?;
    enlarge(&socket);
    crate::platform::prepare_socket(&socket).context("cannot allow fragments on the relay's socket")?;
    socket.bind(&SocketAddr::V4(listen).into()).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => taken(listen),
        ErrorKind::AddrNotAvailable => anyhow::anyhow!(
            "UDP {listen} is no address of this machine: set relay.listen to one, or to 0.0.0.0:{}",
            listen.port()
        ),
        ErrorKind::PermissionDenied => anyhow::anyhow!(
            "not allowed to listen on UDP {listen}: run as root, give CAP_NET_BIND_SERVICE, or set relay.listen to a \
             port above 1023"
        ),
        _ => anyhow::Error::new(error).context(format!("cannot listen on UDP {listen}")),
    })?;
    UdpSocket::from_std(socket.into()).context("cannot watch the relay's socket")
}

/// Where the socket is bound.
pub(super) fn local_address(socket: &UdpSocket) -> anyhow::Result<SocketAddrV4> {
    match socket.local_addr().context("cannot read the relay socket's address")? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => anyhow::bail!("the relay's socket is bound to {address}, not to IPv4"),
    }
}

/// As large as allowed: root may pass the system's limit.
fn enlarge(socket: &Socket) {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_ok()
            && setsockopt(socket, sockopt::SndBufForce, &BUFFER).is_ok()
        {
            return;
        }
    }
    if let Err(error) = socket.set_recv_buffer_size(BUFFER).and_then(|()| socket.set_send_buffer_size(BUFFER))
    {
        tracing::debug!(%error, "the relay's socket keeps its default buffers");
    }
}

fn taken(listen: SocketAddrV4) -> anyhow::Error {
    let port = listen.port();
    let holder = holder::of_udp_port(port).unwrap_or_else(|| "another program".into());
    anyhow::anyhow!(
        "UDP port {port} is taken by {holder}: stop it, or set relay.listen = \"{}:{}\" (or LANRAGE_RELAY__LISTEN)",
        listen.ip(),
        if port == 3478 { 3479 } else { 3478 },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_reported_with_its_holder() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind(local_address(&first).unwrap()).unwrap_err().to_string();
        assert!(error.contains("is taken by") && error.contains("relay.listen"), "{error}");
        #[cfg(target_os = "linux")]
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        assert!(!error.contains('\n'));
    }

    #[tokio::test]
    async fn a_foreign_address_is_reported() {
        let error = bind("192.0.2.1:3478".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("no address of this machine"), "{error}");
    }
}
