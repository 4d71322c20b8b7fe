//! A server in a temporary directory, and members that talk to it.

use lanrage_common::identity::{Device, PartyId, PartySecret, RosterEntry};
use lanrage_common::protocol::{ClientMessage, Member, Membership, ServerMessage};
use lanrage_daemon::config::ControlConfig;
use lanrage_daemon::control::client::{ControlClient, ControlLink, LinkEvent};
use lanrage_daemon::control::{self, ControlHandle};
use lanrage_daemon::shutdown::{self, ShutdownTrigger};
use rand_core::OsRng;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Server {
    pub handle: ControlHandle,
    pub dir: TempDir,
    trigger: ShutdownTrigger,
}

pub fn loopback(port: u16) -> ControlConfig {
    ControlConfig { listen: SocketAddr::from(([127, 0, 0, 1], port)), ..ControlConfig::default() }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap(), 0).await
    }

    pub async fn start_in(dir: TempDir, port: u16) -> Self {
        let (trigger, shutdown) = shutdown::channel();
        let handle = control::start(&loopback(port), dir.path(), shutdown).await.unwrap();
        Self { handle, dir, trigger }
    }

    pub fn origin(&self) -> String {
        self.handle.local_origin()
    }

    pub fn state(&self) -> &Path {
        self.dir.path()
    }

    /// Stops it; the directory stays.
    pub async fn stop(self) -> TempDir {
        self.trigger.request();
        timeout(PATIENCE, self.handle.stopped()).await.expect("the server stops in time");
        self.dir
    }

    pub fn peer(&self, name: &str) -> Peer {
        Peer::new(name, &self.origin())
    }

    /// A party with its host, who has not said hello yet.
    pub async fn party(&self) -> (Peer, Membership) {
        let host = self.peer("Host");
        let membership = host.client.create_party("Friday", None).await.unwrap();
        (host, membership)
    }

    pub async fn metrics(&self) -> String {
        reqwest::get(format!("{}/metrics", self.origin())).await.unwrap().text().await.unwrap()
    }
}

/// A device with its client.
pub struct Peer {
    pub name: String,
    pub device: Arc<Device>,
    pub client: ControlClient,
}

impl Peer {
    pub fn new(name: &str, origin: &str) -> Self {
        let device = Arc::new(Device::generate(&mut OsRng));
        let client = ControlClient::new(origin, device.clone()).unwrap();
        Self { name: name.into(), device, client }
    }

    pub fn entry(&self, membership: &Membership) -> Member {
        let entry = RosterEntry {
            name: self.name.clone(),
            device: self.device.key(),
            wg: self.device.wg_key(),
            wg_signature: self.device.wg_signature(),
            address: membership.address,
            epoch: membership.party.epoch,
        };
        let mac = secret().roster_mac(&membership.party.id, &entry);
        Member { entry, mac, devices: None }
    }

    pub fn hello(&self, membership: &Membership, have: Option<u64>) -> ClientMessage {
        ClientMessage::Hello { party: membership.party.id, member: self.entry(membership), have }
    }

    /// A link that has said hello.
    pub async fn online(&self, membership: &Membership) -> Line {
        let mut line = Line(self.client.connect());
        line.connected().await;
        line.send(self.hello(membership, None)).await;
        line
    }
}

/// All test parties share one secret: the server cannot tell.
pub fn secret() -> PartySecret {
    PartySecret::from([7; 32])
}

pub struct Line(pub ControlLink);

impl Line {
    pub async fn send(&self, message: ClientMessage) {
        self.0.outgoing.send(message).await.unwrap();
    }

    pub async fn connected(&mut self) {
        loop {
            match self.event().await {
                LinkEvent::Connected => return,
                LinkEvent::Disconnected { .. } => {}
                LinkEvent::Message(message) => panic!("a message before the connection: {message:?}"),
            }
        }
    }

    /// The reason of the next disconnection; messages before it are skipped.
    pub async fn disconnected(&mut self) -> String {
        loop {
            if let LinkEvent::Disconnected { reason } = self.event().await {
                return reason;
            }
        }
    }

    pub async fn event(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.0.events.recv()).await.expect("an event in time").expect("a live link")
    }

    /// The next message that `wanted` accepts.
    pub async fn next<T>(&mut self, mut wanted: impl FnMut(ServerMessage) -> Option<T>) -> T {
        loop {
            if let LinkEvent::Message(message) = self.event().await
                && let Some(found) = wanted(*message)
            {
                return found;
            }
        }
    }

    pub async fn snapshot(&mut self) -> (u64, Vec<Member>) {
        self.next(|message| match message {
            ServerMessage::Snapshot { seq, members, .. } => Some((seq, members)),
            _ => None,
        })
        .await
    }
}

pub fn party_id(membership: &Membership) -> PartyId {
    membership.party.id
}
