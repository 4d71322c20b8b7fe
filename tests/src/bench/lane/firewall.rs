//! What the party firewall costs a packet, without any network: the core alone, packets of conversations that are known.

use lanrage_common::firewall::{Firewall, Mode, Policy, Verdict};
use lanrage_common::lane::{Lane, report_packet};
use serde::Serialize;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const SUBNET: &str = "10.66.0.0/16";
/// Bytes of UDP payload.
const PAYLOAD: usize = 172;
/// Rounds, of which the fastest counts: others were interrupted.
const ROUNDS: usize = 5;

/// Nanoseconds a packet.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// UDP conversations at once.
    pub flows: u16,
    /// From a member, while the firewall is open.
    pub open_ns: f64,
    /// From a member, while it lets games in.
    pub games_ns: f64,
    /// To a member: noted in either case.
    pub sent_ns: f64,
}

/// With that many conversations; `packets` a round.
pub fn cost(flows: u16, packets: u32) -> Cost {
    let local = |mode| Firewall::new(*lane().local(), Policy { mode: Some(mode), words: Vec::new() });
    let (mut open, mut games) = (local(Mode::Open), local(Mode::Games));
    let now = Instant::now();
    let sent: Vec<_> = (0..flows).map(|flow| packet((ANA, 20_000 + flow), (BEN, 40_000))).collect();
    let received: Vec<_> = (0..flows).map(|flow| packet((BEN, 40_000), (ANA, 20_000 + flow))).collect();
    sent.iter().for_each(|packet| games.handle_outbound(packet, now));
    Cost {
        flows,
        open_ns: fastest(packets, &received, |packet| {
            assert_eq!(open.handle_inbound(packet, BEN, now), Verdict::Pass);
        }),
        games_ns: fastest(packets, &received, |packet| {
            assert_eq!(games.handle_inbound(packet, BEN, now), Verdict::Pass, "a known conversation");
        }),
        sent_ns: fastest(packets, &sent, |packet| games.handle_outbound(packet, now)),
    }
}

fn lane() -> Lane {
    #[expect(clippy::unwrap_used, reason = "a constant")]
    Lane::new(ANA, SUBNET.parse().unwrap())
}

fn packet(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut packet = report_packet(from.0, to.0, &[7; PAYLOAD]);
    packet[20..22].copy_from_slice(&from.1.to_be_bytes());
    packet[22..24].copy_from_slice(&to.1.to_be_bytes());
    packet[26..28].fill(0);
    packet
}

fn fastest(count: u32, packets: &[Vec<u8>], mut work: impl FnMut(&[u8])) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for packet in packets.iter().cycle().take(count as usize) {
            work(black_box(packet));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(count)
    });
    rounds.fold(f64::INFINITY, f64::min)
}
