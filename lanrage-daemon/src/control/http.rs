//! Accepts connections and speaks HTTP on them, with limits that a slow or hostile client cannot stretch.

use super::app::Ends;
use super::limits::source_key;
use crate::http::{self, Limits};
use crate::shutdown::Shutdown;
use axum::{Extension, Router};
use socket2::SockRef;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes of a connection's send buffer in the kernel, which doubles what it is told.
const SEND_BUFFER: usize = 128 * 1024;
/// Connections one source may have open.
const PER_SOURCE: usize = 2048;
/// Time that running requests get when the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// Serves until shutdown, then lets running requests finish.
///
/// Behind a proxy all connections have one source, so they are not limited by it.
pub(super) async fn serve(listener: TcpListener, router: Router, behind_proxy: bool, shutdown: Shutdown) {
    let limit = if behind_proxy { usize::MAX } else { PER_SOURCE };
    let sources = Arc::new(Sources { limit, open: Mutex::default() });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => accept(stream, &router, &sources, &shutdown, &mut connections),
                Err(error) => {
                    // out of file descriptors, most likely: accepting again at once would spin
                    tracing::warn!(%error, "cannot accept connections: raise the limit of open files");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    drop(tokio::time::timeout(GRACE, finish).await);
}

fn accept(
    stream: TcpStream,
    router: &Router,
    sources: &Arc<Sources>,
    shutdown: &Shutdown,
    connections: &mut JoinSet<()>,
) {
    let (Ok(remote), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let Some(place) = sources.enter(remote.ip()) else { return };
    // small messages must not wait for acknowledgements
    drop(stream.set_nodelay(true));
    // nor may a client that does not read fill megabytes of kernel memory
    drop(SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER));
    let ends = Ends { remote, local, forwarded: false };
    let router = router.clone().layer(Extension(ends)).layer(Extension(Arc::new(place)));
    connections.spawn(http::speak(stream, router, Limits::default(), shutdown.clone()));
}

/// Open connections by source address.
#[derive(Debug)]
struct Sources {
    limit: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place among those of its source, kept as long as the connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    /// One household is one source, however many addresses it has.
    fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let source = source_key(source);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Place { sources: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sources.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_places_and_gets_them_back() {
        let sources = Arc::new(Sources { limit: 2, open: Mutex::default() });
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let places = [sources.enter(one).unwrap(), sources.enter(one).unwrap()];
        assert!(sources.enter(one).is_none());
        assert!(sources.enter(other).is_some());
        let neighbour = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]);
        let network = [sources.enter(neighbour(1)).unwrap(), sources.enter(neighbour(2)).unwrap()];
        assert!(sources.enter(neighbour(3)).is_none(), "an IPv6 network is one source");
        drop((places, network));
        assert!(sources.open.lock().unwrap().is_empty());
        assert!(sources.enter(one).is_some());
    }
}
