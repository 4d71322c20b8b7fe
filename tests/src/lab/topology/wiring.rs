//! Making what a [`Topology`] plans.

use super::{
    CONTROL_ADDRESS, CONTROL_ADDRESS6, NIC, RELAY_ADDRESS, RELAY_ADDRESS6, RELAY_LINK, SPARE_RELAY_ADDRESS,
    Topology, carrier, guest_address, home6, private, public, wan, wan6,
};
use crate::lab::emulator;
use crate::lab::netns::Namespace;
use crate::lab::process::wait_until;
use crate::lab::site::Family;
use anyhow::{Result, bail};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long neighbours may take to answer.
const NEIGHBOURS: Duration = Duration::from_secs(20);

/// What a home router does with IPv6: no translation, but a firewall (RFC 6092).
const FIREWALL6: &str = "table ip6 lab {
 chain forward {
  type filter hook forward priority 0; policy accept;
  ct state established,related accept
  meta l4proto ipv6-icmp accept
  iifname \"wan\" drop
 }
}
";

impl Topology {
    /// Makes everything.
    pub fn build_sites(&self) -> Result<()> {
        for namespace in self.namespaces() {
            namespace.create()?;
        }
        self.net().sysctl("ipv4/ip_forward", "1")?;
        self.attach_server(&self.control(), "ctl", CONTROL_ADDRESS)?;
        self.attach_server(&self.relay(), RELAY_LINK, RELAY_ADDRESS)?;
        if self.has_spare_relay {
            self.attach_server(&self.spare_relay(), "rly2", SPARE_RELAY_ADDRESS)?;
        }
        for (n, site) in (1..).zip(&self.sites).filter(|(_, site)| site.home.is_none()) {
            self.attach_router(n)?;
            self.attach_homes(n)?;
            if let Some(kind) = site.carrier {
                self.apply(&self.carrier(n), kind)?;
            }
            self.change_nat(n, site.nat)?;
        }
        if self.has_ipv6() {
            self.add_ipv6()?;
        }
        if !self.links.is_empty() {
            emulator::start(&self.emulator(), &self.links)?;
        }
        self.wait_for_neighbours()
    }

    /// Bridges and IPv6 take a moment to come up.
    fn wait_for_neighbours(&self) -> Result<()> {
        for (n, site) in (1..).zip(&self.sites) {
            let neighbour: IpAddr = match site.home {
                Some(owner) => private(owner, 1).into(),
                None if site.has_ipv6() && site.carrier.is_none() => CONTROL_ADDRESS6.into(),
                None => continue,
            };
            let ping = || {
                let mut ping = Command::new("ping");
                ping.args(["-n", "-c", "1", "-W", "1"]).arg(neighbour.to_string());
                self.peer(n).output(&mut ping)
            };
            // a link that loses packets on purpose needs several, and one that loses all is nobody's fault
            if !wait_until(NEIGHBOURS, || ping().is_ok()) && self.links.is_empty() {
                bail!("peer {n} does not reach {neighbour}");
            }
        }
        Ok(())
    }

    /// A server's machine with one link to the net; `address` is the second host of a /30.
    fn attach_server(&self, server: &Namespace, link: &str, address: Ipv4Addr) -> Result<()> {
        let net = self.net();
        let gateway = Ipv4Addr::from_bits(address.to_bits() - 1);
        self.connect(link, (server, NIC), (&net, link))?;
        net.ip(&format!("addr add {gateway}/30 dev {link}"))?;
        server.ip(&format!("addr add {address}/30 dev {NIC}\nroute add default via {gateway}"))
    }

    /// The router of peer `n`, and a carrier's NAT in front of it: each `wan` towards the net, `lan` towards the peer.
    fn attach_router(&self, n: u8) -> Result<()> {
        let (net, router, link) = (self.net(), self.router(n), format!("w{n}"));
        let site = self.site(n);
        let front = if site.carrier.is_some() { self.carrier(n) } else { router.clone() };
        self.connect(&link, (&front, "wan"), (&net, &link))?;
        net.ip(&format!(
            "addr add {}/30 dev {link}\nroute add {}/30 via {}",
            wan(n, 1),
            public(n, 0),
            wan(n, 2)
        ))?;
        front.ip(&format!("addr add {}/30 dev wan\nroute add default via {}", wan(n, 2), wan(n, 1)))?;
        front.sysctl("ipv4/ip_forward", "1")?;
        if site.carrier.is_some() {
            connect((&router, "wan"), (&front, "lan"))?;
            front.ip(&format!("addr add {}/24 dev lan", carrier(n, 1)))?;
            router.ip(&format!(
                "addr add {}/24 dev wan\nroute add default via {}",
                carrier(n, 2),
                carrier(n, 1)
            ))?;
            router.sysctl("ipv4/ip_forward", "1")?;
        }
        let Some(mtu) = site.mtu else { return Ok(()) };
        net.ip(&format!("link set {link} mtu {mtu}"))?;
        front.ip(&format!("link set wan mtu {mtu}"))
    }

