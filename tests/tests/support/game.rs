//! Sockets as games have them, and what they hear.

use lanrage_tests::lab::netns::Namespace;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
/// After this, what has not come does not come.
const SILENCE: Duration = Duration::from_millis(700);

/// A game's socket, at all addresses.
pub fn game(place: &Namespace, port: u16) -> UdpSocket {
    game_at(place, Ipv4Addr::UNSPECIFIED, port)
}

/// A game's socket, at this address.
pub fn game_at(place: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = place.play(|| UdpSocket::bind((address, port))).unwrap().unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

/// Everything that comes within a time, or until `enough` have come and it is silent.
pub fn receive(socket: &UdpSocket, enough: usize) -> Vec<(Vec<u8>, SocketAddr)> {
    let (mut got, mut buffer) = (Vec::new(), vec![0; 65_536]);
    let (start, mut last) = (Instant::now(), Instant::now());
    while start.elapsed() < PATIENCE && (got.len() < enough || last.elapsed() < SILENCE) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            got.push((buffer[..length].to_vec(), from));
            last = Instant::now();
        }
    }
    got
}

/// That comes once and nothing else.
pub fn exactly(socket: &UdpSocket, text: &[u8], from: (Ipv4Addr, u16)) {
    assert_eq!(receive(socket, 1), [(text.to_vec(), from.into())], "exactly once, from {from:?}");
}

/// Nothing comes.
pub fn nothing(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let got = socket.recv_from(&mut buffer);
    assert!(got.is_err(), "it crossed: {got:?} {:02x?}", &buffer[..64]);
}
