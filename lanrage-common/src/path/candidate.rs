//! Addresses at which a member may be reached directly.

use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a candidate comes from (RFC 8445 section 5.1.1 has the same classes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CandidateKind {
    /// An address of one of the member's interfaces.
    Host,
    /// The member's address as a relay sees it: server-reflexive.
    Mapped,
    /// Where an authentic probe or packet of the member came from: peer-reflexive. Never announced.
    Seen,
    /// A guess: the mapped address with the socket's own port, right behind NATs that keep ports.
    Predicted,
}

impl CandidateKind {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::Host => 1,
            Self::Mapped => 2,
            Self::Seen => 3,
            Self::Predicted => 4,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Host, Self::Mapped, Self::Seen, Self::Predicted]
            .into_iter()
            .find(|kind| kind.to_byte() == byte)
    }
}

/// An address to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// The address.
    pub address: SocketAddr,
}

/// Whether a probe may ever be sent there: an ordinary unicast address outside the party's own subnet. The error is the
/// reason, as it is counted.
pub fn check(address: SocketAddr, subnet: Ipv4Net) -> Result<(), &'static str> {
    if address.port() == 0 {
        return Err("candidate_port");
    }
    let refusal = match address.ip() {
        IpAddr::V4(ip) => match ip.octets()[0] {
            _ if ip.is_loopback() => "candidate_loopback",
            _ if ip.is_link_local() => "candidate_link_local",
            _ if ip.is_multicast() => "candidate_multicast",
            _ if ip.is_broadcast() => "candidate_broadcast",
            // 0/8 "this network" and 240/4 reserved (RFC 1122, RFC 1112)
            0 | 240.. => "candidate_reserved",
            _ if subnet.contains(&ip) => "candidate_overlay",
            _ => return Ok(()),
        },
        IpAddr::V6(ip) if ip.is_loopback() => "candidate_loopback",
        IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80 => "candidate_link_local",
        IpAddr::V6(ip) if ip.is_multicast() => "candidate_multicast",
        IpAddr::V6(ip) if ip.is_unspecified() || ip.to_ipv4_mapped().is_some() => "candidate_reserved",
        IpAddr::V6(_) => return Ok(()),
    };
    Err(refusal)
}

/// Whether [`check`] has nothing against it.
pub fn is_probeable(address: SocketAddr, subnet: Ipv4Net) -> bool {
    check(address, subnet).is_ok()
}

/// The public network of an address: a /24, or a /48 of IPv6. Who has an address there may have others of it.
pub fn public_network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & !0xff).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !(u128::MAX >> 48)).into(),
    }
}

/// This device's candidates: interface addresses, then mapped ones, then guesses; no address twice.
pub fn collect(local: &[SocketAddr], mapped: &[SocketAddr], subnet: Ipv4Net, limit: usize) -> Vec<Candidate> {
    let port = local.first().map(SocketAddr::port);
    let guesses = mapped.iter().filter_map(|m| port.map(|port| SocketAddr::new(m.ip(), port)));
    let all = local
        .iter()
        .map(|address| (CandidateKind::Host, *address))
        .take(limit.saturating_sub(2 * mapped.len().min(2)))
        .chain(mapped.iter().map(|address| (CandidateKind::Mapped, *address)))
        .chain(guesses.map(|address| (CandidateKind::Predicted, address)));
    let mut candidates: Vec<Candidate> = Vec::new();
    for (kind, address) in all {
        let is_new = candidates.iter().all(|known| known.address != address);
        if is_new && candidates.len() < limit && is_probeable(address, subnet) {
            candidates.push(Candidate { kind, address });
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Ipv4Net {
        "10.66.0.0/16".parse().unwrap()
    }

    #[test]
    fn only_ordinary_unicast_outside_the_party_is_probed() {
        let forbidden = [
            "127.0.0.1:1",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "239.255.255.250:1",
            "240.0.0.1:1",
            "255.255.255.255:1",
            "169.254.169.254:1",
            "10.66.0.3:1",
            "10.66.255.255:1",
            "192.0.2.1:0",
            "[::1]:1",
            "[::]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:192.0.2.1]:1",
        ];
        for address in forbidden {
            assert!(!is_probeable(address.parse().unwrap(), subnet()), "{address}");
        }
        for address in ["192.168.1.2:1", "10.67.0.1:4001", "203.0.113.7:65535", "[2001:db8::1]:9"] {
            assert!(is_probeable(address.parse().unwrap(), subnet()), "{address}");
        }
    }

    #[test]
    fn own_candidates_leave_room_for_mapped_ones_and_repeat_nothing() {
        let local: Vec<SocketAddr> =
            (0..20).map(|n| SocketAddr::new([192, 168, 1, n].into(), 4001)).collect();
        let mapped = ["203.0.113.7:999".parse().unwrap()];
        let all = collect(&local, &mapped, subnet(), 8);
        assert_eq!(all.len(), 8);
        assert_eq!(all[6], Candidate { kind: CandidateKind::Mapped, address: mapped[0] });
        let guess =
            Candidate { kind: CandidateKind::Predicted, address: "203.0.113.7:4001".parse().unwrap() };
        assert_eq!(all[7], guess);
        let public = ["203.0.113.7:4001".parse().unwrap()];
        assert_eq!(collect(&public, &public, subnet(), 8).len(), 1, "no NAT: one address");
    }
}
