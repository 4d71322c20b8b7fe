//! Who listens on this machine, from the system's tables.

use crate::api::LaneListener;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// UDP sockets, and groups that are joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sockets {
    bound: Vec<(IpAddr, u16)>,
    groups: BTreeSet<Ipv4Addr>,
}

impl Sockets {
    /// From what Linux's `/proc/net/udp`, `/proc/net/udp6` and `/proc/net/igmp` hold. Lines that are not understood are
    /// passed over.
    pub fn parse(udp: &str, udp6: &str, igmp: &str) -> Self {
        let bound = udp.lines().chain(udp6.lines()).filter_map(bound).collect();
        let groups = igmp
            .lines()
            .filter(|line| line.starts_with(char::is_whitespace))
            .filter_map(|line| super::membership::group(line.split_whitespace().next()?))
            .collect();
        Self { bound, groups }
    }

    /// Who would hear a packet to everybody.
    pub fn listener(&self, destination: IpAddr, port: u16) -> LaneListener {
        let mut on_port = self.bound.iter().filter(|(_, bound)| *bound == port).peekable();
        if on_port.peek().is_none() {
            return LaneListener::Nobody;
        }
        let hears = |address: &IpAddr| match (address, destination) {
            (IpAddr::V6(any), IpAddr::V4(_)) if any.is_unspecified() => true,
            (address, _) if address.is_ipv4() != destination.is_ipv4() => false,
            (address, _) => address.is_unspecified() || *address == destination,
        };
        if !on_port.any(|(address, _)| hears(address)) {
            return LaneListener::Elsewhere;
        }
        match destination {
            IpAddr::V4(group) if group.is_multicast() && !self.groups.contains(&group) => {
                LaneListener::NotJoined
            }
            _ => LaneListener::Listening,
        }
    }
}

/// `  10: 0201A8C0:17E0 00000000:0000 07 …`: the local address as the processor reads its words, and the port.
fn bound(line: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match address.len() {
        8 => Some((IpAddr::from(word(0)?), port)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            let octets: [u8; 16] = words.try_into().ok()?;
            Some((Ipv6Addr::from(octets).to_canonical(), port))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
        \x20  10: 00000000:17E0 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 1 2 0 0\n\
        \x20  11: 0265A8C0:17E1 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 1 2 0 0\n\
        \x20  12: 3C0200E0:17E2 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 1 2 0 0\n";
    const UDP6: &str = "  sl  local_address\n\
        \x20 13: 00000000000000000000000000000000:17E3 00000000000000000000000000000000:0000 07\n\
        \x20 14: 000080FE00000000FE5E0000010042 0A:17E4 0:0 07\n";
    const IGMP: &str = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
        2\teth0      :     3      V3\n\t\t\t\t3C0200E0     1 0:00000000\t\t0\n";

    #[cfg(target_endian = "little")]
    #[test]
    fn who_hears_what() {
        let sockets = Sockets::parse(UDP, UDP6, IGMP);
        let everybody = IpAddr::from(Ipv4Addr::BROADCAST);
        let [joined, other] = [[224, 0, 2, 60], [239, 1, 2, 3]].map(IpAddr::from);
        let group6: IpAddr = "ff02::113".parse().unwrap();
        for (to, port, wanted) in [
            (everybody, 6112, LaneListener::Listening),
            (joined, 6112, LaneListener::Listening),
            (other, 6112, LaneListener::NotJoined),
            (group6, 6112, LaneListener::Elsewhere),
            (everybody, 6113, LaneListener::Elsewhere),
            (joined, 6114, LaneListener::Listening),
            (everybody, 6114, LaneListener::Elsewhere),
            (everybody, 6115, LaneListener::Listening),
            (group6, 6115, LaneListener::Listening),
            (everybody, 6116, LaneListener::Nobody),
        ] {
            assert_eq!(sockets.listener(to, port), wanted, "{to} {port}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(\\PC|[ \t\n:0-9A-F]){0,200}") {
            let _ = Sockets::parse(&text, &text, &text);
        }
    }
}
