//! The userspace plane under what the internet does to it: both families, several workers, floods.

use super::super::*;
use super::forwarding::{Member, PATIENCE, Relay, connect, packet, relay_with, status_when};
use lanrage_common::relay::MemberLimits;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::timeout;
use x25519_dalek::StaticSecret;

/// On all addresses of this machine.
async fn relay(workers: u16) -> Relay {
    relay_with(RelayConfig { listen: "0.0.0.0:0".parse().unwrap(), workers, ..RelayConfig::default() }).await
}

/// The relay at one of this machine's addresses.
fn at(relay: &Relay, ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), relay.address.port())
}

/// Two members that reach the relay at these addresses.
async fn pair_at(relay: &Relay, [a, b]: [&str; 2], limits: MemberLimits) -> (Member, Member) {
    let secrets = [StaticSecret::random_from_rng(OsRng), StaticSecret::random_from_rng(OsRng)];
    (
        Member::bind_at(relay, at(relay, a), limits, &secrets[0], &secrets[1]).await,
        Member::bind_at(relay, at(relay, b), limits, &secrets[1], &secrets[0]).await,
    )
}

async fn connected_at(relay: &Relay, addresses: [&str; 2]) -> (Member, Member) {
    let (mut a, mut b) = pair_at(relay, addresses, MemberLimits::default()).await;
    connect(relay, &mut a, &mut b).await;
    (a, b)
}

/// There and back, `count` times, in turn.
async fn talk(relay: &Relay, a: &mut Member, b: &mut Member, count: u32) {
    for n in 0..count {
        a.send(relay, &packet(n)).await;
        assert_eq!(b.receive_packet(relay).await, packet(n));
        b.send(relay, &packet(n)).await;
        assert_eq!(a.receive_packet(relay).await, packet(n));
    }
}

#[tokio::test]
async fn members_of_both_families_talk_and_hear_the_address_they_spoke_to() {
    let relay = relay(2).await;
    for addresses in [["127.0.0.1", "::1"], ["::1", "::1"], ["127.0.0.1", "127.0.0.2"], ["127.3.2.1", "::1"]]
    {
        // every datagram that a member receives is checked to come from the address it sent to
        let (mut a, mut b) = connected_at(&relay, addresses).await;
        talk(&relay, &mut a, &mut b, 20).await;
    }
}

#[tokio::test]
async fn several_workers_share_the_members() {
    let mut relay = relay(4).await;
    let mut pairs = Vec::new();
    for _ in 0..8 {
        pairs.push(connected_at(&relay, ["127.0.0.1", "127.0.0.1"]).await);
    }
    for (a, b) in &mut pairs {
        talk(&relay, a, b, 10).await;
    }
    // of the three, one is the keepalive that ends a handshake
    let forwarded = 8 * (3 + 20);
    let status = status_when(&mut relay, |status| status.userspace_forwarded >= forwarded).await;
    assert_eq!(status.userspace_forwarded, forwarded);
    assert_eq!(status.userspace["forwarded"], forwarded);
    assert_eq!(status.workers.len(), if cfg!(target_os = "linux") { 4 } else { 1 });
    assert_eq!(status.workers.iter().map(|worker| worker.forwarded).sum::<u64>(), forwarded);
    #[cfg(target_os = "linux")]
    assert!(status.workers.iter().filter(|worker| worker.forwarded > 0).count() > 1, "{:?}", status.workers);
}

