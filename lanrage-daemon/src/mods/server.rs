//! Offers one folder to the party.
//!
//! | request | answer |
//! |---|---|
//! | `GET /manifest` | the [`Manifest`] as JSON |
//! | `GET /files/SHA256` | a file's content; with `Range: bytes=N-` (RFC 9110, section 14.2) from byte N on |

use super::folder::Folder;
use crate::http::{self, Limits};
use crate::shutdown::Shutdown;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use futures_util::stream;
use ipnet::Ipv4Net;
use lanrage_common::mods::{Digest, Manifest, ModFile};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Read at once.
const CHUNK: u64 = 64 * 1024;
/// A party's worth of friends, each with a few.
const LIMITS: Limits = Limits { connections: 64, head_timeout: Duration::from_secs(10), head_size: 8 * 1024 };

#[derive(Debug)]
struct Offer {
    folder: Folder,
    manifest: Bytes,
    files: BTreeMap<Digest, ModFile>,
}

/// Serves until `shutdown`. Only who has an address in `party` is answered: the machine's other networks reach the
/// listener's address too.
pub(crate) async fn serve(
    listener: TcpListener,
    party: Ipv4Net,
    (folder, manifest): (Folder, &Manifest),
    shutdown: Shutdown,
) -> serde_json::Result<()> {
    let files = manifest.files.iter().map(|file| (file.sha256, file.clone())).collect();
    let offer = Offer { folder, manifest: serde_json::to_vec(manifest)?.into(), files };
    let router = Router::new()
        .route("/manifest", get(manifest_text))
        .route("/files/{sha256}", get(file))
        .with_state(Arc::new(offer));
    http::serve(Party { listener, party }, router, LIMITS, shutdown).await;
    Ok(())
}

async fn manifest_text(State(offer): State<Arc<Offer>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], offer.manifest.clone()).into_response()
}

async fn file(State(offer): State<Arc<Offer>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(file) = name.parse().ok().and_then(|digest: Digest| offer.files.get(&digest)) else {
        return refuse(StatusCode::NOT_FOUND, "no such file is shared: get the manifest anew");
    };
    let Some(from) = first_byte(&headers).filter(|from| *from <= file.size) else {
        return refuse(StatusCode::RANGE_NOT_SATISFIABLE, "only bytes=N- with N up to the file's size");
    };
    match open(&offer.folder, file, from).await {
        Ok(Some(content)) => answer(content, from, file.size),
        Ok(None) | Err(_) => {
            refuse(StatusCode::CONFLICT, "it has changed since it was shared: share it anew")
        }
    }
}

fn refuse(status: StatusCode, why: &'static str) -> Response {
    (status, why).into_response()
}

/// Where the client wants to begin; none when that is not understood.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let Some(range) = headers.get(header::RANGE) else { return Some(0) };
    let number = range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

async fn open(folder: &Folder, file: &ModFile, from: u64) -> io::Result<Option<File>> {
    let Some(content) = folder.read(file)? else { return Ok(None) };
    let mut content = File::from_std(content);
    content.seek(io::SeekFrom::Start(from)).await?;
    Ok(Some(content))
}

fn answer(content: File, from: u64, size: u64) -> Response {
    let chunks = stream::try_unfold((content, size - from), |(mut content, left)| async move {
        if left == 0 {
            return Ok::<_, io::Error>(None);
        }
        let mut chunk = Vec::new();
        let len = (&mut content).take(left.min(CHUNK)).read_to_end(&mut chunk).await? as u64;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((Bytes::from(chunk), (content, left - len))))
    });
    let status = if from == 0 { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
    let mut response = (status, Body::from_stream(chunks)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, (size - from).into());
    if from > 0
        && let Ok(range) = format!("bytes {from}-{}/{size}", size.saturating_sub(1)).parse()
    {
        headers.insert(header::CONTENT_RANGE, range);
    }
    response
}

/// Takes connections of the party alone.
struct Party {
    listener: TcpListener,
    party: Ipv4Net,
}

impl Listener for Party {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let (stream, from) = Listener::accept(&mut self.listener).await;
            if matches!(from.ip(), IpAddr::V4(from) if self.party.contains(&from)) {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
