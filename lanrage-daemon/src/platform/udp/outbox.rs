//! Linux: datagrams on their way out, grouped so that one system call sends a batch, and one pass through the network
//! stack up to 64 datagrams of one size to one destination.

use super::super::{MAX_SEGMENTED, MAX_SEGMENTS, Sent, Way};
use super::control::Buffer;
use super::{Name, Socket, fill, iovec};
use std::io::{self, ErrorKind};
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

/// How long segmentation offload is left alone after a device has refused it.
const REFUSED: Duration = Duration::from_secs(10);
/// Places in which the last group to a destination is looked for.
const RECENT: usize = 4096;
const NONE: u32 = u32::MAX;

/// Datagrams that leave as one message.
#[derive(Debug, Clone, Copy)]
struct Group {
    way: Way,
    /// Size of each datagram but the last, which may be shorter.
    segment: usize,
    count: usize,
    bytes: usize,
    /// The first and the last of its pieces.
    pieces: (u32, u32),
    pieces_count: usize,
    is_closed: bool,
}

/// A run of bytes of a group.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
    /// The group's next piece.
    next: u32,
}

/// Datagrams to be sent through one socket.
pub struct Outbox {
    bytes: Vec<u8>,
    groups: Vec<Group>,
    pieces: Vec<Piece>,
    recent: Box<[u32; RECENT]>,
    refused_until: Option<Instant>,
    names: Vec<Name>,
    controls: Vec<Buffer>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            groups: Vec::new(),
            pieces: Vec::new(),
            recent: Box::new([NONE; RECENT]),
            refused_until: None,
            names: Vec::new(),
            controls: Vec::new(),
            iovecs: Vec::new(),
            headers: Vec::new(),
        }
    }
}

impl Outbox {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a datagram. Those of one way leave in the order in which they were added.
    pub fn push(&mut self, way: Way, datagram: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        let datagram = start..self.bytes.len();
        let place = &mut self.recent[place(way.to)];
        // a group that is no longer found here is never added to, so a later one cannot be overtaken
        if let Some(group) = self.groups.get_mut(*place as usize)
            && group.way == way
            && group.takes(datagram.len())
        {
            group.add(&mut self.pieces, datagram);
            return;
        }
        *place = self.groups.len() as u32;
        self.groups.push(Group::new(way, &mut self.pieces, datagram));
    }

    /// Sends everything.
    pub fn flush(&mut self, socket: &Socket) -> Sent {
        let mut sent = Sent::default();
        if self.groups.is_empty() {
            return sent;
        }
        let may_segment =
            socket.can_segment && self.refused_until.is_none_or(|until| Instant::now() >= until);
        if !may_segment {
            self.split();
        }
        self.prepare(socket);
        let mut at = 0;
        while at < self.headers.len() {
            match self.send_from(socket, at) {
                Ok(count) => {
                    self.groups[at..at + count].iter().for_each(|group| sent.add(group));
                    at += count;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) => {
                    sent.full += self.groups[at..].iter().map(|group| group.count as u64).sum::<u64>();
                    break;
                }
                Err(error) => {
                    self.send_one_by_one(socket, at, &error, &mut sent);
                    at += 1;
                }
            }
        }
        self.clear();
        sent
    }

