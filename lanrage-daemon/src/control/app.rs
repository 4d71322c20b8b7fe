//! The HTTP interface: routes, who may call them, and what every request goes through.

use super::auth::Auth;
use super::error::{Json, Refused, Segments, internal};
use super::hub::Hub;
use super::limits::{Kind, Limits};
use super::metrics::{Gauges, Metrics};
use super::relays::Relays;
use super::store::Counts;
use super::{landing, member_socket, relay_socket};
use crate::clock::now;
use crate::shutdown::Shutdown;
use axum::extract::{DefaultBodyLimit, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::Ipv4Net;
use lanrage_common::control::{Caller, CodeHash, refusal};
use lanrage_common::identity::PartyId;
use lanrage_common::protocol::{
    Challenge, ChallengeRequest, CreateInvite, CreateParty, DeviceLease, ErrorBody, ErrorCode, InviteCode,
    Join, LeaseDevice, Login, Membership, Session,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex;

/// Bytes a request's body may have: all of ours are far smaller.
const MAX_BODY: usize = 16 * 1024;
/// How long a count of the database is good enough.
const COUNTS_LAST: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// What all requests share.
#[derive(Debug)]
pub(super) struct App {
    pub(super) auth: Auth,
    pub(super) hub: Arc<Hub>,
    pub(super) relays: Relays,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) subnet: Ipv4Net,
    pub(super) relay_token: String,
    pub(super) behind_proxy: bool,
    /// The database's last count, and when that was.
    pub(super) counted: Mutex<Option<(Instant, Counts)>>,
    /// Ends what would outlive the server.
    pub(super) shutdown: Shutdown,
}

pub(super) type SharedApp = Arc<App>;

/// Where a request came from, and where it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    /// A proxy passed it on, so `local` says nothing of whom the client believes to talk to.
    pub(super) forwarded: bool,
}

impl Ends {
    /// What our own proxy says of the client: the last entry is its, all before it are the client's claims.
    fn behind_proxy(self, headers: &HeaderMap) -> Self {
        let last =
            headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
        let Some(last) = last.and_then(|list| list.rsplit(',').next()) else { return self };
        let client = last.trim().parse().ok().or_else(|| Some(last.trim().parse::<SocketAddr>().ok()?.ip()));
        let ip = client.unwrap_or(self.remote.ip());
        Self { remote: SocketAddr::new(ip, self.remote.port()), forwarded: true, ..self }
    }
}

impl App {
    pub(super) fn limit(&self, kind: Kind, ends: &Ends) -> Result<(), Refused> {
        self.limits.take(kind, ends.remote.ip(), Instant::now()).map_err(Refused::rate_limited)
    }

    fn refund(&self, kind: Kind, ends: &Ends) {
        self.limits.refund(kind, ends.remote.ip(), Instant::now());
    }

    /// Counting reads whole tables: whoever asks often gets the last answer again.
    async fn counts(&self) -> anyhow::Result<Counts> {
        let mut last = self.counted.lock().await;
        if let Some((at, counts)) = *last
            && at.elapsed() < COUNTS_LAST
        {
            return Ok(counts);
        }
        let counts = self.hub.store().counts().await?;
        *last = Some((Instant::now(), counts));
        Ok(counts)
    }

    /// Figures for the metrics and the status.
    pub(super) async fn gauges(&self) -> anyhow::Result<Gauges> {
        let counts = self.counts().await?;
        let load = self.relays.load();
        Ok(Gauges {
            parties: counts.parties,
            members: counts.members,
            online: self.hub.online(),
            relays: load.relays,
            bindings: load.bindings,
            flows: load.flows,
        })
    }
}

