//! The home network behind this gateway: a raw socket on its interface around [`lanrage_common::gateway::Lan`].

use crate::platform::{EthernetPort, Network};
use anyhow::Context as _;
use ipnet::Ipv4Net;
use lanrage_common::api::{AliasConflict, AliasStatus, GatewayDevice, LanStatus};
use lanrage_common::devices::{DeviceKind, PartyDevice};
use lanrage_common::gateway::{Conflict, Lan, LanConfig, LanOutput, Mac, Taken};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Frames per pass.
const BUDGET: usize = 64;
const BUFFER: usize = 65_536;

/// See the module.
pub(super) struct LanPort {
    pub(super) core: Lan,
    network: Network,
    port: EthernetPort,
    buffer: Vec<u8>,
    events: VecDeque<LanOutput>,
}

/// What the kernel has to do for it: lead what comes there for these addresses to the party's interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LanTap {
    /// The interface.
    pub index: u32,
    /// Held aliases.
    pub aliases: Vec<Ipv4Addr>,
}

impl LanPort {
    pub(super) fn open(
        network: &Network,
        (me, subnet, mtu): (Ipv4Addr, Ipv4Net, u16),
        range: Option<(Ipv4Addr, Ipv4Addr)>,
    ) -> anyhow::Result<Self> {
        let mac = network.mac.with_context(|| {
            format!(
                "{} is no Ethernet: name the interface of the home network with `lanrage gateway lan`",
                network.interface
            )
        })?;
        let port = EthernetPort::open(network.index)
            .with_context(|| format!("cannot listen on {}: grant CAP_NET_RAW", network.interface))?;
        let config = LanConfig { own: network.address, mac, me, range, subnet, mtu };
        Ok(Self {
            core: Lan::new(config),
            network: network.clone(),
            port,
            buffer: vec![0; BUFFER],
            events: VecDeque::new(),
        })
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    pub(super) fn port(&self) -> &EthernetPort {
        &self.port
    }

    /// Takes what has come.
    pub(super) fn receive(&mut self, now: Instant) {
        for _ in 0..BUDGET {
            match self.port.try_recv(&mut self.buffer) {
                Ok(length) => self.core.handle_frame(&self.buffer[..length], now),
                Err(error) => {
                    if error.kind() != std::io::ErrorKind::WouldBlock {
                        tracing::debug!(%error, "the home network cannot be heard");
                    }
                    return;
                }
            }
        }
    }

    /// Sends the frames; the rest is for the session.
    pub(super) fn flush(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                LanOutput::Frame(frame) => {
                    if let Err(error) = self.port.send(&frame) {
                        tracing::trace!(%error, "a frame was not sent");
                    }
                }
                output => self.events.push_back(output),
            }
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<LanOutput> {
        self.flush();
        self.events.pop_front()
    }

    pub(super) fn tap(&self) -> LanTap {
        let held = self.core.aliases().filter(|alias| alias.2).map(|alias| alias.1);
        LanTap { index: self.network.index, aliases: held.collect() }
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = PartyDevice> + '_ {
        self.core.devices().map(|device| PartyDevice {
            name: device.ip.to_string(),
            kind: DeviceKind::Lan,
            address: device.overlay,
        })
    }

    pub(super) fn describe_devices(&self, now: Instant) -> impl Iterator<Item = GatewayDevice> + '_ {
        self.core.devices().map(move |device| GatewayDevice {
            name: device.ip.to_string(),
            kind: DeviceKind::Lan,
            address: device.overlay,
            public_key: None,
            mac: Some(mac_text(device.mac)),
            endpoint: None,
            heard_s: Some(now.saturating_duration_since(device.seen).as_secs()),
            rx_bytes: device.rx,
            tx_bytes: device.tx,
        })
    }

    pub(super) fn status(&self, now: Instant) -> LanStatus {
        let aliases = self.core.aliases();
        LanStatus {
            interface: self.network.interface.clone(),
            address: self.network.address,
            served_by: self.core.served_by(now),
            aliases: aliases.map(|(member, alias, held)| AliasStatus { member, alias, held }).collect(),
            without_alias: self.core.without_alias(),
            conflicts: self.core.conflicts().map(describe_conflict).collect(),
        }
    }
}

fn describe_conflict(conflict: &Conflict) -> AliasConflict {
    let (with, fix) = match conflict.taken {
        Taken::By(mac) => (
            format!("the machine {}", mac_text(mac)),
            "give addresses that nobody has: `lanrage gateway lan` with --alias-range".to_owned(),
        ),
        Taken::ByDhcp => (
            "the network's DHCP server, which hands it out".to_owned(),
            "give addresses that the router's DHCP does not hand out: `lanrage gateway lan` with --alias-range"
                .to_owned(),
        ),
    };
    AliasConflict { address: conflict.address, with, fix }
}

fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
