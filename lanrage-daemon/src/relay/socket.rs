//! The relay's UDP sockets.
//!
//! | endpoint | address | sockets |
//! |---|---|---|
//! | main | `relay.listen` and `relay.listen6` | one for each worker |
//! | alternate (RFC 5780) | each address of the main ones and `relay.alternate_address`, both with `relay.alternate_port` too | one |

use crate::config::RelayConfig;
use crate::platform::holder;
use crate::platform::udp;
use crate::roles::addresses;
use lanrage_common::api::Problem;
use lanrage_common::relay::Alternates;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// Room for a burst while the daemon is busy: about 3000 datagrams of 1400 bytes, as the kernel counts them.
const BUFFER: usize = 8 << 20;

/// An address that the relay is reached at.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) bound: SocketAddr,
    /// At least one; the system spreads senders between them.
    pub(super) sockets: Vec<udp::Socket>,
}

/// All endpoints; the main ones come first.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) endpoints: Vec<Endpoint>,
    /// Main endpoints.
    pub(super) main: Vec<SocketAddr>,
    /// The second port of RFC 5780, if all of its sockets could be opened.
    pub(super) alternate_port: Option<u16>,
    /// What could not be opened although nothing depends on it.
    pub(super) problems: Vec<Problem>,
    /// Whether the system gave the sockets less room than they asked for.
    pub(super) is_cramped: bool,
}

/// Opens all sockets: `workers` at each main endpoint.
pub(super) fn listen(config: &RelayConfig, workers: usize) -> anyhow::Result<Listening> {
    let mut listening = Listening {
        endpoints: Vec::new(),
        main: Vec::new(),
        alternate_port: None,
        problems: Vec::new(),
        is_cramped: false,
    };
    listening.open(config.listen, workers).map_err(|error| explain(config.listen, "relay.listen", error))?;
    let port = listening.main[0].port();
    match config.second_listen(port) {
        Some(listen6) if config.listen6.is_some() => {
            listening.open(listen6, workers).map_err(|error| explain(listen6, "relay.listen6", error))?;
        }
        Some(listen6) => listening.open_ipv6(listen6, workers),
        None => {}
    }
    listening.is_cramped = listening.endpoints.iter().flat_map(|endpoint| &endpoint.sockets).any(is_cramped);
    listening.open_alternates(config);
    Ok(listening)
}

/// How many workers there are, and sockets at each main endpoint.
pub(super) fn workers(configured: u16) -> usize {
    if !cfg!(target_os = "linux") {
        // only Linux spreads datagrams between the sockets of a port
        return 1;
    }
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if configured == 0 { cores() } else { configured.into() }
}

impl Listening {
    /// The main endpoint of a family.
    pub(super) fn main_of(&self, is_v4: bool) -> Option<SocketAddr> {
        self.main.iter().copied().find(|bound| bound.is_ipv4() == is_v4)
    }

    /// Where else STUN is answered. Of an unspecified address, the default route's source is the first one.
    pub(super) fn alternates(&self, config: &RelayConfig) -> Alternates {
        let ports = self.alternate_port.zip(self.main.first()).map(|(port, main)| [main.port(), port]);
        let second = config.alternate_address.filter(|ip| {
            self.main_of(ip.is_ipv4()).is_some_and(|main| self.is_served(SocketAddr::new(*ip, main.port())))
        });
        let pair = second.and_then(|second| {
            let first = self.main_of(second.is_ipv4())?.ip();
            let source = || {
                if second.is_ipv4() {
                    addresses::default_route_source()
                } else {
                    addresses::default_route_source6()
                }
            };
            let first = if first.is_unspecified() { source()? } else { first };
            (first != second).then_some([first, second])
        });
        Alternates { ports, addresses: pair.into_iter().collect() }
    }

    fn open(&mut self, address: SocketAddr, count: usize) -> io::Result<()> {
        let endpoint = bind(address, count)?;
        self.main.push(endpoint.bound);
        self.endpoints.push(endpoint);
        Ok(())
    }

