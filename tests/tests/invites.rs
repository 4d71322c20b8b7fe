//! Invites that must not work, and what people read then; and the first friend, who finds the game that was there before.
//! Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use support::TestLab;
use support::game::{exactly, game};

/// Of a game whose announcements are so far apart.
const ANNOUNCED: u16 = 30_400;
const RARELY: Duration = Duration::from_secs(15);

/// What `lanrage party join` complains about; it must fail.
fn refusal(lab: &TestLab, n: u8, link: &str) -> String {
    let output = lab.try_lanrage(n, &["party", "join", link]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "joining did not fail as it should: {output:?}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn is_in_party(lab: &TestLab, n: u8) -> bool {
    lab.daemon_status(Role::Peer(n)).unwrap().party.is_some()
}

#[test]
fn bad_invites_are_refused_with_a_reason() {
    let lab = TestLab::up("inv", &[Eim, Eim, Eim]);
    lab.lanrage_output(Role::Peer(1), &["party", "create", "Friday"]).unwrap();
    let (short, made) = (lab.invite(Role::Peer(1), &["--expires", "60s"]).unwrap(), Instant::now());
    let host = game(&lab.namespace(Role::Peer(1)), 4060);
    let announce = || host.send_to(b"a world", (Ipv4Addr::BROADCAST, ANNOUNCED)).unwrap();
    announce();

    // Somebody changed the secret on the way: no member believes the joiner, the joiner believes no member.
    let tampered = tamper_secret(&lab.invite(Role::Peer(1), &[]).unwrap());
    let text = refusal(&lab, 3, &tampered);
    assert!(text.contains("secret") || text.contains("damaged"), "{text}");
    assert!(!is_in_party(&lab, 3));

    let cut = tampered.split('#').next().unwrap();
    let text = refusal(&lab, 3, cut);
    assert!(text.contains('#'), "{text}");

    let once = lab.invite(Role::Peer(1), &["--uses", "1"]).unwrap();
    // the founder has announced a game while nobody was there; the first friend hears it once, and not 15 s later
    let client = game(&lab.namespace(Role::Peer(2)), ANNOUNCED);
    std::thread::sleep(RARELY.saturating_sub(made.elapsed()));
    announce();
    lab.lanrage_output(Role::Peer(2), &["party", "join", &once]).unwrap();
    let lane = || lab.daemon_status(Role::Peer(1)).unwrap().party.unwrap().lane;
    assert!(wait_until(RARELY, || lane().replayed > 0), "{:?}", lane());
    exactly(&client, b"a world", (Ipv4Addr::new(10, 66, 0, 1), 4060));
    let text = refusal(&lab, 3, &once);
    assert!(text.contains("used"), "{text}");
    assert!(!is_in_party(&lab, 3));

    let revoked = lab.invite(Role::Peer(1), &[]).unwrap();
    lab.lanrage_output(Role::Peer(2), &["invite", "--revoke", &revoked]).unwrap();
    let text = refusal(&lab, 3, &revoked);
    assert!(text.contains("taken back") || text.contains("revoked"), "{text}");

    std::thread::sleep(Duration::from_secs(62).saturating_sub(made.elapsed()));
    let text = refusal(&lab, 3, &short);
    assert!(text.contains("expired") || text.contains("past"), "{text}");
    assert!(!is_in_party(&lab, 3));

    // A good one still works after all that.
    let good = lab.invite(Role::Peer(1), &[]).unwrap();
    lab.lanrage_output(Role::Peer(3), &["party", "join", &good]).unwrap();
    assert!(is_in_party(&lab, 3));
}

/// Another letter in the first half of the fragment, which holds the secret.
fn tamper_secret(link: &str) -> String {
    let at = link.find('#').unwrap() + 5;
    let other = if link.as_bytes()[at] == b'A' { "B" } else { "A" };
    let mut link = link.to_owned();
    link.replace_range(at..=at, other);
    link
}
