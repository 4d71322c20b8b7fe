//! Configuration: `/etc/lanrage/lanrage.toml`, overridden by environment and flags.
//!
//! Layers, later ones win:
//! 1. the defaults below,
//! 2. the file (`--config`, else `LANRAGE_CONFIG`, else [`DEFAULT_FILE`], which may be missing),
//! 3. `state_dir/settings.toml`: what was changed in the web UI (see [`crate::settings`]),
//! 4. the environment: `LANRAGE_` + the key in capitals, sections joined by two underscores, e.g.
//!    `LANRAGE_CONTROL__LISTEN=0.0.0.0:8667`; lists are separated by commas; an empty value unsets an optional key,
//! 5. flags: `--set control.listen=0.0.0.0:8667` and the short forms that `lanrage-daemon --help` lists.
//!
//! Every key is checked where it was written, so that a complaint can name the line, variable or flag.

mod keys;
mod load;
mod validate;

pub use load::{Complaint, ConfigError, Loaded, Sources, load};
pub(crate) use load::{load_with, settings_file};
pub use validate::origin as check_origin;

use clap::ValueEnum;
use ipnet::Ipv4Net;
use lanrage_common::firewall::{Mode, PortRange};
use lanrage_common::lane::Service;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Read when no file is named; may be missing.
pub const DEFAULT_FILE: &str = "/etc/lanrage/lanrage.toml";

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Connects this machine to its party.
    Peer,
    /// Forwards packets of members who cannot reach each other.
    Relay,
    /// Keeps parties, invites and rosters.
    Control,
    /// Control server, relay and peer in one process.
    All,
}

/// Every setting, with its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What this process does; the command line's role wins.
    pub role: Role,
    /// Keys, leases, party state (mode 0700).
    pub state_dir: PathBuf,
    /// Unix socket of the local API.
    pub socket: PathBuf,
    /// Loopback address of web UI and REST.
    pub ui: SocketAddr,
    /// Lets `ui` be an address that other machines reach. The token still protects it, but it travels unencrypted.
    pub ui_allow_remote: bool,
    /// What is logged, and how.
    pub log: LogConfig,
    /// The control server role.
    pub control: ControlConfig,
    /// The relay role.
    pub relay: RelayConfig,
    /// The peer role.
    pub peer: PeerConfig,
    /// Devices that take part through this machine.
    pub gateway: GatewayConfig,
    /// What Discord is told.
    pub discord: DiscordConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            role: Role::Peer,
            state_dir: "/var/lib/lanrage".into(),
            socket: "/run/lanrage/lanrage.sock".into(),
            ui: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8666),
            ui_allow_remote: false,
            log: LogConfig::default(),
            control: ControlConfig::default(),
            relay: RelayConfig::default(),
            peer: PeerConfig::default(),
            gateway: GatewayConfig::default(),
            discord: DiscordConfig::default(),
        }
    }
}

/// What Discord is told; nothing at first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscordConfig {
    /// Lets `lanrage discord` show what is played here.
    pub presence: bool,
    /// Number of the application of Discord's that shows it.
    pub client_id: Option<ApplicationId>,
    /// Shows the party's name as well.
    pub party_name: bool,
    /// Address of a channel that hears what happens in the party. A secret: who has it can write there.
    pub webhook: Option<String>,
}

/// Number of an application of Discord's, written as a number or as text: browsers do not count that far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenId")]
pub struct ApplicationId(pub String);

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenId {
    Number(u64),
    Text(String),
}

impl TryFrom<WrittenId> for ApplicationId {
    type Error = &'static str;

    fn try_from(written: WrittenId) -> Result<Self, Self::Error> {
        let text = match written {
            WrittenId::Number(number) => number.to_string(),
            WrittenId::Text(text) => text,
        };
        if (15..=22).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self(text));
        }
        Err("not the Application ID that https://discord.com/developers/applications shows")
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Text for people, or an object a line.
    pub format: LogFormat,
    /// A level, or a filter of `tracing`.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line, with party, member and relay as fields of their own.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        // aya warns, with the kernel's whole answer, of type information that nothing here needs
        let filter = "info,sqlx=warn,hyper=warn,rustls=warn,aya::bpf=error".into();
        Self { format: LogFormat::Text, filter }
    }
}