    /// The home network of peer `n`: a link, or a bridge where there are several devices.
    fn attach_homes(&self, n: u8) -> Result<()> {
        let router = self.router(n);
        let guests: Vec<u8> = self.guests(n).collect();
        if guests.is_empty() {
            self.connect(&format!("h{n}"), (&self.peer(n), NIC), (&router, "lan"))?;
        } else {
            router.ip("link add lan type bridge\nlink set lan up")?;
            // where bridges show their frames to the routers' rules, those would drop what the lab's NAT has yet to see
            if router.run(|| Path::new("/proc/sys/net/bridge").exists())? {
                router.sysctl("bridge/bridge-nf-call-iptables", "0")?;
            }
            for device in std::iter::once(n).chain(guests.iter().copied()) {
                let port = format!("lan{device}");
                self.connect(&format!("h{device}"), (&self.peer(device), NIC), (&router, &port))?;
                router.ip(&format!("link set {port} master lan"))?;
            }
        }
        router.ip(&format!(
            "addr add {}/24 brd + dev lan\naddr add {}/30 dev lan",
            private(n, 1),
            public(n, 1)
        ))?;
        for guest in guests {
            self.peer(guest).ip(&format!(
                "addr add {}/24 brd + dev {NIC}\nroute add default via {}",
                guest_address(n, guest),
                private(n, 1)
            ))?;
        }
        Ok(())
    }

    fn add_ipv6(&self) -> Result<()> {
        let net = self.net();
        net.sysctl("ipv6/conf/all/forwarding", "1")?;
        self.add_server6(&self.control(), "ctl", CONTROL_ADDRESS6)?;
        self.add_server6(&self.relay(), RELAY_LINK, RELAY_ADDRESS6)?;
        let homes = (1..).zip(&self.sites).filter(|(_, site)| site.home.is_none() && site.has_ipv6());
        for (n, site) in homes {
            let (router, peer) = (self.router(n), self.peer(n));
            let link = format!("w{n}");
            if site.carrier.is_none() {
                net.ip(&format!(
                    "addr add {}/64 dev {link} nodad\nroute add {}/64 via {}",
                    wan6(n, 1),
                    home6(n, 0),
                    wan6(n, 2)
                ))?;
                router.ip(&format!(
                    "addr add {}/64 dev wan nodad\nroute add default via {}",
                    wan6(n, 2),
                    wan6(n, 1)
                ))?;
            }
            router.sysctl("ipv6/conf/all/forwarding", "1")?;
            router.nft(FIREWALL6)?;
            router.ip(&format!("addr add {}/64 dev lan nodad", home6(n, 1)))?;
            peer.ip(&format!(
                "addr add {}/64 dev {NIC} nodad\nroute add default via {}",
                home6(n, 2),
                home6(n, 1)
            ))?;
            if site.family == Family::V6 {
                router.ip(&format!("addr del {}/30 dev wan", wan(n, 2)))?;
            }
        }
        Ok(())
    }

    fn add_server6(&self, server: &Namespace, link: &str, address: Ipv6Addr) -> Result<()> {
        let gateway = Ipv6Addr::from_bits(address.to_bits() - 1);
        self.net().ip(&format!("addr add {gateway}/64 dev {link} nodad"))?;
        server.ip(&format!("addr add {address}/64 dev {NIC} nodad\nroute add default via {gateway}"))
    }

    /// A cable, with the emulator in between where the link is impaired.
    fn connect(&self, link: &str, a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
        if !self.is_emulated(link) {
            return connect(a, b);
        }
        let emulator = self.emulator();
        connect(a, (&emulator, &format!("{link}a")))?;
        connect(b, (&emulator, &format!("{link}b")))
    }
}

/// A virtual cable. Checksum offload is off: a packet with an unfinished checksum that an XDP program rewrites and
/// sends on would arrive broken.
fn connect(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
    a.0.ip(&format!("link add {} type veth peer name {} netns {}", a.1, b.1, b.0.name()))?;
    for (namespace, link) in [a, b] {
        namespace.output(Command::new("ethtool").args(["-K", link, "tx", "off"]))?;
        namespace.ip(&format!("link set {link} up"))?;
    }
    Ok(())
}
