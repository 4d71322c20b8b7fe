//! `lanrage run`: starts a program in a control group of its own, which the daemon makes use the party.

use super::client::Client;
use super::failure::Failure;
use super::screen::Screen;
use crate::platform::cgroup;
use lanrage_common::api::{RunAnswer, RunRequest};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// What shells say when a signal has ended a program.
const BY_SIGNAL: i32 = 128;

/// Runs the program to its end; gives its exit code.
pub(super) async fn run(
    client: &Client,
    screen: &mut Screen<'_>,
    program: &[OsString],
    json: bool,
) -> Result<u8, Failure> {
    let Some((name, arguments)) = program.split_first() else { return Ok(0) };
    let group = Group::enter()?;
    let answer = client.send::<RunAnswer>("/api/v1/run", &RunRequest { group: group.path.clone() }).await?;
    if json {
        screen.line(&answer.text);
    }
    let child = Command::new(name).args(arguments).spawn().map_err(|error| {
        let what = format!("cannot start {}: {error}", name.display());
        Failure::Local(
            what,
            "give the program and its arguments as in a terminal: lanrage run -- GAME ARGS…".into(),
        )
    })?;
    let ended = wait(child)
        .await
        .map_err(|error| Failure::Broken(format!("cannot wait for the program: {error}")))?;
    drop(group);
    Ok(exit_code(ended))
}

/// Who stops this process means the program; a terminal tells it by itself.
async fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let id = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
    loop {
        tokio::select! {
            ended = child.wait() => return ended,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {
                if let Some(id) = id {
                    // it may have ended meanwhile
                    let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
                }
            }
        }
    }
}

fn exit_code(ended: ExitStatus) -> u8 {
    let code = ended.code().or_else(|| ended.signal().map(|signal| BY_SIGNAL + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// A control group with this process in it. Dropped, this process is back where it was, and the group gone, unless the
/// program has left others running there: then the daemon goes on with those.
struct Group {
    path: String,
    directory: PathBuf,
    before: PathBuf,
}

impl Group {
    fn enter() -> Result<Self, Failure> {
        let (Some(root), Some(own)) = (cgroup::root(), cgroup::own()) else {
            return Err(Failure::Local(
                "this system has no control groups of version 2, by which a program is told from others"
                    .into(),
                "start the kernel with systemd.unified_cgroup_hierarchy=1; most games need no `lanrage run`"
                    .into(),
            ));
        };
        let before = cgroup::below(&root, &own);
        sweep(&before);
        let name = format!("{}{}", cgroup::PREFIX, std::process::id());
        let directory = before.join(&name);
        std::fs::create_dir(&directory).map_err(|error| refused(&before, &error))?;
        let path = format!("{}/{name}", own.trim_end_matches('/'));
        let group = Self { path, directory, before };
        cgroup::enter(&group.directory).map_err(|error| refused(&group.before, &error))?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = cgroup::enter(&self.before);
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// Removes what earlier ones left that were killed. Those in use cannot be removed.
fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(cgroup::PREFIX))
    {
        let _ = std::fs::remove_dir(entry.path());
    }
}

fn refused(place: &Path, error: &io::Error) -> Failure {
    Failure::Local(
        format!("cannot make a control group in {}: {error}", place.display()),
        "put `systemd-run --user --scope` in front: systemd-run --user --scope lanrage run -- GAME".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_exit_code_is_told() {
        for (raw, code) in [(0, 0), (7 << 8, 7), (9, 137), (15, 143)] {
            assert_eq!(exit_code(ExitStatus::from_raw(raw)), code);
        }
    }
}
