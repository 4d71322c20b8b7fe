//! What can be typed.

use clap::{Args, Parser, Subcommand};
use lanrage_common::firewall::PortRange;
use lanrage_common::identity::WgKey;
use std::ffi::OsString;
use std::path::PathBuf;

const FIRST_STEPS: &str = "\
First steps:
  lanrage party create \"Friday night\"   found a party; prints the link for your friends
  lanrage join 'LINK'                   take part, at each friend's
  lanrage status                        who is there, and how they are reached
  lanrage doctor                        when something does not work
Exit codes: 0 done, 1 refused, 2 wrong usage, 3 the daemon is not running";

/// LANrage: a LAN party over the internet.
#[derive(Debug, Parser)]
#[command(name = "lanrage", version, arg_required_else_help = true, after_help = FIRST_STEPS)]
pub struct Arguments {
    /// Print the daemon's answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Socket of the daemon.
    #[arg(
        long,
        global = true,
        env = "LANRAGE_SOCKET",
        value_name = "PATH",
        default_value = super::client::DEFAULT_SOCKET
    )]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show everything: party, members, control server, relay, problems.
    Status(Watch),
    /// Show one line per member: address, path, round trip, why.
    Peers(Watch),
    /// Show one line per relay: state, load, round trip, who is reached through it, why.
    Relays(Watch),
    /// Take the tunnel up again.
    Up,
    /// Take the tunnel down; the membership stays.
    Down,
    /// Found, join or leave a party, or invite to it.
    #[command(subcommand)]
    Party(Party),
    /// Join a party by its invite link.
    Join(Join),
    /// Leave the party.
    Leave,
    /// Make an invite link. On a terminal also shown as QR code.
    Invite(Invite),
    /// Ping a member through the tunnel.
    Ping {
        /// Name, its unique start, or address.
        name: String,
        /// How many times.
        #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
        count: u32,
    },
    /// Show what games ask everybody and how far it came: seen, copied, delivered, answered, and what helps. Quits on q.
    Trace {
        /// A game, by a part of its name, or a UDP port. All when absent.
        #[arg(value_name = "GAME|PORT")]
        what: Option<String>,
        /// Show it as it is now and end.
        #[arg(long)]
        once: bool,
    },
    /// Start a program so that it uses the party, whatever network it is set to. In Steam: lanrage run -- %command%
    Run {
        /// The program and its arguments.
        #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
    /// Show the game servers that run at members: what is played, who plays, round trip, the address to join.
    Servers(Watch),
    /// Show how members reach each other, and who should host.
    Matrix(Watch),
    /// Show what other members reach on this machine and what was refused, or change it. What you say here is kept.
    Firewall {
        /// What to change.
        #[command(subcommand)]
        change: Option<Firewall>,
    },
    /// Check what could stand in the way of playing, each with its cure. Exit code 1 when something is bad.
    Doctor,
    /// Find out how this network treats LANrage: UDP, addresses, the router's NAT, forwarded ports, relays.
    Netcheck {
        /// Ask this STUN server from a socket of its own, also without a daemon. Can be repeated.
        #[arg(long = "server", value_name = "HOST:PORT")]
        servers: Vec<String>,
    },
    /// Let devices without LANrage take part through this machine; alone: show how that goes.
    #[command(args_conflicts_with_subcommands = true)]
    Gateway {
        #[command(flatten)]
        watch: Watch,
        /// What to do.
        #[command(subcommand)]
        command: Option<Gateway>,
    },
    /// Show which games LANrage knows: how they are found in a party, on which ports they are played, what to do.
    Games(Games),
    /// Give the party the mods in a folder, or take a member's, checked file by file.
    #[command(subcommand)]
    Mods(Mods),
    /// Print the link that opens the web UI. It is for you only.
    Ui,
    /// Show in Discord what you play, as long as this runs. Start it as yourself, not as root; settings: discord.
    Discord,
    /// Show the settings that can be changed while the daemon runs, or change one.
    Settings {
        /// Which, e.g. peer.name.
        #[arg(requires = "value")]
        key: Option<String>,
        /// Its new value: text, a number, true or false, or a JSON list; `unset` goes back to the configuration file.
        value: Option<String>,
    },
    /// Write everything that helps to find out what is wrong into one file, without keys, tokens, invites and secrets.
    Bundle {
        /// The file, or - for standard output; lanrage-support-TIME.json when absent.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show the last lines of the daemon's log, without secrets.
    Log,
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// For the operator of a relay.
    #[command(subcommand)]
    Relay(Relay),
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command.
    Man {
        /// Where to: man1 in it is made.
        #[arg(value_name = "DIR", default_value = "/usr/local/share/man")]
        dir: PathBuf,
    },
}

/// Looking once, or again and again.
#[derive(Debug, Args)]
pub struct Watch {
    /// Show it anew every second, until Ctrl-C.
    #[arg(short, long)]
    pub watch: bool,
}

/// What a relay's operator asks.
#[derive(Debug, Subcommand)]
pub enum Relay {
    /// Explain how a relay would forward on this host, and what would better it. Needs no daemon.
    Check(Check),
    /// Show traffic, members and reasons as they change. Quits on q.
    Top {
        /// Show one second and end.
        #[arg(long)]
        once: bool,
        /// Members to show.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 15)]
        members: usize,
    },
    /// Show the relay of the running daemon.
    Status,
    /// Move its members to other relays; when they are gone, it leaves the kernel and ends. Waits for that.
    Drain {
        /// Take members again instead.
        #[arg(long)]
        undo: bool,
        /// Do not wait.
        #[arg(long, conflicts_with = "undo")]
        no_wait: bool,
        /// End after this many seconds even if members are left.
        #[arg(long, value_name = "SECONDS", default_value_t = 600, conflicts_with = "undo")]
        within: u32,
        /// End at once, whoever is left.
        #[arg(long, conflicts_with_all = ["undo", "within"])]
        now: bool,
    },
}

/// What can be done with the gateway on this machine.
#[derive(Debug, Subcommand)]
pub enum Gateway {
    /// Let the devices of home networks take part, without any software on them. Counts at once and is kept.
    Lan {
        /// Interfaces of the home networks, such as eth0; `off` ends it.
        #[arg(required = true, value_name = "INTERFACE")]
        interfaces: Vec<String>,
        /// Addresses there under which members are found: free ones that the router's DHCP does not hand out. For several
        /// networks with commas between.
        #[arg(long, value_name = "FIRST-LAST")]
        alias_range: Option<String>,
    },
    /// Take a device with a plain WireGuard client in: prints the file for it, on a terminal also as QR code. Shown once.
    AddDevice {
        /// Its name, shown to everybody in the party.
        name: String,
        /// Where the device reaches this machine; this machine's address at home when absent.
        #[arg(long, value_name = "HOST[:PORT]")]
        endpoint: Option<String>,
        /// The public key that the device has made itself; otherwise a key pair is made.
        #[arg(long, value_name = "KEY")]
        public_key: Option<WgKey>,
    },
    /// Show everything, as without a word behind `gateway`.
    Overview(Watch),
    /// Show one line per device.
    Devices(Watch),
    /// Turn a device out.
    RemoveDevice {
        /// Its name.
        name: String,
    },
}

/// What can be done with mods.
#[derive(Debug, Subcommand)]
pub enum Mods {
    /// Offer a folder to the party, as it is now, until Ctrl-C.
    Share {
        /// The folder.
        #[arg(value_name = "FOLDER")]
        dir: PathBuf,
        /// What friends read; the folder's name when absent.
        #[arg(long)]
        name: Option<String>,
    },
    /// Show who shares what.
    List,
    /// Compare a folder with what a member shares. Exit code 1 when something lacks or differs.
    Check {
        /// Name, its unique start, or address.
        member: String,
        /// The folder.
        #[arg(value_name = "FOLDER")]
        dir: PathBuf,
    },
    /// Bring what lacks in a folder from a member. Files that differ are kept, and nothing is ever deleted.
    Get {
        /// Name, its unique start, or address.
        member: String,
        /// The folder; made if need be.
        #[arg(value_name = "FOLDER")]
        dir: PathBuf,
        /// Take the member's where files differ.
        #[arg(long)]
        replace: bool,
    },
}

/// Looking at a host.
#[derive(Debug, Args)]
pub struct Check {
    /// This interface alone; otherwise every one that is up and has an address.
    #[arg(short, long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Attach the program for a moment, to know instead of to suppose. Some drivers interrupt the link for a moment then.
    #[arg(long = "try")]
    pub try_attach: bool,
    /// The relay's configuration file; the daemon's default when absent.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What can be done with a party; the last three also exist without `party` in front.
#[derive(Debug, Subcommand)]
pub enum Party {
    /// Found a party and make a first invite.
    Create {
        /// Its name.
        name: String,
        /// Control server; the configured one when absent.
        #[arg(long, value_name = "URL")]
        control: Option<String>,
    },
    /// Join a party by its invite link.
    Join(Join),
    /// Leave the party.
    Leave,
    /// Make an invite link. On a terminal also shown as QR code.
    Invite(Invite),
}

/// What can be said about the party firewall. Ports are written as tcp/25565 or udp/27015-27020.
#[derive(Debug, Subcommand)]
pub enum Firewall {
    /// Let members reach everything on this machine.
    Open,
    /// Let members reach games alone, as at first.
    Close,
    /// Open ports whoever listens there.
    Allow {
        /// Which.
        #[arg(required = true, value_name = "PORTS")]
        ports: Vec<PortRange>,
    },
    /// Close ports whoever listens there.
    Deny {
        /// Which.
        #[arg(required = true, value_name = "PORTS")]
        ports: Vec<PortRange>,
    },
    /// Take back what was said about ports: open while a game listens there.
    Auto {
        /// Which.
        #[arg(required = true, value_name = "PORTS")]
        ports: Vec<PortRange>,
    },
}

/// Joining.
#[derive(Debug, Args)]
pub struct Join {
    /// The whole link in quotes, or - to read it from standard input, where other users cannot see it.
    pub link: String,
}

/// Inviting.
#[derive(Debug, Args)]
pub struct Invite {
    /// How long it shall be valid: 90s, 30m, 24h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub expires: Option<u64>,
    /// How many devices may use it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=254))]
    pub uses: Option<u32>,
    /// Take this invite back instead of making one; who has joined by it stays.
    #[arg(long, value_name = "LINK", conflicts_with_all = ["expires", "uses"])]
    pub revoke: Option<String>,
}

/// Looking at games.
#[derive(Debug, Args)]
pub struct Games {
    /// Only those whose id, name or titles have this in them.
    pub name: Option<String>,
    /// Only those that run now, here and, by what they tell, at the other members.
    #[arg(long, conflicts_with_all = ["name", "directory"])]
    pub running: bool,
    /// Show it anew every second, until Ctrl-C.
    #[arg(short, long, requires = "running")]
    pub watch: bool,
    /// Check profiles that you write instead: what is wrong, and in which line. Exit code 1 when anything is.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["name", "directory", "running"])]
    pub check: Vec<PathBuf>,
    /// Where your own profiles are, which replace built-in ones.
    #[arg(long, value_name = "DIR", default_value = crate::games::DIRECTORY)]
    pub directory: PathBuf,
}

/// Looking at the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration that the daemon would start with.
    Check {
        /// The file; the daemon's default when absent.
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// `90s`, `30m`, `24h`, `7d` as seconds.
fn duration(text: &str) -> Result<u64, String> {
    const WANTED: &str = "write a number and a unit: 90s, 30m, 24h, 7d";
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or(WANTED)?;
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(WANTED.into()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).ok_or_else(|| WANTED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_contradictions() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(
            ["90s", "30m", "24h", "7d"].map(|text| duration(text).unwrap()),
            [90, 1800, 86_400, 604_800]
        );
        for text in ["", "h", "24", "1w", "-1h", "1.5h", "99999999999999999999d", "18446744073709551615d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
