//! What a device knows of the network around it.

use crate::nat::{Behaviour, PortMapping};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The network around this device, as `lanrage netcheck` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// What is known of its NAT.
    pub nat: Behaviour,
    /// Servers that were asked for the own address: relays and those of `peer.stun_servers`.
    #[serde(default)]
    pub servers: Vec<StunServerStatus>,
    /// Protocols by which the router forwards ports.
    #[serde(default)]
    pub protocols: Vec<PortMapping>,
    /// The public address and port that the router forwards to the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<SocketAddr>,
    /// Why no port is forwarded, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_forwarded: Option<String>,
    /// The way in that the router's IPv6 firewall has been made to open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinhole: Option<PinholeStatus>,
    /// Why it opens none, with what to do; absent without IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_pinhole: Option<String>,
    /// A login page of this network stands in front of the internet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captive_portal: Option<bool>,
}

/// A pinhole in a router's IPv6 firewall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PinholeStatus {
    /// This device's address and port that everybody reaches.
    pub address: SocketAddr,
    /// By which protocol it was asked for.
    pub by: PortMapping,
}

/// One server that was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StunServerStatus {
    /// Name of the relay; absent for other servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Where it was asked.
    pub address: SocketAddr,
    /// This device as the server sees it; absent when it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<SocketAddr>,
    /// Round trip in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}
