//! Puts the status of the roles together, now and as it changes.

use super::Daemon;
use crate::control::ControlView;
use crate::peer::PeerStatus;
use crate::shutdown::Shutdown;
use lanrage_common::api::{Problem, RelayStatus, Status};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// At most four events a second.
const EVENT_GAP: Duration = Duration::from_millis(200);

impl Daemon {
    /// Everything as it is now.
    pub fn status(&self) -> Status {
        let peer = self.peer.as_ref().map(|peer| peer.status.borrow().clone());
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            roles: self.roles.clone(),
            up: false,
            device: None,
            party: None,
            control: None,
            network: None,
            gateway: None,
            firewall: None,
            games: None,
            relay: self.relay.as_ref().map(|relay| relay.borrow().clone()),
            server: self.control.as_ref().and_then(ControlView::status),
            problems: self.stopped_roles(),
        };
        if let Some(relay) = &mut status.relay {
            status.problems.append(&mut relay.problems);
        }
        if let Some(PeerStatus { up, device, party, control, network, gateway, firewall, games, problems }) =
            peer
        {
            (status.up, status.device, status.party, status.control) = (up, Some(device), party, control);
            (status.network, status.gateway) = (network, gateway);
            (status.firewall, status.games) = (Some(firewall), Some(games));
            status.problems.extend(problems);
        }
        status.problems.extend(self.problems.iter().cloned());
        status
    }

    /// A role whose watch is closed has ended on its own.
    fn stopped_roles(&self) -> Vec<Problem> {
        let peer = self.peer.as_ref().is_some_and(|peer| peer.status.has_changed().is_err());
        let relay = self.relay.as_ref().is_some_and(|relay| relay.has_changed().is_err());
        let control = self.control.as_ref().is_some_and(|control| control.status().is_none());
        [("control", control), ("peer", peer), ("relay", relay)]
            .into_iter()
            .filter(|(_, stopped)| *stopped)
            .map(|(role, _)| Problem {
                code: format!("{role}_stopped"),
                message: format!("the {role} role has stopped"),
                fix: "restart the daemon (systemctl restart lanrage) and look at its log".into(),
            })
            .collect()
    }
}

/// Gives a [`Status`] at once and after every change, never more often than [`EVENT_GAP`].
#[derive(Debug)]
pub(super) struct Changes {
    daemon: Daemon,
    peer: Option<watch::Receiver<PeerStatus>>,
    relay: Option<watch::Receiver<RelayStatus>>,
    shutdown: Shutdown,
    last: Option<Instant>,
}

impl Changes {
    pub(super) fn new(daemon: &Daemon, shutdown: Shutdown) -> Self {
        let peer = daemon.peer.as_ref().map(|peer| peer.status.clone());
        Self { daemon: daemon.clone(), peer, relay: daemon.relay.clone(), shutdown, last: None }
    }

    /// `None` once the daemon stops.
    pub(super) async fn next(&mut self) -> Option<Status> {
        if let Some(last) = self.last {
            let shutdown = self.shutdown.clone();
            tokio::select! {
                () = shutdown.requested() => return None,
                () = self.changed() => {}
            }
            tokio::time::sleep_until(last + EVENT_GAP).await;
        }
        self.last = Some(Instant::now());
        self.peer.as_mut().map(watch::Receiver::mark_unchanged);
        self.relay.as_mut().map(watch::Receiver::mark_unchanged);
        Some(self.daemon.status())
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = either(&mut self.peer) => {}
            () = either(&mut self.relay) => {}
        }
    }
}

/// Waits for a change. The end of a role is one change, and silence afterwards.
async fn either<T>(watched: &mut Option<watch::Receiver<T>>) {
    let Some(receiver) = watched else { return std::future::pending().await };
    if receiver.changed().await.is_err() {
        *watched = None;
    }
}
