//! What a peer's router does to its packets.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A kind of router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NatKind {
    /// No NAT: the peer has a public address.
    None,
    /// Endpoint-independent mapping, address- and port-dependent filtering (RFC 4787): Linux masquerade, which keeps
    /// the source port.
    Eim,
    /// Address- and port-dependent mapping: a random port for every destination.
    Symmetric,
    /// Like `eim` for TCP; no UDP at all.
    UdpBlocked,
}

impl NatKind {
    /// The router's nftables rules. Packets that nobody asked for are dropped before they leave a conntrack entry: an
    /// entry would make the masquerade avoid that port, which home routers do not do.
    pub fn ruleset(self) -> String {
        let (forward, nat) = match self {
            Self::None => ("", ""),
            Self::Eim => (NO_INBOUND, "oifname \"wan\" masquerade"),
            Self::Symmetric => (NO_INBOUND, "oifname \"wan\" masquerade fully-random"),
            Self::UdpBlocked => (NO_UDP, "oifname \"wan\" masquerade"),
        };
        format!(
            "table ip lab
delete table ip lab
table ip lab {{
 chain input {{
  type filter hook input priority 0; policy accept;
  iifname \"wan\" ct state established,related accept
  iifname \"wan\" meta l4proto icmp accept
  iifname \"wan\" drop
 }}
 chain forward {{
  type filter hook forward priority 0; policy accept;
  {forward}
 }}
 chain post {{
  type nat hook postrouting priority 100;
  {nat}
 }}
}}
"
        )
    }

    /// Whether two peers behind these NATs can find a direct path by simultaneous probes.
    pub fn allows_direct(self, other: Self) -> bool {
        use NatKind::{Eim, None, Symmetric};
        matches!((self, other), (None | Eim, None | Eim) | (None, Symmetric) | (Symmetric, None))
    }
}

const NO_INBOUND: &str = "iifname \"wan\" ct state new drop";
const NO_UDP: &str = "meta l4proto udp drop";

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Eim => "eim",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "udp-blocked",
        })
    }
}
