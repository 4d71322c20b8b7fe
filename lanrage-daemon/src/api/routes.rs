//! The requests.

use super::answer::{Body, Refusal};
use super::guard::Guard;
use super::status::Changes;
use super::{Shared, metrics, openapi, page, support};
use crate::peer::{PeerCommand, PeerStatus, Reply};
use crate::relay::Drain;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use lanrage_common::api::{
    AddDeviceAnswer, AddDeviceRequest, CreatePartyRequest, DrainRequest, FirewallRequest, InviteAnswer,
    InviteRequest, JoinRequest, NetworkStatus, PingAnswer, PingRequest, RelayDetail, RemoveDeviceRequest,
    RevokeRequest, RunAnswer, RunRequest, Status, UiAnswer,
};
use lanrage_common::invite::Invite;
use lanrage_common::protocol::{ErrorCode, MAX_MEMBERS, MAX_MESSAGE, MAX_NAME, is_valid_name};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub(super) type App = State<Arc<Shared>>;
pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// How long the peer may take over a command; joining includes talking to the control server.
pub(super) const COMMAND: Duration = Duration::from_secs(30);
/// How long the status may take to show what a command has done.
const SETTLE: Duration = Duration::from_secs(2);
const INVITE_LIFE: std::ops::RangeInclusive<u64> = 60..=30 * 24 * 3600;
const PINGS: std::ops::RangeInclusive<u32> = 1..=100;

/// Routes of the Unix socket, which needs no guard: file permissions are one.
pub(super) fn local(shared: Arc<Shared>) -> Router {
    common()
        .route("/api/v1/ui", post(ui))
        .route("/api/v1/run", post(run))
        .fallback(no_such_request)
        .with_state(shared)
}

/// Routes of the loopback listener.
pub(super) fn loopback(shared: Arc<Shared>, guard: Arc<Guard>) -> Router {
    common()
        .fallback(page::serve)
        .layer(middleware::from_fn_with_state(guard, check))
        .layer(middleware::map_response(page::add_security_headers))
        .with_state(shared)
}

fn common() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/relay", get(relay))
        .route("/api/v1/events", get(events))
        .route("/api/v1/party", post(create_party))
        .route("/api/v1/party/join", post(join))
        .route("/api/v1/party/leave", post(leave))
        .route("/api/v1/party/invite", post(invite))
        .route("/api/v1/party/revoke", post(revoke))
        .route("/api/v1/firewall", post(firewall))
        .route("/api/v1/up", post(up))
        .route("/api/v1/down", post(down))
        .route("/api/v1/ping", post(ping))
        .route("/api/v1/netcheck", post(netcheck))
        .route("/api/v1/gateway/lan", post(support::set_lan))
        .route("/api/v1/gateway/add", post(add_device))
        .route("/api/v1/gateway/remove", post(remove_device))
        .route("/api/v1/doctor", post(support::doctor))
        .route("/api/v1/settings", get(support::settings).post(support::change_settings))
        .route("/api/v1/games", get(support::games))
        .route("/api/v1/mods", get(support::mods))
        .route("/api/v1/log", get(support::log))
        .route("/api/v1/bundle", get(support::bundle))
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/api/v1/relay/drain", post(drain))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_MESSAGE))
}

async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match guard.check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => {
            tracing::debug!(path = parts.uri.path(), reason = %refusal.body.message, "local API request refused");
            refusal.into_response()
        }
    }
}

pub(super) async fn no_such_request() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, "no such request; see the API's documentation")
}

async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, "this address takes another method")
}

async fn status(State(shared): App) -> Json<Status> {
    Json(shared.daemon.status())
}

