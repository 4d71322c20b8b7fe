//! UPnP requests that leave from a certain address: `igd-next` lets the system choose one.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use igd_next::RequestError;
use igd_next::aio::tokio::Tokio;
use igd_next::aio::{Gateway, Ipv6FirewallGateway, Provider};
use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpSocket;

/// A router answers such a request at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers are a few hundred bytes.
const LONGEST: usize = 64 * 1024;

tokio::task_local! {
    /// Where the running request leaves from: a provider has no state of its own.
    static SOURCE: Ipv6Addr;
}

/// Has requests leave from this address while `work` runs.
pub(super) async fn from<T>(source: Ipv6Addr, work: impl Future<Output = T>) -> T {
    SOURCE.scope(source, work).await
}

/// A router's control of its IPv6 firewall.
#[derive(Debug)]
pub(super) struct Firewall {
    pub(super) gateway: Gateway<Bound>,
}

impl Firewall {
    pub(super) fn new(found: Ipv6FirewallGateway<Tokio>) -> Self {
        let gateway = Gateway {
            addr: found.addr,
            root_url: found.root_url,
            ipv6_firewall_control_url: Some(found.control_url),
            provider: Bound,
            // of the service that forwards ports, which is not used here
            control_url: String::new(),
            control_schema_url: String::new(),
            control_schema: HashMap::new(),
            service_type: String::new(),
        };
        Self { gateway }
    }
}

/// Sends from [`SOURCE`].
#[derive(Debug, Clone)]
pub(super) struct Bound;

impl Provider for Bound {
    async fn send_async(url: &str, action: &str, body: &str) -> Result<String, RequestError> {
        let source = SOURCE.try_with(|source| *source).unwrap_or(Ipv6Addr::UNSPECIFIED);
        tokio::time::timeout(PATIENCE, post(source, url, action, body)).await?
    }
}

async fn post(source: Ipv6Addr, url: &str, action: &str, body: &str) -> Result<String, RequestError> {
    let (router, path) =
        split(url).ok_or_else(|| RequestError::InvalidResponse(format!("no address: {url}")))?;
    let socket = TcpSocket::new_v6()?;
    socket.bind(SocketAddr::new(source.into(), 0))?;
    let stream = socket.connect(router).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(path)
        .header(HOST, SocketAddr::new(router.ip(), router.port()).to_string())
        .header("SOAPAction", action)
        .header(CONTENT_TYPE, "text/xml")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
    let answering = async move {
        let answer = sender.send_request(request).await?;
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        body.map_err(|error| RequestError::InvalidResponse(error.to_string()))
    };
    let (answer, _) = tokio::join!(answering, connection);
    Ok(String::from_utf8(answer?.to_bytes().into())?)
}

/// Address, with the interface where it needs one, and path.
fn split(url: &str) -> Option<(SocketAddr, &str)> {
    let rest = url.strip_prefix("http://")?;
    let at = rest.find('/')?;
    Some((rest[..at].parse().ok()?, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_interface() {
        let (router, path) = split("http://[fe80::1%3]:5000/ctl/IP6FCtl").unwrap();
        assert_eq!(path, "/ctl/IP6FCtl");
        let SocketAddr::V6(router) = router else { panic!("{router}") };
        assert_eq!((router.scope_id(), router.port()), (3, 5000));
        assert!(split("http://router.example:80/x").is_none() && split("https://[::1]:80/x").is_none());
    }
}
