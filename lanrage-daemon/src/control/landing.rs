//! The page behind an invite link: says how to join. The link's secret part stays in the browser.

use super::error::{Refused, Segments};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lanrage_common::protocol::ErrorCode;
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

const PAGE: &str = include_str!("landing.html");

/// Only the page's own style and script run, named by their hashes; nothing is loaded and nothing can be sent.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let (style, script) = (hash_of("style"), hash_of("script"));
    format!(
        "default-src 'none'; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// `GET /j/{code}`: the same page for every well-formed code, so that it tells nothing about which codes exist.
pub(super) async fn page(Segments(code): Segments<String>) -> Result<Response, Refused> {
    let well_formed = code.len() == 22 && URL_SAFE_NO_PAD.decode(&code).is_ok();
    if !well_formed {
        let advice = "this invite link is damaged: ask for the link again and copy all of it";
        return Err(Refused::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, advice));
    }
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, PAGE).into_response())
}

/// CSP's name of the one inline element `tag`.
fn hash_of(tag: &str) -> String {
    let inner =
        PAGE.split(&format!("<{tag}>")).nth(1).and_then(|rest| rest.split(&format!("</{tag}>")).next());
    format!("sha256-{}", STANDARD.encode(Sha256::digest(inner.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_has_one_style_and_one_script() {
        for tag in ["<style>", "<script>"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        let statics = PAGE.split("<script>").next().unwrap();
        assert!(!statics.contains("src=") && !statics.contains("@import") && !statics.contains("url("));
        assert!(!PAGE.contains("fetch(") && !PAGE.contains("XMLHttpRequest") && !PAGE.contains("style="));
        assert!(POLICY.starts_with("default-src 'none'; style-src 'sha256-"));
    }
}
