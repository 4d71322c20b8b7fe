//! Mods from one member to the other, through the tunnel. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;
use support::TestLab;

/// `lanrage mods share`, until the test ends.
struct Sharing(Child);

impl Drop for Sharing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn share(lab: &TestLab, n: u8, folder: &Path) -> Sharing {
    let mut command = lab.lanrage(Role::Peer(n), &["mods", "share", folder.to_str().unwrap()]).unwrap();
    Sharing(lab.namespace(Role::Peer(n)).spawn(&mut command).unwrap())
}

/// Runs `lanrage mods` where the peer's network is, whatever comes of it.
fn mods(lab: &TestLab, n: u8, arguments: &[&str]) -> (i32, String) {
    let mut command = lab.lanrage(Role::Peer(n), &[&["mods"], arguments].concat()).unwrap();
    let output = lab.namespace(Role::Peer(n)).run(|| command.output().unwrap()).unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

#[test]
fn mods_cross_the_party_and_are_compared() {
    let lab = TestLab::party("mods", &[Eim, Eim]);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (from.path(), to.path().join("made"));
    let big: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::create_dir(from.join("maps")).unwrap();
    fs::write(from.join("maps/dm1.pk3"), &big).unwrap();
    fs::write(from.join("server.cfg"), "seta sv_hostname friday").unwrap();

    let host = &*lab.member(2, 1).unwrap().name;
    let ask =
        |what: &str, rest: &[&str]| mods(&lab, 2, &[&[what, host, to.to_str().unwrap()], rest].concat());
    let (code, text) = ask("get", &[]);
    assert!(code == 1 && text.contains("shares no mods"), "{text}");

    let sharing = share(&lab, 1, from);
    let listed = || mods(&lab, 2, &["list", "--json"]).1.contains(host);
    assert!(wait_until(Duration::from_secs(20), listed), "it is not listed");
    let (code, text) = ask("get", &[]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(fs::read(to.join("maps/dm1.pk3")).unwrap(), big);
    assert_eq!(ask("check", &[]).0, 0);

    // somebody plays with another configuration: it is named, kept, and replaced only when that is wanted
    fs::write(to.join("server.cfg"), "seta sv_hostname monday").unwrap();
    let (code, text) = ask("check", &["--json"]);
    assert!(code == 1 && text.contains(r#""different":["server.cfg"]"#), "{text}");
    assert_eq!(ask("get", &[]).0, 1);
    assert!(fs::read_to_string(to.join("server.cfg")).unwrap().contains("monday"));
    assert_eq!(ask("get", &["--replace"]).0, 0);
    assert!(fs::read_to_string(to.join("server.cfg")).unwrap().contains("friday"));

    // once it is not shared any more, nobody gets it
    drop(sharing);
    let (code, text) = ask("check", &[]);
    assert!(code == 1 && text.contains("shares no mods"), "{text}");
}
