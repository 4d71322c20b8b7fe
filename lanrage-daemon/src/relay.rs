//! The relay role: drives `lanrage_common::relay` with a UDP socket, the data path and the control server.

use lanrage_common::api::RelayStatus;
use tokio::sync::watch;

/// A running relay.
#[derive(Debug)]
pub struct RelayHandle {
    /// Refreshed every second and on every change.
    pub status: watch::Receiver<RelayStatus>,
}
