//! Client of a control server: REST calls that log in by themselves.
//!
//! [`ControlClient::connect`] opens the WebSocket, which stays open by itself ([`super::link`]).

pub use super::link::{ControlLink, Link, LinkEvent, RelayLink};
use super::{link, origin};
use ipnet::Ipv4Net;
use lanrage_common::identity::{Device, DeviceId, PartyId, domain};
use lanrage_common::protocol::{
    Challenge, ChallengeRequest, CreateInvite, CreateParty, DeviceLease, ErrorBody, ErrorCode, InviteCode,
    Join, LeaseDevice, Login, Membership, Session, login_message,
};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A session is renewed this long before its end.
const SESSION_MARGIN: Duration = Duration::from_secs(60);

/// Why a call to the control server failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// The server said no.
    #[error("{0}")]
    Refused(ErrorBody),
    /// The server did not answer.
    #[error(
        "cannot reach the control server {origin}: {cause}. Check the address and your internet connection"
    )]
    Unreachable {
        /// Where it was looked for.
        origin: String,
        /// What happened.
        cause: String,
    },
    /// Something answered that is not a control server, or one of another version.
    #[error(
        "{origin} answered, but not as a LANrage control server ({cause}). Check the address; if it is right, update LANrage on both sides"
    )]
    Incompatible {
        /// Who answered.
        origin: String,
        /// What was wrong.
        cause: String,
    },
    /// The configured address is malformed.
    #[error("{0}")]
    BadOrigin(#[from] origin::OriginError),
}

impl ControlError {
    /// The refusal's code, when the server refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(body) => Some(body.code),
            _ => None,
        }
    }

    /// As a refusal of the local API.
    pub fn to_body(&self) -> ErrorBody {
        match self {
            Self::Refused(body) => body.clone(),
            other => ErrorBody { code: ErrorCode::Internal, message: other.to_string() },
        }
    }
}

/// One device's account at one control server. Clones share the login.
#[derive(Clone)]
pub struct ControlClient {
    shared: Arc<Shared>,
}

struct Shared {
    origin: String,
    device: Arc<Device>,
    http: reqwest::Client,
    login: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    text: String,
    renew_at: Instant,
}

impl fmt::Debug for ControlClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlClient({})", self.shared.origin)
    }
}

impl ControlClient {
    /// A client of the server at `origin`; nothing is sent yet.
    pub fn new(origin: &str, device: Arc<Device>) -> Result<Self, ControlError> {
        let origin = origin::normalize(origin)?;
        let http = http_client().map_err(|error| ControlError::Unreachable {
            origin: origin.clone(),
            cause: format!("no TLS on this machine ({})", root_cause(&error)),
        })?;
        Ok(Self { shared: Arc::new(Shared { origin, device, http, login: Mutex::new(None) }) })
    }

    /// The server's origin in its one spelling.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// Founds a party with this device as host; `subnet` absent = the server's default.
    pub async fn create_party(
        &self,
        name: &str,
        subnet: Option<Ipv4Net>,
    ) -> Result<Membership, ControlError> {
        self.call(Method::POST, "/v1/parties", &CreateParty { name: name.into(), subnet }).await
    }

    /// Redeems an invite code.
    pub async fn join(&self, code: &str) -> Result<Membership, ControlError> {
        self.call(Method::POST, "/v1/join", &Join { code: code.into() }).await
    }

    /// Makes an invite.
    pub async fn create_invite(
        &self,
        party: &PartyId,
        invite: &CreateInvite,
    ) -> Result<InviteCode, ControlError> {
        self.call(Method::POST, &format!("/v1/parties/{party}/invites"), invite).await
    }

    /// Takes an invite back.
    pub async fn revoke_invite(&self, party: &PartyId, code: &str) -> Result<(), ControlError> {
        self.send(Method::DELETE, &format!("/v1/parties/{party}/invites/{code}"), &()).await.map(drop)
    }

    /// Leaves a party; the address stays reserved for this device.
    pub async fn leave(&self, party: &PartyId) -> Result<(), ControlError> {
        self.send(Method::DELETE, &format!("/v1/parties/{party}/members/me"), &()).await.map(drop)
    }

