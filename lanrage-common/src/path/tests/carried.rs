//! A relay that is reached over TLS.

use crate::path::*;

const ME: WgKey = WgKey([1; 32]);
const FRIEND: WgKey = WgKey([2; 32]);
const RELAY: &str = "192.0.2.1:3478";
const CARRIER: &str = "127.0.0.1:40001";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn agent(now: Now) -> PathAgent {
    let secret = PartySecret::from([7; 32]);
    let subnet = "10.66.0.0/16".parse().unwrap();
    let config = Config { me: ME, party: PartyId([1; 16]), secret, subnet, mtu: 1420 };
    let mut agent = PathAgent::new(config, rand_core::OsRng);
    agent.set_local_candidates(vec![address("192.168.1.2:4001")], now);
    agent.add_member(FRIEND, now);
    agent
}

fn paths(agent: &mut PathAgent) -> Vec<Path> {
    let outputs = std::iter::from_fn(|| agent.poll_output());
    outputs.filter_map(|output| if let Output::Path { path, .. } = output { path } else { None }).collect()
}

#[test]
fn the_path_says_tls_and_moves_to_udp_without_a_gap() {
    let now = Now { instant: Instant::now(), unix: 1_800_000_000 };
    let mut agent = agent(now);
    let path = |kind, endpoint: &str| {
        let endpoint = address(endpoint);
        Path { kind, endpoint, relay: Some("home".into()), handshakes: [Some(endpoint), None], copy: None }
    };
    agent.handle_carried("home", address(CARRIER), None, now);
    assert_eq!(paths(&mut agent), [path(PathKind::Tls, CARRIER)]);
    let status = agent.status(&FRIEND).unwrap();
    assert_eq!(status.kind, PathKind::Tls);
    assert!(status.why.contains("TLS") && status.why.contains("let UDP out"), "{}", status.why);

    agent.handle_bound("home", address(RELAY), address("203.0.113.1:4001"), None, now);
    assert_eq!(paths(&mut agent), [path(PathKind::Relay, RELAY)]);
    agent.handle_carried("home", address(CARRIER), None, now);
    assert_eq!(paths(&mut agent), [path(PathKind::Tls, CARRIER)]);
}

#[test]
fn an_address_on_the_way_over_tls_is_no_candidate() {
    let now = Now { instant: Instant::now(), unix: 1_800_000_000 };
    let mut agent = agent(now);
    agent.handle_carried("home", address(CARRIER), None, now);
    let known: Vec<_> = agent.shared.candidates.iter().map(|candidate| candidate.address).collect();
    assert_eq!(known, [address("192.168.1.2:4001")]);
}

#[test]
fn a_relay_over_udp_is_preferred_unless_it_is_far() {
    let now = Now { instant: Instant::now(), unix: 1_800_000_000 };
    let mut agent = agent(now);
    let ms = |ms| Some(Duration::from_millis(ms));
    agent.handle_carried("near", address(CARRIER), ms(10), now);
    agent.handle_bound("far", address(RELAY), address("203.0.113.1:4001"), ms(30), now);
    assert_eq!(agent.status(&FRIEND).unwrap().kind, PathKind::Relay);
    agent.handle_bound("far", address(RELAY), address("203.0.113.1:4001"), ms(145), now);
    assert_eq!(agent.status(&FRIEND).unwrap().kind, PathKind::Tls);
}
