//! Who may talk to the loopback listener.
//!
//! Any program and any web page of this machine can reach it, so a request must name a loopback host with the right
//! port (against DNS rebinding), come from the UI's own origin when a browser sent it (against cross-site requests),
//! and carry the install's token (against other users of the machine).

use super::answer::Refusal;
use super::token::Token;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use lanrage_common::protocol::ErrorCode;
use std::net::SocketAddr;

/// The rules of one listener.
#[derive(Debug)]
pub(super) struct Guard {
    address: SocketAddr,
    token: Token,
}

impl Guard {
    pub(super) fn new(address: SocketAddr, token: Token) -> Self {
        Self { address, token }
    }

    pub(super) fn check(&self, request: &Parts) -> Result<(), Refusal> {
        let host = self.check_host(request)?;
        check_origin(&request.headers, host)?;
        if is_page(request.uri.path()) {
            return Ok(());
        }
        check_fetch_site(&request.headers)?;
        self.check_token(&request.headers)
    }

    /// Gives the host as the client wrote it.
    fn check_host<'a>(&self, request: &'a Parts) -> Result<&'a str, Refusal> {
        let host =
            single(&request.headers, &HOST)?.ok_or_else(|| forbidden("the request has no Host header"))?;
        let target = request.uri.authority().map(|authority| authority.as_str());
        if !self.is_own(host) || !target.is_none_or(|target| self.is_own(target)) {
            return Err(forbidden(
                "the Host header does not name this listener; open the UI by `lanrage ui`",
            ));
        }
        Ok(host)
    }

    fn is_own(&self, host: &str) -> bool {
        let port = self.address.port();
        let (name, written) = match host.rsplit_once(':') {
            Some((name, written)) if !written.ends_with(']') => (name, written.parse().ok()),
            _ => (host, Some(80)),
        };
        // u16::from_str accepts "+8666" and "08666"; browsers never write those.
        let is_canonical = host == name || host.len() == name.len() + 1 + port.to_string().len();
        written == Some(port) && is_canonical && self.is_own_name(name)
    }

    fn is_own_name(&self, name: &str) -> bool {
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let literal = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse().ok().map(std::net::IpAddr::V6),
            None => name.parse().ok().map(std::net::IpAddr::V4),
        };
        // An address cannot be rebound as a name can; other than loopback ones only count when the owner allowed it.
        literal.is_some_and(|ip| {
            ip.is_loopback() || ip == self.address.ip() || self.address.ip().is_unspecified()
        })
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let header = single(headers, &AUTHORIZATION)?;
        let offered = header.and_then(|header| header.strip_prefix("Bearer "));
        if offered.is_some_and(|offered| self.token.matches(offered)) {
            return Ok(());
        }
        Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            ErrorCode::Unauthorized,
            "the token is missing or wrong; open the UI by the link that `lanrage ui` prints",
        ))
    }
}

/// Pages and their assets hold no data; everything else needs the token.
fn is_page(path: &str) -> bool {
    !(path == "/api" || path.starts_with("/api/") || path == "/metrics")
}

fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), Refusal> {
    match single(headers, &ORIGIN)? {
        None => Ok(()),
        Some(origin) if origin.strip_prefix("http://") == Some(host) => Ok(()),
        Some(_) => Err(forbidden("the request comes from another web site")),
    }
}

/// Browsers say where a request comes from even when they send no Origin.
fn check_fetch_site(headers: &HeaderMap) -> Result<(), Refusal> {
    match single(headers, &HeaderName::from_static("sec-fetch-site"))? {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => Err(forbidden("the request comes from another web site")),
    }
}

/// A header that may appear once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(forbidden(format!("the request has more than one {name} header")));
    }
    value.to_str().map(Some).map_err(|_| forbidden(format!("the {name} header is not plain text")))
}

fn forbidden(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
}
