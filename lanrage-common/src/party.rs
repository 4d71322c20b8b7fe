//! A member's view of its party: what the control server says, believed only as far as the party's secret proves it.
//!
//! The control server orders and stores entries; it cannot make one. A member believes an entry when its MAC verifies
//! under the party's secret, the device signed the tunnel key, and nothing in it is taken. What was believed is kept
//! across restarts, so a party goes on while its control server is away.

mod output;
mod roster;
mod verify;

pub use output::{Output, PartyState};
pub use verify::Refusal;

use crate::api::Problem;
use crate::devices::{DeviceList, PartyDevice};
use crate::identity::{Device, DeviceKey, Fingerprint, PartyId, PartySecret, RosterEntry, WgKey};
use crate::protocol::{
    Change, ClientMessage, ErrorBody, ErrorCode, MAX_MEMBERS, MAX_SIGNAL, Member, Membership, Party,
    RelayInfo, ServerMessage, is_valid_name,
};
use crate::ticket::TICKET_LEN;
use crate::time::Now;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How long to wait for a snapshot before asking again.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);
/// Relays that are kept of a list.
const MAX_RELAYS: usize = 64;

const WRONG_SECRET: &str = "the invite's secret does not open this party: the link is damaged or from before the \
     secret changed; ask the host for a new invite link and join with it";
const WRONG_HOST: &str = "the control server names another host for this party than the invite does: ask the host \
     for a new invite link; if it happens again, do not trust this control server";
const BAD_LEASE: &str = "the control server gave this device an address or a subnet that no party can have: do not \
     trust this control server";

/// One party as this device sees it.
#[derive(Debug)]
pub struct PartyClient {
    state: PartyState,
    secret: PartySecret,
    own: Member,
    host_verified: bool,
    online: BTreeSet<DeviceKey>,
    refused: BTreeMap<&'static str, u64>,
    snapshot_due: Option<Instant>,
    /// The server has taken this connection's hello: what it does not find from then on is not the party.
    hello_taken: bool,
    outputs: VecDeque<Output>,
}

impl PartyClient {
    /// A fresh membership; `host` is from the invite (the own fingerprint for the host itself).
    pub fn new(
        membership: Membership,
        secret: PartySecret,
        host: Fingerprint,
        device: &Device,
        name: &str,
    ) -> Self {
        let state = PartyState { membership, host, seq: None, members: Vec::new(), relays: Vec::new() };
        Self::restore(state, secret, device, name)
    }

    /// A membership from the state file; its members come out as [`Output::MemberUp`] at once.
    pub fn restore(state: PartyState, secret: PartySecret, device: &Device, name: &str) -> Self {
        let own = sign_entry(&state.membership, &secret, device, name);
        let cached = PartyState { members: Vec::new(), ..state.clone() };
        let mut client = Self {
            state: cached,
            secret,
            own,
            host_verified: false,
            online: BTreeSet::new(),
            refused: BTreeMap::new(),
            snapshot_due: None,
            hello_taken: false,
            outputs: VecDeque::new(),
        };
        client.adopt_cache(state);
        client
    }

    fn adopt_cache(&mut self, state: PartyState) {
        if self.party().host.fingerprint() != self.state.host {
            return self.outputs.push_back(Output::WrongSecret(WRONG_HOST.into()));
        }
        if !verify::is_sane(&self.state.membership) {
            return self.outputs.push_back(Output::WrongSecret(BAD_LEASE.into()));
        }
        for member in state.members {
            self.put_member(member);
        }
        if self.own.entry.device == self.party().host {
            self.verify_host();
        }
        if !self.state.relays.is_empty() {
            self.outputs.push_back(Output::Relays(self.state.relays.clone()));
        }
    }

    /// The link to the control server is up and logged in.
    pub fn handle_connected(&mut self, now: Now) {
        self.hello_taken = false;
        self.send_hello(self.state.seq, now);
    }

    /// The link to the control server is down. Members stay: they are reachable without it.
    pub fn handle_disconnected(&mut self) {
        self.snapshot_due = None;
    }

