//! What games do, done by plain sockets inside the namespaces.

use super::netns::Namespace;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long stragglers are waited for.
const PATIENCE: Duration = Duration::from_millis(800);
/// Room for bursts while this process does not run.
const BUFFER: usize = 4 << 20;

/// Packets sent and packets that arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// By the sender.
    pub sent: u64,
    /// Counted at the receiver, duplicates once.
    pub received: u64,
}

impl std::ops::Add for Count {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, received: self.received + other.received }
    }
}

/// A machine with its address in the party.
#[derive(Debug, Clone)]
pub struct Station {
    /// Where it is.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A stream of UDP packets.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Packets.
    pub packets: u64,
    /// Bytes of payload, at least 8.
    pub size: usize,
    /// Packets a second.
    pub rate: u64,
    /// Destination port.
    pub port: u16,
}

impl Stream {
    /// Sends it and counts what arrives.
    pub fn play(self, from: &Station, to: &Station) -> Result<Count> {
        let receiver = socket(&to.namespace, (to.address, self.port))?;
        let sender = socket(&from.namespace, (Ipv4Addr::UNSPECIFIED, 0))?;
        sender.connect((to.address, self.port))?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let counting = scope.spawn(|| count_packets(&receiver, self.packets, &done));
            let sent = self.send(&sender);
            done.store(true, Ordering::Release);
            let received = counting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok(Count { sent: sent?, received })
        })
    }

    /// Sends numbered packets evenly; a busy machine catches up.
    fn send(self, socket: &UdpSocket) -> Result<u64> {
        let mut packet = vec![0x5a; self.size];
        let start = Instant::now();
        for number in 0..self.packets {
            let due = Duration::from_nanos(number * 1_000_000_000 / self.rate);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            packet[..8].copy_from_slice(&number.to_be_bytes());
            socket.send(&packet).context("cannot send a test packet")?;
        }
        Ok(self.packets)
    }
}

/// Counts differently numbered packets until all are there, or the sender is done and nothing comes for a while.
fn count_packets(socket: &UdpSocket, expected: u64, done: &AtomicBool) -> u64 {
    let mut seen = HashSet::new();
    let mut buffer = [0; 2048];
    while (seen.len() as u64) < expected {
        match socket.recv(&mut buffer) {
            Ok(length) if length >= 8 => {
                seen.insert(buffer[..8].to_vec());
            }
            Err(_) if done.load(Ordering::Acquire) => break,
            _ => {}
        }
    }
    seen.len() as u64
}

/// A game looking for a server the way unmodified games do.
#[derive(Debug, Clone, Copy)]
pub struct Discovery {
    /// Where it asks: 255.255.255.255, the subnet's broadcast address, or a multicast group.
    pub destination: SocketAddrV4,
    /// How many times, 50 ms apart.
    pub questions: u64,
}

/// What a discovery led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Questions and answers.
    pub count: Count,
    /// Where the server saw the questions come from.
    pub seen_from: HashSet<SocketAddr>,
    /// Where the asker saw the answers come from.
    pub answered_from: HashSet<SocketAddr>,
    /// The asker's port.
    pub asked_from_port: u16,
}

impl Discovery {
    /// Asks from one machine while a server on the other answers.
    pub fn play(self, from: &Station, to: &Station) -> Result<Found> {
        let server = socket(&to.namespace, (Ipv4Addr::UNSPECIFIED, self.destination.port()))?;
        if self.destination.ip().is_multicast() {
            let join = || server.join_multicast_v4(self.destination.ip(), &Ipv4Addr::UNSPECIFIED);
            to.namespace.run(join)?.context("cannot join the multicast group")?;
        }
        let client = socket(&from.namespace, (Ipv4Addr::UNSPECIFIED, 0))?;
        client.set_broadcast(true)?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| answer(&server, &stop));
            let asked = self.ask(&client);
            stop.store(true, Ordering::Release);
            let seen_from = serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            asked.map(|found| Found { seen_from, ..found })
        })
    }

    fn ask(self, client: &UdpSocket) -> Result<Found> {
        let mut found = Found { asked_from_port: client.local_addr()?.port(), ..Found::default() };
        let mut answers = HashSet::new();
        for number in 0..self.questions {
            client
                .send_to(&number.to_be_bytes(), self.destination)
                .with_context(|| format!("a game cannot send to {}", self.destination))?;
            found.count.sent += 1;
            listen(client, Duration::from_millis(50), &mut answers, &mut found.answered_from);
        }
        let deadline = Instant::now() + PATIENCE;
        while answers.len() < usize::try_from(self.questions)? && Instant::now() < deadline {
            listen(client, Duration::from_millis(50), &mut answers, &mut found.answered_from);
        }
        found.count.received = answers.len() as u64;
        Ok(found)
    }
}

fn listen(
    socket: &UdpSocket,
    time: Duration,
    answers: &mut HashSet<Vec<u8>>,
    from: &mut HashSet<SocketAddr>,
) {
    let deadline = Instant::now() + time;
    let mut buffer = [0; 64];
    while Instant::now() < deadline {
        if let Ok((length, sender)) = socket.recv_from(&mut buffer) {
            answers.insert(buffer[..length].to_vec());
            from.insert(sender);
        }
    }
}

