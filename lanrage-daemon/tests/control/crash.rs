//! SIGKILL at random moments: what was acknowledged is there afterwards, and single-use invites stay single-use.

use crate::support::{PATIENCE, Peer, Server, loopback, party_id};
use lanrage_common::protocol::{CreateInvite, ErrorCode, Membership};
use lanrage_daemon::{control, shutdown};
use rand::Rng as _;
use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

const CHILD_DIR: &str = "LANRAGE_TEST_CRASH_DIR";
const ROUNDS: usize = 12;
const HOSTS: usize = 6;

/// The process that is killed: this test binary again, running only this "test", which is a server then.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let (_trigger, shutdown) = shutdown::channel();
    let handle = control::start(&loopback(0), Path::new(&dir), shutdown).await.unwrap();
    eprintln!("{}", handle.local_origin());
    handle.stopped().await;
}

async fn spawn_server(dir: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let origin = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    (child, origin)
}

/// What one client was told before the server died.
#[derive(Default)]
struct Acknowledged {
    founded: Vec<(Peer, Membership)>,
    joins: Vec<(Peer, String, Membership)>,
}

/// Founds a party, then invites and joins until the server is gone. Two devices race for each single-use invite.
async fn write_until_dead(origin: String) -> Acknowledged {
    let mut done = Acknowledged::default();
    let host = Peer::new("Host", &origin);
    let Ok(membership) = host.client.create_party("Crash", None).await else { return done };
    let party = party_id(&membership);
    while let Ok(invite) =
        host.client.create_invite(&party, &CreateInvite { expires_in: None, uses: Some(1) }).await
    {
        let (one, two) = (Peer::new("One", &origin), Peer::new("Two", &origin));
        let (first, second) = tokio::join!(one.client.join(&invite.code), two.client.join(&invite.code));
        assert!(first.is_err() || second.is_err(), "a single-use invite let two devices in");
        done.joins.extend(first.ok().map(|membership| (one, invite.code.clone(), membership)));
        done.joins.extend(second.ok().map(|membership| (two, invite.code, membership)));
    }
    done.founded.push((host, membership));
    done
}

async fn check(server: &Server, round: Acknowledged) -> usize {
    let mut addresses: HashMap<_, Vec<_>> = HashMap::new();
    let count = round.founded.len() + round.joins.len();
    for (peer, membership) in round.founded {
        let client = move_to(server, &peer);
        let (party, wish) = (party_id(&membership), CreateInvite { expires_in: None, uses: None });
        let invite = client.client.create_invite(&party, &wish).await;
        invite.expect("a founded party is there, and the founder is in it");
    }
    for (peer, code, membership) in round.joins {
        let client = move_to(server, &peer);
        assert_eq!(
            client.client.join(&code).await.unwrap(),
            membership,
            "an acknowledged join is remembered"
        );
        let late = server.peer("Late").client.join(&code).await.unwrap_err();
        assert_eq!(late.code(), Some(ErrorCode::InviteUsedUp));
        addresses.entry(party_id(&membership)).or_default().push(membership.address);
    }
    for mut leased in addresses.into_values() {
        let leases = leased.len();
        leased.sort();
        leased.dedup();
        assert_eq!(leased.len(), leases, "no address twice");
    }
    count
}

/// The same device at the restarted server, which has another port.
fn move_to(server: &Server, peer: &Peer) -> Peer {
    let client = control::client::ControlClient::new(&server.origin(), peer.device.clone()).unwrap();
    Peer { name: peer.name.clone(), device: peer.device.clone(), client }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost() {
    let mut dir = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for _ in 0..ROUNDS {
        let (mut child, origin) = spawn_server(dir.path()).await;
        let mut writers = JoinSet::new();
        for _ in 0..HOSTS {
            writers.spawn(write_until_dead(origin.clone()));
        }
        let life = rand::thread_rng().gen_range(20..400);
        tokio::time::sleep(Duration::from_millis(life)).await;
        child.kill().await.unwrap();
        let rounds = writers.join_all().await;
        let server = Server::start_in(dir, 0).await;
        for round in rounds {
            acknowledged += check(&server, round).await;
        }
        dir = server.stop().await;
    }
    assert!(acknowledged > 50, "only {acknowledged} writes were acknowledged: the test does not test");
}
