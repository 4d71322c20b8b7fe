use super::fixture::{LINK, TestServer};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Sends a request as it is and reads to the end of the head, or of the answer.
async fn exchange(address: SocketAddr, request: &str, whole: bool) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    converse(stream, request, whole).await
}

async fn converse(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    request: &str,
    whole: bool,
) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while whole || !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let read =
            tokio::time::timeout(Duration::from_secs(5), stream.read(&mut chunk)).await.unwrap().unwrap();
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

struct Ask<'a> {
    line: &'a str,
    headers: Vec<String>,
    body: &'a str,
}

impl Ask<'_> {
    fn text(&self) -> String {
        let length = if self.body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", self.body.len())
        };
        let headers: String = self.headers.iter().map(|header| format!("{header}\r\n")).collect();
        format!("{} HTTP/1.1\r\n{headers}{length}Connection: close\r\n\r\n{}", self.line, self.body)
    }
}

/// Host × Origin × request × token: 15 × 7 × 5 × 6 = 3150 cases. Only loopback host with the right port, own or no
/// origin, and the exact token pass; nothing else has any effect.
#[tokio::test]
async fn matrix_of_hosts_origins_requests_and_tokens() {
    let server = TestServer::start().await;
    let port = server.ui.port();
    let good_hosts =
        ["127.0.0.1", "localhost", "LocalHost", "[::1]", "127.0.0.2"].map(|host| format!("{host}:{port}"));
    let mut bad_hosts =
        ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.1.5", "[fe80::1]", "0.0.0.0"]
            .map(|host| format!("{host}:{port}"))
            .to_vec();
    bad_hosts.extend(["127.0.0.1".into(), "localhost:1".into(), format!("127.0.0.1:0{port}"), String::new()]);
    let token = server.token.as_str();
    let tokens = [
        (true, format!("Authorization: Bearer {token}")),
        (false, "X-None: 1".into()),
        (false, "Authorization: Bearer wrong".into()),
        (false, format!("Authorization: Bearer {token}x")),
        (false, format!("Authorization: Basic {token}")),
        (false, format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}")),
    ];
    let requests = [
        "GET /api/v1/status",
        "POST /api/v1/down",
        "GET /metrics",
        "GET /api/v1/events",
        "POST /api/v1/party/leave",
    ];
    let (mut cases, mut effects) = (0, 0);
    for (good_host, host) in
        good_hosts.iter().map(|host| (true, host)).chain(bad_hosts.iter().map(|host| (false, host)))
    {
        let origins = [
            (true, String::new()),
            (true, format!("Origin: http://{host}\r\n")),
            (false, "Origin: null\r\n".into()),
            (false, "Origin: https://evil.example\r\n".into()),
            (false, format!("Origin: https://{host}\r\n")),
            (false, "Origin: http://127.0.0.1\r\n".into()),
            (false, format!("Origin: http://{host}\r\nOrigin: http://{host}\r\n")),
        ];
        for (good_origin, origin) in &origins {
            for (good_token, token) in &tokens {
                for line in requests {
                    let head = format!("Host: {host}\r\n{origin}{token}");
                    let answer = exchange(
                        server.ui,
                        &Ask { line, headers: vec![head.clone()], body: "" }.text(),
                        false,
                    )
                    .await;
                    let wanted = match (good_host && *good_origin, good_token) {
                        (true, true) => 200,
                        (true, false) if !token.contains("\r\n") => 401,
                        _ => 403,
                    };
                    assert_eq!(code(&answer), wanted, "{line}\n{head}\n\n{answer}");
                    assert!(!answer.to_lowercase().contains("access-control"), "no CORS");
                    cases += 1;
                    effects += usize::from(wanted == 200 && line.starts_with("POST"));
                }
            }
        }
    }
    assert_eq!(cases, 3150);
    assert_eq!(server.commands.load(Ordering::SeqCst), effects, "refused requests had no effect");
}

