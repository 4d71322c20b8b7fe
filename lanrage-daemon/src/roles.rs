//! Starts the roles that a process runs and joins them.

pub(crate) mod addresses;
mod notify;
mod privileges;

use crate::api::{self, Daemon, Listeners, Token};
use crate::config::{Config, Role};
use crate::shutdown::Shutdown;
use std::time::Duration;
use tokio::sync::watch;

/// How long roles may take to clean up when the daemon stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// Runs `config.role` until `shutdown`. Errors are meant to be shown to a person as they are.
pub async fn run(mut config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    privileges::prepare_state_dir(&config.state_dir)?;
    let listeners = Listeners::bind(&config).await?;
    privileges::check(config.role, &config)?;
    let token = Token::load_or_create(&config.state_dir)?;
    let daemon = start(&mut config, &shutdown).await?;
    let ui = listeners.ui_address();
    let serving = api::serve(listeners, daemon.clone(), token, shutdown.clone());
    notify::ready();
    tracing::info!(roles = daemon.roles.join(" "), socket = %config.socket.display(), %ui, "ready; `lanrage ui` prints the link");

    let result = serving.await?;
    notify::stopping();
    if tokio::time::timeout(GOODBYE, stopped(daemon)).await.is_err() {
        tracing::warn!("a role did not stop within {} s; ending anyway", GOODBYE.as_secs());
    }
    result
}

/// Starts what the role consists of, in the order in which they need each other.
async fn start(config: &mut Config, shutdown: &Shutdown) -> anyhow::Result<Daemon> {
    let mut daemon = Daemon { roles: Vec::new(), problems: Vec::new(), peer: None, relay: None };
    if matches!(config.role, Role::Control | Role::All) {
        daemon.problems = addresses::complete(config, addresses::default_route_source());
        anyhow::bail!("the control role is not part of this build");
    }
    let _ = shutdown;
    Ok(daemon)
}

/// Waits until every role has dropped its status, which is the last thing it does.
async fn stopped(daemon: Daemon) {
    let Daemon { peer, relay, .. } = daemon;
    if let Some(mut peer) = peer {
        drop(peer.commands);
        closed(&mut peer.status).await;
    }
    if let Some(mut relay) = relay {
        closed(&mut relay).await;
    }
}

async fn closed<T>(watched: &mut watch::Receiver<T>) {
    while watched.changed().await.is_ok() {}
}
