//! The page is what Prometheus reads, and what dashboard and alerts ask for exists.

use super::*;
use crate::api::fixture::{TestServer, peer_status, relay_detail};
use crate::relay::Inquiry;
use crate::shutdown;
use lanrage_common::api::{GatewayStatus, ServerStatus, Status};
use std::collections::{BTreeMap, BTreeSet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// One family as a strict reader sees it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<(BTreeMap<String, String>, f64)>,
}

/// Reads a page, and panics at anything that the format or its conventions forbid.
fn parse(page: &str) -> BTreeMap<String, Family> {
    assert!(page.ends_with('\n'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("HELP has a text");
            assert!(is_name(name) && help.ends_with('.'), "{line}");
            assert!(!families.contains_key(name), "{name} comes twice");
            families.insert(name.into(), Family { help: help.into(), ..Family::default() });
            current = name.into();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("TYPE has a kind");
            assert_eq!(name, current, "TYPE follows its HELP");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "only counters end in _total: {name}");
            families.get_mut(name).unwrap().kind = kind.into();
        } else {
            let (name, labels, value) = sample(line);
            assert_eq!(name, current, "samples follow their TYPE");
            let family = families.get_mut(&name).unwrap();
            assert!(family.samples.iter().all(|(other, _)| *other != labels), "twice: {line}");
            assert!(value.is_finite() && (family.kind == "gauge" || value >= 0.0), "{line}");
            family.samples.push((labels, value));
        }
    }
    families
}

fn is_name(name: &str) -> bool {
    name.starts_with("lanrage_") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (head, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
    let Some((name, labels)) = head.split_once('{') else { return (head.into(), BTreeMap::new(), value) };
    let mut rest = labels.strip_suffix('}').expect("braces are closed");
    let mut parsed = BTreeMap::new();
    while !rest.is_empty() {
        let (key, tail) = rest.split_once("=\"").expect("a label's value is quoted");
        assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        let (text, tail) = quoted(tail);
        assert!(parsed.insert(key.to_owned(), text).is_none(), "{line}");
        rest = tail.strip_prefix(',').unwrap_or(tail);
    }
    (name.into(), parsed, value)
}

/// A text up to its closing quote, and what follows.
fn quoted(text: &str) -> (String, &str) {
    let mut plain = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return (plain, &text[place + 1..]),
            '\\' => match characters.next().expect("an escape").1 {
                'n' => plain.push('\n'),
                escaped @ ('\\' | '"') => plain.push(escaped),
                other => panic!("\\{other} is no escape"),
            },
            '\n' => panic!("a line break in a label"),
            other => plain.push(other),
        }
    }
    panic!("a quote is not closed: {text}")
}

fn status() -> Status {
    let peer = peer_status();
    Status {
        version: "1.2.3".into(),
        roles: vec!["relay".into(), "peer".into()],
        up: true,
        device: Some(peer.device),
        party: peer.party,
        control: peer.control,
        relay: Some(relay_detail().status),
        server: Some(ServerStatus { public_url: "http://192.0.2.1:8667".into(), online: 3, relays: 1 }),
        network: None,
        gateway: Some(GatewayStatus {
            to_devices: 3,
            dropped: [("dhcp".to_owned(), 2)].into(),
            ..GatewayStatus::default()
        }),
        firewall: Some(peer.firewall),
        games: Some(peer.games),
        problems: peer.problems,
    }
}

fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels: BTreeMap<_, _> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    families.get(name)?.samples.iter().find(|(other, _)| *other == labels).map(|(_, value)| *value)
}