    /// A message from the control server; those about other parties are ignored.
    pub fn handle_server_message(&mut self, message: ServerMessage, now: Now) {
        let id = self.party().id;
        self.hello_taken |= is_sent_to_members_of(&id, &message);
        match message {
            ServerMessage::Snapshot { party, seq, members, online } if party.id == id => {
                self.handle_snapshot(party, seq, members, online, now);
            }
            ServerMessage::Delta { party, epoch, seq, change } if party == id => {
                self.handle_delta(epoch, seq, change, now);
            }
            ServerMessage::Presence { party, device, online } if party == id => {
                self.handle_presence(device, online);
            }
            ServerMessage::Relays { relays } => self.handle_relays(relays),
            ServerMessage::Relay { relay } => self.handle_relay(relay),
            ServerMessage::RelayGone { relay } => self.handle_relay_gone(&relay),
            ServerMessage::Signal { party, from, body } if party == id => self.handle_signal(from, body),
            ServerMessage::Ticket { party, relay, ticket, session_key, expires_in } if party == id => {
                self.handle_ticket(relay, &ticket, &session_key, expires_in);
            }
            ServerMessage::Error { party, error } if party.is_none_or(|p| p == id) => {
                self.handle_error(error)
            }
            _ => self.count("other_party"),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.snapshot_due.is_some_and(|due| due <= now.instant) {
            self.send_hello(None, now);
        }
    }

    /// When to call [`PartyClient::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.snapshot_due
    }

    /// What to do next; drain until `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What to save.
    pub fn state(&self) -> &PartyState {
        &self.state
    }

    /// The party.
    pub fn party(&self) -> &Party {
        &self.state.membership.party
    }

    /// The own entry.
    pub fn own(&self) -> &RosterEntry {
        &self.own.entry
    }

    /// Verified members, without this device.
    pub fn members(&self) -> impl Iterator<Item = &RosterEntry> {
        self.state.members.iter().map(|member| &member.entry)
    }

    /// The devices behind a member, or behind this device.
    pub fn devices_of(&self, device: &DeviceKey) -> &[PartyDevice] {
        let member = match *device == self.own.entry.device {
            true => Some(&self.own),
            false => self.state.members.iter().find(|member| member.entry.device == *device),
        };
        member.and_then(|member| member.devices.as_ref()).map_or(&[], |list| &list.devices)
    }

    /// Publishes the devices behind this one, whose addresses it has leased.
    pub fn set_devices(&mut self, devices: Vec<PartyDevice>, now: Now) {
        if self.devices_of(&self.own.entry.device) == devices {
            return;
        }
        let last = self.own.devices.as_ref().map_or(0, |list| list.version);
        let version = now.unix.saturating_mul(1000).max(last + 1);
        self.own.devices = Some(self.sign_devices(version, devices));
        self.send_hello(self.state.seq, now);
    }

    fn sign_devices(&self, version: u64, devices: Vec<PartyDevice>) -> Box<DeviceList> {
        let entry = &self.own.entry;
        DeviceList::sign(&self.secret, &self.party().id, &entry.device, entry.epoch, (version, devices))
            .into()
    }

    /// Whether a member is connected to the control server (a hint).
    pub fn is_online(&self, device: &DeviceKey) -> bool {
        self.online.contains(device)
    }

    /// What was not believed, by reason.
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    fn handle_snapshot(
        &mut self,
        party: Party,
        seq: u64,
        members: Vec<Member>,
        online: Vec<DeviceKey>,
        now: Now,
    ) {
        if !self.accept_party(party, now) {
            return;
        }
        self.snapshot_due = None;
        self.state.seq = Some(seq);
        let host = self.party().host;
        let host_was_offered = members.iter().any(|member| member.entry.device == host);
        self.replace_members(members);
        if host_was_offered && !self.host_verified {
            self.outputs.push_back(Output::WrongSecret(WRONG_SECRET.into()));
        }
        self.replace_online(online);
        self.outputs.extend(["control_refused", "removed_from_party"].map(Output::Solved));
        self.save();
    }

