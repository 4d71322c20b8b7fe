//! Login pages of hotels, trains and campuses: until somebody has logged in there, the network answers HTTP in everybody's
//! place, and lets nothing else through (RFC 8952).

use reqwest::header::{CONTENT_TYPE, HeaderName, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use std::time::Duration;

/// Where a control server answers with nothing at all, which no login page does.
pub(crate) const NOTHING: &str = "/generate_204";
/// A control server answers within this time.
const PATIENCE: Duration = Duration::from_secs(4);

/// Whether somebody else answers in the control server's place. `None` when nobody answers, or when there is no control
/// server to ask.
pub async fn captive_portal(control: Option<&str>) -> Option<bool> {
    let control = Url::parse(control?).ok()?;
    let client = Client::builder().redirect(Policy::none()).timeout(PATIENCE).build().ok()?;
    let plain = plain(&control)?;
    let ask = async |url: &Url| client.get(url.join(NOTHING).ok()?).send().await.ok();
    match ask(&control).await {
        Some(answer) => Some(sends_away(&answer, &control) || is_page(&answer)),
        // such networks answer on port 80, whatever they do to others; a page there may also be the server's own
        None if plain != control => {
            let answer = ask(&plain).await?;
            sends_away(&answer, &control).then_some(true)
        }
        None => None,
    }
}

/// The same host on plain HTTP's own port.
fn plain(control: &Url) -> Option<Url> {
    let mut plain = control.clone();
    plain.set_scheme("http").ok()?;
    plain.set_port(None).ok()?;
    Some(plain)
}

fn header(answer: &Response, name: HeaderName) -> Option<&str> {
    answer.headers().get(name)?.to_str().ok()
}

fn is_page(answer: &Response) -> bool {
    let is_html = header(answer, CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    answer.status().is_success() && is_html
}

fn sends_away(answer: &Response, control: &Url) -> bool {
    let to = || header(answer, LOCATION).and_then(|to| answer.url().join(to).ok());
    let names = |to: &Url| Some((to.host_str()?.to_owned(), control.host_str()?.to_owned()));
    match answer.status() {
        StatusCode::NETWORK_AUTHENTICATION_REQUIRED => true,
        // a proxy in front of the control server sends to HTTPS at the same name, or at www before it
        status => {
            let is_own = |(to, own): (String, String)| to.ends_with(&own) || own.ends_with(&to);
            status.is_redirection() && !to().and_then(|to| names(&to)).is_some_and(is_own)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// Answers one request with this text; the address to ask.
    fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /generate_204 "));
            stream.write_all(format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_login_page_is_told_from_a_control_server_and_from_a_proxy() {
        for (answer, is_portal) in [
            ("204 No Content", false),
            ("404 Not Found\r\ncontent-type: application/json", false),
            ("301 Moved\r\nlocation: https://127.0.0.1/generate_204", false),
            ("301 Moved\r\nlocation: /elsewhere", false),
            ("502 Bad Gateway\r\ncontent-type: text/html", false),
            ("302 Found\r\nlocation: http://login.hotel.example/", true),
            ("302 Found", true),
            ("200 OK\r\ncontent-type: text/html; charset=utf-8", true),
            ("511 Network Authentication Required", true),
        ] {
            assert_eq!(captive_portal(Some(&server(answer))).await, Some(is_portal), "{answer}");
        }
        assert_eq!(captive_portal(None).await, None);
    }

    #[test]
    fn plain_http_is_asked_on_its_own_port() {
        let plain = |url| plain(&Url::parse(url).unwrap()).unwrap().to_string();
        assert_eq!(plain("https://play.example:8443/x"), "http://play.example/x");
        assert_eq!(plain("http://192.0.2.2:8667"), "http://192.0.2.2/");
    }
}
