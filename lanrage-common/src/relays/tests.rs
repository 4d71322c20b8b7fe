use super::*;
use crate::binding::{Request, binding_answer, parse_request};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Relays at fixed distances, and a clock.
struct World {
    choice: RelayChoice<StdRng>,
    list: Vec<RelayInfo>,
    /// Round trip by name; none = no answer.
    rtts: BTreeMap<String, Option<u64>>,
    start: Instant,
    at: Duration,
    held: Vec<String>,
    legs: BTreeMap<String, Leg>,
    sent: u32,
}

impl World {
    fn new(rtts: &[(&str, u64)]) -> Self {
        let info = |(n, (name, _)): (usize, &(&str, u64))| RelayInfo {
            name: (*name).into(),
            addresses: vec![([192, 0, 2, n as u8 + 1], 3478).into()],
            ..RelayInfo::default()
        };
        let mut world = Self {
            choice: RelayChoice::new(PartyId([1; 16]), StdRng::seed_from_u64(1)),
            list: rtts.iter().enumerate().map(info).collect(),
            rtts: rtts.iter().map(|(name, rtt)| ((*name).into(), Some(*rtt))).collect(),
            start: Instant::now(),
            at: Duration::ZERO,
            held: Vec::new(),
            legs: BTreeMap::new(),
            sent: 0,
        };
        world.tell_list();
        world
    }

    fn now(&self) -> Now {
        Now { instant: self.start + self.at, unix: 0 }
    }

    fn tell_list(&mut self) {
        let now = self.now();
        self.choice.set_list(&self.list, now);
        self.drain();
    }

    fn set_state(&mut self, name: &str, state: RelayState) {
        self.list.iter_mut().filter(|info| info.name == name).for_each(|info| info.state = state);
        self.tell_list();
    }

    fn wish(&mut self, wishes: &[&str], used: &[&str]) {
        let now = self.now();
        let wishes = wishes.iter().map(|name| ((*name).into(), 1)).collect();
        self.choice.set_wishes(wishes, used.iter().map(|name| (*name).into()).collect(), now);
        self.drain();
    }

    /// Answers come back after the relay's round trip; nothing else happens meanwhile.
    fn drain(&mut self) {
        while let Some(output) = self.choice.poll_output() {
            match output {
                Output::Hold(held) => {
                    let fresh: Vec<String> = held.iter().map(|info| info.name.clone()).collect();
                    let now = self.now();
                    for name in &fresh {
                        self.choice.set_bound(name, true, now);
                    }
                    self.held = fresh;
                }
                Output::Legs(legs) => self.legs = legs,
                Output::Transmit { to, payload } => self.answer(to, &payload),
            }
        }
    }

