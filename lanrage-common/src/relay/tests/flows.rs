//! The rules of the index table.

use super::*;

fn pair() -> Bench {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    bench
}

#[test]
fn both_flows_are_installed_before_the_response_leaves() {
    let mut bench = pair();
    bench.receive(address(1), &initiation(10, 2));
    assert!(bench.installed.is_empty(), "a type 1 alone installs nothing");
    bench.log.clear();
    bench.receive(address(2), &response(20, 10, 1));
    let kinds: Vec<_> = bench.log.iter().map(|output| matches!(output, Output::Install { .. })).collect();
    assert_eq!(kinds, [true, true, false]);
    let expires = bench.now.instant + Duration::from_secs(190);
    let expected = BTreeMap::from([
        (Flow { source: address(1), index: 20 }, Target { leg: leg(address(2)), member: 0, expires }),
        (Flow { source: address(2), index: 10 }, Target { leg: leg(address(1)), member: 1, expires }),
    ]);
    assert_eq!(bench.installed, expected);
    bench.assert_same_as_data_path();
}

#[test]
fn data_needs_a_confirmed_index_of_the_right_sender() {
    let mut bench = pair();
    bench.receive(address(1), &initiation(10, 2));
    assert!(bench.receive(address(2), &data(10)).is_empty());
    assert_eq!(bench.count(Reason::IndexTentative), 1);
    bench.receive(address(2), &response(20, 10, 1));
    assert_eq!(bench.receive(address(2), &data(10)), [(address(1), data(10))]);
    assert!(bench.receive(address(1), &data(10)).is_empty(), "10 is what 2 writes, not 1");
    assert!(bench.receive(address(3), &data(10)).is_empty());
    assert_eq!((bench.count(Reason::IndexUnknown), bench.count(Reason::Unbound)), (1, 1));
}

#[test]
fn type_1_goes_to_the_one_member_that_mac1_names() {
    let mut bench = pair();
    bench.bind(3);
    assert_eq!(bench.receive(address(1), &initiation(10, 3))[0].0, address(3));
    assert!(bench.receive(address(1), &initiation(11, 4)).is_empty(), "not bound");
    assert!(bench.receive(address(1), &initiation(12, 1)).is_empty(), "never back to the sender");
    assert_eq!(bench.count(Reason::HandshakeNoReceiver), 2);
    assert!(bench.receive(address(9), &initiation(13, 3)).is_empty());
    assert_eq!(bench.count(Reason::Unbound), 1);
}

#[test]
fn parties_do_not_reach_each_other() {
    let mut bench = Bench::new();
    bench.bind(1);
    let stranger = Ticket { party: OTHER_PARTY, ..bench.ticket(2) };
    bench.bind_with(address(2), &stranger);
    assert!(bench.receive(address(1), &initiation(10, 2)).is_empty());
    assert!(bench.receive(address(2), &initiation(10, 1)).is_empty());
    assert!(bench.receive(address(1), &probe_to(2)).is_empty());
}

#[test]
fn type_2_must_match_an_offer_and_its_maker() {
    let mut bench = pair();
    bench.bind(3);
    bench.receive(address(1), &initiation(10, 2));
    assert!(bench.receive(address(3), &response(30, 10, 1)).is_empty(), "the offer was not made to 3");
    assert!(bench.receive(address(2), &response(20, 11, 1)).is_empty(), "nobody offered 11");
    assert_eq!(bench.count(Reason::IndexUnknown), 2);
    assert!(bench.receive(address(2), &response(20, 10, 3)).is_empty(), "10 is not 3's");
    assert_eq!(bench.count(Reason::HandshakeWrongMac), 1);
    assert!(bench.installed.is_empty());
}

#[test]
fn type_3_is_routed_both_ways() {
    let mut bench = pair();
    bench.receive(address(1), &initiation(10, 2));
    assert_eq!(bench.receive(address(2), &cookie(10)), [(address(1), cookie(10))]);
    bench.receive(address(2), &response(20, 10, 1));
    assert_eq!(bench.receive(address(1), &cookie(20)), [(address(2), cookie(20))]);
    assert!(bench.receive(address(1), &cookie(21)).is_empty());
}

