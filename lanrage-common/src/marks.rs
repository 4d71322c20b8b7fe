//! Which of this machine's packets are a game's, and how their datagrams are marked on the way: the differentiated
//! services code point (RFC 2474) by which home routers and Wi-Fi put them before downloads.

use crate::firewall::{Port, PortRange, Transport};
use crate::lane::packet::Packet;
use crate::wire::PROTOCOL_UDP;
use serde::{Deserialize, Serialize};

const PROTOCOL_TCP: u8 = 6;
/// Rules that are kept.
const MAX_RULES: usize = 128;

/// How a game's packets are treated on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Qos {
    /// Everything moves at once: CS4, "real-time interactive", which RFC 4594 (section 4.5) has for interactive games and
    /// RFC 8325 (section 4.2.5) leads to Wi-Fi's video queue.
    #[default]
    RealTime,
    /// Players take turns: AF21, "low-latency data" (RFC 4594, section 4.7).
    LowLatency,
    /// As everything else.
    Standard,
}

impl Qos {
    /// The code point, 0 to 63.
    pub const fn dscp(self) -> u8 {
        match self {
            Self::RealTime => 32,
            Self::LowLatency => 18,
            Self::Standard => 0,
        }
    }

    /// Its name in the RFCs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RealTime => "CS4",
            Self::LowLatency => "AF21",
            Self::Standard => "CS0",
        }
    }
}

/// The rules of the games that run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    rules: Vec<(PortRange, Qos)>,
}

impl Marks {
    /// Packets from or to these ports are marked; the first that fits counts. More than 128 are left out.
    pub fn new(rules: impl IntoIterator<Item = (PortRange, Qos)>) -> Self {
        Self { rules: rules.into_iter().take(MAX_RULES).collect() }
    }

    /// The code point for the datagram that carries `packet`, 0 when no game's.
    pub fn dscp(&self, packet: &[u8]) -> u8 {
        if self.rules.is_empty() {
            return 0;
        }
        let Some(ends) = ends(packet) else { return 0 };
        let fits = |(ports, _): &&(PortRange, Qos)| ends.iter().any(|port| ports.contains(*port));
        self.rules.iter().find(fits).map_or(0, |(_, qos)| qos.dscp())
    }
}

/// Source and destination.
fn ends(packet: &[u8]) -> Option<[Port; 2]> {
    let packet = Packet::parse(packet).ok()?;
    let transport = match packet.facts().protocol {
        PROTOCOL_UDP => Transport::Udp,
        PROTOCOL_TCP => Transport::Tcp,
        _ => return None,
    };
    let bytes: &[u8; 4] = packet.payload().first_chunk().filter(|_| packet.offset() == 0)?;
    let port = |high, low| Port { transport, number: u16::from_be_bytes([high, low]) };
    Some([port(bytes[0], bytes[1]), port(bytes[2], bytes[3])])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(protocol: u8, offset: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 28, 0, 1, 0, offset, 64, protocol, 0, 0, 10, 66, 0, 1, 10, 66, 0, 2];
        bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        bytes.extend([0, 8, 0, 0]);
        bytes
    }

    #[test]
    fn packets_from_and_to_a_games_ports_are_marked() {
        let rules = [("udp/2342", Qos::RealTime), ("tcp/5556", Qos::LowLatency), ("udp/1-9", Qos::Standard)];
        let marks = Marks::new(rules.map(|(ports, qos)| (ports.parse().unwrap(), qos)));
        for (protocol, offset, ports, dscp) in [
            (17, 0, [40_000, 2342], 32),
            (17, 0, [2342, 40_000], 32),
            (6, 0, [40_000, 5556], 18),
            (6, 0, [40_000, 2342], 0),
            (17, 0, [40_000, 7], 0),
            (17, 2, [40_000, 2342], 0),
            (1, 0, [40_000, 2342], 0),
        ] {
            assert_eq!(marks.dscp(&packet(protocol, offset, ports)), dscp, "{protocol} {offset} {ports:?}");
        }
        assert_eq!(Marks::default().dscp(&packet(17, 0, [1, 2342])), 0);
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let marks = Marks::new([("udp/1-65535".parse().unwrap(), Qos::RealTime)]);
            prop_assert!([0, 32].contains(&marks.dscp(&bytes)));
        }
    }
}
