//! Guesses the addresses by which others reach this machine, when they are not configured.

use crate::config::Config;
use lanrage_common::address::is_private;
use lanrage_common::api::Problem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Address that packets to the internet leave from. Nothing is sent: connecting a UDP socket only asks the routes.
pub(crate) fn default_route_source() -> Option<IpAddr> {
    // 192.0.2.1 (RFC 5737) is never routed anywhere but along the default route.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified()).then_some(source)
}

/// The same for IPv6.
pub(crate) fn default_route_source6() -> Option<IpAddr> {
    // 2001:db8::/32 (RFC 3849) is never routed anywhere but along the default route.
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified()).then_some(source)
}

/// Fills in `control.public_url`, and says what friends outside would stumble over. The relay guesses for itself.
pub(super) fn complete(config: &mut Config, source: Option<IpAddr>) -> Vec<Problem> {
    let guessed = config.control.public_url.is_none();
    let control = outside_address(config.control.listen, source);
    config.control.public_url.get_or_insert_with(|| format!("http://{control}"));
    if guessed { private_address(control, config).into_iter().collect() } else { Vec::new() }
}

/// `listen` as others see it.
pub(crate) fn outside_address(listen: SocketAddr, source: Option<IpAddr>) -> SocketAddr {
    let ip = if listen.ip().is_unspecified() {
        source.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    } else {
        listen.ip()
    };
    SocketAddr::new(ip, listen.port())
}

fn private_address(control: SocketAddr, config: &Config) -> Option<Problem> {
    let reach = limited_reach(control)?;
    let (tcp, udp) = (config.control.listen.port(), config.relay.listen.port());
    Some(Problem {
        code: "public_address_private".into(),
        message: format!("invite links carry {control}, which works in {reach}"),
        fix: format!(
            "for friends elsewhere forward TCP {tcp} and UDP {udp} to this machine and set control.public_url = \
             \"http://PUBLIC-ADDRESS:{tcp}\" and relay.public_address = \"PUBLIC-ADDRESS:{udp}\""
        ),
    })
}

/// What members elsewhere would stumble over, when the relay's address is this guess.
pub(crate) fn private_relay_address(public: SocketAddr) -> Option<Problem> {
    let reach = limited_reach(public)?;
    Some(Problem {
        code: "relay_address_private".into(),
        message: format!("members are told to reach the relay at {public}, which works in {reach}"),
        fix: "set relay.public_address to the address your friends reach".into(),
    })
}

/// From where an address can be reached, unless from everywhere.
fn limited_reach(address: SocketAddr) -> Option<&'static str> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    match ip {
        ip if ip.is_loopback() => Some("this machine only"),
        ip if is_private(ip.into()) || ip.is_link_local() => Some("the local network only"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(source: Option<&str>) -> (Config, Vec<Problem>) {
        let mut config = Config::default();
        let problems = complete(&mut config, source.map(|ip| ip.parse().unwrap()));
        (config, problems)
    }

    #[test]
    fn a_public_source_is_used_without_complaint() {
        let (config, problems) = completed(Some("203.0.113.7"));
        assert_eq!(config.control.public_url.as_deref(), Some("http://203.0.113.7:8667"));
        assert_eq!(problems, []);
        assert_eq!(private_relay_address("203.0.113.7:3478".parse().unwrap()), None);
    }

    #[test]
    fn private_sources_work_and_are_reported() {
        for (source, reach) in [
            (Some("192.168.1.5"), "the local network only"),
            (Some("100.64.0.1"), "the local network only"),
            (None, "this machine only"),
        ] {
            let (_, problems) = completed(source);
            assert!(problems[0].message.contains(reach), "{problems:?}");
            let relay = outside_address(Config::default().relay.listen, source.map(|ip| ip.parse().unwrap()));
            let problem = private_relay_address(relay).unwrap();
            assert_eq!(problem.code, "relay_address_private");
            assert!(problem.message.contains(&relay.to_string()), "{}", problem.message);
            assert!(problem.message.contains(reach), "{}", problem.message);
        }
    }

    #[test]
    fn configured_values_stay() {
        let mut config = Config::default();
        config.control.public_url = Some("https://play.example".into());
        config.relay.public_address = Some("203.0.113.9:443".parse().unwrap());
        assert_eq!(complete(&mut config, None), []);
        assert_eq!(config.control.public_url.as_deref(), Some("https://play.example"));
        assert_eq!(config.relay.public_address, Some("203.0.113.9:443".parse().unwrap()));
    }
}
