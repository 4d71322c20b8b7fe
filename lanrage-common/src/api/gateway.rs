//! What the gateway on this device does, and what it is asked.

use crate::devices::DeviceKind;
use crate::identity::WgKey;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// Takes a device with a plain WireGuard client in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDeviceRequest {
    /// Shown to everybody in the party.
    pub name: String,
    /// The device's own public key; a key pair is made when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<WgKey>,
    /// Where the device reaches this one, `host` or `host:port`; this machine's address at home when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// How to configure the device. Shown once: the private key is kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddDeviceAnswer {
    /// As asked for.
    pub name: String,
    /// In the party.
    pub address: Ipv4Addr,
    /// Where the device reaches this one.
    pub endpoint: String,
    /// The file for wg-quick and for the apps, private key included.
    pub config: String,
    /// The same as an SVG QR code; absent when the device made its own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qr_svg: Option<String>,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

/// Turns a device out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveDeviceRequest {
    /// Its name.
    pub name: String,
}

/// Says which home networks take part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanRequest {
    /// Interfaces; none ends it.
    pub interfaces: Vec<String>,
    /// Addresses there for members, as `FIRST-LAST`; as it was when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_range: Option<String>,
}

/// Home networks take part, or no more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LanAnswer {
    /// Those that do.
    pub networks: Vec<LanStatus>,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

/// The gateway on this device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Where plain WireGuard clients are taken; absent while there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// The key by which they know this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<WgKey>,
    /// Devices behind this one.
    pub devices: Vec<GatewayDevice>,
    /// The home networks whose devices take part, as far as they are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lan: Vec<LanStatus>,
    /// Packets of devices into the party.
    pub from_devices: u64,
    /// Packets of the party to devices.
    pub to_devices: u64,
    /// Group packets of devices into the party.
    pub groups_from_devices: u64,
    /// Copies of group packets for devices.
    pub groups_to_devices: u64,
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// A home network whose devices take part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LanStatus {
    /// The interface.
    pub interface: String,
    /// This machine's address there.
    pub address: Ipv4Net,
    /// The member whose machine serves the devices there instead: of several gateways on one network one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<Ipv4Addr>,
    /// Under which addresses members are found there.
    pub aliases: Vec<AliasStatus>,
    /// Members for whom no address is left.
    pub without_alias: usize,
    /// Addresses that somebody else had, newest last.
    pub conflicts: Vec<AliasConflict>,
}

/// A member's address on the home network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasStatus {
    /// The member's, or its device's, address in the party.
    pub member: Ipv4Addr,
    /// Its address on the home network.
    pub alias: Ipv4Addr,
    /// Whether it can be used: before, the network is asked for five seconds whether anybody has it.
    pub held: bool,
}

/// An address that somebody else had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasConflict {
    /// The address.
    pub address: Ipv4Addr,
    /// Who has it.
    pub with: String,
    /// What to do if it comes again.
    pub fix: String,
}

/// A device behind this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayDevice {
    /// Shown to everybody in the party.
    pub name: String,
    /// How it reaches this one.
    pub kind: DeviceKind,
    /// In the party.
    pub address: Ipv4Addr,
    /// Its WireGuard key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<WgKey>,
    /// Its Ethernet address, when it is on the home network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Where it was heard from last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since it was heard from; absent = not since this daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_s: Option<u64>,
    /// Payload bytes received from it.
    pub rx_bytes: u64,
    /// Payload bytes sent to it.
    pub tx_bytes: u64,
}
