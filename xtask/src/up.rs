//! A LAN party on this machine by one command: control server, relay and peer in one process.

use crate::build;
use crate::process::{find, is_root, output};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the daemon may take to start.
const START: Duration = Duration::from_secs(60);

/// Settings of `cargo xtask up`.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// Where keys and parties are kept.
    #[arg(long, default_value = "/var/lib/lanrage")]
    state_dir: PathBuf,
    /// Unix socket for the `lanrage` command.
    #[arg(long, default_value = "/run/lanrage/lanrage.sock")]
    socket: PathBuf,
    /// Any other setting of the daemon, e.g. control.public_url=http://203.0.113.5:8667.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Everything is built already.
    #[arg(long, hide = true)]
    built: bool,
}

/// Builds, starts the daemon in the foreground, and tells how to use it. Returns only on failure.
pub fn run(root: &Path, up: &Up) -> Result<()> {
    if !up.built {
        build::everything(root)?;
    }
    if !is_root() {
        return Err(again_as_root()?);
    }
    let lanrage = build::program("lanrage")?;
    if status(&lanrage, &up.socket).is_some() {
        println!("\nLANrage runs already on this machine.");
        return announce(&up.socket, None);
    }
    println!("\n── start LANrage (Ctrl-C stops it)");
    announce_later(&up.socket)?;
    let mut daemon = Command::new(build::program("lanrage-daemon")?);
    daemon.arg("all").arg("--state-dir").arg(&up.state_dir).arg("--socket").arg(&up.socket);
    daemon.args(up.set.iter().flat_map(|setting| ["--set", setting]));
    if std::env::var_os("LANRAGE_LOG").is_none() {
        daemon.args(["--log", "warn"]);
    }
    Err(daemon.exec()).context("cannot start lanrage-daemon")
}

/// Replaces this process by itself under sudo.
fn again_as_root() -> Result<anyhow::Error> {
    let sudo = find("sudo").context("LANrage makes a network interface and needs root: run this as root")?;
    println!("\nLANrage makes a network interface and needs root: asking sudo");
    let mut again = Command::new(sudo);
    again.arg("--preserve-env=PATH,LANRAGE_LOG").arg(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1)).arg("--built");
    Ok(anyhow::Error::new(again.exec()).context("cannot run sudo"))
}

/// Starts a process that announces the daemon as soon as it is ready. This process is about to become the daemon, so
/// that Ctrl-C reaches exactly that; a shell in between makes the announcer nobody's child.
fn announce_later(socket: &Path) -> Result<()> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "\"$@\" &", "sh"])
        .arg(std::env::current_exe()?)
        .arg("announce")
        .arg("--socket")
        .arg(socket);
    shell.arg("--daemon").arg(std::process::id().to_string());
    shell.status().map(drop).context("cannot start sh")
}

/// Waits for the daemon, founds a party if there is none, and prints what one wants to know.
pub fn announce(socket: &Path, daemon: Option<u32>) -> Result<()> {
    let lanrage = build::program("lanrage")?;
    let Some(status) = wait_for(&lanrage, socket, daemon)? else { return Ok(()) };
    let call = |arguments: &[&str]| {
        let status = Command::new(&lanrage).arg("--socket").arg(socket).args(arguments).status();
        status.is_ok_and(|status| status.success())
    };
    let in_party = status.contains("\"party\":");
    let invited = if in_party { call(&["invite"]) } else { call(&["party", "create", "LAN party"]) };
    if !invited {
        bail!("LANrage runs, but could not make an invite (see above)");
    }
    println!("\nWeb page (for you only):");
    call(&["ui"]);
    println!("\nSend the invite link to your friends. Who is there: {} peers", lanrage.display());
    println!("Stop with Ctrl-C; the party stays and `cargo xtask up` brings it back.");
    Ok(())
}

/// The daemon's status as soon as it answers; none if the daemon is gone before.
fn wait_for(lanrage: &Path, socket: &Path, daemon: Option<u32>) -> Result<Option<String>> {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        if let Some(status) = status(lanrage, socket) {
            return Ok(Some(status));
        }
        if daemon.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("lanrage-daemon does not answer on {}", socket.display())
}

fn status(lanrage: &Path, socket: &Path) -> Option<String> {
    output(Command::new(lanrage).arg("--socket").arg(socket).args(["status", "--json"]))
}