/// All routes.
pub(super) fn router(app: SharedApp) -> Router {
    Router::new()
        .route("/v1/auth/challenge", post(challenge))
        .route("/v1/auth", post(log_in))
        .route("/v1/parties", post(create_party))
        .route("/v1/join", post(join))
        .route("/v1/parties/{party}/invites", post(create_invite))
        .route("/v1/parties/{party}/invites/{code}", delete(revoke_invite))
        .route("/v1/parties/{party}/members/me", delete(leave))
        .route("/v1/parties/{party}/devices", post(lease_device))
        .route("/v1/parties/{party}/devices/{id}", delete(release_device))
        .route("/v1/ws", get(member_socket::upgrade))
        .route("/v1/relay", get(relay_socket::upgrade))
        .route("/j/{code}", get(landing::page))
        .route("/healthz", get(healthz))
        .route(crate::netcheck::NOTHING, get(async || StatusCode::NO_CONTENT))
        .route("/metrics", get(metrics))
        .fallback(async || {
            Refused::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, "there is nothing at this address")
        })
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Refused::new(status, ErrorCode::BadRequest, "this address does not take that method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// Limits, deadline, counting and headers for every request.
async fn guard(
    State(app): State<SharedApp>,
    Extension(mut ends): Extension<Ends>,
    mut request: Request,
    next: Next,
) -> Response {
    if app.behind_proxy {
        ends = ends.behind_proxy(request.headers());
        request.extensions_mut().insert(ends);
    }
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "DELETE" | "HEAD" | "OPTIONS" | "PUT" | "PATCH") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let mut response = match app.limit(Kind::Request, &ends) {
        Ok(()) => answer_in_time(request, next).await,
        Err(refused) => refused.into_response(),
    };
    app.metrics.request(&route, &method, response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn answer_in_time(request: Request, next: Next) -> Response {
    let late = "the request took too long: check the connection and try again";
    tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
        Refused::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, late).into_response()
    })
}

/// The logged-in device of a request.
pub(super) struct LoggedIn(pub(super) Caller);

impl FromRequestParts<SharedApp> for LoggedIn {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, Refused> {
        let caller = bearer(parts).and_then(|token| app.auth.session(token));
        caller
            .map(Self)
            .ok_or_else(|| Refused::unauthorized("log in first: the session is missing or has expired"))
    }
}

/// Proof that a relay's operator sent the request.
pub(super) struct Operator;

