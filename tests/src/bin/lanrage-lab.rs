//! The lab's command line: an internet in a box, with the real programs in it.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use lanrage_tests::bench::machine::Machine;
use lanrage_tests::games::{self, LaneKind};
use lanrage_tests::lab::demo;
use lanrage_tests::lab::emulator;
use lanrage_tests::lab::impairment::ImpairedLink;
use lanrage_tests::lab::interrupt::take_down_when_interrupted;
use lanrage_tests::lab::matrix::{self, Pair, report};
use lanrage_tests::lab::nat::NatKind;
use lanrage_tests::lab::nat::behaviour::Behaviour;
use lanrage_tests::lab::party::LabStatus;
use lanrage_tests::lab::process;
use lanrage_tests::lab::router;
use lanrage_tests::lab::running::{Lab, Options, down};
use lanrage_tests::lab::site::Site;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// An internet in a box: namespaces with NATs, a control server, a relay and peers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask lab")]
struct Arguments {
    /// Tells labs that run side by side apart.
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build a lab and form a party in it.
    Up {
        /// How many; as many as --nat lists when absent, else 2.
        #[arg(long)]
        peers: Option<usize>,
        /// The peers' routers in order; the last one is repeated.
        #[arg(long, value_delimiter = ',', default_value = "symmetric")]
        nat: Vec<Site>,
        /// A link to impair, e.g. w1=delay:20+jitter:3+loss:0.5 (w1: access of peer 1, h1: its home, ctl, rly); may be
        /// repeated.
        #[arg(long, value_name = "LINK=IMPAIRMENT")]
        link: Vec<ImpairedLink>,
        /// How the relay may forward.
        #[arg(long, value_enum, default_value = "auto")]
        relay_mode: RelayMode,
    },
    /// Run a command inside a peer's network; its exit code becomes ours.
    Exec {
        /// Number or name; `control` and `relay` work too.
        peer: String,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Show relay, control server and peers.
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Give a running peer another router.
    Nat {
        /// Number or name.
        peer: String,
        /// The new kind.
        kind: NatKind,
    },
    /// Impair a link of a running lab otherwise, which was started with --link.
    Link {
        /// E.g. w1=delay:50+loss:1
        link: ImpairedLink,
    },
    /// Give the router of a running peer its other public address; all connections through it break.
    Readdress {
        /// Number or name.
        peer: String,
    },
    /// Carry the frames of impaired links, in the network namespace that this runs in.
    #[command(hide = true)]
    Emulator {
        /// All of them.
        links: Vec<ImpairedLink>,
    },
    /// Kill a daemon as a crash would.
    Kill {
        /// `control`, `relay`, or a peer.
        role: String,
    },
    /// Start a killed daemon again, or stop and start a running one.
    Restart {
        /// `control`, `relay`, or a peer.
        role: String,
    },
    /// Run pairs of routers with the real programs, and tell which talk directly.
    Matrix {
        /// Only a dozen pairs, in less than two minutes.
        #[arg(long)]
        quick: bool,
        /// Only this pair of routers, e.g. eim,symmetric; may be repeated.
        #[arg(long, value_name = "A,B", conflicts_with = "quick")]
        pairs: Vec<Pair>,
        /// Write the figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Write the table into benchmarks.md of this directory.
        #[arg(long, value_name = "DIR")]
        docs: Option<PathBuf>,
    },
    /// Play every game's discovery, answers and connections through a party, over both lanes.
    Games {
        /// Only over this lane.
        #[arg(long, value_enum)]
        lane: Option<LaneKind>,
        /// Write the rows to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Write the table into games.md of this directory.
        #[arg(long, value_name = "DIR")]
        docs: Option<PathBuf>,
    },
    /// Be the router of the network namespace that this runs in.
    #[command(hide = true)]
    Router {
        /// As which NAT.
        behaviour: Behaviour,
    },
    /// Take the lab down; nothing is left behind.
    Down,
    /// Play a LAN party across two NATs and tell how it went.
    Demo {
        /// The two peers' routers.
        #[arg(long, value_delimiter = ',', default_value = "symmetric,symmetric")]
        nat: Vec<NatKind>,
        /// Write the figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RelayMode {
    Auto,
    XdpNative,
    XdpGeneric,
    Userspace,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { name, verb }: Arguments) -> Result<()> {
    match verb {
        Verb::Up { peers, nat, link, relay_mode } => up(&name, peers, nat, link, relay_mode),
        Verb::Exec { peer, command } => Err(exec(&name, &peer, &command)?),
        Verb::Status { json } => status(&Lab::open(&name)?, json),
        Verb::Nat { peer, kind } => {
            let mut lab = Lab::open(&name)?;
            let n = peer_number(&lab, &peer)?;
            lab.change_nat(n, kind)
        }
        Verb::Link { link } => Lab::open(&name)?.change_link(&link),
        Verb::Readdress { peer } => {
            let lab = Lab::open(&name)?;
            let n = peer_number(&lab, &peer)?;
            println!("{}", lab.topology().readdress(n)?);
            Ok(())
        }
        Verb::Emulator { links } => emulator::run(&links),
        Verb::Kill { role } => {
            let mut lab = Lab::open(&name)?;
            lab.kill(lab.role(&role)?)
        }
        Verb::Restart { role } => {
            let mut lab = Lab::open(&name)?;
            lab.restart(lab.role(&role)?)
        }
        Verb::Down => {
            println!("{}", if down(&name)? { "the lab is gone" } else { "no lab was up" });
            Ok(())
        }
        Verb::Matrix { quick, pairs, json, docs } => {
            let pairs = match (quick, pairs.is_empty()) {
                (true, _) => matrix::quick()?,
                (false, true) => matrix::all()?,
                (false, false) => pairs,
            };
            run_matrix(&pairs, json.as_deref(), docs.as_deref())
        }
        Verb::Games { lane, json, docs } => {
            let lanes = lane.map_or_else(|| LaneKind::ALL.to_vec(), |lane| vec![lane]);
            run_games(&lanes, json.as_deref(), docs.as_deref())
        }
        Verb::Router { behaviour } => router::run(behaviour),
        Verb::Demo { nat, json } => demo(nat, json.as_deref()),
    }
}

fn demo(nats: Vec<NatKind>, json: Option<&Path>) -> Result<()> {
    let Ok(nats) = <[NatKind; 2]>::try_from(nats) else { bail!("--nat takes two kinds, e.g. symmetric,eim") };
    take_down_when_interrupted(demo::LAB);
    let mut report = demo::Report::default();
    let result = demo::play(nats, &mut report);
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    result.context("the demo failed")
}

fn run_matrix(pairs: &[Pair], json: Option<&Path>, docs: Option<&Path>) -> Result<()> {
    take_down_when_interrupted(matrix::LAB);
    println!("{}", report::line(report::HEADER));
    let machine = Machine::look();
    let matrix = matrix::run(matrix::LAB, pairs, |row| println!("{row}"))?;
    println!("\n{}", matrix.summary());
    if let Some(docs) = docs {
        matrix.write_page(docs, &sentence(machine))?;
    }
    if let Some(file) = json {
        let text = serde_json::to_string(&matrix)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    match matrix.missed().count() {
        0 => Ok(()),
        missed => bail!("{missed} pairs should talk directly and do not: run them alone with --pairs A,B"),
    }
}

fn run_games(lanes: &[LaneKind], json: Option<&Path>, docs: Option<&Path>) -> Result<()> {
    take_down_when_interrupted(games::LAB);
    let machine = Machine::look();
    let mut report = games::report::Report { rows: Vec::new() };
    for lane in lanes {
        println!("playing all games over the {} lane …", lane.word());
        report.rows.extend(games::run(*lane)?);
    }
    print!("\n{}", report.table(std::io::stdout().is_terminal()));
    if let Some(docs) = docs {
        report.write_page(docs, &sentence(machine))?;
    }
    if let Some(file) = json {
        let text = serde_json::to_string(&report)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    match report.red().count() {
        0 => Ok(()),
        red => bail!("{red} rows are red: what went wrong stands behind each"),
    }
}

fn sentence(machine: Machine) -> String {
    let Machine { date, kernel, cores, cpu, load_before, .. } = machine;
    format!("{date}, Linux {kernel}, {cores} cores of {cpu}, load {load_before:.1} before the run.")
}

fn up(
    name: &str,
    peers: Option<usize>,
    sites: Vec<Site>,
    links: Vec<ImpairedLink>,
    mode: RelayMode,
) -> Result<()> {
    let sites = spread(peers, sites)?;
    let relay_mode = mode.to_possible_value().context("a relay mode without a name")?.get_name().into();
    take_down_when_interrupted(name);
    println!("building a lab with {} peers …", sites.len());
    let mut lab = Lab::up(&Options { relay_mode, links, ..Options::new(name, &sites) })?;
    println!("forming a party …");
    if let Err(error) = lab.form_party().and_then(|()| lab.wait_for_paths()) {
        eprintln!("The lab is up, but the party is not complete. Logs: /run/lanrage-lab/{name}/*/log");
        return Err(error);
    }
    status(&lab, false)
}

/// One router a peer: the last one listed is repeated.
fn spread(peers: Option<usize>, mut nats: Vec<Site>) -> Result<Vec<Site>> {
    let count = peers.unwrap_or(nats.len().max(2));
    if nats.len() > count {
        bail!("--nat lists {} routers for {count} peers", nats.len());
    }
    let last = *nats.last().context("--nat is empty")?;
    nats.resize(count, last);
    Ok(nats)
}

fn peer_number(lab: &Lab, text: &str) -> Result<u8> {
    match lab.role(text)? {
        lanrage_tests::lab::role::Role::Peer(n) => Ok(n),
        role => bail!("{role} has no NAT: name a peer"),
    }
}

/// Becomes the command; returns only if that fails.
fn exec(name: &str, peer: &str, command: &[std::ffi::OsString]) -> Result<anyhow::Error> {
    let lab = Lab::open(name)?;
    let role = lab.role(peer)?;
    lab.namespace(role).enter()?;
    let mut program = Command::new(&command[0]);
    program.args(&command[1..]).env("LANRAGE_SOCKET", lab.socket(role));
    if let Ok(daemon) = process::program("lanrage-daemon") {
        let own = daemon.parent().map(|dir| dir.to_path_buf());
        let path = std::env::var_os("PATH").unwrap_or_default();
        program.env("PATH", std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)))?);
    }
    let error = program.exec();
    Ok(anyhow::Error::new(error).context(format!("cannot run {}", command[0].display())))
}

fn status(lab: &Lab, json: bool) -> Result<()> {
    let status = lab.status();
    if json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        print!("{}", table(&status));
    }
    Ok(())
}

fn table(status: &LabStatus) -> String {
    let mut text = format!(
        "relay    {} ({})\ncontrol  {}\n\n{:<3} {:<8} {:<12} {:<12} PATH\n",
        status.relay.addr, status.relay.mode, status.control.url, "N", "NAME", "OVERLAY", "NAT"
    );
    for peer in &status.peers {
        let overlay = peer.overlay.map_or("-".into(), |address| address.to_string());
        let others = peer
            .paths
            .iter()
            .map(|(name, path)| format!(" {name}={}", lanrage_tests::lab::party::path_word(*path)));
        let others: String = others.collect();
        let nat = peer.nat.to_string();
        text += &format!("{:<3} {:<8} {overlay:<12} {nat:<12} {}{others}\n", peer.n, peer.name, peer.path);
    }
    text
}
