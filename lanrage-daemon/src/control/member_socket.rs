//! The WebSocket of a member's daemon.

use super::app::{LoggedIn, SharedApp};
use super::error::Refused;
use super::http::Place;
use super::hub::{Connection, End};
use super::link::WS_BUFFER;
use crate::clock::now;
use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use lanrage_common::bucket::{Bucket, Rate};
use lanrage_common::control::{Caller, ConnId, refusal};
use lanrage_common::identity::PartyId;
use lanrage_common::protocol::{
    ClientMessage, ErrorBody, ErrorCode, MAX_MESSAGE, MAX_SERVER_MESSAGE, ServerMessage,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// A client pings every 15 s; one that is silent for longer than this is gone.
const DEAD_AFTER: Duration = Duration::from_secs(45);
/// A message that cannot be written for this long ends the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for the last words.
const GOODBYE: Duration = Duration::from_secs(2);
/// Parties one connection may be in.
const MAX_PARTIES: usize = 64;
/// Messages a client may send at once, enough for signals to a full party, and for ever.
const BURST: u64 = 600;
const PER_SECOND: u64 = 50;
/// Messages over the limit that are answered before the connection ends.
const PATIENCE: u32 = 50;

/// The buffers of every WebSocket here.
pub(super) fn small(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(WS_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_SERVER_MESSAGE)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
}

/// `GET /v1/ws`
pub(super) async fn upgrade(
    State(app): State<SharedApp>,
    LoggedIn(caller): LoggedIn,
    Extension(place): Extension<Arc<Place>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    let upgrade = upgrade.map_err(|_| not_a_websocket())?;
    Ok(small(upgrade).on_upgrade(move |socket| serve(app, caller, socket, place)).into_response())
}

pub(super) fn not_a_websocket() -> Refused {
    Refused::bad_request("this address speaks WebSocket only")
}

/// Holds the connection's place among those of its source until it ends.
async fn serve(app: SharedApp, caller: Caller, socket: WebSocket, _place: Arc<Place>) {
    let connection = app.hub.connect(caller.device);
    let (id, relays) = (connection.id, app.relays.list());
    let mut member =
        Member { app, caller, id, socket, relays, parties: BTreeSet::new(), budget: Budget::new() };
    let reason = member.run(connection).await;
    tracing::debug!(device = %member.caller.device, reason, "member disconnected");
    let Member { app, parties, mut socket, .. } = member;
    app.hub.disconnect(caller.device, id, parties.into_iter().collect()).await;
    close(&mut socket, reason).await;
}

/// Says goodbye as far as the other side still listens.
pub(super) async fn close(socket: &mut WebSocket, reason: &'static str) {
    // 1008, policy violation, RFC 6455 section 7.4.1: the one code that fits "and here is why"
    let frame = CloseFrame { code: 1008, reason: Utf8Bytes::from_static(reason) };
    let goodbye = async {
        socket.send(Message::Close(Some(frame))).await?;
        // closing with unread data would reset the connection, and the reason would be lost
        while let Some(Ok(_)) = socket.recv().await {}
        Ok::<_, axum::Error>(())
    };
    drop(timeout(GOODBYE, goodbye).await);
}

struct Member {
    app: SharedApp,
    caller: Caller,
    id: ConnId,
    socket: WebSocket,
    relays: watch::Receiver<Utf8Bytes>,
    parties: BTreeSet<PartyId>,
    budget: Budget,
}

impl Member {
    /// Serves until the connection ends; the answer says why.
    async fn run(&mut self, Connection { mut end, mut inbox, .. }: Connection) -> &'static str {
        let mut dead_at = Instant::now() + DEAD_AFTER;
        loop {
            let turn = tokio::select! {
                // 1. being ended comes before all else
                biased;
                _ = end.changed() => return end_reason(&end),
                // 2. what waits for the client, so that its queue stays short
                Some(message) = inbox.next() => self.write(message, &mut end).await,
                // 3. a changed relay list; the first one is sent with the first hello
                Ok(()) = self.relays.changed(), if !self.parties.is_empty() => {
                    let list = self.relays.borrow_and_update().clone();
                    self.write(list, &mut end).await
                }
                // 4. what the client wants
                incoming = timeout_at(dead_at, self.socket.recv()) => {
                    dead_at = Instant::now() + DEAD_AFTER;
                    self.receive(incoming.map(Option::transpose)).await
                }
            };
            if let Err(reason) = turn {
                return reason;
            }
        }
    }

    async fn write(
        &mut self,
        message: Utf8Bytes,
        end: &mut watch::Receiver<End>,
    ) -> Result<(), &'static str> {
        tokio::select! {
            written = timeout(WRITE_TIMEOUT, self.socket.send(Message::Text(message))) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err("connection lost"),
                Err(_) => Err("too slow: a message could not be delivered"),
            },
            _ = end.changed() => Err(end_reason(end)),
        }
    }

    async fn receive(
        &mut self,
        incoming: Result<Result<Option<Message>, axum::Error>, tokio::time::error::Elapsed>,
    ) -> Result<(), &'static str> {
        let message = match incoming {
            Err(_) => return Err("silent for too long"),
            Ok(Err(_)) => return Err("connection lost, or a frame that is too large or malformed"),
            Ok(Ok(None | Some(Message::Close(_)))) => return Err("closed by the client"),
            Ok(Ok(Some(message))) => message,
        };
        let result = match message {
            Message::Ping(_) | Message::Pong(_) => return self.budget.spend(Instant::now()).map(drop),
            Message::Text(text) => match self.budget.spend(Instant::now())? {
                true => self.handle_text(text.as_str()).await,
                false => Err((None, refusal(ErrorCode::RateLimited, "too many messages: send more slowly"))),
            },
            _ => Err((None, refusal(ErrorCode::BadRequest, "messages are text, not binary"))),
        };
        if let Err((party, error)) = result {
            self.answer(&ServerMessage::Error { party, error });
        }
        Ok(())
    }

    async fn handle_text(&mut self, text: &str) -> Result<(), (Option<PartyId>, ErrorBody)> {
        let message = serde_json::from_str(text).map_err(|error| {
            (None, refusal(ErrorCode::BadRequest, format!("the message's JSON is wrong: {error}")))
        })?;
        let (party, result) = match message {
            ClientMessage::Hello { party, member, have } => (party, self.hello(party, member, have).await),
            ClientMessage::Signal { party, to, body } => (party, self.signal(party, to, body).await),
            ClientMessage::Ticket { party, relay } => (party, self.ticket(party, relay).await),
        };
        result.map_err(|error| (Some(party), error))
    }

    async fn hello(
        &mut self,
        id: PartyId,
        member: lanrage_common::protocol::Member,
        have: Option<u64>,
    ) -> Result<(), ErrorBody> {
        if self.parties.len() >= MAX_PARTIES && !self.parties.contains(&id) {
            return Err(refusal(ErrorCode::BadRequest, "one connection can be in 64 parties at most"));
        }
        let (caller, conn) = (self.caller, self.id);
        let act = move |party: &mut lanrage_common::control::ControlParty| {
            party.handle_hello(caller, conn, member, have)
        };
        self.app.hub.with_party(id, act).await?;
        self.parties.insert(id);
        let list = self.relays.borrow_and_update().clone();
        self.app.hub.send(conn, list);
        Ok(())
    }

    async fn signal(
        &mut self,
        id: PartyId,
        to: lanrage_common::identity::WgKey,
        body: String,
    ) -> Result<(), ErrorBody> {
        let (caller, conn) = (self.caller, self.id);
        self.app.hub.with_party(id, move |party| party.handle_signal(&caller, conn, &to, body)).await?;
        self.app.metrics.signal();
        Ok(())
    }

    async fn ticket(&mut self, id: PartyId, relay: String) -> Result<(), ErrorBody> {
        let caller = self.caller;
        let epoch = self.app.hub.with_party(id, move |party| party.handle_ticket(&caller)).await?;
        let ticket = self.app.relays.ticket(&caller, self.id, id, epoch, relay.clone(), now());
        match ticket {
            Ok(ticket) => self.answer(&ticket),
            Err(error) => {
                // it asked because it does not know the relay's state
                self.app.hub.send(self.id, self.app.relays.now_of(&relay));
                return Err(error);
            }
        }
        self.app.metrics.ticket();
        Ok(())
    }

    /// Answers behind everything that already waits.
    fn answer(&self, message: &ServerMessage) {
        self.app.hub.send(self.id, super::hub::encode(message));
    }
}

fn end_reason(end: &watch::Receiver<End>) -> &'static str {
    end.borrow().unwrap_or("the server has forgotten this connection")
}

/// How many messages a client may send.
#[derive(Debug)]
struct Budget {
    messages: Bucket,
    refused: u32,
}

impl Budget {
    fn new() -> Self {
        Self { messages: Bucket::new(Rate::per_second(PER_SECOND, BURST)), refused: 0 }
    }

    /// Whether the next message is within the limit; an error when the client ignores it for too long.
    fn spend(&mut self, now: Instant) -> Result<bool, &'static str> {
        if self.messages.take(1, now.into_std()) {
            self.refused = 0;
            return Ok(true);
        }
        self.refused += 1;
        match self.refused > PATIENCE {
            true => Err("too many messages"),
            false => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_refused_and_then_ended() {
        let (mut budget, start) = (Budget::new(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(budget.spend(start), Ok(true));
        }
        for _ in 0..PATIENCE {
            assert_eq!(budget.spend(start), Ok(false));
        }
        assert!(budget.spend(start).is_err());
        let later = start + Duration::from_secs(1);
        assert_eq!(budget.spend(later), Ok(true), "who waits may go on");
    }
}