    /// A relay without IPv6 is a relay all the same.
    fn open_ipv6(&mut self, address: SocketAddr, workers: usize) {
        match self.open(address, workers) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let message = explain(address, "relay.listen6", error).to_string();
                tracing::warn!("members with IPv6 alone cannot use this relay: {message}");
                self.problems.push(Problem {
                    code: "relay_without_ipv6".into(),
                    message: format!(
                        "the relay serves IPv4 only: UDP port {} is taken on IPv6",
                        address.port()
                    ),
                    fix: "stop the other program, or set relay.listen6".into(),
                });
            }
            Err(error) => tracing::info!(%error, "this machine has no IPv6: the relay serves IPv4"),
        }
    }

    /// Without the second port members learn their addresses, but not how their routers behave.
    fn open_alternates(&mut self, config: &RelayConfig) {
        let second = config.alternate_address;
        for main in self.main.clone() {
            if let Some(ip) = second.filter(|ip| ip.is_ipv4() == main.is_ipv4()) {
                self.open_alternate(SocketAddr::new(ip, main.port()));
            }
        }
        if config.alternate_port == 0 || config.alternate_port == config.listen.port() {
            return;
        }
        // with a port of the system's choice the second one is of its choice as well
        let mut port = Some(if config.listen.port() == 0 { 0 } else { config.alternate_port });
        let ips: Vec<_> = self.main.iter().map(SocketAddr::ip).chain(second).collect();
        for ip in ips {
            port = port.and_then(|port| self.open_alternate(SocketAddr::new(ip, port)));
        }
        self.alternate_port = port;
    }

    /// The port, if the relay is reached at the address now.
    fn open_alternate(&mut self, address: SocketAddr) -> Option<u16> {
        if self.is_served(address) {
            return Some(address.port());
        }
        match bind(address, 1) {
            Ok(endpoint) => {
                self.endpoints.push(endpoint);
                self.endpoints.last().map(|endpoint| endpoint.bound.port())
            }
            Err(error) => {
                self.problems.push(without_behaviour(address, error));
                None
            }
        }
    }

    fn is_served(&self, address: SocketAddr) -> bool {
        let serves = |bound: &SocketAddr| {
            let is_any = bound.ip().is_unspecified() && bound.is_ipv4() == address.is_ipv4();
            bound.port() == address.port() && (is_any || bound.ip() == address.ip())
        };
        self.endpoints.iter().any(|endpoint| serves(&endpoint.bound))
    }
}

fn without_behaviour(address: SocketAddr, error: io::Error) -> Problem {
    let holder =
        (error.kind() == ErrorKind::AddrInUse).then(|| holder::of_udp_port(address.port())).flatten();
    let why = holder.map_or_else(|| error.to_string(), |holder| format!("taken by {holder}"));
    tracing::info!(%address, why, "members cannot test their routers with this relay");
    Problem {
        code: "relay_without_behaviour_test".into(),
        message: format!("members cannot test how their routers behave (RFC 5780): UDP {address} cannot be used, {why}"),
        fix: "set relay.alternate_port to a free port, or to 0 if nobody is to test; relay.alternate_address must be \
              an address of this machine"
            .into(),
    }
}

/// Opens `count` sockets at one address. The first without SO_REUSEPORT (nor SO_REUSEADDR, which on UDP is the same): a
/// second process is to find the port taken, not to share it.
fn bind(address: SocketAddr, count: usize) -> io::Result<Endpoint> {
    let first = open(address)?;
    first.bind(&address.into())?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    if count > 1 {
        share(&sockets[0])?;
    }
    for _ in 1..count {
        let socket = open(address)?;
        share(&socket)?;
        socket.bind(&bound.into())?;
        sockets.push(socket);
    }
    let sockets = sockets.into_iter().map(udp::Socket::new).collect::<io::Result<_>>()?;
    Ok(Endpoint { bound, sockets })
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    enlarge(&socket);
    crate::platform::prepare_socket(&socket)?;
    Ok(socket)
}

#[cfg(unix)]
fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(unix))]
fn share(_: &Socket) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

fn explain(address: SocketAddr, key: &str, error: io::Error) -> anyhow::Error {
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse => taken(address, key),
        ErrorKind::AddrNotAvailable => anyhow::anyhow!(
            "UDP {address} is no address of this machine: set {key} to one, or to {}",
            if address.is_ipv4() { format!("0.0.0.0:{port}") } else { format!("[::]:{port}") }
        ),
        ErrorKind::PermissionDenied => anyhow::anyhow!(
            "not allowed to listen on UDP {address}: run as root, give CAP_NET_BIND_SERVICE, or set {key} to a port \
             above 1023"
        ),
        _ => anyhow::Error::new(error).context(format!("cannot listen on UDP {address}")),
    }
}

