//! Namespaces, links, addresses and routes of a lab.

use super::conntrack;
use super::nat::NatKind;
use super::netns::Namespace;
use super::router;
use anyhow::{Context, Result, bail};
use std::net::Ipv4Addr;
use std::process::Command;

/// Most peers one lab can have.
pub const MAX_PEERS: u8 = 32;
/// The control server's address.
pub const CONTROL_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The relay's address.
pub const RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 6);
/// The second relay's address, if there is one.
pub const SPARE_RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// Name of the only network interface of control server, relay and peers, and of the link to the relay in the net.
pub const NIC: &str = "eth0";
/// The internet router's end of the relay's link.
pub const RELAY_LINK: &str = "rly";

/// The namespaces of a lab and how they are wired.
#[derive(Debug, Clone)]
pub struct Topology {
    prefix: String,
    peers: u8,
    has_spare_relay: bool,
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
        Ok(Self { prefix, peers, has_spare_relay: false })
    }

    /// The same with a second relay.
    pub fn with_spare_relay(self, has_spare_relay: bool) -> Self {
        Self { has_spare_relay, ..self }
    }

    /// The internet's router.
    pub fn net(&self) -> Namespace {
        Namespace::named(format!("{}-net", self.prefix))
    }

    /// The control server's machine.
    pub fn control(&self) -> Namespace {
        Namespace::named(format!("{}-ctl", self.prefix))
    }

    /// The relay's machine.
    pub fn relay(&self) -> Namespace {
        Namespace::named(format!("{}-rly", self.prefix))
    }

    /// The second relay's machine.
    pub fn spare_relay(&self) -> Namespace {
        Namespace::named(format!("{}-rly2", self.prefix))
    }

    /// Peer `n`, from 1.
    pub fn peer(&self, n: u8) -> Namespace {
        Namespace::named(format!("{}-p{n}", self.prefix))
    }

    /// The NAT router of peer `n`.
    pub fn router(&self, n: u8) -> Namespace {
        Namespace::named(format!("{}-n{n}", self.prefix))
    }

    /// All of them.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let pairs = (1..=self.peers).flat_map(|n| [self.router(n), self.peer(n)]);
        let spare = self.has_spare_relay.then(|| self.spare_relay());
        [self.net(), self.control(), self.relay()].into_iter().chain(spare).chain(pairs).collect()
    }

    /// Ends what runs in the namespaces, and deletes them.
    pub fn clear(&self) -> Result<()> {
        self.namespaces().iter().try_for_each(Namespace::clear)
    }

    /// Makes everything, with router kinds in peer order.
    pub fn build(&self, nats: &[NatKind]) -> Result<()> {
        if nats.len() != usize::from(self.peers) {
            bail!("{} peers need as many NATs, not {}", self.peers, nats.len());
        }
        for namespace in self.namespaces() {
            namespace.create()?;
        }
        self.net().sysctl("ipv4/ip_forward", "1")?;
        self.attach_server(&self.control(), "ctl", CONTROL_ADDRESS)?;
        self.attach_server(&self.relay(), RELAY_LINK, RELAY_ADDRESS)?;
        if self.has_spare_relay {
            self.attach_server(&self.spare_relay(), "rly2", SPARE_RELAY_ADDRESS)?;
        }
        for (n, nat) in (1..).zip(nats) {
            self.attach_router(n)?;
            self.attach_peer(n)?;
            self.change_nat(n, *nat)?;
        }
        Ok(())
    }

    /// Gives peer `n` another kind of router; connections made through the old one are forgotten.
    pub fn change_nat(&self, n: u8, nat: NatKind) -> Result<()> {
        let router = self.router(n);
        router.nft(&nat.ruleset())?;
        match nat {
            NatKind::Own(behaviour) => router::apply(&router, behaviour)?,
            _ => router::stop(&router)?,
        }
        let (address, gateway) = peer_address(n, nat);
        let (length, other) = if nat == NatKind::None { (30, private(n, 2)) } else { (24, public(n, 2)) };
        let peer = self.peer(n);
        if peer
            .output(Command::new("ip").args(["-br", "addr", "show", "dev", NIC]))?
            .contains(&format!("{other}/"))
        {
            peer.ip(&format!("addr flush dev {NIC}"))?;
        }
        peer.ip(&format!(
            "addr replace {address}/{length} brd + dev {NIC}\nroute replace default via {gateway}"
        ))?;
        router.run(conntrack::flush)?.with_context(|| format!("router of peer {n}"))
    }

    /// A server's machine with one link to the net; `address` is the second host of a /30.
    fn attach_server(&self, server: &Namespace, link: &str, address: Ipv4Addr) -> Result<()> {
        let net = self.net();
        let gateway = Ipv4Addr::from_bits(address.to_bits() - 1);
        connect(server, NIC, &net, link)?;
        net.ip(&format!("addr add {gateway}/30 dev {link}"))?;
        server.ip(&format!("addr add {address}/30 dev {NIC}\nroute add default via {gateway}"))
    }

    /// The router of peer `n`: `wan` to the net, `lan` to the peer.
    fn attach_router(&self, n: u8) -> Result<()> {
        let (net, router, link) = (self.net(), self.router(n), format!("w{n}"));
        connect(&router, "wan", &net, &link)?;
        net.ip(&format!(
            "addr add {}/30 dev {link}\nroute add {}/30 via {}",
            wan(n, 1),
            public(n, 0),
            wan(n, 2)
        ))?;
        router.ip(&format!("addr add {}/30 dev wan\nroute add default via {}", wan(n, 2), wan(n, 1)))?;
        router.sysctl("ipv4/ip_forward", "1")
    }

    /// The link between router and peer `n`; the peer's address depends on the router's kind.
    fn attach_peer(&self, n: u8) -> Result<()> {
        let router = self.router(n);
        connect(&self.peer(n), NIC, &router, "lan")?;
        router.ip(&format!(
            "addr add {}/24 brd + dev lan\naddr add {}/30 dev lan",
            private(n, 1),
            public(n, 1)
        ))
    }
}

/// Address and gateway of peer `n` behind a router of this kind.
pub fn peer_address(n: u8, nat: NatKind) -> (Ipv4Addr, Ipv4Addr) {
    match nat {
        NatKind::None => (public(n, 2), public(n, 1)),
        _ => (private(n, 2), private(n, 1)),
    }
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

/// A virtual cable. Checksum offload is off: a packet with an unfinished checksum that an XDP program rewrites and
/// sends on would arrive broken.
fn connect(a: &Namespace, a_link: &str, b: &Namespace, b_link: &str) -> Result<()> {
    a.ip(&format!("link add {a_link} type veth peer name {b_link} netns {}", b.name()))?;
    for (namespace, link) in [(a, a_link), (b, b_link)] {
        namespace.output(Command::new("ethtool").args(["-K", link, "tx", "off"]))?;
        namespace.ip(&format!("link set {link} up"))?;
    }
    Ok(())
}
