//! Other settings for a peer at work.

use super::commands::{bad, error};
use super::event_loop::{Peer, device_name};
use super::port_mapping::{Forwarding, PortMapper};
use super::wire::Io;
use crate::clock::now;
use crate::config::{Config, GatewayConfig};
use crate::gateway::Machine;
use crate::lane::Carrier;
use lanrage_common::protocol::{ErrorBody, ErrorCode};

impl Peer {
    /// Works as `config` says from now on. What is told to others at the beginning of a session, and what the interface
    /// is made with, needs a new one: the tunnel is down for a moment.
    pub(super) async fn configure(&mut self, config: Config) -> Result<(), ErrorBody> {
        let Config { peer: config, gateway, .. } = config;
        let name = device_name(&config, &self.device).map_err(|error| bad(error.to_string()))?;
        let is_anew = name != self.name || config.mtu != self.config.mtu;
        if is_anew && self.joining.is_some() {
            return Err(bad("this device is just joining a party: change it when that is done"));
        }
        let old = std::mem::replace(&mut self.config, config);
        let old_gateway = std::mem::replace(&mut self.gateway_config, gateway);
        self.name = name;
        if is_anew && self.session.is_some() {
            self.end_session().await;
            self.up().await?;
        }
        if (self.config.qos, self.config.share_game) != (old.qos, old.share_game) {
            self.apply_games(now());
        }
        if self.config.lane != old.lane {
            self.change_lane();
        }
        if self.config.port_mapping != old.port_mapping {
            self.change_port_mapping().await;
        }
        if self.config.lane_services != old.lane_services
            && let Some(session) = &mut self.session
        {
            session.set_lane_services(&self.config.lane_services);
        }
        if self.gateway_config != old_gateway {
            self.change_gateway();
        }
        self.follow_lane();
        if self.config.stun_servers != old.stun_servers {
            self.change_stun_servers();
        }
        Ok(())
    }

    /// What a person should know of these home networks, or why they cannot take part.
    pub(super) async fn check_lan(&mut self, config: &GatewayConfig) -> Result<Vec<String>, ErrorBody> {
        if config.lan.is_empty() {
            return Ok(Vec::new());
        }
        let machine = Machine::look(&self.config.interface).await.map_err(|found| {
            error(ErrorCode::Internal, format!("cannot look at this machine's networks: {found}"))
        })?;
        let mut notes = machine.check(config).map_err(bad)?;
        match &self.lane {
            Some(Carrier::Userspace(why)) => {
                return Err(bad(format!(
                    "home networks need the kernel lane, but {}: {}",
                    why.reason, why.fix
                )));
            }
            Some(Carrier::Kernel(_)) => {}
            None => notes.push("this begins when this device is in a party and the tunnel is up".into()),
        }
        Ok(notes)
    }

    fn change_gateway(&mut self) {
        let (io, now) = (Io { socket: &self.sends, interface: self.interface.as_ref() }, now());
        if let Some(session) = &mut self.session {
            session.gateway.configure(self.gateway_config.clone(), &self.networks, now.instant);
            session.publish_devices(now);
            session.settle_home(io, now);
        }
    }

    fn change_lane(&mut self) {
        self.lane = None; // detaches before the other attaches
        if let Some(interface) = self.interface.take() {
            self.open_lane(&interface);
            self.interface = Some(interface);
        }
    }

    async fn change_port_mapping(&mut self) {
        self.close_mapper().await;
        let Some(session) = &mut self.session else { return };
        session.set_forwarding(Forwarding::default(), now());
        if self.config.port_mapping {
            self.mapper = PortMapper::start(self.port);
        }
    }

    fn change_stun_servers(&mut self) {
        self.stun_servers.clear();
        if let Some(session) = &mut self.session {
            session.nat.set_stun_servers(Vec::new(), now());
        }
        self.resolve_stun_servers();
    }
}
