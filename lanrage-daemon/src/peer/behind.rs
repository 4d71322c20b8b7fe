//! The devices behind this one, in the party: what they send is forwarded, and what is for them handed to the gateway.

use super::Reply;
use super::commands::{Event, bad, error, no_party, refuse, tunnel_down};
use super::event_loop::Peer;
use super::firewall;
use super::invite;
use super::session::{Notice, Session};
use super::status::problem;
use super::wire::{Io, Sender};
use crate::clock::now;
use crate::control::client::ControlError;
use crate::gateway::Registered;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lanrage_common::api::{AddDeviceAnswer, AddDeviceRequest, Problem, RemoveDeviceRequest};
use lanrage_common::devices::MAX_DEVICES;
use lanrage_common::gateway::{LanOutput, Mac, WgQuick, destination, source};
use lanrage_common::identity::{DeviceId, WgKey};
use lanrage_common::lane::Outbound;
use lanrage_common::protocol::{ErrorBody, ErrorCode, MAX_NAME, is_valid_name};
use lanrage_common::time::Now;
use rand_core::OsRng;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use x25519_dalek::{PublicKey, StaticSecret};

/// Datagrams of devices per pass.
const BUDGET: usize = 64;
/// Between looks at who is on the home network.
const LOOK: Duration = Duration::from_secs(2);

/// A device that waits for its address.
pub(super) struct NewDevice {
    name: String,
    key: WgKey,
    /// In base64; for the answer alone.
    private_key: Option<String>,
    endpoint: Option<String>,
}

impl Session {
    /// Forwards what devices have sent.
    pub(super) fn handle_devices(&mut self, io: Io<'_>, now: Now) {
        let mut packet = std::mem::take(&mut self.device_packet);
        for _ in 0..BUDGET {
            if !self.gateway.receive(now.instant, &mut packet) {
                break;
            }
            if !packet.is_empty() {
                self.forward(&packet, io, now);
            }
        }
        self.device_packet = packet;
        self.gateway.receive_lan(now.instant);
        self.settle_home(io, now);
    }

    /// Does what the home network asks for.
    pub(super) fn settle_home(&mut self, io: Io<'_>, now: Now) {
        while let Some(output) = self.gateway.poll_lan(now.instant) {
            match output {
                LanOutput::Frame(_) => {} // sent already
                LanOutput::Lease(mac) => self.notices.push_back(Notice::LeaseForHome(mac)),
                LanOutput::Release(mac) => self.release_address(self.home_device_id(mac)),
                LanOutput::Changed => self.publish_devices(now),
                LanOutput::Packet(packet) => self.send_from_home(&packet, io, now),
                LanOutput::Group(packet, device) => {
                    if self.gateway.handle_group(&packet, device, now.instant) == Outbound::Copies {
                        self.spread(&packet, device, false, io, now);
                    }
                }
            }
        }
    }

    fn send_from_home(&mut self, packet: &[u8], io: Io<'_>, now: Now) {
        let Some(to) = destination(packet) else { return };
        if self.gateway.has(to) {
            return self.gateway.send(packet, now.instant);
        }
        self.note_traffic(packet, io, now);
        let mut sender = Sender::new(io.socket);
        self.tunnel.send(packet, now.instant, &mut sender);
        self.note_failure(sender.failed, now);
        self.gateway.count_forwarded();
    }

    /// Members that answer at an address of a home network are on it themselves, whichever path is in use.
    pub(super) fn follow_members_at_home(&mut self, now: Now) {
        if !self.gateway.has_lan() || now.instant < self.next_look {
            return;
        }
        self.next_look = now.instant + LOOK;
        let at_home = self.party.members().flat_map(|member| {
            let answers = self.paths.answers_at(&member.wg, now.instant);
            answers.filter_map(|at| match at.ip() {
                IpAddr::V4(home) => Some((member.address, home)),
                IpAddr::V6(_) => None,
            })
        });
        let at_home: Vec<_> = at_home.collect();
        self.gateway.set_members_at_home(&at_home);
    }

    /// A packet of a device, whose source address the gateway has checked.
    fn forward(&mut self, packet: &[u8], io: Io<'_>, now: Now) {
        let (Some(from), Some(to)) = (source(packet), destination(packet)) else {
            return self.gateway.drop_for("malformed");
        };
        if to == self.gateway.me() {
            if !firewall::admits(&mut self.firewall, packet, from, now.instant) {
                return;
            }
            self.gateway.count_forwarded();
            return give_host(packet, io);
        }
        if self.gateway.has(to) {
            return self.gateway.send(packet, now.instant);
        }
        match self.gateway.handle_group(packet, from, now.instant) {
            Outbound::Copies => self.spread(packet, from, true, io, now),
            Outbound::Drop(_) => {}
            Outbound::Pass if self.tunnel.member_at(to).is_some() => {
                self.note_traffic(packet, io, now);
                let mut sender = Sender::new(io.socket);
                self.tunnel.send(packet, now.instant, &mut sender);
                self.note_failure(sender.failed, now);
                self.gateway.count_forwarded();
            }
            // into other networks of this machine, or to an address that nobody has
            Outbound::Pass => self.gateway.drop_for("no_such_member"),
        }
    }

