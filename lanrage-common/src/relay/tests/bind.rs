//! Who gets bound, who stays bound, who does not.

use super::*;
use crate::binding::{BindingClient, Refusal, UnboundReason, binding_request, parse_binding_answer};

fn refused(refusal: Refusal) -> Option<BindAnswer> {
    Some(BindAnswer::Refused(refusal))
}

#[test]
fn a_ticket_and_a_proven_address_bind() {
    let mut bench = Bench::new();
    let ticket = bench.ticket(1);
    let Some(BindAnswer::Bound { mapped, lifetime, nonce }) = bench.bind_with(address(1), &ticket) else {
        panic!("not bound")
    };
    assert_eq!((mapped, lifetime), (address(1), Duration::from_secs(60)));
    assert!(nonce.is_some());
    assert_eq!(bench.server.bindings(), 1);
    let bound = Output::Bound { party: PARTY, member: key(1), leg: leg(address(1)) };
    assert!(bench.log.contains(&bound));
}

#[test]
fn a_nonce_of_another_address_is_stale() {
    let mut bench = Bench::new();
    let sealed = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let mut request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce: None, release: false };
    let Some(BindAnswer::Challenge { nonce }) = bench.ask(address(1), &request) else { panic!() };
    request.nonce = Some(nonce);
    let spoofed = bench.ask(address(2), &request);
    assert!(matches!(spoofed, Some(BindAnswer::Challenge { .. })));
    assert_eq!((bench.count(Reason::BindStaleNonce), bench.server.bindings()), (1, 0));
}

#[test]
fn refusals_carry_their_reason() {
    let mut bench = Bench::with_limits(Limits { members: 2, flows: 10, ..LIMITS });
    let late = Ticket { expires: bench.now.unix, ..bench.ticket(1) };
    assert_eq!(bench.bind_with(address(1), &late), refused(Refusal::TicketExpired));
    let foreign = bench.ticket(1).seal(&[0; 32], &mut StdRng::seed_from_u64(3));
    assert_eq!(bench.try_bind(address(1), &foreign), refused(Refusal::WrongRelay));
    assert_eq!(bench.try_bind(address(1), &[0; 141]), refused(Refusal::WrongRelay));
    let wrong_key = Ticket { session_key: [0; 32], ..bench.ticket(1) };
    assert_eq!(bench.bind_with(address(1), &wrong_key), refused(Refusal::BadIntegrity));
    bench.bind(1);
    bench.bind(2);
    let third = bench.ticket(3);
    assert_eq!(bench.bind_with(address(3), &third), refused(Refusal::RelayFull));
    bench.bind(1); // a refresh needs no room
    assert_eq!(bench.server.bindings(), 2);
    let refusals =
        [Reason::BindTicketExpired, Reason::BindWrongRelay, Reason::BindBadIntegrity, Reason::BindRelayFull];
    assert_eq!(refusals.map(|reason| bench.count(reason)), [1, 2, 1, 1]);
}

#[test]
fn a_relay_that_is_emptied_serves_its_members_and_takes_no_others() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.server.set_draining(true);
    let second = bench.ticket(2);
    assert_eq!(bench.bind_with(address(2), &second), refused(Refusal::Draining));
    bench.bind(1);
    assert_eq!((bench.server.bindings(), bench.count(Reason::BindDraining)), (1, 1));
    bench.server.set_draining(false);
    bench.bind(2);
    assert_eq!(bench.server.bindings(), 2);
}

#[test]
fn the_newest_epoch_wins() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    bench.handshake(1, 10, 2, 20);
    let newer = Ticket { epoch: 2, ..bench.ticket(1) };
    assert!(matches!(bench.bind_with(address(1), &newer), Some(BindAnswer::Bound { .. })));
    assert_eq!(bench.bind_with(address(2), &bench.ticket(2)), refused(Refusal::OldEpoch));
    assert_eq!(bench.server.bindings(), 2, "a moment to come with a new ticket");
    bench.pass(Duration::from_secs(2));
    assert_eq!((bench.server.bindings(), bench.server.flows()), (1, 0));
    assert!(bench.installed.is_empty());
}

