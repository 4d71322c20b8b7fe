//! A WebSocket to the control server that keeps itself open.

use super::client::ControlClient;
use super::origin;
use futures_util::{SinkExt as _, StreamExt as _};
use lanrage_common::protocol::{
    ClientMessage, ErrorBody, MAX_MESSAGE, MAX_SERVER_MESSAGE, RelayCommand, RelayMessage, ServerMessage,
};
use rand::Rng as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// Bytes of each buffer of a WebSocket; the library's defaults cost 134 KB a connection.
pub const WS_BUFFER: usize = 4096;

const FIRST_RETRY: Duration = Duration::from_millis(200);
const FIRST_CEILING: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(15);
/// A connection that lived this long was good: the next retry starts from the shortest wait again.
const GOOD_LIFE: Duration = Duration::from_secs(30);
const OPEN_TIMEOUT: Duration = Duration::from_secs(12);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(15);
const DEAD_AFTER: Duration = Duration::from_secs(30);
const QUEUE: usize = 256;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What is heard from a link.
#[derive(Debug)]
pub enum LinkEvent<In = ServerMessage> {
    /// The WebSocket is open: a peer sends `Hello` for every party now, a relay `Register`.
    Connected,
    /// It is closed, or could not be opened (reported for every try); the link retries with full jitter (0.2 s up to
    /// 15 s) until dropped.
    Disconnected {
        /// For people.
        reason: String,
    },
    /// A message.
    Message(Box<In>),
}

/// A WebSocket to the control server that keeps itself open. It ends when either half is dropped.
#[derive(Debug)]
pub struct Link<Out, In> {
    /// To the server; messages sent while disconnected are dropped.
    pub outgoing: mpsc::Sender<Out>,
    /// From the server.
    pub events: mpsc::Receiver<LinkEvent<In>>,
}

/// A peer's link.
pub type ControlLink = Link<ClientMessage, ServerMessage>;
/// A relay's link.
pub type RelayLink = Link<RelayMessage, RelayCommand>;

/// What opens the WebSocket.
pub(super) enum Credential {
    /// A device's login.
    Login(ControlClient),
    /// The operator's token.
    Operator(String),
}

impl Credential {
    async fn token(&self) -> Result<String, String> {
        match self {
            Self::Login(client) => client.token().await.map_err(|error| error.to_string()),
            Self::Operator(token) => Ok(token.clone()),
        }
    }

    async fn refused(&self, token: &str) {
        if let Self::Login(client) = self {
            client.forget(token).await;
        }
    }
}

/// Starts a link; must be called within a tokio runtime.
pub(super) fn open<Out, In>(origin: &str, path: &str, credential: Credential) -> Link<Out, In>
where
    Out: Serialize + Send + 'static,
    In: DeserializeOwned + Send + 'static,
{
    let (outgoing, from_owner) = mpsc::channel(QUEUE);
    let (to_owner, events) = mpsc::channel(QUEUE);
    let driver = Driver {
        origin: origin.into(),
        url: origin::websocket(origin, path),
        credential,
        outgoing: from_owner,
        events: to_owner,
    };
    tokio::spawn(driver.run());
    Link { outgoing, events }
}

/// The owner has dropped the link.
struct Dropped;

struct Driver<Out, In> {
    origin: String,
    url: String,
    credential: Credential,
    outgoing: mpsc::Receiver<Out>,
    events: mpsc::Sender<LinkEvent<In>>,
}

impl<Out: Serialize, In: DeserializeOwned> Driver<Out, In> {
    async fn run(mut self) {
        let mut ceiling = FIRST_CEILING;
        loop {
            let opened = Instant::now();
            let reason = match self.connect_and_serve().await {
                Ok(reason) => reason,
                Err(Dropped) => return,
            };
            if opened.elapsed() >= GOOD_LIFE {
                ceiling = FIRST_CEILING;
            }
            tracing::debug!(origin = self.origin, reason, "control link closed");
            if self.events.send(LinkEvent::Disconnected { reason }).await.is_err() {
                return;
            }
            if self.idle(jittered(ceiling)).await.is_err() {
                return;
            }
            ceiling = (ceiling * 2).min(LAST_RETRY);
        }
    }

    /// Waits, dropping what the owner sends meanwhile.
    async fn idle(&mut self, wait: Duration) -> Result<(), Dropped> {
        let until = Instant::now() + wait;
        loop {
            match timeout_at(until, self.outgoing.recv()).await {
                Err(_) => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(Dropped),
            }
        }
    }

    /// One life of the WebSocket; the answer says why it ended.
    async fn connect_and_serve(&mut self) -> Result<String, Dropped> {
        let opening = tokio::select! {
            opened = timeout(OPEN_TIMEOUT, open_socket(&self.url, &self.credential)) => opened,
            () = self.events.closed() => return Err(Dropped),
        };
        let socket = match opening {
            Ok(Ok(socket)) => socket,
            Ok(Err(cause)) => return Ok(self.describe(&cause)),
            Err(_) => return Ok(self.describe("it did not answer in time")),
        };
        while self.outgoing.try_recv().is_ok() {}
        self.events.send(LinkEvent::Connected).await.map_err(|_| Dropped)?;
        match self.serve(socket).await {
            ControlFlow::Break(reason) => Ok(reason),
            ControlFlow::Continue(()) => Err(Dropped),
        }
    }

