//! Takes mods from a member.

use super::folder::{Folder, Partial};
use lanrage_common::mods::{BadManifest, MAX_MANIFEST, Manifest, ModFile};
use reqwest::{Client, Response, StatusCode, header, redirect};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// For an answer to begin.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Without a byte.
const SILENCE: Duration = Duration::from_secs(20);

/// A member that shares.
#[derive(Debug)]
pub(crate) struct Source {
    http: Client,
    origin: String,
}

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Nobody listens.
    #[error("shares no mods")]
    SharesNothing,
    /// No answer, or it broke off.
    #[error("cannot be reached ({0})")]
    Unreachable(String),
    /// Its manifest is not used.
    #[error("offers mods that are not taken: {0}")]
    BadManifest(#[from] BadManifest),
    /// It refused, with a reason.
    #[error("does not give {0}: {1}")]
    Refused(String, String),
    /// Not what was announced.
    #[error("has sent another content than it has announced for {0}")]
    Altered(String),
    /// This machine's folder.
    #[error("cannot be stored: {0}: {1}")]
    Storing(String, io::Error),
}

impl Source {
    /// The member at `address`.
    pub(crate) fn new(address: SocketAddr) -> Result<Self, FetchError> {
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| FetchError::Unreachable(error.to_string()))?;
        Ok(Self { http, origin: format!("http://{address}") })
    }

    /// What it has.
    pub(crate) async fn manifest(&self) -> Result<Manifest, FetchError> {
        let mut response = self.ask("manifest", 0).await?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if text.len() + chunk.len() > MAX_MANIFEST {
                return Err(BadManifest::TooBig.into());
            }
            text.extend_from_slice(&chunk);
        }
        Ok(Manifest::parse(&text)?)
    }

    /// Brings one file into the folder; `tell` hears of bytes as they come.
    pub(crate) async fn fetch(
        &self,
        file: &ModFile,
        folder: &Folder,
        mut tell: impl FnMut(u64),
    ) -> Result<(), FetchError> {
        let storing = |error| FetchError::Storing(file.path.clone(), error);
        let mut partial = folder.begin(file).map_err(storing)?;
        tell(partial.len);
        if partial.len < file.size {
            self.continue_with(&mut partial, file, &mut tell).await?;
        }
        match partial.place(file).map_err(storing)? {
            true => Ok(()),
            false => Err(FetchError::Altered(file.path.clone())),
        }
    }

    async fn continue_with(
        &self,
        partial: &mut Partial<'_>,
        file: &ModFile,
        tell: &mut impl FnMut(u64),
    ) -> Result<(), FetchError> {
        let mut response = self.ask(&format!("files/{}", file.sha256), partial.len).await?;
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if partial.len + chunk.len() as u64 > file.size {
                return Err(FetchError::Altered(file.path.clone()));
            }
            partial.write(&chunk).map_err(|error| FetchError::Storing(file.path.clone(), error))?;
            tell(chunk.len() as u64);
        }
        Ok(())
    }

    async fn ask(&self, what: &str, from: u64) -> Result<Response, FetchError> {
        let mut request = self.http.get(format!("{}/{what}", self.origin));
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let response = request.send().await.map_err(unreachable)?;
        let wanted = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        if response.status() != wanted {
            return Err(refused(what, response).await);
        }
        Ok(response)
    }
}

/// Its words, shortened: they are a stranger's.
async fn refused(what: &str, mut response: Response) -> FetchError {
    let status = response.status();
    let words = response.chunk().await.ok().flatten().unwrap_or_default();
    let words: String =
        String::from_utf8_lossy(&words).chars().filter(|c| !c.is_control()).take(100).collect();
    FetchError::Refused(what.to_owned(), format!("{status}, {words}"))
}

fn unreachable(error: reqwest::Error) -> FetchError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => FetchError::SharesNothing,
        _ if error.is_timeout() => FetchError::Unreachable("no answer".into()),
        _ => FetchError::Unreachable(cause.to_string()),
    }
}