    fn send_from(&mut self, socket: &Socket, at: usize) -> io::Result<usize> {
        let headers = &mut self.headers[at..];
        // SAFETY: the headers point into buffers of `self`.
        let sent = unsafe {
            libc::sendmmsg(
                socket.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// A group that was refused: its device does not segment (EIO), or its datagrams are larger than the path's MTU
    /// (EINVAL), which the stack fragments when they come alone.
    fn send_one_by_one(&mut self, socket: &Socket, at: usize, why: &io::Error, sent: &mut Sent) {
        let group = self.groups[at];
        if group.count == 1 {
            tracing::trace!(to = %group.way.to, error = %why, "datagram not sent");
            sent.failed += 1;
            return;
        }
        if why.raw_os_error() == Some(libc::EIO) {
            tracing::debug!(to = %group.way.to, "the device refuses segmentation offload");
            self.refused_until = Some(Instant::now() + REFUSED);
        }
        for datagram in self.datagrams(&group) {
            match socket.send(group.way, &self.bytes[datagram]) {
                Ok(()) => sent.datagrams += 1,
                Err(error) if is_full(&error) => sent.full += 1,
                Err(_) => sent.failed += 1,
            }
        }
    }

    /// Makes a group of each datagram.
    fn split(&mut self) {
        if self.groups.iter().all(|group| group.count == 1) {
            return;
        }
        let (mut groups, mut pieces) = (Vec::new(), Vec::new());
        for group in &self.groups {
            groups.extend(self.datagrams(group).map(|datagram| Group::new(group.way, &mut pieces, datagram)));
        }
        (self.groups, self.pieces) = (groups, pieces);
    }

    fn datagrams(&self, group: &Group) -> impl Iterator<Item = Range<usize>> {
        let segment = group.segment;
        self.pieces_of(group).flat_map(move |piece| {
            let starts = (piece.start..piece.end.max(piece.start + 1)).step_by(segment.max(1));
            starts.map(move |start| start..piece.end.min(start + segment))
        })
    }

    fn pieces_of(&self, group: &Group) -> impl Iterator<Item = Piece> {
        let mut next = group.pieces.0;
        std::iter::from_fn(move || {
            let piece = *self.pieces.get(next as usize)?;
            next = piece.next;
            Some(piece)
        })
    }

    fn prepare(&mut self, socket: &Socket) {
        let count = self.groups.len();
        self.names.clear();
        self.names.extend(self.groups.iter().map(|group| Name::from(group.way.to)));
        self.controls.resize(count.max(self.controls.len()), Buffer::default());
        self.iovecs.clear();
        for group in &self.groups {
            let mut next = group.pieces.0;
            while let Some(piece) = self.pieces.get(next as usize) {
                self.iovecs.push(iovec(&self.bytes[piece.start..piece.end]));
                next = piece.next;
            }
        }
        self.headers.clear();
        let mut iovecs = self.iovecs.as_mut_slice();
        for ((group, name), control) in self.groups.iter().zip(&self.names).zip(&mut self.controls) {
            let (own, rest) = iovecs.split_at_mut(group.pieces_count);
            iovecs = rest;
            let segment = (group.count > 1).then_some(group.segment as u16);
            let length = socket.write_controls(control, group.way, segment);
            // SAFETY: all-zero is a valid mmsghdr.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            fill(&mut header.msg_hdr, name, own, (control, length));
            self.headers.push(header);
        }
    }

    fn clear(&mut self) {
        // one by one: mostly there are few
        self.groups.drain(..).for_each(|group| self.recent[place(group.way.to)] = NONE);
        self.bytes.clear();
        self.pieces.clear();
        self.headers.clear();
        self.iovecs.clear();
    }
}

impl Group {
    fn new(way: Way, pieces: &mut Vec<Piece>, datagram: Range<usize>) -> Self {
        let (segment, at) = (datagram.len(), pieces.len() as u32);
        pieces.push(Piece { start: datagram.start, end: datagram.end, next: NONE });
        Self {
            way,
            segment,
            count: 1,
            bytes: segment,
            pieces: (at, at),
            pieces_count: 1,
            is_closed: segment == 0,
        }
    }

    fn takes(&self, length: usize) -> bool {
        !self.is_closed
            && (1..=self.segment).contains(&length)
            && self.count < MAX_SEGMENTS
            && self.bytes + length <= MAX_SEGMENTED
    }

    fn add(&mut self, pieces: &mut Vec<Piece>, datagram: Range<usize>) {
        let length = datagram.len();
        self.count += 1;
        self.bytes += length;
        self.is_closed = length < self.segment;
        let last = self.pieces.1 as usize;
        if pieces[last].end == datagram.start {
            pieces[last].end = datagram.end;
            return;
        }
        let at = pieces.len() as u32;
        pieces[last].next = at;
        pieces.push(Piece { start: datagram.start, end: datagram.end, next: NONE });
        (self.pieces.1, self.pieces_count) = (at, self.pieces_count + 1);
    }
}

impl Sent {
    fn add(&mut self, group: &Group) {
        let count = group.count as u64;
        self.datagrams += count;
        self.segmented += if count > 1 { count } else { 0 };
    }
}

/// Where the last group to a destination is looked for.
fn place(to: SocketAddr) -> usize {
    let ip = match to.ip() {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            (bits ^ (bits >> 32) ^ (bits >> 64) ^ (bits >> 96)) as u32
        }
    };
    let mixed = (ip ^ (u32::from(to.port()) << 16) ^ u32::from(to.port())).wrapping_mul(0x9e37_79b1);
    (mixed >> (u32::BITS - RECENT.ilog2())) as usize
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory)
        || error.raw_os_error() == Some(libc::ENOBUFS)
}
