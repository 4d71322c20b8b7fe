//! A daemon's status straight from its socket: asked many times a second, `lanrage status` would cost too much.

use anyhow::{Context, Result, ensure};
use lanrage_common::api::Status;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the daemon behind this socket.
pub fn status(socket: &Path) -> Result<Status> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("no daemon at {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the daemon's answer is incomplete")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the daemon's answer has no body")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "the daemon answered {}", head.lines().next().unwrap_or(""));
    serde_json::from_str(body).with_context(|| format!("the daemon's status: {body}"))
}
