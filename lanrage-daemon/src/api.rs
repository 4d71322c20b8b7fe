//! The local API: Unix socket, loopback HTTP, web UI.
//!
//! Requests are documented in [`lanrage_common::api`]. The API knows the roles only by their status watches and the
//! peer's command channel; it touches neither sockets of the tunnel nor kernel maps.

mod answer;
mod guard;
mod listen;
pub(crate) mod metrics;
mod openapi;
mod page;
mod routes;
mod status;
mod support;
mod token;

pub use listen::{BindError, Listeners};
pub use token::Token;

use crate::control::ControlView;
use crate::http;
use crate::peer::PeerHandle;
use crate::relay::{Drain, Inquiry};
use crate::settings::Desk;
use crate::shutdown::Shutdown;
use lanrage_common::api::{Problem, RelayStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long open connections may take to finish when the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// What the API shows and commands.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// Roles that run in this process.
    pub roles: Vec<String>,
    /// What the start-up noticed.
    pub problems: Vec<Problem>,
    /// The peer role.
    pub peer: Option<PeerHandle>,
    /// The relay role.
    pub relay: Option<watch::Receiver<RelayStatus>>,
    /// Empties the relay.
    pub relay_drain: Option<watch::Sender<Drain>>,
    /// For the relay's detail.
    pub relay_inquiry: Option<Inquiry>,
    /// The control server role.
    pub control: Option<ControlView>,
    /// What can be changed while it runs.
    pub settings: Option<Arc<Desk>>,
}

/// What every request handler sees.
#[derive(Debug)]
struct Shared {
    daemon: Daemon,
    ui_url: String,
    token: Token,
    shutdown: Shutdown,
}

/// Serves both listeners until `shutdown`; the task ends when they are closed.
pub fn serve(
    listeners: Listeners,
    daemon: Daemon,
    token: Token,
    shutdown: Shutdown,
) -> JoinHandle<anyhow::Result<()>> {
    let guard = Arc::new(guard::Guard::new(listeners.ui_address, token.clone()));
    let shared =
        Arc::new(Shared { daemon, ui_url: listeners.ui_url(&token), token, shutdown: shutdown.clone() });
    let local = routes::local(shared.clone());
    let loopback = routes::loopback(shared, guard);
    tokio::spawn(async move {
        let Listeners { unix, tcp, socket: _socket, .. } = listeners;
        let both = async {
            tokio::join!(
                http::serve(unix, local, http::Limits::default(), shutdown.clone()),
                http::serve(tcp, loopback, http::Limits::default(), shutdown.clone()),
            )
        };
        let drained = async {
            shutdown.requested().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            _ = both => Ok(()),
            () = drained => Ok(()),
        }
    })
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
