//! Values of profiles that are written as text.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A destination that means everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// 255.255.255.255.
    Broadcast,
    /// The broadcast address of each network, so also of the party's.
    Directed,
    /// A multicast group.
    Group(Ipv4Addr),
}

impl Target {
    /// The address, in the party with that broadcast address.
    pub const fn address(self, party_broadcast: Ipv4Addr) -> Ipv4Addr {
        match self {
            Self::Broadcast => Ipv4Addr::BROADCAST,
            Self::Directed => party_broadcast,
            Self::Group(group) => group,
        }
    }

    /// The group, if it is one.
    pub const fn group(self) -> Option<Ipv4Addr> {
        match self {
            Self::Group(group) => Some(group),
            Self::Broadcast | Self::Directed => None,
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "broadcast" => Ok(Self::Broadcast),
            "directed" => Ok(Self::Directed),
            text => match text.parse::<Ipv4Addr>() {
                Ok(group) if group.is_multicast() => Ok(Self::Group(group)),
                _ => Err(format!("{text:?} is neither \"broadcast\", \"directed\" nor a multicast group")),
            },
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broadcast => f.write_str("broadcast"),
            Self::Directed => f.write_str("directed"),
            Self::Group(group) => group.fmt(f),
        }
    }
}

/// A port, or some in a row: `6112`, `27015-27020`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports(pub RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a port nor two ports with - between");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first == 0 || first > last { Err(wrong()) } else { Ok(Self(first..=last)) }
    }
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// Over what a game is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Ports of a game with their protocol: `udp/27960`, `tcp/2300-2400`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GamePorts {
    /// Over what.
    pub protocol: Protocol,
    /// Which.
    pub ports: Ports,
}

impl TryFrom<String> for GamePorts {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (protocol, ports) = match text.split_once('/') {
            Some(("udp", ports)) => (Protocol::Udp, ports),
            Some(("tcp", ports)) => (Protocol::Tcp, ports),
            _ => return Err(format!("{text:?} does not begin with udp/ or tcp/")),
        };
        Ok(Self { protocol, ports: ports.parse()? })
    }
}

impl From<GamePorts> for String {
    fn from(ports: GamePorts) -> Self {
        ports.to_string()
    }
}

impl fmt::Display for GamePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        };
        write!(f, "{protocol}/{}", self.ports)
    }
}

/// Bytes, written as text in which `\xNN` is one byte and `\\` is a backslash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Payload(pub Vec<u8>);

impl TryFrom<String> for Payload {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find('\\') {
            bytes.extend_from_slice(&rest.as_bytes()[..at]);
            let escape = &rest[at + 1..];
            let (byte, length) = match escape.as_bytes() {
                [b'\\', ..] => (Some(b'\\'), 1),
                [b'x', ..] => (escape.get(1..3).and_then(|hex| u8::from_str_radix(hex, 16).ok()), 3),
                _ => (None, 0),
            };
            bytes.push(
                byte.ok_or_else(|| format!("{text:?} has a backslash that begins neither \\xNN nor \\\\"))?,
            );
            rest = &escape[length..];
        }
        bytes.extend_from_slice(rest.as_bytes());
        Ok(Self(bytes))
    }
}

impl From<Payload> for String {
    fn from(payload: Payload) -> Self {
        let mut text = Self::new();
        for byte in payload.0 {
            match byte {
                b'\\' => text += "\\\\",
                0x20..=0x7e => text.push(char::from(byte)),
                byte => text += &format!("\\x{byte:02x}"),
            }
        }
        text
    }
}