#[test]
fn the_page_is_well_formed_and_complete() {
    let families = parse(&render(&status(), Some(&relay_detail())));
    let value = |name: &str, labels: &[(&str, &str)]| value(&families, name, labels);
    assert_eq!(value("lanrage_relay_mode", &[("mode", "xdp-generic")]), Some(1.0));
    assert_eq!(value("lanrage_relay_mode", &[("mode", "userspace")]), Some(0.0));
    assert_eq!(value("lanrage_gateway_packets_total", &[("direction", "out"), ("to", "one")]), Some(3.0));
    assert_eq!(value("lanrage_gateway_dropped_total", &[("reason", "dhcp")]), Some(2.0));
    assert_eq!(value("lanrage_relay_flows", &[]), Some(6.0));
    assert_eq!(value("lanrage_relay_flows_max", &[]), Some(65_536.0));
    assert_eq!(
        value("lanrage_relay_packets_total", &[("plane", "kernel"), ("reason", "no_flow")]),
        Some(4.0)
    );
    assert_eq!(
        value("lanrage_relay_bytes_total", &[("plane", "kernel"), ("reason", "forwarded")]),
        Some(2_000_000.0)
    );
    assert_eq!(
        value("lanrage_relay_packets_total", &[("plane", "userspace"), ("reason", "malformed")]),
        Some(0.0),
        "zeros too"
    );
    assert_eq!(value("lanrage_relay_budget_drops_total", &[("plane", "userspace")]), Some(5.0));
    assert_eq!(value("lanrage_relay_info", &[("name", "paris"), ("region", "eu-west")]), Some(1.0));
    assert_eq!(value("lanrage_relay_worker_received_total", &[("worker", "0")]), Some(20.0));
    assert_eq!(value("lanrage_relay_worker_offloaded_total", &[("worker", "0")]), Some(4.0));
    assert_eq!(value("lanrage_relay_tls_connections", &[]), Some(1.0));
    assert_eq!(value("lanrage_relay_tls_datagrams_total", &[("direction", "out")]), Some(30.0));
    assert_eq!(value("lanrage_server_online", &[]), Some(3.0));
}

#[test]
fn hostile_names_stay_inside_their_quotes() {
    let name = "a\"} 1\nlanrage_up 0\\";
    let detail = RelayDetail { name: name.into(), ..relay_detail() };
    let families = parse(&relay_page(&detail));
    assert_eq!(value(&families, "lanrage_relay_info", &[("name", name), ("region", "eu-west")]), Some(1.0));
    assert!(!families.contains_key("lanrage_up"));
}

#[test]
fn what_others_may_read_names_nobody() {
    let page = relay_page(&relay_detail());
    for secret in ["198.51.100", "key1", "Friday", "Bob", "10.66."] {
        assert!(!page.contains(secret), "{secret}");
    }
}

/// Words that look like our metrics.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    words.filter(|word| word.starts_with("lanrage_")).map(str::to_owned).collect()
}

#[test]
fn dashboard_alerts_and_documentation_name_only_metrics_that_exist() {
    let families = parse(&render(&status(), Some(&relay_detail())));
    let relay = parse(&relay_page(&relay_detail()));
    let dashboard = include_str!("../../../../deploy/grafana/lanrage-relay.json");
    serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
    let alerts = include_str!("../../../../deploy/prometheus/lanrage-relay-alerts.yml");
    let peers = include_str!("../../../../deploy/grafana/lanrage-peer.json");
    serde_json::from_str::<serde_json::Value>(peers).unwrap();
    for (file, text, served) in [
        ("dashboard", dashboard, &relay),
        ("alerts", alerts, &relay),
        ("dashboard of peers", peers, &families),
    ] {
        let named = metrics_in(text);
        assert!(named.len() > 5, "{file}: {named:?}");
        for name in named {
            assert!(served.contains_key(&name), "{file}: {name} does not exist");
        }
    }
    let documentation = include_str!("../../../../docs/metrics.md");
    for (name, family) in &families {
        let row = format!("| `{name}`");
        assert!(
            documentation.contains(&row),
            "docs/metrics.md lacks {name} ({} {})",
            family.kind,
            family.help
        );
    }
    for name in metrics_in(documentation).iter().filter(|name| !name.starts_with("lanrage_control_")) {
        assert!(families.contains_key(name), "docs/metrics.md: {name} does not exist");
    }
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_outside_listener_serves_metrics_alone_and_within_a_budget() {
    let (_trigger, shutdown) = shutdown::channel();
    let inquiry = Inquiry::answering(relay_detail());
    let address = outside::serve("127.0.0.1:0".parse().unwrap(), inquiry, shutdown).await.unwrap();
    let answer = get(address, "/metrics").await;
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    parse(page);
    assert!(get(address, "/api/v1/status").await.starts_with("HTTP/1.1 404"));
    let mut refused = 0;
    for _ in 0..60 {
        refused += u32::from(get(address, "/metrics").await.starts_with("HTTP/1.1 429"));
    }
    assert!(refused > 0, "a scraper in a loop is slowed down");
}

#[tokio::test]
async fn the_local_api_has_the_relays_detail_and_metrics() {
    let server = TestServer::start().await;
    let stream = tokio::net::UnixStream::connect(&server.socket).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    reader.read_to_string(&mut answer).await.unwrap();
    let families = parse(answer.split_once("\r\n\r\n").unwrap().1);
    assert_eq!(value(&families, "lanrage_relay_bindings_max", &[]), Some(16_384.0));
}
