//! The web UI as people see it: Debian's Chromium in a peer's network, against the daemons of a lab. Needs root,
//! Chromium and the packages of `web/`; `cargo xtask setup` brings them.
//!
//! The stories are in `web/browser`; screenshots of every page go to `target/ui`.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_tests::lab::nat::NatKind::Symmetric;
use lanrage_tests::lab::process::program;
use lanrage_tests::lab::role::Role;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::TestLab;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Runs a story in the network of `role`, where its daemon's page is on loopback.
fn play(lab: &TestLab, role: Role, story: &str) {
    let shots = repository().join("target/ui");
    std::fs::create_dir_all(&shots).unwrap();
    let roles = [Role::Peer(1), Role::Peer(2), Role::Peer(3), Role::Relay];
    let sockets = roles.map(|role| (role.to_string(), lab.socket(role)));
    let networks =
        [1, 2, 3].map(|n| (Role::Peer(n).to_string(), lab.namespace(Role::Peer(n)).name().to_owned()));
    let about = serde_json::json!({
        "lanrage": program("lanrage").unwrap(),
        "sockets": std::collections::BTreeMap::from(sockets),
        "networks": std::collections::BTreeMap::from(networks),
        "shots": shots,
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), about.to_string()).unwrap();
    let web = repository().join("web");
    let mut vitest = Command::new(web.join("node_modules/.bin/vitest"));
    vitest.args(["run", "--config", "vitest.browser.config.ts", story]).current_dir(&web);
    vitest.env("LANRAGE_UI_LAB", file.path()).env("NO_COLOR", "1");
    let status = lab.namespace(role).spawn(&mut vitest).unwrap().wait().unwrap();
    assert!(status.success(), "{story}: see above; screenshots are in {}", shots.display());
}

#[test]
fn the_page_works_from_first_run_to_support() {
    let lab = TestLab::up("ui", &[Symmetric, Symmetric, Symmetric]);
    play(&lab, Role::Peer(1), "party");
    play(&lab, Role::Relay, "relay");
}