#[test]
fn a_new_ticket_in_time_survives_the_new_epoch() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    bench.handshake(1, 10, 2, 20);
    for member in [1, 2] {
        let newer = Ticket { epoch: 2, ..bench.ticket(member) };
        assert!(matches!(bench.bind_with(address(member), &newer), Some(BindAnswer::Bound { .. })));
    }
    bench.pass(Duration::from_secs(3));
    assert_eq!((bench.server.bindings(), bench.server.flows()), (2, 2));
}

#[test]
fn an_unrefreshed_binding_ends_with_its_flows() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    bench.handshake(1, 10, 2, 20);
    bench.pass(Duration::from_secs(30));
    bench.bind(1);
    bench.pass(Duration::from_secs(31));
    assert_eq!((bench.server.bindings(), bench.server.flows()), (1, 0));
    assert!(bench.log.contains(&Output::Unbound { party: PARTY, member: key(2), why: Unbound::Expired }));
    assert!(bench.installed.is_empty());
}

#[test]
fn nat_rebinding_moves_flows_without_a_handshake() {
    let mut bench = Bench::new();
    for member in [1, 2, 3] {
        bench.bind(member);
    }
    bench.handshake(1, 10, 2, 20);
    bench.handshake(3, 30, 1, 11);
    let before = bench.installed.clone();
    let moved = with_port(address(1), 55_555);
    let ticket = bench.ticket(1);
    assert!(matches!(bench.bind_with(moved, &ticket), Some(BindAnswer::Bound { .. })));

    let expected: BTreeMap<_, _> = before
        .into_iter()
        .map(|(flow, target)| {
            let renew = |at| if at == address(1) { moved } else { at };
            let flow = Flow { source: renew(flow.source), ..flow };
            (flow, Target { leg: leg(renew(target.leg.remote)), ..target })
        })
        .collect();
    assert_eq!(bench.installed, expected);
    bench.assert_same_as_data_path();
    assert!(bench.receive(address(1), &data(20)).is_empty(), "the old address is nobody's");
    assert_eq!(bench.count(Reason::Unbound), 1);
}

#[test]
fn a_recorded_bind_cannot_call_a_member_back() {
    let mut bench = Bench::new();
    let sealed = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let mut request =
        BindRequest { transaction: TRANSACTION, ticket: sealed.clone(), nonce: None, release: false };
    let Some(BindAnswer::Challenge { nonce }) = bench.ask(address(1), &request) else { panic!() };
    request.nonce = Some(nonce);
    assert!(matches!(bench.ask(address(1), &request), Some(BindAnswer::Bound { .. })));
    assert!(matches!(bench.try_bind(address(9), &sealed), Some(BindAnswer::Bound { .. })));

    let replayed = bench.ask(address(1), &request);
    assert!(matches!(replayed, Some(BindAnswer::Challenge { .. })));
    assert_eq!(bench.count(Reason::BindReplayed), 1);
    assert!(bench.receive(address(1), &probe_to(2)).is_empty());
    assert_eq!(bench.count(Reason::Unbound), 1, "still bound at the other address");
}

#[test]
fn the_last_to_prove_an_address_has_it() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    bench.handshake(1, 10, 2, 20);
    let elsewhere = Ticket { party: OTHER_PARTY, ..bench.ticket(1) };
    assert!(matches!(bench.bind_with(address(1), &elsewhere), Some(BindAnswer::Bound { .. })));
    assert!(bench.log.contains(&Output::Unbound { party: PARTY, member: key(1), why: Unbound::Replaced }));
    assert_eq!((bench.server.bindings(), bench.server.flows()), (2, 0));
    assert!(bench.receive(address(1), &initiation(5, 2)).is_empty(), "2 is not in the other party");
}

#[test]
fn a_released_binding_is_gone_at_once() {
    let mut bench = Bench::new();
    bench.bind(1);
    let sealed = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let mut request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce: None, release: true };
    let Some(BindAnswer::Challenge { nonce }) = bench.ask(address(1), &request) else { panic!() };
    request.nonce = Some(nonce);
    let Some(BindAnswer::Bound { lifetime, .. }) = bench.ask(address(1), &request) else { panic!() };
    assert_eq!((lifetime, bench.server.bindings()), (Duration::ZERO, 0));
}

