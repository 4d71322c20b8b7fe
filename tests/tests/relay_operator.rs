//! What a relay's operator sees of a running relay, and what its unit grants. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::{RelayDetail, RelayMode};
use lanrage_tests::lab::nat::NatKind::Symmetric;
use lanrage_tests::lab::netns::command_output;
use lanrage_tests::lab::process::{self, wait_until};
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::traffic::Pulse;
use lanrage_tests::veth::Row;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::TestLab;

/// A user without any privilege of its own.
const NOBODY: u32 = 65_534;
const PATIENCE: Duration = Duration::from_secs(20);
const WIDTH: usize = 80;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn an_operator_sees_members_traffic_and_reasons() {
    let lab = TestLab::party("opr", &[Symmetric, Symmetric]);
    let pulse = Pulse::start(&lab.station(1), &lab.station(2), 37016, Duration::from_millis(5)).unwrap();
    let relay = |arguments: &[&str]| lab.lanrage_output(Role::Relay, arguments).unwrap();

    let top = json(&relay(&["relay", "top", "--once", "--json"]));
    assert_eq!((top["bindings"].as_u64(), top["registered"].as_bool()), (Some(2), Some(true)), "{top}");
    let rate = |plane: &str| top[plane]["out_packets_per_s"].as_f64().unwrap();
    assert!(
        rate("kernel") + rate("userspace") > 100.0,
        "two hundred beats a second, and their answers: {top}"
    );
    assert_eq!(top["members"].as_array().unwrap().len(), 2);
    let is_explained = |reason: &Value| reason["what"].as_str().is_some_and(|what| what.ends_with('.'));
    assert!(top["reasons"].as_array().unwrap().iter().all(is_explained), "{top}");

    let text = relay(&["relay", "top", "--once"]);
    fits(&text);
    assert!(text.contains("2 of 16384 members bound"), "{text}");

    let detail: RelayDetail = serde_json::from_str(&relay(&["relay", "status", "--json"])).unwrap();
    let keys: Vec<_> = detail.members.iter().map(|member| member.key.chars().count()).collect();
    assert_eq!(keys, [8, 8], "keys are cut short");
    assert!(relay(&["relay", "status"]).contains("handshake_forwarded"));
    pulse.stop();

    let host = |arguments: &[&str]| {
        let mut command = lab.lanrage(Role::Relay, arguments).unwrap();
        lab.topology().relay().output(&mut command).unwrap()
    };
    let check = json(&host(&["relay", "check", "--json"]));
    assert_eq!(
        (check["ports"][0]["port"].as_u64(), check["ports"][0]["ours"].as_bool()),
        (Some(3478), Some(true)),
        "{check}"
    );
    let used: Vec<_> = check["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|interface| interface["used"] == true)
        .collect();
    assert!(!used.is_empty() && used[0]["name"] == "eth0", "{check}");
    if detail.status.mode != RelayMode::Userspace {
        assert_eq!(used[0]["program"]["name"], "relay", "{check}");
    }
    fits(&host(&["relay", "check"]));
    let metrics = command_output(
        Command::new("curl")
            .args(["-s", "--unix-socket"])
            .arg(lab.socket(Role::Relay))
            .arg("http://localhost/metrics"),
    );
    let metrics = metrics.unwrap();
    assert!(metrics.contains("\nlanrage_relay_bindings 2\n"), "{metrics}");
    let log = fs::read_to_string(lab.log(Role::Relay)).unwrap();
    assert!(
        log.contains("member bound") && !log.contains(&lab.state().relay_token),
        "the log holds no secret"
    );
}

#[test]
fn a_trial_attaches_and_leaves_nothing_behind() {
    let row = Row::create("op").unwrap();
    let check = || {
        let mut command = Command::new(process::program("lanrage").unwrap());
        row.relay.output(command.args(["relay", "check", "--interface", "ra", "--try", "--json"])).unwrap()
    };
    for _ in 0..2 {
        let check = json(&check());
        assert_eq!(check["trials"][0]["mode"], "xdp-native");
        assert_eq!(check["trials"][0]["accepted"], true, "{check}");
        assert_eq!(check["interfaces"][0]["program"], Value::Null, "the last trial is gone: {check}");
        assert_eq!(check["interfaces"][0]["native_xdp"], true, "the kernel says so itself");
    }
}

/// Settings of a unit by key, those that come several times joined.
fn unit(name: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(deploy(&format!("systemd/{name}.service"))).unwrap();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

#[test]
fn the_units_are_sandboxed() {
    for (name, most) in [("lanrage-relay", 20), ("lanrage-control", 15)] {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=yes", "--no-pager", &format!("--threshold={most}")]);
        let output = command.arg(deploy(&format!("systemd/{name}.service"))).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {}", text.lines().last().unwrap_or_default());
    }
}

/// A relay that runs as its unit runs it: an unprivileged user with the unit's capabilities, and pins in a directory that is
/// bound to a place of its own.
struct Sandboxed {
    child: Child,
    pins: PathBuf,
    _dir: tempfile::TempDir,
}

impl Sandboxed {
    fn start(row: &Row) -> Self {
        let dir = tempfile::Builder::new().prefix("lanrage-op-").tempdir().unwrap();
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let pins = PathBuf::from("/sys/fs/bpf/lanrage-operator-test");
        fs::create_dir_all(&pins).unwrap();
        chown(&pins, Some(NOBODY), Some(NOBODY)).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(at("pins")).unwrap();
        let capabilities =
            unit("lanrage-relay").into_iter().find(|(key, _)| key == "AmbientCapabilities").unwrap().1;
        let set: String = capabilities
            .split(' ')
            .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
            .collect();
        let script = format!(
            "mount --bind {} {} && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --no-new-privs \
             --bounding-set=-all{set} --inh-caps=-all{set} --ambient-caps=-all{set} \"$@\"",
            pins.display(),
            at("pins"),
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(process::program("lanrage-daemon").unwrap());
        command.args([
            "relay",
            "--state-dir",
            &at("state"),
            "--socket",
            &at("sock"),
            "--ui",
            "127.0.0.1:8669",
        ]);
        for setting in [
            "relay.control=http://10.71.1.2:8667",
            "relay.token=sixteen-characters",
            "relay.interfaces=ra,rb",
            "relay.mode=xdp-native",
            &format!("relay.pin_dir={}", at("pins")),
        ] {
            command.args(["--set", setting]);
        }
        command.stderr(Stdio::null());
        process::without_settings(&mut command);
        Self { child: row.relay.spawn(&mut command).unwrap(), pins, _dir: dir }
    }

    fn detail(&self) -> Option<RelayDetail> {
        let mut command = Command::new(process::program("lanrage").unwrap());
        command.arg("--socket").arg(self._dir.path().join("sock")).args(["relay", "status", "--json"]);
        serde_json::from_str(&command_output(&mut command).ok()?).ok()
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.pins);
    }
}

#[test]
fn the_units_privileges_are_enough_for_the_kernel_and_no_more() {
    let row = Row::create("ou").unwrap();
    let relay = Sandboxed::start(&row);
    assert!(wait_until(PATIENCE, || relay.detail().is_some()), "the relay does not answer");
    let detail = relay.detail().unwrap();
    assert_eq!(detail.status.mode, RelayMode::XdpNative, "{:?}", detail.status);
    let codes: Vec<_> = detail.status.problems.iter().map(|problem| problem.code.as_str()).collect();
    assert!(!codes.contains(&"relay_not_pinned"), "{:?}", detail.status.problems);
    assert!(fs::read_dir(&relay.pins).unwrap().next().is_some(), "links and maps are pinned");
    let status = fs::read_to_string(format!("/proc/{}/status", relay.child.id())).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    // NET_BIND_SERVICE, NET_ADMIN, PERFMON, BPF
    let wanted = format!("{:016x}", 1u64 << 10 | 1 << 12 | 1 << 38 | 1 << 39);
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), wanted, "{set}");
    }
    assert!(field("Uid:").starts_with("65534"));
}
