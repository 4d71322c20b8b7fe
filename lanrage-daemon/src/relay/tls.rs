//! TLS on TCP for members whose network lets no UDP out.
//!
//! Each connection gets a UDP socket of its own that is connected to the relay's: the relay sees an ordinary member at
//! an address of this machine, and a client reaches nothing but the relay. What the kernel program never sees (such
//! datagrams do not leave the machine) the daemon forwards.

mod admission;
mod certificate;
#[cfg(test)]
mod tests;

use crate::carrier::{self, Ended, Rules, TLS_BUFFER, Traffic};
use crate::config::{RelayConfig, TlsListen};
use crate::platform::{self, holder};
use crate::shutdown::Shutdown;
use admission::Admission;
use anyhow::Context as _;
use certificate::Identity;
use lanrage_common::api::{Problem, RelayTlsStatus};
use lanrage_common::binding::is_stun;
use lanrage_common::carrier::ALPN;
use lanrage_common::identity::CertificateFingerprint;
use lanrage_common::protocol::RelayTls;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ServerConfig, version};

/// For the TLS handshake; who is slower is no member.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection to which the relay has nothing to say for so long is closed; members refresh their binding every 25 s.
const IDLE: Duration = Duration::from_secs(60);
/// After the system refused a connection, mostly for lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// File descriptors for all connections and what else the daemon does.
const FILES: u64 = 4 * admission::CONNECTIONS as u64;

