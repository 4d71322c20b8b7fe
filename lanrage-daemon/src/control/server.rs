//! Starts the control server and stops it.

use super::app::{App, router};
use super::auth::{Auth, Origins, random_bytes};
use super::hub::Hub;
use super::limits::Limits;
use super::metrics::Metrics;
use super::relays::Relays;
use super::store::Store;
use super::{http, origin};
use crate::config::ControlConfig;
use crate::files;
use crate::roles::addresses;
use crate::shutdown::Shutdown;
use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lanrage_common::api::ServerStatus;
use lanrage_common::ipam::{SubnetError, is_party_subnet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

const SWEEP_EVERY: Duration = Duration::from_secs(60);
const PUBLISH_EVERY: Duration = Duration::from_millis(250);

/// A running control server.
#[derive(Debug)]
pub struct ControlHandle {
    /// The origin that invite links carry.
    pub public_url: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What relays must present.
    pub relay_token: String,
    app: Weak<App>,
    task: Option<JoinHandle<()>>,
}

/// Looks at a running server without keeping it running.
#[derive(Debug, Clone)]
pub struct ControlView {
    public_url: String,
    app: Weak<App>,
}

impl ControlView {
    /// What the server does now; absent once it has stopped.
    pub fn status(&self) -> Option<ServerStatus> {
        let app = self.app.upgrade()?;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (online, relays) = (count(app.hub.online()), count(app.relays.load().relays));
        Some(ServerStatus { public_url: self.public_url.clone(), online, relays })
    }
}

impl ControlHandle {
    /// The origin by which processes on this machine reach the server.
    pub fn local_origin(&self) -> String {
        let ip = match self.listen.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.listen.port()))
    }

    /// For the local API.
    pub fn view(&self) -> ControlView {
        ControlView { public_url: self.public_url.clone(), app: self.app.clone() }
    }

    /// Waits until the server has stopped and its database is closed.
    pub async fn stopped(mut self) {
        self.ended().await;
    }

    /// Waits until the server has ended, asked to or not. Cancel safe; returns at once when it already had.
    pub(crate) async fn ended(&mut self) {
        let Some(task) = &mut self.task else { return };
        if let Err(error) = task.await {
            tracing::error!(%error, "the control server failed");
        }
        self.task = None;
    }
}

/// Starts a control server that runs until `shutdown`; when this returns, it answers.
pub async fn start(
    config: &ControlConfig,
    state_dir: &Path,
    shutdown: Shutdown,
) -> anyhow::Result<ControlHandle> {
    if !is_party_subnet(config.subnet) {
        return Err(anyhow!(SubnetError(config.subnet)).context("control.subnet"));
    }
    make_state_dir(state_dir)?;
    let lock = lock_state(state_dir)?;
    let relay_token = relay_token(config, state_dir)?;
    let listener = listen(config.listen).await?;
    let listen = listener.local_addr().context("cannot tell the control server's own address")?;
    let public_url = public_url(config, listen)?;
    let (store, writer) = Store::open(&state_dir.join("control.db")).await?;

    let metrics = Arc::new(Metrics::default());
    let app = Arc::new(App {
        auth: Auth::new(Origins::new(public_url.clone())),
        hub: Arc::new(Hub::new(store, metrics.clone())),
        relays: Relays::default(),
        limits: Limits::default(),
        metrics,
        subnet: config.subnet,
        relay_token: relay_token.clone(),
        behind_proxy: config.behind_proxy,
        counted: Mutex::default(),
        shutdown: shutdown.clone(),
    });
    let weak = Arc::downgrade(&app);
    let task = tokio::spawn(run(listener, app, writer, lock, shutdown));
    tracing::info!(%listen, public_url, "control server ready");
    Ok(ControlHandle { public_url, listen, relay_token, app: weak, task: Some(task) })
}

async fn run(listener: TcpListener, app: Arc<App>, writer: JoinHandle<()>, lock: File, shutdown: Shutdown) {
    let sweeper = tokio::spawn(sweep(app.hub.clone()));
    let publisher = tokio::spawn(publish(Arc::downgrade(&app)));
    http::serve(listener, router(app.clone()), app.behind_proxy, shutdown).await;
    sweeper.abort();
    publisher.abort();
    app.hub.end_all("the server is stopping: connect again in a moment");
    drop(app);
    // the writer ends when the last connection has let go of the store
    drop(tokio::time::timeout(Duration::from_secs(5), writer).await);
    drop(lock);
}

async fn sweep(hub: Arc<Hub>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        hub.sweep().await;
    }
}

/// Publishes changes of the relay list that have waited long enough.
async fn publish(app: Weak<App>) {
    let mut ticks = tokio::time::interval(PUBLISH_EVERY);
    while let Some(app) = app.upgrade() {
        app.relays.publish_due(std::time::Instant::now());
        drop(app);
        ticks.tick().await;
    }
}

fn make_state_dir(path: &Path) -> anyhow::Result<()> {
    let advice = || {
        format!("cannot use the state directory {}: run as root, or set another state_dir", path.display())
    };
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).with_context(advice)
}

/// Two servers on one database would give out the same addresses twice.
fn lock_state(state_dir: &Path) -> anyhow::Result<File> {
    let path = state_dir.join("control.lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).with_context(|| {
            format!("cannot write {}: run as the user who owns it, or set another state_dir", path.display())
        })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another control server uses {}: stop it first (`lanrage status` shows it), or set another state_dir",
            state_dir.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).context(format!("cannot lock {}", path.display())),
    }
}

/// The configured operator token, or the stored one, or a new one.
fn relay_token(config: &ControlConfig, state_dir: &Path) -> anyhow::Result<String> {
    if let Some(token) = &config.relay_token {
        if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("control.relay_token is too weak: use at least 16 printable characters without blanks");
        }
        return Ok(token.clone());
    }
    let path = state_dir.join("relay-token");
    match fs::read_to_string(&path) {
        Ok(token) if token.trim().len() >= 16 => return Ok(token.trim().into()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
    }
    let token = URL_SAFE_NO_PAD.encode(random_bytes::<32>());
    files::replace_private(&path, token.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(token)
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => {
                format!("TCP port {} is taken: stop the program that has it (`ss -ltnp 'sport = :{}'` names it), or set another control.listen", address.port(), address.port())
            }
            ErrorKind::PermissionDenied => {
                format!("not allowed to listen on TCP port {}: run as root, or set control.listen to a port above 1023", address.port())
            }
            ErrorKind::AddrNotAvailable => {
                format!("{} is not an address of this machine: set control.listen to one that is, or to 0.0.0.0", address.ip())
            }
            _ => format!("cannot listen on {address}: check control.listen"),
        };
        anyhow!(error).context(advice)
    })
}

fn public_url(config: &ControlConfig, listen: SocketAddr) -> anyhow::Result<String> {
    if let Some(url) = &config.public_url {
        return origin::normalize(url).context("control.public_url");
    }
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        _ => addresses::default_route_source().unwrap_or_else(|| {
            tracing::warn!("no default route: invites will name 127.0.0.1; set control.public_url to an address that friends can reach");
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        }),
    };
    Ok(origin::normalize(&format!("http://{}", SocketAddr::new(ip, listen.port())))?)
}