    /// Leases an address for a device behind this one.
    pub async fn lease_device(&self, party: &PartyId, id: DeviceId) -> Result<Ipv4Addr, ControlError> {
        let path = format!("/v1/parties/{party}/devices");
        self.call(Method::POST, &path, &LeaseDevice { id }).await.map(|lease: DeviceLease| lease.address)
    }

    /// Gives a device's address back.
    pub async fn release_device(&self, party: &PartyId, id: DeviceId) -> Result<(), ControlError> {
        self.send(Method::DELETE, &format!("/v1/parties/{party}/devices/{id}"), &()).await.map(drop)
    }

    /// Opens a WebSocket that reconnects by itself until the link is dropped. Must be called within a tokio runtime.
    pub fn connect(&self) -> ControlLink {
        link::open(self.origin(), "/v1/ws", link::Credential::Login(self.clone()))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        let response = self.send(method, path, body).await?;
        self.parse(response).await
    }

    /// Sends a request as the logged-in device; a stale login is renewed once.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response, ControlError> {
        let token = self.token().await?;
        match self.request(method.clone(), path, Some(&token), body).await {
            Err(error) if error.code() == Some(ErrorCode::Unauthorized) => {
                self.forget(&token).await;
                let token = self.token().await?;
                self.request(method, path, Some(&token), body).await
            }
            result => result,
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: &impl Serialize,
    ) -> Result<Response, ControlError> {
        let mut request = self.shared.http.request(method, format!("{}{path}", self.origin())).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        match response.json().await {
            Ok(body) => Err(ControlError::Refused(body)),
            Err(_) => Err(self.incompatible(&foreign_status(status))),
        }
    }

    async fn parse<T: DeserializeOwned>(&self, response: Response) -> Result<T, ControlError> {
        response.json().await.map_err(|error| match error.is_decode() {
            true => self.incompatible(&root_cause(&error)),
            false => self.unreachable(&error),
        })
    }

    /// The bearer token, logging in when there is none.
    pub(super) async fn token(&self) -> Result<String, ControlError> {
        let mut login = self.shared.login.lock().await;
        if let Some(token) = login.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token.text.clone());
        }
        let session = self.log_in().await?;
        let life = Duration::from_secs(session.expires_in);
        let renew_at = Instant::now() + life.saturating_sub(SESSION_MARGIN);
        *login = Some(Token { text: session.token.clone(), renew_at });
        Ok(session.token)
    }

    /// Forgets a token that the server no longer takes.
    pub(super) async fn forget(&self, stale: &str) {
        let mut login = self.shared.login.lock().await;
        if login.as_ref().is_some_and(|token| token.text == stale) {
            *login = None;
        }
    }

    async fn log_in(&self) -> Result<Session, ControlError> {
        let device = &self.shared.device;
        let ask = ChallengeRequest { device: device.key() };
        let response = self.request(Method::POST, "/v1/auth/challenge", None, &ask).await?;
        let Challenge { challenge } = self.parse(response).await?;
        let signature = device.sign(domain::LOGIN, &login_message(self.origin(), &challenge));
        let login = Login {
            device: device.key(),
            wg: device.wg_key(),
            wg_signature: device.wg_signature(),
            challenge,
            origin: self.origin().into(),
            signature,
        };
        let response = self.request(Method::POST, "/v1/auth", None, &login).await?;
        self.parse(response).await
    }

    fn unreachable(&self, error: &reqwest::Error) -> ControlError {
        ControlError::Unreachable { origin: self.origin().into(), cause: root_cause(error) }
    }

    fn incompatible(&self, cause: &str) -> ControlError {
        ControlError::Incompatible { origin: self.origin().into(), cause: cause.into() }
    }
}

/// Opens a relay's WebSocket to its control server; it reconnects by itself until the link is dropped. Must be called
/// within a tokio runtime.
pub fn connect_relay(origin: &str, operator_token: &str) -> Result<RelayLink, ControlError> {
    let origin = origin::normalize(origin)?;
    Ok(link::open(&origin, "/v1/relay", link::Credential::Operator(operator_token.into())))
}

fn http_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(concat!("lanrage/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        // a redirect would carry the token to an origin that was not signed for
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

fn foreign_status(status: StatusCode) -> String {
    format!("HTTP status {status} without an explanation")
}

/// The innermost error: "connection refused" says more than "error sending request".
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