    /// Takes the party's changeable facts; false when the server contradicts what is known.
    fn accept_party(&mut self, party: Party, now: Now) -> bool {
        let known = self.party();
        if party.host.fingerprint() != self.state.host || party.host != known.host {
            self.count("wrong_host");
            match self.host_verified {
                true => self
                    .problem("party_contradiction", "the control server now names another host than before"),
                false => self.outputs.push_back(Output::WrongSecret(WRONG_HOST.into())),
            }
            return false;
        }
        if party.subnet != known.subnet {
            self.count("wrong_subnet");
            self.problem(
                "party_contradiction",
                "the control server now gives the party another subnet than before",
            );
            return false;
        }
        if party.epoch < known.epoch {
            self.count("epoch_rollback");
            self.problem(
                "party_contradiction",
                "the control server shows an older state of the party than before",
            );
            return false;
        }
        self.raise_epoch(party.epoch, now);
        if is_valid_name(&party.name) {
            self.state.membership.party.name = party.name;
        }
        self.outputs.push_back(Output::Solved("party_contradiction"));
        true
    }

    fn handle_delta(&mut self, epoch: u32, seq: u64, change: Change, now: Now) {
        let Some(have) = self.state.seq.filter(|_| self.snapshot_due.is_none()) else {
            return self.count("delta_before_snapshot");
        };
        if seq <= have {
            return self.count("delta_repeated");
        }
        if seq > have + 1 {
            self.count("delta_gap");
            return self.send_hello(None, now);
        }
        if epoch < self.party().epoch {
            return self.count("epoch_rollback");
        }
        self.state.seq = Some(seq);
        self.raise_epoch(epoch, now);
        match change {
            Change::Member { member } => {
                self.put_member(member);
            }
            Change::Left { device } if device == self.own.entry.device => {
                self.problem(
                    "removed_from_party",
                    "the control server says that this device has left the party",
                );
            }
            Change::Left { device } => self.drop_member(&device),
        }
        self.save();
    }

    fn raise_epoch(&mut self, epoch: u32, now: Now) {
        if epoch <= self.party().epoch {
            return;
        }
        self.state.membership.party.epoch = epoch;
        self.own.entry.epoch = epoch;
        self.own.mac = self.secret.roster_mac(&self.state.membership.party.id, &self.own.entry);
        if let Some(list) = self.own.devices.take() {
            let DeviceList { version, devices, .. } = *list;
            self.own.devices = Some(self.sign_devices(version + 1, devices));
        }
        self.send_hello(self.state.seq, now);
    }

    fn replace_online(&mut self, online: Vec<DeviceKey>) {
        let online: BTreeSet<_> = online.into_iter().take(MAX_MEMBERS).collect();
        let before = std::mem::take(&mut self.online);
        for device in before.difference(&online).chain(online.difference(&before)) {
            if self.members().any(|entry| entry.device == *device) {
                let online = online.contains(device);
                self.outputs.push_back(Output::Presence { device: *device, online });
            }
        }
        self.online = online;
    }

    fn handle_presence(&mut self, device: DeviceKey, online: bool) {
        let changed = match online {
            true => self.online.len() < 2 * MAX_MEMBERS && self.online.insert(device),
            false => self.online.remove(&device),
        };
        if changed && self.members().any(|entry| entry.device == device) {
            self.outputs.push_back(Output::Presence { device, online });
        }
    }

    /// The list comes after every hello that was taken, also when nothing else does because nothing has changed.
    fn handle_relays(&mut self, relays: Vec<RelayInfo>) {
        if !std::mem::replace(&mut self.hello_taken, true) {
            self.outputs.extend(["control_refused", "removed_from_party"].map(Output::Solved));
        }
        self.state.relays = relays.into_iter().filter(is_usable).take(MAX_RELAYS).collect();
        self.tell_relays();
    }

    /// Changes a relay of the list; a new one comes with the whole list only.
    fn handle_relay(&mut self, relay: RelayInfo) {
        let known = self.state.relays.iter_mut().find(|known| known.name == relay.name);
        if let Some(known) = known.filter(|known| is_usable(&relay) && **known != relay) {
            *known = relay;
            self.tell_relays();
        }
    }

