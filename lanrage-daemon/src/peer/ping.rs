//! `lanrage ping`: ICMP echo (RFC 792) put straight into the tunnel, so that it works without a raw socket and says
//! which path each echo took.

use super::Reply;
use lanrage_common::api::{PathKind, PingAnswer, PingReply};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(200);
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ICMP: u8 = 1;
const HEADERS: usize = 28;
/// As long as what `ping` sends.
const LENGTH: u16 = 84;
/// Lengths of packets by which the longest is found, besides that of the interface; what most paths carry.
const LENGTHS: [u16; 5] = [576, 1280, 1340, 1380, 1400];

struct Ping {
    id: u16,
    answer: PingAnswer,
    sent: Vec<Instant>,
    count: usize,
    /// Sent after `count` others: which of these come back?
    lengths: Vec<u16>,
    is_answered: Vec<bool>,
    next: Instant,
    reply: Option<Reply<PingAnswer>>,
}

/// An echo to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Echo {
    /// Whom: for [`Pings::sent`].
    pub id: u16,
    /// Where to.
    pub to: Ipv4Addr,
    /// Number of the echo.
    pub sequence: u16,
    /// Bytes of the packet, headers included.
    pub length: u16,
}

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name, for the answer.
    pub member: String,
    /// Where to.
    pub address: Ipv4Addr,
    /// Echoes.
    pub count: u32,
    /// The interface's MTU, to find out how long packets may be.
    pub mtu: Option<u16>,
    /// For the answer.
    pub outside_rtt_ms: Option<f64>,
    /// For the answer.
    pub path_mtu: Option<u16>,
}

/// All pings under way.
#[derive(Default)]
pub struct Pings {
    running: Vec<Ping>,
    last_id: u16,
}

impl std::fmt::Debug for Pings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pings").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl Pings {
    /// Starts to ping a member.
    pub fn start(&mut self, plan: Plan, reply: Reply<PingAnswer>, now: Instant) {
        let Plan { member, address, count, mtu, outside_rtt_ms, path_mtu } = plan;
        let shorter = LENGTHS.into_iter().filter(|length| mtu.is_some_and(|mtu| *length < mtu));
        let lengths: Vec<u16> = shorter.chain(mtu).collect();
        self.last_id = self.last_id.wrapping_add(1);
        self.running.push(Ping {
            id: self.last_id ^ 0x4c52, // "LR": not the low numbers that `ping` itself uses
            answer: PingAnswer { member, address, replies: Vec::new(), outside_rtt_ms, mtu: None, path_mtu },
            sent: Vec::new(),
            count: count as usize,
            is_answered: vec![false; lengths.len()],
            lengths,
            next: now,
            reply: Some(reply),
        });
    }

    /// The next echo that is due; confirm it with [`Pings::sent`].
    pub fn due(&self, now: Instant) -> Option<Echo> {
        self.running.iter().find(|ping| ping.sent.len() < ping.total() && now >= ping.next).map(|ping| Echo {
            id: ping.id,
            to: ping.answer.address,
            sequence: ping.sent.len() as u16,
            length: match ping.sent.len().checked_sub(ping.count) {
                Some(at) => ping.lengths[at],
                None => LENGTH,
            },
        })
    }

    /// The echo has left, by `path`.
    pub fn sent(&mut self, echo: &Echo, path: PathKind, now: Instant) {
        if let Some(ping) = self.running.iter_mut().find(|ping| ping.id == echo.id) {
            ping.sent.push(now);
            if ping.sent.len() <= ping.count {
                ping.answer.replies.push(PingReply { rtt_ms: None, path });
            }
            ping.next = if ping.sent.len() < ping.count { now + INTERVAL } else { now };
        }
    }

    /// Takes a packet from the tunnel; says whether it was an answer to one of our echoes.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let Some((from, id, sequence)) = parse_reply(packet) else { return false };
        let Some(ping) = self.running.iter_mut().find(|ping| ping.id == id && ping.answer.address == from)
        else {
            return false;
        };
        if let (Some(sent), Some(reply)) =
            (ping.sent.get(usize::from(sequence)), ping.answer.replies.get_mut(usize::from(sequence)))
        {
            let rtt = now.saturating_duration_since(*sent);
            if reply.rtt_ms.is_none() && rtt <= TIMEOUT {
                reply.rtt_ms = Some(rtt.as_secs_f64() * 1000.0);
            }
        }
        if let Some(at) = usize::from(sequence).checked_sub(ping.count)
            && ping.sent.len() > usize::from(sequence)
        {
            ping.is_answered[at] = true;
            ping.answer.mtu = ping.answer.mtu.max(Some(ping.lengths[at]));
        }
        true
    }

    /// Answers the pings that are complete.
    pub fn handle_timeout(&mut self, now: Instant) {
        for ping in self.running.iter_mut().filter(|ping| ping.is_complete(now)) {
            if let Some(reply) = ping.reply.take() {
                let _ = reply.send(Ok(ping.answer.clone()));
            }
        }
        self.running.retain(|ping| ping.reply.is_some());
    }

    /// When there is something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.running.iter().map(Ping::due_at).min()
    }
}

impl Ping {
    fn total(&self) -> usize {
        self.count + self.lengths.len()
    }

