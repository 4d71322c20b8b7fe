//! The local API described for programs (OpenAPI 3.1): every request, every answer, every field. The description is kept by hand
//! beside `lanrage-common/src/api`; the tests hold it against all routes and against real answers.

use axum::http::header;
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests;
