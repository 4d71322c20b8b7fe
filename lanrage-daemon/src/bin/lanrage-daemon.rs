//! LANrage's service: `lanrage-daemon [peer|relay|control|all]`.

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use lanrage_daemon::config::{self, Loaded, LogConfig, LogFormat, Role, Sources};
use lanrage_daemon::{log, roles, shutdown};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// LANrage's service: connects this machine to a party, forwards for others, or keeps parties.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Every setting can also be given as LANRAGE_SECTION__KEY=VALUE in the environment."
)]
struct Arguments {
    /// What to do; the configuration's `role` (peer, unless changed) when absent.
    role: Option<Role>,
    /// Configuration file [default: /etc/lanrage/lanrage.toml, may be missing].
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting, e.g. --set control.listen=0.0.0.0:8667; may be repeated.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Where keys and parties are kept.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// Unix socket for the `lanrage` command.
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Loopback address of the web UI.
    #[arg(long, value_name = "ADDRESS:PORT")]
    ui: Option<String>,
    /// Name shown to the others in the party.
    #[arg(long)]
    name: Option<String>,
    /// End what a stopped relay still forwards in the kernel, and do nothing else.
    #[arg(long)]
    detach: bool,
    /// What to log: a level or tracing filter such as info,lanrage_daemon=debug; the configuration's `log.filter` when absent.
    #[arg(long, env = "LANRAGE_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How to log; the configuration's `log.format` when absent.
    #[arg(long, env = "LANRAGE_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, e.g. peer.name=Ana")?;
    Ok((key.trim().into(), value.into()))
}

impl Arguments {
    fn sources(&self) -> Sources {
        let role = self.role.and_then(|role| Some(role.to_possible_value()?.get_name().to_owned()));
        let named = [
            ("ROLE", "role", &role),
            ("--state-dir", "state_dir", &self.state_dir),
            ("--socket", "socket", &self.socket),
            ("--ui", "ui", &self.ui),
            ("--name", "peer.name", &self.name),
        ];
        let mut flags: Vec<_> =
            self.set.iter().map(|(key, value)| ("--set".to_owned(), key.clone(), value.clone())).collect();
        flags.extend(
            named
                .into_iter()
                .filter_map(|(flag, key, value)| Some((flag.to_owned(), key.to_owned(), value.clone()?))),
        );
        Sources::from_process(self.config.clone(), flags)
    }

    /// The configuration's, and what flags change in it.
    fn log_config(&self, config: &LogConfig) -> LogConfig {
        LogConfig {
            format: self.log_format.unwrap_or(config.format),
            filter: self.log.clone().unwrap_or_else(|| config.filter.clone()),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanrage-daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let sources = arguments.sources();
    let loaded = config::load(&sources)?;
    log::start(&arguments.log_config(&loaded.config.log))?;
    let file = loaded.file.as_deref().map_or("none".into(), |file| file.display().to_string());
    tracing::debug!(file, "configuration loaded");
    if arguments.detach {
        return lanrage_daemon::relay::detach(&loaded.config.relay, &loaded.config.state_dir);
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(loaded, sources))
}

async fn serve(loaded: Loaded, sources: Sources) -> anyhow::Result<()> {
    let (trigger, shutdown) = shutdown::channel();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let running = roles::run(loaded, sources, shutdown);
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => return result,
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
    }
    trigger.request();
    tokio::select! {
        result = &mut running => result,
        _ = interrupt.recv() => anyhow::bail!("second SIGINT: stopped without cleaning up"),
    }
}
