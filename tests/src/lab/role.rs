//! The daemons of a lab: where each runs and how it is configured.

use super::netns::Namespace;
use super::state::{State, pin_dir};
use super::topology::{CONTROL_ADDRESS, RELAY_ADDRESS, SPARE_RELAY_ADDRESS, Topology};
use anyhow::{Result, bail};
use std::fmt;
use std::net::SocketAddr;

const CONTROL_PORT: u16 = 8667;
const RELAY_PORT: u16 = 3478;
const DETOUR_PORT: u16 = 3490;

/// One daemon of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The control server.
    Control,
    /// The relay.
    Relay,
    /// A second relay, farther away: members reach it by a [`super::detour::Detour`].
    SpareRelay,
    /// Peer `n`, from 1.
    Peer(u8),
}

impl Role {
    /// `control`, `relay`, or a peer's number or name.
    pub fn parse(text: &str, state: &State) -> Result<Self> {
        match text {
            "control" => return Ok(Self::Control),
            "relay" => return Ok(Self::Relay),
            "relay2" if state.spare_relay => return Ok(Self::SpareRelay),
            _ => {}
        }
        let found = state.peers.iter().find(|peer| peer.name == text || peer.n.to_string() == text);
        match found {
            Some(peer) => Ok(Self::Peer(peer.n)),
            None => {
                let names: Vec<String> =
                    state.peers.iter().map(|p| format!("{} ({})", p.n, p.name)).collect();
                bail!("there is no {text:?} in this lab: its peers are {}", names.join(", "))
            }
        }
    }

    /// Where it runs.
    pub fn namespace(self, topology: &Topology) -> Namespace {
        match self {
            Self::Control => topology.control(),
            Self::Relay => topology.relay(),
            Self::SpareRelay => topology.spare_relay(),
            Self::Peer(n) => topology.peer(n),
        }
    }

    /// Its configuration file, without the paths.
    pub fn settings(self, state: &State) -> String {
        let (control, relay) = (control_url(), relay_address());
        match self {
            Self::Control => format!(
                "role = 'control'\n[control]\nlisten = '{CONTROL_ADDRESS}:{CONTROL_PORT}'\npublic_url = '{control}'\n\
                 relay_token = '{}'\n",
                state.relay_token
            ),
            Self::Relay => format!(
                "role = 'relay'\n[relay]\nlisten = '{relay}'\npublic_address = '{relay}'\nname = 'lab'\n\
                 control = '{control}'\ntoken = '{}'\nmode = '{}'\npin_dir = '{}'\n",
                state.relay_token,
                state.relay_mode,
                pin_dir(&state.name).display()
            ),
            Self::SpareRelay => format!(
                "role = 'relay'\n[relay]\nlisten = '{}'\npublic_address = '{}'\nname = 'away'\nregion = 'far'\n\
                 control = '{control}'\ntoken = '{}'\nmode = 'userspace'\n",
                spare_relay_address(),
                detour_address(),
                state.relay_token
            ),
            Self::Peer(n) => {
                let name = &state.peers[usize::from(n - 1)].name;
                format!(
                    "role = 'peer'\n[peer]\nname = '{name}'\ncontrol = '{control}'\nlane = '{}'\nlane_services = {:?}\n",
                    state.lane, state.lane_services
                )
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Relay => f.write_str("relay"),
            Self::SpareRelay => f.write_str("relay2"),
            Self::Peer(n) => write!(f, "p{n}"),
        }
    }
}

/// Origin of the lab's control server.
pub fn control_url() -> String {
    format!("http://{CONTROL_ADDRESS}:{CONTROL_PORT}")
}

/// Where the lab's relay listens.
pub fn relay_address() -> SocketAddr {
    (RELAY_ADDRESS, RELAY_PORT).into()
}

/// Where the second relay listens.
pub fn spare_relay_address() -> SocketAddr {
    (SPARE_RELAY_ADDRESS, RELAY_PORT).into()
}

/// Where members reach it.
pub fn detour_address() -> SocketAddr {
    (SPARE_RELAY_ADDRESS, DETOUR_PORT).into()
}
