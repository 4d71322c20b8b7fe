//! Answers and refusals as HTTP.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lanrage_common::protocol::{ErrorBody, ErrorCode};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// For a request's body to arrive.
const BODY: Duration = Duration::from_secs(5);

/// An [`ErrorBody`] with its HTTP status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) body: ErrorBody,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { code, message: message.into() } }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, message)
    }
}

impl From<ErrorBody> for Refusal {
    fn from(body: ErrorBody) -> Self {
        let status = match body.code {
            ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
            ErrorCode::Unauthorized | ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::InviteExpired | ErrorCode::InviteUsedUp | ErrorCode::InviteRevoked => StatusCode::GONE,
            ErrorCode::PartyFull => StatusCode::CONFLICT,
            ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, body }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// A JSON body whose faults are answered with an [`ErrorBody`].
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match tokio::time::timeout(BODY, Json::<T>::from_request(request, state)).await {
            Ok(Ok(Json(body))) => Ok(Self(body)),
            Ok(Err(fault)) => Err(malformed(&fault)),
            Err(_) => {
                let what = format!("the body did not arrive within {} s", BODY.as_secs());
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, what))
            }
        }
    }
}

fn malformed(fault: &JsonRejection) -> Refusal {
    let message = match fault {
        JsonRejection::MissingJsonContentType(_) => {
            "send the body with Content-Type: application/json".to_owned()
        }
        other => format!("malformed request: {}", other.body_text()),
    };
    Refusal::new(fault.status(), ErrorCode::BadRequest, message)
}
