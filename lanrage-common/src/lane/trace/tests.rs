use super::*;
use crate::wire::Be32;
use proptest::prelude::*;

const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const EVERYBODY: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

fn start() -> Now {
    Now { instant: Instant::now(), unix: 1_000 }
}

fn trace_of(me: Ipv4Addr) -> Trace {
    let mut trace = Trace::new(me);
    trace.set_members([ANA, BEN].into_iter().filter(|member| *member != me));
    trace
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn key(source: Ipv4Addr, port: u16) -> TraceKey {
    TraceKey { destination: EVERYBODY.into(), source: Be32::from_octets(source.octets()), port: port.into() }
}

fn count(packets: u64, copies: u64) -> TraceCount {
    TraceCount { packets, copies, source_port: 4001, ..TraceCount::default() }
}

fn answer(member: Ipv4Addr, from_port: u16) -> AnswerKey {
    AnswerKey { member: Be32::from_octets(member.octets()), port: 4001, from_port }
}

fn member(address: Ipv4Addr, is_reachable: bool) -> TraceMember {
    TraceMember { address, name: "Ben".into(), is_reachable, joined: None }
}

fn shown(trace: &Trace) -> Vec<LaneConversation> {
    trace.conversations("Ana", &[member(BEN, true)])
}

/// Everything that waits for the other.
fn tell(from: &mut Trace, to: &mut Trace, now: Instant) -> usize {
    let packets: Vec<Vec<u8>> = std::iter::from_fn(|| from.poll_output()).collect();
    for packet in &packets {
        let report = crate::lane::report_in(packet).unwrap();
        assert!(to.handle_report(from.me, report, now));
    }
    packets.len()
}

#[test]
fn who_has_not_joined_is_named() {
    let (mut ana, now) = (trace_of(ANA), start());
    let group = IpAddr::from([239, 1, 2, 3]);
    let to = |destination: IpAddr| TraceKey { destination: destination.into(), ..key(ANA, 6112) };
    ana.handle_counts(&[(to(group), count(3, 3)), (to(EVERYBODY), count(3, 3))], now);
    let ben = |joined: &[IpAddr]| {
        let members = [TraceMember { joined: Some(joined.iter().copied().collect()), ..member(BEN, true) }];
        let mut told = ana.conversations("Ana", &members);
        told.sort_by_key(|it| it.destination);
        told.into_iter().map(|it| it.receivers[0].clone()).collect::<Vec<_>>()
    };
    let code = |at: &LaneReceiver| at.missing.as_ref().unwrap().code.clone();
    let told = ben(&[]);
    assert_eq!((told[0].joined, code(&told[0]).as_str()), (Some(false), "not_joined"));
    assert!(told[0].missing.as_ref().unwrap().message.starts_with("not joined by Ben"));
    assert_eq!((told[1].joined, code(&told[1]).as_str()), (None, "not_delivered"), "not of everybody");
    let told = ben(&[group]);
    assert_eq!((told[0].joined, code(&told[0]).as_str()), (Some(true), "not_delivered"));
}

#[test]
fn both_sides_of_a_question_and_its_answer() {
    let (mut ana, mut ben, now) = (trace_of(ANA), trace_of(BEN), start());
    ana.handle_counts(&[(key(ANA, 6112), count(3, 3))], now);
    ben.handle_counts(&[(key(ANA, 6112), count(2, 0))], now);
    let told = &shown(&ana)[0];
    assert_eq!(
        (told.rung, told.missing.as_ref().unwrap().code.as_str()),
        (LaneRung::Copied, "not_delivered")
    );
    let away = &ana.conversations("Ana", &[member(BEN, false)])[0];
    assert_eq!(away.missing.as_ref().unwrap().code, "unreachable");

    ben.handle_sockets(&Sockets::parse("0: 00000000:17E0 0", "", ""));
    ben.handle_timeout(now.instant);
    assert_eq!(tell(&mut ben, &mut ana, now.instant), 1);
    let told = &shown(&ana)[0];
    assert_eq!((told.receivers[0].delivered, told.receivers[0].listener), (Some(2), LaneListener::Listening));
    assert_eq!(
        (told.rung, told.missing.as_ref().unwrap().code.as_str()),
        (LaneRung::Delivered, "not_answered")
    );

    ana.handle_answers(&[(answer(BEN, 6112), 1)], now);
    let told = &shown(&ana)[0];
    assert_eq!((told.rung, told.receivers[0].answered, &told.missing), (LaneRung::Answered, 1, &None));
    // said four times, then only when something is new
    let times = |trace: &mut Trace| {
        trace.handle_timeout(now.instant);
        std::iter::from_fn(|| trace.poll_output()).count()
    };
    assert_eq!([(); 5].map(|()| times(&mut ben)), [1, 1, 1, 0, 0]);
    ben.handle_counts(&[(key(ANA, 6112), count(3, 0))], now);
    assert_eq!(times(&mut ben), 1);
}

#[test]
fn an_answer_belongs_to_the_port_that_was_asked_if_that_sent_it() {
    let (mut ana, now) = (trace_of(ANA), start());
    ana.handle_counts(&[(key(ANA, 6112), count(1, 1)), (key(ANA, 6113), count(1, 1))], now);
    let answered = |trace: &Trace| {
        let mut all: Vec<_> = shown(trace).iter().map(|it| (it.port, it.receivers[0].answered)).collect();
        all.sort_unstable();
        all
    };
    ana.handle_answers(&[(answer(BEN, 6113), 2)], now);
    assert_eq!(answered(&ana), [(6112, 0), (6113, 2)]);
    ana.handle_answers(&[(answer(BEN, 6113), 2), (answer(BEN, 50_000), 1)], now.after(seconds(1)));
    assert_eq!(answered(&ana), [(6112, 1), (6113, 3)], "from elsewhere: to whichever");
    ana.handle_answers(&[(answer(BEN, 6113), 9)], now.after(seconds(60)));
    assert_eq!(answered(&ana), [(6112, 1), (6113, 3)], "long after");
}

#[test]
fn counts_that_begin_anew_are_added_and_those_that_stand_still_may_be_forgotten() {
    let (mut ana, now) = (trace_of(ANA), start());
    let seen = |trace: &Trace| shown(trace)[0].seen;
    ana.handle_counts(&[(key(ANA, 6112), count(5, 5))], now);
    ana.handle_counts(&[(key(ANA, 6112), count(7, 7))], now);
    assert_eq!((seen(&ana), ana.idle(now.instant).count()), (7, 0));
    let later = now.after(IDLE);
    assert_eq!(ana.idle(later.instant).collect::<Vec<_>>(), [key(ANA, 6112)]);
    ana.handle_counts(&[], later);
    ana.handle_counts(&[(key(ANA, 6112), count(1, 1))], later);
    assert_eq!((seen(&ana), ana.idle(later.instant).count()), (8, 0));
    assert_eq!(shown(&ana)[0].last, 1_030);
}

#[test]
fn what_is_silent_longest_gives_way_and_what_is_old_is_not_shown() {
    let (mut ana, mut now) = (trace_of(ANA), start());
    let mut counts = Vec::new();
    for port in 0..100 {
        counts.push((key(ANA, port), count(1, 1)));
        ana.handle_counts(&counts, now);
        now = now.after(seconds(1));
    }
    let mut ports: Vec<_> = shown(&ana).iter().map(|it| it.port).collect();
    assert_eq!(ports.len(), MAX_CONVERSATIONS);
    ports.sort_unstable();
    assert_eq!((ports[0], ports[MAX_CONVERSATIONS - 1]), (36, 99));
    counts[99].1.packets += 1;
    ana.handle_counts(&counts, now.after(SHOWN));
    assert_eq!(shown(&ana).len(), 1);
}

#[test]
fn drops_are_explained() {
    let (mut ana, now) = (trace_of(ANA), start());
    for (reason, word) in [
        (LaneReason::NoMembers, "nobody else is in the party"),
        (LaneReason::Netbios, "never carried"),
        (LaneReason::Mdns, "network at home"),
        (LaneReason::RateLimited, "200 packets a second"),
        (LaneReason::Looped, "goes round"),
        (LaneReason::Oversize, "longer"),
    ] {
        let count =
            TraceCount { packets: 1, dropped: 1, reason: reason.index() + 1, ..TraceCount::default() };
        ana.handle_counts(&[(key(ANA, 100 + reason.index() as u16), count)], now);
        let told = shown(&ana).into_iter().find(|it| it.reason.as_deref() == Some(reason.name())).unwrap();
        let missing = told.missing.unwrap();
        assert!(missing.message.contains(word) && !missing.fix.is_empty(), "{missing:?}");
        assert_eq!((told.rung, told.receivers.len()), (LaneRung::Seen, 0));
    }
}

#[test]
fn members_that_leave_are_forgotten_and_floods_of_reports_are_cut() {
    let (mut ana, mut ben, now) = (trace_of(ANA), trace_of(BEN), start());
    ana.handle_counts(&[(key(ANA, 6112), count(1, 1)), (key(BEN, 6112), count(1, 0))], now);
    ben.handle_counts(&[(key(ANA, 6112), count(1, 0))], now);
    ben.handle_timeout(now.instant);
    let packet = ben.poll_output().unwrap();
    let report = crate::lane::report_in(&packet).unwrap();
    let taken = (0..100).filter(|_| ana.handle_report(BEN, report, now.instant)).count();
    assert_eq!(taken, 20);
    ana.set_members([]);
    let left = shown(&ana);
    assert_eq!((left.len(), left[0].receivers[0].delivered), (1, None));
}

proptest! {
    /// A member may say what it likes: it makes no conversation.
    #[test]
    fn reports_make_no_state(payload in proptest::collection::vec(any::<u8>(), 0..800)) {
        let (mut ana, now) = (trace_of(ANA), start());
        ana.handle_report(BEN, &[&[0x11, 30], payload.as_slice()].concat(), now.instant);
        ana.handle_report(BEN, &payload, now.instant);
        prop_assert!(ana.conversations.is_empty() && ana.reports.len() == 1);
    }
}
