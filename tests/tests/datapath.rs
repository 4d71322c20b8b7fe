//! The data path as the relay opens it, between real sockets in network namespaces. Needs root.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "datapath/relay.rs"]
mod relay;

use anyhow::{Context, Result, ensure};
use lanrage_common::api::RelayMode;
use lanrage_common::binding::{binding_request, parse_binding_answer};
use lanrage_common::relay::{Flow, MemberLimits};
use lanrage_daemon::config::RelayModeChoice;
use lanrage_daemon::datapath::Datapath;
use lanrage_tests::veth::{
    CLIENT, CLIENT_TWO, CLIENT_V6, PEER, PEER_V6, RELAY_A, RELAY_A_V6, RELAY_B, RELAY_B_V6, Row,
};
use relay::{PORT, Relay, WIREGUARD, config, data, forwards, socket, target};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

fn both_ways(name: &str, mode: RelayModeChoice, expected: RelayMode) -> Result<()> {
    let row = Row::create(name)?;
    row.pass_at_ends()?;
    let relay = Relay::open(&row, config(mode, &["ra", "rb"]));
    ensure!(relay.mode() == expected, "{:?}", relay.ask(|datapath| datapath.report().clone()));
    let (client, peer) = (SocketAddrV4::new(CLIENT, WIREGUARD), SocketAddrV4::new(PEER, WIREGUARD));
    let client_socket = socket(&row.client, client)?;
    let peer_socket = socket(&row.peer, peer)?;
    relay.install(client, 0x0102_0304, peer);
    relay.install(peer, 0x0a0b_0c0d, client);
    ensure!(forwards(&relay, &client_socket, RELAY_A, &peer_socket, 0x0102_0304, 100)? == 100);
    ensure!(forwards(&relay, &peer_socket, RELAY_B, &client_socket, 0x0a0b_0c0d, 100)? == 100);
    ensure!(relay.counter("redirected") >= 202, "the kernel did not forward it");
    ensure!(relay.ask(|datapath| datapath.forwarded()) == relay.counter("redirected"));

    let second = SocketAddrV4::new(CLIENT_TWO, WIREGUARD);
    let second_socket = socket(&row.client, second)?;
    relay.install(client, 7, second);
    ensure!(forwards(&relay, &client_socket, RELAY_A, &second_socket, 7, 100)? == 100);
    ensure!(relay.counter("forwarded") >= 101, "the kernel did not send it back the way it came");

    relay.ask(move |datapath| datapath.remove(Flow { source: client.into(), index: 7 }));
    client_socket.send_to(&data(7, 0), SocketAddrV4::new(RELAY_A, PORT))?;
    ensure!(second_socket.recv_from(&mut [0; 64]).is_err(), "a removed flow is still forwarded");
    ensure!(relay.counter("no_flow") == 1);
    Ok(())
}

#[test]
fn native_xdp_forwards_both_ways_and_back_out_of_the_same_interface() -> Result<()> {
    both_ways("dpn", RelayModeChoice::Auto, RelayMode::XdpNative)
}

#[test]
fn generic_xdp_forwards_both_ways_and_back_out_of_the_same_interface() -> Result<()> {
    both_ways("dpg", RelayModeChoice::XdpGeneric, RelayMode::XdpGeneric)
}

#[test]
fn userspace_is_a_choice_and_says_so() -> Result<()> {
    let row = Row::create("dpu")?;
    let relay = Relay::open(&row, config(RelayModeChoice::Userspace, &[]));
    let report = relay.ask(|datapath| datapath.report().clone());
    ensure!(
        report.mode == RelayMode::Userspace && report.reason.is_some() && report.fix.is_some(),
        "{report:?}"
    );
    Ok(())
}

#[test]
fn a_missing_interface_is_named_with_its_cure() -> Result<()> {
    let row = Row::create("dpm")?;
    let relay = Relay::open(&row, config(RelayModeChoice::Auto, &["nosuch0"]));
    let report = relay.ask(|datapath| datapath.report().clone());
    ensure!(report.mode == RelayMode::Userspace, "{report:?}");
    ensure!(report.reason.is_some_and(|reason| reason.contains("nosuch0")));
    ensure!(report.fix.is_some_and(|fix| fix.contains("relay.interfaces")));
    Ok(())
}

/// A native data path with one flow from client to peer, shown to work.
struct OneWay {
    relay: Relay,
    client: UdpSocket,
    peer: UdpSocket,
    row: Row,
}