fn taken(address: SocketAddr, key: &str) -> anyhow::Error {
    let port = address.port();
    let holder = holder::of_udp_port(port).unwrap_or_else(|| "another program".into());
    let free = SocketAddr::new(address.ip(), if port == 3478 { 3480 } else { 3478 });
    let variable = key.replace('.', "__").to_uppercase();
    anyhow::anyhow!(
        "UDP port {port} is taken by {holder}: stop it, or set {key} = \"{free}\" (or LANRAGE_{variable})"
    )
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

fn is_cramped(socket: &udp::Socket) -> bool {
    socket.receive_buffer().is_ok_and(|size| size < BUFFER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> RelayConfig {
        RelayConfig { listen: listen.parse().unwrap(), ..RelayConfig::default() }
    }

    #[test]
    fn a_taken_port_is_reported_with_its_holder_however_many_share_it() {
        for (listen, key) in
            [("127.0.0.1:0", "relay.listen"), ("0.0.0.0:0", "relay.listen"), ("[::1]:0", "relay.listen")]
        {
            let first = super::listen(&config(listen), 3).unwrap();
            assert_eq!(first.endpoints[0].sockets.len(), if cfg!(target_os = "linux") { 3 } else { 1 });
            let again = RelayConfig { listen: first.main[0], ..RelayConfig::default() };
            let error = super::listen(&again, 3).unwrap_err().to_string();
            assert!(error.contains("is taken by") && error.contains(key), "{error}");
            #[cfg(target_os = "linux")]
            assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn a_foreign_address_is_reported() {
        let error = super::listen(&config("192.0.2.1:3478"), 1).unwrap_err().to_string();
        assert!(error.contains("no address of this machine") && error.contains("0.0.0.0:3478"), "{error}");
        let both = RelayConfig { listen6: Some("[2001:db8::1]:0".parse().unwrap()), ..config("127.0.0.1:0") };
        let error = super::listen(&both, 1).unwrap_err().to_string();
        assert!(error.contains("relay.listen6") && error.contains("[::]:"), "{error}");
    }

    #[test]
    fn both_families_have_the_same_port_and_a_second_one() {
        let listening = super::listen(&config("0.0.0.0:0"), 2).unwrap();
        let port = listening.main[0].port();
        assert_eq!(listening.main, [SocketAddr::from(([0; 4], port)), SocketAddr::from(([0u16; 8], port))]);
        let alternate = listening.alternate_port.unwrap();
        assert_ne!(alternate, port);
        let bound: Vec<_> = listening.endpoints.iter().map(|endpoint| endpoint.bound).collect();
        assert_eq!(
            bound[2..],
            [SocketAddr::from(([0; 4], alternate)), SocketAddr::from(([0u16; 8], alternate))]
        );
        assert_eq!(listening.problems, []);
    }

    #[test]
    fn two_addresses_make_four_endpoints() {
        let config =
            RelayConfig { alternate_address: Some("127.0.0.2".parse().unwrap()), ..config("127.0.0.1:0") };
        let listening = super::listen(&config, 1).unwrap();
        let (port, alternate) = (listening.main[0].port(), listening.alternate_port.unwrap());
        let bound: Vec<_> = listening.endpoints.iter().map(|endpoint| endpoint.bound.to_string()).collect();
        let wanted = [("1", port), ("2", port), ("1", alternate), ("2", alternate)]
            .map(|(host, port)| format!("127.0.0.{host}:{port}"));
        assert_eq!(bound, wanted);
        let none = super::listen(&RelayConfig { alternate_port: 0, ..config }, 1).unwrap();
        assert_eq!((none.alternate_port, none.endpoints.len()), (None, 2));
    }

    #[test]
    fn a_taken_second_port_is_a_problem_and_no_more() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (alternate_port, port) = (taken.local_addr().unwrap().port(), free.local_addr().unwrap());
        drop(free);
        let listening =
            super::listen(&RelayConfig { listen: port, alternate_port, ..RelayConfig::default() }, 1)
                .unwrap();
        assert_eq!((listening.alternate_port, listening.endpoints.len()), (None, 1));
        let problem = &listening.problems[0];
        assert!(
            problem.message.contains(&format!(":{alternate_port} cannot be used, taken by")),
            "{}",
            problem.message
        );
        assert!(problem.fix.contains("relay.alternate_port"), "{}", problem.fix);
    }
}
