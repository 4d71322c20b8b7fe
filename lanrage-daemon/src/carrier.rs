//! Carries datagrams between a UDP socket of this machine and a stream; both ends of a relay over TLS are that.
//!
//! Neither the relay's state machine nor the tunnel knows of TLS: on each side a local UDP socket stands for the other
//! end of the stream.

use lanrage_common::bucket::{Bucket, Rate};
use lanrage_common::carrier::{FrameError, FrameQueue, FrameReader, MAX_DATAGRAM};
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::time::{sleep, sleep_until};

/// Bytes that TLS may hold back, encrypted and stale, when TCP stalls: one record.
pub(crate) const TLS_BUFFER: usize = 16 * 1024;
/// Datagrams taken from the socket before the stream gets its turn.
const BUDGET: usize = 64;
/// Datagrams that one stream may bring. Above it the stream waits, and TCP tells the sender.
const RATE: Rate = Rate::per_second(20_000, BURST);
const BURST: u64 = 4_000;
const PAUSE: Duration = Duration::from_millis(5);
/// Without an end of its own.
const FOREVER: Duration = Duration::from_secs(86_400 * 365);

/// What carriers have done; shared by all of one kind.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// A copy of [`Traffic`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Datagrams that came by stream.
    pub(crate) received: u64,
    /// Datagrams that left by stream.
    pub(crate) sent: u64,
    /// Datagrams that did not fit the stream in time, or the socket.
    pub(crate) dropped: u64,
}

impl Traffic {
    pub(crate) fn figures(&self) -> Figures {
        let [received, sent, dropped] =
            [&self.received, &self.sent, &self.dropped].map(|count| count.load(Ordering::Relaxed));
        Figures { received, sent, dropped }
    }
}

/// Why a carrier has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// By the other end, in order.
    #[error("the other end has closed the connection")]
    Closed,
    /// The socket was silent for too long.
    #[error("nothing to carry")]
    Idle,
    /// The other end is no LANrage.
    #[error("the other end does not speak the protocol: {0}")]
    NotFrames(#[from] FrameError),
    /// The first datagram is not one that opens a conversation.
    #[error("the first datagram is not welcome")]
    NotWelcome,
    /// The connection is broken.
    #[error("the connection is broken: {0}")]
    Broken(io::Error),
}

impl Ended {
    /// Stable name, for counters.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::NotFrames(_) => "not_frames",
            Self::NotWelcome => "not_welcome",
            Self::Broken(_) => "broken",
        }
    }
}

/// What a stream must keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Ends when the socket brings nothing for so long.
    pub(crate) idle: Option<Duration>,
    /// What the first datagram from the stream must be.
    pub(crate) is_welcome: fn(&[u8]) -> bool,
}

/// Carries until one end ends. `socket` is connected to the only address that datagrams go to.
pub(crate) async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    socket: &UdpSocket,
    traffic: &Traffic,
    rules: Rules,
) -> Ended {
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        ended = receive(reader, socket, traffic, rules.is_welcome) => ended,
        ended = send(writer, socket, traffic, rules.idle.unwrap_or(FOREVER)) => ended,
    }
}

/// From the stream to the socket.
async fn receive(
    mut reader: impl AsyncRead + Unpin,
    socket: &UdpSocket,
    traffic: &Traffic,
    is_welcome: fn(&[u8]) -> bool,
) -> Ended {
    let (mut frames, mut bucket) = (FrameReader::default(), Bucket::new(RATE));
    let mut is_known = false;
    loop {
        match reader.read(frames.space()).await {
            Ok(0) => return Ended::Closed,
            Ok(read) => frames.advance(read),
            // without a goodbye; the relay was stopped
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ended::Closed,
            Err(error) => return Ended::Broken(error),
        }
        loop {
            let datagram = match frames.next_frame() {
                Ok(Some(datagram)) => datagram,
                Ok(None) => break,
                Err(error) => return error.into(),
            };
            if !is_known && !is_welcome(datagram) {
                return Ended::NotWelcome;
            }
            is_known = true;
            while !bucket.take(1, Instant::now()) {
                sleep(PAUSE).await;
            }
            traffic.received.fetch_add(1, Ordering::Relaxed);
            // refused when nobody listens there just now
            if socket.send(datagram).await.is_err() {
                traffic.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// From the socket to the stream.
async fn send(
    mut writer: impl AsyncWrite + Unpin,
    socket: &UdpSocket,
    traffic: &Traffic,
    idle: Duration,
) -> Ended {
    let mut outgoing = Outgoing::default();
    let mut last = Instant::now();
    loop {
        if outgoing.collect(socket) {
            last = Instant::now();
        }
        outgoing.prepare(traffic);
        tokio::select! {
            biased;
            result = outgoing.progress(&mut writer) => match result {
                Ok(written) => outgoing.advance(written),
                Err(error) => return Ended::Broken(error),
            },
            result = socket.readable() => if let Err(error) = result { return Ended::Broken(error) },
            () = sleep_until((last + idle).into()) => return Ended::Idle,
        }
    }
}

/// What is on its way to the stream.
struct Outgoing {
    queue: FrameQueue,
    /// Taken from the queue; goes out whole, as a stream cannot take a part of a frame back.
    batch: Vec<u8>,
    written: usize,
    is_flushed: bool,
    /// Drops that are in the figures.
    told: u64,
    buffer: [u8; MAX_DATAGRAM + 1],
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            queue: FrameQueue::default(),
            batch: Vec::new(),
            written: 0,
            is_flushed: true,
            told: 0,
            buffer: [0; MAX_DATAGRAM + 1],
        }
    }
}

impl Outgoing {
    /// Takes what the socket has, also while the stream is stuck: the newest datagrams shall win.
    fn collect(&mut self, socket: &UdpSocket) -> bool {
        let now = Instant::now();
        for taken in 0..BUDGET {
            match socket.try_recv(&mut self.buffer) {
                Ok(length) => self.queue.push(&self.buffer[..length], now),
                // nothing there, or word that nobody listened: the next readiness tells
                Err(_) => return taken > 0,
            }
        }
        true
    }

    fn prepare(&mut self, traffic: &Traffic) {
        if self.written == self.batch.len() && !self.queue.is_empty() {
            self.batch.clear();
            self.written = 0;
            let taken = self.queue.take_into(&mut self.batch, Instant::now());
            traffic.sent.fetch_add(taken, Ordering::Relaxed);
        }
        let dropped = self.queue.dropped();
        traffic.dropped.fetch_add(dropped - self.told, Ordering::Relaxed);
        self.told = dropped;
    }

    /// Writes, or flushes when all is written. Cancel safe: of each there is only one.
    async fn progress(&self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<usize> {
        match &self.batch[self.written..] {
            [] if self.is_flushed => pending().await,
            [] => writer.flush().await.map(|()| 0),
            rest => match writer.write(rest).await? {
                0 => Err(io::ErrorKind::WriteZero.into()),
                written => Ok(written),
            },
        }
    }

    fn advance(&mut self, written: usize) {
        self.written += written;
        self.is_flushed = written == 0;
    }
}

#[cfg(test)]
mod tests;
