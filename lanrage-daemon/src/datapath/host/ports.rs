//! Ports that a relay wants, and who has them.

use crate::config::{RelayConfig, TlsListen};
use crate::platform::holder;
use serde::Serialize;

/// One port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// `udp` or `tcp`.
    pub protocol: &'static str,
    /// Its number.
    pub port: u16,
    /// What the relay does with it.
    pub purpose: &'static str,
    /// Who has it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Whether that is a LANrage daemon.
    pub ours: bool,
    /// Whether the relay cannot start without it.
    pub essential: bool,
}

/// Asks procfs.
pub fn look(config: &RelayConfig) -> Vec<Port> {
    let port = |protocol, port, purpose, essential, holder: Option<String>| Port {
        protocol,
        port,
        purpose,
        ours: holder.as_ref().is_some_and(|holder| holder.starts_with("lanrage-daemon ")),
        holder,
        essential,
    };
    let listen = config.listen.port();
    let mut ports = vec![port("udp", listen, "members", true, holder::of_udp_port(listen))];
    if let TlsListen::At(address) = config.tls_listen {
        let tls = address.port();
        ports.push(port("tcp", tls, "members whose network blocks UDP", false, holder::of_tcp_port(tls)));
    }
    ports
}
