//! What somebody gets out of the relay who has proven nothing: never more than he puts in, and nothing that goes on.

use crate::fixtures::padded;
use crate::pair::*;
use lanrage_common::reason::Reason;
use lanrage_common::wire::Be16;
use lanrage_tests::frames::{stun, udp_frame};
use lanrage_tests::model::{Outcome, REDIRECT, TX};
use std::net::SocketAddr;

const LENGTHS: std::ops::RangeInclusive<usize> = 0..=1500;
/// Bytes before UDP's payload, by IP version.
const HEADERS: [usize; 2] = [42, 62];

struct Victim {
    pair: Pair,
    answered: u64,
}

impl Victim {
    fn new() -> Self {
        let mut pair = Pair::new();
        pair.change_local(|local| local.pair_ports = [Be16::new(3478), Be16::new(443)]);
        Self { pair, answered: 0 }
    }

    /// Sends a datagram from a stranger of each IP version. At most one comes back, at most as long, only for STUN.
    fn receive(&mut self, payload: &[u8]) {
        for (from, to) in [(0, 0), (1, 2)] {
            let frame = udp_frame(STRANGERS[from], RELAYS[to], payload);
            let outcome = self.pair.agree(&frame);
            assert_ne!(outcome.action, REDIRECT, "{payload:02x?}");
            if outcome.action == TX {
                self.answered += 1;
                assert!(
                    outcome.frame.len() <= frame.len(),
                    "{} bytes for {}",
                    outcome.frame.len(),
                    frame.len()
                );
                assert_eq!(outcome.reason, Reason::StunAnswered);
            }
        }
    }
}

#[test]
fn no_message_of_any_type_and_length_earns_a_longer_answer() {
    let mut victim = Victim::new();
    for kind in 0..=255 {
        for length in LENGTHS {
            let mut payload = vec![0; length];
            if let Some(first) = payload.first_mut() {
                *first = kind;
            }
            victim.receive(&payload);
        }
    }
    assert_eq!(victim.answered, 0, "only STUN is answered");
}

#[test]
fn no_stun_message_of_any_length_earns_a_longer_answer() {
    let mut victim = Victim::new();
    for kind in [0x0001, 0x0011, 0x0101, 0x0111] {
        for length in LENGTHS.filter(|length| *length >= 20) {
            for attribute in [[0x80, 0x22], [0x00, 0x26], [0x00, 0x06]] {
                let mut attributes = vec![0; length - 20];
                if let [first, second, high, low, ..] = &mut attributes[..] {
                    [*first, *second] = attribute;
                    [*high, *low] = (length as u16 - 24).to_be_bytes();
                }
                victim.receive(&stun(kind, &attributes));
            }
        }
    }
    assert!(victim.answered > 1000, "{} answers: the test does not reach them", victim.answered);
    for kind in 0..0x4000 {
        for payload in [stun(kind, &[]), stun(kind, &[0; 24]), stun(kind, &padded(100)[20..])] {
            victim.receive(&payload);
        }
    }
}

fn payload(outcome: &Outcome, family: usize) -> Vec<u8> {
    outcome.frame[HEADERS[family]..].to_vec()
}

#[test]
fn no_answer_is_ever_answered() {
    let mut victim = Victim::new();
    let pair = &mut victim.pair;
    let mut answers = 0;
    for size in (4..=1400).step_by(4) {
        for (family, to) in [(0, 0), (1, 2)] {
            let outcome = pair.agree(&udp_frame(STRANGERS[family], RELAYS[to], &padded(size)));
            if outcome.action != TX {
                continue;
            }
            answers += 1;
            let answer = payload(&outcome, family);
            // back to the relay: from its victim, from another relay, from itself
            for from in [STRANGERS[family], SENDERS[family], RELAYS[to + 1], RELAYS[to]] {
                for own in [RELAYS[to], RELAYS[to + 1]] {
                    let outcome = pair.agree(&udp_frame(from, own, &answer));
                    assert_ne!(outcome.action, TX, "{from} had an answer answered at {own}");
                    assert_ne!(outcome.action, REDIRECT);
                }
            }
        }
    }
    assert!(answers > 500, "only {answers} answers");
    // nor does the relay ask itself
    for (from, to) in [(0, 1), (1, 0), (0, 0), (2, 3), (3, 3)] {
        let from = SocketAddr::new(RELAYS[from].ip(), 5000);
        assert_ne!(pair.agree(&udp_frame(from, RELAYS[to], &padded(100))).action, TX);
    }
}
