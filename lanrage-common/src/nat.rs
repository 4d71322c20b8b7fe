//! What a device knows of the NATs in front of it (RFC 4787, RFC 5780), and what that means for a pair of members.

pub mod discovery;
mod encode;
pub mod lifetime;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

pub use encode::ENCODED_LEN;
pub use text::{Explanation, advise, explain};
pub use verdict::{Fix, How, Verdict, Who, Why, sure_fix, verdict};

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// When a NAT uses the same public address and port again for a socket (RFC 4787, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// For every destination. A device without a NAT counts as one.
    EndpointIndependent,
    /// For all ports of one destination address.
    AddressDependent,
    /// For one destination address and port only. With address-dependent mapping this is what is called symmetric.
    AddressAndPortDependent,
}

/// Whose packets a NAT or firewall lets in to a mapping (RFC 4787, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filtering {
    /// Everybody's.
    EndpointIndependent,
    /// Those from addresses that the socket has sent to.
    AddressDependent,
    /// Those from addresses and ports that the socket has sent to.
    AddressAndPortDependent,
}

/// Which port a NAT gives to a new mapping (RFC 4787, section 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// The socket's own.
    Preserving,
    /// That of the mapping before, plus this.
    Step(i16),
    /// One that cannot be foretold.
    Random,
}

/// By which protocol a router has been made to forward a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortMapping {
    /// By none: there is no forwarded port that the internet reaches.
    None,
    /// UPnP Internet Gateway Device.
    Upnp,
    /// NAT-PMP (RFC 6886).
    NatPmp,
    /// PCP (RFC 6887).
    Pcp,
}

/// What is known of the way from a device's tunnel socket to the internet. Absent = unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// No UDP leaves the network, or no answer comes back.
    pub udp_blocked: Option<bool>,
    /// The socket's own address is the one that the internet sees: there is no NAT, though maybe a firewall.
    pub is_public: Option<bool>,
    /// The IPv4 address that the internet sees.
    pub public_address: Option<Ipv4Addr>,
    /// How mappings are reused.
    pub mapping: Option<Mapping>,
    /// Who may send back.
    pub filtering: Option<Filtering>,
    /// Which ports mappings get.
    pub allocation: Option<Allocation>,
    /// Whether a packet to an own mapped address comes back in (RFC 4787, section 6).
    pub hairpin: Option<bool>,
    /// There seems to be a carrier's NAT in front of the home router (RFC 6598), so that a port forwarded there leads
    /// nowhere.
    pub is_cgnat: Option<bool>,
    /// The device has an IPv6 address that works to the internet.
    pub has_ipv6: Option<bool>,
    /// How a port is forwarded to the tunnel socket, with a public address in front.
    pub port_mapping: Option<PortMapping>,
    /// Seconds a mapping certainly lives without traffic.
    pub lifetime_s: Option<u16>,
}

impl Behaviour {
    /// A NAT of this kind through which UDP works, without IPv6 and without a forwarded port.
    pub fn nat(mapping: Mapping, filtering: Filtering, allocation: Allocation) -> Self {
        Self {
            udp_blocked: Some(false),
            is_public: Some(false),
            mapping: Some(mapping),
            filtering: Some(filtering),
            allocation: Some(allocation),
            has_ipv6: Some(false),
            port_mapping: Some(PortMapping::None),
            ..Self::default()
        }
    }

    /// Whether a port is forwarded to the tunnel socket.
    pub fn is_port_mapped(&self) -> bool {
        self.port_mapping.is_some_and(|by| by != PortMapping::None)
    }
}
