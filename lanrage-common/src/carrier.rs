//! Datagrams on a stream: how members talk to a relay where no UDP gets out.
//!
//! A frame is the datagram's length (2 bytes, big-endian, 1 to [`MAX_DATAGRAM`]) and the datagram. Nothing else is
//! ever on the stream, so whoever breaks the rule is no LANrage and is hung up on. Both ends hold little: a game wants
//! the newest packets, and TCP would deliver the oldest first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Application protocol in the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"lanrage-relay/1";
/// Bytes of the largest datagram; WireGuard's have at most 1500 here.
pub const MAX_DATAGRAM: usize = 2048;

const HEADER: usize = 2;
/// Room for one read of the stream: a TLS record's worth.
const ROOM: usize = 16 * 1024;
/// Bytes that may wait for the stream.
const MAX_WAITING: usize = 64 * 1024;
/// A datagram that has waited for longer is of no use to a game.
const MAX_AGE: Duration = Duration::from_millis(500);
/// Bytes handed to the stream at once: one TLS record.
const BATCH: usize = 16 * 1024;

/// The stream carries something else than frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes, where 1 to {MAX_DATAGRAM} are allowed")]
pub struct FrameError(pub usize);

/// Takes datagrams off a stream, however it cuts them.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// What lies between has arrived and was not taken yet.
    start: usize,
    end: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self { buffer: vec![0; ROOM], start: 0, end: 0 }
    }
}

impl FrameReader {
    /// Where to read the stream into; never empty once [`FrameReader::next_frame`] gave `None`.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read into [`FrameReader::space`].
    pub fn advance(&mut self, read: usize) {
        self.end = (self.end + read).min(self.buffer.len());
    }

