//! Logins by hand: what an attacker would try.

use crate::support::Server;
use lanrage_common::identity::{Device, domain};
use lanrage_common::protocol::{
    Challenge, ChallengeRequest, ErrorBody, ErrorCode, Login, Session, login_message,
};
use rand_core::OsRng;
use reqwest::StatusCode;
use serde::Serialize;

async fn post(server: &Server, path: &str, body: &impl Serialize) -> reqwest::Response {
    let url = format!("{}{path}", server.origin());
    reqwest::Client::new().post(url).json(body).send().await.unwrap()
}

async fn challenge(server: &Server, device: &Device) -> String {
    let asked = post(server, "/v1/auth/challenge", &ChallengeRequest { device: device.key() }).await;
    asked.json::<Challenge>().await.unwrap().challenge
}

fn login(device: &Device, origin: &str, challenge: &str) -> Login {
    Login {
        device: device.key(),
        wg: device.wg_key(),
        wg_signature: device.wg_signature(),
        challenge: challenge.into(),
        origin: origin.into(),
        signature: device.sign(domain::LOGIN, &login_message(origin, challenge)),
    }
}

async fn refused(server: &Server, login: &Login) -> String {
    let answer = post(server, "/v1/auth", login).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let body: ErrorBody = answer.json().await.unwrap();
    assert_eq!(body.code, ErrorCode::Unauthorized);
    body.message
}

#[tokio::test]
async fn a_challenge_logs_in_once() {
    let server = Server::start().await;
    let device = Device::generate(&mut OsRng);
    let login = login(&device, &server.origin(), &challenge(&server, &device).await);
    let session: Session = post(&server, "/v1/auth", &login).await.json().await.unwrap();
    assert!(session.token.len() >= 43 && session.expires_in > 600);
    assert!(refused(&server, &login).await.contains("used up"), "a replay");
}

#[tokio::test]
async fn a_login_made_for_another_server_is_useless_here() {
    let server = Server::start().await;
    let device = Device::generate(&mut OsRng);
    let evil = "http://evil.example:8667";
    let mut passed_on = login(&device, evil, &challenge(&server, &device).await);
    assert!(refused(&server, &passed_on).await.contains("control.public_url"));
    passed_on.origin = server.origin();
    assert!(refused(&server, &passed_on).await.contains("signature"));
}

#[tokio::test]
async fn the_host_header_does_not_make_an_origin_ours() {
    let server = Server::start().await;
    let device = Device::generate(&mut OsRng);
    let login = login(&device, "http://evil.example:8667", &challenge(&server, &device).await);
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/auth", server.origin()))
        .header("host", "evil.example:8667")
        .header("x-forwarded-host", "evil.example:8667")
        .json(&login)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn forged_keys_challenges_and_tokens_are_refused() {
    let server = Server::start().await;
    let (device, other) = (Device::generate(&mut OsRng), Device::generate(&mut OsRng));
    let origin = server.origin();
    let others = challenge(&server, &other).await;
    refused(&server, &login(&device, &origin, &others)).await;
    refused(&server, &login(&device, &origin, "made up")).await;
    let mut stolen_tunnel = login(&device, &origin, &challenge(&server, &device).await);
    stolen_tunnel.wg = other.wg_key();
    refused(&server, &stolen_tunnel).await;
    for token in ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "eyJhbGciOiJub25lIn0.e30."] {
        let client = reqwest::Client::new();
        let answer =
            client.post(format!("{origin}/v1/parties")).bearer_auth(token).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{token}");
        let answer = client.get(format!("{origin}/v1/ws")).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{token}");
    }
}

#[tokio::test]
async fn failed_logins_run_into_a_limit() {
    let server = Server::start().await;
    let device = Device::generate(&mut OsRng);
    let bad = login(&device, &server.origin(), "made up");
    for _ in 0..20 {
        refused(&server, &bad).await;
    }
    let answer = post(&server, "/v1/auth", &bad).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(answer.json::<ErrorBody>().await.unwrap().code, ErrorCode::RateLimited);
}
