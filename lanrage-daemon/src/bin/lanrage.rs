//! LANrage's command line.

use clap::Parser as _;
use lanrage_daemon::cli::{self, Arguments, Screen};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut screen = Screen::detect(&mut out, &mut err);
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli::run(arguments, &mut screen))),
        Err(error) => {
            eprintln!("lanrage: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
