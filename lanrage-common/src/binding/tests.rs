use super::*;
use crate::time::Now;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use std::net::SocketAddr;
use std::time::Instant;

const KEY: [u8; 32] = [7; 32];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn relay() -> SocketAddr {
    address("192.0.2.1:3478")
}

fn mapped() -> SocketAddr {
    address("198.51.100.7:40000")
}

fn start() -> Now {
    Now { instant: Instant::now(), unix: 1_000 }
}

fn client(now: Now) -> BindingClient<StdRng> {
    let mut client = BindingClient::new(relay(), StdRng::seed_from_u64(1));
    assert_eq!(client.poll_output(), Some(Output::NeedTicket));
    client.set_ticket(vec![5; crate::ticket::TICKET_LEN], KEY, now);
    client
}

fn sent(client: &mut BindingClient<StdRng>) -> (Vec<u8>, BindRequest) {
    match client.poll_output() {
        Some(Output::Transmit { to, payload }) if to == relay() => match parse_request(&payload) {
            Some(Request::Bind(request)) => (payload, request),
            other => panic!("not a Bind: {other:?}"),
        },
        other => panic!("not a transmit: {other:?}"),
    }
}

fn bind(client: &mut BindingClient<StdRng>, now: Now) {
    let (_, first) = sent(client);
    assert_eq!(first.nonce, None);
    assert!(client.handle_datagram(relay(), &challenge_answer(first.transaction, false, "n1"), now));
    let (bytes, second) = sent(client);
    assert_eq!(second.nonce.as_deref(), Some("n1"));
    assert!(verify_integrity(&bytes, &KEY));
    let answer = bound_answer(second.transaction, mapped(), LIFETIME, "n2", &KEY);
    assert!(client.handle_datagram(relay(), &answer, now));
    assert_eq!(client.poll_output(), Some(Output::Bound { mapped: mapped() }));
}

#[test]
fn bind_never_looks_like_wireguard() {
    let request = BindRequest { transaction: [1; 12], ticket: vec![0; 141], nonce: None, release: false };
    let answers = [
        request.encode(&KEY),
        challenge_answer([1; 12], true, "n"),
        refusal_answer([1; 12], Refusal::OldEpoch, None),
        bound_answer([1; 12], mapped(), LIFETIME, "n", &KEY),
    ];
    for bytes in answers {
        assert!(!(1..=4).contains(&bytes[0]), "first byte {}", bytes[0]);
        assert!(is_stun(&bytes));
    }
}

#[test]
fn messages_survive_their_bytes() {
    let nonce = Some("abc".to_owned());
    let request = BindRequest { transaction: [1; 12], ticket: vec![9; 141], nonce, release: true };
    assert_eq!(parse_request(&request.encode(&KEY)), Some(Request::Bind(request)));
    let refusals = [Refusal::TicketExpired, Refusal::RelayFull, Refusal::PartyFull];
    for refusal in refusals {
        let answer = refusal_answer([2; 12], refusal, Some(&KEY));
        assert!(verify_integrity(&answer, &KEY));
        assert_eq!(parse_answer(&answer), Some(([2; 12], BindAnswer::Refused(refusal))));
    }
    let request = binding_request([3; 12]);
    assert_eq!(
        parse_request(&request),
        Some(Request::Binding(BindingRequest {
            transaction: [3; 12],
            change_ip: false,
            change_port: false,
            response_port: None,
            has_padding: false,
        }))
    );
    for mapped in [mapped(), address("[2001:db8::1]:9")] {
        let answer = binding_answer([3; 12], mapped);
        assert_eq!(parse_binding_answer(&answer), Some(([3; 12], mapped)));
        assert!(answer.len() <= request.len());
    }
}

#[test]
fn integrity_covers_every_bit() {
    let answer = bound_answer([1; 12], mapped(), LIFETIME, "nonce", &KEY);
    assert!(verify_integrity(&answer, &KEY));
    assert!(!verify_integrity(&answer, &[8; 32]));
    for bit in 0..answer.len() * 8 {
        let mut bent = answer.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(!verify_integrity(&bent, &KEY), "bit {bit}");
    }
}

#[test]
fn unknown_required_attributes_are_refused() {
    let mut bytes = binding_request([1; 12]);
    bytes[20..22].copy_from_slice(&[0x00, 0x02]);
    assert_eq!(parse_request(&bytes), None);
}

