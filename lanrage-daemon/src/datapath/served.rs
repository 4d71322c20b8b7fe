//! Which addresses are the relay's.

use lanrage_common::relay::Alternates;
use std::net::{IpAddr, SocketAddr};

/// Where the relay's sockets are bound, as far as the kernel program has to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    main: Vec<SocketAddr>,
    alternates: Alternates,
}

impl Served {
    /// `main` are the bound addresses that members use; an unspecified one means every address of its family. The kernel
    /// program knows one port for all addresses: the daemon alone serves a main address with another port than the first.
    pub fn new(main: &[SocketAddr], alternates: Alternates) -> Self {
        let port = main.first().map(SocketAddr::port);
        Self { main: main.iter().copied().filter(|main| Some(main.port()) == port).collect(), alternates }
    }

    /// 0 without a main address.
    pub fn port(&self) -> u16 {
        self.main.first().map_or(0, SocketAddr::port)
    }

    /// Main addresses that one interface has.
    pub fn specific(&self) -> impl Iterator<Item = IpAddr> {
        self.main.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified())
    }

    /// Whether some main address means all addresses of its family.
    pub fn is_any(&self) -> bool {
        self.main.iter().any(|main| main.ip().is_unspecified())
    }

    /// Whether packets to an address of this host are the relay's, given the port.
    pub fn has(&self, address: IpAddr) -> bool {
        self.main.iter().map(SocketAddr::ip).any(|ip| {
            ip == address
                || ip.is_unspecified() && ip.is_ipv4() == address.is_ipv4() && !address.is_loopback()
        })
    }

    /// Where else STUN is answered.
    pub fn alternates(&self) -> &Alternates {
        &self.alternates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(main: &[&str]) -> Served {
        let main: Vec<SocketAddr> = main.iter().map(|main| main.parse().unwrap()).collect();
        Served::new(&main, Alternates::default())
    }

    fn has(main: &[&str], address: &str) -> bool {
        served(main).has(address.parse().unwrap())
    }

    #[test]
    fn an_unspecified_address_means_all_of_its_family() {
        assert!(has(&["0.0.0.0:3478"], "192.0.2.1"));
        assert!(!has(&["0.0.0.0:3478"], "2001:db8::1"));
        assert!(!has(&["[::]:3478"], "192.0.2.1"), "another program's");
        assert!(has(&["[::]:3478"], "2001:db8::1"));
        assert!(!has(&["0.0.0.0:3478"], "127.0.0.1"));
        assert!(has(&["192.0.2.1:3478", "[::]:3478"], "2001:db8::1"));
        assert!(!has(&["192.0.2.1:3478", "[::]:3478"], "192.0.2.2"));
        assert!(!has(&[], "192.0.2.2"));
    }

    #[test]
    fn one_port_is_served() {
        let served = served(&["192.0.2.1:3478", "[2001:db8::1]:3479"]);
        assert_eq!(served.port(), 3478);
        assert!(
            !served.has("2001:db8::1".parse().unwrap()),
            "the program would take port 3478 there as well"
        );
        assert_eq!(served.specific().collect::<Vec<_>>(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }
}
