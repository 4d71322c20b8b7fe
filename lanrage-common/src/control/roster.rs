//! Who is connected, what they published, and what everybody hears of it.

use super::{Caller, ConnId, ControlParty, Output, Record, Seat, StoredSeat, bad_name, refusal};
use crate::identity::{DeviceKey, WgKey};
use crate::protocol::{Change, ErrorBody, ErrorCode, MAX_SIGNAL, Member, ServerMessage, is_valid_name};
use std::sync::Arc;

impl ControlParty {
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

    /// Passes a sealed body on to the member with tunnel key `to`; while that one is not connected, it is dropped.
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
        let Some(seat) = self.seats.values().find(|seat| seat.wg == *to) else {
            return Err(refusal(
                ErrorCode::NotFound,
                "no member of this party has that tunnel key: it has left, or has a newer key",
            ));
        };
        if let Some(target) = seat.conn {
            self.send(target, ServerMessage::Signal { party: self.party.id, from: caller.wg, body });
        }
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
        self.check_wg_is_unique(caller)?;
        member.devices.as_ref().map_or(Ok(()), |list| self.check_devices(&caller.device, list))
    }

    /// Numbers a change, stores it and tells all connected members.
    pub(super) fn change(&mut self, change: Change) {
        self.change_except(None, change);
    }

    fn change_except(&mut self, except: Option<ConnId>, change: Change) {
        self.seq += 1;
        self.store(Record::Change { seq: self.seq, epoch: self.party.epoch, change: change.clone() });
        let delta = self.delta(self.seq, self.party.epoch, change);
        self.broadcast(except, &delta);
        self.remember(self.seq, delta);
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
