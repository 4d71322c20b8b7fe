//! The relay's metrics for a Prometheus on another machine: `relay.metrics_listen`. Nothing else is served there, and
//! nothing of the peer in the same process is told.

use super::{CONTENT_TYPE, relay_page};
use crate::http;
use crate::relay::Inquiry;
use crate::shutdown::Shutdown;
use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lanrage_common::bucket::{Bucket, Rate};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::net::TcpListener;

/// Answers a second, all scrapers together: each costs the relay a system call for every member.
const SCRAPES: Rate = Rate::per_second(5, 20);
/// Connections at once.
const CONNECTIONS: usize = 32;

struct Outside {
    inquiry: Inquiry,
    budget: Mutex<Bucket>,
}

/// Serves until `shutdown`.
pub(crate) async fn serve(
    listen: SocketAddr,
    inquiry: Inquiry,
    shutdown: Shutdown,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}: choose another address for relay.metrics_listen")
    })?;
    let address = listener.local_addr()?;
    let state = Arc::new(Outside { inquiry, budget: Mutex::new(Bucket::new(SCRAPES)) });
    let router = Router::new().route("/metrics", get(metrics)).with_state(state);
    tokio::spawn(http::serve(
        listener,
        router,
        http::Limits { connections: CONNECTIONS, ..http::Limits::default() },
        shutdown,
    ));
    Ok(address)
}

async fn metrics(State(outside): State<Arc<Outside>>) -> Response {
    let is_allowed = outside.budget.lock().unwrap_or_else(PoisonError::into_inner).take(1, Instant::now());
    if !is_allowed {
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], "scrape less often\n")
            .into_response();
    }
    match outside.inquiry.ask().await {
        Some(detail) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], relay_page(&detail)).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the relay does not answer\n").into_response(),
    }
}
