//! Programs under `lanrage run`: socat, which knows nothing of LANrage, bound to the address of the home network.

use super::*;
use aya::programs::loaded_programs;
use lanrage_daemon::platform::cgroup;
use lanrage_tests::lab::process;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// A program that is fed and heard by pipes.
pub struct Program(Child);

impl Program {
    /// Starts `lanrage run -- socat - ADDRESS` in that peer's network.
    fn start(lab: &TestLab, n: u8, address: &str) -> Self {
        Self::spawn(&peer(lab, n), lab.lanrage(Role::Peer(n), &["run", "--", "socat", "-", address]).unwrap())
    }

    fn spawn(place: &Namespace, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(place.spawn(&mut command).unwrap())
    }

    fn say(&mut self, text: &[u8]) {
        self.0.stdin.as_mut().unwrap().write_all(text).unwrap();
    }

    fn hears(&mut self, text: &[u8]) {
        let mut heard = vec![0; text.len()];
        self.0.stdout.as_mut().unwrap().read_exact(&mut heard).unwrap();
        assert_eq!(heard, text);
    }

    /// To its end.
    pub fn ends(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Groups of `lanrage run` below this process's.
fn groups() -> Vec<PathBuf> {
    let own = cgroup::below(&cgroup::root().unwrap(), &cgroup::own().unwrap());
    let entries = std::fs::read_dir(own).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains(cgroup::PREFIX)).collect()
}

pub fn is_steered() -> bool {
    let name = |program: aya::programs::ProgramInfo| program.name_as_str().map(ToOwned::to_owned);
    loaded_programs().flatten().filter_map(name).any(|name| name == "run_bind4")
}

/// Waits until neither groups nor programs are left.
fn nothing_is_left() {
    let is_gone = || groups().is_empty() && !is_steered();
    assert!(wait_until(PATIENCE, is_gone), "left: {:?}, programs: {}", groups(), is_steered());
}

/// Found, answered, and heard by all others of the party, while its other traffic goes as ever.
pub fn a_program_uses_the_party(lab: &TestLab) {
    let ben = peer(lab, 2);
    let [at_ana, at_ben] = [1, 2].map(|n| lab.overlay(n).unwrap());
    let beside = lab.topology().router(1);
    for (port, own, to) in [(36_000, 4021, EVERYBODY), (36_001, 4022, HOME_BROADCAST)] {
        let server = game(&ben, port);
        let mut asker =
            Program::start(lab, 1, &format!("UDP4-DATAGRAM:{to}:{port},broadcast,bind={HOME}:{own}"));
        asker.say(b"who is there?");
        exactly(&server, b"who is there?", (at_ana, own));
        server.send_to(b"I am", (at_ana, own)).unwrap();
        asker.hears(b"I am");
        // bound to one address it would not hear this
        game(&ben, 4023).send_to(b"and you?", (EVERYBODY, own)).unwrap();
        asker.hears(b"and you?");
        asker.ends();
    }
    let listener = ben.play(|| TcpListener::bind((ANY, 4102))).unwrap().unwrap();
    let mut client = Program::start(lab, 1, &format!("TCP4:{at_ben}:4102,bind={HOME}"));
    client.say(b"join");
    let (mut server, from) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = [0; 4];
    server.read_exact(&mut heard).unwrap();
    assert_eq!((from.ip(), &heard), (at_ana.into(), b"join"));
    server.write_all(b"welcome").unwrap();
    client.hears(b"welcome");
    drop(server);
    client.ends();
    // what is for one address elsewhere leaves by the network card
    let neighbour = game(&beside, 36_002);
    let mut other = Program::start(lab, 1, &format!("UDP4-SENDTO:192.168.101.1:36002,bind={HOME}:4024"));
    other.say(b"news?");
    exactly(&neighbour, b"news?", (HOME, 4024));
    neighbour.send_to(b"none", (HOME, 4024)).unwrap();
    other.hears(b"none");
    other.ends();
    nothing_is_left();
    an_ordinary_user(lab);
    complaints(lab);
}

/// As many engines have them: one socket for both versions, IPv4 as `::ffff:a.b.c.d`.
pub fn a_socket_of_ipv6(lab: &TestLab) {
    let (ben, at_ana) = (peer(lab, 2), lab.overlay(1).unwrap());
    // by sendto, and by connect
    for (kind, port, own) in [("DATAGRAM", 36_007, 4029), ("CONNECT", 36_008, 4030)] {
        let to = HOME_BROADCAST;
        let server = game(&ben, port);
        let mut asker = Program::start(
            lab,
            1,
            &format!("UDP6-{kind}:[::ffff:{to}]:{port},broadcast,ipv6-v6only=0,bind=[::ffff:{HOME}]:{own}"),
        );
        asker.say(b"who is there?");
        exactly(&server, b"who is there?", (at_ana, own));
        if kind == "DATAGRAM" {
            game(&ben, 4033).send_to(b"and you?", (EVERYBODY, own)).unwrap();
            asker.hears(b"and you?");
        }
        asker.ends();
    }
}

/// One who may use the socket, and make groups below the own session's, as systemd lets users.
fn an_ordinary_user(lab: &TestLab) {
    const NOBODY: Option<u32> = Some(65_534);
    let session = cgroup::root().unwrap().join("lanrage-test-session");
    std::fs::create_dir_all(&session).unwrap();
    for owned in [session.clone(), session.join("cgroup.procs")] {
        chown(owned, NOBODY, NOBODY).unwrap();
    }
    let socket = lab.socket(Role::Peer(1));
    for (path, mode) in socket.ancestors().take(4).zip([0o666, 0o711, 0o711, 0o711]) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    // where the tests were built others may not look
    let programs = tempfile::tempdir().unwrap();
    std::fs::set_permissions(programs.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let lanrage = programs.path().join("lanrage");
    std::fs::copy(process::program("lanrage").unwrap(), &lanrage).unwrap();
    let script = "echo 0 > $0/cgroup.procs; exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).args([&session, &lanrage]).arg("--socket").arg(&socket);
    command.args(["run", "--", "socat", "-"]);
    command.arg(format!("UDP4-DATAGRAM:{EVERYBODY}:36005,broadcast,bind={HOME}:4027"));
    let server = game(&peer(lab, 2), 36_005);
    let mut asker = Program::spawn(&peer(lab, 1), command);
    asker.say(b"who is there?");
    exactly(&server, b"who is there?", (lab.overlay(1).unwrap(), 4027));
    asker.ends();
    std::fs::remove_dir(&session).unwrap_or_else(|error| panic!("something is left there: {error}"));
    nothing_is_left();
}

fn complaints(lab: &TestLab) {
    let run = |arguments: &[&str]| {
        let output = lab.lanrage(Role::Peer(1), arguments).unwrap().output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&["run", "--", "sh", "-c", "exit 7"]).0, Some(7), "the program's own exit code");
    let (code, said) = run(&["run", "--", "/no/such/game"]);
    assert!(code == Some(1) && said.contains("cannot start /no/such/game"), "{said}");
    nothing_is_left();
}

/// One that is steered and waits.
pub fn waiting(lab: &TestLab) -> Program {
    let server = game(&peer(lab, 2), 36_004);
    let mut program =
        Program::start(lab, 1, &format!("UDP4-DATAGRAM:{EVERYBODY}:36004,broadcast,bind={HOME}:4026"));
    program.say(b"ready");
    exactly(&server, b"ready", (lab.overlay(1).unwrap(), 4026));
    assert!(is_steered());
    program
}

/// A program goes on when `lanrage run` is killed, and leaves nothing when it has ended.
pub fn a_killed_command_leaves_nothing(lab: &TestLab) {
    let server = game(&peer(lab, 2), 36_003);
    let mut asker =
        Program::start(lab, 1, &format!("UDP4-DATAGRAM:{EVERYBODY}:36003,broadcast,bind={HOME}:4025"));
    asker.say(b"one");
    exactly(&server, b"one", (lab.overlay(1).unwrap(), 4025));
    // waiting for the command would close what the program reads
    let mut input = asker.0.stdin.take().unwrap();
    asker.0.kill().unwrap();
    asker.0.wait().unwrap();
    input.write_all(b"two").unwrap();
    exactly(&server, b"two", (lab.overlay(1).unwrap(), 4025));
    assert!(is_steered());
    drop(input);
    nothing_is_left();
}
