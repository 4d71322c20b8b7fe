//! The data path between real VLAN interfaces. Needs root and a kernel with VLANs (8021q), which not every development
//! machine has: `cargo xtask vm-test` runs it on Debian's.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "datapath/relay.rs"]
mod relay;

use anyhow::{Context, Result, ensure};
use lanrage_common::api::RelayMode;
use lanrage_daemon::config::RelayModeChoice;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::veth::{CLIENT, RELAY_A, Row};
use relay::{Relay, WIREGUARD, config, forwards, socket};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Command;

const VLANS: [u8; 2] = [10, 20];

/// The relay's address in a VLAN.
fn relay_in(vlan: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 72, vlan, 1)
}

/// The peer's.
fn peer_in(vlan: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 72, vlan, 2)
}

/// Both ends of the relay's second link in a VLAN. Tags stay in the frames, as the documentation asks for.
fn add_vlan(row: &Row, vlan: u8) -> Result<()> {
    for (namespace, link, address) in [(&row.relay, "rb", relay_in(vlan)), (&row.peer, "b0", peer_in(vlan))] {
        namespace.ip(&format!(
            "link add link {link} name {link}.{vlan} type vlan id {vlan}\n\
             addr add {address}/24 dev {link}.{vlan}\nlink set {link}.{vlan} up"
        ))?;
        offload(namespace, &format!("{link}.{vlan}"), "tx")?;
    }
    Ok(())
}

fn offload(namespace: &Namespace, link: &str, what: &str) -> Result<()> {
    namespace.output(Command::new("ethtool").args(["-K", link, what, "off"])).map(drop)
}

#[test]
fn packets_cross_between_untagged_networks_and_vlans() -> Result<()> {
    let row = Row::create("dpv")?;
    for (namespace, link) in [(&row.relay, "rb"), (&row.peer, "b0")] {
        offload(namespace, link, "rxvlan")?;
        offload(namespace, link, "txvlan")?;
    }
    VLANS.into_iter().try_for_each(|vlan| add_vlan(&row, vlan))?;
    row.pass_at_ends()?;
    let relay = Relay::open(&row, config(RelayModeChoice::XdpNative, &["ra", "rb"]));
    ensure!(relay.mode() == RelayMode::XdpNative, "{:?}", relay.ask(|datapath| datapath.report().clone()));

    let client = SocketAddrV4::new(CLIENT, WIREGUARD);
    let [ten, twenty] = VLANS.map(|vlan| SocketAddrV4::new(peer_in(vlan), WIREGUARD));
    let client_socket = socket(&row.client, client)?;
    let sockets: Vec<UdpSocket> =
        [ten, twenty].into_iter().map(|peer| socket(&row.peer, peer)).collect::<Result<_>>()?;
    let mut redirected = 0;
    for (n, vlan) in VLANS.into_iter().enumerate() {
        let (index, peer) = (n as u32 * 2, SocketAddrV4::new(peer_in(vlan), WIREGUARD));
        relay.install(client, index, peer);
        relay.install(peer, index + 1, client);
        forwards(&relay, &client_socket, RELAY_A, &sockets[n], index, 50)
            .with_context(|| format!("into VLAN {vlan}"))?;
        forwards(&relay, &sockets[n], relay_in(vlan), &client_socket, index + 1, 50)
            .with_context(|| format!("out of VLAN {vlan}"))?;
        redirected += 102;
    }
    ensure!(relay.counter("redirected") >= redirected, "the kernel did not forward it");

    relay.install(ten, 9, twenty);
    forwards(&relay, &sockets[0], relay_in(10), &sockets[1], 9, 50).context("from one VLAN into another")?;
    ensure!(relay.counter("forwarded") >= 51, "it did not go back by the interface it came in");
    Ok(())
}
