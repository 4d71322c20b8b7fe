//! What a restarted relay finds again.

use super::abuse::steps;
use super::*;
use proptest::prelude::*;

/// As the next process sees it, with zeros behind each record as in a kernel map.
fn restarted(bench: &Bench) -> (Bench, Adoption) {
    let mut padded = bench.records.clone();
    padded.values_mut().for_each(|record| record.resize(RECORD_LEN, 0));
    padded.insert(299, vec![0; RECORD_LEN]);
    let mut server =
        RelayServer::new(setup(LIMITS, bench.clock), &mut StdRng::seed_from_u64(bench.now.unix ^ 77));
    let records = padded.iter().map(|(slot, record)| (*slot, &record[..]));
    let flows = bench.installed.iter().map(|(flow, target)| {
        // the data path knows by which address a flow leaves, but not always under this name
        let local = "0.0.0.0:0".parse().unwrap();
        (*flow, Target { leg: Leg { local, ..target.leg }, ..*target })
    });
    let adoption = server.adopt(records, flows, bench.now);
    let mut next = Bench { server, ..Bench::new() };
    (next.now, next.clock) = (bench.now, bench.clock);
    (next.installed, next.records) = (bench.installed.clone(), bench.records.clone());
    next.drain();
    (next, adoption)
}

/// Who may send what to whom.
fn decisions(bench: &mut Bench) -> Vec<(u8, u16, u32, Option<Leg>)> {
    let mut decisions = Vec::new();
    for (member, port, index) in (1..6u8)
        .flat_map(|m| (0..3u16).map(move |p| (m, p)))
        .flat_map(|(m, p)| (0..8u32).chain([10, 20]).map(move |index| (m, p, index)))
    {
        let from = with_port(address(member), address(member).port() + port * 1000);
        decisions.push((member, port, index, bench.route(from, &data(index))));
    }
    decisions
}

#[test]
fn nobody_notices_a_restart() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    bench.handshake(1, 10, 2, 20);
    let sealed = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let Some(BindAnswer::Bound { nonce, .. }) = bench.try_bind(address(1), &sealed) else { panic!() };
    bench.pass(Duration::from_secs(25));
    let (mut next, adoption) = restarted(&bench);
    assert_eq!(adoption, Adoption { members: 2, flows: 2, ..Adoption::default() });
    let admitted =
        |slot, member| Output::Admit { slot, leg: leg(address(member)), limits: MemberLimits::default() };
    assert_eq!(next.log, [admitted(0, 1), admitted(1, 2)]);
    next.assert_same_as_data_path();

    let request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce, release: false };
    let answer = next.ask(address(1), &request);
    assert!(matches!(answer, Some(BindAnswer::Bound { .. })), "one round trip, as ever: {answer:?}");
    next.handshake(1, 11, 2, 21);
    assert_eq!(next.server.flows(), 4);
    next.pass(Duration::from_millis(35_001));
    assert_eq!(next.server.bindings(), 1, "a lease is neither shortened nor lengthened");
}

#[test]
fn a_binding_that_is_gone_is_asked_for_anew() {
    let mut bench = Bench::new();
    let sealed = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let Some(BindAnswer::Bound { nonce, .. }) = bench.try_bind(address(1), &sealed) else { panic!() };
    bench.bind(2);
    bench.pass(Duration::from_secs(20));
    bench.records.get_mut(&0).unwrap()[100] ^= 1;
    let (mut next, adoption) = restarted(&bench);
    assert_eq!((adoption.members, adoption.refused_records), (1, vec![0]));
    let request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce, release: false };
    let answer = next.ask(address(1), &request);
    assert!(matches!(answer, Some(BindAnswer::Challenge { .. })), "tells the member that its flows are gone");
}

#[test]
fn a_newer_epoch_is_not_forgotten() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    let newer = Ticket { epoch: 2, ..bench.ticket(1) };
    bench.bind_with(address(1), &newer);
    let (mut next, adoption) = restarted(&bench);
    assert_eq!(adoption.members, 2);
    let refused = next.bind_with(address(2), &next.ticket(2));
    assert_eq!(refused, Some(BindAnswer::Refused(crate::binding::Refusal::OldEpoch)));
    next.pass(Duration::from_secs(2));
    assert_eq!(next.server.bindings(), 1);
}

