//! Starts the roles that a process runs and joins them.

pub(crate) mod addresses;
mod notify;
mod privileges;

use crate::api::{self, Daemon, Listeners, Token};
use crate::config::{Config, Role};
use crate::control::{self, ControlHandle};
use crate::shutdown::Shutdown;
use crate::{peer, relay};
use std::time::Duration;
use tokio::sync::watch;

/// How long roles may take to clean up when the daemon stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// The roles of this process, started.
#[derive(Debug)]
struct Started {
    daemon: Daemon,
    control: Option<ControlHandle>,
}

/// Runs `config.role` until `shutdown`. Errors are meant to be shown to a person as they are.
pub async fn run(mut config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    privileges::prepare_state_dir(&config.state_dir)?;
    let listeners = Listeners::bind(&config).await?;
    privileges::check(config.role, &config)?;
    let token = Token::load_or_create(&config.state_dir)?;
    let started = start(&mut config, &shutdown).await?;
    let ui = listeners.ui_address();
    let roles = started.daemon.roles.join(" ");
    let serving = api::serve(listeners, started.daemon.clone(), token, shutdown);
    notify::ready();
    tracing::info!(roles, socket = %config.socket.display(), %ui, "ready; `lanrage ui` prints the link");

    let result = serving.await?;
    notify::stopping();
    if tokio::time::timeout(GOODBYE, stopped(started)).await.is_err() {
        tracing::warn!("a role did not stop within {} s; ending anyway", GOODBYE.as_secs());
    }
    result
}

/// Starts what the role consists of, in the order in which they need each other.
async fn start(config: &mut Config, shutdown: &Shutdown) -> anyhow::Result<Started> {
    let daemon = Daemon { roles: Vec::new(), problems: Vec::new(), peer: None, relay: None, control: None };
    let mut started = Started { daemon, control: None };
    let role = config.role;
    if matches!(role, Role::Control | Role::All) {
        started.daemon.problems = addresses::complete(config, addresses::default_route_source());
        let control = control::start(&config.control, &config.state_dir, shutdown.clone()).await?;
        if role == Role::All {
            join_up(config, &control);
        }
        started.daemon.control = Some(control.view());
        started.control = Some(control);
        started.daemon.roles.push("control".into());
    }
    if matches!(role, Role::Relay | Role::All) {
        let relay = relay::start(&config.relay, &config.state_dir, shutdown.clone()).await?;
        started.daemon.relay = Some(relay.status);
        started.daemon.roles.push("relay".into());
    }
    if matches!(role, Role::Peer | Role::All) {
        let peer = peer::start(&config.peer, &config.state_dir, shutdown.clone()).await?;
        started.daemon.peer = Some(peer);
        started.daemon.roles.push("peer".into());
    }
    Ok(started)
}

/// In one process, relay and peer use the control server next door; invites still carry its public address.
fn join_up(config: &mut Config, control: &ControlHandle) {
    config.relay.control.get_or_insert_with(|| control.local_origin());
    config.relay.token.get_or_insert_with(|| control.relay_token.clone());
    if config.peer.control.is_none() {
        config.peer.control = Some(control.local_origin());
        config.peer.invite_origin.get_or_insert_with(|| control.public_url.clone());
    }
}

/// Waits until every role has cleaned up. Dropping its status is the last thing that a role does.
async fn stopped(started: Started) {
    let Started { daemon: Daemon { peer, relay, .. }, control } = started;
    if let Some(mut peer) = peer {
        drop(peer.commands);
        closed(&mut peer.status).await;
    }
    if let Some(mut relay) = relay {
        closed(&mut relay).await;
    }
    if let Some(control) = control {
        control.stopped().await;
    }
}

async fn closed<T>(watched: &mut watch::Receiver<T>) {
    while watched.changed().await.is_ok() {}
}