#[tokio::test]
async fn odd_requests_are_refused() {
    let server = TestServer::start().await;
    let (host, token) =
        (format!("Host: {}", server.ui), format!("Authorization: Bearer {}", server.token.as_str()));
    let header = |text: &str| text.to_owned();
    let json = "Content-Type: application/json";
    for (wanted, line, headers, body) in [
        // no host, two hosts, another host in the request line
        (400, "GET /api/v1/status", vec![token.clone()], ""),
        (403, "GET /api/v1/status", vec![host.clone(), host.clone(), token.clone()], ""),
        (403, "GET http://evil.example/api/v1/status", vec![host.clone(), token.clone()], ""),
        // browsers that send no Origin still send this
        (
            403,
            "GET /api/v1/status",
            vec![host.clone(), token.clone(), header("Sec-Fetch-Site: cross-site")],
            "",
        ),
        (
            403,
            "POST /api/v1/down",
            vec![host.clone(), token.clone(), header("Sec-Fetch-Site: same-site")],
            "",
        ),
        (
            200,
            "GET /api/v1/status",
            vec![host.clone(), token.clone(), header("Sec-Fetch-Site: same-origin")],
            "",
        ),
        // simple requests of a form, preflights, upgrades
        (
            415,
            "POST /api/v1/party",
            vec![host.clone(), token.clone(), header("Content-Type: text/plain")],
            "{\"name\":\"x\"}",
        ),
        (
            401,
            "POST /api/v1/party",
            vec![host.clone(), header("Content-Type: text/plain")],
            "{\"name\":\"x\"}",
        ),
        (401, "OPTIONS /api/v1/party", vec![host.clone(), header("Access-Control-Request-Method: POST")], ""),
        (405, "OPTIONS /api/v1/party", vec![host.clone(), token.clone()], ""),
        (
            403,
            "GET /api/v1/events",
            vec![
                host.clone(),
                token.clone(),
                header("Upgrade: websocket"),
                header("Origin: https://evil.example"),
            ],
            "",
        ),
        // the token in the address does not count
        (401, "GET /api/v1/status?token=SECRET", vec![host.clone()], ""),
        // ways around the prefix
        (401, "GET /api/../api/v1/status", vec![host.clone()], ""),
        (404, "GET //api/v1/status", vec![host.clone()], ""),
        (404, "GET /%61pi/v1/status", vec![host.clone()], ""),
        (404, "POST /", vec![host.clone()], ""),
        // what only the Unix socket may ask
        (404, "POST /api/v1/ui", vec![host.clone(), token.clone()], ""),
        (404, "GET /api/v2/status", vec![host.clone(), token.clone()], ""),
        (405, "GET /api/v1/down", vec![host.clone(), token.clone()], ""),
        (405, "DELETE /api/v1/party", vec![host.clone(), token.clone()], ""),
        // bodies
        (400, "POST /api/v1/party", vec![host.clone(), token.clone(), header(json)], "{"),
        (422, "POST /api/v1/party", vec![host.clone(), token.clone(), header(json)], "{\"nam\":\"x\"}"),
        (
            422,
            "POST /api/v1/party",
            vec![host.clone(), token.clone(), header(json)],
            "{\"name\":\"x\",\"y\":1}",
        ),
        (400, "POST /api/v1/party", vec![host.clone(), token.clone(), header(json)], "{\"name\":\" x\"}"),
        (
            400,
            "POST /api/v1/party",
            vec![host.clone(), token.clone(), header(json)],
            "{\"name\":\"x\",\"control\":\"ftp://a\"}",
        ),
        (
            400,
            "POST /api/v1/party/join",
            vec![host.clone(), token.clone(), header(json)],
            "{\"invite\":\"x\"}",
        ),
        (400, "POST /api/v1/party/invite", vec![host.clone(), token.clone(), header(json)], "{\"uses\":0}"),
        (
            400,
            "POST /api/v1/party/invite",
            vec![host.clone(), token.clone(), header(json)],
            "{\"expires_in\":1}",
        ),
        (
            400,
            "POST /api/v1/ping",
            vec![host.clone(), token.clone(), header(json)],
            "{\"member\":\"Bob\",\"count\":101}",
        ),
    ] {
        let request = Ask { line, headers, body }.text().replace("SECRET", server.token.as_str());
        let answer = exchange(server.ui, &request, line != "GET /api/v1/events").await;
        // A request without Host may be refused by the HTTP library or by the guard.
        let wanted =
            if wanted == 400 && !request.contains("Host:") { code(&answer).clamp(400, 403) } else { wanted };
        assert_eq!(code(&answer), wanted, "{request}\n\n{answer}");
        if answer.contains("application/json") && wanted != 200 {
            assert!(answer.contains("\"message\":\""), "a refusal explains itself: {answer}");
        }
    }
    assert_eq!(server.commands.load(Ordering::SeqCst), 0, "refused requests had no effect");
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let server = TestServer::start().await;
    let body = format!("{{\"name\":\"{}\"}}", "x".repeat(70_000));
    let headers = vec![
        format!("Host: {}", server.ui),
        format!("Authorization: Bearer {}", server.token.as_str()),
        "Content-Type: application/json".into(),
    ];
    let answer =
        exchange(server.ui, &Ask { line: "POST /api/v1/party", headers, body: &body }.text(), false).await;
    assert_eq!(code(&answer), 413, "{answer}");
}

#[tokio::test]
async fn pages_carry_a_policy_and_no_data() {
    let server = TestServer::start().await;
    let ask = |line| Ask { line, headers: vec![format!("Host: {}", server.ui)], body: "" }.text();
    let answer = exchange(server.ui, &ask("GET /"), true).await;
    assert_eq!(code(&answer), 200);
    let head = answer.to_lowercase();
    for header in
        ["content-security-policy: default-src 'none'", "x-frame-options: deny", "nosniff", "no-referrer"]
    {
        assert!(head.contains(header), "{header} missing: {answer}");
    }
    assert!(answer.contains("LANrage") && !answer.contains(server.token.as_str()));
    for path in [
        "GET /../Cargo.toml",
        "GET /..%2fCargo.toml",
        "GET /index.html/../../../Cargo.toml",
        "GET /nothing.js",
    ] {
        let answer = exchange(server.ui, &ask(path), true).await;
        assert_eq!(code(&answer), 404, "{path}: {answer}");
    }
    let rebound =
        exchange(server.ui, "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", true).await;
    assert_eq!(code(&rebound), 403, "not even the page is shown under another name");
}

