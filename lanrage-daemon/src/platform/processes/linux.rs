//! Linux: the process events connector (`linux/cn_proc.h`) where there is one, `/proc` elsewhere.
//!
//! The connector lives in the machine's own network and process namespaces and wants CAP_NET_ADMIN. A daemon in a network
//! namespace of its own (a container, a test) looks at `/proc`, and sees the programs of its own namespace only.

use super::{Change, Program};
use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, recv, send};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Without events.
const POLL: Duration = Duration::from_secs(2);
/// With events: in case one was lost.
const CHECK: Duration = Duration::from_secs(30);
/// The kernel says at once whether it will tell.
const ACKNOWLEDGED: Duration = Duration::from_millis(500);
/// A longer command line is cut: Java's are long.
const MAX_COMMAND: u64 = 64 * 1024;

/// `CN_IDX_PROC` and `CN_VAL_PROC`.
const CONNECTOR: u32 = 1;
const LISTEN: u32 = 1;
const NETLINK_HEADER: usize = 16;
const CONNECTOR_HEADER: usize = 20;
/// `what`, processor, time.
const EVENT_HEADER: usize = 16;
const NLMSG_DONE: u16 = 3;

const NONE: u32 = 0;
const EXEC: u32 = 2;
const COMM: u32 = 0x200;
const EXIT: u32 = 0x8000_0000;

/// See the module.
#[derive(Debug)]
pub struct Processes {
    events: Option<Socket>,
    /// The network namespace that programs must be in, when it is not the machine's own.
    network: Option<PathBuf>,
    checked: Instant,
}

impl Processes {
    /// Listens, or looks; the reason is told when it must look.
    pub fn open() -> (Self, Option<String>) {
        let (events, network, reason) = match listen() {
            Ok(socket) => (Some(socket), None, None),
            // the kernel's end is in the machine's own namespace
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let reason = "the daemon runs in a network namespace of its own".into();
                (None, fs::read_link("/proc/self/ns/net").ok(), Some(reason))
            }
            Err(error) => (None, None, Some(format!("the kernel does not tell of programs: {error}"))),
        };
        (Self { events, network, checked: Instant::now() }, reason)
    }

    /// Waits for the next change; none when nothing has happened for a while.
    pub fn wait(&mut self) -> Option<Change> {
        let Some(socket) = &self.events else {
            std::thread::sleep(POLL);
            return Some(Change::All);
        };
        let mut buffer = [0; 1024];
        let change = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => parse(&buffer[..length]),
            // more has happened than the socket holds
            Err(nix::Error::ENOBUFS) => Some(Change::All),
            Err(_) => None,
        };
        if change == Some(Change::All) || self.checked.elapsed() < CHECK {
            return change;
        }
        self.checked = Instant::now();
        Some(Change::All)
    }

    /// All that run.
    pub fn all(&self) -> impl Iterator<Item = (u32, Program)> + '_ {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Some((pid, self.program(pid)?)))
    }

    /// That one; none when it has ended, is the kernel's, or in another network namespace than this daemon.
    pub fn program(&self, pid: u32) -> Option<Program> {
        let process = Path::new("/proc").join(pid.to_string());
        let mut command = Vec::new();
        fs::File::open(process.join("cmdline")).ok()?.take(MAX_COMMAND).read_to_end(&mut command).ok()?;
        if command.is_empty() {
            return None;
        }
        if let Some(network) = &self.network
            && fs::read_link(process.join("ns/net")).is_ok_and(|other| other != *network)
        {
            return None;
        }
        let own_name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let file = fs::read_link(process.join("exe")).ok();
        Some(describe(&command, own_name.trim_end(), file.as_deref()))
    }
}

fn describe(command: &[u8], own_name: &str, file: Option<&Path>) -> Program {
    let texts = command.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    let arguments: Vec<String> = texts.filter(|text| !text.is_empty()).collect();
    let file = file.and_then(|file| file.to_str());
    let called = [arguments.first().map(String::as_str), file, Some(own_name)];
    let mut names: Vec<String> = called.into_iter().flatten().map(last_part).map(str::to_owned).collect();
    names.dedup();
    Program { names, arguments }
}

