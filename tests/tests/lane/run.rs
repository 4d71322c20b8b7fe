//! Programs under `lanrage run`: socat, which knows nothing of LANrage, bound to the address of the home network.

use super::*;
use aya::programs::loaded_programs;
use lanrage_daemon::platform::cgroup;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// A program that is fed and heard by pipes.
pub struct Program(Child);

impl Program {
    /// Starts `lanrage run -- socat - ADDRESS` in that peer's network.
    fn start(lab: &TestLab, n: u8, address: &str) -> Self {
        let mut command = lab.lanrage(Role::Peer(n), &["run", "--", "socat", "-", address]).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(peer(lab, n).spawn(&mut command).unwrap())
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
    let listener = ben.run(|| TcpListener::bind((ANY, 4102))).unwrap().unwrap();
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
    complaints(lab);
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
