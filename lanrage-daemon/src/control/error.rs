//! Refusals as HTTP answers, and requests as JSON.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lanrage_common::control::refusal;
use lanrage_common::protocol::{ErrorBody, ErrorCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A refused request.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<u64>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, body: refusal(code, message), retry_after: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        refusal(ErrorCode::BadRequest, message).into()
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        refusal(ErrorCode::Unauthorized, message).into()
    }

    pub(super) fn rate_limited(seconds: u64) -> Self {
        let message = format!("too many requests from this address: wait {seconds} s and try again");
        Self { retry_after: Some(seconds), ..refusal(ErrorCode::RateLimited, message).into() }
    }
}

impl From<ErrorBody> for Refused {
    fn from(body: ErrorBody) -> Self {
        Self { status: status(body.code), body, retry_after: None }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The server failed; the cause is for its log only.
pub(super) fn internal(cause: impl std::fmt::Display) -> ErrorBody {
    tracing::error!(%cause, "a request failed");
    refusal(
        ErrorCode::Internal,
        "the control server failed: try again; if it stays so, its operator finds the cause in its log",
    )
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::InviteExpired | ErrorCode::InviteUsedUp | ErrorCode::InviteRevoked => StatusCode::GONE,
        ErrorCode::PartyFull => StatusCode::CONFLICT,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Internal | ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A JSON body, either way; what cannot be read is refused in our own words.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection))?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(Refused::bad_request(format!("the request's JSON is wrong: {error}"))),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// The variable parts of a path.
#[derive(Debug)]
pub(super) struct Segments<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(segments)| Self(segments))
            .map_err(|_| Refused::bad_request("the address is malformed"))
    }
}

fn unreadable(rejection: &BytesRejection) -> Refused {
    let message = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => "the request is too large",
        _ => "the request's body broke off",
    };
    Refused::new(rejection.status(), ErrorCode::BadRequest, message)
}