    fn answer(&mut self, to: SocketAddr, payload: &[u8]) {
        self.sent += 1;
        let Some(Request::Binding(request)) = parse_request(payload) else { panic!("{payload:?}") };
        let transaction = request.transaction;
        let name = &self.list.iter().find(|info| info.addresses == [to]).unwrap().name;
        if let Some(rtt) = self.rtts[name] {
            let later = Now { instant: self.now().instant + Duration::from_millis(rtt), unix: 0 };
            let answer = binding_answer(transaction, "203.0.113.1:4001".parse().unwrap());
            assert!(answer.len() <= payload.len(), "relays never answer with more than they got");
            assert!(self.choice.handle_datagram(to, &answer, later));
            assert!(!self.choice.handle_datagram(to, &answer, later), "an answer counts once");
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.at + time;
        while let Some(due) = self.choice.poll_timeout().map(|due| due.saturating_duration_since(self.start))
        {
            if due > until {
                break;
            }
            self.at = due.max(self.at);
            let now = self.now();
            self.choice.handle_timeout(now);
            self.drain();
        }
        self.at = until;
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn two_relays_are_held_at_once() {
    let world = World::new(&[("a", 10), ("b", 90)]);
    assert_eq!(world.held, ["a", "b"], "there is nothing to wait for");
}

#[test]
fn the_two_nearest_of_many_are_held() {
    let mut world = World::new(&[("a", 90), ("b", 20), ("c", 150), ("d", 60)]);
    assert!(world.held.is_empty());
    world.run(secs(1));
    assert_eq!(world.held, ["b", "d"]);
    assert_eq!(world.legs["b"], Leg { rtt_ms: Some(20), jitter_ms: 0, avoid: false });
    assert_eq!(
        world.choice.status().map(|status| status.is_held).collect::<Vec<_>>(),
        [false, true, false, true]
    );
    let before = world.sent;
    world.run(secs(60));
    assert!(world.sent - before <= 2 * 6 + 2 * 2 + 4, "{} samples a minute", world.sent - before);
}

#[test]
fn without_answers_two_are_held_all_the_same() {
    let mut world = World::new(&[("a", 1), ("b", 1), ("c", 1)]);
    world.rtts.values_mut().for_each(|rtt| *rtt = None);
    world.run(secs(1));
    assert_eq!(world.held.len(), 2, "UDP may be blocked, and TLS work");
}

#[test]
fn a_pairs_wish_is_held_until_it_is_over() {
    let mut world = World::new(&[("a", 10), ("b", 30), ("c", 60)]);
    world.run(secs(1));
    world.wish(&["c"], &[]);
    assert_eq!(world.held, ["a", "b", "c"]);
    world.wish(&[], &["c"]);
    world.run(secs(120));
    assert_eq!(world.held, ["a", "b", "c"], "what is used is kept");
    world.wish(&[], &[]);
    world.run(LINGER + secs(1));
    assert_eq!(world.held, ["a", "b"]);
}

#[test]
fn a_draining_relay_is_replaced_before_it_is_left() {
    let mut world = World::new(&[("a", 10), ("b", 30), ("c", 60)]);
    world.run(secs(1));
    world.wish(&["a"], &["a"]);
    world.set_state("a", RelayState::Draining);
    assert_eq!(world.held, ["a", "b", "c"]);
    assert!(world.legs["a"].avoid);
    world.wish(&["b", "c"], &["b"]);
    world.run(LINGER_AVOIDED + secs(1));
    assert_eq!(world.held, ["b", "c"]);
    world.wish(&["b"], &["b"]);
    world.set_state("a", RelayState::Ready);
    world.run(LINGER + secs(1));
    assert_eq!(world.held, ["a", "b"], "twenty milliseconds and two thirds are worth a move back");
}

#[test]
fn full_relays_are_for_those_who_are_in() {
    let mut world = World::new(&[("a", 10), ("b", 30), ("c", 60)]);
    world.run(secs(1));
    world.set_state("a", RelayState::Full);
    world.run(secs(60));
    assert_eq!((world.held.clone(), world.legs["a"].avoid), (vec!["a".into(), "b".into()], false));
    world.set_state("c", RelayState::Full);
    assert!(world.legs["c"].avoid);
}

#[test]
fn an_emptied_list_takes_no_relay_away_that_still_answers() {
    let mut world = World::new(&[("a", 10), ("b", 30)]);
    world.run(secs(1));
    let list = std::mem::take(&mut world.list);
    world.choice.set_list(&[], world.now());
    world.list = list;
    world.run(secs(120));
    assert_eq!(world.held, ["a", "b"]);
    let now = world.now();
    world.choice.set_bound("a", false, now);
    world.drain();
    assert_eq!(world.held, ["b"], "it has stopped to answer");
    world.tell_list();
    assert_eq!(world.held, ["a", "b"]);
}

#[test]
fn a_busy_relay_is_left_to_others() {
    let mut world = World::new(&[("a", 10), ("b", 20), ("c", 22)]);
    world.list[0].load = 90;
    world.tell_list();
    world.run(secs(1));
    assert_eq!(world.held, ["b", "c"]);
}

#[test]
fn legs_are_told_only_when_they_have_changed_for_real() {
    let leg = |rtt, jitter_ms| Leg { rtt_ms: Some(rtt), jitter_ms, avoid: false };
    for (fresh, told) in [
        (leg(52, 4), leg(50, 0)),
        (leg(61, 0), leg(61, 0)),
        (leg(50, 9), leg(50, 9)),
        (leg(58, 0), leg(50, 0)),
    ] {
        assert_eq!(damp(Some(leg(50, 0)), fresh), told);
    }
    assert!(damp(Some(leg(50, 0)), Leg { avoid: true, ..leg(50, 0) }).avoid);
}