    /// A device's group packet to all members, and to this machine if it has not heard it at home.
    fn spread(&mut self, packet: &[u8], device: Ipv4Addr, to_host: bool, io: Io<'_>, now: Now) {
        self.heard.handle_packet(packet, device, now.instant);
        self.note_traffic(packet, io, now);
        let mut sender = Sender::new(io.socket);
        while let Some((_, copy)) = self.gateway.lane.poll_copy() {
            self.tunnel.send(copy, now.instant, &mut sender);
        }
        match self.is_lane_in_kernel() {
            _ if !to_host => {}
            // which unwraps it, and takes nothing for everybody that is not wrapped
            true => give_host(self.gateway.lane.own_copy(), io),
            false => give_host(self.gateway.lane.carried(), io),
        }
        self.note_failure(sender.failed, now);
    }

    /// Tells the party who is behind this device.
    pub(super) fn publish_devices(&mut self, now: Now) {
        self.party.set_devices(self.gateway.devices(), now);
        self.follow_members(now);
    }

    pub(super) fn gateway_problems(&self) -> impl Iterator<Item = Problem> {
        let closed = self.gateway.trouble().map(|trouble| {
            let fix = "then restart lanrage-daemon; phones and other plain WireGuard clients cannot connect until then";
            problem("gateway_closed", trouble, fix)
        });
        let no_lan = self.gateway.lan_trouble().map(|trouble| {
            let message = format!("devices on the home network cannot take part: {trouble}");
            problem(
                "gateway_lan",
                message,
                "mend that, or end it with `lanrage gateway lan off`; `lanrage gateway` shows the rest",
            )
        });
        closed.into_iter().chain(no_lan)
    }
}

fn give_host(packet: &[u8], io: Io<'_>) {
    if let Some(interface) = io.interface
        && let Err(error) = interface.send(packet)
    {
        tracing::trace!(%error, "not delivered");
    }
}

impl Peer {
    /// Asks the control server for an address; goes on in [`Peer::complete_device`].
    pub(super) fn add_device(&mut self, request: AddDeviceRequest, reply: Reply<AddDeviceAnswer>) {
        let device = match self.prepare_device(request) {
            Ok(device) => device,
            Err(error) => return refuse(reply, error),
        };
        let Some(session) = &self.session else { return refuse(reply, tunnel_down()) };
        let (control, party, id) =
            (session.control.clone(), session.party.party().id, session.device_id(&device.key));
        let events = self.events.clone();
        tokio::spawn(async move {
            let result = control.lease_device(&party, id).await;
            let _ = events.send(Event::DeviceLeased(Box::new(device), result, reply));
        });
    }

    fn prepare_device(&self, request: AddDeviceRequest) -> Result<NewDevice, ErrorBody> {
        self.stored.as_ref().ok_or_else(no_party)?;
        let session = self.session.as_ref().filter(|_| self.joining.is_none()).ok_or_else(tunnel_down)?;
        let AddDeviceRequest { name, public_key, endpoint } = request;
        if !is_valid_name(&name) {
            return Err(bad(format!(
                "a device's name has 1 to {MAX_NAME} characters, no control characters and no blanks at its ends"
            )));
        }
        let known = session.gateway.registry().devices();
        if known.iter().any(|device| device.name == name) {
            return Err(bad(format!(
                "there is a device \"{name}\" already: take another name, or remove it first with `lanrage gateway remove-device {name}`"
            )));
        }
        if known.len() >= MAX_DEVICES {
            return Err(bad(format!("a gateway has {MAX_DEVICES} devices at most: remove one first")));
        }
        if public_key.is_some_and(|key| known.iter().any(|device| device.key == key)) {
            return Err(bad("another device has that public key already: every device needs its own"));
        }
        let (key, private_key) = match public_key {
            Some(key) => (key, None),
            None => {
                let secret = StaticSecret::random_from_rng(OsRng);
                let key = WgKey(PublicKey::from(&secret).to_bytes());
                (key, Some(STANDARD.encode(secret.as_bytes())))
            }
        };
        Ok(NewDevice { name, key, private_key, endpoint })
    }

