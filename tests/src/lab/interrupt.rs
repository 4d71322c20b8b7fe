//! Ctrl-C must not leave a half-built lab behind.

use super::running::down;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held while namespaces or processes are being made, so that cleaning up sees all of them.
static CHANGE: Mutex<()> = Mutex::new(());

/// Waits for a moment in which nothing is half-made, and keeps it.
pub(super) fn change() -> MutexGuard<'static, ()> {
    CHANGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT and SIGTERM take the lab down and end this process.
pub fn take_down_when_interrupted(lab: &str) {
    let lab = lab.to_owned();
    std::thread::spawn(move || {
        if wait_for_signal().is_err() {
            return; // then the signal ends the process as usual, and `down` cleans up
        }
        let _nothing_is_half_made = change();
        eprintln!("\ninterrupted: taking the lab down");
        if let Err(error) = down(&lab) {
            eprintln!("error: {error:#}");
        }
        std::process::exit(130);
    });
}

/// Returns when SIGINT or SIGTERM has come.
pub fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
