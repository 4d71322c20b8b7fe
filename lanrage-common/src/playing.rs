//! Who plays what. Each member tells the others through the tunnel which games run on it, so that everybody sees who could
//! be joined. The tunnel has proven who says so; nobody else hears it.
//!
//! It is told when it changes, again and again while something runs, and forgotten when it is not heard for a while. One
//! datagram to the lane's port (see [`crate::lane::report_in`]):
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version and kind: `0x14` = plays |
//! | 1 | number of names, at most [`MAX_GAMES`]; 0 = nothing |
//! | 1 | each name: bytes that follow, 1 to [`MAX_GAME_NAME`] |
//! | n | the name, UTF-8 without control characters |

use crate::bucket::{Bucket, Rate};
use crate::lane::report_packet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Names that one member tells.
pub const MAX_GAMES: usize = 4;
/// Bytes of a name.
pub const MAX_GAME_NAME: usize = 64;
const PLAYS: u8 = 0x14;
/// What has changed is told so often: a datagram can be lost.
const REPEATS: u8 = 3;
const REPEAT: Duration = Duration::from_secs(1);
/// And then as often as this, while something runs.
const AGAIN: Duration = Duration::from_secs(15);
/// A member's word counts so long.
const LIFE: Duration = Duration::from_secs(50);
/// Datagrams that one member may send.
const WORDS: Rate = Rate::per_second(4, 16);

#[derive(Debug)]
struct Member {
    games: Vec<String>,
    until: Instant,
    allowance: Bucket,
}

/// See the module.
#[derive(Debug)]
pub struct Playing {
    me: Ipv4Addr,
    own: Vec<String>,
    members: BTreeMap<Ipv4Addr, Member>,
    repeats: u8,
    next: Option<Instant>,
    outputs: VecDeque<Ipv4Addr>,
}

impl Playing {
    /// Nobody plays; `me` is the own overlay address.
    pub fn new(me: Ipv4Addr) -> Self {
        Self {
            me,
            own: Vec::new(),
            members: BTreeMap::new(),
            repeats: 0,
            next: None,
            outputs: VecDeque::new(),
        }
    }

    /// The members there are. New ones are told soon.
    pub fn set_members(&mut self, members: &BTreeSet<Ipv4Addr>, now: Instant) {
        self.members.retain(|address, _| members.contains(address));
        let known = self.members.len();
        for address in members.iter().filter(|address| **address != self.me) {
            let fresh = || Member { games: Vec::new(), until: now, allowance: Bucket::new(WORDS) };
            self.members.entry(*address).or_insert_with(fresh);
        }
        if self.members.len() > known && !self.own.is_empty() {
            self.tell(now);
        }
    }

    /// What runs here and may be told, by name. More than [`MAX_GAMES`], and names that cannot be told, are left out.
    pub fn set_own(&mut self, games: impl IntoIterator<Item = String>, now: Instant) {
        let own: Vec<String> = games.into_iter().filter(|name| is_name(name)).take(MAX_GAMES).collect();
        if own != self.own {
            self.own = own;
            self.tell(now);
        }
    }

    fn tell(&mut self, now: Instant) {
        (self.repeats, self.next) = (REPEATS, Some(now));
    }

    /// Whether a payload (what [`crate::lane::report_in`] found) is one of these.
    pub fn is_in(payload: &[u8]) -> bool {
        payload.first() == Some(&PLAYS)
    }

    /// A datagram of the member at `from`.
    pub fn handle_report(&mut self, from: Ipv4Addr, payload: &[u8], now: Instant) {
        if let Some(member) = self.members.get_mut(&from)
            && member.allowance.take(1, now)
            && let Some(games) = parse(payload)
        {
            (member.games, member.until) = (games, now + LIFE);
        }
    }

    /// What a member plays.
    pub fn games_of(&self, member: Ipv4Addr, now: Instant) -> &[String] {
        let member = self.members.get(&member).filter(|member| now < member.until);
        member.map_or(&[], |member| &member.games)
    }

