//! The control server's rules for one party: who is in, which invites are good, what each message yields.
//!
//! [`ControlParty`] holds no socket and no database. Its owner feeds requests in (`handle_*`), makes every
//! [`Output::Store`] durable, and only then delivers the answers and every [`Output::Send`]. Durable state is what
//! [`Record`]s say; who is connected lives in memory alone.

mod invites;
mod record;
#[cfg(test)]
mod tests;

pub use invites::{CodeHash, MAX_INVITE_LIFE, MAX_INVITES, MIN_INVITE_LIFE};
pub use record::{Record, RestoreError, StoredInvite, StoredParty, StoredSeat};

use crate::identity::{DeviceKey, PartyId, WgKey};
use crate::ipam::Ipam;
use crate::protocol::{
    Change, ErrorBody, ErrorCode, MAX_MEMBERS, Member, Membership, Party, ServerMessage, is_valid_name,
};
use crate::time::Now;
use invites::Invites;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Newest changes that are kept for members that come back; who is further behind gets a snapshot.
pub const KEPT_CHANGES: u64 = 128;
/// Characters a signal's base64 body may have: 4 KiB of content.
pub const MAX_SIGNAL: usize = 5464;
/// A party's first epoch.
pub const FIRST_EPOCH: u32 = 1;

/// One WebSocket connection, numbered by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Who makes a request, as its login proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The device.
    pub device: DeviceKey,
    /// Its tunnel key.
    pub wg: WgKey,
}

/// What the owner has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a handful is alive at a time")]
pub enum Output {
    /// Make this durable, in order, before anything else is done or answered.
    Store(Record),
    /// Then deliver this.
    Send {
        /// To which connection.
        to: ConnId,
        /// What.
        message: Arc<ServerMessage>,
    },
}

/// A request was refused.
pub fn refusal(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
    ErrorBody { code, message: message.into() }
}

/// A member's place in the party.
#[derive(Debug, Clone)]
struct Seat {
    wg: WgKey,
    entry: Option<Member>,
    conn: Option<ConnId>,
}

/// One party at the control server.
#[derive(Debug)]
pub struct ControlParty {
    party: Party,
    seq: u64,
    ipam: Ipam,
    seats: BTreeMap<DeviceKey, Seat>,
    invites: Invites,
    changes: VecDeque<(u64, Arc<ServerMessage>)>,
    outputs: VecDeque<Output>,
}

impl ControlParty {
    /// Founds a party with `caller` as host and first member.
    pub fn found(
        id: PartyId,
        name: &str,
        subnet: Ipv4Net,
        caller: Caller,
    ) -> Result<(Self, Membership), ErrorBody> {
        if !is_valid_name(name) {
            return Err(bad_name("party"));
        }
        let ipam = Ipam::new(subnet).map_err(|error| refusal(ErrorCode::BadRequest, error.to_string()))?;
        let party = Party { id, name: name.into(), subnet, host: caller.device, epoch: FIRST_EPOCH };
        let mut founded = Self::empty(party, ipam);
        founded.store(Record::Founded(founded.party.clone()));
        let membership = founded.admit(caller)?;
        Ok((founded, membership))
    }

