//! A steady one-way stream inside the tunnel, to count what a change of path loses and doubles.

use super::traffic::{Station, socket};
use anyhow::Result;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long stragglers are waited for.
const PATIENCE: Duration = Duration::from_millis(800);

/// Numbered packets from one station to another, until stopped.
#[derive(Debug)]
pub struct Flow {
    sending: Arc<AtomicBool>,
    receiving: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Vec<u8>>,
}

/// What became of a [`Flow`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage {
    /// Packets sent.
    pub sent: u64,
    /// Of these, those before the first that arrived: the tunnel was not up yet.
    pub early: u64,
    /// Those after it that never arrived.
    pub lost: u64,
    /// Arrivals beyond each packet's first.
    pub duplicates: u64,
}

impl std::ops::Add for Passage {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            early: self.early + other.early,
            lost: self.lost + other.lost,
            duplicates: self.duplicates + other.duplicates,
        }
    }
}

impl Flow {
    /// Starts to send a packet every `interval`.
    pub fn start(from: &Station, to: &Station, port: u16, interval: Duration) -> Result<Self> {
        let inbox = socket(&to.namespace, (to.address, port))?;
        let outbox = socket(&from.namespace, (Ipv4Addr::UNSPECIFIED, 0))?;
        outbox.connect((to.address, port))?;
        let [sending, receiving] = [(); 2].map(|()| Arc::new(AtomicBool::new(true)));
        let (send, receive) = (sending.clone(), receiving.clone());
        Ok(Self {
            sending,
            receiving,
            sender: std::thread::spawn(move || send_until(&outbox, interval, &send)),
            receiver: std::thread::spawn(move || count_until(&inbox, &receive)),
        })
    }

    /// Stops, waits for stragglers, and tells.
    pub fn stop(self) -> Passage {
        self.sending.store(false, Ordering::Release);
        let sent = join(self.sender);
        std::thread::sleep(PATIENCE);
        self.receiving.store(false, Ordering::Release);
        assess(sent, &join(self.receiver))
    }
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn send_until(socket: &UdpSocket, interval: Duration, go_on: &AtomicBool) -> u64 {
    let (start, mut number) = (Instant::now(), 0u64);
    while go_on.load(Ordering::Acquire) {
        // what the system refuses to send is lost
        let _ = socket.send(&number.to_be_bytes());
        number += 1;
        let due = interval.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    number
}

/// How often each number arrived.
fn count_until(socket: &UdpSocket, go_on: &AtomicBool) -> Vec<u8> {
    let (mut arrivals, mut buffer) = (Vec::new(), [0; 64]);
    while go_on.load(Ordering::Acquire) {
        let Ok(8) = socket.recv(&mut buffer) else { continue };
        let number = buffer.first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
        let Ok(at) = usize::try_from(number) else { continue };
        if at >= arrivals.len() {
            arrivals.resize(at + 1, 0u8);
        }
        arrivals[at] = arrivals[at].saturating_add(1);
    }
    arrivals
}

fn assess(sent: u64, arrivals: &[u8]) -> Passage {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let Some(first) = arrivals.iter().position(|times| *times > 0) else {
        return Passage { sent, early: sent, ..Passage::default() };
    };
    let arrived = count(arrivals.iter().filter(|times| **times > 0).count());
    let duplicates = arrivals.iter().map(|times| u64::from(times.saturating_sub(1))).sum();
    Passage { sent, early: count(first), lost: (sent - count(first)).saturating_sub(arrived), duplicates }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_lost_and_repeats_are_duplicates() {
        assert_eq!(
            assess(8, &[0, 0, 1, 0, 3, 1]),
            Passage { sent: 8, early: 2, lost: 3, duplicates: 2 },
            "number 3 and the last two are missing"
        );
        assert_eq!(assess(5, &[]), Passage { sent: 5, early: 5, lost: 0, duplicates: 0 });
    }
}
