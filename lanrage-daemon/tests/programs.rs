//! The two programs as a user starts them: exit codes, messages, signals. Needs no privileges.
#![allow(
    clippy::unwrap_used,
    reason = "this is a test program; clippy exempts only the test functions themselves"
)]

use lanrage_common::api::{Status, UiAnswer};
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DAEMON: &str = env!("CARGO_BIN_EXE_lanrage-daemon");
const LANRAGE: &str = env!("CARGO_BIN_EXE_lanrage");
const PATIENCE: Duration = Duration::from_secs(20);

/// A control server in its own directory, on loopback.
struct Install {
    dir: TempDir,
}

impl Install {
    fn new() -> Self {
        let install = Self { dir: TempDir::new().unwrap() };
        let path = |name: &str| install.dir.path().join(name).display().to_string();
        let text = format!(
            "role = 'control'\nstate_dir = '{}'\nsocket = '{}'\nui = '127.0.0.1:0'\n[control]\nlisten = '127.0.0.1:0'\n",
            path("state"),
            path("sock"),
        );
        fs::write(install.config(), text).unwrap();
        install
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("lanrage.toml")
    }

    fn daemon(&self, arguments: &[&str]) -> Command {
        let mut command = clean(DAEMON);
        command.arg("--config").arg(self.config()).args(arguments).stderr(Stdio::piped());
        command
    }

    fn lanrage(&self, arguments: &[&str]) -> Output {
        clean(LANRAGE).arg("--socket").arg(self.dir.path().join("sock")).args(arguments).output().unwrap()
    }

    fn status(&self) -> Option<Status> {
        serde_json::from_slice(&self.lanrage(&["status", "--json"]).stdout).ok()
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let child = Running(self.daemon(arguments).spawn().unwrap());
        wait_until(|| self.status().is_some(), "the daemon answers");
        child
    }
}

/// Killed when a test fails, so that nothing stays behind.
struct Running(Child);

impl Running {
    fn stop(mut self, signal: &str) -> (i32, String) {
        assert!(Command::new("kill").arg(signal).arg(self.0.id().to_string()).status().unwrap().success());
        let status = self.0.wait().unwrap();
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status.code().unwrap_or(-1), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("LANRAGE_") || name == "NOTIFY_SOCKET")
    {
        command.env_remove(name);
    }
    command
}

fn wait_until(mut condition: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn starts_answers_and_stops_cleanly() {
    let install = Install::new();
    for signal in ["-TERM", "-INT"] {
        let running = install.start(&["--log-format", "json"]);
        let status = install.status().unwrap();
        assert_eq!(status.roles, ["control"]);
        let server = status.server.unwrap();
        assert_eq!((server.online, server.relays), (0, 0));
        assert!(server.public_url.starts_with("http://127.0.0.1:"), "{}", server.public_url);
        assert_eq!(status.problems[0].code, "public_address_private");
        let ui: UiAnswer = serde_json::from_slice(&install.lanrage(&["ui", "--json"]).stdout).unwrap();
        assert!(ui.url.contains("/#token="), "{}", ui.url);

        let refused = install.lanrage(&["up"]);
        let complaint = "lanrage: this daemon runs as control only\n  start one with the peer role: lanrage-daemon peer\n";
        assert_eq!((refused.status.code(), text(&refused.stderr).as_str()), (Some(1), complaint));

        let (code, log) = running.stop(signal);
        assert_eq!(code, 0, "{log}");
        assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
        assert!(log.contains("stopping") && !log.contains("did not stop"), "{log}");
        assert!(!install.dir.path().join("sock").exists(), "the socket is removed");
        assert_eq!(install.lanrage(&["status"]).status.code(), Some(3));
    }
}

#[test]
fn a_killed_daemon_does_not_block_the_next_one() {
    let install = Install::new();
    let (code, _) = install.start(&[]).stop("-KILL");
    assert_eq!(code, -1);
    assert!(install.dir.path().join("sock").exists());
    let (code, log) = install.start(&[]).stop("-TERM");
    assert_eq!(code, 0, "{log}");
}

#[test]
fn a_second_daemon_says_that_there_is_one() {
    let install = Install::new();
    let _running = install.start(&[]);
    let second = install.daemon(&[]).output().unwrap();
    let complaint = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        complaint.starts_with("lanrage-daemon: another lanrage-daemon is already running on "),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1);
    assert!(install.status().is_some(), "the first one is not disturbed");
}

#[test]
fn what_is_wrong_is_one_line_with_its_cure() {
    let install = Install::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let file = install.dir.path().join("file").display().to_string();
    fs::write(&file, "").unwrap();
    for (arguments, wanted) in [
        (
            vec!["--set", "control.lisen=1"],
            "flag --set: unknown key `control.lisen`: did you mean `control.listen`?",
        ),
        (vec!["--set", "peer.mtu=9000"], "flag --set: `peer.mtu`: 9000 is outside 1280 to 1440 bytes"),
        (vec!["--ui", "0.0.0.0:1"], "flag --ui: `ui`: 0.0.0.0:1 can be reached from other machines"),
        (vec!["--ui", &taken], "is taken by another program; choose another address: --ui"),
        (vec!["--state-dir", &file], "cannot create"),
        (vec!["--socket", &file], "is not a socket"),
        (vec!["--set", &format!("control.listen={taken}")], "control.listen"),
        (vec!["--log", "a=b=c"], "--log a=b=c"),
    ] {
        let output = install.daemon(&arguments).env("LANRAGE_LOG", "error").output().unwrap();
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            complaint.starts_with("lanrage-daemon: ") && complaint.contains(wanted),
            "{wanted}\n{complaint}"
        );
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(!install.dir.path().join("sock").exists(), "a failed start leaves no socket: {arguments:?}");
    }
    let missing = clean(DAEMON).args(["--config", "/nonexistent/lanrage.toml"]).output().unwrap();
    assert!(text(&missing.stderr).contains("/nonexistent/lanrage.toml: cannot read"));
    assert_eq!(clean(DAEMON).arg("gardener").output().unwrap().status.code(), Some(2));
}
