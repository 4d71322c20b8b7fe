//! The peer role: tunnel, paths, lane and party membership of this device.

mod behind;
mod bulletins;
mod commands;
mod configure;
mod event_loop;
mod firewall;
mod games;
mod invite;
mod lengths;
mod nat;
mod network;
mod ping;
pub(crate) mod port_mapping;
mod relays;
mod session;
pub(crate) mod socket;
mod spares;
mod status;
pub(crate) mod store;
pub(crate) mod tls;
mod trace;
pub mod tunnel;
mod wire;

use crate::config::{Config, GatewayConfig, PeerConfig};
use crate::shutdown::Shutdown;
use lanrage_common::api::{
    AddDeviceAnswer, AddDeviceRequest, ControlStatus, CreatePartyRequest, DeviceStatus, FirewallRequest,
    FirewallStatus, GamesStatus, GatewayStatus, InviteAnswer, InviteRequest, JoinRequest, NetworkStatus,
    PartyStatus, PingAnswer, PingRequest, Problem, RemoveDeviceRequest, RevokeRequest, RunAnswer, RunRequest,
};
use lanrage_common::protocol::ErrorBody;
use std::path::Path;
use tokio::sync::{mpsc, oneshot, watch};

const COMMANDS: usize = 32;

/// The peer's part of `api::Status`.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// Whether the tunnel is meant to be up.
    pub up: bool,
    /// This device.
    pub device: DeviceStatus,
    /// The party, when in one.
    pub party: Option<PartyStatus>,
    /// The control server, when in a party.
    pub control: Option<ControlStatus>,
    /// The network around it, while the tunnel is up.
    pub network: Option<NetworkStatus>,
    /// The gateway, while it is used.
    pub gateway: Option<GatewayStatus>,
    /// What other members reach here.
    pub firewall: FirewallStatus,
    /// Games that run here.
    pub games: GamesStatus,
    /// What a person should know.
    pub problems: Vec<Problem>,
}

/// Where the answer to a command goes.
pub type Reply<T> = oneshot::Sender<Result<T, ErrorBody>>;

/// What the local API asks of the peer.
#[derive(Debug)]
pub enum PeerCommand {
    /// Founds a party and makes a first invite.
    CreateParty(CreatePartyRequest, Reply<InviteAnswer>),
    /// Joins by invite link; answered when the membership is granted and the host's entry verified.
    Join(JoinRequest, Reply<()>),
    /// Leaves the party.
    Leave(Reply<()>),
    /// Makes an invite.
    Invite(InviteRequest, Reply<InviteAnswer>),
    /// Takes an invite back.
    Revoke(RevokeRequest, Reply<()>),
    /// Says something about the party firewall.
    Firewall(FirewallRequest, Reply<()>),
    /// Brings the tunnel up.
    Up(Reply<()>),
    /// Takes the tunnel down; the membership stays.
    Down(Reply<()>),
    /// Finds out anew how the network behaves.
    Netcheck(Reply<NetworkStatus>),
    /// Takes a device with a plain WireGuard client in.
    AddDevice(AddDeviceRequest, Reply<AddDeviceAnswer>),
    /// Turns one out.
    RemoveDevice(RemoveDeviceRequest, Reply<()>),
    /// Pings a member through the tunnel.
    Ping(PingRequest, Reply<PingAnswer>),
    /// Makes a program use the party.
    Run(RunRequest, Reply<RunAnswer>),
    /// Works with other settings from now on.
    Configure(Box<Config>, Reply<()>),
    /// Tells what a person should know of these home networks; refuses those that cannot take part.
    CheckLan(Box<GatewayConfig>, Reply<Vec<String>>),
}

/// A running peer.
#[derive(Debug, Clone)]
pub struct PeerHandle {
    /// Changes at most five times a second.
    pub status: watch::Receiver<PeerStatus>,
    /// Commands.
    pub commands: mpsc::Sender<PeerCommand>,
}

/// Starts the peer: opens its socket, restores its party, and runs until `shutdown` or until all command senders are
/// gone. The status channel closes when it has cleaned up.
pub async fn start(
    config: &PeerConfig,
    gateway: &GatewayConfig,
    state_dir: &Path,
    shutdown: Shutdown,
) -> anyhow::Result<PeerHandle> {
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let (peer, status) = event_loop::Peer::open(config, gateway, state_dir)?;
    tokio::spawn(peer.run(receiver, shutdown));
    Ok(PeerHandle { status, commands })
}
