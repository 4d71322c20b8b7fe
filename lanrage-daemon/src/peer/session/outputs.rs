//! What the cores of a session want done.

use super::{Notice, Session};
use crate::peer::ping::echo_request;
use crate::peer::store::StoredTicket;
use crate::peer::tunnel::TunnelPath;
use crate::peer::wire::{Io, Sender};
use crate::peer::{nat, relays};
use lanrage_common::api::PathKind;
use lanrage_common::party::Output as PartyOutput;
use lanrage_common::path::Output as PathOutput;
use lanrage_common::protocol::ClientMessage;
use lanrage_common::relays::Output as ChoiceOutput;
use lanrage_common::time::Now;

impl Session {
    /// Delivers all outputs of all cores.
    pub fn settle(&mut self, io: Io<'_>, now: Now) {
        self.follow_joined();
        let mut sender = Sender::new(io.socket);
        loop {
            if let Some(output) = self.party.poll_output() {
                self.handle_party(output, now);
            } else if let Some(output) = self.choice.poll_output() {
                self.handle_choice(output, &mut sender, now);
            } else if let Some(output) = self.relays.poll_output(now) {
                self.handle_relay(output, &mut sender, now);
            } else if let Some(output) = self.nat.poll_output(now) {
                self.handle_nat(output, &mut sender, now);
            } else if let Some(output) = self.paths.poll_output() {
                self.handle_path(output, &mut sender, now);
            } else if let Some(echo) = self.pings.due(now.instant) {
                let path = self.path_kind(echo.to);
                self.tunnel.send(&echo_request(self.me, &echo), now.instant, &mut sender);
                self.pings.sent(&echo, path, now.instant);
            } else if let Some(report) = self.trace.poll_output() {
                self.tunnel.send(&report, now.instant, &mut sender);
            } else if let Some(bulletin) = self.board.poll_output() {
                self.tunnel.send(&bulletin, now.instant, &mut sender);
            } else if let Some(failed) = sender.failed.take() {
                self.paths.handle_send_error(failed, now);
            } else {
                return;
            }
        }
    }

    fn handle_party(&mut self, output: PartyOutput, now: Now) {
        match output {
            PartyOutput::Send(message) => self.tell_control(message),
            PartyOutput::HostVerified => self.notices.push_back(Notice::HostVerified),
            PartyOutput::WrongSecret(text) => self.notices.push_back(Notice::WrongSecret(text)),
            PartyOutput::Save => self.notices.push_back(Notice::Save),
            PartyOutput::MemberUp(entry) => self.add_member(&entry, now),
            PartyOutput::MemberChanged { old, new } => {
                if (old.wg, old.address) != (new.wg, new.address) {
                    self.remove_member(&old, now);
                    self.add_member(&new, now);
                }
            }
            PartyOutput::DevicesChanged { device } => {
                self.follow_devices(&device);
                self.follow_members(now);
            }
            PartyOutput::MemberGone(entry) => self.remove_member(&entry, now),
            PartyOutput::Presence { device, online } => {
                let member = self.party.members().find(|member| member.device == device && online);
                if let Some(member) = member {
                    self.paths.handle_reachable(&member.wg, now);
                }
            }
            PartyOutput::Relays(list) => {
                self.tickets.retain(|name, _| list.iter().any(|relay| relay.name == *name));
                self.nat.set_relays(&list, now);
                self.choice.set_list(&list, now);
            }
            PartyOutput::Ticket { relay, ticket, session_key, expires_in } => {
                let expires = now.unix.saturating_add(expires_in);
                let stored = StoredTicket { ticket: ticket.clone(), session_key, expires };
                self.tickets.insert(relay.clone(), stored);
                self.notices.push_back(Notice::Save);
                self.relays.set_ticket(&relay, ticket, session_key, now);
            }
            PartyOutput::Signal { from, body } => self.paths.handle_signal(from, &body, now),
            PartyOutput::Problem(problem) => {
                self.problems.insert(problem.code.clone(), problem);
            }
            PartyOutput::Solved(code) => {
                self.problems.remove(code);
            }
        }
    }

    fn handle_nat(&mut self, output: nat::Output, sender: &mut Sender<'_>, now: Now) {
        match output {
            nat::Output::Transmit { to, payload } => sender.send(to, &payload),
            nat::Output::Nat(behaviour) => self.paths.set_nat(behaviour, now),
        }
    }

