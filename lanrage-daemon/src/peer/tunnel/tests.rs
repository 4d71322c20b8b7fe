//! Two tunnels back to back, with a wire between them that tests can cut, bend and look at.

use super::userspace::UserspaceTunnel;
use super::*;
use lanrage_common::identity::Device;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

mod relayed;

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 66, 0, 1), Ipv4Addr::new(10, 66, 0, 2)];
const RELAY: &str = "192.0.2.9:3478";
const ENDPOINTS: [&str; 2] = ["192.0.2.1:1000", "192.0.2.2:2000"];

#[derive(Default)]
struct Collected {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    packets: Vec<Vec<u8>>,
    keepalives: usize,
}

impl TunnelSink for Collected {
    fn transmit(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.datagrams.push((to, datagram.to_vec()));
    }

    fn deliver(&mut self, _from: &WgKey, packet: &[u8]) {
        self.packets.push(packet.to_vec());
    }

    fn alive(&mut self, _from: &WgKey) {
        self.keepalives += 1;
    }
}

struct Pair {
    tunnels: [UserspaceTunnel; 2],
    sinks: [Collected; 2],
    keys: [WgKey; 2],
    now: Instant,
}

fn endpoint(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Pair {
    fn with_psks(psks: [[u8; 32]; 2], seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut devices = [Device::generate(&mut rng), Device::generate(&mut rng)];
        devices.sort_by_key(Device::wg_key); // so that side 0 starts first
        let keys = [devices[0].wg_key(), devices[1].wg_key()];
        let now = Instant::now();
        let tunnels = [0, 1].map(|side: usize| {
            let rng = StdRng::seed_from_u64(seed + 1 + side as u64);
            let mut tunnel = UserspaceTunnel::new(devices[side].wg_secret(), Box::new(rng));
            let other = 1 - side;
            let member =
                TunnelMember { key: keys[other], preshared_key: psks[side], address: ADDRESSES[other] };
            tunnel.set_member(member, now);
            tunnel
        });
        Self { tunnels, sinks: Default::default(), keys, now }
    }

    fn new() -> Self {
        Self::with_psks([[7; 32]; 2], 1)
    }

    fn set_path(&mut self, side: usize, path: TunnelPath) {
        self.tunnels[side].set_path(&self.keys[1 - side], Some(path), self.now, &mut self.sinks[side]);
    }

    fn connect(&mut self) {
        for side in [0, 1] {
            self.set_path(
                side,
                TunnelPath {
                    endpoint: endpoint(ENDPOINTS[1 - side]),
                    relay: None,
                    standby: None,
                    copy: None,
                },
            );
        }
        self.settle();
    }

    /// Carries datagrams, whatever their address, until both sides are silent. Returns how many crossed.
    fn settle(&mut self) -> usize {
        let mut crossed = 0;
        loop {
            let mut silent = true;
            for side in [0, 1] {
                for (_, datagram) in std::mem::take(&mut self.sinks[side].datagrams) {
                    silent = false;
                    crossed += 1;
                    let from = endpoint(ENDPOINTS[side]);
                    self.tunnels[1 - side].handle_datagram(
                        from,
                        &datagram,
                        self.now,
                        &mut self.sinks[1 - side],
                    );
                }
            }
            if silent {
                return crossed;
            }
        }
    }

    fn send(&mut self, side: usize, packet: &[u8]) -> bool {
        self.tunnels[side].send(packet, self.now, &mut self.sinks[side])
    }

    fn tick(&mut self, by: Duration) {
        self.now += by;
        for side in [0, 1] {
            self.tunnels[side].handle_timeout(self.now, &mut self.sinks[side]);
        }
    }

    fn has_session(&self, side: usize) -> bool {
        self.tunnels[side].stats(&self.keys[1 - side]).unwrap().handshake_age.is_some()
    }
}

fn packet(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet.extend_from_slice(payload);
    packet
}

#[test]
fn devices_behind_a_member_send_and_receive_through_it() {
    let mut pair = Pair::new();
    pair.connect();
    let (device, taken) = (Ipv4Addr::new(10, 66, 0, 9), ADDRESSES[1]);
    let exchange = |pair: &mut Pair, side: usize, source: Ipv4Addr, to: Ipv4Addr| {
        let packet = packet(source, to, b"hello");
        let taken = pair.tunnels[side].send(&packet, pair.now, &mut pair.sinks[side]);
        pair.settle();
        let arrived = std::mem::take(&mut pair.sinks[1 - side].packets);
        (taken, arrived == [packet])
    };
    assert_eq!(exchange(&mut pair, 1, device, ADDRESSES[0]), (true, false), "nobody's address yet");
    assert_eq!(exchange(&mut pair, 0, ADDRESSES[0], device), (false, false));
    let key = pair.keys[1];
    pair.tunnels[0].set_devices(&key, &[device, taken]);
    assert_eq!(exchange(&mut pair, 1, device, ADDRESSES[0]), (true, true));
    assert_eq!(exchange(&mut pair, 0, ADDRESSES[0], device), (true, true));
    assert_eq!(pair.tunnels[0].member_at(device), Some(key));
    pair.tunnels[0].set_devices(&key, &[]);
    assert_eq!(exchange(&mut pair, 1, device, ADDRESSES[0]), (true, false));
    assert_eq!(pair.tunnels[0].member_at(device), None);
    assert_eq!(exchange(&mut pair, 1, ADDRESSES[1], ADDRESSES[0]), (true, true), "its session goes on");
}

#[test]
fn handshake_completes_at_join_without_any_packet() {
    let mut pair = Pair::new();
    pair.connect();
    assert!(pair.has_session(0) && pair.has_session(1));
}

#[test]
fn only_the_lower_key_starts_and_the_other_follows_after_a_pause() {
    let mut pair = Pair::new();
    for side in [0, 1] {
        pair.set_path(
            side,
            TunnelPath { endpoint: endpoint(ENDPOINTS[1 - side]), relay: None, standby: None, copy: None },
        );
    }
    assert_eq!((pair.sinks[0].datagrams.len(), pair.sinks[1].datagrams.len()), (1, 0));
    pair.sinks[0].datagrams.clear(); // lost
    pair.tick(Duration::from_millis(499));
    assert!(pair.sinks[1].datagrams.is_empty());
    pair.tick(Duration::from_millis(2));
    assert_eq!(pair.sinks[1].datagrams.len(), 1);
}

#[test]
fn packets_cross_both_ways_and_are_counted() {
    let mut pair = Pair::new();
    pair.connect();
    for (side, payload) in [(0, &b"there"[..]), (1, b"back")] {
        let sent = packet(ADDRESSES[side], ADDRESSES[1 - side], payload);
        assert!(pair.send(side, &sent));
        pair.settle();
        assert_eq!(pair.sinks[1 - side].packets.pop(), Some(sent));
    }
    let stats = pair.tunnels[0].stats(&pair.keys[1]).unwrap();
    assert_eq!((stats.tx_bytes, stats.rx_bytes), (25, 24));
}

#[test]
fn packets_wait_for_the_first_path() {
    let mut pair = Pair::new();
    let sent: Vec<_> = (0..3).map(|n| packet(ADDRESSES[0], ADDRESSES[1], &[n])).collect();
    for packet in &sent {
        assert!(pair.send(0, packet));
    }
    assert!(pair.sinks[0].datagrams.is_empty(), "nothing can leave without a path");
    pair.connect();
    assert_eq!(pair.sinks[1].packets, sent);
}

/// As when the member has just bound and speaks, and its announcement of that is still on its way.
#[test]
fn packets_wait_where_a_session_has_lost_its_path() {
    let mut pair = Pair::new();
    pair.connect();
    let (member, now) = (pair.keys[1], pair.now);
    pair.tunnels[0].set_path(&member, None, now, &mut pair.sinks[0]);
    let sent: Vec<_> = (0..3).map(|n| packet(ADDRESSES[0], ADDRESSES[1], &[n])).collect();
    for packet in &sent {
        assert!(pair.send(0, packet));
    }
    pair.tick(Duration::from_millis(600));
    assert_eq!(pair.settle(), 0, "nothing can leave without a path");
    // the harness delivers everything from there
    let relay = endpoint(ENDPOINTS[1]);
    pair.set_path(0, TunnelPath { endpoint: relay, relay: Some(relay), standby: None, copy: None });
    pair.settle();
    pair.tick(TICK);
    pair.settle();
    assert_eq!(pair.sinks[1].packets, sent);
}

#[test]
fn a_wrong_preshared_key_never_makes_a_session() {
    let mut pair = Pair::with_psks([[7; 32], [8; 32]], 1);
    pair.connect();
    pair.send(0, &packet(ADDRESSES[0], ADDRESSES[1], b"secret"));
    pair.tick(Duration::from_secs(1));
    pair.settle();
    assert!(!pair.has_session(0) && pair.sinks[1].packets.is_empty());
}

#[test]
fn a_spoofed_inner_source_is_dropped() {
    let mut pair = Pair::new();
    pair.connect();
    pair.send(0, &packet(Ipv4Addr::new(10, 66, 0, 77), ADDRESSES[1], b"liar"));
    pair.settle();
    assert!(pair.sinks[1].packets.is_empty());
    assert_eq!(pair.tunnels[1].dropped().get("spoofed_source"), Some(&1));
}

#[test]
fn packets_to_nobody_are_refused() {
    let mut pair = Pair::new();
    pair.connect();
    assert!(!pair.send(0, &packet(ADDRESSES[0], Ipv4Addr::new(10, 66, 0, 77), b"hello?")));
    assert!(!pair.send(0, b"\x60 not IPv4"));
    assert_eq!(pair.tunnels[0].dropped().get("no_such_member"), Some(&2));
}

#[test]
fn replayed_datagrams_are_dropped() {
    let mut pair = Pair::new();
    pair.connect();
    pair.send(0, &packet(ADDRESSES[0], ADDRESSES[1], b"once"));
    let (_, datagram) = pair.sinks[0].datagrams[0].clone();
    pair.settle();
    pair.tunnels[1].handle_datagram(endpoint(ENDPOINTS[0]), &datagram, pair.now, &mut pair.sinks[1]);
    assert_eq!(pair.sinks[1].packets.len(), 1);
    assert_eq!(pair.tunnels[1].dropped().get("replayed"), Some(&1));
}

#[test]
fn moving_the_path_keeps_the_session() {
    let mut pair = Pair::new();
    pair.connect();
    let moved = endpoint("198.51.100.7:77");
    pair.set_path(0, TunnelPath { endpoint: moved, relay: None, standby: None, copy: None });
    pair.send(0, &packet(ADDRESSES[0], ADDRESSES[1], b"after"));
    assert_eq!(pair.sinks[0].datagrams.len(), 1, "no handshake, only the packet");
    assert_eq!((pair.sinks[0].datagrams[0].0, pair.sinks[0].datagrams[0].1[0]), (moved, 4));
}

#[test]
fn a_path_in_doubt_carries_packets_twice_and_they_arrive_once() {
    let mut pair = Pair::new();
    pair.connect();
    let (endpoint, copy) = (endpoint(ENDPOINTS[1]), Some(endpoint(RELAY)));
    pair.set_path(0, TunnelPath { endpoint, relay: None, standby: None, copy });
    pair.sinks[0].datagrams.clear();
    pair.send(0, &packet(ADDRESSES[0], ADDRESSES[1], b"twice"));
    let goals: Vec<_> = pair.sinks[0].datagrams.iter().map(|(to, _)| Some(*to)).collect();
    assert_eq!(goals, [Some(endpoint), copy]);
    pair.settle();
    assert_eq!(pair.sinks[1].packets.len(), 1);
}

#[test]
fn a_keepalive_confirms_an_address_once_there_is_a_session() {
    let mut pair = Pair::new();
    let (member, to) = (pair.keys[1], endpoint("198.51.100.7:77"));
    assert!(!pair.tunnels[0].confirm(&member, to, &mut pair.sinks[0]));
    assert!(pair.sinks[0].datagrams.is_empty(), "no handshake on that way");
    pair.connect();
    let before = pair.sinks[1].keepalives;
    assert!(pair.tunnels[0].confirm(&member, to, &mut pair.sinks[0]));
    assert_eq!(pair.sinks[0].datagrams[0].0, to);
    pair.settle();
    assert_eq!(pair.sinks[1].keepalives, before + 1);
}

#[test]
fn falling_back_to_a_relay_that_missed_the_handshake_shakes_hands_there() {
    let mut pair = Pair::new();
    pair.connect();
    let relay = endpoint(RELAY);
    pair.set_path(0, TunnelPath { endpoint: relay, relay: Some(relay), standby: None, copy: None });
    assert_eq!((pair.sinks[0].datagrams[0].0, pair.sinks[0].datagrams[0].1[0]), (relay, 1));
}

#[test]
fn handshakes_go_through_the_relay_while_data_goes_direct() {
    let mut pair = Pair::new();
    let relay = endpoint(RELAY);
    let direct = endpoint(ENDPOINTS[1]);
    pair.set_path(0, TunnelPath { endpoint: direct, relay: Some(relay), standby: None, copy: None });
    let goals: Vec<_> = (0..4)
        .map(|_| {
            pair.tick(Duration::from_secs(20));
            pair.sinks[0].datagrams.remove(0).0
        })
        .collect();
    assert_eq!(goals, [relay, relay, relay, direct], "the direct way is tried when the relay stays silent");
}

#[test]
fn unanswered_handshakes_start_over_under_a_fresh_index() {
    let mut pair = Pair::new();
    pair.set_path(0, TunnelPath { endpoint: endpoint(ENDPOINTS[1]), relay: None, standby: None, copy: None });
    let mut indexes = std::collections::BTreeSet::new();
    for _ in 0..40 {
        pair.tick(Duration::from_secs(1));
        for (_, datagram) in pair.sinks[0].datagrams.drain(..) {
            indexes.insert(u32::from_le_bytes(datagram[4..8].try_into().unwrap()) >> 8);
        }
    }
    assert!(indexes.len() >= 2, "{indexes:?}");
}

#[test]
fn a_restarted_member_is_heard_again() {
    let mut pair = Pair::new();
    pair.connect();
    let mut reborn = Pair::new();
    std::mem::swap(&mut pair.tunnels[0], &mut reborn.tunnels[0]);
    pair.set_path(0, TunnelPath { endpoint: endpoint(ENDPOINTS[1]), relay: None, standby: None, copy: None });
    pair.settle();
    let sent = packet(ADDRESSES[0], ADDRESSES[1], b"back");
    pair.send(0, &sent);
    pair.settle();
    assert_eq!(pair.sinks[1].packets.pop(), Some(sent));
}

#[test]
fn indexes_are_random() {
    let index = |seed| {
        let mut pair = Pair::with_psks([[7; 32]; 2], seed);
        pair.set_path(
            0,
            TunnelPath { endpoint: endpoint(ENDPOINTS[1]), relay: None, standby: None, copy: None },
        );
        let initiation = pair.sinks[0].datagrams.remove(0).1;
        u32::from_le_bytes(initiation[4..8].try_into().unwrap()) >> 8
    };
    let indexes: std::collections::BTreeSet<u32> = (0..64).map(|n| index(n * 10)).collect();
    assert!(indexes.len() >= 63);
    let high_bits: std::collections::BTreeSet<u32> = indexes.iter().map(|index| index >> 20).collect();
    assert!(high_bits.len() >= 12, "24 bits are used: {high_bits:?}");
}

#[test]
fn a_flood_is_answered_with_cookies_and_the_honest_member_still_gets_in() {
    let mut pair = Pair::new();
    pair.set_path(0, TunnelPath { endpoint: endpoint(ENDPOINTS[1]), relay: None, standby: None, copy: None });
    let initiation = pair.sinks[0].datagrams.remove(0).1;
    // a replay has a valid mac1, so it counts against the limit
    for _ in 0..300 {
        pair.tunnels[1].handle_datagram(endpoint("203.0.113.5:5"), &initiation, pair.now, &mut pair.sinks[1]);
    }
    let cookies = pair.sinks[1].datagrams.iter().filter(|(_, datagram)| datagram[0] == 3).count();
    assert!(cookies > 150, "{cookies}");
    assert!(pair.sinks[1].datagrams.iter().all(|(_, datagram)| datagram.len() <= initiation.len()));
    pair.sinks[1].datagrams.clear();
    pair.tick(Duration::from_millis(500)); // next try of side 0; side 1 is still under load
    pair.settle();
    assert!(pair.has_session(0), "the cookie is used at once");
}

#[test]
fn garbage_never_panics_nor_moves_anything() {
    let mut pair = Pair::new();
    pair.connect();
    let mut rng = StdRng::seed_from_u64(99);
    pair.send(0, &packet(ADDRESSES[0], ADDRESSES[1], &[0; 100]));
    let mut seeds = vec![pair.sinks[0].datagrams.remove(0).1];
    let mut other = Pair::with_psks([[7; 32]; 2], 5);
    other
        .set_path(0, TunnelPath { endpoint: endpoint(ENDPOINTS[1]), relay: None, standby: None, copy: None });
    seeds.push(other.sinks[0].datagrams.remove(0).1);
    for round in 0..100_000 {
        let mut datagram = seeds[round % seeds.len()].clone();
        if round % 3 == 0 {
            datagram = (0..rng.gen_range(0..200)).map(|_| rng.r#gen()).collect();
            if !datagram.is_empty() {
                datagram[0] = rng.gen_range(0..6);
            }
        } else {
            let bit = rng.gen_range(0..datagram.len() * 8);
            datagram[bit / 8] ^= 1 << (bit % 8);
            datagram.truncate(rng.gen_range(0..=datagram.len()));
        }
        pair.tunnels[1].handle_datagram(endpoint("203.0.113.5:5"), &datagram, pair.now, &mut pair.sinks[1]);
    }
    assert!(pair.sinks[1].packets.is_empty() && pair.sinks[1].datagrams.is_empty());
    let sent = packet(ADDRESSES[0], ADDRESSES[1], b"still here");
    pair.send(0, &sent);
    pair.settle();
    assert_eq!(pair.sinks[1].packets.pop(), Some(sent));
}
