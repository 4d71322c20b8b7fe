//! Other settings for a peer at work.

use super::commands::bad;
use super::event_loop::{Peer, device_name};
use super::port_mapping::{Forwarding, PortMapper};
use crate::clock::now;
use crate::config::PeerConfig;
use crate::lane::Carrier;
use lanrage_common::protocol::ErrorBody;

impl Peer {
    /// Works as `config` says from now on. What is told to others at the beginning of a session, and what the interface
    /// is made with, needs a new one: the tunnel is down for a moment.
    pub(super) async fn configure(&mut self, config: PeerConfig) -> Result<(), ErrorBody> {
        let name = device_name(&config, &self.device).map_err(|error| bad(error.to_string()))?;
        let is_anew = name != self.name || config.mtu != self.config.mtu;
        if is_anew && self.joining.is_some() {
            return Err(bad("this device is just joining a party: change it when that is done"));
        }
        let old = std::mem::replace(&mut self.config, config);
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
        if self.config.stun_servers != old.stun_servers {
            self.change_stun_servers();
        }
        Ok(())
    }

    fn change_lane(&mut self) {
        self.lane = None; // detaches before the other attaches
        let Some(interface) = &self.interface else { return };
        self.lane = Some(Carrier::open(self.config.lane, interface.name(), interface.index()));
        self.follow_lane();
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