#[test]
fn a_nonce_is_bound_to_its_address_and_its_time() {
    let clock = Instant::now();
    let key = NonceKey::new([2; 32], clock);
    let later = |micros| clock + Duration::from_micros(micros);
    let nonce = key.issue(mapped(), later(5));
    assert_eq!(key.verify(&nonce, mapped(), later(5)), Some(5));
    assert_eq!(key.verify(&nonce, address("198.51.100.7:40001"), later(5)), None);
    assert_eq!(key.verify(&nonce, address("198.51.100.8:40000"), later(5)), None);
    assert_eq!(key.verify(&nonce[1..], mapped(), later(5)), None);
    assert_eq!(key.verify("", mapped(), later(5)), None);
    assert_eq!(key.verify(&nonce, mapped(), later(240_000_004)), Some(5));
    assert_eq!(key.verify(&nonce, mapped(), later(240_000_005)), None);
    let same = NonceKey::new(*key.secret(), clock);
    assert_eq!(same.verify(&nonce, mapped(), later(6)), Some(5), "a restarted relay that has the secret");
    assert_eq!(NonceKey::new([3; 32], clock).verify(&nonce, mapped(), later(6)), None);
}

#[test]
fn client_binds_and_refreshes_with_the_next_nonce() {
    let now = start();
    let mut client = client(now);
    bind(&mut client, now);
    let due = client.poll_timeout().unwrap() - now.instant;
    assert!((Duration::from_secs(20)..=Duration::from_secs(25)).contains(&due), "{due:?}");

    let later = now.after(Duration::from_secs(25));
    client.handle_timeout(later);
    let (_, refresh) = sent(&mut client);
    assert_eq!(refresh.nonce.as_deref(), Some("n2"));
    let moved = address("198.51.100.7:40001");
    let answer = bound_answer(refresh.transaction, moved, LIFETIME, "n3", &KEY);
    let answered = later.after(Duration::from_secs(1));
    assert!(client.handle_datagram(relay(), &answer, answered));
    assert_eq!(client.poll_output(), Some(Output::MappedChanged { mapped: moved }));
    assert_eq!(client.last_rtt(), Some(Duration::from_secs(1)));
}