const INDEX: u32 = 0x0102_0304;
const SENDER: SocketAddrV4 = SocketAddrV4::new(CLIENT, WIREGUARD);

impl OneWay {
    fn open(name: &str) -> Result<Self> {
        let row = Row::create(name)?;
        row.pass_at_ends()?;
        let relay = Relay::open(&row, config(RelayModeChoice::XdpNative, &["ra", "rb"]));
        let (client, peer) = (SocketAddrV4::new(CLIENT, WIREGUARD), SocketAddrV4::new(PEER, WIREGUARD));
        relay.install(client, INDEX, peer);
        let (client, peer) = (socket(&row.client, client)?, socket(&row.peer, peer)?);
        let one_way = Self { relay, client, peer, row };
        one_way.works().context("at first")?;
        Ok(one_way)
    }

    fn works(&self) -> Result<()> {
        forwards(&self.relay, &self.client, RELAY_A, &self.peer, INDEX, 20).map(drop)
    }

    /// Sends one packet of that flow; how many the kernel passed up for want of a next hop.
    fn passed_up(&self, index: u32) -> Result<u64> {
        std::thread::sleep(Duration::from_millis(300));
        let before = self.relay.counter("no_next_hop");
        self.send(index)?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(self.relay.counter("no_next_hop") - before)
    }

    fn send(&self, index: u32) -> Result<()> {
        self.client
            .send_to(&data(index, 0), SocketAddrV4::new(RELAY_A, PORT))
            .map(drop)
            .context("cannot send")
    }
}

#[test]
fn an_unresolved_neighbour_is_left_to_the_daemon_until_it_answers() -> Result<()> {
    let one_way = OneWay::open("dpr")?;
    let late = SocketAddrV4::new(Ipv4Addr::new(10, 71, 2, 9), WIREGUARD);
    one_way.relay.install(SENDER, 9, late);
    ensure!(one_way.passed_up(9)? == 1, "nobody is at 10.71.2.9");
    one_way.row.peer.ip("addr add 10.71.2.9/24 dev b0")?;
    let socket = socket(&one_way.row.peer, late)?;
    forwards(&one_way.relay, &one_way.client, RELAY_A, &socket, 9, 20)?;
    one_way.works().context("the other flow afterwards")
}

#[test]
fn a_changed_mac_address_and_a_changed_route_are_followed() -> Result<()> {
    let one_way = OneWay::open("dpc")?;
    one_way.row.peer.ip("link set b0 address 02:00:00:00:07:07")?;
    one_way.row.relay.ip("neigh replace 10.71.2.2 lladdr 02:00:00:00:07:07 dev rb nud reachable")?;
    one_way.works().context("after the peer's MAC address changed")?;
    // The peer moves behind a router that lives at another address of its machine.
    one_way.row.peer.ip("addr add 10.71.2.77/24 dev b0")?;
    one_way.row.relay.ip("route add 10.71.2.2/32 via 10.71.2.77")?;
    one_way.works().context("after the route changed")?;
    one_way.row.relay.ip("route replace blackhole 10.71.2.2/32")?;
    ensure!(one_way.passed_up(INDEX)? == 1, "a destination without a route is still served");
    Ok(())
}

#[test]
fn a_destination_on_this_host_is_left_to_the_daemon() -> Result<()> {
    let one_way = OneWay::open("dpl")?;
    one_way.relay.install(SENDER, 5, SocketAddrV4::new(RELAY_B, WIREGUARD));
    ensure!(one_way.passed_up(5)? == 1, "a packet for this host left it");
    Ok(())
}

#[test]
fn an_interface_that_comes_back_is_used_again() -> Result<()> {
    let one_way = OneWay::open("dpi")?;
    one_way.row.relay.ip("link del rb")?;
    std::thread::sleep(Duration::from_millis(300));
    let report = one_way.relay.ask(|datapath| datapath.report().clone());
    ensure!(report.reason.is_some_and(|reason| reason.contains("rb")), "the loss is not reported");
    one_way.row.link_peer()?;
    one_way.row.pass_at_peer()?;
    one_way.works().context("after the interface came back")?;
    let report = one_way.relay.ask(|datapath| datapath.report().clone());
    ensure!(report.reason.is_none() && report.mode == RelayMode::XdpNative, "{report:?}");
    one_way.row.relay.ip("link del ra")?;
    one_way.row.relay.ip("link del rb")?;
    std::thread::sleep(Duration::from_millis(300));
    let report = one_way.relay.ask(|datapath| datapath.report().clone());
    ensure!(report.mode == RelayMode::Userspace && report.fix.is_some(), "nothing is attached: {report:?}");
    Ok(())
}