    fn is_complete(&self, now: Instant) -> bool {
        let is_answered = self.is_answered.iter().all(|is_answered| *is_answered);
        self.sent.len() == self.total()
            && (is_answered && self.answer.replies.iter().all(|reply| reply.rtt_ms.is_some())
                || self.sent.last().is_none_or(|last| now >= *last + TIMEOUT))
    }

    fn due_at(&self) -> Instant {
        match self.sent.last() {
            Some(last) if self.sent.len() == self.total() => *last + TIMEOUT,
            _ => self.next,
        }
    }
}

/// An ICMP echo request.
pub fn echo_request(from: Ipv4Addr, echo: &Echo) -> Vec<u8> {
    let mut packet = vec![0; usize::from(echo.length).max(HEADERS)];
    let length = packet.len() as u16;
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[8] = 64;
    packet[9] = ICMP;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&echo.to.octets());
    packet[20] = ECHO_REQUEST;
    packet[24..26].copy_from_slice(&echo.id.to_be_bytes());
    packet[26..28].copy_from_slice(&echo.sequence.to_be_bytes());
    let header_sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&header_sum.to_be_bytes());
    let sum = checksum(&packet[20..]);
    packet[22..24].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Source, id and sequence of an ICMP echo reply.
fn parse_reply(packet: &[u8]) -> Option<(Ipv4Addr, u16, u16)> {
    let header = usize::from(*packet.first()? & 15) * 4;
    let icmp = packet.get(header..)?;
    if header < 20 || packet[9] != ICMP || icmp.len() < 8 || icmp[0] != ECHO_REPLY || checksum(icmp) != 0 {
        return None;
    }
    let word = |at: usize| u16::from_be_bytes([icmp[at], icmp[at + 1]]);
    let source: [u8; 4] = packet[12..16].try_into().ok()?;
    Some((source.into(), word(4), word(6)))
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    const ME: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);

    /// What a kernel answers.
    fn answer(mut request: Vec<u8>) -> Vec<u8> {
        request.copy_within(12..16, 16);
        request[12..16].copy_from_slice(&OTHER.octets());
        request[20] = ECHO_REPLY;
        request[22..24].fill(0);
        let sum = checksum(&request[20..]);
        request[22..24].copy_from_slice(&sum.to_be_bytes());
        request
    }

    fn plan(count: u32, mtu: Option<u16>) -> Plan {
        Plan {
            member: "Ana".into(),
            address: OTHER,
            count,
            mtu,
            outside_rtt_ms: Some(4.5),
            path_mtu: Some(1300),
        }
    }

    #[test]
    fn the_longest_packet_that_comes_back_is_told() {
        let (mut pings, mut now) = (Pings::default(), Instant::now());
        let (reply, mut answered) = oneshot::channel();
        pings.start(plan(1, Some(1420)), reply, now);
        let mut lengths = Vec::new();
        while let Some(echo) = pings.due(now) {
            pings.sent(&echo, PathKind::Direct, now);
            let packet = echo_request(ME, &echo);
            assert_eq!(packet.len(), usize::from(echo.length));
            lengths.push(echo.length);
            if echo.length <= 1340 {
                assert!(pings.handle_packet(&answer(packet), now));
            }
        }
        assert_eq!(lengths, [84, 576, 1280, 1340, 1380, 1400, 1420]);
        now += TIMEOUT;
        pings.handle_timeout(now);
        let answer = answered.try_recv().unwrap().unwrap();
        assert_eq!((answer.mtu, answer.outside_rtt_ms, answer.replies.len()), (Some(1340), Some(4.5), 1));
    }

    #[test]
    fn counts_answers_and_silence_with_the_path_of_each() {
        let (mut pings, mut now) = (Pings::default(), Instant::now());
        let (reply, mut answered) = oneshot::channel();
        pings.start(plan(2, None), reply, now);

        let first = pings.due(now).unwrap();
        pings.sent(&first, PathKind::Relay, now);
        assert_eq!(pings.due(now), None, "one at a time");
        now += Duration::from_millis(30);
        assert!(pings.handle_packet(&answer(echo_request(ME, &first)), now));
        now += INTERVAL;
        let second = pings.due(now).unwrap();
        pings.sent(&second, PathKind::Direct, now);
        pings.handle_timeout(now);
        assert!(answered.try_recv().is_err());
        pings.handle_timeout(now + TIMEOUT);

        let replies = answered.try_recv().unwrap().unwrap().replies;
        assert!((replies[0].rtt_ms.unwrap() - 30.0).abs() < 0.01);
        assert_eq!(
            (replies[0].path, replies[1].path, replies[1].rtt_ms),
            (PathKind::Relay, PathKind::Direct, None)
        );
        assert!(pings.running.is_empty());
    }

    #[test]
    fn other_packets_are_left_alone() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        let (reply, _answered) = oneshot::channel();
        pings.start(plan(1, None), reply, now);
        let echo = pings.due(now).unwrap();
        pings.sent(&echo, PathKind::Relay, now);
        let good = answer(echo_request(ME, &echo));
        assert!(!pings.handle_packet(&echo_request(OTHER, &echo), now), "a request");
        assert!(!pings.handle_packet(&answer(echo_request(ME, &Echo { id: 7, ..echo })), now), "another id");
        for length in 0..28 {
            assert!(!pings.handle_packet(&good[..length], now));
        }
        assert!(pings.handle_packet(&good, now));
    }

    #[test]
    fn checksum_is_that_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }
}
