//! Malformed, oversized, slow and hostile clients.

use crate::support::{PATIENCE, Server, party_id};
use futures_util::{SinkExt as _, StreamExt as _};
use lanrage_common::protocol::{
    ClientMessage, CreateInvite, ErrorBody, ErrorCode, MAX_MESSAGE, Membership, ServerMessage,
};
use rand::Rng as _;
use reqwest::{Method, StatusCode};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::Peer;

async fn error_of(answer: reqwest::Response) -> (StatusCode, ErrorCode) {
    let status = answer.status();
    let body: ErrorBody = answer.json().await.expect("every refusal explains itself");
    assert!(!body.message.is_empty());
    (status, body.code)
}

async fn healthy(server: &Server) {
    let answer = reqwest::get(format!("{}/healthz", server.origin())).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok\n");
}

/// A bearer token, taken by hand.
async fn token(server: &Server, peer: &Peer) -> String {
    use lanrage_common::identity::domain;
    use lanrage_common::protocol::{Challenge, ChallengeRequest, Login, Session, login_message};
    let (http, origin, device) = (reqwest::Client::new(), server.origin(), &peer.device);
    let ask = ChallengeRequest { device: device.key() };
    let asked = http.post(format!("{origin}/v1/auth/challenge")).json(&ask).send().await.unwrap();
    let Challenge { challenge } = asked.json().await.unwrap();
    let login = Login {
        device: device.key(),
        wg: device.wg_key(),
        wg_signature: device.wg_signature(),
        signature: device.sign(domain::LOGIN, &login_message(&origin, &challenge)),
        challenge,
        origin: origin.clone(),
    };
    let granted = http.post(format!("{origin}/v1/auth")).json(&login).send().await.unwrap();
    granted.json::<Session>().await.unwrap().token
}

/// A WebSocket without our client's manners; a small receive window when `narrow`.
async fn raw_socket(server: &Server, token: &str, narrow: bool) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    if narrow {
        socket.set_recv_buffer_size(4096).unwrap();
    }
    let stream = socket.connect(server.handle.listen).await.unwrap();
    let mut request = format!("ws://{}/v1/ws", server.handle.listen).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    client_async(request, stream).await.unwrap().0
}

#[tokio::test]
async fn wrong_requests_are_refused_as_json() {
    let server = Server::start().await;
    let token = token(&server, &server.peer("Ana")).await;
    let (http, origin) = (reqwest::Client::new(), server.origin());
    let send = async |method: Method, path: &str, body: String| {
        let request = http.request(method, format!("{origin}{path}")).bearer_auth(&token).body(body);
        error_of(request.send().await.unwrap()).await
    };
    let bad = (StatusCode::BAD_REQUEST, ErrorCode::BadRequest);
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"name\":1}",
        "{\"name\":\"a\",\"extra\":1}",
        "\u{0}",
        "{\"name\":\"\\ud800\"}",
    ] {
        assert_eq!(send(Method::POST, "/v1/parties", body.into()).await, bad, "{body}");
    }
    let deep = "[".repeat(10_000);
    assert_eq!(send(Method::POST, "/v1/join", deep).await, bad);
    let large = (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest);
    assert_eq!(send(Method::POST, "/v1/join", " ".repeat(20_000)).await, large);
    assert_eq!(send(Method::POST, "/v1/parties/nonsense/invites", "{}".into()).await, bad);
    let lost = (StatusCode::NOT_FOUND, ErrorCode::NotFound);
    assert_eq!(send(Method::GET, "/v2/anything", String::new()).await, lost);
    assert_eq!(send(Method::GET, "/j/short", String::new()).await, lost);
    assert_eq!(send(Method::POST, "/v1/parties/AAAAAAAAAAAAAAAAAAAAAA/invites", "{}".into()).await, lost);
    let method = (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest);
    assert_eq!(send(Method::GET, "/v1/join", String::new()).await, method);
    assert_eq!(send(Method::GET, "/v1/ws", String::new()).await, bad);
    assert_eq!(send(Method::DELETE, "/v1/parties/%ff/members/me", String::new()).await, bad);
    healthy(&server).await;
}

#[tokio::test]
async fn the_landing_page_is_the_same_for_every_code_and_locked_down() {
    let server = Server::start().await;
    let page = reqwest::get(format!("{}/j/AAAAAAAAAAAAAAAAAAAAAA", server.origin())).await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe-inline"));
    assert_eq!(page.headers()["referrer-policy"], "no-referrer");
    assert!(page.text().await.unwrap().contains("lanrage join"));
}