    /// The next datagram; `None` until more was read. After an error the stream is of no use.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let arrived = &self.buffer[self.start..self.end];
        let Some((header, rest)) = arrived.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*header));
        if !(1..=MAX_DATAGRAM).contains(&length) {
            return Err(FrameError(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let datagram = self.start + HEADER..self.start + HEADER + length;
        self.start = datagram.end;
        Ok(Some(&self.buffer[datagram]))
    }
}

/// Datagrams that wait for the stream, oldest first; bounded in bytes and age, and the oldest give way.
#[derive(Debug, Default)]
pub struct FrameQueue {
    bytes: VecDeque<u8>,
    /// When each frame came, and its bytes with the header.
    frames: VecDeque<(Instant, usize)>,
    dropped: u64,
}

impl FrameQueue {
    /// Adds a datagram; older ones make room. One that fits no frame is dropped.
    pub fn push(&mut self, datagram: &[u8], now: Instant) {
        let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
        if !(1..=MAX_DATAGRAM).contains(&datagram.len()) {
            self.dropped += 1;
            return;
        }
        while self.bytes.len() + HEADER + datagram.len() > MAX_WAITING {
            self.drop_oldest();
        }
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(datagram);
        self.frames.push_back((now, HEADER + datagram.len()));
    }

    /// Moves whole frames to the end of `out`, a record's worth, leaving out what is too old. Returns how many.
    pub fn take_into(&mut self, out: &mut Vec<u8>, now: Instant) -> u64 {
        while self.frames.front().is_some_and(|(came, _)| now.saturating_duration_since(*came) > MAX_AGE) {
            self.drop_oldest();
        }
        let mut taken = 0;
        while let Some((_, bytes)) = self.frames.front().copied()
            && (taken == 0 || out.len() + bytes <= BATCH)
        {
            self.frames.pop_front();
            out.extend(self.bytes.drain(..bytes));
            taken += 1;
        }
        taken
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Datagrams that gave way, were too old or fitted no frame.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_oldest(&mut self) {
        if let Some((_, bytes)) = self.frames.pop_front() {
            self.bytes.drain(..bytes);
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything that comes out when the stream arrives in pieces of these sizes.
    fn read(stream: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, FrameError> {
        let (mut reader, mut rest, mut datagrams) = (FrameReader::default(), stream, Vec::new());
        let mut pieces = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        while !rest.is_empty() {
            let space = reader.space();
            assert!(!space.is_empty(), "a reader that can take nothing never ends");
            let size = space.len().min(rest.len()).min(pieces.next().unwrap_or(1).max(1));
            space[..size].copy_from_slice(&rest[..size]);
            reader.advance(size);
            rest = &rest[size..];
            while let Some(datagram) = reader.next_frame()? {
                datagrams.push(datagram.to_vec());
            }
        }
        Ok(datagrams)
    }

    fn written(datagrams: &[Vec<u8>]) -> Vec<u8> {
        let now = Instant::now();
        let mut stream = Vec::new();
        for datagram in datagrams {
            let mut queue = FrameQueue::default();
            queue.push(datagram, now);
            assert_eq!(queue.take_into(&mut stream, now), 1);
        }
        stream
    }

    #[test]
    fn empty_and_giant_frames_end_the_stream() {
        assert_eq!(read(&[0, 0], &[]), Err(FrameError(0)));
        assert_eq!(read(&[8, 1], &[1]), Err(FrameError(MAX_DATAGRAM + 1)));
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n", &[]), Err(FrameError(0x4745)));
        let largest = vec![7; MAX_DATAGRAM];
        assert_eq!(read(&written(std::slice::from_ref(&largest)), &[]), Ok(vec![largest]));
    }

    #[test]
    fn what_fits_no_frame_is_not_written() {
        let mut queue = FrameQueue::default();
        queue.push(&[], Instant::now());
        queue.push(&vec![0; MAX_DATAGRAM + 1], Instant::now());
        queue.push(&vec![0; 70_000], Instant::now());
        assert!(queue.is_empty());
        assert_eq!(queue.dropped(), 3);
    }

    #[test]
    fn the_oldest_give_way_and_the_rest_keeps_its_order() {
        let (mut queue, now) = (FrameQueue::default(), Instant::now());
        (0..1000u32).for_each(|n| queue.push(&[&n.to_be_bytes()[..], &[0; 196]].concat(), now));
        let mut out = Vec::new();
        while queue.take_into(&mut out, now) > 0 {}
        let numbers: Vec<u32> = read(&out, &[])
            .unwrap()
            .iter()
            .map(|datagram| u32::from_be_bytes(datagram[..4].try_into().unwrap()))
            .collect();
        let first = u32::try_from(queue.dropped()).unwrap();
        assert_eq!(numbers, (first..1000).collect::<Vec<_>>());
        assert_eq!(numbers.len(), MAX_WAITING / 202);
    }

    #[test]
    fn what_has_waited_too_long_is_left_out() {
        let (mut queue, now) = (FrameQueue::default(), Instant::now());
        queue.push(b"old", now);
        queue.push(b"new", now + MAX_AGE);
        let mut out = Vec::new();
        assert_eq!(queue.take_into(&mut out, now + MAX_AGE + Duration::from_millis(1)), 1);
        assert_eq!(read(&out, &[]), Ok(vec![b"new".to_vec()]));
        assert_eq!(queue.dropped(), 1);
    }

    #[test]
    fn a_batch_is_a_record_at_most() {
        let (mut queue, now) = (FrameQueue::default(), Instant::now());
        (0..30).for_each(|_| queue.push(&[1; 1400], now));
        let mut out = Vec::new();
        assert_eq!(queue.take_into(&mut out, now), 11);
        assert!(out.len() <= BATCH);
    }

    proptest! {
        #[test]
        fn datagrams_survive_any_cutting(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..MAX_DATAGRAM), 0..40),
            pieces in proptest::collection::vec(1usize..3000, 0..200),
        ) {
            prop_assert_eq!(read(&written(&datagrams), &pieces), Ok(datagrams));
        }

        #[test]
        fn garbage_ends_or_is_cut_into_datagrams(
            stream in proptest::collection::vec(any::<u8>(), 0..40_000),
            pieces in proptest::collection::vec(1usize..3000, 0..50),
        ) {
            if let Ok(datagrams) = read(&stream, &pieces) {
                prop_assert!(datagrams.iter().all(|d| (1..=MAX_DATAGRAM).contains(&d.len())));
                let carried: usize = datagrams.iter().map(|d| d.len() + HEADER).sum();
                prop_assert!(carried <= stream.len() && stream.len() - carried < MAX_DATAGRAM + HEADER);
            }
        }
    }
}
