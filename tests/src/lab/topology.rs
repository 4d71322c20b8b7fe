//! Namespaces, links, addresses and routes of a lab.

mod wiring;

use super::conntrack;
use super::emulator;
use super::impairment::ImpairedLink;
use super::nat::NatKind;
use super::netns::Namespace;
use super::router;
use super::site::{self, Site};
use anyhow::{Context, Result, bail, ensure};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

/// Most peers one lab can have.
pub const MAX_PEERS: u8 = 32;
/// The control server's address.
pub const CONTROL_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The relay's address.
pub const RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 6);
/// The second relay's address, if there is one.
pub const SPARE_RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The control server's IPv6 address, in labs with IPv6.
pub const CONTROL_ADDRESS6: Ipv6Addr = server6(1);
/// The relay's IPv6 address, in labs with IPv6.
pub const RELAY_ADDRESS6: Ipv6Addr = server6(2);
/// Name of the only network interface of control server, relay and peers, and of the link to the relay in the net.
pub const NIC: &str = "eth0";
/// The internet router's end of the relay's link.
pub const RELAY_LINK: &str = "rly";
/// How far the second address of a router is from its first.
const MOVED: u8 = 4 * MAX_PEERS;

const fn server6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, 2)
}

/// The namespaces of a lab and how they are wired.
#[derive(Debug, Clone)]
pub struct Topology {
    prefix: String,
    sites: Vec<Site>,
    has_spare_relay: bool,
    links: Vec<ImpairedLink>,
}

