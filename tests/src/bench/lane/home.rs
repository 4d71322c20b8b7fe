//! A device that knows nothing of LANrage, on the home network of peer 1, which is its gateway.

use crate::lab::netns::Namespace;
use crate::lab::process::wait_until;
use crate::lab::role::Role;
use crate::lab::running::Lab;
use anyhow::{Context, Result};
use lanrage_common::api::GatewayStatus;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);
const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 50);
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module; gone when dropped.
pub struct Home {
    /// Where its sockets are made.
    pub device: Namespace,
}

impl Home {
    /// Lays the cable, and makes peer 1 the gateway.
    pub fn beside(lab: &Lab) -> Result<Self> {
        let gateway = lab.namespace(Role::Peer(1));
        let device = Namespace::named(format!("{}-home", gateway.name().trim_end_matches("-p1")));
        if device.exists() {
            device.clear()?;
        }
        device.create()?;
        let home = Self { device };
        gateway.ip(&format!(
            "link add eth1 type veth peer name eth0 netns {}\nlink set eth1 up\naddr add {GATEWAY}/24 brd + dev eth1",
            home.device.name()
        ))?;
        home.device.ip(&format!("link set lo up\nlink set eth0 up\naddr add {DEVICE}/24 brd + dev eth0"))?;
        lab.lanrage_output(Role::Peer(1), &["gateway", "lan", "eth1"])?;
        Ok(home)
    }

    /// Where that member is found here, once it is so.
    pub fn alias(&self, lab: &Lab, member: IpAddr) -> Result<IpAddr> {
        let held = || {
            let text = lab.lanrage_output(Role::Peer(1), &["gateway", "--json"]).ok()?;
            let status: GatewayStatus = serde_json::from_str(&text).ok()?;
            let aliases = status.lan.into_iter().flat_map(|lan| lan.aliases);
            aliases.filter(|it| it.held && it.member == member).map(|it| it.alias.into()).next()
        };
        wait_until(PATIENCE, || held().is_some());
        held().context("no alias on the home network: `lanrage gateway` says why")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = self.device.clear() {
            eprintln!("error: {error:#}");
        }
    }
}
