//! Real WireGuard sessions (boringtun) through the relay server.

use super::*;
use boringtun::noise::{Tunn, TunnResult};
use rand_core::OsRng;
use std::net::Ipv4Addr;
use x25519_dalek::{PublicKey, StaticSecret};

/// A member with a WireGuard session to the other one.
struct Side {
    address: SocketAddr,
    ticket: Ticket,
    tunnel: Tunn,
    received: Vec<Vec<u8>>,
}

struct World {
    bench: Bench,
    sides: [Side; 2],
}

impl World {
    fn new() -> Self {
        let mut bench = Bench::new();
        let secrets = [(); 2].map(|()| StaticSecret::random_from_rng(OsRng));
        let sides = [0, 1].map(|n: usize| {
            let key = WgKey(PublicKey::from(&secrets[n]).to_bytes());
            let other = PublicKey::from(&secrets[1 - n]);
            let index = u32::try_from(n).unwrap() + 1;
            Side {
                address: address(u8::try_from(n).unwrap()),
                ticket: Ticket { member: key, ..bench.ticket(0) },
                tunnel: Tunn::new(secrets[n].clone(), other, Some([9; 32]), None, index, None),
                received: Vec::new(),
            }
        });
        for side in &sides {
            let answer = bench.bind_with(side.address, &side.ticket);
            assert!(matches!(answer, Some(BindAnswer::Bound { .. })));
        }
        Self { bench, sides }
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        let mut buffer = [0; 2048];
        match self.sides[from].tunnel.encapsulate(packet, &mut buffer) {
            TunnResult::WriteToNetwork(datagram) => {
                let datagram = datagram.to_vec();
                self.carry(from, datagram);
            }
            TunnResult::Done => {}
            other => panic!("{other:?}"),
        }
    }