/// Without directories, in Linux's writing or, under Wine and Proton, in Windows'.
fn last_part(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn listen() -> io::Result<Socket> {
    let protocol = Protocol::from(libc::NETLINK_CONNECTOR);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(protocol))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, CONNECTOR))?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    socket.set_read_timeout(Some(ACKNOWLEDGED))?;
    let begun = Instant::now();
    while begun.elapsed() < ACKNOWLEDGED {
        let mut buffer = [0; 1024];
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if let Some((NONE, error)) = event(&buffer[..length]) {
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error as i32));
            }
            socket.set_read_timeout(Some(POLL))?;
            return Ok(socket);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Asks for all process events.
fn request() -> Vec<u8> {
    let body = LISTEN.to_ne_bytes();
    let length = (NETLINK_HEADER + CONNECTOR_HEADER + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend([NLMSG_DONE, 0].map(u16::to_ne_bytes).concat());
    message.extend([0, 0, CONNECTOR, CONNECTOR, 0, 0].map(u32::to_ne_bytes).concat());
    message.extend([body.len() as u16, 0].map(u16::to_ne_bytes).concat());
    message.extend(body);
    message
}

/// What happened, and the first word about it.
fn event(message: &[u8]) -> Option<(u32, u32)> {
    let at = NETLINK_HEADER + CONNECTOR_HEADER;
    Some((word(message, at)?, word(message, at + EVENT_HEADER)?))
}

fn parse(message: &[u8]) -> Option<Change> {
    let (what, thread) = event(message)?;
    let process = word(message, NETLINK_HEADER + CONNECTOR_HEADER + EVENT_HEADER + 4)?;
    match what {
        EXEC | COMM => Some(Change::Looks(process)),
        EXIT if thread == process => Some(Change::Ended(process)),
        _ => None,
    }
}

fn word(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn a_program_goes_by_its_file_its_first_argument_and_what_it_calls_itself() {
        let native = describe(
            b"./ioquake3\0+set\0fs_game\0",
            "ioquake3",
            Some(Path::new("/usr/lib/ioquake3/ioquake3")),
        );
        assert_eq!(native.names, ["ioquake3"]);
        assert_eq!(native.arguments, ["./ioquake3", "+set", "fs_game"]);
        let proton = describe(
            b"Z:\\games\\Among Us\\Among Us.exe\0",
            "Among Us.exe",
            Some(Path::new("/opt/proton/bin/wine64-preloader")),
        );
        assert_eq!(proton.names, ["Among Us.exe", "wine64-preloader", "Among Us.exe"]);
    }

    #[test]
    fn programs_that_start_and_end_are_seen() {
        let (mut processes, reason) = Processes::open();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let begun = Instant::now();
        // events, or a look at everything: whatever this machine offers
        while processes.program(pid).is_none_or(|program| program.names[0] != "sleep") {
            assert!(begun.elapsed() < Duration::from_secs(20), "{reason:?}");
            let _ = processes.wait();
        }
        assert!(processes.all().any(|(other, _)| other == pid));
        child.kill().unwrap();
        child.wait().unwrap();
        let told = || processes.wait().is_some_and(|it| it == Change::Ended(pid) || it == Change::All);
        if reason.is_none() {
            assert!(std::iter::repeat_with(told).take(100_000).any(|it| it), "the kernel has told");
        }
        assert_eq!(processes.program(pid), None);
    }

    proptest! {
        #[test]
        fn any_message_is_survived(message in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&message);
        }

        #[test]
        fn any_command_line_is_survived(command in proptest::collection::vec(any::<u8>(), 1..80), name in "\\PC{0,15}") {
            prop_assert!(!describe(&command, &name, None).names.is_empty());
        }
    }
}