#[test]
fn members_outlive_their_control_server() {
    let mut bench = Bench::new();
    let ticket = bench.ticket(1);
    for _ in 0..60 {
        let answer = bench.bind_with(address(1), &ticket);
        assert!(matches!(answer, Some(BindAnswer::Bound { .. })), "at {}", bench.now.unix);
        bench.pass(Duration::from_secs(20)); // 20 minutes, twice the ticket's life
    }
    bench.pass(Duration::from_secs(61));
    assert_eq!(
        bench.bind_with(address(1), &ticket),
        refused(Refusal::TicketExpired),
        "but not a lost binding"
    );
}

#[test]
fn stun_binding_tells_the_address() {
    let mut bench = Bench::new();
    let sent = bench.receive(address(7), &binding_request([3; 12]));
    assert_eq!(parse_binding_answer(&sent[0].1), Some(([3; 12], address(7))));
    let mapped: SocketAddr = "[::ffff:198.51.100.7]:40007".parse().unwrap();
    let sent = bench.receive(mapped, &binding_request([3; 12]));
    assert_eq!(parse_binding_answer(&sent[0].1), Some(([3; 12], address(7))), "one spelling");
}

#[test]
fn client_and_server_understand_each_other() {
    let mut bench = Bench::new();
    let mut client = BindingClient::new(relay_address(), StdRng::seed_from_u64(4));
    client.set_ticket(
        bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3)),
        SESSION_KEY,
        bench.now,
    );
    let (mut bound, mut unbound, mut requests) = (0, Vec::new(), 0);
    for second in 0..400 {
        let is_reachable = !(200..300).contains(&second); // the relay is unreachable for a while
        client.handle_timeout(bench.now);
        while let Some(output) = client.poll_output() {
            match output {
                crate::binding::Output::Transmit { payload, .. } if is_reachable => {
                    requests += 1;
                    for (_, answer) in bench.receive(address(1), &payload) {
                        assert!(client.handle_datagram(relay_address(), &answer, bench.now));
                    }
                }
                crate::binding::Output::Bound { mapped } => {
                    assert_eq!(mapped, address(1));
                    bound += 1;
                }
                crate::binding::Output::Unbound { reason } => unbound.push(reason),
                _ => {}
            }
        }
        bench.pass(Duration::from_secs(1));
    }
    assert_eq!((bound, unbound), (2, vec![UnboundReason::NoAnswer]));
    assert!(client.is_bound() && bench.server.bindings() == 1);
    assert!(requests < 30, "{requests} requests");
}

/// The client asks for tickets in vain, and stays bound with its last one.
#[test]
fn a_client_stays_bound_without_the_control_server() {
    let mut bench = Bench::new();
    let mut client = BindingClient::new(relay_address(), StdRng::seed_from_u64(5));
    let ticket = bench.ticket(1).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    client.set_ticket(ticket, SESSION_KEY, bench.now);
    let (mut wanted, mut changes) = (0, 0);
    for _ in 0..1800 {
        client.handle_timeout(bench.now);
        while let Some(output) = client.poll_output() {
            match output {
                crate::binding::Output::Transmit { payload, .. } => {
                    for (_, answer) in bench.receive(address(1), &payload) {
                        client.handle_datagram(relay_address(), &answer, bench.now);
                    }
                }
                crate::binding::Output::NeedTicket => wanted += 1,
                _ => changes += 1,
            }
        }
        bench.pass(Duration::from_secs(1));
    }
    assert!(wanted > 0 && client.is_bound() && bench.server.bindings() == 1);
    assert_eq!(changes, 1, "bound once, for half an hour");
}

fn address_v6(host: u8) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 1, 0, 0, 0, u16::from(host)], 40_000 + u16::from(host)))
}

fn bind_at(bench: &mut Bench, member: u8, at: SocketAddr) {
    let ticket = bench.ticket(member);
    let Some(BindAnswer::Bound { mapped, .. }) = bench.bind_with(at, &ticket) else { panic!("not bound") };
    assert_eq!(mapped, at);
}

