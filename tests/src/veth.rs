//! A relay between two clients: three namespaces in a row, for tests and benchmarks of the data path.

use crate::lab::netns::{Namespace, command_output};
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The relay's address on the client's side; the other side's is [`RELAY_B`].
pub const RELAY_A: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 1);
/// The relay's address on the peer's side.
pub const RELAY_B: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 1);
/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 2);
/// A second address of the client's machine.
pub const CLIENT_TWO: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 3);
/// The peer.
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 2);

/// The relay's IPv6 address on the client's side; the other side's is [`RELAY_B_V6`].
pub const RELAY_A_V6: Ipv6Addr = Ipv6Addr::new(0xfd71, 1, 0, 0, 0, 0, 0, 1);
/// The relay's IPv6 address on the peer's side.
pub const RELAY_B_V6: Ipv6Addr = Ipv6Addr::new(0xfd71, 2, 0, 0, 0, 0, 0, 1);
/// The client's IPv6 address.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd71, 1, 0, 0, 0, 0, 0, 2);
/// The peer's IPv6 address.
pub const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd71, 2, 0, 0, 0, 0, 0, 2);

/// `client -- relay -- peer`, each its own namespace; deleted on drop.
#[derive(Debug)]
pub struct Row {
    /// Interface `a0`.
    pub client: Namespace,
    /// Interfaces `ra` and `rb`.
    pub relay: Namespace,
    /// Interface `b0`.
    pub peer: Namespace,
}

impl Row {
    /// Makes the namespaces `lr-<name>-{a,r,b}`. Nothing is attached to any interface yet.
    pub fn create(name: &str) -> Result<Self> {
        require_root()?;
        let namespace = |end: &str| Namespace::named(format!("lr-{name}-{end}"));
        let row = Self { client: namespace("a"), relay: namespace("r"), peer: namespace("b") };
        row.delete();
        for namespace in row.all() {
            namespace.create()?;
        }
        row.link(&row.client, "a0", "ra")?;
        row.client.ip(
            "addr add 10.71.1.2/24 dev a0\naddr add 10.71.1.3/24 dev a0\nroute add default via 10.71.1.1",
        )?;
        row.relay.ip("addr add 10.71.1.1/24 dev ra")?;
        row.link_peer()?;
        Ok(row)
    }

    /// Wires the peer to the relay, again if the link was deleted.
    pub fn link_peer(&self) -> Result<()> {
        self.link(&self.peer, "b0", "rb")?;
        self.peer.ip("addr add 10.71.2.2/24 dev b0\nroute add default via 10.71.2.1")?;
        self.relay.ip("addr add 10.71.2.1/24 dev rb")
    }

    /// Gives everybody an IPv6 address too, without the wait for duplicates.
    pub fn add_ipv6(&self) -> Result<()> {
        self.client
            .ip(&format!("addr add {CLIENT_V6}/64 dev a0 nodad\nroute add default via {RELAY_A_V6}"))?;
        self.relay
            .ip(&format!("addr add {RELAY_A_V6}/64 dev ra nodad\naddr add {RELAY_B_V6}/64 dev rb nodad"))?;
        self.peer.ip(&format!("addr add {PEER_V6}/64 dev b0 nodad\nroute add default via {RELAY_B_V6}"))
    }

    /// Both ends up, checksums complete: XDP would see half-made ones otherwise.
    fn link(&self, end: &Namespace, outer: &str, inner: &str) -> Result<()> {
        let peer = format!("peer name {inner} netns {}", self.relay.name());
        end.ip(&format!(
            "link add {outer} numrxqueues 2 numtxqueues 2 type veth {peer} numrxqueues 2 numtxqueues 2"
        ))?;
        for (namespace, link) in [(end, outer), (&self.relay, inner)] {
            namespace.output(Command::new("ethtool").args(["-K", link, "tx", "off"]))?;
            namespace.ip(&format!("link set {link} up"))?;
        }
        Ok(())
    }

    /// Attaches the program that passes everything to the outer ends, without which nothing that XDP sends arrives.
    pub fn pass_at_ends(&self) -> Result<()> {
        self.pass_at_client()?;
        self.pass_at_peer()
    }

    /// The same at the peer's end alone.
    pub fn pass_at_peer(&self) -> Result<()> {
        self.peer.ip(&format!("link set dev b0 xdp obj {} sec xdp", pass_object()?.display()))
    }

    /// The same at the client's end alone.
    pub fn pass_at_client(&self) -> Result<()> {
        self.client.ip(&format!("link set dev a0 xdp obj {} sec xdp", pass_object()?.display()))
    }

    /// Fixes all neighbours, for benchmarks whose sinks eat ARP.
    pub fn fix_neighbours(&self) -> Result<()> {
        let (a0, ra) = (mac(&self.client, "a0")?, mac(&self.relay, "ra")?);
        let (b0, rb) = (mac(&self.peer, "b0")?, mac(&self.relay, "rb")?);
        let fix = |namespace: &Namespace, address: Ipv4Addr, mac: &str, link: &str| {
            namespace.ip(&format!("neigh replace {address} lladdr {mac} dev {link} nud permanent"))
        };
        fix(&self.client, RELAY_A, &ra, "a0")?;
        fix(&self.peer, RELAY_B, &rb, "b0")?;
        fix(&self.relay, CLIENT, &a0, "ra")?;
        fix(&self.relay, PEER, &b0, "rb")
    }

    fn all(&self) -> [&Namespace; 3] {
        [&self.client, &self.relay, &self.peer]
    }

    fn delete(&self) {
        for namespace in self.all() {
            if let Err(error) = namespace.delete() {
                eprintln!("cannot delete {}: {error:#}", namespace.name());
            }
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        self.delete();
    }
}

/// MAC address of an interface.
pub fn mac(namespace: &Namespace, link: &str) -> Result<String> {
    let text = namespace.output(Command::new("ip").args(["-brief", "link", "show", "dev", link]))?;
    text.split_whitespace().nth(2).map(str::to_owned).with_context(|| format!("{link} has no MAC address"))
}

/// MAC address of an interface, as bytes.
pub fn mac_bytes(namespace: &Namespace, link: &str) -> Result<[u8; 6]> {
    let text = mac(namespace, link)?;
    let bytes: Vec<u8> = text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    <[u8; 6]>::try_from(bytes).ok().with_context(|| format!("{text} is not a MAC address"))
}

/// Index of an interface.
pub fn ifindex(namespace: &Namespace, link: &str) -> Result<u32> {
    let text = namespace.output(Command::new("ip").args(["-oneline", "link", "show", "dev", link]))?;
    let number = text.split(':').next().map(str::trim).and_then(|number| number.parse().ok());
    number.with_context(|| format!("{link} has no index"))
}

/// The program that passes everything, as `cargo xtask build-ebpf` leaves it.
pub fn pass_object() -> Result<PathBuf> {
    bpf_object("xdp-pass")
}

/// An object that `cargo xtask build-ebpf` makes.
pub fn bpf_object(name: &str) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let object = workspace.join(target).join("bpf").join(name);
    ensure!(object.exists(), "{} is missing: run `cargo xtask build-ebpf`", object.display());
    object.canonicalize().with_context(|| format!("cannot read {}", object.display()))
}

/// Network namespaces and kernel programs need root; a test without fails.
pub fn require_root() -> Result<()> {
    let id = command_output(Command::new("id").arg("-u"))?;
    ensure!(id.trim() == "0", "this needs root: run it with sudo");
    Ok(())
}