async fn events(State(shared): App) -> Sse<impl futures_util::Stream<Item = Result<Event, Infallible>>> {
    let changes = Changes::new(&shared.daemon, shared.shutdown.clone());
    let stream = futures_util::stream::unfold(changes, async |mut changes| {
        let status = changes.next().await?;
        let event = Event::default().json_data(status).unwrap_or_default();
        Some((Ok(event), changes))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

async fn metrics(State(shared): App) -> impl IntoResponse {
    let detail = match &shared.daemon.relay_inquiry {
        Some(inquiry) => inquiry.ask().await,
        None => None,
    };
    let page = metrics::render(&shared.daemon.status(), detail.as_ref());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page)
}

async fn relay(State(shared): App) -> Answer<RelayDetail> {
    let Some(inquiry) = &shared.daemon.relay_inquiry else {
        let roles = shared.daemon.roles.join(" and ");
        let what = format!(
            "this daemon runs as {roles}; name the relay's socket with --socket /run/lanrage-relay/lanrage.sock"
        );
        return Err(Refusal::bad_request(what));
    };
    let detail = inquiry.ask().await;
    detail.map(Json).ok_or_else(|| Refusal::internal("the relay did not answer; look at the daemon's log"))
}

async fn ui(State(shared): App) -> Json<UiAnswer> {
    Json(UiAnswer { url: shared.ui_url.clone() })
}

async fn create_party(State(shared): App, Body(request): Body<CreatePartyRequest>) -> Answer<InviteAnswer> {
    if !is_valid_name(&request.name) {
        return Err(Refusal::bad_request(format!(
            "a party's name has 1 to {MAX_NAME} characters, no control characters and no blanks at its ends"
        )));
    }
    if let Some(control) = &request.control {
        crate::config::check_origin(control).map_err(Refusal::bad_request)?;
    }
    shared.ask(COMMAND, |reply| PeerCommand::CreateParty(request, reply)).await.map(Json)
}

async fn join(State(shared): App, Body(request): Body<JoinRequest>) -> Answer<Status> {
    request.invite.parse::<Invite>().map_err(|error| Refusal::bad_request(error.to_string()))?;
    shared.ask(COMMAND, |reply| PeerCommand::Join(request, reply)).await?;
    shared.settle(|status| status.party.is_some()).await
}

async fn leave(State(shared): App) -> Answer<Status> {
    shared.ask(COMMAND, PeerCommand::Leave).await?;
    shared.settle(|status| status.party.is_none()).await
}

async fn invite(State(shared): App, Body(request): Body<InviteRequest>) -> Answer<InviteAnswer> {
    if request.expires_in.is_some_and(|life| !INVITE_LIFE.contains(&life)) {
        return Err(Refusal::bad_request("an invite lives between one minute and 30 days"));
    }
    if request.uses.is_some_and(|uses| uses == 0 || uses as usize > MAX_MEMBERS) {
        return Err(Refusal::bad_request(format!("an invite has 1 to {MAX_MEMBERS} uses")));
    }
    shared.ask(COMMAND, |reply| PeerCommand::Invite(request, reply)).await.map(Json)
}

async fn revoke(State(shared): App, Body(request): Body<RevokeRequest>) -> Answer<Status> {
    request.invite.parse::<Invite>().map_err(|error| Refusal::bad_request(error.to_string()))?;
    shared.ask(COMMAND, |reply| PeerCommand::Revoke(request, reply)).await?;
    Ok(Json(shared.daemon.status()))
}

async fn firewall(State(shared): App, Body(request): Body<FirewallRequest>) -> Answer<Status> {
    shared.ask(COMMAND, |reply| PeerCommand::Firewall(request, reply)).await?;
    Ok(Json(shared.daemon.status()))
}

async fn up(State(shared): App) -> Answer<Status> {
    shared.ask(COMMAND, PeerCommand::Up).await?;
    shared.settle(|status| status.up).await
}

async fn down(State(shared): App) -> Answer<Status> {
    shared.ask(COMMAND, PeerCommand::Down).await?;
    shared.settle(|status| !status.up).await
}

async fn ping(State(shared): App, Body(request): Body<PingRequest>) -> Answer<PingAnswer> {
    if !PINGS.contains(&request.count) {
        return Err(Refusal::bad_request("ping sends 1 to 100 packets"));
    }
    let patience = COMMAND + Duration::from_secs(2) * request.count;
    shared.ask(patience, |reply| PeerCommand::Ping(request, reply)).await.map(Json)
}

async fn add_device(State(shared): App, Body(request): Body<AddDeviceRequest>) -> Answer<AddDeviceAnswer> {
    if !request.endpoint.as_deref().is_none_or(is_endpoint) {
        return Err(Refusal::bad_request(
            "the endpoint is a host name or an address, with or without a port: play.example:51820",
        ));
    }
    shared.ask(COMMAND, |reply| PeerCommand::AddDevice(request, reply)).await.map(Json)
}

/// It goes into a file: no blanks, no line breaks.
fn is_endpoint(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    (1..=260).contains(&text.len()) && text.chars().all(is_part)
}

async fn remove_device(State(shared): App, Body(request): Body<RemoveDeviceRequest>) -> Answer<Status> {
    shared.ask(COMMAND, |reply| PeerCommand::RemoveDevice(request, reply)).await?;
    Ok(Json(shared.daemon.status()))
}

async fn run(State(shared): App, Body(request): Body<RunRequest>) -> Answer<RunAnswer> {
    shared.ask(COMMAND, |reply| PeerCommand::Run(request, reply)).await.map(Json)
}

async fn netcheck(State(shared): App) -> Answer<NetworkStatus> {
    let control = shared.daemon.status().control.map(|control| control.url);
    let (network, captive_portal) = tokio::join!(
        shared.ask(COMMAND, PeerCommand::Netcheck),
        crate::netcheck::captive_portal(control.as_deref())
    );
    Ok(Json(NetworkStatus { captive_portal, ..network? }))
}

async fn drain(State(shared): App, Body(request): Body<DrainRequest>) -> Answer<Status> {
    let daemon = &shared.daemon;
    let (Some(relay), Some(drain)) = (&daemon.relay, &daemon.relay_drain) else {
        return Err(Refusal::bad_request(
            "this daemon runs no relay: name the relay's socket with --socket /run/lanrage-relay/lanrage.sock",
        ));
    };
    let deadline = Instant::now() + Duration::from_secs(request.within_s.into());
    drain.send_replace(if request.drain { Drain::Until(deadline) } else { Drain::No });
    let mut watched = relay.clone();
    let shown = watched.wait_for(|status| status.draining == request.drain);
    // a relay that has stopped shows as such in the status
    let _ = tokio::time::timeout(SETTLE, shown).await;
    Ok(Json(daemon.status()))
}

impl Shared {
    /// Passes a command to the peer and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        patience: Duration,
        command: impl FnOnce(Reply<T>) -> PeerCommand,
    ) -> Result<T, Refusal> {
        let Some(peer) = &self.daemon.peer else {
            let roles = self.daemon.roles.join(" and ");
            return Err(Refusal::bad_request(format!(
                "this daemon runs as {roles} only; start one with the peer role: lanrage-daemon peer"
            )));
        };
        let gone = || Refusal::internal("the peer role has stopped; restart the daemon and look at its log");
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            peer.commands.send(command(reply)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?.map_err(Refusal::from)
        };
        tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| {
            let seconds = patience.as_secs();
            Err(Refusal::internal(format!(
                "the peer did not answer within {seconds} s; look at the daemon's log"
            )))
        })
    }

    /// The status, once it shows what was done.
    async fn settle(&self, done: impl FnMut(&PeerStatus) -> bool) -> Answer<Status> {
        if let Some(peer) = &self.daemon.peer {
            let mut watched = peer.status.clone();
            let _ = tokio::time::timeout(SETTLE, watched.wait_for(done)).await;
        }
        Ok(Json(self.daemon.status()))
    }
}
