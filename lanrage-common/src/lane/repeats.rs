//! What programs here say to everybody again and again, for members that come late: one that has just become reachable, or that
//! has just joined the group, is told at once what it would hear next time.

use super::FragmentPart;
use super::membership::is_selective;
use super::packet::Packet;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Packets that leave together are one announcement, and the first of them counts.
const BURST: Duration = Duration::from_millis(250);
/// What comes again so soon needs no help.
const SOON: Duration = Duration::from_secs(2);
/// What comes again later than that does not belong together.
const MAX_GAP: Duration = Duration::from_secs(60);
/// After a member has become reachable its interface, and the groups of games there, get ready.
const SETTLE: Duration = Duration::from_secs(1);
const MAX_KEPT: usize = 64;
/// More is cut into pieces on its way.
const MAX_LENGTH: usize = 1392;

/// Whose announcement it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    destination: IpAddr,
    port: u16,
    source_port: u16,
}

#[derive(Debug)]
struct Kept {
    packet: Vec<u8>,
    last: Instant,
    /// Between the last two; none = said once.
    gap: Option<Duration>,
}

impl Kept {
    /// Whether the next one is still to be expected.
    fn is_current(&self, now: Instant) -> bool {
        let gap = self.gap.unwrap_or(MAX_GAP);
        now.saturating_duration_since(self.last) <= gap + gap / 2
    }

    fn is_announcement(&self, now: Instant) -> bool {
        self.gap.is_some_and(|gap| gap > SOON) && self.is_current(now)
    }
}

#[derive(Debug)]
struct Listener {
    settles_at: Instant,
    is_settled: bool,
    groups: Option<BTreeSet<IpAddr>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Repeats {
    kept: HashMap<Key, Kept>,
    members: BTreeMap<Ipv4Addr, Listener>,
    outputs: VecDeque<(Ipv4Addr, Vec<u8>)>,
}

impl Repeats {
    /// A packet of this device to everybody, as it is in its wrapping. Of one that is copied to many, each copy may be shown.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        let Ok(parsed) = Packet::parse(packet) else { return };
        let is_whole = parsed.facts().part == FragmentPart::Whole && packet.len() <= MAX_LENGTH;
        let Some((port, source_port)) = parsed.ports().filter(|_| is_whole) else { return };
        let key = Key { destination: parsed.facts().destination.into(), port, source_port };
        if let Some(kept) = self.kept.get_mut(&key) {
            let gap = now.saturating_duration_since(kept.last);
            if gap >= BURST {
                *kept =
                    Kept { packet: packet.into(), last: now, gap: Some(gap).filter(|gap| *gap <= MAX_GAP) };
            }
            return;
        }
        if self.kept.len() >= MAX_KEPT {
            self.kept.retain(|_, kept| kept.is_current(now));
        }
        if self.kept.len() < MAX_KEPT {
            self.kept.insert(key, Kept { packet: packet.into(), last: now, gap: None });
        }
    }

    /// The members that are reachable now, and what each has joined, if it has said so. Then drain [`Repeats::poll_output`].
    pub fn handle_members<'a>(
        &mut self,
        members: impl IntoIterator<Item = (Ipv4Addr, Option<&'a BTreeSet<IpAddr>>)>,
        now: Instant,
    ) {
        self.kept.retain(|_, kept| kept.is_current(now));
        let mut before = std::mem::take(&mut self.members);
        for (member, groups) in members {
            let new = || Listener { settles_at: now + SETTLE, is_settled: false, groups: None };
            let listener = before.remove(&member).unwrap_or_else(new);
            let settles = !listener.is_settled && now >= listener.settles_at;
            let current = self.kept.iter().filter(|(_, kept)| kept.is_announcement(now));
            let wanted = current.filter(|(key, kept)| match (&listener.groups, groups) {
                (old, Some(groups)) if is_selective(key.destination) => {
                    let had = old.as_ref().map_or(listener.is_settled, |old| old.contains(&key.destination));
                    groups.contains(&key.destination) && !had
                }
                // what was said since then has arrived
                _ => settles && kept.last < listener.settles_at,
            });
            self.outputs.extend(wanted.map(|(_, kept)| (member, kept.packet.clone())));
            let is_settled = listener.is_settled || settles;
            self.members.insert(member, Listener { is_settled, groups: groups.cloned(), ..listener });
        }
    }

    /// A packet for one member, as it was.
    pub fn poll_output(&mut self) -> Option<(Ipv4Addr, Vec<u8>)> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;
    use proptest::prelude::*;

