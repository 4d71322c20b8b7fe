//! Who may talk to a daemon's loopback listener: requests as web pages, other users and other machines' names would
//! send them, over real TCP to the real daemon of a peer in a party. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lanrage_common::api::{Status, UiAnswer};
use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::role::Role;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use support::TestLab;

/// As the browser names it.
const UI: &str = "127.0.0.1:8666";
/// Longest silence of a daemon that is about to answer; a loaded machine takes its time.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a row sends, and the status it must be answered with. In texts, `{host}` is this listener's own name, `{token}` the
/// right token, `{other}` that of another install.
struct Row {
    what: &'static str,
    line: &'static str,
    headers: &'static [&'static str],
    body: &'static str,
    status: u16,
}

const fn row(what: &'static str, status: u16, line: &'static str, headers: &'static [&'static str]) -> Row {
    Row { what, line, headers, body: "", status }
}

const fn body(what: &'static str, status: u16, body: &'static str, headers: &'static [&'static str]) -> Row {
    Row { what, line: "POST /api/v1/party/join", headers, body, status }
}

const fn setting(what: &'static str, body: &'static str) -> Row {
    Row { what, line: "POST /api/v1/settings", headers: &[HOST, TOKEN, JSON], body, status: 400 }
}

const HOST: &str = "Host: {host}";
const TOKEN: &str = "Authorization: Bearer {token}";
const JSON: &str = "Content-Type: application/json";
const DOWN: &str = "POST /api/v1/down";
const STATUS: &str = "GET /api/v1/status";
const JOIN: &str = "{\"invite\":\"http://evil.example/j/AAAAAAAAAAAAAAAAAAAAAA#AAAA\"}";