    fn describe(&self, cause: &str) -> String {
        match cause.contains(&self.origin) {
            true => cause.into(),
            false => format!("cannot open a connection to {}: {cause}", self.origin),
        }
    }

    /// Serves until the connection breaks (the reason) or the owner drops the link.
    async fn serve(&mut self, mut socket: Socket) -> ControlFlow<String> {
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut dead_at = Instant::now() + DEAD_AFTER;
        loop {
            tokio::select! {
                incoming = timeout_at(dead_at, socket.next()) => {
                    self.receive(incoming).await?;
                    dead_at = Instant::now() + DEAD_AFTER;
                }
                message = self.outgoing.recv() => {
                    let Some(message) = message else { return close(socket).await };
                    write(&mut socket, encode(&message)).await?;
                }
                _ = pings.tick() => write(&mut socket, Message::Ping(Default::default())).await?,
                () = self.events.closed() => return close(socket).await,
            }
        }
    }

    async fn receive(
        &self,
        incoming: Result<Option<Result<Message, WsError>>, tokio::time::error::Elapsed>,
    ) -> ControlFlow<String> {
        let lost =
            |cause: String| ControlFlow::Break(format!("lost the connection to {}: {cause}", self.origin));
        let message = match incoming {
            Err(_) => return lost(format!("silent for {} s", DEAD_AFTER.as_secs())),
            Ok(None) => return lost("closed".into()),
            Ok(Some(Err(error))) => return lost(error.to_string()),
            Ok(Some(Ok(message))) => message,
        };
        match message {
            Message::Text(text) => self.deliver(text.as_str()).await,
            Message::Close(Some(frame)) if !frame.reason.is_empty() => lost(frame.reason.to_string()),
            Message::Close(_) => lost("closed by the server".into()),
            _ => ControlFlow::Continue(()),
        }
    }

    async fn deliver(&self, text: &str) -> ControlFlow<String> {
        match serde_json::from_str(text) {
            // a dropped owner is noticed by the caller's select
            Ok(message) => drop(self.events.send(LinkEvent::Message(Box::new(message))).await),
            // a newer server may say more than this version knows
            Err(error) => {
                tracing::debug!(origin = self.origin, %error, "unknown message from the control server")
            }
        }
        ControlFlow::Continue(())
    }
}

/// Opens the WebSocket; a login that the server has forgotten is renewed once.
async fn open_socket(url: &str, credential: &Credential) -> Result<Socket, String> {
    let token = credential.token().await?;
    match try_token(url, &token).await {
        Err(WsError::Http(response)) if response.status() == StatusCode::UNAUTHORIZED => {
            credential.refused(&token).await;
            let token = credential.token().await?;
            try_token(url, &token).await.map_err(|error| explain(&error))
        }
        result => result.map_err(|error| explain(&error)),
    }
}

async fn try_token(url: &str, token: &str) -> Result<Socket, WsError> {
    let mut request = url.into_client_request()?;
    // a configured token may hold anything; what HTTP cannot carry is no token
    let bearer =
        HeaderValue::from_str(&format!("Bearer {token}")).unwrap_or(HeaderValue::from_static("Bearer"));
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    connect_async_with_config(request, Some(socket_config()), true).await.map(|(socket, _)| socket)
}

fn explain(error: &WsError) -> String {
    match error {
        WsError::Http(response) => refusal(response.status(), response.body().as_deref()),
        error => error.to_string(),
    }
}

fn refusal(status: StatusCode, body: Option<&[u8]>) -> String {
    match body.and_then(|body| serde_json::from_slice::<ErrorBody>(body).ok()) {
        Some(body) => body.message,
        None => format!("HTTP status {status}"),
    }
}

fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(WS_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE)
        .max_message_size(Some(MAX_SERVER_MESSAGE))
        .max_frame_size(Some(MAX_SERVER_MESSAGE))
}

fn encode(message: &impl Serialize) -> Message {
    // these types hold nothing that JSON cannot carry
    Message::text(serde_json::to_string(message).unwrap_or_default())
}

async fn write(socket: &mut Socket, message: Message) -> ControlFlow<String> {
    match timeout(WRITE_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        Ok(Err(error)) => ControlFlow::Break(error.to_string()),
        Err(_) => ControlFlow::Break("the control server takes no more data".into()),
    }
}

async fn close(mut socket: Socket) -> ControlFlow<String> {
    // best effort: the server notices the closed TCP connection anyway
    drop(timeout(Duration::from_secs(1), socket.close(None)).await);
    ControlFlow::Continue(())
}

/// Full jitter: anywhere between the shortest wait and `ceiling`.
fn jittered(ceiling: Duration) -> Duration {
    rand::thread_rng().gen_range(FIRST_RETRY..=ceiling)
}
