//! The WebSocket of a relay.

use super::app::{Operator, SharedApp};
use super::error::Refused;
use super::http::Place;
use super::member_socket::{close, not_a_websocket, small};
use super::relays::{News, Registration, Replaced, SILENCE};
use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use lanrage_common::control::refusal;
use lanrage_common::protocol::{ErrorBody, ErrorCode, RelayCommand, RelayMessage};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A relay that restarts is back by then, and its kernel program has forwarded meanwhile: nobody needs to hear of it.
const RETURN: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// `GET /v1/relay`
pub(super) async fn upgrade(
    State(app): State<SharedApp>,
    _: Operator,
    Extension(place): Extension<Arc<Place>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    let upgrade = upgrade.map_err(|_| not_a_websocket())?;
    Ok(small(upgrade).on_upgrade(move |socket| serve(app, socket, place)).into_response())
}

async fn serve(app: SharedApp, mut socket: WebSocket, _place: Arc<Place>) {
    let reason = match register(&app, &mut socket).await {
        Ok(registration) => {
            let reason = tokio::select! {
                reason = listen(&app, &mut socket, &registration) => reason,
                () = app.shutdown.requested() => "the server is stopping: connect again in a moment",
            };
            if app.relays.may_return(&registration) {
                tokio::select! {
                    () = tokio::time::sleep(RETURN) => {}
                    () = app.shutdown.requested() => {}
                }
            }
            tell(&app, app.relays.remove(&registration, Instant::now()));
            tracing::info!(relay = registration.name(), reason, "relay gone");
            reason
        }
        Err(error) => {
            tracing::warn!(error = error.message, "a relay was refused");
            send(&mut socket, &RelayCommand::Refused { error }).await;
            "refused"
        }
    };
    close(&mut socket, reason).await;
}

async fn register(app: &SharedApp, socket: &mut WebSocket) -> Result<Registration, ErrorBody> {
    match receive(socket).await {
        Ok(RelayMessage::Register { relay, ticket_key }) => {
            let addresses = relay.addresses.clone();
            let registration = app.relays.register(relay, &ticket_key, Instant::now())?;
            tracing::info!(relay = registration.name(), ?addresses, "relay registered");
            send(socket, &RelayCommand::Registered).await;
            Ok(registration)
        }
        Ok(_) => Err(refusal(ErrorCode::BadRequest, "register first")),
        Err(reason) => Err(refusal(ErrorCode::BadRequest, reason)),
    }
}

/// Notes heartbeats until there are none.
async fn listen(app: &SharedApp, socket: &mut WebSocket, registration: &Registration) -> &'static str {
    loop {
        match receive(socket).await {
            Ok(RelayMessage::Heartbeat { load }) => {
                match app.relays.heartbeat(registration, load, Instant::now()) {
                    Ok(news) => tell(app, news),
                    Err(Replaced) => return "replaced by a newer connection of this relay",
                }
            }
            Ok(RelayMessage::Register { .. }) => return "registered twice",
            Err(reason) => return reason,
        }
    }
}

/// Tells a relay's users what has become of it.
fn tell(app: &SharedApp, news: Option<News>) {
    let Some(News { to, message }) = news else { return };
    tracing::info!(members = to.len(), %message, "a relay's state has changed");
    for conn in to {
        app.hub.send(conn, message.clone());
    }
}

/// The next message of the relay; WebSocket pings do not count as life, heartbeats do.
async fn receive(socket: &mut WebSocket) -> Result<RelayMessage, &'static str> {
    let text = async {
        loop {
            match socket.recv().await {
                None | Some(Ok(Message::Close(_))) => return Err("closed by the relay"),
                Some(Err(_)) => return Err("connection lost"),
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Binary(_))) => return Err("messages are text, not binary"),
                Some(Ok(_)) => {}
            }
        }
    };
    let text = timeout(SILENCE, text).await.map_err(|_| "no heartbeat for 15 s")??;
    serde_json::from_str(text.as_str())
        .map_err(|_| "the message's JSON is wrong: is the relay of another version?")
}

async fn send(socket: &mut WebSocket, command: &RelayCommand) {
    let text = serde_json::to_string(command).unwrap_or_default();
    // a relay that cannot be written to is noticed by its missing heartbeats
    drop(timeout(WRITE_TIMEOUT, socket.send(Message::Text(text.into()))).await);
}