#[test]
fn a_full_table_refuses_cleanly_and_keeps_what_it_has() -> Result<()> {
    let one_way = OneWay::open("dpf")?;
    let peer = SocketAddrV4::new(PEER, WIREGUARD);
    let fill = move |datapath: &mut Datapath| -> Vec<bool> {
        (0..70)
            .map(|index| datapath.install(Flow { source: SENDER.into(), index }, target(peer)).is_ok())
            .collect()
    };
    let installed = one_way.relay.ask(fill);
    let room = installed.iter().take_while(|ok| **ok).count();
    ensure!(room == 63, "64 flows fit with the one that was there, not {}", room + 1);
    ensure!(installed[room..].iter().all(|ok| !ok), "a full table took another flow");
    one_way.works().context("the first flow")?;
    one_way.relay.ask(|datapath| datapath.remove(Flow { source: SENDER.into(), index: 0 }));
    one_way.relay.install(SENDER, 1000, peer);
    Ok(())
}

/// A relay between veths whose far ends swallow what native XDP sends, after it noticed that.
fn swallowed(row: &Row, mode: RelayModeChoice) -> Result<(Relay, UdpSocket)> {
    let relay = Relay::open(row, config(mode, &["ra", "rb"]));
    ensure!(relay.mode() == RelayMode::XdpNative);
    relay.install(SENDER, INDEX, SocketAddrV4::new(PEER, WIREGUARD));
    let client = socket(&row.client, SENDER)?;
    let start = std::time::Instant::now();
    while relay.mode() == RelayMode::XdpNative {
        ensure!(start.elapsed() < Duration::from_secs(30), "it goes on sending into the void");
        client.send_to(&data(INDEX, 0), SocketAddrV4::new(RELAY_A, PORT))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((relay, client))
}

#[test]
fn a_veth_that_swallows_what_native_xdp_sends_makes_it_step_down_to_generic() -> Result<()> {
    let row = Row::create("dps")?;
    let peer = socket(&row.peer, SocketAddrV4::new(PEER, WIREGUARD))?;
    let (relay, client) = swallowed(&row, RelayModeChoice::Auto)?;
    forwards(&relay, &client, RELAY_A, &peer, INDEX, 100)?;
    let report = relay.ask(|datapath| datapath.report().clone());
    ensure!(report.mode == RelayMode::XdpGeneric && report.reason.is_some(), "{report:?}");
    row.relay.ip("link del rb")?;
    row.link_peer()?;
    forwards(&relay, &client, RELAY_A, &peer, INDEX, 20).context("after the interface came back")?;
    let after = relay.ask(|datapath| datapath.report().clone());
    ensure!(after == report, "the reason for generic XDP was forgotten: {after:?}");
    Ok(())
}

#[test]
fn a_veth_that_swallows_what_only_native_xdp_may_send_leaves_it_to_the_daemon() -> Result<()> {
    let row = Row::create("dpx")?;
    let daemon = socket(&row.relay, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT))?;
    let (relay, client) = swallowed(&row, RelayModeChoice::XdpNative)?;
    let stays = relay.ask(|datapath| datapath.report().clone());
    ensure!(stays.mode == RelayMode::Userspace && stays.reason.is_some() && stays.fix.is_some(), "{stays:?}");
    std::thread::sleep(Duration::from_secs(6));
    client.send_to(&data(INDEX, 1), SocketAddrV4::new(RELAY_A, PORT))?;
    daemon.recv_from(&mut [0; 2048]).context("the packet did not reach the daemon")?;
    ensure!(relay.ask(|datapath| datapath.report().clone()) == stays, "it attached again");
    Ok(())
}

/// A relay of both IP versions between two members with an address of each.
struct Dual {
    relay: Relay,
    client: [(SocketAddr, UdpSocket); 2],
    peer: [(SocketAddr, UdpSocket); 2],
    _row: Row,
}

