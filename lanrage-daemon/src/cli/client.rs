//! Speaks HTTP over the daemon's Unix socket.

use super::failure::Failure;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use lanrage_common::protocol::{ErrorBody, ErrorCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Of the peer, and of a daemon with all roles.
pub(super) const DEFAULT_SOCKET: &str = "/run/lanrage/lanrage.sock";
/// Of a relay that runs by its systemd unit.
const RELAY_SOCKET: &str = "/run/lanrage-relay/lanrage.sock";

/// A daemon's answer: what it means, and the text as it came.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) value: T,
    pub(super) text: String,
}

/// The way to the daemon.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// The same for a relay, whose unit keeps its socket apart from a peer's.
    pub(super) fn of_relay(socket: &Path) -> Self {
        let own = Path::new(RELAY_SOCKET);
        let is_default = socket == Path::new(DEFAULT_SOCKET);
        Self::new(if is_default && !socket.exists() && own.exists() { own } else { socket })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        self.exchange(Method::GET, path, None).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        self.exchange(Method::POST, path, None).await
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer<T>, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Broken(error.to_string()))?;
        self.exchange(Method::POST, path, Some(body)).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer<T>, Failure> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| Failure::connecting(&self.socket, &error))?;
        let request = request(method, path, body).map_err(|error| Failure::Broken(error.to_string()))?;
        let (ok, text) = converse(stream, request)
            .await
            .map_err(|error| Failure::Broken(format!("the daemon hung up: {error}")))?;
        if !ok {
            return Err(Failure::Refused(refusal(&text)));
        }
        let value = serde_json::from_str(&text).map_err(|error| {
            Failure::Broken(format!(
                "the daemon's answer is not understood ({error}); are both of the same version?"
            ))
        })?;
        Ok(Answer { value, text })
    }
}

fn request(method: Method, path: &str, body: Option<Vec<u8>>) -> hyper::http::Result<Request<Full<Bytes>>> {
    let builder = Request::builder().method(method).uri(path).header(HOST, "localhost");
    match body {
        Some(body) => builder.header(CONTENT_TYPE, "application/json").body(Full::new(body.into())),
        None => builder.body(Full::default()),
    }
}

/// Whether the answer is a success, and its body.
async fn converse(stream: UnixStream, request: Request<Full<Bytes>>) -> Result<(bool, String), hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response: Response<Incoming> = sender.send_request(request).await?;
    let ok = response.status().is_success();
    let body = response.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok((ok, String::from_utf8_lossy(&body).into_owned()))
}

fn refusal(text: &str) -> ErrorBody {
    serde_json::from_str(text).unwrap_or_else(|_| ErrorBody {
        code: ErrorCode::Unknown,
        message: format!("the daemon refused: {text}"),
    })
}