    fn handle_choice(&mut self, output: ChoiceOutput, sender: &mut Sender<'_>, now: Now) {
        match output {
            ChoiceOutput::Transmit { to, payload } => sender.send(to, &payload),
            ChoiceOutput::Legs(legs) => self.paths.set_legs(legs, now),
            ChoiceOutput::Hold(relays) => {
                for name in self.relays.set(&relays, now) {
                    self.lose_relay(&name, now);
                }
                self.use_old_tickets(now);
            }
        }
    }

    fn handle_relay(&mut self, output: relays::Output, sender: &mut Sender<'_>, now: Now) {
        match output {
            relays::Output::Transmit { to, payload } => sender.send(to, &payload),
            relays::Output::NeedTicket { relay } => {
                let party = self.party.party().id;
                self.tell_control(ClientMessage::Ticket { party, relay });
            }
            relays::Output::Bound { name, relay, mapped: Some(mapped), rtt } => {
                self.paths.handle_bound(&name, relay, mapped, rtt, now);
                self.choice.set_bound(&name, true, now);
            }
            relays::Output::Bound { name, relay, mapped: None, rtt } => {
                self.paths.handle_carried(&name, relay, rtt, now);
                self.choice.set_bound(&name, true, now);
            }
            relays::Output::OpenCarrier { id, place } => self.carriers.open(id, place),
            relays::Output::CloseCarrier { id } => self.carriers.close(id),
            relays::Output::Unbound { name } => self.lose_relay(&name, now),
        }
    }

    fn handle_path(&mut self, output: PathOutput, sender: &mut Sender<'_>, now: Now) {
        match output {
            PathOutput::Transmit { to, payload } => sender.send(to, &payload),
            PathOutput::TransmitWhole { to, payload } => sender.send_whole(to, &payload),
            PathOutput::Mtu { member, mtu } => self.set_length(member, mtu),
            PathOutput::Signal { to, body } => {
                let party = self.party.party().id;
                self.tell_control(ClientMessage::Signal { party, to, body });
            }
            PathOutput::RelaySilent { relay } => {
                tracing::debug!(relay, "nobody answers through the relay any more: binding again");
                self.relays.rebind(now);
            }
            PathOutput::Path { member, path } => {
                if path.as_ref().is_none_or(|path| path.copy.is_none()) {
                    tracing::info!(member = %member, ?path, "path");
                } else {
                    tracing::debug!(member = %member, ?path, "path in doubt: packets leave twice");
                }
                self.kinds.insert(member, path.as_ref().map_or(PathKind::None, |path| path.kind));
                let path = path.map(|path| {
                    let [relay, standby] = path.handshakes;
                    TunnelPath { endpoint: path.endpoint, relay, standby, copy: path.copy }
                });
                self.tunnel.set_path(&member, path, now.instant, sender);
            }
            PathOutput::Confirm { member, to } => {
                if !self.tunnel.confirm(&member, to, sender) {
                    self.paths.handle_no_session(&member, now);
                }
            }
            PathOutput::OpenSpares { member, count } => {
                let ports = self.spares.open(member, count);
                self.paths.handle_spares(&member, &ports, now);
            }
            PathOutput::TransmitFrom { member, spare, to, payload } => {
                self.spares.send(&member, spare, to, &payload);
            }
            PathOutput::KeepSpare { member, spare, far } => {
                tracing::info!(member = %member, %far, "found a way through a router that changes ports");
                if let Some(socket) = self.spares.keep(&member, spare, far) {
                    sender.socket().keep(far, socket);
                }
            }
            PathOutput::CloseSpares { member } => self.spares.close(&member),
            PathOutput::ReleaseSpare { far } => {
                self.spares.release(&far);
                sender.socket().release(&far);
            }
            PathOutput::RelayWishes { wanted, used } => self.choice.set_wishes(wanted, used, now),
        }
    }

    fn lose_relay(&mut self, name: &str, now: Now) {
        self.choice.set_bound(name, false, now);
        self.paths.handle_unbound(name, now);
    }

    /// Binds with tickets of the last run where they are still good, so that a restart needs no control server.
    fn use_old_tickets(&mut self, now: Now) {
        self.tickets.retain(|_, ticket| ticket.expires > now.unix);
        let waiting: Vec<String> = self.relays.without_ticket().map(str::to_owned).collect();
        for name in waiting {
            if let Some(StoredTicket { ticket, session_key, .. }) = self.tickets.get(&name).cloned() {
                self.relays.set_old_ticket(&name, ticket, session_key, now);
            }
        }
    }

    fn tell_control(&self, message: ClientMessage) {
        if self.link.outgoing.try_send(message).is_err() {
            tracing::debug!("a message to the control server was dropped: the queue is full");
        }
    }
}
