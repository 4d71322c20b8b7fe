//! Copies of group packets for physical networks while this process carries the lane: by raw sockets, one a network.

use lanrage_common::lane::maps::Home;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Sockets for the networks that get copies.
#[derive(Debug, Default)]
pub struct HomeCopies {
    sockets: Vec<(Home, Option<socket2::Socket>)>,
    /// Copies sent.
    pub sent: u64,
}

impl HomeCopies {
    /// Sends an IPv4 packet to everybody on that network. What does not leave is lost, as on any network.
    pub fn send(&mut self, home: &Home, packet: &[u8]) {
        let Some(to) = packet.get(16..20) else { return };
        let to = SocketAddrV4::new(Ipv4Addr::new(to[0], to[1], to[2], to[3]), 0);
        if let Some(socket) = self.socket(home)
            && socket.send_to(packet, &to.into()).is_ok()
        {
            self.sent += 1;
        }
    }

    fn socket(&mut self, home: &Home) -> Option<&socket2::Socket> {
        if !self.sockets.iter().any(|(known, _)| known == home) {
            self.sockets.retain(|(known, _)| known.ifindex != home.ifindex);
            let socket = crate::platform::raw_socket(home.ifindex).inspect_err(|error| {
                tracing::warn!(%error, "this machine's own network gets no copies of what games send to everybody: grant CAP_NET_RAW");
            });
            self.sockets.push((*home, socket.ok()));
        }
        self.sockets.iter().find(|(known, _)| known == home)?.1.as_ref()
    }
}
