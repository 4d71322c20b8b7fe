//! How members reach the relay.

use crate::config::RelayConfig;
use crate::roles::addresses;
use lanrage_common::address::is_global_ipv6;
use lanrage_common::api::Problem;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    /// What members are told, IPv4 first.
    pub(super) addresses: Vec<SocketAddr>,
    /// What is wrong with a guess.
    pub(super) problem: Option<Problem>,
}

impl Reach {
    /// As configured, or as the routes let guess; `main` is where the relay listens.
    pub(super) fn of(config: &RelayConfig, main: &[SocketAddr]) -> Self {
        Self::guess(config, main, addresses::default_route_source, addresses::default_route_source6)
    }

    fn guess(
        config: &RelayConfig,
        main: &[SocketAddr],
        source4: impl Fn() -> Option<IpAddr>,
        source6: impl Fn() -> Option<IpAddr>,
    ) -> Self {
        let mut reach = Self { addresses: Vec::new(), problem: None };
        let is_first_v6 = main.first().is_some_and(SocketAddr::is_ipv6);
        for (n, bound) in main.iter().enumerate() {
            let configured = if n == 0 { config.public_address } else { None };
            let configured6 = config.public_address6.filter(|_| bound.is_ipv6());
            if let Some(address) = configured.or(configured6) {
                reach.addresses.push(address);
            } else if bound.is_ipv4() {
                let address = addresses::outside_address(*bound, source4());
                let is_guess = bound.ip().is_unspecified();
                reach.problem = is_guess.then(|| addresses::private_relay_address(address)).flatten();
                reach.addresses.push(address);
            } else if !bound.ip().is_unspecified() {
                reach.addresses.push(*bound);
            } else {
                // the only address may be poor, a second one is not worth a try unless all can reach it
                let source = source6().filter(|ip| is_first_v6 || is_global_ipv6(*ip));
                let ip = source.or(is_first_v6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
                reach.addresses.extend(ip.map(|ip| SocketAddr::new(ip, bound.port())));
            }
        }
        reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [&str; 2] = ["0.0.0.0:3478", "[::]:3478"];

    fn reach(config: &RelayConfig, main: &[&str], source4: &str, source6: &str) -> Reach {
        let main: Vec<SocketAddr> = main.iter().map(|address| address.parse().unwrap()).collect();
        Reach::guess(config, &main, || source4.parse().ok(), || source6.parse().ok())
    }

    fn addresses(reach: &Reach) -> Vec<String> {
        reach.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_families_are_told_when_the_world_reaches_them() {
        let config = RelayConfig::default();
        let found = reach(&config, &BOTH, "203.0.113.7", "2001:db8::7");
        assert_eq!(addresses(&found), ["203.0.113.7:3478", "[2001:db8::7]:3478"]);
        assert_eq!(found.problem, None);
        let local = reach(&config, &BOTH, "192.168.1.2", "fd00::7");
        assert_eq!(addresses(&local), ["192.168.1.2:3478"]);
        assert_eq!(local.problem.unwrap().code, "relay_address_private");
        assert_eq!(addresses(&reach(&config, &["[::]:1"], "", "fd00::7")), ["[fd00::7]:1"]);
        assert_eq!(addresses(&reach(&config, &["[::]:1"], "", "")), ["[::1]:1"]);
        assert_eq!(
            addresses(&reach(&config, &["127.0.0.1:1", "[::1]:1"], "", "")),
            ["127.0.0.1:1", "[::1]:1"]
        );
    }

    #[test]
    fn what_is_configured_is_told() {
        let config = RelayConfig {
            public_address: Some("203.0.113.9:443".parse().unwrap()),
            public_address6: Some("[2001:db8::9]:443".parse().unwrap()),
            ..RelayConfig::default()
        };
        let found = reach(&config, &BOTH, "192.168.1.2", "fd00::7");
        assert_eq!(addresses(&found), ["203.0.113.9:443", "[2001:db8::9]:443"]);
        assert_eq!(found.problem, None);
    }
}
