//! A longer way to a server: a UDP proxy that holds every datagram back for a while, each way.

use super::netns::Namespace;
use anyhow::{Context as _, Result};
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often sockets are looked at.
const POLL: Duration = Duration::from_micros(500);

/// Runs until dropped.
#[derive(Debug)]
pub struct Detour {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A client's own socket towards the server, so that the server tells clients apart.
struct Client {
    address: SocketAddr,
    upstream: UdpSocket,
}

struct Proxy {
    namespace: Namespace,
    listener: UdpSocket,
    server: SocketAddr,
    delay: Duration,
    clients: Vec<Client>,
    by_address: HashMap<SocketAddr, usize>,
    /// What is on its way: when it arrives, whose it is, and whether it goes to the server. All take equally long.
    waiting: VecDeque<(Instant, usize, bool, Vec<u8>)>,
}

impl Detour {
    /// Takes datagrams at `listen` in the namespace, and brings them to `server` after `delay`, and answers back.
    pub fn start(
        namespace: &Namespace,
        listen: SocketAddr,
        server: SocketAddr,
        delay: Duration,
    ) -> Result<Self> {
        let listener = bind(namespace, listen)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut proxy = Proxy {
            namespace: namespace.clone(),
            listener,
            server,
            delay,
            clients: Vec::new(),
            by_address: HashMap::new(),
            waiting: VecDeque::new(),
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                proxy.turn();
                std::thread::sleep(POLL);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Proxy {
    fn turn(&mut self) {
        let mut buffer = [0; 2048];
        let due = Instant::now() + self.delay;
        while let Ok((length, from)) = self.listener.recv_from(&mut buffer) {
            if let Some(client) = self.client(from) {
                self.waiting.push_back((due, client, true, buffer[..length].into()));
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            while let Ok(length) = client.upstream.recv(&mut buffer) {
                self.waiting.push_back((due, number, false, buffer[..length].into()));
            }
        }
        while self.waiting.front().is_some_and(|(due, ..)| *due <= Instant::now()) {
            let Some((_, number, is_up, datagram)) = self.waiting.pop_front() else { return };
            let client = &self.clients[number];
            // what cannot be sent is lost, as on any way
            let _ = match is_up {
                true => client.upstream.send(&datagram),
                false => self.listener.send_to(&datagram, client.address),
            };
        }
    }

    fn client(&mut self, address: SocketAddr) -> Option<usize> {
        if let Some(number) = self.by_address.get(&address) {
            return Some(*number);
        }
        let upstream = bind(&self.namespace, SocketAddr::new(self.server.ip(), 0)).ok()?;
        upstream.connect(self.server).ok()?;
        self.clients.push(Client { address, upstream });
        self.by_address.insert(address, self.clients.len() - 1);
        Some(self.clients.len() - 1)
    }
}

fn bind(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    let bound = namespace.run(|| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })?;
    bound
        .map_err(|error: std::io::Error| match error.kind() {
            ErrorKind::AddrInUse => anyhow::anyhow!("{address} is taken in {}", namespace.name()),
            _ => error.into(),
        })
        .with_context(|| format!("cannot make a detour at {address}"))
}
