use super::fallback::{Credentials, Fallback, Output};
use super::*;
use lanrage_common::binding::{Output as BindingOutput, UnboundReason, challenge_answer};
use lanrage_common::identity::CertificateFingerprint;
use lanrage_common::time::Now;
use std::time::Instant;

const CREDENTIALS: (Vec<u8>, [u8; 32]) = (Vec::new(), [1; 32]);

fn place(port: u16) -> RelayTls {
    RelayTls { address: ([127, 0, 0, 1], port).into(), certificate: CertificateFingerprint([7; 32]) }
}

/// A fallback whose clock the test holds.
struct Bench {
    fallback: Fallback,
    carriers: u64,
    start: Instant,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        let start = Instant::now();
        let now = Now { instant: start, unix: 1_800_000_000 };
        Self { fallback: Fallback::new(Some(place(443))), carriers: 0, start, now }
    }

    /// Lets time pass; UDP has been silent since the start.
    fn pass(&mut self, ms: u64, is_silent: bool) -> Vec<Output> {
        self.now.instant += Duration::from_millis(ms);
        let needed_at = is_silent.then_some(self.start);
        self.fallback.handle_timeout(needed_at, &mut self.carriers, self.now);
        std::iter::from_fn(|| self.fallback.poll_output()).collect()
    }

    fn event(&mut self, event: Event) -> Vec<Output> {
        let credentials: Credentials = CREDENTIALS;
        self.fallback.handle_event(&event, Some(&credentials), self.now);
        std::iter::from_fn(|| self.fallback.poll_output()).collect()
    }

    fn opened(&mut self, id: u64) -> Vec<Output> {
        self.event(Event::Opened { id, local: ([127, 0, 0, 1], 40_000).into() })
    }

    fn ended(&mut self, id: u64) -> Vec<Output> {
        self.event(Event::Ended { id, why: Trouble::Other("closed".into()) })
    }
}

fn opens(outputs: &[Output]) -> Option<u64> {
    outputs.iter().find_map(|output| match output {
        Output::Open { id, .. } => Some(*id),
        _ => None,
    })
}

#[test]
fn silence_opens_a_carrier_and_an_answer_closes_it() {
    let mut bench = Bench::new();
    assert_eq!(bench.pass(100, false), []);
    assert_eq!(opens(&bench.pass(100, true)), Some(1));
    assert_eq!(bench.pass(100, true), []);
    assert_eq!(bench.pass(100, false), [Output::Close { id: 1 }]);
    assert_eq!(opens(&bench.pass(100, true)), Some(2));
}

#[test]
fn without_a_place_nothing_is_opened_until_there_is_one() {
    let mut bench = Bench::new();
    bench.fallback.set_place(None, bench.now);
    assert_eq!(bench.pass(100, true), []);
    bench.fallback.set_place(Some(place(444)), bench.now);
    assert_eq!(bench.pass(0, true), [Output::Open { id: 1, place: place(444) }]);
}

#[test]
fn an_open_carrier_binds_and_is_given_up_when_the_relay_is_silent() {
    let mut bench = Bench::new();
    bench.pass(0, true);
    let outputs = bench.opened(1);
    let to = SocketAddr::from(([127, 0, 0, 1], 40_000));
    assert!(
        matches!(&outputs[..], [Output::Binding(BindingOutput::Transmit { to: sent, .. })] if *sent == to),
        "{outputs:?}"
    );
    assert!(!bench.pass(2900, true).contains(&Output::Close { id: 1 }));
    assert!(bench.pass(200, true).contains(&Output::Close { id: 1 }));
    assert!(bench.fallback.trouble().is_some());
    assert_eq!(opens(&bench.pass(1000, true)), Some(2), "tried again");
}

#[test]
fn failures_are_repeated_ever_more_rarely_and_a_new_network_at_once() {
    let mut bench = Bench::new();
    let mut pauses = Vec::new();
    for id in 1..12 {
        let mut waited = 0;
        while opens(&bench.pass(100, true)).is_none() {
            waited += 100;
        }
        pauses.push(waited);
        assert_eq!(bench.ended(id), []);
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert!(pauses[1] <= 500 && (29_000..=30_000).contains(&pauses[10]), "{pauses:?}");
    bench.fallback.rebind(bench.now);
    assert!(opens(&bench.pass(0, true)).is_some());
}

#[test]
fn when_udp_takes_over_the_carrier_lingers_for_what_is_on_its_way() {
    let mut bench = Bench::new();
    bench.pass(0, true);
    bench.opened(1);
    assert!(bench.fallback.leave(bench.now), "a request may still be on its way");
    assert_eq!(bench.pass(900, false), []);
    assert_eq!(bench.pass(200, false), [Output::Close { id: 1 }]);
}

#[test]
fn events_of_other_carriers_change_nothing() {
    let mut bench = Bench::new();
    bench.pass(0, true);
    assert_eq!(bench.opened(9), []);
    assert_eq!(bench.ended(9), []);
    assert!(!bench.opened(1).is_empty());
}

#[test]
fn a_challenge_is_answered_and_an_end_unbinds() {
    let mut bench = Bench::new();
    bench.pass(0, true);
    let request = bench.opened(1);
    let [Output::Binding(BindingOutput::Transmit { payload, to })] = &request[..] else {
        panic!("{request:?}")
    };
    let mut transaction = [0; 12];
    transaction.copy_from_slice(&payload[8..20]);
    assert!(bench.fallback.handle_datagram(*to, &challenge_answer(transaction, false, "nonce"), bench.now));
    assert!(matches!(bench.fallback.poll_output(), Some(Output::Binding(BindingOutput::Transmit { .. }))));
    bench.fallback.stop(UnboundReason::NoAnswer);
    assert_eq!(bench.fallback.poll_output(), Some(Output::Close { id: 1 }));
    assert_eq!(bench.fallback.poll_output(), None, "it never was bound");
}

#[tokio::test]
async fn a_closed_port_is_told() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut carriers = Carriers::new(1);
    carriers.open(1, place(free));
    let Event::Ended { id: 1, why: Trouble::Other(why) } = carriers.next().await else { panic!("opened") };
    assert!(why.contains(&free.to_string()), "{why}");
    assert_eq!(carriers.tasks.len(), 0);
}

#[tokio::test]
async fn a_closed_carrier_says_nothing_more() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut carriers = Carriers::new(1);
    carriers.open(1, place(listener.local_addr().unwrap().port()));
    let (stream, _) = listener.accept().await.unwrap();
    carriers.close(1);
    drop(stream);
    assert!(tokio::time::timeout(Duration::from_millis(500), carriers.next()).await.is_err());
}
