//! How the relay server forwards what members send: WireGuard messages and path probes.

use super::Leg;
use super::reason::Reason;
use super::route::State;
use super::server::{Output, RelayServer};
use super::wireguard::{self, Mac1, Message};
use crate::path::probe;
use std::net::SocketAddr;
use std::time::Instant;

impl RelayServer {
    pub(super) fn handle_wireguard(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Reason, Reason> {
        let (leg, reason) = match wireguard::parse(datagram).ok_or(Reason::Malformed)? {
            Message::Initiation { sender, mac } => {
                (self.route_initiation(from, sender, mac, now)?, Reason::HandshakeForwarded)
            }
            Message::Response { sender, receiver, mac } => {
                (self.route_response(from, sender, receiver, mac, now)?, Reason::HandshakeForwarded)
            }
            Message::Cookie { receiver } => {
                (self.route_cookie(from, receiver, now)?, Reason::HandshakeForwarded)
            }
            Message::Data { .. } => (self.route_data(from, datagram, now)?, Reason::Forwarded),
        };
        self.emit(Output::Transmit { leg, payload: datagram.to_vec() });
        Ok(reason)
    }

    fn route_initiation(
        &mut self,
        from: SocketAddr,
        index: u32,
        mac: Mac1<'_>,
        now: Instant,
    ) -> Result<Leg, Reason> {
        let sender = self.sender(from)?;
        self.spend_handshake(sender, now)?;
        let party = self.members.at(sender).ok_or(Reason::Unbound)?.party;
        let number = self.members.party_number(party).ok_or(Reason::Unbound)?;
        let receiver = self.members.of_party(party).find(|(slot, m)| *slot != sender && mac.is_for(&m.mac1));
        let (receiver, _) = receiver.ok_or(Reason::HandshakeNoReceiver)?;
        // first, so that what one member may not offer costs the others nothing of the receiver's budget
        self.routes.claim((receiver, index), sender, number, now)?;
        let destination = self.members.at_mut(receiver).ok_or(Reason::HandshakeNoReceiver)?;
        if !destination.handshakes_in.take(1, now) {
            return Err(Reason::BudgetDestination);
        }
        Ok(destination.leg)
    }

    fn route_response(
        &mut self,
        from: SocketAddr,
        index: u32,
        receiver_index: u32,
        mac: Mac1<'_>,
        now: Instant,
    ) -> Result<Leg, Reason> {
        let sender = self.sender(from)?;
        let offered = (sender, receiver_index);
        let initiator = self.routes.find(offered).ok_or(Reason::IndexUnknown)?.owner;
        self.spend_handshake(sender, now)?;
        let member = self.members.at(initiator).ok_or(Reason::IndexUnknown)?;
        if !mac.is_for(&member.mac1) {
            return Err(Reason::HandshakeWrongMac);
        }
        let leg = member.leg;
        let number = self.members.party_number(member.party).ok_or(Reason::IndexUnknown)?;
        for key in self.routes.confirm(offered, (initiator, index), sender, number, now)? {
            while let Some(old) = self.routes.surplus(key) {
                self.remove_route(old);
            }
            self.install_route(key);
        }
        Ok(leg)
    }

    fn route_cookie(&mut self, from: SocketAddr, receiver_index: u32, now: Instant) -> Result<Leg, Reason> {
        let sender = self.sender(from)?;
        let route = self.routes.find((sender, receiver_index)).ok_or(Reason::IndexUnknown)?;
        self.spend_handshake(sender, now)?;
        Ok(self.members.at(route.owner).ok_or(Reason::IndexUnknown)?.leg)
    }

    pub(super) fn route_data(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Leg, Reason> {
        let message = wireguard::is_wireguard(datagram).then(|| wireguard::parse(datagram)).flatten();
        let Some(Message::Data { receiver }) = message else { return Err(Reason::Malformed) };
        let sender = self.sender(from)?;
        let route = self.routes.find((sender, receiver)).ok_or(Reason::IndexUnknown)?;
        if route.state == State::Tentative {
            return Err(Reason::IndexTentative);
        }
        if !self.members.at_mut(sender).ok_or(Reason::Unbound)?.may_send(datagram.len(), now) {
            return Err(Reason::RateMember);
        }
        Ok(self.members.at(route.owner).ok_or(Reason::IndexUnknown)?.leg)
    }

    pub(super) fn handle_probe(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Reason, Reason> {
        let tag = probe::receiver_tag(datagram).ok_or(Reason::Malformed)?;
        let sender = self.sender(from)?;
        let member = self.members.at_mut(sender).ok_or(Reason::Unbound)?;
        let party = member.party;
        if !member.probes_out.take(1, now) {
            return Err(Reason::BudgetProbe);
        }
        let receiver = self.members.by_tag(party, tag).filter(|slot| *slot != sender);
        let receiver = receiver.and_then(|slot| self.members.at_mut(slot)).ok_or(Reason::ProbeNoReceiver)?;
        if !receiver.probes_in.take(1, now) {
            return Err(Reason::BudgetProbe);
        }
        let leg = receiver.leg;
        self.emit(Output::Transmit { leg, payload: datagram.to_vec() });
        Ok(Reason::ProbeForwarded)
    }

    /// Handshakes cost the relay hashes and the receiver curve operations.
    fn spend_handshake(&mut self, sender: u32, now: Instant) -> Result<(), Reason> {
        let member = self.members.at_mut(sender).ok_or(Reason::Unbound)?;
        if member.handshakes_out.take(1, now) { Ok(()) } else { Err(Reason::BudgetSource) }
    }

    fn sender(&self, from: SocketAddr) -> Result<u32, Reason> {
        self.members.by_address(from).ok_or(Reason::Unbound)
    }
}
