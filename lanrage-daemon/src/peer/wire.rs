//! Where datagrams and packets leave: the tunnel's socket and the party's interface. Neither ever waits; what does
//! not fit is dropped, as on any network.

use super::firewall;
use super::ping::Pings;
use super::socket::Socket;
use super::tunnel::{TunnelSink, destination};
use crate::gateway::Gateway;
use crate::platform::Interface;
use lanrage_common::bulletin::{Board, Bulletin};
use lanrage_common::firewall::Firewall;
use lanrage_common::identity::WgKey;
use lanrage_common::lane::{Inbound, Lane, PORT, Trace, report_in};
use lanrage_common::path::PathAgent;
use lanrage_common::servers::Heard;
use lanrage_common::time::Now;
use lanrage_common::wire::PROTOCOL_UDP;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

/// Both ways out.
#[derive(Debug, Clone, Copy)]
pub struct Io<'a> {
    /// The tunnel's socket, which never blocks.
    pub socket: &'a Socket,
    /// The party's interface, while there is one.
    pub interface: Option<&'a Interface>,
}

/// Sends datagrams, and remembers where that failed at once.
pub struct Sender<'a> {
    socket: &'a Socket,
    /// The last address that the system refused.
    pub failed: Option<SocketAddr>,
}

impl<'a> Sender<'a> {
    /// Sends from `socket`.
    pub fn new(socket: &'a Socket) -> Self {
        Self { socket, failed: None }
    }

    /// Where it sends from.
    pub fn socket(&self) -> &'a Socket {
        self.socket
    }

    /// Sends in one piece or drops. A refusal means that this machine's own network carries less.
    pub fn send_whole(&self, to: SocketAddr, datagram: &[u8]) {
        if let Err(error) = self.socket.send_whole(datagram, to) {
            tracing::trace!(%to, %error, "not sent");
        }
    }

    /// Sends or drops.
    pub fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self.socket.send_to(datagram, to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::trace!(%to, %error, "not sent");
                self.failed = Some(to);
            }
            Ok(_) => {}
        }
    }
}

impl TunnelSink for Sender<'_> {
    fn transmit(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.send(to, datagram);
    }

    /// Only datagrams bring packets, and they go to a [`Delivery`].
    fn deliver(&mut self, _from: &WgKey, _packet: &[u8]) {}

    fn alive(&mut self, _from: &WgKey) {}
}

/// Takes what one datagram brings.
pub struct Delivery<'a> {
    pub sender: Sender<'a>,
    pub interface: Option<&'a Interface>,
    /// What wraps and unwraps group packets; none while the kernel does.
    pub lane: Option<&'a mut Lane>,
    /// What of other members reaches this machine.
    pub firewall: &'a mut Firewall,
    pub paths: &'a mut PathAgent,
    pub pings: &'a mut Pings,
    /// Takes what members say of arrivals.
    pub trace: &'a mut Trace,
    /// Takes what members say of themselves.
    pub board: &'a mut Board,
    /// Takes what hosts announce by themselves.
    pub heard: &'a mut Heard,
    /// Devices behind this one: nobody else is reached through it.
    pub gateway: &'a mut Gateway,
    /// Own address: the only one that members may send to, but for those of devices behind it.
    pub me: Ipv4Addr,
    /// Where the datagram came from.
    pub from: SocketAddr,
    pub now: Now,
}

impl TunnelSink for Delivery<'_> {
    fn transmit(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.sender.send(to, datagram);
    }

    fn alive(&mut self, from: &WgKey) {
        self.paths.handle_tunnel_alive(from, self.from, self.now);
    }

    fn deliver(&mut self, from: &WgKey, packet: &[u8]) {
        let Some(to) = destination(packet) else {
            return self.paths.handle_tunnel_rx(from, self.from, self.now);
        };
        let report = report_in(packet).filter(|_| to == self.me);
        if let Some(bulletin) = report.filter(|report| Bulletin::is_in(report)) {
            self.paths.handle_tunnel_alive(from, self.from, self.now);
            self.board.handle_bulletin(source(packet), bulletin, self.now.instant);
            return;
        }
        self.paths.handle_tunnel_rx(from, self.from, self.now);
        // anything else would let a member reach through this machine into its other networks
        if to != self.me {
            return self.gateway.send(packet, self.now.instant);
        }
        if self.pings.handle_packet(packet, self.now.instant) {
            return;
        }
        let source = source(packet);
        if let Some(report) = report {
            self.trace.handle_report(source, report, self.now.instant);
            return;
        }
        self.gateway.see_group(packet, source, self.now.instant);
        if is_for_lane(packet) {
            self.heard.handle_packet(packet, source, self.now.instant);
        }
        if !firewall::admits(self.firewall, packet, source, self.now.instant) {
            return;
        }
        let looked_at = self.lane.as_mut().map(|lane| lane.handle_inbound(packet, source, self.now.instant));
        let packet = match looked_at {
            None | Some(Inbound::Pass) => packet,
            Some(Inbound::Deliver(unwrapped)) => unwrapped,
            Some(Inbound::Drop(_)) => return,
        };
        if let Some(interface) = self.interface
            && let Err(error) = interface.send(packet)
        {
            tracing::trace!(%error, "not delivered");
        }
    }
}

/// Whether an IPv4 packet without options goes to the lane's UDP port: that of all members' packets to everybody, which is
/// all that the kernel's lane shows of them.
pub fn is_for_lane(packet: &[u8]) -> bool {
    packet.first() == Some(&0x45)
        && packet.get(9) == Some(&PROTOCOL_UDP)
        && packet.get(22..24) == Some(&PORT.to_be_bytes())
}

/// Of a packet that [`destination`] has looked at.
fn source(packet: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15])
}
