//! Two tunnels with relays between them that route as real ones do: by what they have seen of handshakes.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const RELAYS: [&str; 3] = ["192.0.2.9:3478", "192.0.2.10:3478", "192.0.2.11:3478"];

/// The pair, and what each relay knows: sender and index of open offers, and whose packets with which index it forwards.
struct Relayed {
    pair: Pair,
    offers: BTreeSet<(SocketAddr, usize, [u8; 4])>,
    flows: BTreeSet<(SocketAddr, usize, [u8; 4])>,
    /// Relays that forward nothing.
    dead: Vec<SocketAddr>,
    /// The relay whose datagrams arrive last.
    slow: Option<SocketAddr>,
    /// By type of message and relay.
    carried: BTreeMap<(u8, SocketAddr), u32>,
    lost: u32,
}

impl Relayed {
    /// Both sides use the first relay; the second stands by.
    fn new() -> Self {
        let pair = Pair::new();
        let mut relayed = Self {
            pair,
            offers: BTreeSet::new(),
            flows: BTreeSet::new(),
            dead: Vec::new(),
            slow: None,
            carried: BTreeMap::new(),
            lost: 0,
        };
        relayed.move_to(&[0, 1], 0, 1);
        relayed
    }

    fn move_to(&mut self, sides: &[usize], relay: usize, standby: usize) {
        let relay = endpoint(RELAYS[relay]);
        let standby = Some(endpoint(RELAYS[standby]));
        for side in sides {
            self.pair
                .set_path(*side, TunnelPath { endpoint: relay, relay: Some(relay), standby, copy: None });
        }
    }

    /// Carries datagrams until both sides are silent.
    fn settle(&mut self) {
        loop {
            let mut waiting: Vec<_> = (0..2)
                .flat_map(|side| {
                    let sent = std::mem::take(&mut self.pair.sinks[side].datagrams);
                    sent.into_iter().map(move |(to, datagram)| (to, side, datagram))
                })
                .collect();
            waiting.sort_by_key(|(to, ..)| Some(*to) == self.slow);
            if waiting.is_empty() {
                return;
            }
            for (relay, side, datagram) in waiting {
                self.carry(relay, side, &datagram);
            }
        }
    }

    fn carry(&mut self, relay: SocketAddr, side: usize, datagram: &[u8]) {
        let word = |at: usize| <[u8; 4]>::try_from(&datagram[at..at + 4]).unwrap();
        let passes = match datagram[0] {
            _ if self.dead.contains(&relay) => false,
            1 => {
                self.offers.insert((relay, side, word(4)));
                true
            }
            2 if self.offers.remove(&(relay, 1 - side, word(8))) => {
                self.flows.extend([(relay, 1 - side, word(4)), (relay, side, word(8))]);
                true
            }
            4 => self.flows.contains(&(relay, side, word(4))),
            _ => false,
        };
        if !passes {
            self.lost += u32::from(datagram[0] == 4);
            return;
        }
        *self.carried.entry((datagram[0], relay)).or_default() += 1;
        let Pair { tunnels, sinks, now, .. } = &mut self.pair;
        tunnels[1 - side].handle_datagram(relay, datagram, *now, &mut sinks[1 - side]);
    }

    /// A packet each way, and through which relays they went.
    fn talk(&mut self) -> [SocketAddr; 2] {
        let ways = [0, 1].map(|side| {
            self.pair.send(side, &packet(ADDRESSES[side], ADDRESSES[1 - side], b"hello"));
            let sent = &self.pair.sinks[side].datagrams;
            sent.iter().rfind(|(_, datagram)| datagram[0] == 4).map(|(to, _)| *to).unwrap()
        });
        self.settle();
        ways
    }

    fn received(&self) -> [usize; 2] {
        [0, 1].map(|side| self.pair.sinks[side].packets.len())
    }

    fn run(&mut self, time: Duration) {
        let until = self.pair.now + time;
        while self.pair.now < until {
            self.pair.tick(TICK);
            self.settle();
        }
    }
}

