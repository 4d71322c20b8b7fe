//! The control server's rules for one party: who is in, which invites are good, what each message yields.
//!
//! [`ControlParty`] holds no socket and no database. Its owner feeds requests in (`handle_*`), makes every
//! [`Output::Store`] durable, and only then delivers the answers and every [`Output::Send`]. Durable state is what
//! [`Record`]s say; who is connected lives in memory alone.

mod devices;
mod invites;
mod membership;
mod record;
mod roster;
#[cfg(test)]
mod tests;

pub use devices::StoredDevice;
pub use invites::{CodeHash, MAX_INVITE_LIFE, MAX_INVITES, MIN_INVITE_LIFE};
pub use record::{Record, RestoreError, StoredInvite, StoredParty, StoredSeat};

use crate::identity::{DeviceKey, PartyId, WgKey};
use crate::ipam::Ipam;
use crate::protocol::{
    Change, ErrorBody, ErrorCode, Member, Membership, Party, ServerMessage, is_valid_name,
};
use crate::time::Now;
use invites::Invites;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Newest changes that are kept for members that come back; who is further behind gets a snapshot.
pub const KEPT_CHANGES: u64 = 128;
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

    fn seat(&self, device: &DeviceKey) -> Result<&Seat, ErrorBody> {
        self.seats.get(device).ok_or_else(not_a_member)
    }

    fn seat_mut(&mut self, device: &DeviceKey) -> Result<&mut Seat, ErrorBody> {
        self.seats.get_mut(device).ok_or_else(not_a_member)
    }

    fn store(&mut self, record: Record) {
        self.outputs.push_back(Output::Store(record));
    }

    fn send(&mut self, to: ConnId, message: ServerMessage) {
        self.outputs.push_back(Output::Send { to, message: Arc::new(message) });
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
}

fn bad_name(of: &str) -> ErrorBody {
    let rule = "1 to 32 characters, no control characters, no blank at either end";
    refusal(ErrorCode::BadRequest, format!("a {of} name has {rule}"))
}

fn not_a_member() -> ErrorBody {
    refusal(ErrorCode::NotFound, "this device is not a member of that party: join it by an invite link")
}