#[test]
fn the_first_owner_keeps_an_index() {
    let mut bench = pair();
    bench.bind(3);
    bench.handshake(1, 10, 2, 20);
    let before = bench.installed.clone();
    assert!(bench.receive(address(3), &initiation(10, 2)).is_empty(), "10 towards 2 is 1's");
    assert_eq!(bench.count(Reason::IndexTaken), 1);

    bench.receive(address(1), &initiation(12, 3));
    assert!(bench.receive(address(3), &response(20, 12, 1)).is_empty(), "20 towards 1 is 2's");
    assert_eq!(bench.count(Reason::IndexTaken), 2);
    assert_eq!(bench.installed, before);
}

#[test]
fn a_tentative_index_lives_ten_seconds() {
    let mut bench = pair();
    bench.receive(address(1), &initiation(10, 2));
    bench.pass(Duration::from_secs(9));
    assert_eq!(bench.server.routes.len(), 1);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.server.routes.len(), 0);
    assert!(bench.receive(address(2), &response(20, 10, 1)).is_empty());
}

#[test]
fn flows_have_a_hard_lifetime_and_rekeying_overlaps() {
    let mut bench = pair();
    bench.handshake(1, 10, 2, 20);
    let refresh = |bench: &mut Bench, seconds: u64| {
        for _ in 0..seconds / 10 {
            bench.pass(Duration::from_secs(10));
            bench.bind(1);
            bench.bind(2);
        }
    };
    refresh(&mut bench, 120);
    bench.handshake(1, 11, 2, 21);
    assert_eq!(bench.installed.len(), 4, "old and new side by side");
    bench.assert_same_as_data_path();
    bench.receive(address(2), &response(20, 10, 1)); // a repeated type 2 lengthens nothing
    refresh(&mut bench, 70);
    assert_eq!(bench.installed.len(), 2, "190 s after the first handshake");
    assert!(bench.installed.keys().all(|flow| [11, 21].contains(&flow.index)));
    bench.assert_same_as_data_path();
}

#[test]
fn a_member_has_few_handshakes_open_with_another() {
    let mut bench = pair();
    bench.bind(3);
    let mut offer = |from: u8, n: u32| bench.receive(address(from), &initiation(n, 2)).len();
    assert_eq!((0..250).map(|n| offer(1, n)).sum::<usize>(), 4);
    assert_eq!(offer(3, 1000), 1, "what 1 may not send costs 3 nothing");
    assert_eq!(offer(3, 1000), 0, "an index is offered once a second at most");
    assert_eq!((bench.count(Reason::TentativeFull), bench.count(Reason::HandshakeRepeated)), (246, 1));
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.receive(address(1), &initiation(2000, 2)).len(), 1);
}

#[test]
fn restarted_members_may_use_their_indexes_again() {
    let mut bench = pair();
    bench.handshake(1, 10, 2, 20);
    let wait = |bench: &mut Bench, seconds: u64| {
        for _ in 0..seconds / 50 {
            bench.pass(Duration::from_secs(50));
            bench.bind(1);
            bench.bind(2);
        }
    };
    wait(&mut bench, 150);
    bench.handshake(1, 10, 2, 20);
    wait(&mut bench, 150);
    assert_eq!(bench.installed.len(), 2, "the second handshake began another life");
    bench.assert_same_as_data_path();
    wait(&mut bench, 50);
    assert!(bench.installed.is_empty());
}

#[test]
fn a_source_has_a_budget() {
    let mut bench = pair();
    for n in 0..2000 {
        bench.receive(address(1), &initiation(n, 77)); // nobody, but each costs a search
    }
    assert_eq!((bench.count(Reason::HandshakeNoReceiver), bench.count(Reason::BudgetSource)), (600, 1400));
    bench.pass(Duration::from_secs(1));
    assert_eq!((0..100).filter(|n| !bench.receive(address(1), &initiation(*n, 2)).is_empty()).count(), 4);
}

#[test]
fn a_destination_is_not_flooded_by_many_sources() {
    let mut bench = Bench::new();
    for member in 1..=100 {
        bench.bind(member);
    }
    let reached = (1..100u8)
        .flat_map(|from| (0..4u32).map(move |n| (from, n)))
        .filter(|(from, n)| {
            !bench.receive(address(*from), &initiation(u32::from(*from) << 8 | n, 100)).is_empty()
        })
        .count();
    assert_eq!(reached, 300);
    assert_eq!(bench.count(Reason::BudgetDestination), 96);
}

