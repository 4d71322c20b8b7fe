//! The lab's own command line: what it prints, and that it leaves nothing behind. Needs root.
#![allow(clippy::unwrap_used)]

use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::{Process, program};
use lanrage_tests::lab::state::{State, directory};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};

const LAB: &str = "cmd";

fn lab(arguments: &[&str]) -> Output {
    Command::new(program("lanrage-lab").unwrap()).args(["--name", LAB]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn namespaces() -> BTreeSet<String> {
    names_in("/run/netns").into_iter().filter(|name| name.starts_with("lr-cmd-")).collect()
}

struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        lab(&["down"]);
    }
}

#[test]
fn up_status_exec_and_down() {
    let _down = Down;
    let up = lab(&["up", "--peers", "3", "--nat", "symmetric,eim,none"]);
    assert!(up.status.success(), "{}{}", text(&up.stdout), text(&up.stderr));

    let again = lab(&["up"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("already up"), "{}", text(&again.stderr));

    let status = lab(&["status", "--json"]);
    check_status(&serde_json::from_slice(&status.stdout).unwrap());

    let exec = |arguments: &[&str]| lab(&[&["exec"], arguments].concat());
    assert_eq!(exec(&["1", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    let ping = exec(&["ana", "--", "ping", "-c", "2", "-i", "0.2", "10.66.0.2"]);
    assert!(ping.status.success(), "{}", text(&ping.stdout));
    let own = exec(&["2", "--", "lanrage", "status", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&own.stdout).unwrap()["device"]["name"], "ben");
    let nobody = exec(&["zoe", "--", "true"]);
    assert!(text(&nobody.stderr).contains("ana"), "{}", text(&nobody.stderr));

    let state = State::load(LAB).unwrap().unwrap();
    let mut child = Namespace::named("lr-cmd-p1").spawn(Command::new("sleep").arg("600")).unwrap();
    let stray = Process::with_pid(child.id()).unwrap();
    let kernel_pins = pins();
    assert!(lab(&["down"]).status.success());
    assert!(!stray.is_alive(), "a process that the lab did not start itself survived");
    child.wait().unwrap();
    assert!(state.processes.values().all(|process| !process.is_alive()));
    assert_eq!(namespaces(), BTreeSet::new());
    assert!(!directory(LAB).exists());
    assert!(pins().is_subset(&kernel_pins));
    assert!(text(&lab(&["down"]).stdout).contains("no lab was up"));
}

fn check_status(status: &Value) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(keys(status), set(&["relay", "control", "peers"]));
    assert_eq!(keys(&status["relay"]), set(&["addr", "mode"]));
    assert_eq!(status["control"]["url"], "http://192.0.2.2:8667");
    let peers = status["peers"].as_array().unwrap();
    let nats: Vec<&Value> = peers.iter().map(|peer| &peer["nat"]).collect();
    assert_eq!(nats, ["symmetric", "eim", "none"]);
    for (n, peer) in (1..).zip(peers) {
        assert_eq!(peer["n"], n);
        assert_eq!(peer["overlay"], format!("10.66.0.{n}"));
        let mut expected = set(&["n", "name", "overlay", "nat", "path"]);
        if peer["path"] == "mixed" {
            expected.insert("paths".into());
        }
        assert_eq!(keys(peer), expected);
    }
}

/// Pinned kernel objects, where bpffs is mounted.
fn pins() -> BTreeSet<String> {
    names_in("/sys/fs/bpf")
}

fn names_in(dir: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn down_cleans_up_a_half_finished_start() {
    let name = "half";
    let state = State {
        name: name.into(),
        namespaces: vec!["lr-half-net".into(), "lr-half-ctl".into()],
        spare_relay: false,
        links: Vec::new(),
        relay_mode: "auto".into(),
        lane: "auto".into(),
        lane_services: Vec::new(),
        relay_token: String::new(),
        peers: Vec::new(),
        processes: Default::default(),
    };
    state.claim().unwrap();
    let made = Namespace::named("lr-half-net");
    made.create().unwrap();
    let output =
        Command::new(program("lanrage-lab").unwrap()).args(["down", "--name", name]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!made.exists());
    assert!(!directory(name).exists());
}

#[test]
fn names_and_counts_are_checked() {
    let refused = |arguments: &[&str]| {
        let output = lab(arguments);
        assert!(!output.status.success());
        text(&output.stderr)
    };
    assert!(refused(&["up", "--peers", "1", "--nat", "eim,eim"]).contains("2 routers for 1 peers"));
    assert!(refused(&["up", "--nat", "cone"]).contains("udp-blocked"));
    assert!(refused(&["up", "--peers", "99"]).contains("1 to 32 peers"));
    let named = |command: &str, name: &str| {
        let output = Command::new(program("lanrage-lab").unwrap()).args([command, "--name", name]).output();
        text(&output.unwrap().stderr)
    };
    assert!(named("status", "nosuch").contains("lab up --name nosuch"));
    assert!(named("up", "../x").contains("small letters"));
}