/// Data with this much inside, and its WireGuard counter.
async fn send_raw(relay: &Relay, from: &mut Member, length: usize) {
    let mut inner = packet(0);
    inner.resize(length, 0);
    inner[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    from.send(relay, &inner).await;
}

async fn counter(at: &Member) -> u64 {
    let mut buffer = [0; 2048];
    let (length, _) = timeout(PATIENCE, at.socket.recv_from(&mut buffer)).await.expect("forwarded").unwrap();
    assert!(length >= 32 && buffer[0] == 4);
    u64::from_le_bytes(buffer[8..16].try_into().unwrap())
}

#[tokio::test]
async fn a_flow_keeps_its_order_whatever_the_sizes() {
    let relay = relay(3).await;
    let (mut a, b) = connected_at(&relay, ["127.0.0.1", "127.0.0.1"]).await;
    let mut last = 0;
    for burst in 0..50 {
        for n in 0..40 {
            let length = if (n / 5 + burst) % 3 == 0 { 1400 } else { 24 + n * 7 % 300 };
            send_raw(&relay, &mut a, length).await;
        }
        for _ in 0..40 {
            let counter = counter(&b).await;
            assert!(counter > last, "{counter} after {last}");
            last = counter;
        }
    }
}

#[tokio::test]
async fn a_ticket_limits_its_member_and_no_other() {
    let mut relay = relay(2).await;
    let limits = MemberLimits { packets_per_s: 100, kbit_per_s: 0 };
    let (mut a, mut b) = pair_at(&relay, ["127.0.0.1", "127.0.0.1"], limits).await;
    let (mut c, mut d) = connected_at(&relay, ["127.0.0.1", "127.0.0.1"]).await;
    connect(&relay, &mut a, &mut b).await;
    for _ in 0..500 {
        send_raw(&relay, &mut a, 24).await;
    }
    let of_all =
        |status: &RelayStatus| status.userspace_forwarded + status.userspace.get("rate_member").unwrap_or(&0);
    // a quarter second's packets are 25, but a bucket holds 64 at least
    let status = status_when(&mut relay, |status| of_all(status) >= 506).await;
    let limited = status.userspace["rate_member"];
    assert_eq!(of_all(&status), 506);
    assert!((200..=440).contains(&limited), "{limited}");
    talk(&relay, &mut c, &mut d, 200).await;
    let status = status_when(&mut relay, |status| of_all(status) >= 906).await;
    assert_eq!(status.userspace["rate_member"], limited, "b, c and d sent no more than they may");
}

/// Sends junk of all kinds as fast as it can until it is dropped, and counts it.
struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Flood {
    fn at(relay: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..2).map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || flood(relay, &stop))
        });
        Self { threads: threads.collect(), stop }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    }
}

fn flood(relay: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut stun = vec![0; 108];
    stun[..8].copy_from_slice(&[0, 1, 0, 88, 0x21, 0x12, 0xa4, 0x42]);
    let mut data = vec![7; 100];
    data[..4].copy_from_slice(&[4, 0, 0, 0]);
    let mut handshake = vec![7; 148];
    handshake[..4].copy_from_slice(&[1, 0, 0, 0]);
    let junk = [stun, data, handshake, vec![9; 600], vec![4], Vec::new()];
    let sockets: Vec<_> = (0..16).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut sent = 0;
    while !stop.load(Relaxed) {
        for (socket, junk) in sockets.iter().zip(junk.iter().cycle()) {
            sent += u64::from(socket.send_to(junk, relay).is_ok());
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_junk_stops_neither_forwarding_nor_binding() {
    let mut relay = relay(2).await;
    let (mut a, b) = connected_at(&relay, ["127.0.0.1", "127.0.0.1"]).await;
    let flood = Flood::at(at(&relay, "127.0.0.1"));
    let (wanted, mut arrived, mut sent) = (1_000, 0, 0);
    while arrived < wanted {
        send_raw(&relay, &mut a, 200).await;
        sent += 1;
        let mut buffer = [0; 2048];
        // the flood may push some out of the sockets' buffers
        let forwarded = timeout(Duration::from_millis(100), b.socket.recv_from(&mut buffer)).await;
        arrived += u32::from(forwarded.is_ok());
        assert!(sent < 2 * wanted, "{arrived} of {sent} arrived");
    }
    pair_at(&relay, ["127.0.0.1", "127.0.0.1"], MemberLimits::default()).await;
    let junk = flood.stop();
    let status = status_when(&mut relay, |status| status.bindings == 4).await;
    let dropped: u64 =
        ["unbound", "malformed", "unknown_protocol"].iter().map(|reason| status.userspace[*reason]).sum();
    assert!(junk > 10_000 && dropped > junk / 20, "{dropped} of {junk}: {:?}", status.userspace);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_relay_stops_when_asked() {
    let relay = relay(2).await;
    let flood = Flood::at(at(&relay, "127.0.0.1"));
    let Relay { mut handle, _trigger, address, .. } = relay;
    tokio::time::sleep(Duration::from_millis(100)).await;
    _trigger.request();
    while timeout(PATIENCE, handle.status.changed()).await.expect("it stops").is_ok() {}
    drop(UdpSocket::bind(("0.0.0.0", address.port())).expect("its sockets are closed"));
    assert!(flood.stop() > 0);
}

#[tokio::test]
async fn a_second_relay_finds_the_port_taken() {
    let first = relay(3).await;
    let state = tempfile::tempdir().unwrap();
    let (_trigger, shutdown) = crate::shutdown::channel();
    let listen = SocketAddr::from(([0; 4], first.address.port()));
    let config = RelayConfig { listen, control: Some("http://127.0.0.1:9".into()), ..RelayConfig::default() };
    let error = start(&config, state.path(), shutdown).await.unwrap_err().to_string();
    assert!(error.contains("is taken by") && error.contains("relay.listen"), "{error}");
}