#[test]
fn client_retransmits_ever_slower_and_reports_the_loss_once() {
    let mut now = start();
    let mut client = client(now);
    bind(&mut client, now);
    let (mut gaps, mut lost) = (Vec::new(), 0);
    now = now.after(Duration::from_secs(25));
    client.handle_timeout(now);
    for _ in 0..8 {
        while let Some(output) = client.poll_output() {
            lost += u32::from(output == Output::Unbound { reason: UnboundReason::NoAnswer });
        }
        let due = client.poll_timeout().unwrap();
        gaps.push((due - now.instant).as_millis());
        now = now.after(due - now.instant);
        client.handle_timeout(now);
    }
    assert_eq!(gaps, [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
    assert_eq!(lost, 1);
    assert!(!client.is_bound());
}

#[test]
fn client_ignores_strangers_and_forgeries() {
    let now = start();
    let mut client = client(now);
    let (_, first) = sent(&mut client);
    let forged = bound_answer(first.transaction, mapped(), LIFETIME, "n", &[8; 32]);
    assert!(client.handle_datagram(relay(), &forged, now));
    assert!(!client.handle_datagram(mapped(), &forged, now), "not from the relay");
    let stray = bound_answer([0; 12], mapped(), LIFETIME, "n", &KEY);
    assert!(client.handle_datagram(relay(), &stray, now));
    assert!(!client.handle_datagram(relay(), b"\x04\0\0\0WireGuard", now));
    assert!(!client.handle_datagram(relay(), &binding_answer([1; 12], mapped()), now));
    assert_eq!(client.poll_output(), None);
    assert!(!client.is_bound());
}

#[test]
fn endless_challenges_are_not_followed() {
    let now = start();
    let mut client = client(now);
    for _ in 0..4 {
        let (_, request) = sent(&mut client);
        client.handle_datagram(relay(), &challenge_answer(request.transaction, true, "n"), now);
    }
    assert_eq!(client.poll_output(), None);
    assert_eq!(client.poll_timeout(), Some(now.instant + Duration::from_secs(5)));
}

#[test]
fn a_restarted_relay_is_noticed() {
    let now = start();
    let mut client = client(now);
    bind(&mut client, now);
    client.rebind(now);
    let (_, request) = sent(&mut client);
    client.handle_datagram(relay(), &challenge_answer(request.transaction, true, "other"), now);
    let (_, request) = sent(&mut client);
    let answer = bound_answer(request.transaction, mapped(), LIFETIME, "n", &KEY);
    client.handle_datagram(relay(), &answer, now);
    assert_eq!(client.poll_output(), Some(Output::Unbound { reason: UnboundReason::Forgotten }));
    assert_eq!(client.poll_output(), Some(Output::Bound { mapped: mapped() }));
    assert_eq!(client.poll_output(), None);
}

#[test]
fn a_refused_ticket_is_replaced() {
    let now = start();
    let mut client = client(now);
    bind(&mut client, now);
    client.rebind(now);
    let (_, request) = sent(&mut client);
    let refusal = refusal_answer(request.transaction, Refusal::TicketExpired, None);
    client.handle_datagram(relay(), &refusal, now);
    let reason = UnboundReason::Refused(Refusal::TicketExpired);
    assert_eq!(client.poll_output(), Some(Output::Unbound { reason }));
    assert_eq!(client.poll_output(), Some(Output::NeedTicket));
    let later = now.after(Duration::from_secs(5));
    client.handle_timeout(later);
    assert_eq!(client.poll_output(), Some(Output::NeedTicket), "asked again");
    client.set_ticket(vec![6; 141], KEY, later);
    assert_eq!(sent(&mut client).1.ticket, vec![6; 141]);
}

#[test]
fn a_relay_that_refuses_every_ticket_is_not_asked_at_its_speed() {
    let mut now = start();
    let end = now.instant + Duration::from_secs(20);
    let mut client = client(now);
    let mut asked = vec![];
    while now.instant < end {
        while let Some(output) = client.poll_output() {
            match output {
                Output::NeedTicket => {
                    asked.push(now.instant);
                    client.set_ticket(vec![6; 141], KEY, now);
                }
                Output::Transmit { payload, .. } => {
                    let Some(Request::Bind(request)) = parse_request(&payload) else { panic!("not a Bind") };
                    now = now.after(Duration::from_millis(20));
                    let refusal = refusal_answer(request.transaction, Refusal::TicketExpired, None);
                    client.handle_datagram(relay(), &refusal, now);
                }
                _ => {}
            }
            assert!(asked.len() <= 5, "tickets are asked for without a pause");
        }
        let due = client.poll_timeout().expect("the client goes on trying");
        now = now.after(due.saturating_duration_since(now.instant));
        client.handle_timeout(now);
    }
    assert!(asked.len() >= 4, "the client goes on trying: {}", asked.len());
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(5)));
}

#[test]
fn a_ticket_is_renewed_at_half_its_life() {
    let mut now = start();
    let mut client = client(now);
    bind(&mut client, now);
    while now.unix < 1_299 {
        now = now.after(Duration::from_secs(1));
        client.handle_timeout(now);
        while let Some(output) = client.poll_output() {
            assert_ne!(output, Output::NeedTicket, "after {} s", now.unix - 1_000);
        }
    }
    client.handle_timeout(now.after(Duration::from_secs(1)));
    assert!(std::iter::from_fn(|| client.poll_output()).any(|output| output == Output::NeedTicket));
}

#[test]
fn release_tells_the_relay_and_stops() {
    let now = start();
    let mut client = client(now);
    bind(&mut client, now);
    client.release();
    let (bytes, request) = sent(&mut client);
    assert!(request.release && verify_integrity(&bytes, &KEY));
    assert_eq!((client.poll_output(), client.poll_timeout(), client.is_bound()), (None, None, false));
}

proptest! {
    #[test]
    fn any_datagram_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), seed: u64) {
        let _ = (parse_request(&bytes), parse_answer(&bytes), parse_binding_answer(&bytes));
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bent = bound_answer([1; 12], mapped(), LIFETIME, "nonce", &KEY);
        for _ in 0..4 {
            let at = rng.next_u32() as usize % bent.len();
            bent[at] = rng.next_u32() as u8;
        }
        let cut = rng.next_u32() as usize % (bent.len() + 1);
        let now = start();
        let mut client = client(now);
        let _ = client.poll_output();
        for bytes in [&bent[..], &bent[..cut], &bytes] {
            let _ = (parse_request(bytes), parse_answer(bytes), verify_integrity(bytes, &KEY));
            client.handle_datagram(relay(), bytes, now);
        }
        prop_assert!(!client.is_bound());
    }
}