/// What the connections share.
struct Shared {
    acceptor: TlsAcceptor,
    /// Where the relay takes datagrams, on this machine.
    relay: SocketAddr,
    traffic: Traffic,
    admission: Arc<Admission>,
    patience: Patience,
    /// Connections that ended, by reason.
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
struct Patience {
    handshake: Duration,
    idle: Duration,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A listener at work. It ends with the relay.
pub(super) struct Tls {
    /// What members are told.
    pub(super) info: RelayTls,
    listen: SocketAddr,
    shared: Arc<Shared>,
}

impl Tls {
    /// What it has done.
    pub(super) fn status(&self) -> RelayTlsStatus {
        let figures = self.shared.traffic.figures();
        let ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        RelayTlsStatus {
            listen: self.listen,
            address: self.info.address,
            certificate: self.info.certificate,
            connections: super::status::narrow(self.shared.admission.count()),
            received: figures.received,
            sent: figures.sent,
            dropped: figures.dropped,
            ended: ended.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        }
    }
}

/// Starts to listen, unless it is turned off. `relay` is where the relay's UDP socket is bound, `public` where members
/// reach it. Without TLS the relay serves all members but those who need it, so what is wrong is a problem, no more.
pub(super) async fn start(
    config: &RelayConfig,
    state_dir: &Path,
    relay: SocketAddr,
    public: SocketAddr,
    shutdown: Shutdown,
) -> Result<Option<Tls>, Problem> {
    let patience = Patience { handshake: HANDSHAKE, idle: IDLE };
    start_with(patience, config, state_dir, relay, public, shutdown).await
}

async fn start_with(
    patience: Patience,
    config: &RelayConfig,
    state_dir: &Path,
    relay: SocketAddr,
    public: SocketAddr,
    shutdown: Shutdown,
) -> Result<Option<Tls>, Problem> {
    let TlsListen::At(listen) = config.tls_listen else { return Ok(None) };
    let listener = bind(listen).await?;
    let (acceptor, certificate) = identify(config, state_dir).map_err(|error| Problem {
        code: "relay_tls_off".into(),
        message: format!("members whose network blocks UDP cannot use this relay: {error:#}"),
        fix: "correct relay.tls_cert and relay.tls_key, or take them out: the relay then makes a certificate of its own".into(),
    })?;
    if let Err(error) = platform::allow_files(FILES) {
        tracing::debug!(%error, "the limit of open files stays");
    }
    let listen = listener.local_addr().unwrap_or(listen);
    let outside = SocketAddr::new(public.ip(), listen.port());
    let address = config.tls_public_address.unwrap_or(outside);
    let shared = Arc::new(Shared {
        acceptor,
        relay: on_this_machine(relay),
        traffic: Traffic::default(),
        admission: Arc::default(),
        patience,
        ended: Mutex::default(),
    });
    tokio::spawn(accept(listener, shared.clone(), shutdown));
    tracing::info!(%listen, %address, %certificate, "relay takes TLS");
    Ok(Some(Tls { info: RelayTls { address, certificate }, listen, shared }))
}

fn identify(config: &RelayConfig, state_dir: &Path) -> anyhow::Result<(TlsAcceptor, CertificateFingerprint)> {
    let Identity { chain, key, fingerprint } = certificate::load_or_create(config, state_dir)?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("relay.tls_key does not fit the certificate")?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // nobody resumes: no memory for it, and one way fewer in
    tls.send_tls13_tickets = 0;
    Ok((TlsAcceptor::from(Arc::new(tls)), fingerprint))
}

async fn bind(listen: SocketAddr) -> Result<TcpListener, Problem> {
    TcpListener::bind(listen).await.map_err(|error| {
        let port = listen.port();
        let other = SocketAddr::new(listen.ip(), 8443);
        let off = format!(
            "set relay.tls_listen = \"{other}\" or another free address, or \"off\"; networks that block UDP rarely \
             block TCP 443, other ports they may"
        );
        let (what, fix) = match error.kind() {
            ErrorKind::AddrInUse => {
                let holder = holder::of_tcp_port(port).unwrap_or_else(|| "another program".into());
                (format!("TCP port {port} is taken by {holder}"), format!("stop it, or {off}"))
            }
            ErrorKind::PermissionDenied => (
                format!("not allowed to listen on TCP {listen}"),
                format!("run as root, give CAP_NET_BIND_SERVICE, or {off}"),
            ),
            ErrorKind::AddrNotAvailable => (
                format!("TCP {listen} is no address of this machine"),
                format!("set relay.tls_listen to one, or to \"0.0.0.0:{port}\""),
            ),
            _ => (format!("cannot listen on TCP {listen}: {error}"), off),
        };
        let message = format!("members whose network blocks UDP cannot use this relay: {what}");
        Problem { code: "relay_tls_off".into(), message, fix }
    })
}

/// Where a socket that is bound to `relay` is reached from here.
fn on_this_machine(relay: SocketAddr) -> SocketAddr {
    let ip = match relay.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, relay.port())
}

/// Never waits for a connection: each has a task of its own. All end with this one.
async fn accept(listener: TcpListener, shared: Arc<Shared>, shutdown: Shutdown) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match shared.admission.admit(from.ip(), Instant::now()) {
                    Ok(place) => {
                        let shared = shared.clone();
                        connections.spawn(async move {
                            shared.serve(stream, from).await;
                            drop(place);
                        });
                    }
                    Err(refused) => shared.count(refused),
                },
                Err(error) => {
                    tracing::debug!(%error, "a TCP connection was not accepted");
                    shared.count("not_accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

impl Shared {
    async fn serve(&self, stream: TcpStream, from: SocketAddr) {
        let why = match self.carry(stream).await {
            Ok(ended) => {
                tracing::debug!(%from, %ended, "TLS connection ended");
                ended.name()
            }
            Err(refused) => {
                tracing::debug!(%from, refused, "TLS connection refused");
                refused
            }
        };
        self.count(why);
    }

    async fn carry(&self, stream: TcpStream) -> Result<Ended, &'static str> {
        platform::prepare_stream((&stream).into()).map_err(|_| "gone")?;
        let mut stream = match timeout(self.patience.handshake, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) => return Err("handshake_failed"),
            Err(_) => return Err("handshake_slow"),
        };
        let connection = stream.get_mut().1;
        connection.set_buffer_limit(Some(TLS_BUFFER));
        if connection.alpn_protocol() != Some(ALPN) {
            return Err("other_protocol");
        }
        let socket = local_socket(self.relay).await.map_err(|error| {
            tracing::debug!(%error, "no UDP socket for a TLS connection");
            "no_socket"
        })?;
        // every conversation with a relay begins with a request to bind
        let rules = Rules { idle: Some(self.patience.idle), is_welcome: is_stun };
        Ok(carrier::carry(stream, &socket, &self.traffic, rules).await)
    }

    fn count(&self, why: &'static str) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(why).or_default() += 1;
    }
}

/// Connected: it sends to the relay and nowhere else, and takes nothing from anybody else.
async fn local_socket(relay: SocketAddr) -> io::Result<UdpSocket> {
    let unspecified: IpAddr = match relay {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((unspecified, 0)).await?;
    socket.connect(relay).await?;
    Ok(socket)
}
