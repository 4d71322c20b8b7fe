//! What is known of a game, as it is written in its file.

use super::value::{GamePorts, Payload, Ports, Target};
use lanrage_common::lane::Service;
use lanrage_common::marks::Qos;
use lanrage_common::servers::{Beacon, Query};
use serde::{Deserialize, Serialize};

/// One game, or several that look the same on the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The game, or what several have in common.
    pub name: String,
    /// Titles, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub titles: Vec<String>,
    /// How it can be played in a party.
    pub support: Support,
    /// What a player must know or do; for games that cannot be played here, why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Where these facts come from.
    pub source: String,
    /// How well they are known.
    pub evidence: Evidence,
    /// Ports on which a host is played with, e.g. `udp/27960`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<GamePorts>,
    /// How its packets are treated on the way while it runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub qos: Qos,
    /// By which programs it is known to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessNames>,
    /// A service that the lane must be told to carry: see `peer.lane_services`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// How its servers are asked what is played there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<ServerQuery>,
    /// What its hosts announce by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<Announcement>,
    /// How its LAN list is filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
}

/// What hosts of a game announce by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// How it is read.
    pub format: Beacon,
    /// The UDP ports that it goes to.
    pub ports: Vec<Ports>,
}

/// How servers of a game are asked what is played there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerQuery {
    /// In which protocol.
    pub protocol: Query,
    /// At these ports, one of which is a server's.
    pub ports: Vec<Ports>,
}

/// Names of a game's programs, clients and servers, without directories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessNames {
    /// On Linux.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub linux: Vec<String>,
    /// On Windows, and under Wine and Proton; upper and lower case are the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// On macOS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macos: Vec<String>,
    /// Whole arguments that tell what an interpreter such as `java` runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Where these names come from.
    pub source: String,
}

fn is_default(qos: &Qos) -> bool {
    *qos == Qos::default()
}

/// How a game can be played in a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// Hosts appear in the game's own list.
    LanList,
    /// Players type the host's address in the party.
    DirectIp,
    /// It has a LAN mode, but how hosts are found is not known.
    Unchecked,
    /// It has a LAN mode, but one that does not use IP: a virtual LAN of IP cannot carry it.
    NotCarried,
    /// It only talks to servers of its publisher, or has nothing to play over a network: a LAN does not help.
    OnlineOnly,
}

impl Support {
    /// As files write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::LanList => "lan-list",
            Self::DirectIp => "direct-ip",
            Self::Unchecked => "unchecked",
            Self::NotCarried => "not-carried",
            Self::OnlineOnly => "online-only",
        }
    }
}

/// How well facts are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The game itself runs in this project's tests.
    Tested,
    /// Read in source code of the game or its engine.
    SourceCode,
    /// Read in programs that talk to the game.
    Tool,
    /// The vendor's documentation.
    Vendor,
    /// Reports and descriptions of others.
    WriteUp,
}

impl Evidence {
    /// As files write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tested => "tested",
            Self::SourceCode => "source-code",
            Self::Tool => "tool",
            Self::Vendor => "vendor",
            Self::WriteUp => "write-up",
        }
    }
}

/// The packets to everybody by which players find a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    /// What it takes to carry it.
    pub classes: Vec<Class>,
    /// Who sends to everybody.
    pub sender: Sender,
    /// Where to.
    pub to: Vec<Target>,
    /// To these UDP ports, all at once.
    pub ports: Vec<Ports>,
    /// From this port; from any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Each packet is sent so many times in a row.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub repeat: u8,
    /// Time to live; the system's when absent: 64, and 1 for groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// How the packet begins, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// Bytes of the whole payload, when it is longer than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u16>,
    /// How it is answered.
    pub reply: Reply,
    /// The answer goes to this port; when absent to the port that the packet came from, or for everybody to the first of
    /// `ports`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_port: Option<u16>,
}

const fn once() -> u8 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
const fn is_once(count: &u8) -> bool {
    *count == 1
}

/// What it takes to carry a game's discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// A client asks everybody, hosts answer it.
    A,
    /// A host announces itself; clients take its address from the packet.
    B,
    /// Source and destination port are the same.
    C,
    /// It is multicast.
    D,
    /// Addresses or ports are in the payload too.
    E,
    /// The host opens connections to those who join.
    F,
    /// Everybody talks to everybody after joining.
    G,
    /// Many ports at once.
    H,
}

/// Who sends to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sender {
    /// Who looks for a host.
    Client,
    /// Who hosts.
    Host,
}

/// How a packet to everybody is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To the sender alone.
    Unicast,
    /// To everybody as well.
    Group,
    /// By a TCP connection to the sender.
    Tcp,
    /// By joining the game.
    Join,
}
