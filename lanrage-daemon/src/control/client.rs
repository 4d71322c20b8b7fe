//! Client of a control server: REST calls with login, and a WebSocket that reconnects by itself.

use lanrage_common::protocol::{ClientMessage, ErrorBody, ServerMessage};
use tokio::sync::mpsc;

/// What a peer hears from its control link.
#[derive(Debug)]
pub enum LinkEvent {
    /// The WebSocket is open: send `Hello` for every party now.
    Connected,
    /// It is closed; the link retries with full jitter (0.2 s up to 15 s) until dropped.
    Disconnected {
        /// For people.
        reason: String,
    },
    /// A message.
    Message(Box<ServerMessage>),
}

/// A WebSocket to the control server that keeps itself open.
#[derive(Debug)]
pub struct ControlLink {
    /// To the server; messages sent while disconnected are dropped.
    pub outgoing: mpsc::Sender<ClientMessage>,
    /// From the server.
    pub events: mpsc::Receiver<LinkEvent>,
}

/// A REST call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The server said no.
    #[error("{0}")]
    Refused(ErrorBody),
    /// The server did not answer.
    #[error(
        "cannot reach the control server {origin}: {cause}. Check the address and your internet connection"
    )]
    Unreachable {
        /// Where it was looked for.
        origin: String,
        /// What happened.
        cause: String,
    },
}