    /// Takes the device in, now that it has an address.
    pub(super) fn complete_device(
        &mut self,
        device: NewDevice,
        address: Ipv4Addr,
        reply: Reply<AddDeviceAnswer>,
    ) {
        let home = self.networks.iter().find(|network| network.is_default).or(self.networks.first());
        let home = home.map(|network| network.address.addr());
        let Some(session) = &mut self.session else { return refuse(reply, tunnel_down()) };
        let now = now();
        let registered = Registered { name: device.name.clone(), key: device.key, address };
        if let Err(found) = session.gateway.add(registered, now.instant) {
            return refuse(reply, error(ErrorCode::Internal, format!("{found:#}")));
        }
        session.publish_devices(now);
        let Some(gateway) = session.gateway.public_key() else { return refuse(reply, tunnel_down()) };
        let (endpoint, notes) = endpoint(device.endpoint, home, session.gateway.port());
        let file = WgQuick {
            private_key: device.private_key.clone(),
            address,
            mtu: self.config.mtu,
            gateway,
            endpoint: endpoint.clone(),
            subnet: session.party.party().subnet,
        };
        let config = file.to_string();
        let qr_svg = device.private_key.is_some().then(|| invite::qr_svg(&config));
        let answer = AddDeviceAnswer { name: device.name, address, endpoint, config, qr_svg, notes };
        self.answer(reply, Ok(answer));
    }

    /// Asks the control server for an address for a device on the home network.
    pub(super) fn lease_for_home(&self, mac: Mac) {
        let Some(session) = &self.session else { return };
        let (control, party, id) =
            (session.control.clone(), session.party.party().id, session.home_device_id(mac));
        let events = self.events.clone();
        tokio::spawn(async move {
            let result = control.lease_device(&party, id).await;
            let _ = events.send(Event::LeasedForHome(mac, result));
        });
    }

    pub(super) fn complete_lease(&mut self, mac: Mac, result: Result<Ipv4Addr, ControlError>) {
        let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
        let Some(session) = &mut self.session else { return };
        if let Err(error) = &result {
            tracing::warn!(%error, "a device on the home network gets no address in the party");
        }
        let now = now();
        session.gateway.handle_lease(mac, result.ok(), now.instant);
        session.settle_home(io, now);
    }

    pub(super) fn remove_device(&mut self, request: &RemoveDeviceRequest, reply: Reply<()>) {
        let Some(session) = &mut self.session else { return refuse(reply, tunnel_down()) };
        let now = now();
        let result = match session.gateway.remove(&request.name, now.instant) {
            Ok(Some(removed)) => {
                session.publish_devices(now);
                session.release_device(&removed);
                Ok(())
            }
            Ok(None) => Err(error(
                ErrorCode::NotFound,
                format!("there is no device \"{}\": `lanrage gateway devices` lists them", request.name),
            )),
            Err(found) => Err(error(ErrorCode::Internal, format!("{found:#}"))),
        };
        self.answer(reply, result);
    }
}

impl Session {
    fn device_id(&self, key: &WgKey) -> DeviceId {
        self.secret.device_id(&self.party.party().id, &self.party.own().device, "wireguard", &key.0)
    }

    fn home_device_id(&self, mac: Mac) -> DeviceId {
        self.secret.device_id(&self.party.party().id, &self.party.own().device, "lan", &mac)
    }

    /// Gives the address back, beside everything else: nothing depends on it.
    fn release_device(&self, device: &Registered) {
        self.release_address(self.device_id(&device.key));
    }

    fn release_address(&self, id: DeviceId) {
        let (control, party) = (self.control.clone(), self.party.party().id);
        tokio::spawn(async move {
            if let Err(error) = control.release_device(&party, id).await {
                tracing::warn!(%error, "cannot give a device's address back");
            }
        });
    }
}

/// Where the device reaches this one, and what a person should know about that.
fn endpoint(wanted: Option<String>, home: Option<Ipv4Addr>, port: u16) -> (String, Vec<String>) {
    let forward = format!("UDP port {port} of the router must lead to this machine for devices elsewhere");
    match (wanted, home) {
        (Some(wanted), _) => {
            let has_port = wanted.rsplit_once(':').is_some_and(|(host, port)| {
                port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
            });
            let endpoint = if has_port { wanted } else { format!("{wanted}:{port}") };
            (endpoint, vec![forward])
        }
        (None, home) => {
            let home = home.unwrap_or(Ipv4Addr::LOCALHOST);
            let note = format!(
                "the endpoint is this machine's address at home: elsewhere the device needs --endpoint with an address that the internet reaches; {forward}"
            );
            (format!("{home}:{port}"), vec![note])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_get_a_port() {
        let home = Some(Ipv4Addr::new(192, 168, 1, 2));
        for (wanted, expected) in [
            (Some("play.example"), "play.example:51820"),
            (Some("play.example:7"), "play.example:7"),
            (Some("[2001:db8::1]"), "[2001:db8::1]:51820"),
            (Some("[2001:db8::1]:9"), "[2001:db8::1]:9"),
            (None, "192.168.1.2:51820"),
        ] {
            assert_eq!(endpoint(wanted.map(Into::into), home, 51820).0, expected);
        }
    }
}
