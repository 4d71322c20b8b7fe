//! Speaks HTTP/1 on a listener, with limits that a slow client cannot stretch.

use crate::shutdown::Shutdown;
use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What one listener bears.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once; more wait.
    pub(crate) connections: usize,
    /// For a request's head to arrive; idle connections end after it too.
    pub(crate) head_timeout: Duration,
    /// Bytes of a request's head.
    pub(crate) head_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 256, head_timeout: Duration::from_secs(20), head_size: 16 * 1024 }
    }
}

/// Serves until `shutdown`; ends when the last running request has.
pub(crate) async fn serve<L: Listener>(mut listener: L, router: Router, limits: Limits, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            Some(_) = connections.join_next() => {}
            (place, stream) = accept(&mut listener, &places) => {
                let speaking = speak(stream, router.clone(), limits, shutdown.clone());
                connections.spawn(async move {
                    speaking.await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept<L: Listener>(
    listener: &mut L,
    places: &Arc<Semaphore>,
) -> (tokio::sync::OwnedSemaphorePermit, L::Io) {
    loop {
        // Never closed.
        let Ok(place) = places.clone().acquire_owned().await else { continue };
        let (stream, _) = listener.accept().await;
        return (place, stream);
    }
}

/// Serves one connection until it ends, or until `shutdown` and the end of its running request.
pub(crate) async fn speak<S>(stream: S, router: Router, limits: Limits, shutdown: Shutdown)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_size)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown;
    use axum::routing::get;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    async fn server(
        limits: Limits,
    ) -> (std::net::SocketAddr, shutdown::ShutdownTrigger, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let router = Router::new().route("/", get(async || "hello"));
        (address, trigger, tokio::spawn(serve(listener, router, limits, shutdown)))
    }

    #[tokio::test]
    async fn who_does_not_finish_a_request_is_hung_up_on() {
        let limits = Limits { connections: 1, head_timeout: Duration::from_millis(300), ..Limits::default() };
        let (address, trigger, task) = server(limits).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: x").await.unwrap();
        let mut quick = TcpStream::connect(address).await.unwrap();
        quick.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let (mut text, started) = (String::new(), Instant::now());
        quick.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("hello") && started.elapsed() < Duration::from_secs(10), "{text}");
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("hello"));
        trigger.request();
        task.await.unwrap();
    }
}