/// Sends every packet back to its sender.
fn answer(server: &UdpSocket, stop: &AtomicBool) -> HashSet<SocketAddr> {
    let mut seen = HashSet::new();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Acquire) {
        if let Ok((length, from)) = server.recv_from(&mut buffer) {
            seen.insert(from);
            // The asker counts what is missing.
            let _ = server.send_to(&buffer[..length], from);
        }
    }
    seen
}

/// A steady exchange in the background, to see what an event in between costs.
#[derive(Debug)]
pub struct Pulse {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Beats>,
    answering: JoinHandle<HashSet<SocketAddr>>,
}

/// What became of a [`Pulse`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Beats {
    /// Round trips.
    pub count: Count,
    /// Longest time without an answer.
    pub longest_gap: Duration,
}

impl Pulse {
    /// Starts to send a packet every `interval`, each to be sent back.
    pub fn start(from: &Station, to: &Station, port: u16, interval: Duration) -> Result<Self> {
        let server = socket(&to.namespace, (Ipv4Addr::UNSPECIFIED, port))?;
        let client = socket(&from.namespace, (Ipv4Addr::UNSPECIFIED, 0))?;
        client.set_nonblocking(true)?;
        let (stop, target) = (Arc::new(AtomicBool::new(false)), (to.address, port).into());
        let flags = [stop.clone(), stop.clone()];
        let [asking, answering] = flags;
        Ok(Self {
            stop,
            asking: std::thread::spawn(move || beat(&client, target, interval, &asking)),
            answering: std::thread::spawn(move || {
                let seen = answer(&server, &answering);
                drain(&server);
                seen
            }),
        })
    }

    /// Stops, waits for stragglers, and tells.
    pub fn stop(self) -> Beats {
        self.stop.store(true, Ordering::Release);
        let beats = self.asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let _ = self.answering.join();
        beats
    }
}

/// Answers what is still on its way after the end.
fn drain(server: &UdpSocket) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| answer(server, &stop));
        std::thread::sleep(PATIENCE / 2);
        stop.store(true, Ordering::Release);
    });
}

fn beat(socket: &UdpSocket, target: SocketAddr, interval: Duration, stop: &AtomicBool) -> Beats {
    let mut beats = Beats::default();
    let mut answers = HashSet::new();
    let (mut next, mut last) = (Instant::now(), Instant::now());
    let mut end = None;
    while end.is_none_or(|end| Instant::now() < end) {
        if end.is_none() && stop.load(Ordering::Acquire) {
            end = Some(Instant::now() + PATIENCE);
        }
        if end.is_none() && Instant::now() >= next {
            next += interval;
            // A path that is just gone may refuse: that is a lost beat.
            let _ = socket.send_to(&beats.count.sent.to_be_bytes(), target);
            beats.count.sent += 1;
        }
        let mut buffer = [0; 64];
        while let Ok(length) = socket.recv(&mut buffer) {
            answers.insert(buffer[..length].to_vec());
            beats.longest_gap = beats.longest_gap.max(last.elapsed());
            last = Instant::now();
        }
        if end.is_some() && answers.len() as u64 >= beats.count.sent {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    beats.count.received = answers.len() as u64;
    if beats.count.received < beats.count.sent {
        beats.longest_gap = beats.longest_gap.max(last.elapsed().saturating_sub(PATIENCE));
    }
    beats
}

/// Result of the system's `ping`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Ping {
    /// Echo requests.
    pub sent: u64,
    /// Echo replies.
    pub received: u64,
    /// Median round trip in milliseconds.
    pub rtt_ms_p50: Option<f64>,
}

/// Runs the system's `ping`.
pub fn ping(from: &Station, to: Ipv4Addr, count: u64) -> Result<Ping> {
    let mut command = Command::new("ping");
    command.args(["-n", "-i", "0.1", "-W", "2", "-c"]).arg(count.to_string()).arg(to.to_string());
    let output = from.namespace.run(|| command.output())?.context("cannot start ping")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut times: Vec<f64> = text.lines().filter_map(round_trip).collect();
    times.sort_by(f64::total_cmp);
    Ok(Ping { sent: count, received: times.len() as u64, rtt_ms_p50: median(&times) })
}

fn round_trip(line: &str) -> Option<f64> {
    line.split_once("time=")?.1.split_whitespace().next()?.parse().ok()
}

/// The middle of sorted values.
pub fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

/// A socket in a namespace, with room for bursts.
pub(super) fn socket(namespace: &Namespace, address: (Ipv4Addr, u16)) -> Result<UdpSocket> {
    let socket = namespace.play(|| UdpSocket::bind(address))?;
    let socket = socket.map_err(|error| match error.kind() {
        ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("{} is not an address of {}", address.0, namespace.name())
        }
        _ => anyhow::Error::new(error).context(format!("cannot bind {address:?} in {}", namespace.name())),
    })?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(BUFFER)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_round_trips_of_ping() {
        assert_eq!(round_trip("64 bytes from 10.66.0.2: icmp_seq=1 ttl=64 time=0.553 ms"), Some(0.553));
        assert_eq!(round_trip("4 packets transmitted, 4 received, 0% packet loss, time 3060ms"), None);
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
