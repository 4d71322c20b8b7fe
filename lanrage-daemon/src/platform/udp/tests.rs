//! Real sockets on loopback.

use super::*;
use socket2::{Domain, Protocol, Type};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

fn socket(address: &str) -> Socket {
    let address: SocketAddr = address.parse().unwrap();
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.bind(&address.into()).unwrap();
    Socket::new(socket).unwrap()
}

fn peer(address: &str) -> UdpSocket {
    let peer = UdpSocket::bind(address).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    peer
}

/// At the port of `socket`.
fn at(ip: &str, socket: &Socket) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), socket.bound().port())
}

/// What has come until now: sender, own address, bytes.
fn receive_all(socket: &Socket, inbox: &mut Inbox) -> Vec<(SocketAddr, Option<IpAddr>, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        match inbox.receive(socket) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
            Err(error) => panic!("{error}"),
        }
        for message in inbox.messages() {
            all.extend(
                message.datagrams().map(|range| (message.from, message.to, inbox.bytes()[range].to_vec())),
            );
        }
    }
}

fn received(peer: &UdpSocket) -> (SocketAddr, Vec<u8>) {
    let mut buffer = [0; 2048];
    let (length, from) = peer.recv_from(&mut buffer).unwrap();
    (from, buffer[..length].to_vec())
}

#[test]
fn everything_arrives_whole_and_in_order() {
    let (socket, mut inbox) = (socket("127.0.0.1:0"), Inbox::default());
    let peer = peer("127.0.0.1:0");
    let sent: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; usize::from(n) * 7]).collect();
    for datagram in &sent {
        peer.send_to(datagram, socket.bound()).unwrap();
    }
    let got = receive_all(&socket, &mut inbox);
    assert!(got.iter().all(|(from, ..)| *from == peer.local_addr().unwrap()));
    assert!(got.into_iter().map(|(.., bytes)| bytes).eq(sent));
}

#[cfg(target_os = "linux")]
#[test]
fn the_own_address_is_told_and_kept() {
    for (listen, from, addresses) in [
        ("0.0.0.0:0", "127.0.0.1:0", &["127.0.0.1", "127.0.0.2", "127.9.8.7"][..]),
        ("[::]:0", "[::1]:0", &["::1"]),
    ] {
        let (socket, mut inbox, peer) = (socket(listen), Inbox::default(), peer(from));
        for address in addresses {
            peer.send_to(b"question", at(address, &socket)).unwrap();
            let got = receive_all(&socket, &mut inbox);
            assert_eq!(
                got,
                [(peer.local_addr().unwrap(), Some(address.parse().unwrap()), b"question".to_vec())]
            );
            let way = Way { from: got[0].1, to: got[0].0, tos: 0 };
            socket.send(way, b"answer").unwrap();
            assert_eq!(received(&peer), (at(address, &socket), b"answer".to_vec()));
            let mut outbox = Outbox::default();
            outbox.push(way, b"ello");
            assert_eq!(outbox.flush(&socket).datagrams, 1);
            assert_eq!(received(&peer), (at(address, &socket), b"ello".to_vec()));
        }
    }
}

#[test]
fn what_leaves_together_arrives_one_by_one_and_in_order() {
    let (socket, mut outbox) = (socket("127.0.0.1:0"), Outbox::default());
    let peers = [peer("127.0.0.1:0"), peer("127.0.0.1:0")];
    let bytes: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
    // neighbours, gaps, longer and shorter ones, empty ones, turns between destinations
    let lengths = [100, 100, 100, 40, 100, 200, 200, 0, 0, 7, 7, 1400, 1400, 1400, 1399, 1400];
    let mut expected = [Vec::new(), Vec::new()];
    let mut start = 0;
    for (n, length) in lengths.into_iter().enumerate() {
        let to = usize::from(n % 3 == 2);
        let range = start..start + length;
        expected[to].push(bytes[range.clone()].to_vec());
        outbox.push(Way { from: None, to: peers[to].local_addr().unwrap(), tos: 0 }, &bytes[range]);
        start += length + 13 * (n % 2);
    }
    let sent = outbox.flush(&socket);
    assert_eq!((sent.datagrams, sent.full, sent.failed), (lengths.len() as u64, 0, 0));
    for (peer, expected) in peers.iter().zip(expected) {
        for datagram in expected {
            assert_eq!(received(peer), (socket.bound(), datagram));
        }
    }
    assert!(outbox.is_empty());
    assert_eq!(outbox.flush(&socket), Sent::default());
}

#[cfg(target_os = "linux")]
#[test]
fn a_train_leaves_as_one_and_may_come_as_one() {
    let (socket, mut outbox) = (socket("127.0.0.1:0"), Outbox::default());
    let (other, mut inbox) = (self::socket("127.0.0.1:0"), Inbox::default());
    let bytes = vec![7; 100 * 300];
    let way = Way { from: None, to: other.bound(), tos: 0x2a };
    for n in 0..100 {
        outbox.push(way, &bytes[n * 300..(n + 1) * 300]);
    }
    let sent = outbox.flush(&socket);
    assert_eq!((sent.datagrams, sent.segmented), (100, 100));
    inbox.receive(&other).unwrap();
    assert!(inbox.messages().len() < 100, "the kernel hands over whole trains");
    assert!(inbox.messages().iter().all(|message| message.tos == 0x2a), "DSCP and ECN survive");
    let datagrams: Vec<_> = inbox.messages().iter().flat_map(|message| message.datagrams()).collect();
    assert_eq!(datagrams.len(), 100);
    assert!(datagrams.iter().all(|range| range.len() == 300));
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_segmented_leaves_one_by_one() {
    let (socket, mut outbox) = (socket("127.0.0.1:0"), Outbox::default());
    let peer = peer("127.0.0.1:0");
    let to = peer.local_addr().unwrap();
    // no address of this machine: each is refused, and the next destination is served all the same
    let wrong = Way { from: Some("192.0.2.1".parse().unwrap()), to, tos: 0 };
    let right = Way { from: None, to, tos: 0 };
    let bytes = vec![1; 400];
    for n in 0..3 {
        outbox.push(wrong, &bytes[n * 100..n * 100 + 100]);
        outbox.push(right, &bytes[n * 100..n * 100 + 99]);
    }
    let sent = outbox.flush(&socket);
    assert_eq!((sent.datagrams, sent.failed, sent.full), (3, 3, 0));
    for _ in 0..3 {
        assert_eq!(received(&peer), (socket.bound(), vec![1; 99]));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn losses_in_the_receive_buffer_are_known() {
    let socket = socket("127.0.0.1:0");
    let peer = peer("127.0.0.1:0");
    assert_eq!(socket.lost(), 0);
    for _ in 0..2_000 {
        peer.send_to(&[0; 1400], socket.bound()).unwrap();
    }
    let arrived = receive_all(&socket, &mut Inbox::default()).len() as u64;
    assert!(socket.lost() > 0);
    assert_eq!(arrived + socket.lost(), 2_000);
}