impl Topology {
    /// A plan; nothing is made yet. The lab's name becomes part of the namespaces' names, unless it is `default`.
    pub fn new(lab: &str, peers: u8) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if lab.is_empty() || lab.len() > 16 || !lab.chars().all(plain) {
            bail!("a lab's name has 1 to 16 small letters and digits, not {lab:?}");
        }
        if !(1..=MAX_PEERS).contains(&peers) {
            bail!("a lab has 1 to {MAX_PEERS} peers, not {peers}");
        }
        let prefix = if lab == "default" { "lr".into() } else { format!("lr-{lab}") };
        let sites = vec![NatKind::None.into(); peers.into()];
        Ok(Self { prefix, sites, has_spare_relay: false, links: Vec::new() })
    }

    /// The same with a second relay.
    pub fn with_spare_relay(self, has_spare_relay: bool) -> Self {
        Self { has_spare_relay, ..self }
    }

    /// The same with peers at these sites.
    pub fn with_sites(self, sites: &[Site]) -> Result<Self> {
        ensure!(sites.len() == self.sites.len(), "{} peers need as many sites", self.sites.len());
        site::check(sites)?;
        Ok(Self { sites: sites.into(), ..self })
    }

    /// The same with impaired links.
    pub fn with_links(self, links: &[ImpairedLink]) -> Result<Self> {
        for (at, link) in links.iter().enumerate() {
            let name = &link.link;
            let n = name.strip_prefix(['w', 'h']).and_then(|n| n.parse::<usize>().ok());
            let site = n.map(|n| n.checked_sub(1).and_then(|at| self.sites.get(at)));
            let is_there = match site {
                Some(site) => site.is_some_and(|site| site.home.is_none() || name.starts_with('h')),
                None => name != "rly2" || self.has_spare_relay,
            };
            ensure!(is_there, "there is no link {name:?} in this lab");
            ensure!(links[..at].iter().all(|other| other.link != *name), "{name:?} is given twice");
        }
        Ok(Self { links: links.into(), ..self })
    }

    /// The internet's router.
    pub fn net(&self) -> Namespace {
        self.namespace("net")
    }

    /// The control server's machine.
    pub fn control(&self) -> Namespace {
        self.namespace("ctl")
    }

    /// The relay's machine.
    pub fn relay(&self) -> Namespace {
        self.namespace("rly")
    }

    /// The second relay's machine.
    pub fn spare_relay(&self) -> Namespace {
        self.namespace("rly2")
    }

    /// Peer `n`, from 1.
    pub fn peer(&self, n: u8) -> Namespace {
        self.namespace(&format!("p{n}"))
    }

    /// The router of peer `n`'s home.
    pub fn router(&self, n: u8) -> Namespace {
        self.namespace(&format!("n{}", self.home(n)))
    }

    /// The carrier's NAT in front of peer `n`'s home, where there is one.
    pub fn carrier(&self, n: u8) -> Namespace {
        self.namespace(&format!("c{}", self.home(n)))
    }

    /// Where impaired links are carried.
    pub fn emulator(&self) -> Namespace {
        self.namespace("emu")
    }

    fn namespace(&self, name: &str) -> Namespace {
        Namespace::named(format!("{}-{name}", self.prefix))
    }

    /// The end of the relay's link that is not the relay's: namespace and interface.
    pub fn beyond_relay(&self) -> (Namespace, String) {
        match self.is_emulated(RELAY_LINK) {
            true => (self.emulator(), format!("{RELAY_LINK}a")),
            false => (self.net(), RELAY_LINK.into()),
        }
    }

    /// All of them.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let mut all = vec![self.net(), self.control(), self.relay()];
        all.extend(self.has_spare_relay.then(|| self.spare_relay()));
        all.extend((!self.links.is_empty()).then(|| self.emulator()));
        for (n, site) in (1..).zip(&self.sites) {
            all.extend(site.home.is_none().then(|| self.router(n)));
            all.extend(site.carrier.map(|_| self.carrier(n)));
            all.push(self.peer(n));
        }
        all
    }

    fn site(&self, n: u8) -> Site {
        self.sites[usize::from(n - 1)]
    }

    /// Whose home peer `n` is at: mostly its own.
    fn home(&self, n: u8) -> u8 {
        self.site(n).home.unwrap_or(n)
    }

    fn guests(&self, n: u8) -> impl Iterator<Item = u8> {
        (1..).zip(&self.sites).filter(move |(_, site)| site.home == Some(n)).map(|(guest, _)| guest)
    }

    /// Whether any site reaches the IPv6 internet.
    pub fn has_ipv6(&self) -> bool {
        self.sites.iter().any(|site| site.has_ipv6())
    }

    fn is_emulated(&self, link: &str) -> bool {
        self.links.iter().any(|other| other.link == link)
    }

    /// Ends what runs in the namespaces, and deletes them.
    pub fn clear(&self) -> Result<()> {
        self.namespaces().iter().try_for_each(Namespace::clear)
    }

    /// Makes everything, with router kinds in peer order.
    pub fn build(&self, nats: &[NatKind]) -> Result<()> {
        let sites: Vec<Site> = nats.iter().copied().map(Site::from).collect();
        self.clone().with_sites(&sites)?.build_sites()
    }

    /// Impairs a link otherwise from now on. It must have been impaired from the beginning.
    pub fn change_link(&self, link: &ImpairedLink) -> Result<()> {
        emulator::change(&self.emulator(), link)
    }

    /// Gives peer `n`'s home another kind of router; connections made through the old one are forgotten.
    pub fn change_nat(&self, n: u8, nat: NatKind) -> Result<()> {
        let n = self.home(n);
        let site = self.site(n);
        if nat == NatKind::None && (site.carrier.is_some() || self.guests(n).next().is_some()) {
            bail!("the home of peer {n} needs a NAT: it is shared, or a carrier's NAT is in front");
        }
        self.apply(&self.router(n), nat)?;
        if site.family != site::Family::V6 {
            self.address_peer(n, nat)?;
        }
        Ok(())
    }

    /// Makes a router behave like this.
    fn apply(&self, router: &Namespace, nat: NatKind) -> Result<()> {
        router.nft(&nat.ruleset())?;
        match nat {
            NatKind::Own(behaviour) => router::apply(router, behaviour)?,
            _ => router::stop(router)?,
        }
        router.run(conntrack::flush)?.with_context(|| router.name().to_owned())
    }

    /// The address depends on the router's kind.
    fn address_peer(&self, n: u8, nat: NatKind) -> Result<()> {
        let (address, gateway) = peer_address(n, nat);
        let (length, other) = if nat == NatKind::None { (30, private(n, 2)) } else { (24, public(n, 2)) };
        let peer = self.peer(n);
        if peer
            .output(Command::new("ip").args(["-br", "addr", "show", "dev", NIC]))?
            .contains(&format!("{other}/"))
        {
            peer.ip(&format!("addr del {other}/{} dev {NIC}", if length == 30 { 24 } else { 30 }))?;
        }
        peer.ip(&format!(
            "addr replace {address}/{length} brd + dev {NIC}\nroute replace default via {gateway}"
        ))
    }

    /// Gives the router in front of peer `n` (the carrier's, where there is one) its other public address, as providers
    /// do at night; all connections break. Back again the next time. The new address.
    pub fn readdress(&self, n: u8) -> Result<Ipv4Addr> {
        let n = self.home(n);
        let site = self.site(n);
        let (router, nat) = match site.carrier {
            Some(carrier) => (self.carrier(n), carrier),
            None => (self.router(n), site.nat),
        };
        let shown = router.output(Command::new("ip").args(["-br", "-4", "addr", "show", "dev", "wan"]))?;
        let [now, next] = match shown.contains(&format!("{}/", wan(n, 2))) {
            true => [wan(n, 0), moved(wan(n, 0))],
            false => [moved(wan(n, 0)), wan(n, 0)],
        };
        let host = |base: Ipv4Addr, host: u32| Ipv4Addr::from_bits(base.to_bits() + host);
        self.net().ip(&format!(
            "addr del {}/30 dev w{n}\naddr add {}/30 dev w{n}\nroute replace {}/30 via {}",
            host(now, 1),
            host(next, 1),
            public(n, 0),
            host(next, 2)
        ))?;
        router.ip(&format!(
            "addr del {}/30 dev wan\naddr add {}/30 dev wan\nroute replace default via {}",
            host(now, 2),
            host(next, 2),
            host(next, 1)
        ))?;
        self.apply(&router, nat)?;
        Ok(host(next, 2))
    }
}

fn moved(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() + u32::from(MOVED))
}

/// Address and gateway of peer `n` behind a router of this kind.
pub fn peer_address(n: u8, nat: NatKind) -> (Ipv4Addr, Ipv4Addr) {
    match nat {
        NatKind::None => (public(n, 2), public(n, 1)),
        _ => (private(n, 2), private(n, 1)),
    }
}

/// Address of peer `guest` at the home of peer `n`.
pub fn guest_address(n: u8, guest: u8) -> Ipv4Addr {
    private(n, 100 + guest)
}

/// IPv6 address of peer `n`, where its site has IPv6.
pub fn peer_address6(n: u8) -> Ipv6Addr {
    home6(n, 2)
}

/// Public side of the router of peer `n` (host 2) and the net's end (host 1).
pub fn wan(n: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 4 * (n - 1) + host)
}

/// The subnet a router without NAT hands out.
fn public(n: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 4 * (n - 1) + host)
}

/// The home network behind a NAT.
fn private(n: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 100 + n, host)
}

/// Between a home and the carrier's NAT (RFC 6598).
fn carrier(n: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, n, host)
}

fn wan6(n: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, n.into(), 0, 0, 0, host)
}

fn home6(n: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 2, n.into(), 0, 0, 0, host)
}
