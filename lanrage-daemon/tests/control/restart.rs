//! What survives the server, and what a start says when it cannot.

use crate::support::{Line, PATIENCE, Server, loopback, party_id};
use lanrage_common::identity::DeviceId;
use lanrage_common::protocol::{CreateInvite, ServerMessage};
use lanrage_daemon::config::ControlConfig;
use lanrage_daemon::control;
use lanrage_daemon::control::client::LinkEvent;
use lanrage_daemon::shutdown;
use std::path::Path;
use tempfile::TempDir;
use tokio::time::timeout;

#[tokio::test]
async fn everything_survives_and_members_come_back_by_themselves() {
    let server = Server::start().await;
    let (host, membership) = server.party().await;
    let party = party_id(&membership);
    let invite =
        host.client.create_invite(&party, &CreateInvite { expires_in: None, uses: Some(2) }).await.unwrap();
    let ana = server.peer("Ana");
    let joined = ana.client.join(&invite.code).await.unwrap();
    let mut line = host.online(&membership).await;
    let (seq, _) = line.snapshot().await;
    let (port, token) = (server.handle.listen.port(), server.handle.relay_token.clone());

    let id = |n: u8| DeviceId([n; 16]);
    let phone = host.client.lease_device(&party, id(1)).await.unwrap();
    let console = host.client.lease_device(&party, id(2)).await.unwrap();
    host.client.release_device(&party, id(2)).await.unwrap();

    let dir = server.stop().await;
    let reason = line.disconnected().await;
    assert!(reason.contains("stopping"), "{reason}");
    let server = Server::start_in(dir, port).await;
    assert_eq!(server.handle.relay_token, token);
    line.connected().await;
    line.send(host.hello(&membership, Some(seq))).await;
    nothing_is_new(&mut line).await;

    let bob = server.peer("Bob");
    assert_eq!(bob.client.join(&invite.code).await.unwrap().address.octets(), [10, 66, 0, 5]);
    assert_eq!(host.client.lease_device(&party, id(1)).await.unwrap(), phone);
    assert_eq!(host.client.lease_device(&party, id(2)).await.unwrap(), console, "kept for it");
    assert!(server.peer("Eve").client.lease_device(&party, id(1)).await.is_err(), "members only");
    assert!(server.peer("Late").client.join(&invite.code).await.is_err(), "uses are remembered");
    assert_eq!(ana.client.join(&invite.code).await.unwrap(), joined);
}

/// A resumed member gets presence and relays, but no snapshot.
async fn nothing_is_new(line: &mut Line) {
    loop {
        match line.event().await {
            LinkEvent::Message(message) => match *message {
                ServerMessage::Relays { .. } => return,
                ServerMessage::Presence { .. } => {}
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

async fn failure(config: &ControlConfig, dir: &Path) -> String {
    let (_trigger, shutdown) = shutdown::channel();
    let result = timeout(PATIENCE, control::start(config, dir, shutdown)).await.unwrap();
    format!("{:#}", result.expect_err("it must not start"))
}

#[tokio::test]
async fn a_start_that_fails_says_what_to_do() {
    let server = Server::start().await;
    let fresh = TempDir::new().unwrap();
    let taken = failure(&loopback(server.handle.listen.port()), fresh.path()).await;
    assert!(taken.contains("is taken") && taken.contains("control.listen"), "{taken}");
    let twice = failure(&loopback(0), server.state()).await;
    assert!(twice.contains("another control server"), "{twice}");

    let foreign = ControlConfig { listen: "192.0.2.1:0".parse().unwrap(), ..loopback(0) };
    let foreign = failure(&foreign, fresh.path()).await;
    assert!(foreign.contains("not an address of this machine"), "{foreign}");
    let url = ControlConfig { public_url: Some("play.example".into()), ..loopback(0) };
    assert!(failure(&url, fresh.path()).await.contains("control.public_url"));
    let subnet = ControlConfig { subnet: "8.8.0.0/16".parse().unwrap(), ..loopback(0) };
    assert!(failure(&subnet, fresh.path()).await.contains("control.subnet"));
    let weak = ControlConfig { relay_token: Some("secret".into()), ..loopback(0) };
    assert!(failure(&weak, fresh.path()).await.contains("control.relay_token"));
}

#[tokio::test]
async fn wrong_databases_are_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("control.db");
    std::fs::write(&database, "this is a diary, not a database. ".repeat(100)).unwrap();
    let diary = failure(&loopback(0), dir.path()).await;
    assert!(diary.contains("is not a LANrage database"), "{diary}");
    assert!(std::fs::read_to_string(&database).unwrap().starts_with("this is a diary"));

    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("control.db")).unwrap();
    let directory = failure(&loopback(0), dir.path()).await;
    assert!(directory.contains("cannot write the database"), "{directory}");
    let under_a_file = dir.path().join("file");
    std::fs::write(&under_a_file, "").unwrap();
    let nowhere = failure(&loopback(0), &under_a_file.join("state")).await;
    assert!(nowhere.contains("state_dir"), "{nowhere}");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let server = Server::start().await;
    let dir = server.stop().await;
    let path = dir.path().join("control.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'from the future', 1, x'00', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;
    let refused = failure(&loopback(0), dir.path()).await;
    assert!(refused.contains("does not fit this version"), "{refused}");
}
