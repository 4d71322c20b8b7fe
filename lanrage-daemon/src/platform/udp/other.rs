//! Systems without batches: one datagram at a time, and no word of this machine's own address.

use super::{Message, Sent, Way};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use std::io;
use std::net::SocketAddr;

/// Largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// A socket that never blocks.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    bound: SocketAddr,
}

impl Socket {
    /// Takes a bound socket.
    pub fn new(socket: socket2::Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket.into());
        let bound = socket.local_addr()?;
        Ok(Self { socket, bound })
    }

    /// Where it is bound.
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Has `registry` tell when there is something to receive: once for each time that [`Inbox::receive`] found nothing.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// Sends one datagram.
    pub fn send(&self, way: Way, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, way.to).map(drop)
    }

    /// Not known.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Not known.
    pub fn lost(&self) -> u64 {
        0
    }
}

/// Where a received datagram lies until the next one.
#[derive(Debug)]
pub struct Inbox {
    bytes: Box<[u8]>,
    messages: Vec<Message>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; MAX_DATAGRAM].into(), messages: Vec::with_capacity(1) }
    }
}

impl Inbox {
    /// Receives what is there, at most a batch; [`io::ErrorKind::WouldBlock`] when there is nothing.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        self.messages.clear();
        let (length, from) = socket.socket.recv_from(&mut self.bytes)?;
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        self.messages.push(Message { from, to: None, tos: 0, start: 0, length, segment: length.max(1) });
        Ok(())
    }

    /// Whether there may be more of what came last.
    pub fn is_full(&self) -> bool {
        false
    }

    /// What came last.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The bytes of all messages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Datagrams to be sent through one socket.
#[derive(Debug, Default)]
pub struct Outbox(Vec<(Way, Vec<u8>)>);

impl Outbox {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.0.iter().map(|(_, datagram)| datagram.len()).sum()
    }

    /// Adds a datagram. Those of one way leave in the order in which they were added.
    pub fn push(&mut self, way: Way, datagram: &[u8]) {
        self.0.push((way, datagram.to_vec()));
    }

    /// Sends everything.
    pub fn flush(&mut self, socket: &Socket) -> Sent {
        let mut sent = Sent::default();
        for (way, datagram) in self.0.drain(..) {
            match socket.send(way, &datagram) {
                Ok(()) => sent.datagrams += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sent.full += 1,
                Err(_) => sent.failed += 1,
            }
        }
        sent
    }
}