fn both(relay: usize) -> [SocketAddr; 2] {
    [endpoint(RELAYS[relay]); 2]
}

#[test]
fn both_relays_learn_the_session_whichever_is_faster() {
    for slow in [0, 1] {
        let mut relayed = Relayed::new();
        relayed.slow = Some(endpoint(RELAYS[slow]));
        relayed.run(Duration::from_secs(1));
        assert_eq!(relayed.talk(), both(0));
        let handshakes = relayed.carried.get(&(1, endpoint(RELAYS[1]))).copied();
        relayed.run(Duration::from_secs(60));
        assert_eq!(
            relayed.carried.get(&(1, endpoint(RELAYS[1]))).copied(),
            handshakes,
            "no more were needed"
        );

        relayed.dead.push(endpoint(RELAYS[0]));
        relayed.move_to(&[0, 1], 1, 0);
        assert_eq!(relayed.talk(), both(1), "data moves at once");
        assert_eq!((relayed.received(), relayed.lost), ([2, 2], 0), "slow {slow}");
    }
}

#[test]
fn data_moves_to_a_relay_only_when_that_knows_the_session() {
    let mut relayed = Relayed::new();
    relayed.run(Duration::from_secs(1));
    relayed.talk();
    relayed.move_to(&[0, 1], 2, 0);
    assert_eq!(relayed.talk(), both(0), "the new relay knows nothing yet");
    relayed.run(Duration::from_millis(200));
    relayed.talk();
    assert_eq!(relayed.talk(), both(2));
    assert_eq!((relayed.received(), relayed.lost), ([4, 4], 0));
}

#[test]
fn a_new_standby_is_told_the_session_by_itself() {
    let mut relayed = Relayed::new();
    relayed.run(Duration::from_secs(1));
    relayed.move_to(&[0, 1], 0, 2);
    relayed.run(Duration::from_secs(2));
    relayed.talk();
    relayed.dead.push(endpoint(RELAYS[0]));
    relayed.move_to(&[0, 1], 2, 0);
    assert_eq!(relayed.talk(), both(2));
    assert_eq!((relayed.received(), relayed.lost), ([2, 2], 0));
}

#[test]
fn a_standby_that_forwards_nothing_costs_few_handshakes() {
    let mut relayed = Relayed::new();
    relayed.dead.push(endpoint(RELAYS[1]));
    relayed.run(Duration::from_secs(100));
    let handshakes = relayed.carried[&(1, endpoint(RELAYS[0]))];
    assert!((3..=12).contains(&handshakes), "{handshakes}");
    relayed.dead.clear();
    relayed.run(Duration::from_secs(130));
    relayed.move_to(&[0, 1], 1, 0);
    assert_eq!(relayed.talk(), both(1), "it was told in the end");
    assert_eq!(relayed.lost, 0);
}

#[test]
fn one_side_may_move_before_the_other() {
    let mut relayed = Relayed::new();
    relayed.run(Duration::from_secs(1));
    relayed.move_to(&[1], 1, 0);
    let [first, second] = RELAYS.map(endpoint)[..2].try_into().unwrap();
    assert_eq!(relayed.talk(), [first, second]);
    relayed.move_to(&[0], 1, 0);
    assert_eq!(relayed.talk(), [second, second]);
    assert_eq!((relayed.received(), relayed.lost), ([2, 2], 0));
}

#[test]
fn an_old_answer_is_not_given_to_strangers() {
    let mut relayed = Relayed::new();
    let stranger = endpoint("198.51.100.66:6666");
    let (_, initiation) = relayed.pair.sinks[0].datagrams[0].clone();
    relayed.settle();
    let Pair { tunnels, sinks, now, .. } = &mut relayed.pair;
    tunnels[1].handle_datagram(stranger, &initiation, *now, &mut sinks[1]);
    assert!(sinks[1].datagrams.is_empty(), "{:?}", sinks[1].datagrams.len());
}
