//! Whether home networks can take part, before they do: what stands against it and what to do, and what is better known.

use crate::config::GatewayConfig;
use crate::platform::{self, Network};
use std::io;
use std::net::Ipv4Addr;

/// This machine, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// All interfaces.
    pub interfaces: Vec<String>,
    /// Those of them that are Wi-Fi.
    pub wireless: Vec<String>,
    /// What networks it is on.
    pub networks: Vec<Network>,
    /// The router of the default route.
    pub router: Option<Ipv4Addr>,
    /// The party's interface.
    pub tunnel: String,
}

impl Machine {
    /// Looks at it.
    pub async fn look(tunnel: &str) -> io::Result<Self> {
        let interfaces: Vec<String> = platform::mtus().await?.into_keys().collect();
        Ok(Self {
            wireless: interfaces.iter().filter(|name| platform::is_wireless(name)).cloned().collect(),
            interfaces,
            networks: platform::networks(tunnel).await?,
            router: platform::gateway().await?,
            tunnel: tunnel.into(),
        })
    }

    /// What a person should know of a choice that works; or why it cannot, and what to do.
    pub fn check(&self, config: &GatewayConfig) -> Result<Vec<String>, String> {
        let networks = config.lan.iter().map(|name| self.network(name)).collect::<Result<Vec<_>, _>>()?;
        for (at, network) in networks.iter().enumerate() {
            let same = networks[..at].iter().find(|other| other.address.contains(&network.address.addr()));
            if let Some(other) = same {
                return Err(format!(
                    "{} and {} are in one network, {}: name one of them, or make a bridge of them and name that",
                    other.interface,
                    network.interface,
                    other.address.trunc()
                ));
            }
        }
        let ranges = config.aliases().unwrap_or_default();
        for range in &ranges {
            self.check_range(*range, &networks)?;
        }
        Ok(networks.iter().flat_map(|network| self.notes(network, &ranges)).collect())
    }

    fn network(&self, name: &str) -> Result<&Network, String> {
        if name == self.tunnel {
            return Err(format!(
                "{name} is the party's own interface: name that of the home network. {}",
                self.choice()
            ));
        }
        if !self.interfaces.iter().any(|known| known == name) {
            return Err(format!("there is no interface {name}. {}", self.choice()));
        }
        let found = self.networks.iter().find(|network| network.interface == name).ok_or_else(|| {
            format!(
                "{name} has no IPv4 address, or is down: plug the cable in, or configure it first. {}",
                self.choice()
            )
        })?;
        match found.mac {
            Some(_) => Ok(found),
            None => Err(format!("{name} is no Ethernet: consoles cannot be there. {}", self.choice())),
        }
    }

    /// What can be named.
    fn choice(&self) -> String {
        let fit = self.networks.iter().filter(|network| network.mac.is_some());
        let names: Vec<String> =
            fit.map(|network| format!("{} ({})", network.interface, network.address)).collect();
        match names.is_empty() {
            true => "No interface here fits: an Ethernet with an IPv4 address is needed".into(),
            false => format!("Here are {}", names.join(", ")),
        }
    }

    fn check_range(&self, (first, last): (Ipv4Addr, Ipv4Addr), networks: &[&Network]) -> Result<(), String> {
        let is_in = |network: &&&Network| network.address.contains(&first) && network.address.contains(&last);
        let Some(network) = networks.iter().find(is_in) else {
            let all: Vec<String> =
                networks.iter().map(|network| network.address.trunc().to_string()).collect();
            return Err(format!(
                "the addresses {first}-{last} are not inside {}: give some of there with --alias-range, that nobody has",
                all.join(" or ")
            ));
        };
        let taken = [(self.router, "the router's"), (Some(network.address.addr()), "this machine's own")];
        let hit = taken.into_iter().find(|(at, _)| at.is_some_and(|at| (first..=last).contains(&at)));
        match hit {
            Some((Some(address), whose)) => Err(format!(
                "{address}, among {first}-{last}, is {whose} address: give addresses with --alias-range that nobody has"
            )),
            _ => Ok(()),
        }
    }

    fn notes(&self, network: &Network, ranges: &[(Ipv4Addr, Ipv4Addr)]) -> Vec<String> {
        let name = &network.interface;
        let mut notes = Vec::new();
        if self.wireless.contains(name) {
            notes.push(format!(
                "{name} is Wi-Fi: most access points drop what members' addresses send. If devices find nobody, use a cable"
            ));
        }
        if !ranges.iter().any(|(first, _)| network.address.contains(first)) {
            notes.push(format!(
                "members get addresses from the upper half of {}, each asked for before it is used: if the router's DHCP hands those out too, give others with --alias-range",
                network.address.trunc()
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(interface: &str, address: &str, is_ethernet: bool) -> Network {
        Network {
            interface: interface.into(),
            address: address.parse().unwrap(),
            broadcast: None,
            index: 2,
            mac: is_ethernet.then_some([2; 6]),
            is_default: false,
        }
    }

    fn machine() -> Machine {
        Machine {
            interfaces: ["eth0", "eth1", "eth2", "wlan0", "ppp0", "off0", "lanrage0"].map(Into::into).into(),
            wireless: vec!["wlan0".into()],
            networks: vec![
                network("eth0", "192.168.1.2/24", true),
                network("eth1", "192.168.1.3/24", true),
                network("eth2", "192.168.2.2/24", true),
                network("wlan0", "192.168.3.2/24", true),
                network("ppp0", "192.168.4.2/24", false),
            ],
            router: Some(Ipv4Addr::new(192, 168, 1, 1)),
            tunnel: "lanrage0".into(),
        }
    }

    fn check(lan: &[&str], range: &str) -> Result<Vec<String>, String> {
        let lan = lan.iter().map(|name| (*name).to_owned()).collect();
        machine().check(&GatewayConfig { lan, alias_range: Some(range.into()), ..GatewayConfig::default() })
    }

    #[test]
    fn what_cannot_be_is_said_with_what_can() {
        for (lan, range, part) in [
            (&["eth7"][..], "", "no interface eth7. Here are eth0 (192.168.1.2/24)"),
            (&["lanrage0"], "", "party's own"),
            (&["off0"], "", "no IPv4 address"),
            (&["ppp0"], "", "no Ethernet"),
            (&["eth0", "eth1"], "", "one network, 192.168.1.0/24"),
            (&["eth0"], "192.168.2.10-192.168.2.20", "not inside 192.168.1.0/24"),
            (&["eth0"], "192.168.1.250-192.168.2.20", "not inside"),
            (&["eth0"], "192.168.1.1-192.168.1.20", "192.168.1.1, among"),
            (&["eth2"], "192.168.2.1-192.168.2.20", "this machine's own"),
        ] {
            let error = check(lan, range).unwrap_err();
            assert!(error.contains(part), "{lan:?} {range}: {error}");
        }
    }

    #[test]
    fn what_works_has_notes_where_they_matter() {
        assert_eq!(check(&["eth0"], "192.168.1.200-192.168.1.230"), Ok(vec![]));
        assert_eq!(check(&[], ""), Ok(vec![]));
        let notes = check(&["eth0", "wlan0"], "192.168.1.200-192.168.1.230").unwrap();
        assert!(
            matches!(&notes[..], [wifi, range] if wifi.contains("Wi-Fi") && range.contains("192.168.3.0/24"))
        );
    }
}