#[test]
fn members_of_both_families_talk_and_move_between_them() {
    let mut bench = Bench::new();
    bind_at(&mut bench, 1, address(1));
    bind_at(&mut bench, 2, address_v6(2));
    let offer = initiation(10, 2);
    assert_eq!(bench.receive(address(1), &offer), [(address_v6(2), offer.clone())]);
    let answer = response(20, 10, 1);
    assert_eq!(bench.receive(address_v6(2), &answer), [(address(1), answer.clone())]);
    assert_eq!(bench.receive(address_v6(2), &probe_to(1)), [(address(1), probe_to(1))]);
    assert_eq!(bench.receive(address(1), &data(20)), [(address_v6(2), data(20))]);
    bench.assert_same_as_data_path();
    bind_at(&mut bench, 1, address_v6(1));
    bind_at(&mut bench, 2, address(2));
    assert_eq!(bench.receive(address_v6(1), &data(20)), [(address(2), data(20))]);
    assert_eq!(bench.receive(address(2), &data(10)), [(address_v6(1), data(10))]);
    bench.assert_same_as_data_path();
    assert!(
        bench.receive(address(1), &data(20)).is_empty() && bench.receive(address_v6(2), &data(10)).is_empty()
    );
}

#[test]
fn a_member_is_answered_from_the_address_that_it_talks_to() {
    let mut bench = Bench::new();
    bench.bind(1);
    bench.bind(2);
    bench.handshake(1, 10, 2, 20);
    let other = Leg { local: "192.0.2.1:443".parse().unwrap(), remote: address(2) };
    bench.pass(Duration::from_millis(1));
    let sealed = bench.ticket(2).seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
    let mut request = BindRequest { transaction: TRANSACTION, ticket: sealed, nonce: None, release: false };
    let ask = |bench: &mut Bench, request: &BindRequest| {
        bench.server.handle_datagram(other, &request.encode(&SESSION_KEY), bench.now);
        let answer = std::iter::from_fn(|| bench.server.poll_output()).find_map(|output| match output {
            Output::Transmit { leg, payload } => Some((leg, parse_answer(&payload).unwrap().1)),
            Output::Install { flow, target } => {
                bench.installed.insert(flow, target);
                None
            }
            _ => None,
        });
        answer.unwrap()
    };
    let (leg, BindAnswer::Challenge { nonce }) = ask(&mut bench, &request) else { panic!() };
    assert_eq!(leg, other);
    request.nonce = Some(nonce);
    let (leg, answer) = ask(&mut bench, &request);
    assert!(leg == other && matches!(answer, BindAnswer::Bound { .. }));
    assert_eq!(bench.route(address(1), &data(20)), Some(other));
    bench.assert_same_as_data_path();
}

#[test]
fn the_data_path_hears_who_is_where_and_may_send_what() {
    let mut bench = Bench::new();
    let limits = |packets_per_s| MemberLimits { packets_per_s, kbit_per_s: 0 };
    let police = |bench: &mut Bench| -> Vec<Output> {
        let log = std::mem::take(&mut bench.log).into_iter();
        log.filter(|output| matches!(output, Output::Admit { .. } | Output::Dismiss { .. })).collect()
    };
    bench.bind(1);
    bench.bind(2);
    assert_eq!(
        police(&mut bench),
        [
            Output::Admit { slot: 0, leg: leg(address(1)), limits: limits(0) },
            Output::Admit { slot: 1, leg: leg(address(2)), limits: limits(0) },
        ]
    );
    bench.bind(1);
    assert_eq!(police(&mut bench), [], "a refresh changes nothing");
    let slower = Ticket { packets_per_s: 100, ..bench.ticket(1) };
    bench.bind_with(address(1), &slower);
    bench.bind_with(address(3), &slower);
    bench.pass(Duration::from_secs(60));
    assert_eq!(
        police(&mut bench),
        [
            Output::Admit { slot: 0, leg: leg(address(1)), limits: limits(100) },
            Output::Dismiss { slot: 0, address: address(1) },
            Output::Admit { slot: 0, leg: leg(address(3)), limits: limits(100) },
            Output::Dismiss { slot: 1, address: address(2) },
            Output::Dismiss { slot: 0, address: address(3) },
        ]
    );
}