#[test]
fn a_move_before_the_restart_cannot_be_undone_after_it() {
    let mut bench = Bench::new();
    let sealed = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let mut request =
        BindRequest { transaction: TRANSACTION, ticket: sealed.clone(), nonce: None, release: false };
    let Some(BindAnswer::Challenge { nonce }) = bench.ask(address(1), &request) else { panic!() };
    request.nonce = Some(nonce);
    assert!(matches!(bench.ask(address(1), &request), Some(BindAnswer::Bound { .. })));
    assert!(matches!(bench.try_bind(address(9), &sealed), Some(BindAnswer::Bound { .. })));
    let (mut next, _) = restarted(&bench);
    assert!(matches!(next.ask(address(1), &request), Some(BindAnswer::Challenge { .. })));
    assert_eq!(next.count(Reason::BindReplayed), 1);
}

#[test]
fn flows_without_their_members_are_given_back() {
    let mut bench = Bench::new();
    for member in 1..=4 {
        bench.bind(member);
    }
    bench.handshake(1, 10, 2, 20);
    bench.handshake(3, 30, 4, 40);
    bench.records.remove(&0);
    let far = |seconds| bench.now.instant + Duration::from_secs(seconds);
    let stray = [
        (Flow { source: address(3), index: 50 }, Target { leg: leg(address(4)), member: 3, expires: far(9) }),
        (Flow { source: address(3), index: 51 }, Target { leg: leg(address(3)), member: 2, expires: far(9) }),
        (Flow { source: address(3), index: 52 }, Target { leg: leg(address(4)), member: 2, expires: far(0) }),
        (Flow { source: address(8), index: 53 }, Target { leg: leg(address(4)), member: 2, expires: far(9) }),
    ];
    bench.installed.extend(stray);
    let (next, adoption) = restarted(&bench);
    assert_eq!((adoption.members, adoption.flows), (3, 2));
    let mut refused = adoption.refused_flows;
    refused.sort_unstable();
    let mut expected = vec![Flow { source: address(1), index: 20 }, Flow { source: address(2), index: 10 }];
    expected.extend(stray.iter().map(|(flow, _)| *flow));
    expected.sort_unstable();
    assert_eq!(refused, expected);
    assert_eq!(next.server.flows(), 2);
}

#[test]
fn every_damage_of_a_record_is_refused_alone() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    let good = bench.records.clone();
    let adopt = |records: &BTreeMap<u32, Vec<u8>>| {
        let mut server = RelayServer::new(setup(LIMITS, bench.clock), &mut StdRng::seed_from_u64(5));
        let records = records.iter().map(|(slot, record)| (*slot, &record[..]));
        server.adopt(records, [], bench.now)
    };
    for cut in 1..good[&0].len() {
        let mut records = good.clone();
        records.get_mut(&0).unwrap().truncate(cut);
        assert_eq!(adopt(&records), Adoption { members: 1, refused_records: vec![0], ..Adoption::default() });
    }
    // the ticket is sealed, and these say when and where; flips of secret, times and addresses may go unnoticed
    for at in [0, 37, 56].into_iter().chain(91..good[&0].len()) {
        let mut records = good.clone();
        records.get_mut(&0).unwrap()[at] ^= 0x40;
        assert_eq!(adopt(&records).refused_records, [0], "byte {at}");
    }
    let mut doubled = good.clone();
    doubled.insert(2, good[&0].clone());
    assert_eq!(adopt(&doubled).refused_records, [2], "one member, one slot");
    let beyond = BTreeMap::from([(300, good[&0].clone())]);
    assert_eq!(adopt(&beyond).refused_records, [300]);
    let mut long = good.clone();
    long.get_mut(&1).unwrap().resize(RECORD_LEN, 1);
    assert_eq!(adopt(&long).refused_records, [1]);
}

