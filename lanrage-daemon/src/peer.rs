//! The peer role: tunnel, paths, lane and party membership of this device.

pub mod tunnel;

use lanrage_common::api::{
    ControlStatus, CreatePartyRequest, DeviceStatus, InviteAnswer, InviteRequest, JoinRequest, PartyStatus,
    PingAnswer, PingRequest, Problem,
};
use lanrage_common::protocol::ErrorBody;
use tokio::sync::{mpsc, oneshot, watch};

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
    /// Brings the tunnel up.
    Up(Reply<()>),
    /// Takes the tunnel down; the membership stays.
    Down(Reply<()>),
    /// Pings a member through the tunnel.
    Ping(PingRequest, Reply<PingAnswer>),
}

/// A running peer.
#[derive(Debug, Clone)]
pub struct PeerHandle {
    /// Changes at most four times a second.
    pub status: watch::Receiver<PeerStatus>,
    /// Commands.
    pub commands: mpsc::Sender<PeerCommand>,
}
