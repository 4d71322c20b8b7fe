//! Relays over TLS: for networks that let no UDP out.
//!
//! [`fallback`] decides when, [`connect`] makes the connection, and a [`Carriers`] runs them. To everything else such a
//! relay is an address on this machine's loopback.

pub(crate) mod connect;
pub mod fallback;
#[cfg(test)]
mod tests;

use crate::carrier::{self, Figures, Rules, Traffic};
use lanrage_common::protocol::RelayTls;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

/// How long a carrier goes on after it was given up, for what is still on its way.
const FAREWELL: Duration = Duration::from_millis(200);

/// Word of a carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It carries.
    Opened {
        /// Which.
        id: u64,
        /// Where the relay seems to be.
        local: SocketAddr,
    },
    /// It could not be opened, or does not carry any more.
    Ended {
        /// Which.
        id: u64,
        /// For people.
        why: Trouble,
    },
}

/// Why there is no carrier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Somebody else answers at the relay's address.
    #[error("{0}")]
    Certificate(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

#[derive(Debug)]
struct Task {
    place: RelayTls,
    traffic: Arc<Traffic>,
    /// Dropping it ends the carrier.
    _end: oneshot::Sender<()>,
}

/// The carriers of one party. Dropping ends them.
#[derive(Debug)]
pub struct Carriers {
    /// Of the tunnel's socket.
    port: u16,
    tasks: BTreeMap<u64, Task>,
    sender: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Carriers {
    /// None yet. Only the tunnel's socket at this port can use them.
    pub fn new(port: u16) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self { port, tasks: BTreeMap::new(), sender, events }
    }

    /// Opens one, and tells by an [`Event`] what came of it.
    pub fn open(&mut self, id: u64, place: RelayTls) {
        let (end, ended) = oneshot::channel();
        let traffic = Arc::new(Traffic::default());
        let run = run(id, place, self.port, traffic.clone(), self.sender.clone(), ended);
        tokio::spawn(run);
        self.tasks.insert(id, Task { place, traffic, _end: end });
    }

    /// Ends one, without a further word of it.
    pub fn close(&mut self, id: u64) {
        self.tasks.remove(&id);
    }

    /// The next word of one that was not closed. Cancel safe.
    pub async fn next(&mut self) -> Event {
        loop {
            // the own sender keeps the channel open
            let Some(event) = self.events.recv().await else { return std::future::pending().await };
            match &event {
                Event::Opened { id, .. } if self.tasks.contains_key(id) => return event,
                Event::Ended { id, .. } if self.tasks.remove(id).is_some() => return event,
                _ => {}
            }
        }
    }

    /// What they have done.
    pub(in crate::peer) fn figures(&self) -> impl Iterator<Item = (SocketAddr, Figures)> {
        self.tasks.values().map(|task| (task.place.address, task.traffic.figures()))
    }
}

async fn run(
    id: u64,
    place: RelayTls,
    port: u16,
    traffic: Arc<Traffic>,
    events: mpsc::UnboundedSender<Event>,
    ended: oneshot::Receiver<()>,
) {
    let work = async {
        let socket = local_socket(port).await.map_err(|error| {
            Trouble::Other(format!("cannot open a UDP socket on this machine's loopback: {error}"))
        })?;
        let stream = connect::connect(place).await?;
        let local = socket.local_addr().map_err(|error| Trouble::Other(error.to_string()))?;
        // nobody listens any more when the party has ended
        let _ = events.send(Event::Opened { id, local });
        let rules = Rules { idle: None, is_welcome: |_| true };
        let why = carrier::carry(stream, &socket, &traffic, rules).await;
        Err::<(), _>(Trouble::Other(why.to_string()))
    };
    let end = async {
        let _ = ended.await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        result = work => if let Err(why) = result {
            tracing::debug!(address = %place.address, %why, "no relay over TLS");
            let _ = events.send(Event::Ended { id, why });
        },
        () = end => {}
    }
}

/// Takes datagrams of the tunnel's socket only: the kernel drops those of other programs.
async fn local_socket(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
    Ok(socket)
}
