//! What can go wrong, as people and scripts see it.

use lanrage_common::protocol::ErrorBody;
use serde_json::json;
use std::io;
use std::path::{Path, PathBuf};

/// A command failed.
#[derive(Debug)]
pub enum Failure {
    /// The daemon said no.
    Refused(ErrorBody),
    /// Nobody answers on the socket.
    NotRunning(PathBuf),
    /// The socket is there, but not for this user.
    NotAllowed(PathBuf),
    /// The daemon's answer makes no sense, or the connection broke.
    Broken(String),
    /// A local command found something wrong: what, and what to do.
    Local(String, String),
}

impl Failure {
    /// Sorts an error of connecting to `socket`.
    pub(super) fn connecting(socket: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NotRunning(socket.into()),
            io::ErrorKind::PermissionDenied => Self::NotAllowed(socket.into()),
            _ => Self::Broken(format!("cannot connect to {}: {error}", socket.display())),
        }
    }

    /// See the table in the module `cli`.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::NotRunning(_)) { 3 } else { 1 }
    }

    /// One line what happened, one line what to do.
    pub fn lines(&self) -> (String, Option<String>) {
        match self {
            Self::Refused(body) => split(&body.message),
            Self::NotRunning(socket) => (
                format!("the daemon is not running (nobody answers on {})", socket.display()),
                Some(
                    "start it: sudo systemctl start lanrage (on a relay: lanrage-relay), or in a terminal: sudo \
                     lanrage-daemon"
                        .into(),
                ),
            ),
            Self::NotAllowed(socket) => (
                format!("you may not use {}", socket.display()),
                Some(
                    "use sudo, or join its group once: sudo usermod -aG lanrage $USER (then log in again)"
                        .into(),
                ),
            ),
            Self::Broken(what) => {
                (what.clone(), Some("look at the daemon's log: journalctl -u lanrage".into()))
            }
            Self::Local(what, fix) => (what.clone(), Some(fix.clone())),
        }
    }

    /// For scripts, in the form of the daemon's own refusals.
    pub fn to_json(&self) -> serde_json::Value {
        let code = match self {
            Self::Refused(body) => return json!(body),
            Self::NotRunning(_) => "daemon_not_running",
            Self::NotAllowed(_) => "socket_not_allowed",
            Self::Broken(_) => "broken_answer",
            Self::Local(..) => "local",
        };
        let (what, fix) = self.lines();
        json!({ "code": code, "message": fix.map_or(what.clone(), |fix| format!("{what}; {fix}")) })
    }
}

/// Messages are written as "what happened; what to do" or "what happened: what to do".
fn split(message: &str) -> (String, Option<String>) {
    let parts = ["; ", ". ", ": "].iter().find_map(|between| message.split_once(between));
    // one word says nothing yet
    let parts = parts.filter(|(what, _)| what.contains(' '));
    match parts {
        Some((what, fix)) => (what.into(), Some(fix.into())),
        None => (message.into(), None),
    }
}
