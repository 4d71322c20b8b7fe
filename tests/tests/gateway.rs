//! Devices without LANrage behind a gateway. Needs root.
#![allow(clippy::unwrap_used)]

#[path = "gateway/lan.rs"]
mod lan;
#[path = "gateway/wireguard.rs"]
mod wireguard;

mod support;

use lanrage_common::api::GatewayStatus;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::role::Role;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use support::TestLab;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const EVERYBODY: Ipv4Addr = Ipv4Addr::BROADCAST;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 10, 11, 12);
/// The gateway on the network that it shares with the device, and the device.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);
const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 50);
const PATIENCE: Duration = Duration::from_secs(10);

/// A machine that knows nothing of LANrage, on a network of its own, whose switch it is too: `br0`.
struct Console(Namespace);

impl Console {
    /// With peer 1, which has `eth1` there.
    fn beside(lab: &TestLab) -> Self {
        Self::on_network(lab, "dev", DEVICE, ("eth1", GATEWAY))
    }

    /// On a network with peer 1, which has that interface and address there.
    fn on_network(lab: &TestLab, name: &str, own: Ipv4Addr, (interface, gateway): (&str, Ipv4Addr)) -> Self {
        let peer = lab.namespace(Role::Peer(1));
        let console = Namespace::named(format!("{}-{name}", peer.name().trim_end_matches("-p1")));
        if console.exists() {
            console.clear().unwrap();
        }
        console.create().unwrap();
        // without one of its own it would take another Ethernet address with every cable
        let [.., net, last] = own.octets();
        console
            .ip(&format!(
                "link add br0 address 02:00:00:00:{net:02x}:{last:02x} type bridge\nlink set br0 up"
            ))
            .unwrap();
        console.ip(&format!("addr add {own}/24 brd + dev br0\nroute add default via {gateway}")).unwrap();
        let console = Self(console);
        console.plug_in(&peer, interface, gateway);
        console
    }

    /// Lays a cable to a machine.
    fn plug_in(&self, place: &Namespace, interface: &str, address: Ipv4Addr) {
        let port = format!("to-{}", &place.name()[place.name().len() - 2..]);
        place
            .ip(&format!("link add {interface} type veth peer name {port} netns {}", self.0.name()))
            .unwrap();
        self.0.ip(&format!("link set {port} master br0\nlink set {port} up")).unwrap();
        place.ip(&format!("link set {interface} up\naddr add {address}/24 brd + dev {interface}")).unwrap();
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Err(error) = self.0.clear() {
            eprintln!("cannot remove the device: {error:#}");
        }
    }
}

/// A connection that carries something both ways; where the server sees it come from.
fn connect(server: &Namespace, client: &Namespace, to: (Ipv4Addr, u16)) -> Ipv4Addr {
    let listener = server.play(|| TcpListener::bind((ANY, to.1))).unwrap().unwrap();
    let mut asker = client.run(|| TcpStream::connect_timeout(&to.into(), PATIENCE)).unwrap().unwrap();
    let (mut answerer, from) = listener.accept().unwrap();
    for stream in [&asker, &answerer] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    let (question, mut heard) = (vec![5; 200_000], vec![0; 200_000]);
    std::thread::scope(|scope| {
        scope.spawn(|| asker.write_all(&question).unwrap());
        answerer.read_exact(&mut heard).unwrap();
    });
    assert_eq!(heard, question);
    std::thread::scope(|scope| {
        scope.spawn(|| answerer.write_all(&question).unwrap());
        asker.read_exact(&mut heard).unwrap();
    });
    let SocketAddr::V4(from) = from else { panic!("{from}") };
    *from.ip()
}

fn gateway_status(lab: &TestLab) -> GatewayStatus {
    let text = lab.lanrage_output(Role::Peer(1), &["gateway", "--json"]).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Addresses of the devices behind the gateway, as peer `n` knows them.
fn devices(lab: &TestLab, n: u8) -> Vec<Ipv4Addr> {
    let party = lab.daemon_status(Role::Peer(n)).unwrap().party.unwrap();
    party.members.iter().flat_map(|member| &member.devices).map(|device| device.address).collect()
}