impl Dual {
    fn open(name: &str) -> Result<Self> {
        let row = Row::create(name)?;
        row.pass_at_ends()?;
        row.add_ipv6()?;
        let relay = Relay::open(&row, config(RelayModeChoice::XdpNative, &["ra", "rb"]));
        ensure!(
            relay.mode() == RelayMode::XdpNative,
            "{:?}",
            relay.ask(|datapath| datapath.report().clone())
        );
        let end = |namespace, address: IpAddr| -> Result<(SocketAddr, UdpSocket)> {
            let address = SocketAddr::new(address, WIREGUARD);
            Ok((address, socket(namespace, address)?))
        };
        let client = [end(&row.client, CLIENT.into())?, end(&row.client, CLIENT_V6.into())?];
        let peer = [end(&row.peer, PEER.into())?, end(&row.peer, PEER_V6.into())?];
        Ok(Self { relay, client, peer, _row: row })
    }
}

#[test]
fn ipv6_and_pairs_of_both_versions_are_forwarded() -> Result<()> {
    let dual = Dual::open("dp6")?;
    let via: [[IpAddr; 2]; 2] = [[RELAY_A.into(), RELAY_A_V6.into()], [RELAY_B.into(), RELAY_B_V6.into()]];
    for (number, (from, to)) in [(1, 1), (0, 1), (1, 0), (0, 0)].into_iter().enumerate() {
        let (there, back) = (100 + number as u32, 200 + number as u32);
        let (client, peer) = (&dual.client[from], &dual.peer[to]);
        dual.relay.install(client.0, there, peer.0);
        dual.relay.install(peer.0, back, client.0);
        forwards(&dual.relay, &client.1, via[0][from], &peer.1, there, 20)
            .with_context(|| format!("{} to {}", client.0, peer.0))?;
        forwards(&dual.relay, &peer.1, via[1][to], &client.1, back, 20)
            .with_context(|| format!("{} to {}", peer.0, client.0))?;
    }
    ensure!(dual.relay.counter("redirected") >= 160, "the kernel did not forward it");
    Ok(())
}

#[test]
fn stun_is_answered_by_the_kernel() -> Result<()> {
    let dual = Dual::open("dpt")?;
    for (version, own) in [(0, IpAddr::from(RELAY_A)), (1, IpAddr::from(RELAY_A_V6))] {
        let (address, socket) = &dual.client[version];
        socket.send_to(&binding_request([9; 12]), SocketAddr::new(own, PORT))?;
        let mut buffer = [0; 256];
        let (length, from) = socket.recv_from(&mut buffer).context("no answer")?;
        ensure!(from == SocketAddr::new(own, PORT));
        ensure!(
            parse_binding_answer(&buffer[..length]) == Some(([9; 12], *address)),
            "{:02x?}",
            &buffer[..length]
        );
    }
    ensure!(dual.relay.counter("stun_answered") == 2, "no daemon is there that could have answered");
    Ok(())
}

#[test]
fn a_member_is_held_to_its_allowance_and_strangers_are_dropped() -> Result<()> {
    let dual = Dual::open("dpq")?;
    let (client, socket) = (dual.client[0].0, &dual.client[0].1);
    let limits = MemberLimits { packets_per_s: 50, kbit_per_s: 0 };
    dual.relay.ask(move |datapath| datapath.admit(1, client, limits));
    dual.relay.install(client, 1, dual.peer[0].0);
    for counter in 0..500 {
        socket.send_to(&data(1, counter), SocketAddr::new(RELAY_A.into(), PORT))?;
    }
    std::thread::sleep(Duration::from_millis(100));
    let dropped = dual.relay.counter("rate_member");
    ensure!((300..500).contains(&dropped), "{dropped} of 500 at once were dropped");
    ensure!(dual.relay.ask(|datapath| datapath.member(1).dropped) == dropped);

    let stranger = dual.client[1].1.try_clone()?;
    let shout = |count: u64| -> Result<[u64; 2]> {
        for _ in 0..count {
            stranger.send_to(&[1; 148], SocketAddr::new(RELAY_A_V6.into(), PORT))?;
        }
        std::thread::sleep(Duration::from_millis(100));
        Ok([dual.relay.counter("not_data"), dual.relay.counter("unbound")])
    };
    ensure!(shout(100)? == [100, 0], "before everybody is known, everything is passed up");
    dual.relay.ask(Datapath::enforce);
    ensure!(shout(100)? == [100, 100], "strangers get through");
    let member = dual.client[1].0;
    dual.relay.ask(move |datapath| datapath.admit(2, member, limits));
    ensure!(shout(10)? == [110, 100], "a member does not get through");
    dual.relay.ask(move |datapath| datapath.dismiss(member));
    ensure!(shout(10)? == [110, 110], "a member who has left gets through");
    Ok(())
}
