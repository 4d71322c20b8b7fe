//! What a peer's router does to its packets.

pub mod behaviour;
pub mod packet;
pub mod table;
pub mod translate;

use super::matrix::expect::verdict;
use anyhow::{Result, bail};
use behaviour::Behaviour;
use lanrage_common::nat::How;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A kind of router. Linux does the first four; [`NatKind::Own`] is the lab's own NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
    /// Any behaviour of RFC 4787, e.g. `eim+eif+random`.
    Own(Behaviour),
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
            Self::Own(_) => return OWN.into(),
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
        verdict(self.into(), other.into()).how() == Some(How::Punch)
    }
}

const NO_INBOUND: &str = "iifname \"wan\" ct state new drop";
const NO_UDP: &str = "meta l4proto udp drop";

/// The kernel leaves everything to the lab's own NAT, which reads it before this, but what the home network sends to
/// the router itself.
const OWN: &str = "table ip lab
delete table ip lab
table ip lab {
 chain pre {
  type filter hook prerouting priority -300; policy accept;
  iifname \"wan\" drop
  iifname \"lan\" ip daddr != { 192.168.0.0/16, 100.64.0.0/10, 224.0.0.0/4, 255.255.255.255 } drop
 }
}
";

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Eim => "eim",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "udp-blocked",
            Self::Own(behaviour) => return behaviour.fmt(f),
        })
    }
}

impl FromStr for NatKind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "none" => Self::None,
            "eim" => Self::Eim,
            "symmetric" => Self::Symmetric,
            "udp-blocked" => Self::UdpBlocked,
            _ if text.contains('+') => Self::Own(text.parse()?),
            _ => bail!(
                "there is no router kind {text:?}: write none, eim, symmetric, udp-blocked, or a behaviour of {}",
                behaviour::SYNTAX
            ),
        })
    }
}

impl TryFrom<String> for NatKind {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<NatKind> for String {
    fn from(kind: NatKind) -> Self {
        kind.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_they_are_read() {
        for text in ["none", "eim", "symmetric", "udp-blocked", "adm+eif+sequential:2+hairpin+timeout:30"] {
            let kind: NatKind = text.parse().unwrap();
            assert_eq!(kind.to_string(), text);
            let stored = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<NatKind>(&stored).unwrap(), kind);
        }
    }

    #[test]
    fn a_refusal_names_the_kinds() {
        let refusal = "cone".parse::<NatKind>().unwrap_err().to_string();
        assert!(refusal.contains("udp-blocked") && refusal.contains("eim|adm|apdm"), "{refusal}");
    }
}
