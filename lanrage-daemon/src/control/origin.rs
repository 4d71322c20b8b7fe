//! Origins of control servers: one spelling for each, so that signatures over them compare byte by byte.

use axum::http::Uri;

/// Why a text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not the address of a control server: write it like https://play.example or http://192.0.2.1:8667"
)]
pub struct OriginError(String);

/// Brings an origin into its one spelling: lower-case scheme and host, no default port, no trailing slash.
pub fn normalize(text: &str) -> Result<String, OriginError> {
    let error = || OriginError(text.chars().take(100).collect());
    let uri: Uri = text.trim().parse().map_err(|_| error())?;
    let scheme = uri.scheme_str().map(str::to_ascii_lowercase).ok_or_else(error)?;
    let default_port = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(error()),
    };
    let authority = uri.authority().ok_or_else(error)?;
    let host = authority.host().to_ascii_lowercase();
    let pathless = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains('#');
    if host.is_empty() || authority.as_str().contains('@') || !pathless {
        return Err(error());
    }
    match authority.port_u16() {
        Some(port) if port != default_port => Ok(format!("{scheme}://{host}:{port}")),
        None if authority.as_str().len() != host.len() => Err(error()),
        _ => Ok(format!("{scheme}://{host}")),
    }
}

/// The WebSocket address of `path` at a normal origin.
pub fn websocket(origin: &str, path: &str) -> String {
    // "http" becomes "ws" and "https" becomes "wss"
    format!("ws{}{path}", origin.trim_start_matches("http"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_becomes_one() {
        for (spelling, normal) in [
            ("https://Play.Example/", "https://play.example"),
            ("https://play.example:443", "https://play.example"),
            ("HTTP://192.0.2.1:8667", "http://192.0.2.1:8667"),
            ("http://[2001:DB8::1]:8667/", "http://[2001:db8::1]:8667"),
            ("http://localhost:80", "http://localhost"),
        ] {
            assert_eq!(normalize(spelling).as_deref(), Ok(normal));
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "play.example",
            "ftp://play.example",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://u:p@a",
            "https://a:99999",
            "https://a:",
        ] {
            assert!(normalize(text).is_err(), "{text}");
        }
    }

    #[test]
    fn websocket_follows_the_scheme() {
        assert_eq!(websocket("http://a:1", "/v1/ws"), "ws://a:1/v1/ws");
        assert_eq!(websocket("https://a", "/v1/ws"), "wss://a/v1/ws");
    }
}
