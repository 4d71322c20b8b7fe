//! The daemon's log: on standard error, and its last lines in memory, for the web UI and for support.

use crate::config::{LogConfig, LogFormat};
use anyhow::Context as _;
use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

/// Libraries that warn of what is no operator's business: a session that ended, news that nobody waits for any more.
const QUIET: &str = "boringtun=off,netlink_proto=error";
/// Lines that are kept.
const LINES: usize = 1000;
/// Bytes of a line that are kept.
const LINE: usize = 1024;

static LAST: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Begins to log, once in a process.
pub fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.filter)).with_context(|| {
        format!("--log {} (`log.filter`): write a level such as info or debug", config.filter)
    })?;
    let memory = fmt::layer().with_ansi(false).with_writer(|| Memory);
    let printed = fmt::layer().with_writer(io::stderr);
    let printed = match config.format {
        LogFormat::Json => printed.json().flatten_event(true).boxed(),
        // The journal has its own times.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            printed.without_time().with_ansi(false).boxed()
        }
        LogFormat::Text => printed.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(printed).with(memory).init();
    Ok(())
}

/// The last lines, oldest first.
pub(crate) fn last() -> Vec<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Takes whole events, as the formatter writes them.
struct Memory;

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        keep(&mut LAST.lock().unwrap_or_else(PoisonError::into_inner), &String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn keep(last: &mut VecDeque<String>, text: &str) {
    for line in text.lines() {
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(line.chars().take(LINE).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let mut last = VecDeque::new();
        for n in 0..3000 {
            keep(&mut last, &format!("{n} {}\nsecond line\n", "x".repeat(5000)));
        }
        assert_eq!(last.len(), LINES);
        assert!(last.iter().all(|line| line.len() <= LINE));
        assert!(last[LINES - 2].starts_with("2999 "));
    }
}