#[tokio::test]
async fn garbage_on_the_websocket_gets_an_error_or_a_goodbye() {
    let server = Server::start().await;
    let token = token(&server, &server.peer("Ana")).await;
    let mut socket = raw_socket(&server, &token, false).await;
    let wrong = ["", "{", "null", "{\"type\":\"snapshot\"}", "{\"type\":\"hello\"}", "\u{1F3AE}"];
    for text in wrong {
        socket.send(Message::text(text)).await.unwrap();
        let answer = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        let message: ServerMessage = serde_json::from_str(answer.to_text().unwrap()).unwrap();
        assert!(
            matches!(message, ServerMessage::Error { party: None, error } if error.code == ErrorCode::BadRequest)
        );
    }
    socket.send(Message::binary(vec![0, 159])).await.unwrap();
    let answer = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(answer.to_text().unwrap().contains("bad_request"));

    socket.send(Message::text("x".repeat(MAX_MESSAGE + 1))).await.unwrap();
    let end = timeout(PATIENCE, async {
        while let Some(Ok(message)) = socket.next().await {
            assert!(!message.is_text(), "an oversized message must not be answered: {message:?}");
        }
    });
    end.await.expect("an oversized message ends the connection");
    healthy(&server).await;
}

#[tokio::test]
async fn random_bytes_do_no_harm() {
    let server = Server::start().await;
    for _ in 0..100 {
        let mut stream = TcpStream::connect(server.handle.listen).await.unwrap();
        let length = rand::thread_rng().gen_range(1..2000);
        let bytes: Vec<u8> = (0..length).map(|_| rand::thread_rng().r#gen()).collect();
        // the server may hang up in the middle
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() < 1024);
    }
    healthy(&server).await;
}

#[tokio::test]
async fn many_half_open_requests_do_not_keep_others_out() {
    let server = Server::start().await;
    let mut half_open = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(server.handle.listen).await.unwrap();
        stream.write_all(b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
        half_open.push(stream);
    }
    let start = Instant::now();
    healthy(&server).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    drop(half_open);
}

#[tokio::test]
async fn guessing_invite_codes_meets_a_limit() {
    let server = Server::start().await;
    let ana = server.peer("Ana");
    let mut codes = Vec::new();
    for n in 0..12 {
        codes
            .push(ana.client.join(&format!("AAAAAAAAAAAAAAAAAAAA{n:02}")).await.unwrap_err().code().unwrap());
    }
    assert_eq!(codes[..10], [ErrorCode::NotFound; 10]);
    assert_eq!(codes[10..], [ErrorCode::RateLimited; 2]);
}

/// Members of one party: the host, and another one.
async fn pair(server: &Server) -> (Peer, Membership, Peer, Membership) {
    let (host, membership) = server.party().await;
    let wish = CreateInvite { expires_in: None, uses: None };
    let invite = host.client.create_invite(&party_id(&membership), &wish).await.unwrap();
    let ana = server.peer("Ana");
    let joined = ana.client.join(&invite.code).await.unwrap();
    (host, membership, ana, joined)
}

#[tokio::test]
async fn a_member_that_does_not_read_is_cut_off_and_nobody_waits_for_it() {
    let server = Server::start().await;
    let (host, membership, ana, joined) = pair(&server).await;
    let token = token(&server, &ana).await;
    let mut stuck = raw_socket(&server, &token, true).await;
    let hello = serde_json::to_string(&ana.hello(&joined, None)).unwrap();
    stuck.send(Message::text(hello)).await.unwrap();
    timeout(PATIENCE, stuck.next()).await.unwrap().unwrap().unwrap();

    let mut line = host.online(&membership).await;
    line.snapshot().await;
    let (party, to) = (party_id(&membership), ana.device.wg_key());
    for _ in 0..500 {
        line.send(ClientMessage::Signal { party, to, body: "A".repeat(5400) }).await;
    }
    let gone = line.next(|message| match message {
        ServerMessage::Presence { device, online: false, .. } => Some(device),
        _ => None,
    });
    let start = Instant::now();
    assert_eq!(gone.await, ana.device.key());
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(server.metrics().await.contains("slow_clients_total 1"));
    assert_eq!(server.handle.view().status().unwrap().online, 1);
    drop(stuck);
}

#[tokio::test]
async fn a_member_that_floods_is_told_and_then_ended() {
    let server = Server::start().await;
    let (_, _, ana, joined) = pair(&server).await;
    let token = token(&server, &ana).await;
    let (mut sink, mut stream) = raw_socket(&server, &token, false).await.split();
    let message =
        serde_json::to_string(&ClientMessage::Ticket { party: party_id(&joined), relay: "x".into() })
            .unwrap();
    tokio::spawn(async move { while sink.send(Message::text(message.clone())).await.is_ok() {} });
    let mut limited = 0;
    let end = timeout(PATIENCE, async {
        while let Some(Ok(message)) = stream.next().await {
            limited += u32::from(message.to_text().is_ok_and(|text| text.contains("rate_limited")));
        }
    });
    end.await.expect("the connection ends");
    assert!(limited >= 1);
    healthy(&server).await;
}
