//! A TURN client, just enough of it: allocations with one bound channel each, by which coturn relays ChannelData.

use crate::lab::netns::Namespace;
use anyhow::{Context, Result, bail, ensure};
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

const COOKIE: u32 = 0x2112_A442;
const HEADER: usize = 20;
/// STUN methods and classes as they make message types (RFC 8656, section 17).
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
const SUCCESS: u16 = 0x0100;
const CHANNEL_NUMBER: u16 = 0x000C;
const LIFETIME: u16 = 0x000D;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// The channel that every allocation binds.
pub const CHANNEL: u16 = 0x4000;
/// Requests under way at once.
const WINDOW: usize = 64;
const ATTEMPTS: usize = 4;

/// Makes an allocation with a channel to `peer` from each of these addresses. The sockets are closed again: a server
/// knows its clients by their address. Stops at the first that the server refuses; gives how many it granted.
pub fn allocate(
    namespace: &Namespace,
    server: SocketAddrV4,
    clients: &[SocketAddrV4],
    peer: SocketAddrV4,
) -> Result<usize> {
    namespace.run(|| {
        let mut granted = 0;
        for window in clients.chunks(WINDOW) {
            let sockets = window.iter().map(|client| open(*client, server)).collect::<Result<Vec<_>>>()?;
            let allocated = ask(&sockets, ALLOCATE, &allocate_attributes())?;
            let bound = ask(&sockets[..allocated], CHANNEL_BIND, &channel_attributes(peer))?;
            ensure!(bound == allocated, "the TURN server allocates, but binds no channel");
            granted += bound;
            if bound < window.len() {
                break;
            }
        }
        Ok(granted)
    })?
}

fn open(client: SocketAddrV4, server: SocketAddrV4) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(client).with_context(|| format!("cannot send from {client}"))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

/// Sends a request from each socket, and again where no answer comes; how many succeeded before the first refusal.
fn ask(sockets: &[UdpSocket], method: u16, attributes: &[u8]) -> Result<usize> {
    for (at, socket) in sockets.iter().enumerate() {
        socket.send(&request(method, at as u32, attributes))?;
    }
    for (at, socket) in sockets.iter().enumerate() {
        if !succeeds(socket, method, at as u32, attributes)? {
            return Ok(at);
        }
    }
    Ok(sockets.len())
}

fn succeeds(socket: &UdpSocket, method: u16, transaction: u32, attributes: &[u8]) -> Result<bool> {
    let mut answer = [0; 1500];
    for _ in 0..ATTEMPTS {
        match socket.recv(&mut answer) {
            Ok(length) if length >= HEADER => {
                return Ok(u16::from_be_bytes([answer[0], answer[1]]) == method | SUCCESS);
            }
            _ => socket.send(&request(method, transaction, attributes)).map(drop)?,
        }
    }
    bail!("the TURN server does not answer");
}

fn request(method: u16, transaction: u32, attributes: &[u8]) -> Vec<u8> {
    let mut message = method.to_be_bytes().to_vec();
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(COOKIE.to_be_bytes());
    message.extend([0; 8]);
    message.extend(transaction.to_be_bytes());
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = kind.to_be_bytes().to_vec();
    attribute.extend((value.len() as u16).to_be_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn allocate_attributes() -> Vec<u8> {
    [attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]), attribute(LIFETIME, &600u32.to_be_bytes())].concat()
}

fn channel_attributes(peer: SocketAddrV4) -> Vec<u8> {
    let mut address = vec![0, 1];
    address.extend((peer.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
    address.extend((peer.ip().to_bits() ^ COOKIE).to_be_bytes());
    let [high, low] = CHANNEL.to_be_bytes();
    [attribute(CHANNEL_NUMBER, &[high, low, 0, 0]), attribute(XOR_PEER_ADDRESS, &address)].concat()
}

/// A ChannelData message around `data` (RFC 8656, section 12.4).
pub fn channel_data(data: &[u8]) -> Vec<u8> {
    [&CHANNEL.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_channel_bind_names_channel_and_peer() {
        let peer = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 32853);
        let message = request(CHANNEL_BIND, 1, &channel_attributes(peer));
        assert_eq!(message[..8], [0x00, 0x09, 0x00, 20, 0x21, 0x12, 0xA4, 0x42]);
        assert_eq!(message[20..28], [0x00, 0x0C, 0x00, 0x04, 0x40, 0x00, 0x00, 0x00]);
        // The XOR'd address of RFC 5769, section 2.2.
        assert_eq!(message[28..], [0x00, 0x12, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    }

    #[test]
    fn channel_data_has_four_bytes_more() {
        assert_eq!(channel_data(&[4, 0, 0]), [0x40, 0, 0, 3, 4, 0, 0]);
    }
}
