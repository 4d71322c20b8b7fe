//! The relays that are alive, and the tickets for them.

use super::auth::random_bytes;
use super::hub::encode;
use axum::extract::ws::Utf8Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lanrage_common::control::{Caller, refusal};
use lanrage_common::identity::PartyId;
use lanrage_common::protocol::{ErrorBody, ErrorCode, RelayInfo, ServerMessage, is_valid_name};
use lanrage_common::ticket::{MAX_TICKET_LIFE, Ticket};
use rand::rngs::OsRng;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A relay that has been silent for this long is not on the list any more.
pub(super) const SILENCE: Duration = Duration::from_secs(15);
/// A relay that was heard from within this time keeps its name against one at another address.
const FRESH: Duration = Duration::from_secs(8);
const MAX_ADDRESSES: usize = 8;
const MAX_RELAYS: usize = 256;

/// The registry; `list` holds the encoded [`ServerMessage::Relays`].
#[derive(Debug)]
pub(super) struct Relays {
    table: Mutex<Table>,
    list: watch::Sender<Utf8Bytes>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    relays: BTreeMap<String, Relay>,
}

#[derive(Debug)]
struct Relay {
    registration: u64,
    info: RelayInfo,
    ticket_key: [u8; 32],
    heard: Instant,
    bindings: u32,
    flows: u32,
}

/// One relay's place in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    name: String,
    number: u64,
}

impl Registration {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Sums over all relays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) relays: usize,
    pub(super) bindings: u64,
    pub(super) flows: u64,
}

impl Default for Relays {
    fn default() -> Self {
        Self { table: Mutex::default(), list: watch::channel(encode_list(&Table::default())).0 }
    }
}

impl Relays {
    /// The list as members get it, with changes.
    pub(super) fn list(&self) -> watch::Receiver<Utf8Bytes> {
        self.list.subscribe()
    }

    /// Puts a relay on the list. The same relay coming back replaces its older registration.
    pub(super) fn register(
        &self,
        info: RelayInfo,
        ticket_key: &str,
        now: Instant,
    ) -> Result<Registration, ErrorBody> {
        check_info(&info)?;
        let ticket_key = open_key(ticket_key)?;
        let mut table = self.table();
        if let Some(older) = table.relays.get(&info.name)
            && older.info.addresses != info.addresses
            && now.saturating_duration_since(older.heard) < FRESH
        {
            return Err(bad(format!(
                "a relay named {} is already here at another address: set another relay.name",
                info.name
            )));
        }
        if table.relays.len() >= MAX_RELAYS && !table.relays.contains_key(&info.name) {
            return Err(bad(format!("this control server lists {MAX_RELAYS} relays at most")));
        }
        table.next += 1;
        let (number, name) = (table.next, info.name.clone());
        let relay = Relay { registration: number, info, ticket_key, heard: now, bindings: 0, flows: 0 };
        table.relays.insert(name.clone(), relay);
        self.publish(&table);
        Ok(Registration { name, number })
    }

    /// Notes a heartbeat; `false` when the registration is not valid any more.
    pub(super) fn heartbeat(
        &self,
        registration: &Registration,
        bindings: u32,
        flows: u32,
        now: Instant,
    ) -> bool {
        let mut table = self.table();
        let relay = table.relays.get_mut(&registration.name);
        let Some(relay) = relay.filter(|relay| relay.registration == registration.number) else {
            return false;
        };
        (relay.bindings, relay.flows, relay.heard) = (bindings, flows, now);
        true
    }

    /// Takes a relay off the list, unless it has registered anew meanwhile.
    pub(super) fn remove(&self, registration: &Registration) {
        let mut table = self.table();
        let current = table.relays.get(&registration.name);
        if current.is_some_and(|relay| relay.registration == registration.number) {
            table.relays.remove(&registration.name);
            self.publish(&table);
        }
    }

    /// How much the relays do.
    pub(super) fn load(&self) -> Load {
        let table = self.table();
        table.relays.values().fold(Load::default(), |load, relay| Load {
            relays: load.relays + 1,
            bindings: load.bindings + u64::from(relay.bindings),
            flows: load.flows + u64::from(relay.flows),
        })
    }

    /// A ticket for `caller` at a relay.
    pub(super) fn ticket(
        &self,
        caller: &Caller,
        party: PartyId,
        epoch: u32,
        relay: String,
        unix: u64,
    ) -> Result<ServerMessage, ErrorBody> {
        let key = self.table().relays.get(&relay).map(|relay| relay.ticket_key);
        let key = key.ok_or_else(|| {
            refusal(ErrorCode::NotFound, "that relay is not on the list now: choose another")
        })?;
        let ticket = Ticket {
            party,
            member: caller.wg,
            epoch,
            expires: unix + MAX_TICKET_LIFE,
            kbit_per_s: 0,
            packets_per_s: 0,
            session_key: random_bytes(),
        };
        Ok(ServerMessage::Ticket {
            party,
            relay,
            ticket: STANDARD.encode(ticket.seal(&key, &mut OsRng)),
            session_key: STANDARD.encode(ticket.session_key),
            expires_in: MAX_TICKET_LIFE,
        })
    }

