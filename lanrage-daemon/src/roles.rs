//! Starts the roles that a process runs and joins them.

pub(crate) mod addresses;
mod notify;
mod privileges;

use crate::api::{self, Daemon, Listeners, Token};
use crate::config::{Config, Loaded, Role, Sources};
use crate::control::{self, ControlHandle};
use crate::settings::Desk;
use crate::shutdown::{self, Shutdown, ShutdownTrigger};
use crate::{discord, peer, relay};
use anyhow::anyhow;
use lanrage_common::api::RelayStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long roles may take to clean up when the daemon stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// The roles of this process, started.
#[derive(Debug)]
struct Started {
    daemon: Daemon,
    control: Option<ControlHandle>,
}

/// What ends a daemon that nobody asked to stop.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// This role has failed.
    Role(&'static str),
    /// Its only role was a relay, which has been drained.
    Drained,
}

impl Started {
    /// Waits for the first role that ends. Cancel safe.
    async fn ended(&mut self) -> End {
        let Self { daemon: Daemon { peer, relay, .. }, control } = self;
        let is_alone = peer.is_none() && control.is_none();
        tokio::select! {
            () = or_never(control.as_mut().map(ControlHandle::ended)) => End::Role("control server"),
            end = or_never(relay.as_mut().map(|relay| relay_ended(relay, is_alone))) => end,
            () = or_never(peer.as_mut().map(|peer| closed(&mut peer.status))) => End::Role("peer"),
        }
    }
}

/// Waits for the relay's end. One that has been drained leaves the other roles at work.
async fn relay_ended(relay: &mut watch::Receiver<RelayStatus>, is_alone: bool) -> End {
    closed(relay).await;
    match (relay.borrow().draining, is_alone) {
        (true, true) => End::Drained,
        (true, false) => std::future::pending().await,
        (false, _) => End::Role("relay"),
    }
}

/// Runs `config.role` until `shutdown`, or until a part of it ends by itself, which is an error. Errors are meant to be shown to a person as they are.
pub async fn run(loaded: Loaded, sources: Sources, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut config = loaded.config.clone();
    privileges::prepare_state_dir(&config.state_dir)?;
    let listeners = Listeners::bind(&config).await?;
    privileges::check(config.role, &config)?;
    let token = Token::load_or_create(&config.state_dir)?;
    let (trigger, stop) = shutdown::channel();
    let mut started = start(&mut config, &stop).await?;
    let roles: Vec<&str> = started.daemon.roles.iter().map(String::as_str).collect();
    let desk = Arc::new(Desk::new(sources, loaded, &config, &roles));
    if let Some(peer) = &started.daemon.peer {
        discord::start(peer.status.clone(), desk.clone(), stop.clone());
    }
    started.daemon.settings = Some(desk);
    let ui = listeners.ui_address();
    let roles = started.daemon.roles.join(" ");
    let serving = api::serve(listeners, started.daemon.clone(), token, stop);
    notify::ready();
    tracing::info!(roles, socket = %config.socket.display(), %ui, "ready; `lanrage ui` prints the link");

    let result = until_stop(&mut started, serving, trigger, &shutdown).await;
    notify::stopping();
    if tokio::time::timeout(GOODBYE, stopped(started)).await.is_err() {
        tracing::warn!("a role did not stop within {} s; ending anyway", GOODBYE.as_secs());
    }
    result
}

/// Waits for `shutdown`, or for a role or the local API to end by itself. Then everything is asked to stop, by `trigger`.
async fn until_stop(
    started: &mut Started,
    mut serving: JoinHandle<anyhow::Result<()>>,
    trigger: ShutdownTrigger,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let result = tokio::select! {
        () = shutdown.requested() => Ok(()),
        end = started.ended() => match end {
            End::Role(role) => Err(anyhow!("the {role} stopped unexpectedly: see the log above")),
            End::Drained => Ok(()),
        },
        served = &mut serving => return served?,
    };
    trigger.request();
    let served = serving.await?;
    result.and(served)
}

/// Starts what the role consists of, in the order in which they need each other.
async fn start(config: &mut Config, shutdown: &Shutdown) -> anyhow::Result<Started> {
    let daemon = Daemon {
        roles: Vec::new(),
        problems: Vec::new(),
        peer: None,
        relay: None,
        relay_drain: None,
        relay_inquiry: None,
        control: None,
        settings: None,
    };
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
        if let Some(listen) = config.relay.metrics_listen {
            let address =
                api::metrics::outside::serve(listen, relay.inquiry.clone(), shutdown.clone()).await?;
            tracing::info!(%address, "metrics are served");
        }
        started.daemon.relay_inquiry = Some(relay.inquiry);
        started.daemon.relay = Some(relay.status);
        started.daemon.relay_drain = Some(relay.drain);
        started.daemon.roles.push("relay".into());
    }
    if matches!(role, Role::Peer | Role::All) {
        let peer = peer::start(&config.peer, &config.gateway, &config.state_dir, shutdown.clone()).await?;
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

/// Waits for a role's end; for ever, when the role does not run here.
async fn or_never<T>(end: Option<impl Future<Output = T>>) -> T {
    match end {
        Some(end) => end.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixture::relay_status;

    /// A relay, and a local API that serves until it is asked to stop.
    fn parts() -> (Started, watch::Sender<RelayStatus>, JoinHandle<anyhow::Result<()>>, ShutdownTrigger) {
        let (role, relay) = watch::channel(relay_status());
        let daemon = Daemon {
            roles: Vec::new(),
            problems: Vec::new(),
            peer: None,
            relay: Some(relay),
            relay_drain: None,
            relay_inquiry: None,
            control: None,
            settings: None,
        };
        let (trigger, stop) = shutdown::channel();
        let serving = tokio::spawn(async move {
            stop.requested().await;
            Ok(())
        });
        (Started { daemon, control: None }, role, serving, trigger)
    }

    #[tokio::test]
    async fn a_role_that_ends_by_itself_ends_the_daemon_with_an_error() {
        let (mut started, role, serving, trigger) = parts();
        let (_asker, shutdown) = shutdown::channel();
        role.send_replace(relay_status());
        drop(role);
        let error = until_stop(&mut started, serving, trigger, &shutdown).await.unwrap_err();
        assert_eq!(error.to_string(), "the relay stopped unexpectedly: see the log above");
        stopped(started).await;
    }

    #[tokio::test]
    async fn a_relay_that_has_been_drained_ends_the_daemon_without_an_error() {
        let (mut started, role, serving, trigger) = parts();
        let (_asker, shutdown) = shutdown::channel();
        role.send_replace(RelayStatus { draining: true, ..relay_status() });
        drop(role);
        until_stop(&mut started, serving, trigger, &shutdown).await.unwrap();
        stopped(started).await;
    }

    #[tokio::test]
    async fn a_request_to_stop_is_no_error() {
        let (mut started, role, serving, trigger) = parts();
        let (asker, shutdown) = shutdown::channel();
        asker.request();
        until_stop(&mut started, serving, trigger, &shutdown).await.unwrap();
        drop(role);
        stopped(started).await;
    }
}