    fn handle_relay_gone(&mut self, name: &str) {
        let count = self.state.relays.len();
        self.state.relays.retain(|relay| relay.name != name);
        if self.state.relays.len() < count {
            self.tell_relays();
        }
    }

    fn tell_relays(&mut self) {
        self.outputs.push_back(Output::Relays(self.state.relays.clone()));
        self.save();
    }

    fn handle_signal(&mut self, from: WgKey, body: String) {
        let is_member = self.members().any(|entry| entry.wg == from);
        if !is_member || body.len() > MAX_SIGNAL {
            return self.count("signal_refused");
        }
        self.outputs.push_back(Output::Signal { from, body });
    }

    fn handle_ticket(&mut self, relay: String, ticket: &str, session_key: &str, expires_in: u64) {
        if !self.state.relays.iter().any(|known| known.name == relay) {
            return self.count("ticket_unknown_relay");
        }
        let ticket = STANDARD.decode(ticket).ok().filter(|ticket| ticket.len() == TICKET_LEN);
        let session_key = STANDARD.decode(session_key).ok().and_then(|key| key.try_into().ok());
        let (Some(ticket), Some(session_key)) = (ticket, session_key) else {
            return self.count("ticket_malformed");
        };
        self.outputs.push_back(Output::Solved("control_refused"));
        self.outputs.push_back(Output::Ticket { relay, ticket, session_key, expires_in });
    }

    fn handle_error(&mut self, error: ErrorBody) {
        let fix = match error.code {
            // it passes by itself, and asking again is what the timers do
            ErrorCode::RateLimited => return self.count("rate_limited"),
            // a member that a signal was for, or a ticket's relay, is gone: the roster and the relay list tell that
            ErrorCode::NotFound if self.hello_taken => return self.count("not_found"),
            ErrorCode::NotFound | ErrorCode::Forbidden => {
                "ask the host for a new invite link; members that are connected stay connected"
            }
            _ => "if it lasts, look at the control server's log",
        };
        self.outputs.push_back(Output::Problem(Problem {
            code: "control_refused".into(),
            message: format!("the control server refused a request: {}", error.message),
            fix: fix.into(),
        }));
    }

    fn send_hello(&mut self, have: Option<u64>, now: Now) {
        self.snapshot_due = have.is_none().then(|| now.instant + SNAPSHOT_PATIENCE);
        let hello = ClientMessage::Hello { party: self.party().id, member: self.own.clone(), have };
        self.outputs.push_back(Output::Send(hello));
    }

    fn problem(&mut self, code: &str, message: &str) {
        self.outputs.push_back(Output::Problem(Problem {
            code: code.into(),
            message: message.into(),
            fix: "ask the host; if the host sees nothing of it, do not trust this control server".into(),
        }));
    }

    fn count(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    fn save(&mut self) {
        if !self.outputs.contains(&Output::Save) {
            self.outputs.push_back(Output::Save);
        }
    }
}

fn is_usable(relay: &RelayInfo) -> bool {
    is_valid_name(&relay.name) && !relay.addresses.is_empty()
}

/// Whether the server sends such a message only to who has said hello for the party.
fn is_sent_to_members_of(id: &PartyId, message: &ServerMessage) -> bool {
    match message {
        ServerMessage::Snapshot { party, .. } => party.id == *id,
        ServerMessage::Delta { party, .. } | ServerMessage::Presence { party, .. } => party == id,
        _ => false,
    }
}

fn sign_entry(membership: &Membership, secret: &PartySecret, device: &Device, name: &str) -> Member {
    let entry = RosterEntry {
        name: name.into(),
        device: device.key(),
        wg: device.wg_key(),
        wg_signature: device.wg_signature(),
        address: membership.address,
        epoch: membership.party.epoch,
    };
    Member { mac: secret.roster_mac(&membership.party.id, &entry), entry, devices: None }
}

#[cfg(test)]
mod tests;