    /// The next whole packet for the tunnel.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        let to = self.outputs.pop_front()?;
        let mut payload = vec![PLAYS, self.own.len() as u8];
        for name in &self.own {
            payload.push(name.len() as u8);
            payload.extend_from_slice(name.as_bytes());
        }
        Some(report_packet(self.me, to, &payload))
    }

    /// When [`Playing::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Tells the members when it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.outputs = self.members.keys().copied().collect();
        self.repeats = self.repeats.saturating_sub(1);
        self.next = match (self.repeats, self.own.is_empty()) {
            (0, true) => None,
            (0, false) => Some(now + AGAIN),
            _ => Some(now + REPEAT),
        };
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_GAME_NAME).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// None when it is malformed. Bytes beyond the names belong to later versions.
fn parse(payload: &[u8]) -> Option<Vec<String>> {
    let [PLAYS, count, rest @ ..] = payload else { return None };
    let mut rest = rest;
    let mut games = Vec::new();
    for _ in 0..*count {
        let (length, tail) = rest.split_first()?;
        let (name, tail) = tail.split_at_checked(usize::from(*length))?;
        let name = str::from_utf8(name).ok().filter(|name| is_name(name))?;
        games.push(name.to_owned());
        rest = tail;
    }
    (games.len() <= MAX_GAMES).then_some(games)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::report_in;
    use proptest::prelude::*;

    const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
    const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);

    fn pair(now: Instant) -> [Playing; 2] {
        [ANA, BEN].map(|me| {
            let mut playing = Playing::new(me);
            playing.set_members(&[ANA, BEN].into(), now);
            playing
        })
    }

    fn doom() -> Vec<String> {
        vec!["Chocolate Doom".into()]
    }

    /// Gives what `from` says to `to`; how many packets that were.
    fn exchange(from: &mut Playing, to: &mut Playing, now: Instant) -> usize {
        from.handle_timeout(now);
        let packets: Vec<_> = std::iter::from_fn(|| from.poll_output()).collect();
        for packet in &packets {
            let payload = report_in(packet).unwrap();
            assert!(Playing::is_in(payload));
            to.handle_report(from.me, payload, now);
        }
        packets.len()
    }

    #[test]
    fn what_runs_is_told_until_it_ends() {
        let mut now = Instant::now();
        let [mut ana, mut ben] = pair(now);
        assert_eq!(
            (exchange(&mut ana, &mut ben, now), ana.poll_timeout()),
            (0, None),
            "silent without games"
        );
        ana.set_own(doom(), now);
        assert_eq!(exchange(&mut ana, &mut ben, now), 1);
        assert_eq!(ben.games_of(ANA, now), doom());
        let mut told = 0;
        for _ in 0..120 {
            now += Duration::from_secs(1);
            told += exchange(&mut ana, &mut ben, now);
            assert_eq!(ben.games_of(ANA, now), doom());
        }
        assert!((8..=12).contains(&told), "{told}");
        ana.set_own([], now);
        exchange(&mut ana, &mut ben, now);
        assert_eq!(ben.games_of(ANA, now), [""; 0]);
        let rest: usize = (1..60).map(|s| exchange(&mut ana, &mut ben, now + Duration::from_secs(s))).sum();
        assert_eq!((rest, ana.poll_timeout()), (2, None));
    }

    #[test]
    fn silence_and_leaving_are_forgotten_and_strangers_are_not_heard() {
        let now = Instant::now();
        let [mut ana, mut ben] = pair(now);
        ana.set_own(doom(), now);
        exchange(&mut ana, &mut ben, now);
        assert_eq!(ben.games_of(ANA, now + LIFE), [""; 0]);
        ben.set_members(&[BEN].into(), now);
        assert_eq!(ben.games_of(ANA, now), [""; 0]);
        ben.handle_report(ANA, &[PLAYS, 1, 1, b'x'], now);
        ben.set_members(&[ANA, BEN].into(), now);
        assert_eq!(ben.games_of(ANA, now), [""; 0]);
    }

    #[test]
    fn who_joins_is_told_soon() {
        let now = Instant::now();
        let [mut ana, mut ben] = pair(now);
        ana.set_members(&[ANA].into(), now);
        ana.set_own(doom(), now);
        for second in 0..5 {
            exchange(&mut ana, &mut ben, now + Duration::from_secs(second));
        }
        let later = now + Duration::from_secs(5);
        ana.set_members(&[ANA, BEN].into(), later);
        assert_eq!(exchange(&mut ana, &mut ben, later), 1);
        assert_eq!(ben.games_of(ANA, later), doom());
    }

    #[test]
    fn a_member_that_talks_too_much_is_not_listened_to() {
        let now = Instant::now();
        let [_, mut ben] = pair(now);
        for n in 0..100u8 {
            ben.handle_report(ANA, &[PLAYS, 1, 1, b' ' + n % 90], now);
        }
        assert_eq!(ben.games_of(ANA, now), [char::from(b' ' + 15).to_string()]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400), count in 0u8..6) {
            let payload = [&[PLAYS, count][..], &bytes].concat();
            if let Some(games) = parse(&payload) {
                prop_assert!(games.len() == usize::from(count) && games.iter().all(|name| is_name(name)));
            }
        }

        #[test]
        fn what_is_written_is_read(games in proptest::collection::vec("\\PC{1,16}", 0..=MAX_GAMES)) {
            let now = Instant::now();
            let [mut ana, mut ben] = pair(now);
            ana.set_own(games.clone(), now);
            exchange(&mut ana, &mut ben, now);
            prop_assert_eq!(ben.games_of(ANA, now), games);
        }
    }
}
