//! Sockets beside the tunnel's, which hunts for a direct path open by the hundred and of which they keep one.
//!
//! Each is read by a task of its own into one queue: they are many for a moment, and hardly anything comes to them.

use super::socket;
use lanrage_common::identity::WgKey;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Datagrams that wait in the queue; the sockets hold the rest.
const QUEUE: usize = 256;
/// Longest datagram.
const LONGEST: usize = 9216;

/// A datagram, and the socket that it came to.
#[derive(Debug)]
pub struct Arrival {
    socket: u64,
    /// Who sent it.
    pub from: SocketAddr,
    /// What it is.
    pub datagram: Vec<u8>,
}

/// Whose a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A hunt's for this member, and its place among the hunt's.
    Hunt(WgKey, usize),
    /// It is kept: what comes is as good as what comes to the tunnel's.
    Path,
}

#[derive(Debug)]
struct Spare {
    id: u64,
    socket: Arc<UdpSocket>,
    reader: AbortHandle,
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// See the module.
#[derive(Debug)]
pub struct Spares {
    hunting: HashMap<WgKey, Vec<Spare>>,
    kept: HashMap<SocketAddr, Spare>,
    opened: u64,
    sender: mpsc::Sender<Arrival>,
    arrivals: mpsc::Receiver<Arrival>,
}

impl Default for Spares {
    fn default() -> Self {
        let (sender, arrivals) = mpsc::channel(QUEUE);
        Self { hunting: HashMap::new(), kept: HashMap::new(), opened: 0, sender, arrivals }
    }
}

impl Spares {
    /// Opens so many for a member in place of those it has, or as many as the system has; gives their ports.
    pub fn open(&mut self, member: WgKey, count: usize) -> Vec<u16> {
        self.hunting.remove(&member);
        let (mut spares, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..count {
            match self.open_one() {
                Ok((spare, port)) => {
                    spares.push(spare);
                    ports.push(port);
                }
                Err(error) => {
                    tracing::debug!(%error, opened = spares.len(), "no more sockets for a hunt");
                    break;
                }
            }
        }
        self.hunting.insert(member, spares);
        ports
    }

    fn open_one(&mut self) -> io::Result<(Spare, u16)> {
        let socket = socket::open_spare()?;
        let watched = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
        let port = socket.local_addr()?.port();
        self.opened += 1;
        let reader = tokio::spawn(read(watched, self.opened, self.sender.clone())).abort_handle();
        Ok((Spare { id: self.opened, socket: Arc::new(socket), reader }, port))
    }

    /// Sends from one of a member's, or drops.
    pub fn send(&self, member: &WgKey, spare: usize, to: SocketAddr, payload: &[u8]) {
        let spare = self.hunting.get(member).and_then(|spares| spares.get(spare));
        if let Some(Err(error)) = spare.map(|spare| spare.socket.send_to(payload, to)) {
            tracing::trace!(%to, %error, "not sent");
        }
    }

    /// Keeps one for an address, closes the member's others, and gives it.
    pub fn keep(&mut self, member: &WgKey, spare: usize, far: SocketAddr) -> Option<Arc<UdpSocket>> {
        let mut spares = self.hunting.remove(member)?;
        let spare = (spare < spares.len()).then(|| spares.swap_remove(spare))?;
        let socket = spare.socket.clone();
        self.kept.insert(far, spare);
        Some(socket)
    }

    /// Closes a member's, but not those that are kept.
    pub fn close(&mut self, member: &WgKey) {
        self.hunting.remove(member);
    }

    /// Closes the one that is kept for an address.
    pub fn release(&mut self, far: &SocketAddr) {
        self.kept.remove(far);
    }

    /// The next datagram. Cancel safe.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// The next datagram, if there is one.
    pub fn try_next(&mut self) -> Option<Arrival> {
        self.arrivals.try_recv().ok()
    }

    /// To whose socket it came; none when that is closed by now.
    pub fn owner(&self, arrival: &Arrival) -> Option<Owner> {
        if self.kept.values().any(|spare| spare.id == arrival.socket) {
            return Some(Owner::Path);
        }
        self.hunting.iter().find_map(|(member, spares)| {
            let place = spares.iter().position(|spare| spare.id == arrival.socket)?;
            Some(Owner::Hunt(*member, place))
        })
    }
}

async fn read(socket: tokio::net::UdpSocket, id: u64, queue: mpsc::Sender<Arrival>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let arrival = Arrival { socket: id, from, datagram: buffer[..length].to_vec() };
                if queue.send(arrival).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "receiving failed");
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const MEMBER: WgKey = WgKey([1; 32]);

    async fn arrival(spares: &mut Spares) -> Arrival {
        tokio::time::timeout(Duration::from_secs(10), spares.next()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn one_is_kept_and_the_others_close() {
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = far.local_addr().unwrap();
        let mut spares = Spares::default();
        let ports = spares.open(MEMBER, 3);
        assert_eq!(ports.len(), 3);
        spares.send(&MEMBER, 1, to, b"out");
        let (_, from) = far.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from.port(), ports[1]);

        far.send_to(b"in", from).unwrap();
        let came = arrival(&mut spares).await;
        assert_eq!((came.from, &came.datagram[..]), (to, &b"in"[..]));
        assert_eq!(spares.owner(&came), Some(Owner::Hunt(MEMBER, 1)));

        let kept = spares.keep(&MEMBER, 1, to).unwrap();
        assert_eq!(spares.owner(&came), Some(Owner::Path));
        assert_eq!(kept.local_addr().unwrap().port(), ports[1]);
        far.send_to(b"data", from).unwrap();
        assert_eq!(arrival(&mut spares).await.datagram, b"data");

        spares.release(&to);
        assert_eq!(spares.owner(&came), None);
    }

    #[tokio::test]
    async fn a_new_round_takes_the_place_of_the_last() {
        let mut spares = Spares::default();
        let (first, second) = (spares.open(MEMBER, 2), spares.open(MEMBER, 2));
        assert_ne!(first, second);
        assert_eq!(spares.hunting[&MEMBER].len(), 2);
        spares.close(&MEMBER);
        assert!(spares.hunting.is_empty());
        assert!(spares.keep(&MEMBER, 0, "192.0.2.1:1".parse().unwrap()).is_none());
    }
}