#[tokio::test]
async fn commands_work_with_the_token_and_over_the_socket() {
    let server = TestServer::start().await;
    let answer = local(&server, "POST /api/v1/down", "").await;
    assert!(answer.contains("\"up\":false"), "the answer shows what was done: {answer}");
    let answer = local(&server, "POST /api/v1/up", "").await;
    assert!(answer.contains("\"up\":true"), "{answer}");
    let answer = local(&server, "POST /api/v1/party/join", &format!("{{\"invite\":\"{LINK}\"}}")).await;
    assert!(code(&answer) == 410 && answer.contains("invite_expired"), "{answer}");
    let answer = local(&server, "POST /api/v1/ping", "{\"member\":\"Bob\"}").await;
    assert_eq!(answer.matches("\"rtt_ms\":12.34").count(), 4, "four by default: {answer}");
    let answer = local(&server, "POST /api/v1/ui", "").await;
    let url = format!("\"url\":\"http://{}/#token={}\"", server.ui, server.token.as_str());
    assert!(answer.contains(&url), "{answer}");
}

async fn local(server: &TestServer, line: &str, body: &str) -> String {
    let stream = UnixStream::connect(&server.socket).await.unwrap();
    let headers = vec!["Host: localhost".into(), "Content-Type: application/json".into()];
    converse(stream, &Ask { line, headers, body }.text(), true).await
}

#[tokio::test]
async fn reads_show_no_secrets() {
    let server = TestServer::start().await;
    for line in ["GET /api/v1/status", "GET /metrics"] {
        let answer = local(&server, line, "").await;
        assert!(code(&answer) == 200 && !answer.contains(server.token.as_str()), "{answer}");
    }
}

#[tokio::test]
async fn metrics_show_paths_round_trips_and_counters() {
    let server = TestServer::start().await;
    let text = local(&server, "GET /metrics", "").await;
    for line in [
        "lanrage_up 1",
        "lanrage_control_connected{url=\"http://192.0.2.1:8667\"} 1",
        "lanrage_party_members{party=\"Friday\"} 4",
        "lanrage_peer_path{peer=\"Bob\",address=\"10.66.0.2\",path=\"relay\"} 1",
        "lanrage_peer_path{peer=\"Bob\",address=\"10.66.0.2\",path=\"direct\"} 0",
        "lanrage_peer_rtt_seconds{peer=\"Bob\",address=\"10.66.0.2\"} 0.023456",
        "lanrage_peer_loss_ratio{peer=\"Bob\",address=\"10.66.0.2\"} 0.01",
        "lanrage_lane_dropped_total{reason=\"dhcp\"} 2",
        "lanrage_relay_mode{mode=\"xdp-generic\"} 1",
        "lanrage_relay_forwarded_packets_total{plane=\"kernel\"} 10000",
        "lanrage_relay_packets_total{plane=\"kernel\",reason=\"no_flow\"} 4",
        "lanrage_problem{code=\"clock_wrong\"} 1",
        "# TYPE lanrage_relay_packets_total counter",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} missing in\n{text}");
    }
    assert!(!text.contains("peer=\"Ana\""), "no path to oneself");
}

#[tokio::test]
async fn events_come_at_once_and_at_most_five_a_second() {
    let server = TestServer::start().await;
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let started = Instant::now();
    let (mut text, mut chunk) = (String::new(), vec![0; 65_536]);
    while started.elapsed() < Duration::from_millis(1400) {
        server.relay.send_modify(|relay| relay.kernel_forwarded += 1);
        if let Ok(read) = tokio::time::timeout(Duration::from_millis(10), stream.read(&mut chunk)).await {
            text += &String::from_utf8_lossy(&chunk[..read.unwrap()]);
        }
    }
    let events = text.matches("data: {").count();
    assert!((5..=8).contains(&events), "{events} events in 1.4 s");

    server.trigger.request();
    let stopped = tokio::time::timeout(Duration::from_secs(1), server.task).await;
    stopped.expect("an open event stream does not delay the end").unwrap().unwrap();
    assert!(!server.socket.exists(), "the socket is removed");
}

#[tokio::test]
async fn a_role_that_ended_is_reported() {
    let TestServer { socket, peer, relay, task, trigger, dir: _dir, .. } = TestServer::start().await;
    drop((peer, relay));
    let stream = UnixStream::connect(&socket).await.unwrap();
    let ask = Ask { line: "GET /api/v1/status", headers: vec!["Host: x".into()], body: "" };
    let answer = converse(stream, &ask.text(), true).await;
    assert!(answer.contains("relay_stopped"), "{answer}");
    trigger.request();
    task.await.unwrap().unwrap();
}