    fn start_handshake(&mut self, from: usize) {
        let mut buffer = [0; 2048];
        match self.sides[from].tunnel.format_handshake_initiation(&mut buffer, true) {
            TunnResult::WriteToNetwork(datagram) => {
                let datagram = datagram.to_vec();
                self.carry(from, datagram);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Takes a datagram through the relay, and whatever it leads to.
    fn carry(&mut self, from: usize, datagram: Vec<u8>) {
        let mut underway = vec![(from, datagram)];
        while let Some((from, datagram)) = underway.pop() {
            for (to, payload) in self.bench.receive(self.sides[from].address, &datagram) {
                let to = self.sides.iter().position(|side| side.address == to).unwrap();
                assert_ne!(to, from);
                let answers = self.sides[to].take(&payload);
                underway.extend(answers.into_iter().map(|answer| (to, answer)));
            }
        }
    }

    fn rebind(&mut self, side: usize, to: SocketAddr) {
        let ticket = Ticket { expires: self.bench.now.unix + 600, ..self.sides[side].ticket.clone() };
        self.sides[side].address = to;
        assert!(matches!(self.bench.bind_with(to, &ticket), Some(BindAnswer::Bound { .. })));
    }

    /// Both directions, each packet exactly once.
    fn assert_connected(&mut self) {
        for from in [0, 1] {
            let packet = packet();
            self.sides[1 - from].received.clear();
            self.send(from, &packet);
            assert_eq!(self.sides[1 - from].received, [packet]);
        }
        self.bench.assert_same_as_data_path();
    }
}

impl Side {
    /// What the tunnel wants to send after this datagram.
    fn take(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2048];
        let mut answers = Vec::new();
        let mut result = self.tunnel.decapsulate(None, datagram, &mut buffer);
        loop {
            match result {
                TunnResult::WriteToNetwork(answer) => answers.push(answer.to_vec()),
                TunnResult::WriteToTunnelV4(packet, _) => {
                    self.received.push(packet.to_vec());
                    return answers;
                }
                // crossing handshakes make one side drop what the other's has overtaken
                TunnResult::Done | TunnResult::Err(_) => return answers,
                other => panic!("{other:?}"),
            }
            result = self.tunnel.decapsulate(None, &[], &mut buffer);
        }
    }
}

fn packet() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(Ipv4Addr::new(10, 66, 0, 1).octets());
    packet.extend(Ipv4Addr::new(10, 66, 0, 2).octets());
    packet.extend([1, 2, 3, 4]);
    packet
}

#[test]
fn a_handshake_and_data_pass() {
    let mut world = World::new();
    world.send(0, &packet());
    assert_eq!(world.sides[1].received, [packet()], "the packet that started the handshake");
    world.assert_connected();
    assert_eq!((world.bench.server.flows(), world.bench.count(Reason::HandshakeForwarded)), (2, 2));
}

#[test]
fn rekeying_loses_nothing_and_the_old_flows_end() {
    let mut world = World::new();
    world.send(0, &packet());
    for round in 0..6u64 {
        world.assert_connected();
        for step in 0..6 {
            world.bench.pass(Duration::from_secs(20));
            for side in [0, 1] {
                let address = world.sides[side].address;
                world.rebind(side, address);
            }
            world.assert_connected();
            assert!(world.bench.server.flows() <= 4, "round {round}, step {step}");
        }
        world.start_handshake((round % 2) as usize);
    }
    world.assert_connected();
    assert_eq!(world.bench.count(Reason::HandshakeForwarded), 2 + 6 * 2);
}

#[test]
fn simultaneous_handshakes_settle() {
    let mut world = World::new();
    let mut buffer = [0; 2048];
    let both: Vec<_> = [0, 1]
        .map(|side: usize| match world.sides[side].tunnel.encapsulate(&packet(), &mut buffer) {
            TunnResult::WriteToNetwork(datagram) => (side, datagram.to_vec()),
            other => panic!("{other:?}"),
        })
        .into();
    for (side, datagram) in both {
        world.carry(side, datagram);
    }
    world.assert_connected();
}

#[test]
fn nat_rebinding_of_either_side_needs_no_handshake() {
    let mut world = World::new();
    world.send(0, &packet());
    world.assert_connected();
    for (side, port) in [(0, 50_001), (1, 50_002), (0, 50_003)] {
        let to = with_port(world.sides[side].address, port);
        world.rebind(side, to);
        world.assert_connected();
    }
    assert_eq!(world.bench.count(Reason::HandshakeForwarded), 2);
}

#[test]
fn a_rebinding_while_the_handshake_is_open_is_survived() {
    let mut world = World::new();
    let mut buffer = [0; 2048];
    let TunnResult::WriteToNetwork(initiation) = world.sides[0].tunnel.encapsulate(&packet(), &mut buffer)
    else {
        panic!()
    };
    let initiation = initiation.to_vec();
    let sent = world.bench.receive(world.sides[0].address, &initiation);
    let moved = with_port(world.sides[0].address, 50_000);
    world.rebind(0, moved);
    for response in world.sides[1].take(&sent[0].1) {
        world.carry(1, response);
    }
    world.assert_connected();
}

#[test]
fn a_bad_member_neither_reads_nor_steers_a_pair() {
    let mut world = World::new();
    world.bench.bind(9);
    world.send(0, &packet());
    let before = world.bench.installed.clone();
    for (flow, _) in before.clone() {
        for datagram in
            [data(flow.index), cookie(flow.index), response(1, flow.index, 0), response(flow.index, 1, 0)]
        {
            assert!(world.bench.receive(address(9), &datagram).is_empty());
        }
        for victim in 0..2 {
            let mut forged = initiation(flow.index, 0);
            let mac_key = wireguard_mac_key(&world.sides[victim].ticket.member);
            let mac = mac1(&mac_key, &forged[..116]);
            forged[116..132].copy_from_slice(&mac);
            world.bench.receive(address(9), &forged);
        }
    }
    for (flow, target) in &before {
        assert_eq!(world.bench.installed.get(flow), Some(target));
    }
    assert!(world.bench.count(Reason::IndexTaken) >= 2);
    world.assert_connected();
}

fn wireguard_mac_key(receiver: &WgKey) -> [u8; 32] {
    Blake2s256::new_with_prefix(b"mac1----").chain_update(receiver.0).finalize().into()
}

fn mac1(mac_key: &[u8; 32], covered: &[u8]) -> [u8; 16] {
    let mut mac = Blake2sMac::<U16>::new(mac_key.into());
    mac.update(covered);
    mac.finalize_fixed().into()
}