impl FromRequestParts<SharedApp> for Operator {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, Refused> {
        let ends = parts.extensions.get::<Ends>().copied();
        let ends = ends.ok_or_else(|| Refused::from(internal("a request without connection data")))?;
        app.limit(Kind::FailedLogin, &ends)?;
        let token = bearer(parts).unwrap_or_default();
        if !bool::from(token.as_bytes().ct_eq(app.relay_token.as_bytes())) {
            return Err(Refused::unauthorized(
                "the operator token is wrong: set relay.token to the control server's relay token (its file relay-token)",
            ));
        }
        app.refund(Kind::FailedLogin, &ends);
        Ok(Self)
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// A path parameter in its type, or a refusal in our words.
fn party_id(text: &str) -> Result<PartyId, Refused> {
    text.parse().map_err(|_| Refused::bad_request("a party's id is 16 bytes, written as base64url"))
}

async fn challenge(
    State(app): State<SharedApp>,
    ends: Extension<Ends>,
    Json(request): Json<ChallengeRequest>,
) -> Result<Json<Challenge>, Refused> {
    app.limit(Kind::Login, &ends)?;
    Ok(Json(app.auth.challenge(&request.device, now().unix)))
}

async fn log_in(
    State(app): State<SharedApp>,
    ends: Extension<Ends>,
    Json(login): Json<Login>,
) -> Result<Json<Session>, Refused> {
    app.limit(Kind::Login, &ends)?;
    app.limit(Kind::FailedLogin, &ends)?;
    let session = app.auth.log_in(&login, (!ends.forwarded).then_some(ends.local), now().unix)?;
    app.refund(Kind::FailedLogin, &ends);
    app.metrics.login();
    Ok(Json(session))
}

async fn create_party(
    State(app): State<SharedApp>,
    ends: Extension<Ends>,
    LoggedIn(caller): LoggedIn,
    Json(request): Json<CreateParty>,
) -> Result<Json<Membership>, Refused> {
    app.limit(Kind::Found, &ends)?;
    let subnet = request.subnet.unwrap_or(app.subnet);
    Ok(Json(app.hub.found(request.name, subnet, caller).await?))
}

async fn join(
    State(app): State<SharedApp>,
    ends: Extension<Ends>,
    LoggedIn(caller): LoggedIn,
    Json(request): Json<Join>,
) -> Result<Json<Membership>, Refused> {
    app.limit(Kind::WrongCode, &ends)?;
    let code = CodeHash::of(&request.code);
    let party = app.hub.store().party_of_invite(&code).await.map_err(internal)?;
    let party = party.ok_or_else(unknown_invite)?;
    // nobody guesses a code that exists: whatever comes now, it was no attack
    app.refund(Kind::WrongCode, &ends);
    let membership = app.hub.with_party(party, move |party| party.handle_join(caller, &code, now())).await?;
    app.metrics.redeemed();
    Ok(Json(membership))
}

async fn create_invite(
    State(app): State<SharedApp>,
    LoggedIn(caller): LoggedIn,
    Segments(party): Segments<String>,
    Json(wish): Json<CreateInvite>,
) -> Result<Json<InviteCode>, Refused> {
    let code = URL_SAFE_NO_PAD.encode(super::auth::random_bytes::<16>());
    let hash = CodeHash::of(&code);
    let act = move |party: &mut lanrage_common::control::ControlParty| {
        party.handle_create_invite(&caller, hash, &wish, now())
    };
    let invite = app.hub.with_party(party_id(&party)?, act).await?;
    Ok(Json(InviteCode { code, expires_at: invite.expires_at, uses_left: invite.uses_left }))
}

async fn revoke_invite(
    State(app): State<SharedApp>,
    LoggedIn(caller): LoggedIn,
    Segments((party, code)): Segments<(String, String)>,
) -> Result<StatusCode, Refused> {
    let code = CodeHash::of(&code);
    let party = party_id(&party)?;
    app.hub.with_party(party, move |party| party.handle_revoke_invite(&caller, &code)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn leave(
    State(app): State<SharedApp>,
    LoggedIn(caller): LoggedIn,
    Segments(party): Segments<String>,
) -> Result<StatusCode, Refused> {
    app.hub.with_party(party_id(&party)?, move |party| party.handle_leave(&caller, now())).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn lease_device(
    State(app): State<SharedApp>,
    LoggedIn(caller): LoggedIn,
    Segments(party): Segments<String>,
    Json(LeaseDevice { id }): Json<LeaseDevice>,
) -> Result<Json<DeviceLease>, Refused> {
    let act = move |party: &mut lanrage_common::control::ControlParty| party.handle_lease_device(&caller, id);
    let address = app.hub.with_party(party_id(&party)?, act).await?;
    Ok(Json(DeviceLease { address }))
}

async fn release_device(
    State(app): State<SharedApp>,
    LoggedIn(caller): LoggedIn,
    Segments((party, id)): Segments<(String, String)>,
) -> Result<StatusCode, Refused> {
    let id =
        id.parse().map_err(|_| Refused::bad_request("a device's id is 16 bytes, written as base64url"))?;
    let act = move |party: &mut lanrage_common::control::ControlParty| {
        party.handle_release_device(&caller, id, now())
    };
    app.hub.with_party(party_id(&party)?, act).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn healthz(State(app): State<SharedApp>) -> Result<&'static str, Refused> {
    app.hub.store().answers().await.map_err(internal)?;
    Ok("ok\n")
}

/// For this machine, and for whoever has the operator's token.
async fn metrics(
    State(app): State<SharedApp>,
    ends: Extension<Ends>,
    mut parts: Parts,
) -> Result<Response, Refused> {
    if !ends.remote.ip().to_canonical().is_loopback() {
        Operator::from_request_parts(&mut parts, &app).await?;
    }
    let gauges = app.gauges().await.map_err(internal)?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((content_type, app.metrics.render(&gauges)).into_response())
}

fn unknown_invite() -> ErrorBody {
    refusal(
        ErrorCode::NotFound,
        "no such invite at this server: check that the link is complete, or ask for a new one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_believed_only_for_what_it_added() {
        let proxy = Ends {
            remote: "127.0.0.1:5".parse().unwrap(),
            local: "127.0.0.1:8667".parse().unwrap(),
            forwarded: false,
        };
        let behind = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", value.parse().unwrap());
            proxy.behind_proxy(&headers)
        };
        for (header, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("10.9.9.9, 192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("192.0.2.1, unknown", "127.0.0.1"),
        ] {
            let ends = behind(header);
            assert_eq!(ends.remote.ip(), client.parse::<std::net::IpAddr>().unwrap(), "{header}");
            assert!(ends.forwarded);
        }
        assert_eq!(proxy.behind_proxy(&HeaderMap::new()), proxy);
    }
}