#[test]
fn of_many_handshakes_of_a_pair_the_newest_count() {
    let mut bench = pair();
    for n in 0..50 {
        bench.handshake(1, 100 + n, 2, 200 + n);
        bench.pass(Duration::from_millis(500));
    }
    let indexes: Vec<_> = bench.installed.keys().map(|flow| flow.index).collect();
    assert_eq!(indexes, [246, 247, 248, 249, 146, 147, 148, 149]);
    bench.assert_same_as_data_path();
}

#[test]
fn a_full_table_refuses_new_pairs_and_keeps_the_old() {
    let mut bench = Bench::with_limits(Limits { members: 10, flows: 5, ..LIMITS });
    for member in 1..=4 {
        bench.bind(member);
    }
    bench.handshake(1, 10, 2, 20);
    bench.handshake(1, 11, 3, 30);
    assert!(bench.receive(address(1), &initiation(12, 4)).is_empty());
    assert_eq!(bench.count(Reason::TableFull), 1);
    assert_eq!(bench.server.flows(), 4);
    bench.assert_same_as_data_path();
}

#[test]
fn a_ticket_limits_the_rate() {
    let mut bench = Bench::new();
    let slow = Ticket { packets_per_s: 100, kbit_per_s: 8_000, ..bench.ticket(1) };
    bench.bind_with(address(1), &slow);
    bench.bind(2);
    bench.handshake(1, 10, 2, 20);
    let burst =
        |bench: &mut Bench| (0..1000).filter(|_| !bench.receive(address(1), &data(20)).is_empty()).count();
    assert_eq!(burst(&mut bench), 64);
    bench.pass(Duration::from_millis(100));
    assert_eq!(burst(&mut bench), 10);
    assert_eq!(bench.count(Reason::RateMember), 936 + 990);
    bench.bind_with(address(1), &slow);
    assert_eq!(burst(&mut bench), 0, "a refresh fills no bucket");
}

#[test]
fn probes_reach_bound_members_of_the_party() {
    let mut bench = pair();
    assert_eq!(bench.receive(address(1), &probe_to(2)), [(address(2), probe_to(2))]);
    assert!(bench.receive(address(1), &probe_to(3)).is_empty());
    assert!(bench.receive(address(1), &probe_to(1)).is_empty(), "never back to the sender");
    assert!(bench.receive(address(5), &probe_to(2)).is_empty());
    assert_eq!((bench.count(Reason::ProbeNoReceiver), bench.count(Reason::Unbound)), (2, 1));
    let passed = (0..2000).filter(|_| !bench.receive(address(1), &probe_to(2)).is_empty()).count();
    assert_eq!(passed, 597);
}

#[test]
fn an_offer_is_answered_once() {
    let mut bench = pair();
    bench.handshake(1, 10, 2, 20);
    let before = bench.installed.clone();
    for index in 21..60 {
        assert!(bench.receive(address(2), &response(index, 10, 1)).is_empty());
    }
    assert_eq!((bench.count(Reason::HandshakeAnswered), &bench.installed), (39, &before));
    assert_eq!(bench.receive(address(2), &response(20, 10, 1)).len(), 1, "a copy on the way harms nobody");
    bench.receive(address(2), &initiation(30, 1));
    assert!(
        bench.receive(address(2), &response(30, 10, 1)).is_empty(),
        "nor with an index that it offers itself"
    );
    assert_eq!(bench.installed, before);
    assert_eq!(bench.server.routes.len(), 3);
}

#[test]
fn responses_have_a_budget() {
    let mut bench = pair();
    bench.receive(address(1), &initiation(10, 2));
    let answered = |bench: &mut Bench| {
        (0..1000).filter(|_| !bench.receive(address(2), &response(20, 10, 1)).is_empty()).count()
    };
    assert_eq!(answered(&mut bench), 600);
    bench.pass(Duration::from_secs(1));
    assert_eq!(answered(&mut bench), 100);
    assert_eq!(bench.count(Reason::BudgetSource), 1300);
}
