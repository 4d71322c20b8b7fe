//! Opens the two listeners of the local API.

use super::token::Token;
use crate::config::Config;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};

/// Members of this group may use the socket, when it exists.
const GROUP: &str = "lanrage";

/// Both listeners, open but not yet served.
#[derive(Debug)]
pub struct Listeners {
    pub(super) unix: UnixListener,
    pub(super) tcp: TcpListener,
    pub(super) socket: SocketFile,
    pub(super) ui_address: SocketAddr,
}

/// The socket's file, removed with its listener.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers on the socket.
    #[error(
        "another lanrage-daemon is already running on {0}; stop it (systemctl stop lanrage) or give this one its own \
         --socket, --ui and --state-dir"
    )]
    AlreadyRunning(PathBuf),
    /// The path is taken by something that is not a socket.
    #[error("{0} exists and is not a socket; move it away or choose another --socket")]
    NotASocket(PathBuf),
    /// The socket's path cannot be used.
    #[error("cannot open the socket {path}: {cause}; run as root or choose another --socket")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The TCP port is taken.
    #[error("{0} is taken by another program; choose another address: --ui 127.0.0.1:PORT")]
    PortTaken(SocketAddr),
    /// The TCP address cannot be used.
    #[error("cannot listen on {address}: {cause}; choose another address: --ui 127.0.0.1:PORT")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
}

impl Listeners {
    /// Opens both. Fails when another daemon uses either.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        let unix = bind_unix(&config.socket)?;
        let socket = SocketFile(config.socket.clone());
        let tcp = bind_tcp(config.ui).await?;
        let ui_address = tcp.local_addr().unwrap_or(config.ui);
        Ok(Self { unix, tcp, socket, ui_address })
    }

    /// Where the UI listens.
    pub fn ui_address(&self) -> SocketAddr {
        self.ui_address
    }

    /// The link that opens the UI: the token is in the fragment, which browsers do not send.
    pub fn ui_url(&self, token: &Token) -> String {
        let mut address = self.ui_address;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        format!("http://{address}/#token={}", token.as_str())
    }
}

fn bind_unix(path: &Path) -> Result<UnixListener, BindError> {
    clear_stale(path)?;
    open_unix(path).map_err(|cause| BindError::Socket { path: path.into(), cause })
}

fn open_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let listener = UnixListener::bind(path)?;
    give_to_group(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// A socket that nobody answers is left over from a crash.
fn clear_stale(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.into()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::AlreadyRunning(path.into())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|cause| BindError::Socket { path: path.into(), cause })
        }
        Err(cause) => Err(BindError::Socket { path: path.into(), cause }),
    }
}

#[cfg(target_os = "linux")]
fn give_to_group(path: &Path) {
    let Ok(Some(group)) = nix::unistd::Group::from_name(GROUP) else { return };
    if let Err(error) = std::os::unix::fs::chown(path, None, Some(group.gid.as_raw())) {
        tracing::warn!(%error, group = GROUP, "cannot give the socket to its group; only root can use it");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_to_group(_path: &Path) {}

async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|cause| match cause.kind() {
        io::ErrorKind::AddrInUse => BindError::PortTaken(address),
        _ => BindError::Tcp { address, cause },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> Config {
        Config {
            socket: dir.join("run/lanrage.sock"),
            ui: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn a_second_daemon_is_told_so_and_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let first = Listeners::bind(&config).await.unwrap();
        let mode = std::fs::metadata(&config.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = Listeners::bind(&config).await.unwrap_err();
        assert!(matches!(error, BindError::AlreadyRunning(_)), "{error}");

        drop(first);
        assert!(!config.socket.exists());
        drop(std::os::unix::net::UnixListener::bind(&config.socket).unwrap());
        assert!(config.socket.exists());
        Listeners::bind(&config).await.unwrap();
    }

    #[tokio::test]
    async fn other_files_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { socket: dir.path().join("file"), ..config(dir.path()) };
        std::fs::write(&config.socket, "precious").unwrap();
        assert!(matches!(Listeners::bind(&config).await, Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&config.socket).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_taken_port_leaves_no_socket_behind() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config { ui: taken.local_addr().unwrap(), ..config(dir.path()) };
        assert!(matches!(Listeners::bind(&config).await, Err(BindError::PortTaken(_))));
        assert!(!config.socket.exists());
    }
}
