//! What IP addresses tell of themselves.

use std::net::{IpAddr, Ipv4Addr};

/// 100.64.0.0/10, which carriers use between their NAT and their customers (RFC 6598).
pub fn is_carriers(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && second & 0xc0 == 64
}

/// Global unicast IPv6: 2000::/3 (RFC 4291).
pub fn is_global_ipv6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[0] >> 13 == 1)
}

/// Whether an address means something else in every network: private (RFC 1918), a carrier's, unique local (RFC 4193).
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || is_carriers(ip),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_global_addresses_are_told_apart() {
        for private in ["10.0.0.1", "192.168.7.1", "172.31.0.1", "100.64.0.1", "100.127.255.255", "fd00::1"] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["203.0.113.7", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
        assert!(is_global_ipv6("2001:db8::1".parse().unwrap()) && is_global_ipv6("3fff::1".parse().unwrap()));
        assert!(!is_global_ipv6("fe80::1".parse().unwrap()) && !is_global_ipv6("8.8.4.4".parse().unwrap()));
    }
}