    fn publish(&self, table: &Table) {
        let list = encode_list(table);
        // a relay that comes back unchanged is no news
        self.list.send_if_modified(|published| {
            let changed = *published != list;
            *published = list;
            changed
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode_list(table: &Table) -> Utf8Bytes {
    let relays = table.relays.values().map(|relay| relay.info.clone()).collect();
    encode(&ServerMessage::Relays { relays })
}

fn check_info(info: &RelayInfo) -> Result<(), ErrorBody> {
    if !is_valid_name(&info.name) {
        return Err(bad("a relay's name has 1 to 32 characters: set relay.name"));
    }
    if info.region.chars().count() > 32 || info.region.contains(char::is_control) {
        return Err(bad("a relay's region has at most 32 characters: set relay.region"));
    }
    let usable = |address: &std::net::SocketAddr| !address.ip().is_unspecified() && address.port() != 0;
    let count_fits = (1..=MAX_ADDRESSES).contains(&info.addresses.len());
    if info.tls.is_some_and(|tls| !usable(&tls.address)) {
        return Err(bad(
            "a relay's TLS address is one that members can connect to: set relay.tls_public_address",
        ));
    }
    match count_fits && info.addresses.iter().all(usable) {
        true => Ok(()),
        false => {
            Err(bad("a relay needs 1 to 8 addresses that members can send to: set relay.public_address"))
        }
    }
}

fn open_key(text: &str) -> Result<[u8; 32], ErrorBody> {
    let key = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    key.ok_or_else(|| bad("a relay's ticket key is 32 bytes, written as base64"))
}

fn bad(message: impl Into<String>) -> ErrorBody {
    refusal(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanrage_common::identity::{DeviceKey, WgKey};

    fn info(name: &str, port: u16) -> RelayInfo {
        RelayInfo {
            name: name.into(),
            addresses: vec![([192, 0, 2, 1], port).into()],
            region: String::new(),
            tls: None,
        }
    }

    fn key() -> String {
        STANDARD.encode([9; 32])
    }

    #[test]
    fn a_ticket_opens_with_the_relays_key_only() {
        let relays = Relays::default();
        relays.register(info("one", 3478), &key(), Instant::now()).unwrap();
        let caller = Caller { device: DeviceKey([1; 32]), wg: WgKey([2; 32]) };
        let party = PartyId([3; 16]);
        let message = relays.ticket(&caller, party, 7, "one".into(), 1_000).unwrap();
        let ServerMessage::Ticket { ticket, session_key, expires_in, .. } = message else {
            panic!("{message:?}")
        };
        let sealed = STANDARD.decode(ticket).unwrap();
        let opened = Ticket::open(&sealed, &[9; 32], 1_000).unwrap();
        assert_eq!((opened.party, opened.member, opened.epoch), (party, caller.wg, 7));
        assert_eq!(STANDARD.encode(opened.session_key), session_key);
        assert_eq!(expires_in, 600);
        assert!(Ticket::open(&sealed, &[8; 32], 1_000).is_err());
        let unknown = relays.ticket(&caller, party, 7, "two".into(), 1_000);
        assert_eq!(unknown.unwrap_err().code, ErrorCode::NotFound);
    }

    #[test]
    fn the_same_relay_replaces_itself_and_an_impostor_waits() {
        let (relays, now) = (Relays::default(), Instant::now());
        let list = relays.list();
        let first = relays.register(info("one", 1), &key(), now).unwrap();
        assert!(relays.register(info("one", 2), &key(), now).is_err());
        let second = relays.register(info("one", 1), &key(), now).unwrap();
        assert!(!relays.heartbeat(&first, 1, 1, now));
        assert!(relays.heartbeat(&second, 3, 4, now));
        relays.remove(&first);
        assert_eq!(relays.load(), Load { relays: 1, bindings: 3, flows: 4 });
        assert!(list.borrow().as_str().contains("192.0.2.1:1"));
        assert!(relays.register(info("one", 2), &key(), now + FRESH).is_ok());
    }

    #[test]
    fn unfit_relays_are_refused() {
        let relays = Relays::default();
        let unspecified = RelayInfo { addresses: vec![([0, 0, 0, 0], 3478).into()], ..info("one", 1) };
        let nowhere = RelayInfo { addresses: vec![], ..info("one", 1) };
        for unfit in [unspecified, nowhere, info("", 1), info("one", 0)] {
            assert!(relays.register(unfit, &key(), Instant::now()).is_err());
        }
        assert!(relays.register(info("one", 1), "c2hvcnQ=", Instant::now()).is_err());
    }
}
