//! Relays: enrolment, the list that members get, tickets.

use crate::support::{Line, PATIENCE, Server, party_id};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lanrage_common::protocol::{
    ClientMessage, ErrorCode, RelayCommand, RelayInfo, RelayLoad, RelayMessage, RelayState, ServerMessage,
};
use lanrage_common::ticket::Ticket;
use lanrage_daemon::control::client::{LinkEvent, RelayLink, connect_relay};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

const KEY: [u8; 32] = [9; 32];

fn register(name: &str) -> RelayMessage {
    let relay = RelayInfo {
        name: name.into(),
        addresses: vec!["192.0.2.7:3478".parse().unwrap()],
        region: "test".into(),
        ..RelayInfo::default()
    };
    RelayMessage::Register { relay, ticket_key: STANDARD.encode(KEY) }
}

async fn event(link: &mut RelayLink) -> LinkEvent<RelayCommand> {
    timeout(PATIENCE, link.events.recv()).await.unwrap().unwrap()
}

async fn registered(server: &Server, name: &str) -> RelayLink {
    let mut link = connect_relay(&server.origin(), &server.handle.relay_token).unwrap();
    assert!(matches!(event(&mut link).await, LinkEvent::Connected));
    link.outgoing.send(register(name)).await.unwrap();
    let LinkEvent::Message(answer) = event(&mut link).await else { panic!("no answer") };
    assert_eq!(*answer, RelayCommand::Registered);
    link
}

async fn relay_names(line: &mut Line) -> Vec<String> {
    line.next(|message| match message {
        ServerMessage::Relays { relays } => Some(relays.into_iter().map(|relay| relay.name).collect()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn members_hear_of_relays_and_get_tickets_that_open() {
    let server = Server::start().await;
    let (host, membership) = server.party().await;
    let mut line = host.online(&membership).await;
    line.snapshot().await;
    assert_eq!(relay_names(&mut line).await, Vec::<String>::new(), "the list follows the snapshot");
    let relay = registered(&server, "one").await;
    assert_eq!(relay_names(&mut line).await, ["one"]);

    let party = party_id(&membership);
    line.send(ClientMessage::Ticket { party, relay: "one".into() }).await;
    let answer = line.next(|message| match message {
        ServerMessage::Ticket { ticket, session_key, expires_in, .. } => {
            Some((ticket, session_key, expires_in))
        }
        _ => None,
    });
    let (ticket, session_key, expires_in) = answer.await;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let opened = Ticket::open(&STANDARD.decode(ticket).unwrap(), &KEY, unix).unwrap();
    assert_eq!(
        (opened.party, opened.member, opened.epoch),
        (party, host.device.wg_key(), membership.party.epoch)
    );
    assert_eq!(STANDARD.encode(opened.session_key), session_key);
    assert!(expires_in <= 600 && opened.expires <= unix + 600);

    line.send(ClientMessage::Ticket { party, relay: "two".into() }).await;
    let error = line.next(|message| match message {
        ServerMessage::Error { error, .. } => Some(error.code),
        _ => None,
    });
    assert_eq!(error.await, ErrorCode::NotFound);
    drop(relay);
    let gone = line.next(|message| match message {
        ServerMessage::RelayGone { relay } => Some(relay),
        _ => None,
    });
    assert_eq!(gone.await, "one", "who holds a ticket hears of it when the relay is not back soon");
}

#[tokio::test]
async fn a_draining_relay_is_told_to_its_users_and_refuses_others() {
    let server = Server::start().await;
    let (host, membership) = server.party().await;
    let mut line = host.online(&membership).await;
    line.snapshot().await;
    let relay = registered(&server, "one").await;
    while relay_names(&mut line).await.is_empty() {}
    let party = party_id(&membership);
    let ask = || ClientMessage::Ticket { party, relay: "one".into() };
    line.send(ask()).await;
    line.next(|message| matches!(message, ServerMessage::Ticket { .. }).then_some(())).await;

    let load = RelayLoad { draining: true, ..RelayLoad::default() };
    relay.outgoing.send(RelayMessage::Heartbeat { load }).await.unwrap();
    let told = line.next(|message| match message {
        ServerMessage::Relay { relay } => Some((relay.name, relay.state)),
        _ => None,
    });
    assert_eq!(told.await, ("one".into(), RelayState::Draining));
    line.send(ask()).await;
    let refused = line.next(|message| match message {
        ServerMessage::Error { error, .. } => Some(error),
        ServerMessage::Ticket { .. } => panic!("a ticket for a relay that is being emptied"),
        _ => None,
    });
    assert!(refused.await.message.contains("choose another"));
}

#[tokio::test]
async fn the_operator_token_is_private_and_needed() {
    let server = Server::start().await;
    let file = server.state().join("relay-token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(file).unwrap(), server.handle.relay_token);
    let mut link = connect_relay(&server.origin(), "wrong-token-wrong-token").unwrap();
    let LinkEvent::Disconnected { reason } = event(&mut link).await else { panic!("let in") };
    assert!(reason.contains("relay.token"), "{reason}");
}

#[tokio::test]
async fn an_unfit_relay_is_told_why() {
    let server = Server::start().await;
    let mut link = connect_relay(&server.origin(), &server.handle.relay_token).unwrap();
    assert!(matches!(event(&mut link).await, LinkEvent::Connected));
    link.outgoing.send(register("")).await.unwrap();
    let LinkEvent::Message(answer) = event(&mut link).await else { panic!("no answer") };
    let RelayCommand::Refused { error } = *answer else { panic!("{answer:?}") };
    assert_eq!(error.code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn a_silent_relay_leaves_the_list() {
    let server = Server::start().await;
    let relay = registered(&server, "mute").await;
    let start = Instant::now();
    while server.handle.view().status().unwrap().relays == 1 {
        assert!(start.elapsed() < Duration::from_secs(24), "heartbeats stopped long ago");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() > Duration::from_secs(14), "dropped too early");
    drop(relay);
}

#[tokio::test]
async fn a_stopping_server_lets_its_relays_go() {
    let server = Server::start().await;
    let mut relay = registered(&server, "one").await;
    server.stop().await;
    assert!(matches!(event(&mut relay).await, LinkEvent::Disconnected { .. }));
}