/// The control server role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlConfig {
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// Origin that invite links carry, e.g. `https://play.example`; guessed from `listen` and the default route when absent.
    pub public_url: Option<String>,
    /// Take clients' addresses from `X-Forwarded-For`: only with a reverse proxy of your own in front of `listen`.
    pub behind_proxy: bool,
    /// What relays must present; made at first start and stored in `state_dir/relay-token` when absent.
    pub relay_token: Option<String>,
    /// Subnet of new parties.
    pub subnet: Ipv4Net,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8667),
            public_url: None,
            behind_proxy: false,
            relay_token: None,
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 66, 0, 0), 16),
        }
    }
}

/// How the relay may forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayModeChoice {
    /// The best that works: native XDP, generic XDP, userspace.
    Auto,
    /// Native XDP or userspace.
    XdpNative,
    /// Generic XDP or userspace.
    XdpGeneric,
    /// Userspace only.
    Userspace,
}

/// Whether and where the relay takes TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TlsListen {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl TryFrom<String> for TlsListen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "off" => Ok(Self::Off),
            text => text
                .parse()
                .map(Self::At)
                .map_err(|_| format!("{text:?} is neither an address with a port nor \"off\"")),
        }
    }
}

impl From<TlsListen> for String {
    fn from(listen: TlsListen) -> Self {
        match listen {
            TlsListen::Off => "off".into(),
            TlsListen::At(address) => address.to_string(),
        }
    }
}

/// Who forwards packets whose headers change in size: between IPv4 and IPv6, into and out of VLANs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixedChoice {
    /// The kernel where all drivers are known to leave room in front of a frame, else the daemon.
    Auto,
    /// The kernel; frames without room go to the daemon one by one.
    Kernel,
    /// The daemon.
    Userspace,
}

/// The relay role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// IPv6 address to listen on as well; `[::]` with `listen`'s port when absent and `listen` is `0.0.0.0`.
    pub listen6: Option<SocketAddr>,
    /// Address told to members; `listen`, or with an unspecified `listen` the default route's source address, when absent.
    pub public_address: Option<SocketAddr>,
    /// IPv6 address told to members as well; the default route's source address when absent and it is a global one.
    pub public_address6: Option<SocketAddr>,
    /// Second port, for members to test how their routers behave (RFC 5780); 0 = no such tests.
    pub alternate_port: u16,
    /// Second address of this machine, for more of these tests.
    pub alternate_address: Option<IpAddr>,
    /// Threads that forward what the kernel program does not; 0 = one for each core.
    pub workers: u16,
    /// Name at the control server; the host name when absent.
    pub name: Option<String>,
    /// Free text such as `eu-west`.
    pub region: String,
    /// Origin of the control server.
    pub control: Option<String>,
    /// The control server's `relay_token`.
    pub token: Option<String>,
    /// Network interfaces for XDP; the one that has `listen`'s address when empty.
    pub interfaces: Vec<String>,
    /// How it may forward.
    pub mode: RelayModeChoice,
    /// Flows the kernel table holds.
    pub max_flows: u32,
    /// Who forwards between IPv4 and IPv6.
    pub mixed: MixedChoice,
    /// Data packets a second for all members together; 0 = unlimited.
    pub max_packets_per_s: u64,
    /// Data in Mbit a second for all members together; 0 = unlimited.
    pub max_mbit_per_s: u64,
    /// Directory in bpffs where kernel program and maps outlive the daemon; empty = they end with it.
    pub pin_dir: PathBuf,
    /// Members of one party bound at once.
    pub max_party_members: u32,
    /// Flows of one party; half of `max_flows` when absent.
    pub max_party_flows: Option<u32>,
    /// TCP address on which anybody may read the relay's metrics; nowhere when absent.
    pub metrics_listen: Option<SocketAddr>,
    /// TCP address on which members whose network blocks UDP are taken.
    pub tls_listen: TlsListen,
    /// That address as members reach it; `public_address` with the port of `tls_listen` when absent.
    pub tls_public_address: Option<SocketAddr>,
    /// Certificate chain (PEM); made at first start when absent.
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
}