#[test]
fn slots_stay_and_holes_are_filled() {
    let mut bench = Bench::new();
    for member in 1..=5 {
        bench.bind(member);
    }
    bench.records.remove(&1);
    bench.records.remove(&3);
    let (mut next, _) = restarted(&bench);
    next.log.clear();
    for member in [11, 12, 13] {
        next.bind(member);
    }
    let slots = next.log.iter().filter_map(|output| match output {
        Output::Admit { slot, .. } => Some(*slot),
        _ => None,
    });
    let slots: Vec<u32> = slots.collect();
    assert_eq!(slots, [1, 3, 5]);
}

proptest! {
    /// Whatever happened before, the next process forwards the same, for as long.
    #[test]
    fn a_restart_changes_no_decision(steps in steps(), later in 0..200_000u64) {
        let mut bench = Bench::new();
        for member in 1..4 {
            bench.bind(member);
        }
        for step in steps {
            bench.take(step);
        }
        let (mut next, adoption) = restarted(&bench);
        prop_assert_eq!(adoption.members, bench.server.bindings());
        prop_assert_eq!(adoption.flows, bench.server.flows());
        prop_assert_eq!((adoption.refused_flows, adoption.refused_records), (vec![], vec![]));
        prop_assert_eq!(decisions(&mut next), decisions(&mut bench));
        for step in [Duration::ZERO, Duration::from_millis(later), Duration::from_secs(200)] {
            bench.pass(step);
            next.pass(step);
            prop_assert_eq!(decisions(&mut next), decisions(&mut bench));
            prop_assert_eq!(next.server.bindings(), bench.server.bindings());
            prop_assert_eq!(&next.installed, &bench.installed);
        }
    }

    #[test]
    fn garbage_is_no_record(garbage in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..9)) {
        let mut bench = Bench::new();
        let records = garbage.iter().enumerate().map(|(slot, bytes)| (u32::try_from(slot).unwrap(), &bytes[..]));
        let adoption = bench.server.adopt(records, [], bench.now);
        prop_assert_eq!((adoption.members, bench.server.bindings()), (0, 0));
    }
}

/// By slot.
type Records = Vec<(u32, Vec<u8>)>;

/// Members 0 to 999 by record, and flows between them; no handshakes, which would take longer than the adoption.
fn crowd(flows: u32) -> (RelayServer, Records, impl Iterator<Item = (Flow, Target)>, Now) {
    const MEMBERS: u32 = 1000;
    let limits = Limits { members: 1000, flows: 2_000_000, party_members: 1000, party_flows: 2_000_000 };
    let mut bench = Bench::with_limits(limits);
    let at = |n: u32| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1000));
    for n in 0..MEMBERS {
        let mut member = WgKey([0; 32]);
        member.0[..4].copy_from_slice(&n.to_be_bytes());
        let ticket = Ticket { member, ..bench.ticket(0) };
        assert!(matches!(bench.bind_with(at(n), &ticket), Some(BindAnswer::Bound { .. })));
    }
    let now = bench.now;
    let flows = (0..flows).map(move |n| {
        let (from, to) = (n % MEMBERS, (n / MEMBERS + n + 1) % MEMBERS);
        let to = if to == from { (to + 1) % MEMBERS } else { to };
        let expires =
            now.instant + Duration::from_millis(1 + u64::from(n.wrapping_mul(2_654_435_761) % 190_000));
        let index = n.wrapping_mul(2_654_435_761);
        (Flow { source: at(from), index }, Target { leg: leg(at(to)), member: from, expires })
    });
    let server = RelayServer::new(setup(limits, bench.clock), &mut StdRng::seed_from_u64(9));
    (server, bench.records.into_iter().collect(), flows, now)
}

#[test]
fn a_full_relay_is_adopted_and_ends_in_time() {
    let (mut server, records, flows, now) = crowd(100_000);
    let records = records.iter().map(|(slot, record)| (*slot, &record[..]));
    let adoption = server.adopt(records, flows, now);
    assert_eq!((adoption.members, adoption.flows), (1000, 100_000));
    assert_eq!((adoption.refused_records, adoption.refused_flows), (vec![], vec![]));
    server.handle_timeout(now.after(Duration::from_secs(59)));
    let left = server.flows();
    assert!((60_000..80_000).contains(&left), "190 s, evenly: {left}");
    server.handle_timeout(now.after(Duration::from_secs(61)));
    assert_eq!((server.flows(), server.bindings()), (0, 0));
}
