//! The command line: `lanrage`.
//!
//! Every command is one request to the daemon's Unix socket and one way to show the answer; `--json` shows the answer as
//! it came. Exit codes: 0 done, 1 refused, 2 wrong usage, 3 the daemon is not running.

mod arguments;
mod client;
mod commands;
mod discord;
mod doctor;
mod failure;
mod firewall;
mod games;
mod gateway;
mod local;
mod matrix;
mod mods;
mod netcheck;
mod relay;
#[cfg_attr(not(target_os = "linux"), path = "cli/no_run.rs")]
mod run;
mod screen;
mod servers;
mod settings;
mod show;
mod support;
mod table;
mod terminal;
mod trace;
mod watch;

pub use arguments::Arguments;
pub use failure::Failure;
pub use screen::Screen;

/// Runs one command; gives the exit code.
pub async fn run(arguments: Arguments, screen: &mut Screen<'_>) -> u8 {
    let json = arguments.json;
    match commands::run(arguments, screen).await {
        Ok(code) => code,
        Err(failure) => {
            screen.fail(&failure, json);
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests;