impl RelayConfig {
    /// The IPv6 address to listen on besides `listen`, which has got that port.
    pub fn second_listen(&self, port: u16) -> Option<SocketAddr> {
        match self.listen6 {
            Some(listen6) => {
                Some(SocketAddr::new(listen6.ip(), if listen6.port() == 0 { port } else { listen6.port() }))
            }
            None => (self.listen.ip() == Ipv4Addr::UNSPECIFIED)
                .then(|| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)),
        }
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 3478),
            listen6: None,
            public_address: None,
            public_address6: None,
            alternate_port: 3479,
            alternate_address: None,
            workers: 0,
            name: None,
            region: String::new(),
            control: None,
            token: None,
            interfaces: Vec::new(),
            mode: RelayModeChoice::Auto,
            max_flows: 65_536,
            mixed: MixedChoice::Auto,
            max_packets_per_s: 0,
            max_mbit_per_s: 0,
            pin_dir: "/sys/fs/bpf/lanrage".into(),
            max_party_members: 1024,
            max_party_flows: None,
            metrics_listen: None,
            tls_listen: TlsListen::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 443)),
            tls_public_address: None,
            tls_cert: None,
            tls_key: None,
        }
    }
}

/// Who carries group packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaneChoice {
    /// The kernel where it can, else the daemon.
    Auto,
    /// The same, with a warning when it is the daemon.
    Kernel,
    /// The daemon.
    Userspace,
}

/// The peer role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerConfig {
    /// Name shown to others; the host name when absent.
    pub name: Option<String>,
    /// Origin of the control server for new parties (invites name their own).
    pub control: Option<String>,
    /// Origin written into invite links, when friends reach the control server by another one than this machine;
    /// `control` when absent.
    pub invite_origin: Option<String>,
    /// Name of the network interface.
    pub interface: String,
    /// UDP port of the tunnel; 0 = a random one, kept in the state directory.
    pub port: u16,
    /// Bytes a packet on the interface may have.
    pub mtu: u16,
    /// Whether to ask the router to forward the tunnel's port (UPnP, NAT-PMP, PCP).
    pub port_mapping: bool,
    /// Further servers, as host:port, that are asked how this network's NAT behaves.
    pub stun_servers: Vec<String>,
    /// Who carries broadcast and multicast.
    pub lane: LaneChoice,
    /// Discovery services of whole systems that are carried as well: `mdns`, `ssdp`, `wsd`.
    pub lane_services: Vec<Service>,
    /// What other members reach on this machine; `lanrage firewall` has the last word.
    pub firewall: Mode,
    /// Ports that are open to other members whoever listens there.
    pub allow: Vec<PortRange>,
    /// Tells the other members which game runs here.
    pub share_game: bool,
    /// Marks the datagrams that carry a running game's packets, so that routers put them first.
    pub qos: bool,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            name: None,
            control: None,
            invite_origin: None,
            interface: "lanrage0".into(),
            port: 0,
            mtu: 1420,
            port_mapping: true,
            stun_servers: Vec::new(),
            lane: LaneChoice::Auto,
            lane_services: Vec::new(),
            firewall: Mode::Games,
            allow: Vec::new(),
            share_game: true,
            qos: true,
        }
    }
}

/// Devices that take part through this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// UDP address where plain WireGuard clients are taken; open while there are any.
    pub listen: SocketAddr,
    /// Interfaces of the home networks whose devices take part. One alone may be written without brackets.
    #[serde(deserialize_with = "one_or_more")]
    pub lan: Vec<String>,
    /// Addresses there for members, as `FIRST-LAST`, for several networks with commas; the upper half of each network when
    /// absent.
    pub alias_range: Option<String>,
}

impl GatewayConfig {
    /// First and last of each part of `alias_range`; none when it cannot be read.
    pub fn aliases(&self) -> Option<Vec<(Ipv4Addr, Ipv4Addr)>> {
        let parts = self.alias_range.as_deref().unwrap_or_default().split(',').map(str::trim);
        let range = |part: &str| {
            let (first, last) = part.split_once('-')?;
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last).then_some((first, last))
        };
        parts.filter(|part| !part.is_empty()).map(range).collect()
    }
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "the name of an interface, or a list of them")]
    enum Names {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Names::deserialize(value)? {
        Names::One(name) => vec![name],
        Names::Many(names) => names,
    })
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 51820),
            lan: Vec::new(),
            alias_range: None,
        }
    }
}