    fn empty(party: Party, ipam: Ipam) -> Self {
        Self {
            party,
            seq: 0,
            ipam,
            seats: BTreeMap::new(),
            invites: Invites::default(),
            changes: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The party's facts.
    pub fn party(&self) -> &Party {
        &self.party
    }

    /// Number of the newest change.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Devices that are members.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether the last member has left: the party is dissolved.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Connections that have said hello.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.seats.values().filter_map(|seat| seat.conn)
    }

    /// Redeems an invite. A member gets its membership again without using the invite up.
    pub fn handle_join(
        &mut self,
        caller: Caller,
        code: &CodeHash,
        now: Now,
    ) -> Result<Membership, ErrorBody> {
        self.invites.check_known(code)?;
        if self.seats.contains_key(&caller.device) {
            return self.membership(&caller.device);
        }
        self.invites.check(code, now.unix)?;
        if self.seats.len() >= MAX_MEMBERS {
            return Err(refusal(
                ErrorCode::PartyFull,
                format!("the party has {MAX_MEMBERS} members, and that is the most it can have"),
            ));
        }
        self.check_wg_is_unique(&caller)?;
        let membership = self.admit(caller)?;
        let used = self.invites.redeem(code);
        self.outputs.extend(used.map(|invite| Output::Store(Record::Invite(invite))));
        Ok(membership)
    }

    /// Registers an invite whose code hashes to `code`; the answer is its stored form.
    pub fn handle_create_invite(
        &mut self,
        caller: &Caller,
        code: CodeHash,
        wish: &crate::protocol::CreateInvite,
        now: Now,
    ) -> Result<StoredInvite, ErrorBody> {
        self.seat(&caller.device)?;
        let (invite, forgotten) = self.invites.create(code, wish, now.unix)?;
        self.outputs.extend(forgotten.into_iter().map(|code| Output::Store(Record::InviteGone(code))));
        self.store(Record::Invite(invite));
        Ok(invite)
    }

    /// Takes an invite back.
    pub fn handle_revoke_invite(&mut self, caller: &Caller, code: &CodeHash) -> Result<(), ErrorBody> {
        self.seat(&caller.device)?;
        let invite = self.invites.revoke(code)?;
        self.store(Record::Invite(invite));
        Ok(())
    }

    /// Removes the caller. Its address stays reserved for it. With the host go all invites, since nobody could check
    /// the host's fingerprint in them; with the last member goes the party.
    pub fn handle_leave(&mut self, caller: &Caller, now: Now) -> Result<(), ErrorBody> {
        let wg = self.seat(&caller.device)?.wg;
        let address = self.membership(&caller.device)?.address;
        let left = self.seats.remove(&caller.device);
        self.ipam.release(&caller.device, now.unix);
        if self.seats.is_empty() {
            self.store(Record::Dissolved);
            return Ok(());
        }
        let released = Some(now.unix);
        self.store(Record::Seat(StoredSeat { device: caller.device, wg, address, released, entry: None }));
        if caller.device == self.party.host {
            let revoked = self.invites.revoke_all();
            self.outputs.extend(revoked.into_iter().map(|invite| Output::Store(Record::Invite(invite))));
        }
        if left.is_some_and(|seat| seat.entry.is_some()) {
            self.change(Change::Left { device: caller.device });
        }
        Ok(())
    }

    /// Subscribes a connection and publishes its member's entry; `have` is the newest change the client holds.
    pub fn handle_hello(
        &mut self,
        caller: Caller,
        conn: ConnId,
        member: Member,
        have: Option<u64>,
    ) -> Result<(), ErrorBody> {
        self.check_entry(&caller, &member)?;
        let address = self.membership(&caller.device)?.address;
        let seat = self.seat_mut(&caller.device)?;
        let arrived = seat.conn.replace(conn) != Some(conn);
        let changed = seat.entry.as_ref() != Some(&member);
        if changed {
            (seat.wg, seat.entry) = (caller.wg, Some(member.clone()));
            let entry = Some(member.clone());
            let seat = StoredSeat { device: caller.device, wg: caller.wg, address, released: None, entry };
            self.store(Record::Seat(seat));
            self.change_except(Some(conn), Change::Member { member });
        }
        self.catch_up(conn, have);
        if arrived {
            self.announce(caller.device, conn, true);
        }
        Ok(())
    }

    /// Forgets a connection that has closed.
    pub fn handle_disconnect(&mut self, device: &DeviceKey, conn: ConnId) {
        let Some(seat) = self.seats.get_mut(device).filter(|seat| seat.conn == Some(conn)) else { return };
        seat.conn = None;
        self.announce(*device, conn, false);
    }

    /// Passes a sealed body on to the connected member with tunnel key `to`.
    pub fn handle_signal(
        &mut self,
        caller: &Caller,
        conn: ConnId,
        to: &WgKey,
        body: String,
    ) -> Result<(), ErrorBody> {
        if self.seat(&caller.device)?.conn != Some(conn) {
            return Err(refusal(ErrorCode::Forbidden, "send hello for this party before signals"));
        }
        let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
        if body.len() > MAX_SIGNAL || !body.bytes().all(in_alphabet) {
            return Err(refusal(
                ErrorCode::BadRequest,
                "a signal's body is at most 4 KiB, written as base64",
            ));
        }
        let target = self.seats.values().find(|seat| seat.wg == *to);
        let Some(target) = target.and_then(|seat| seat.conn) else {
            return Err(refusal(
                ErrorCode::NotFound,
                "that member is not connected now: try again when it is",
            ));
        };
        self.send(target, ServerMessage::Signal { party: self.party.id, from: caller.wg, body });
        Ok(())
    }

    /// Whether the caller may have a relay ticket now; the answer is the epoch to put in.
    pub fn handle_ticket(&self, caller: &Caller) -> Result<u32, ErrorBody> {
        let seat = self.seat(&caller.device)?;
        match seat.wg == caller.wg {
            true => Ok(self.party.epoch),
            false => Err(refusal(ErrorCode::Forbidden, "send hello with the new tunnel key first")),
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Unix seconds at which [`Self::handle_timeout`] has something to forget.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.invites.next_forgotten()
    }

    /// Forgets invites that are long dead.
    pub fn handle_timeout(&mut self, now: Now) {
        let forgotten = self.invites.forget(now.unix);
        self.outputs.extend(forgotten.into_iter().map(|code| Output::Store(Record::InviteGone(code))));
    }

    /// The membership of a device, if it is a member.
    fn membership(&self, device: &DeviceKey) -> Result<Membership, ErrorBody> {
        let address = self.ipam.address(device).ok_or_else(not_a_member)?;
        Ok(Membership { party: self.party.clone(), address })
    }

    fn admit(&mut self, caller: Caller) -> Result<Membership, ErrorBody> {
        let leased = self
            .ipam
            .lease(caller.device)
            .map_err(|error| refusal(ErrorCode::PartyFull, format!("the party is full: {error}")))?;
        if let Some(previous) = leased.taken_from {
            self.store(Record::SeatGone(previous));
        }
        self.seats.insert(caller.device, Seat { wg: caller.wg, entry: None, conn: None });
        self.store(Record::Seat(StoredSeat {
            device: caller.device,
            wg: caller.wg,
            address: leased.address,
            released: None,
            entry: None,
        }));
        self.membership(&caller.device)
    }

    fn seat(&self, device: &DeviceKey) -> Result<&Seat, ErrorBody> {
        self.seats.get(device).ok_or_else(not_a_member)
    }

    fn seat_mut(&mut self, device: &DeviceKey) -> Result<&mut Seat, ErrorBody> {
        self.seats.get_mut(device).ok_or_else(not_a_member)
    }

    fn check_entry(&self, caller: &Caller, member: &Member) -> Result<(), ErrorBody> {
        let bad = |message: String| Err(refusal(ErrorCode::BadRequest, message));
        let address = self.membership(&caller.device)?.address;
        let entry = &member.entry;
        if entry.device != caller.device || entry.wg != caller.wg {
            return bad(
                "the entry's keys are not the ones that logged in: publish only your own entry".into()
            );
        }
        if entry.address != address {
            return bad(format!("the entry says {}, but this device's address is {address}", entry.address));
        }
        if entry.epoch != self.party.epoch {
            return bad(format!(
                "the entry is of epoch {}, the party is in {}",
                entry.epoch, self.party.epoch
            ));
        }
        if !is_valid_name(&entry.name) {
            return Err(bad_name("device"));
        }
        if !entry.wg_key_is_signed() {
            return bad("the tunnel key is not signed by the device key".into());
        }
        self.check_wg_is_unique(caller)
    }

    /// Nobody may claim another member's tunnel key: signals and tickets are addressed by it.
    fn check_wg_is_unique(&self, caller: &Caller) -> Result<(), ErrorBody> {
        let taken = self.seats.iter().any(|(device, seat)| *device != caller.device && seat.wg == caller.wg);
        match taken {
            true => Err(refusal(
                ErrorCode::Forbidden,
                "another member already uses this tunnel key: two devices must not share a key file",
            )),
            false => Ok(()),
        }
    }

    fn store(&mut self, record: Record) {
        self.outputs.push_back(Output::Store(record));
    }

    fn send(&mut self, to: ConnId, message: ServerMessage) {
        self.outputs.push_back(Output::Send { to, message: Arc::new(message) });
    }

    /// Numbers a change, stores it and tells all connected members.
    fn change(&mut self, change: Change) {
        self.change_except(None, change);
    }

    fn change_except(&mut self, except: Option<ConnId>, change: Change) {
        self.seq += 1;
        self.store(Record::Change { seq: self.seq, epoch: self.party.epoch, change: change.clone() });
        let delta = self.delta(self.seq, self.party.epoch, change);
        self.broadcast(except, &delta);
        self.remember(self.seq, delta);
    }

    fn delta(&self, seq: u64, epoch: u32, change: Change) -> Arc<ServerMessage> {
        Arc::new(ServerMessage::Delta { party: self.party.id, epoch, seq, change })
    }

    fn remember(&mut self, seq: u64, delta: Arc<ServerMessage>) {
        self.changes.push_back((seq, delta));
        if self.changes.len() as u64 > KEPT_CHANGES {
            self.changes.pop_front();
        }
    }

    fn announce(&mut self, device: DeviceKey, conn: ConnId, online: bool) {
        let presence = ServerMessage::Presence { party: self.party.id, device, online };
        self.broadcast(Some(conn), &Arc::new(presence));
    }

    fn broadcast(&mut self, except: Option<ConnId>, message: &Arc<ServerMessage>) {
        let listeners = self.seats.values().filter_map(|seat| seat.conn).filter(|conn| Some(*conn) != except);
        let sends = listeners.map(|to| Output::Send { to, message: message.clone() });
        self.outputs.extend(sends);
    }

    /// Brings a connection to the newest state: by the changes it lacks if they are kept, by a snapshot otherwise.
    fn catch_up(&mut self, conn: ConnId, have: Option<u64>) {
        let kept_from = self.seq - self.changes.len() as u64;
        match have.filter(|have| (kept_from..=self.seq).contains(have)) {
            Some(have) => self.replay(conn, have),
            None => self.send(conn, self.snapshot()),
        }
    }

    /// The changes after `have`, and who is connected now, which a snapshot would have told.
    fn replay(&mut self, conn: ConnId, have: u64) {
        let missed = self.changes.iter().filter(|(seq, _)| *seq > have);
        let sends: Vec<_> =
            missed.map(|(_, delta)| Output::Send { to: conn, message: delta.clone() }).collect();
        self.outputs.extend(sends);
        let party = self.party.id;
        let presence: Vec<_> = self
            .published()
            .map(|(device, seat)| ServerMessage::Presence {
                party,
                device: *device,
                online: seat.conn.is_some(),
            })
            .collect();
        for message in presence {
            self.send(conn, message);
        }
    }

    fn published(&self) -> impl Iterator<Item = (&DeviceKey, &Seat)> {
        self.seats.iter().filter(|(_, seat)| seat.entry.is_some())
    }

    fn snapshot(&self) -> ServerMessage {
        let online = self.seats.iter().filter(|(_, seat)| seat.conn.is_some());
        ServerMessage::Snapshot {
            party: self.party.clone(),
            seq: self.seq,
            members: self.seats.values().filter_map(|seat| seat.entry.clone()).collect(),
            online: online.map(|(device, _)| *device).collect(),
        }
    }
}

fn bad_name(of: &str) -> ErrorBody {
    let rule = "1 to 32 characters, no control characters, no blank at either end";
    refusal(ErrorCode::BadRequest, format!("a {of} name has {rule}"))
}

fn not_a_member() -> ErrorBody {
    refusal(ErrorCode::NotFound, "this device is not a member of that party: join it by an invite link")
}