    const ME: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
    const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
    const CARL: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 3);
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    fn packet(to: Ipv4Addr, port: u16, text: &[u8]) -> Vec<u8> {
        let length = (28 + text.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[0, 7, 0, 0, 1, 17, 0, 0]);
        packet.extend_from_slice(&ME.octets());
        packet.extend_from_slice(&to.octets());
        let sum = wire::checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend_from_slice(&4001u16.to_be_bytes());
        packet.extend_from_slice(&port.to_be_bytes());
        packet.extend_from_slice(&(length - 20).to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(text);
        packet
    }

    /// Says it at those seconds, twice in one breath.
    fn say(repeats: &mut Repeats, to: Ipv4Addr, port: u16, start: Instant, seconds: &[u64]) {
        for second in seconds {
            let at = start + Duration::from_secs(*second);
            repeats.handle_packet(&packet(to, port, &second.to_be_bytes()), at);
            repeats.handle_packet(&packet(to, port, b"another copy"), at + BURST / 2);
        }
    }

    fn told(repeats: &mut Repeats) -> Vec<(Ipv4Addr, Vec<u8>)> {
        std::iter::from_fn(|| repeats.poll_output()).collect()
    }

    /// What a member hears that becomes reachable at that second.
    fn late(repeats: &mut Repeats, start: Instant, second: u64) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        for half in 0..8 {
            repeats.handle_members(
                [(BEN, None)],
                start + Duration::from_secs(second) + Duration::from_millis(500 * half),
            );
            heard.extend(told(repeats).into_iter().map(|(_, packet)| packet));
        }
        repeats.handle_members([], start);
        heard
    }

    #[test]
    fn who_comes_late_hears_the_last_announcement_once() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        say(&mut repeats, Ipv4Addr::BROADCAST, 6112, start, &[0, 10, 20]);
        let last = packet(Ipv4Addr::BROADCAST, 6112, &20u64.to_be_bytes());
        assert_eq!(late(&mut repeats, start, 21), std::slice::from_ref(&last));
        assert_eq!(late(&mut repeats, start, 25), [last], "who was away and is back");
        assert!(late(&mut repeats, start, 36).is_empty(), "the next one did not come: it has ended");
    }

    #[test]
    fn a_question_and_what_comes_soon_anyway_are_not_repeated() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        say(&mut repeats, Ipv4Addr::BROADCAST, 6112, start, &[1]);
        say(&mut repeats, Ipv4Addr::BROADCAST, 6113, start, &[0, 1, 2]);
        say(&mut repeats, Ipv4Addr::BROADCAST, 6114, start, &[0]);
        assert!(late(&mut repeats, start, 2).is_empty());
        repeats.handle_packet(&packet(Ipv4Addr::BROADCAST, 6115, &[0; 1400]), start);
        assert!(repeats.kept.keys().all(|key| key.port != 6115), "too long");
        say(&mut repeats, Ipv4Addr::BROADCAST, 6114, start, &[70]);
        assert!(late(&mut repeats, start, 71).is_empty(), "too far apart");
    }

    #[test]
    fn who_joins_a_group_hears_it_and_who_has_not_does_not() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let (joined, none) = (BTreeSet::from([GROUP.into()]), BTreeSet::new());
        let last = packet(GROUP, 4445, &5u64.to_be_bytes());
        say(&mut repeats, GROUP, 4445, start, &[0, 5]);
        let mut at = |half: u64, groups| {
            repeats.handle_members(
                [(BEN, groups), (CARL, Some(&none))],
                start + Duration::from_millis(5000 + 500 * half),
            );
            told(&mut repeats)
        };
        assert!((0..4).all(|half| at(half, Some(&none)).is_empty()));
        assert_eq!(at(4, Some(&joined)), [(BEN, last.clone())]);
        assert!((5..7).all(|half| at(half, Some(&joined)).is_empty()), "once");
        at(7, Some(&none));
        assert_eq!(at(8, Some(&joined)), [(BEN, last)], "its game was started again");
    }

    #[test]
    fn who_says_late_what_it_has_joined_hears_it_once() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        say(&mut repeats, GROUP, 4445, start, &[0, 5]);
        let joined = BTreeSet::from([GROUP.into()]);
        let mut heard = 0;
        for half in 0..8 {
            let groups = (half >= 6).then_some(&joined);
            repeats.handle_members([(BEN, groups)], start + Duration::from_millis(5500 + 500 * half));
            heard += told(&mut repeats).len();
        }
        assert_eq!(heard, 1);
    }

    proptest! {
        #[test]
        fn state_is_bounded(packets in proptest::collection::vec((any::<u16>(), 0u64..200, proptest::collection::vec(any::<u8>(), 0..40)), 0..400)) {
            let (mut repeats, mut now) = (Repeats::default(), Instant::now());
            for (port, step, bytes) in packets {
                now += Duration::from_millis(step * 10);
                repeats.handle_packet(&packet(Ipv4Addr::BROADCAST, port % 100, &bytes), now);
                repeats.handle_packet(&bytes, now);
                prop_assert!(repeats.kept.len() <= MAX_KEPT);
            }
            repeats.handle_members([(BEN, None)], now);
            repeats.handle_members([(BEN, None)], now + SETTLE);
            prop_assert!(told(&mut repeats).len() <= MAX_KEPT);
        }
    }
}
