//! Numbered WireGuard data packets from a socket to a socket: what is lost, late or led astray shows.

use crate::lab::netns::Namespace;
use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packets that may be on their way at once. More than the queue of a veth holds would be lost there.
const WINDOW: u64 = 64;
/// After this long without progress, what is on its way counts as lost.
const STALL: Duration = Duration::from_millis(200);
const LENGTH: usize = 48;
/// First byte of a WireGuard data packet.
const DATA: u8 = 4;

/// One flow to be filled.
#[derive(Debug, Clone, Copy)]
pub struct Lane {
    /// Told apart by every packet.
    pub session: u32,
    /// WireGuard receiver index of the flow.
    pub index: u32,
    /// The sender's own address.
    pub from: SocketAddr,
    /// The relay as the sender sees it.
    pub relay: SocketAddr,
    /// The receiver's own address.
    pub to: SocketAddr,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets sent.
    pub sent: u64,
    /// Of these, packets that came to the right socket, each counted once.
    pub arrived: u64,
    /// Packets of another session, or that nobody sent.
    pub astray: u64,
    /// Packets that came twice.
    pub twice: u64,
}

impl Tally {
    /// Packets that never came.
    pub fn lost(&self) -> u64 {
        self.sent - self.arrived
    }
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    done: AtomicBool,
    sent: AtomicU64,
    arrived: AtomicU64,
    astray: AtomicU64,
    twice: AtomicU64,
}

/// A sender and a receiver at work.
#[derive(Debug)]
pub struct Stream {
    counts: Arc<Counts>,
    threads: [Option<JoinHandle<Result<()>>>; 2],
}

impl Stream {
    /// Begins to send, as fast as packets arrive but with `pause` between two of them.
    pub fn start((near, far): (&Namespace, &Namespace), lane: Lane, pause: Duration) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let (from, to) = (bind(near, lane.from)?, bind(far, lane.to)?);
        to.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (theirs, ours) = (Arc::clone(&counts), Arc::clone(&counts));
        let sender = std::thread::spawn(move || send(&from, lane, pause, &theirs));
        let receiver = std::thread::spawn(move || receive(&to, lane, &ours));
        Ok(Self { counts, threads: [Some(sender), Some(receiver)] })
    }

    /// Packets that have arrived so far.
    pub fn arrived(&self) -> u64 {
        self.counts.arrived.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is on its way, and counts.
    pub fn stop(mut self) -> Result<Tally> {
        self.counts.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            std::thread::sleep(STALL);
            self.counts.done.store(true, Ordering::Relaxed);
        }
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { sent, arrived, astray, twice, .. } = &*self.counts;
        Ok(Tally { sent: of(sent), arrived: of(arrived), astray: of(astray), twice: of(twice) })
    }
}

fn bind(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    let socket =
        namespace.play(|| UdpSocket::bind(address))?.with_context(|| format!("cannot bind {address}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).context("cannot enlarge the buffer: not root?")?;
    Ok(socket)
}

fn packet(lane: Lane, number: u64) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = DATA;
    packet[4..8].copy_from_slice(&lane.index.to_le_bytes());
    packet[8..16].copy_from_slice(&number.to_le_bytes());
    packet[16..20].copy_from_slice(&lane.session.to_le_bytes());
    packet
}

fn send(socket: &UdpSocket, lane: Lane, pause: Duration, counts: &Counts) -> Result<()> {
    let mut forgiven = 0;
    for number in 0.. {
        if counts.stop.load(Ordering::Relaxed) {
            break;
        }
        let mut last = (Instant::now(), counts.arrived.load(Ordering::Relaxed));
        while number - forgiven >= last.1 + WINDOW {
            std::thread::yield_now();
            let arrived = counts.arrived.load(Ordering::Relaxed);
            if arrived > last.1 {
                last = (Instant::now(), arrived);
            } else if last.0.elapsed() > STALL {
                forgiven = number - arrived;
            }
        }
        socket.send_to(&packet(lane, number), lane.relay).context("cannot send")?;
        counts.sent.store(number + 1, Ordering::Relaxed);
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    Ok(())
}

fn receive(socket: &UdpSocket, lane: Lane, counts: &Counts) -> Result<()> {
    let mut seen: Vec<u64> = Vec::new();
    let mut buffer = [0; 2048];
    while !counts.done.load(Ordering::Relaxed) {
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        if buffer[0] != DATA {
            continue; // a late answer to a bind or a handshake, of the socket that was here before
        }
        match number(lane, &buffer[..length], counts) {
            None => counts.astray.fetch_add(1, Ordering::Relaxed),
            Some(number) if !mark(&mut seen, number) => counts.twice.fetch_add(1, Ordering::Relaxed),
            Some(_) => counts.arrived.fetch_add(1, Ordering::Relaxed),
        };
    }
    Ok(())
}

/// The number of a packet of this lane, unchanged as it was sent.
fn number(lane: Lane, bytes: &[u8], counts: &Counts) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    let sent = counts.sent.load(Ordering::Relaxed) + 1;
    (bytes == packet(lane, number) && number <= sent).then_some(number)
}

/// Remembers a number; whether it is new.
fn mark(seen: &mut Vec<u64>, number: u64) -> bool {
    let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
    if seen.len() <= word {
        seen.resize(word + 1, 0);
    }
    let is_new = seen[word] & bit == 0;
    seen[word] |= bit;
    is_new
}
