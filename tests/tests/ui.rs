//! The web UI as people see it: Debian's Chromium in a peer's network, against the daemons of a lab. Needs root,
//! Chromium and the packages of `web/`; `cargo xtask setup` brings them.
//!
//! The stories are in `web/browser`; screenshots of every page go to `target/ui`.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_tests::lab::nat::NatKind::Symmetric;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::story;
use support::TestLab;

#[test]
fn the_page_works_from_first_run_to_support() {
    let mut lab = TestLab::up("ui", &[Symmetric, Symmetric, Symmetric]);
    for (role, name) in [
        (Role::Peer(1), "party.test"),
        (Role::Relay, "relay.test"),
        (Role::Peer(3), "join.test"),
        (Role::Peer(1), "outage.test"),
    ] {
        story::play(&mut lab, role, name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}
