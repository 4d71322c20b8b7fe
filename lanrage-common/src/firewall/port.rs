//! Ports as people write them: `tcp/25565`, `udp/27015-27020`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Transport {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Of what.
    pub transport: Transport,
    /// Its number.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport.name(), self.number)
    }
}

/// One port or several in a row, in texts as `tcp/25565` or `udp/27015-27020`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    transport: Transport,
    first: u16,
    last: u16,
}

impl PortRange {
    /// Those ports; none when `ports` is empty or begins with 0.
    pub fn new(transport: Transport, ports: RangeInclusive<u16>) -> Option<Self> {
        let (first, last) = ports.into_inner();
        (first > 0 && first <= last).then_some(Self { transport, first, last })
    }

    /// Whether the port is one of them.
    pub fn contains(&self, port: Port) -> bool {
        self.transport == port.transport && (self.first..=self.last).contains(&port.number)
    }

    /// Whether all of the other's ports are in this one.
    pub fn covers(&self, other: &Self) -> bool {
        self.transport == other.transport && self.first <= other.first && other.last <= self.last
    }

    /// Whether a port is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.transport == other.transport && self.first <= other.last && other.first <= self.last
    }
}

impl From<Port> for PortRange {
    fn from(port: Port) -> Self {
        Self { transport: port.transport, first: port.number, last: port.number }
    }
}

/// A text names no ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no ports: write tcp/25565, or udp/27015-27020 for several in a row")]
pub struct NoPorts(String);

impl FromStr for PortRange {
    type Err = NoPorts;

    fn from_str(text: &str) -> Result<Self, NoPorts> {
        parse(text.trim()).ok_or_else(|| NoPorts(text.into()))
    }
}

fn parse(text: &str) -> Option<PortRange> {
    let (transport, ports) = text.split_once('/')?;
    let transport = [Transport::Tcp, Transport::Udp].into_iter().find(|known| known.name() == transport)?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    PortRange::new(transport, first.parse().ok()?..=last.parse().ok()?)
}

impl TryFrom<String> for PortRange {
    type Error = NoPorts;

    fn try_from(text: String) -> Result<Self, NoPorts> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport.name(), self.first)?;
        if self.last > self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports_are_written_as_they_are_read() {
        for text in ["tcp/25565", "udp/27015-27020", "udp/1-65535"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        assert_eq!("tcp/7-7".parse::<PortRange>().unwrap().to_string(), "tcp/7");
        for wrong in
            ["", "25565", "tcp/", "tcp/0", "tcp/65536", "udp/9-8", "icmp/1", "tcp/1-", "TCP/1", "tcp/1 2"]
        {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(tcp|udp)?/?\\PC{0,12}") {
            if let Ok(range) = text.parse::<PortRange>() {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }
    }
}