/// Every row has everything right but what it says.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Host: DNS rebinding and its relatives
    row("no Host", 403, DOWN, &[TOKEN]),
    row("empty Host", 403, DOWN, &["Host:", TOKEN]),
    row("foreign name", 403, DOWN, &["Host: evil.example", TOKEN]),
    row("foreign name, own port", 403, DOWN, &["Host: evil.example:8666", TOKEN]),
    row("rebinding service", 403, DOWN, &["Host: 127.0.0.1.nip.io:8666", TOKEN]),
    row("localhost as a label of another name", 403, DOWN, &["Host: localhost.evil.example:8666", TOKEN]),
    row("name that ends like localhost", 403, DOWN, &["Host: evil-localhost:8666", TOKEN]),
    row("subdomain of localhost", 403, DOWN, &["Host: evil.localhost:8666", TOKEN]),
    row("trailing dot", 403, DOWN, &["Host: localhost.:8666", TOKEN]),
    row("trailing dot behind the address", 403, DOWN, &["Host: 127.0.0.1.:8666", TOKEN]),
    row("no port", 403, DOWN, &["Host: 127.0.0.1", TOKEN]),
    row("another port", 403, DOWN, &["Host: 127.0.0.1:8667", TOKEN]),
    row("port 80", 403, DOWN, &["Host: localhost:80", TOKEN]),
    row("empty port", 403, DOWN, &["Host: localhost:", TOKEN]),
    row("port with a zero in front", 403, DOWN, &["Host: localhost:08666", TOKEN]),
    row("port with a sign", 403, DOWN, &["Host: localhost:+8666", TOKEN]),
    row("port beyond 16 bits", 403, DOWN, &["Host: localhost:74202", TOKEN]),
    row("userinfo", 403, DOWN, &["Host: evil@127.0.0.1:8666", TOKEN]),
    row("own name as userinfo", 403, DOWN, &["Host: 127.0.0.1:8666@evil.example", TOKEN]),
    row("unspecified address", 403, DOWN, &["Host: 0.0.0.0:8666", TOKEN]),
    row("private address", 403, DOWN, &["Host: 192.168.1.5:8666", TOKEN]),
    row("overlay address", 403, DOWN, &["Host: 10.66.0.1:8666", TOKEN]),
    row("decimal address", 403, DOWN, &["Host: 2130706433:8666", TOKEN]),
    row("short address", 403, DOWN, &["Host: 127.1:8666", TOKEN]),
    row("octal address", 403, DOWN, &["Host: 0177.0.0.1:8666", TOKEN]),
    row("mapped IPv6 address", 403, DOWN, &["Host: [::ffff:127.0.0.1]:8666", TOKEN]),
    row("link-local IPv6 address", 403, DOWN, &["Host: [fe80::1]:8666", TOKEN]),
    row("IPv6 address without brackets", 403, DOWN, &["Host: ::1:8666", TOKEN]),
    row("two Hosts", 403, DOWN, &[HOST, "Host: evil.example", TOKEN]),
    row("two equal Hosts", 403, DOWN, &[HOST, HOST, TOKEN]),
    row("Host with a path", 403, DOWN, &["Host: 127.0.0.1:8666/x", TOKEN]),
    row("another host in the request line", 403, "POST http://evil.example/api/v1/down", &[HOST, TOKEN]),
    row("the page under another name", 403, "GET /", &["Host: evil.example"]),
    row("forwarded host does not count", 403, DOWN, &["Host: evil.example", "X-Forwarded-Host: 127.0.0.1:8666", TOKEN]),
    // Origin: cross-site requests
    row("foreign origin", 403, DOWN, &[HOST, "Origin: https://evil.example", TOKEN]),
    row("opaque origin", 403, DOWN, &[HOST, "Origin: null", TOKEN]),
    row("empty origin", 403, DOWN, &[HOST, "Origin:", TOKEN]),
    row("own host over https", 403, DOWN, &[HOST, "Origin: https://{host}", TOKEN]),
    row("own host on another port", 403, DOWN, &[HOST, "Origin: http://127.0.0.1:8667", TOKEN]),
    row("own host without port", 403, DOWN, &[HOST, "Origin: http://127.0.0.1", TOKEN]),
    row("other spelling of loopback", 403, DOWN, &[HOST, "Origin: http://localhost:8666", TOKEN]),
    row("own origin in front of another", 403, DOWN, &[HOST, "Origin: http://{host}.evil.example", TOKEN]),
    row("own origin with userinfo", 403, DOWN, &[HOST, "Origin: http://evil@{host}", TOKEN]),
    row("own origin with a path", 403, DOWN, &[HOST, "Origin: http://{host}/", TOKEN]),
    row("file", 403, DOWN, &[HOST, "Origin: file://", TOKEN]),
    row("browser extension", 403, DOWN, &[HOST, "Origin: chrome-extension://abcdefghijklmnop", TOKEN]),
    row("two origins", 403, DOWN, &[HOST, "Origin: http://{host}", "Origin: https://evil.example", TOKEN]),
    row("cross-site without origin", 403, STATUS, &[HOST, "Sec-Fetch-Site: cross-site", TOKEN]),
    row("same-site without origin", 403, STATUS, &[HOST, "Sec-Fetch-Site: same-site", TOKEN]),
    row("unknown site", 403, STATUS, &[HOST, "Sec-Fetch-Site: elsewhere", TOKEN]),
    row("the page for a foreign origin", 403, "GET /", &[HOST, "Origin: https://evil.example"]),
    // Token
    row("no token", 401, DOWN, &[HOST]),
    row("no token, own origin", 401, DOWN, &[HOST, "Origin: http://{host}"]),
    row("empty token", 401, DOWN, &[HOST, "Authorization: Bearer "]),
    row("wrong token", 401, DOWN, &[HOST, "Authorization: Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    row("token of another install", 401, DOWN, &[HOST, "Authorization: Bearer {other}"]),
    row("token and more", 401, DOWN, &[HOST, "Authorization: Bearer {token}x"]),
    row("another scheme", 401, DOWN, &[HOST, "Authorization: Basic {token}"]),
    row("scheme in small letters", 401, DOWN, &[HOST, "Authorization: bearer {token}"]),
    row("token without scheme", 401, DOWN, &[HOST, "Authorization: {token}"]),
    row("two tokens", 403, DOWN, &[HOST, "Authorization: Bearer wrong", TOKEN]),
    row("token in the address", 401, "POST /api/v1/down?token={token}", &[HOST]),
    row("token as cookie", 401, DOWN, &[HOST, "Cookie: token={token}"]),
    row("token in another header", 401, DOWN, &[HOST, "X-Token: {token}", "Proxy-Authorization: Bearer {token}"]),
    row("reading needs it", 401, STATUS, &[HOST]),
    row("events need it", 401, "GET /api/v1/events", &[HOST]),
    row("metrics need it", 401, "GET /metrics", &[HOST]),
    row("the relay's detail needs it", 401, "GET /api/v1/relay", &[HOST]),
    row("settings need it", 401, "GET /api/v1/settings", &[HOST]),
    row("changing settings needs it", 401, "POST /api/v1/settings", &[HOST, JSON]),
    row("the description needs it", 401, "GET /api/v1/openapi.json", &[HOST]),
    row("games need it", 401, "GET /api/v1/games", &[HOST]),
    row("who shares mods needs it", 401, "GET /api/v1/mods", &[HOST]),
    row("the log needs it", 401, "GET /api/v1/log", &[HOST]),
    row("the support bundle needs it", 401, "GET /api/v1/bundle", &[HOST]),
    row("taking devices in needs it", 401, "POST /api/v1/gateway/add", &[HOST, JSON]),
    row("what does not exist needs it", 401, "GET /api/v1/nothing", &[HOST]),
    row("the version in front needs it", 401, "GET /api", &[HOST]),
    // Methods, upgrades, preflights
    row("preflight", 403, "OPTIONS /api/v1/down", &[HOST, "Origin: https://evil.example", "Access-Control-Request-Method: POST"]),
    row("preflight for a private network", 403, "OPTIONS /api/v1/down", &[HOST, "Origin: https://evil.example", "Access-Control-Request-Method: POST", "Access-Control-Request-Private-Network: true"]),
    row("preflight without origin", 401, "OPTIONS /api/v1/down", &[HOST, "Access-Control-Request-Method: POST"]),
    row("GET for a command", 405, "GET /api/v1/down", &[HOST, TOKEN]),
    row("HEAD for a command", 405, "HEAD /api/v1/down", &[HOST, TOKEN]),
    row("PUT", 405, "PUT /api/v1/down", &[HOST, TOKEN]),
    row("DELETE", 405, "DELETE /api/v1/party", &[HOST, TOKEN]),
    row("method override", 405, "GET /api/v1/down", &[HOST, "X-HTTP-Method-Override: POST", TOKEN]),
    row("TRACE", 405, "TRACE /api/v1/status", &[HOST, TOKEN]),
    row("CONNECT", 403, "CONNECT evil.example:443", &[HOST, TOKEN]),
    row("POST to the page", 404, "POST /", &[HOST]),
    row("web socket of a foreign page", 403, "GET /api/v1/events", &[HOST, "Origin: https://evil.example", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", TOKEN]),
    row("web socket with the token as protocol", 401, "GET /api/v1/events", &[HOST, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: {token}"]),
    row("event source of a foreign page", 403, "GET /api/v1/events", &[HOST, "Origin: https://evil.example", "Accept: text/event-stream", "Sec-Fetch-Site: cross-site", TOKEN]),
    row("event source of a foreign page without origin", 403, "GET /api/v1/events", &[HOST, "Accept: text/event-stream", "Sec-Fetch-Site: cross-site", TOKEN]),
    row("only the Unix socket tells the token", 404, "POST /api/v1/ui", &[HOST, TOKEN]),
    // Paths
    row("path upwards", 404, "GET /../state/ui-token", &[HOST]),
    row("path upwards, encoded", 404, "GET /..%2f..%2fetc/passwd", &[HOST]),
    row("path upwards, encoded twice", 404, "GET /%252e%252e/%252e%252e/etc/passwd", &[HOST]),
    row("path upwards from assets", 404, "GET /assets/../../../../../etc/passwd", &[HOST]),
    row("path with backslashes", 404, "GET /..\\..\\etc\\passwd", &[HOST]),
    row("path with a NUL", 404, "GET /index.html%00.js", &[HOST]),
    row("absolute path", 404, "GET //etc/passwd", &[HOST]),
    row("doubled slash in front of the API", 404, "POST //api/v1/down", &[HOST]),
    row("encoded letter of the API", 404, "POST /%61pi/v1/down", &[HOST]),
    row("API in capitals", 404, "POST /API/v1/down", &[HOST]),
    row("API by way of a page", 404, "POST /assets/../api/v1/down", &[HOST]),
    row("slash behind a command", 404, "POST /api/v1/down/", &[HOST, TOKEN]),
    row("another version", 404, "POST /api/v2/down", &[HOST, TOKEN]),
    // Bodies
    body("form", 415, JOIN, &[HOST, TOKEN, "Content-Type: application/x-www-form-urlencoded"]),
    body("plain text", 415, JOIN, &[HOST, TOKEN, "Content-Type: text/plain"]),
    body("multipart", 415, JOIN, &[HOST, TOKEN, "Content-Type: multipart/form-data; boundary=x"]),
    body("no type", 415, JOIN, &[HOST, TOKEN]),
    body("JSON by name only", 415, JOIN, &[HOST, TOKEN, "Content-Type: text/json"]),
    body("simple request of a foreign form", 403, JOIN, &[HOST, TOKEN, "Origin: https://evil.example", "Content-Type: text/plain"]),
    body("half an object", 400, "{\"invite\":", &[HOST, TOKEN, JSON]),
    body("another type", 422, "[]", &[HOST, TOKEN, JSON]),
    body("unknown field", 422, "{\"invite\":\"x\",\"admin\":true}", &[HOST, TOKEN, JSON]),
    body("doubled field", 422, "{\"invite\":\"x\",\"invite\":\"y\"}", &[HOST, TOKEN, JSON]),
    body("not a link", 400, "{\"invite\":\"javascript:alert(1)\"}", &[HOST, TOKEN, JSON]),
    body("nothing", 400, "", &[HOST, TOKEN, JSON]),
    // Settings that would open the door
    setting("listening elsewhere", "{\"changes\":{\"ui\":\"0.0.0.0:8666\"}}"),
    setting("listening for others", "{\"changes\":{\"ui_allow_remote\":true}}"),
    setting("another state directory", "{\"changes\":{\"state_dir\":\"/tmp\"}}"),
    setting("another interface", "{\"changes\":{\"peer.interface\":\"x; id\"}}"),
    setting("a line of its own in the file", "{\"changes\":{\"peer.name\":\"x\\nui = 1\"}}"),
    setting("another section in the key", "{\"changes\":{\"peer.name]\\n[x\":\"x\"}}"),
    body("chunks and a length", 400, "0\r\n\r\n", &[HOST, TOKEN, JSON, "Transfer-Encoding: chunked"]),
];

impl Row {
    fn text(&self, token: &str, other: &str) -> String {
        let length = match self.line.starts_with("POST") {
            true => format!("Content-Length: {}\r\n", self.body.len()),
            false => String::new(),
        };
        let headers: String = self.headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!("{} HTTP/1.1\r\n{headers}{length}Connection: close\r\n\r\n", self.line);
        let head = head.replace("{host}", UI).replace("{token}", token).replace("{other}", other);
        head + self.body
    }
}

/// A peer's loopback listener, from inside its machine.
struct Listener<'a> {
    lab: &'a TestLab,
    token: String,
}

impl Listener<'_> {
    fn connect(&self) -> TcpStream {
        let stream = self
            .lab
            .namespace(Role::Peer(1))
            .run(|| TcpStream::connect(UI))
            .unwrap()
            .expect("the listener is there");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request as it is; what comes back until the other side hangs up.
    fn send(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // A refusal may come, and the connection end, before all is sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                panic!("no end of the answer: {error}")
            }
            _ => String::from_utf8_lossy(&answer).into_owned(),
        }
    }

    fn read(&self, line: &str) -> String {
        let answer = self.send(
            row("", 200, "{line}", &[HOST, TOKEN]).text(&self.token, "").replace("{line}", line).as_bytes(),
        );
        assert_eq!(code(&answer), 200, "{line}: {answer}");
        answer
    }
}

fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn token(lab: &TestLab, role: Role) -> String {
    let text = lab.lanrage_output(role, &["ui", "--json"]).unwrap();
    let answer: UiAnswer = serde_json::from_str(&text).unwrap();
    answer.url.split_once("token=").unwrap().1.to_owned()
}

/// What refused requests must not change.
fn standing(status: &Status) -> (bool, Option<(String, usize)>) {
    (status.up, status.party.as_ref().map(|party| (party.name.clone(), party.members.len())))
}

#[test]
fn everything_but_the_page_itself_is_refused() {
    let mut lab = TestLab::up("api", &[Eim]);
    let link = lab.form_party().and_then(|()| lab.invite(Role::Peer(1), &[])).unwrap();
    let listener = Listener { lab: &lab, token: token(&lab, Role::Peer(1)) };
    let before = standing(&lab.daemon_status(Role::Peer(1)).unwrap());
    assert!(before.0 && before.1.is_some(), "{before:?}");

    rows_are_refused(&listener, &token(&lab, Role::Control));
    every_described_request_is_guarded(&listener, &token(&lab, Role::Control));
    long_and_slow_bodies_end(&listener);
    pages_carry_a_policy(&listener);
    assert_eq!(
        standing(&lab.daemon_status(Role::Peer(1)).unwrap()),
        before,
        "refused requests had an effect"
    );

    reads_hold_no_secrets(&listener, &link);
    // The same request that all rows spoil does something when it is right.
    listener.read(DOWN);
    assert!(!lab.daemon_status(Role::Peer(1)).unwrap().up);
}

fn rows_are_refused(listener: &Listener<'_>, other: &str) {
    assert!(ROWS.len() >= 60);
    let mut wrong = String::new();
    for row in ROWS {
        let answer = listener.send(row.text(&listener.token, other).as_bytes());
        let refused = code(&answer) == row.status || (row.status == 400 && answer.is_empty());
        if !refused || answer.to_lowercase().contains("access-control-") || answer.contains(&listener.token) {
            wrong += &format!("{}: wanted {}, got\n{answer}\n", row.what, row.status);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What nobody may do with any request: what is changed about it, and the answer. `{line}` is the right one.
#[rustfmt::skip]
const FAULTS: &[(&str, u16, &str, &[&str])] = &[
    ("no Host", 403, "{line}", &[TOKEN, JSON]),
    ("a foreign Host", 403, "{line}", &["Host: evil.example:8666", TOKEN, JSON]),
    ("a foreign origin", 403, "{line}", &[HOST, "Origin: https://evil.example", TOKEN, JSON]),
    ("an opaque origin", 403, "{line}", &[HOST, "Origin: null", TOKEN, JSON]),
    ("another site", 403, "{line}", &[HOST, "Sec-Fetch-Site: cross-site", TOKEN, JSON]),
    ("no token", 401, "{line}", &[HOST, JSON]),
    ("a wrong token", 401, "{line}", &[HOST, "Authorization: Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", JSON]),
    ("another install's token", 401, "{line}", &[HOST, "Authorization: Bearer {other}", JSON]),
    ("the token in the address", 401, "{line}?token={token}", &[HOST, JSON]),
    ("another method", 405, "DELETE {path}", &[HOST, TOKEN, JSON]),
    ("another method of others", 401, "PUT {path}", &[HOST, JSON]),
];

/// Requests with a body, each with everything right but that: its length, its type, and the answer.
const BODY_FAULTS: &[(usize, &str, u16)] = &[
    (2, "text/plain", 415),
    (2, "application/x-www-form-urlencoded", 415),
    (100_000, "application/json", 413),
];

/// All faults with all requests that the daemon describes; a unit test holds the description against the routes.
fn every_described_request_is_guarded(listener: &Listener<'_>, other: &str) {
    let answer = listener.read("GET /api/v1/openapi.json");
    let document: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let (mut wrong, mut rows) = (String::new(), 0);
    let mut check = |what: String, request: String, status: u16| {
        rows += 1;
        let answer = listener.send(request.as_bytes());
        if code(&answer) != status || answer.contains(&listener.token) {
            wrong += &format!("{what}: wanted {status}, got\n{answer}\n");
        }
    };
    for (path, methods) in document["paths"].as_object().unwrap() {
        let is_local = ["/api/v1/ui", "/api/v1/run"].contains(&path.as_str());
        for (method, about) in methods.as_object().unwrap() {
            let right = format!("{} {path}", method.to_uppercase());
            let fill = |text: &str| text.replace("{line}", &right).replace("{path}", path);
            if is_local {
                let request = row("", 404, "{line}", &[HOST, TOKEN, JSON]).text(&listener.token, other);
                check(format!("{right} is for the Unix socket alone"), fill(&request), 404);
                continue;
            }
            for &(what, status, line, headers) in FAULTS {
                let request = row("", status, line, headers).text(&listener.token, other);
                let length = if method == "post" { "Content-Length: 0\r\n" } else { "" };
                let request =
                    fill(&request).replace("Connection: close", &format!("{length}Connection: close"));
                check(format!("{right} with {what}"), request, status);
            }
            for &(length, kind, status) in BODY_FAULTS.iter().filter(|_| about.get("requestBody").is_some()) {
                let head = format!("Content-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close");
                let request = row("", status, "{line}", &[HOST, TOKEN]).text(&listener.token, other);
                let request = fill(&request).replace("Connection: close", &head) + &"[".repeat(length);
                check(format!("{right} with {length} bytes of {kind}"), request, status);
            }
        }
    }
    assert!(rows >= 250, "only {rows} rows: is the description whole?");
    assert!(wrong.is_empty(), "{wrong}");
    println!("{rows} rows from the description");
}

fn long_and_slow_bodies_end(listener: &Listener<'_>) {
    let head = |length: usize| {
        row("", 0, "POST /api/v1/party/join", &[HOST, TOKEN, JSON])
            .text(&listener.token, "")
            .replace("Content-Length: 0", &format!("Content-Length: {length}"))
    };
    let long = format!("{}{{\"invite\":\"{}\"}}", head(100_013), "x".repeat(100_000));
    assert_eq!(code(&listener.send(long.as_bytes())), 413, "a long body");
    let chunked = head(0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let endless = format!("{chunked}{}", format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(4));
    assert_eq!(code(&listener.send(endless.as_bytes())), 413, "chunks without end");
    let header = format!("GET / HTTP/1.1\r\nHost: {UI}\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert!(!(200..400).contains(&code(&listener.send(header.as_bytes()))), "a long header");
    assert_eq!(code(&listener.send(format!("{}{{", head(50)).as_bytes())), 408, "a body that does not come");
}

fn pages_carry_a_policy(listener: &Listener<'_>) {
    for (line, status) in [("GET /", 200), ("GET /nothing.js", 404), (STATUS, 401)] {
        let answer =
            listener.send(row("", 0, "{line}", &[HOST]).text("", "").replace("{line}", line).as_bytes());
        assert_eq!(code(&answer), status, "{line}");
        let head = answer.split("\r\n\r\n").next().unwrap().to_lowercase();
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cross-origin-opener-policy: same-origin",
            "cache-control: no-",
        ] {
            assert!(head.contains(header), "{line} lacks {header}:\n{head}");
        }
        assert!(!head.contains("unsafe") && !head.contains("set-cookie"), "{head}");
    }
}

/// What opens or impersonates something, in every spelling in which it could leak.
fn secrets(lab: &TestLab, link: &str) -> Vec<String> {
    let state = lab.socket(Role::Peer(1)).with_file_name("state");
    let device = std::fs::read(state.join("device.key")).unwrap();
    assert_eq!(device.len(), 64);
    let spell = |bytes: &[u8]| {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        [hex, URL_SAFE_NO_PAD.encode(bytes), STANDARD.encode(bytes)]
    };
    let mut secrets: Vec<String> = device.chunks(32).flat_map(spell).collect();
    let party: serde_json::Value =
        serde_json::from_slice(&std::fs::read(state.join("party.json")).unwrap()).unwrap();
    let secret = URL_SAFE_NO_PAD.decode(party["secret"].as_str().unwrap()).unwrap();
    secrets.extend(spell(&secret));
    let tickets = party["tickets"].as_object().unwrap().values();
    secrets.extend(tickets.flat_map(|ticket| {
        [&ticket["ticket"], &ticket["session_key"]].map(|text| text.as_str().unwrap().to_owned())
    }));
    secrets.push(std::fs::read_to_string(state.join("ui-token")).unwrap());
    let (code, fragment) = link.split_once("/j/").and_then(|(_, rest)| rest.split_once('#')).unwrap();
    secrets.extend([code.to_owned(), fragment.to_owned()]);
    secrets
}

const READS: [&str; 10] = [
    STATUS,
    "GET /metrics",
    "GET /api/v1/settings",
    "GET /api/v1/games",
    "GET /api/v1/mods",
    "GET /api/v1/openapi.json",
    "GET /api/v1/log",
    "GET /api/v1/bundle",
    "POST /api/v1/doctor",
    "POST /api/v1/netcheck",
];

fn reads_hold_no_secrets(listener: &Listener<'_>, link: &str) {
    let secrets = secrets(listener.lab, link);
    assert!(secrets.len() >= 12 && secrets.iter().all(|secret| secret.len() >= 20), "{secrets:?}");
    let mut reads: Vec<String> = READS.map(|line| listener.read(line)).into();
    reads.push(first_event(listener));
    for read in &reads {
        let leaked: Vec<_> = secrets.iter().filter(|secret| read.contains(*secret)).collect();
        assert!(leaked.is_empty(), "{leaked:?} in {read}");
    }
}

fn first_event(listener: &Listener<'_>) -> String {
    let mut stream = listener.connect();
    stream
        .write_all(row("", 0, "GET /api/v1/events", &[HOST, TOKEN]).text(&listener.token, "").as_bytes())
        .unwrap();
    let (mut event, mut piece) = (String::new(), [0; 4096]);
    while !event.contains("data: {") || !event.ends_with("\n\n\r\n") {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the event stream ended: {event}");
        event += &String::from_utf8_lossy(&piece[..read]);
    }
    event
}
