//! The relays that are alive, what they can take, and the tickets for them.
//!
//! A new relay concerns everybody, so everybody gets the list, at most once a second. A relay that fills up, empties or
//! goes concerns those who use it: they hear of it at once, the others with the list, half a minute later at most.

use super::auth::random_bytes;
use super::hub::encode;
use axum::extract::ws::Utf8Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lanrage_common::control::{Caller, ConnId, refusal};
use lanrage_common::identity::{DeviceKey, PartyId};
use lanrage_common::protocol::{
    ErrorBody, ErrorCode, RelayInfo, RelayLoad, RelayState, ServerMessage, is_valid_name,
};
use lanrage_common::ticket::{MAX_TICKET_LIFE, Ticket};
use lanrage_common::time::Now;
use rand::rngs::OsRng;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A relay that has been silent for this long is not on the list any more.
pub(super) const SILENCE: Duration = Duration::from_secs(15);
/// A relay that was heard from within this time keeps its name against one at another address.
const FRESH: Duration = Duration::from_secs(8);
const MAX_ADDRESSES: usize = 8;
const MAX_RELAYS: usize = 256;

/// Changes of the list reach everybody together when they follow each other within this time.
const PUBLISH_GAP: Duration = Duration::from_secs(1);
/// Everybody hears of changed states this late; who holds a ticket for the relay hears at once.
const LAZY: Duration = Duration::from_secs(30);
/// A full relay takes members again from this share of its places on, percent.
const ROOM_AGAIN: u64 = 95;
/// From here on it is full.
const NO_ROOM: u64 = 98;
/// A load is told in steps of this many percent.
const LOAD_STEP: u64 = 10;

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
    published: Option<Instant>,
    /// When the list is to be published again.
    due: Option<Instant>,
    /// Some members have heard of a change since: to them even the published list is news.
    is_overtaken: bool,
}

#[derive(Debug)]
struct Relay {
    registration: u64,
    info: RelayInfo,
    ticket_key: [u8; 32],
    heard: Instant,
    load: RelayLoad,
    /// Who holds a ticket: the connection that asked for it, and until when it is good.
    users: HashMap<DeviceKey, (ConnId, Instant)>,
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

/// What some members must hear now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) to: Vec<ConnId>,
    pub(super) message: Utf8Bytes,
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
        let info = RelayInfo { state: RelayState::Ready, load: 0, ..info };
        let users = table.relays.remove(&name).map(|older| older.users).unwrap_or_default();
        let relay =
            Relay { registration: number, info, ticket_key, heard: now, load: RelayLoad::default(), users };
        table.relays.insert(name.clone(), relay);
        table.publish_within(Duration::ZERO, now);
        self.publish_due_of(&mut table, now);
        Ok(Registration { name, number })
    }

    /// Notes a heartbeat; an error when the registration is not valid any more. When the relay's state has changed, its
    /// users are to hear of it.
    pub(super) fn heartbeat(
        &self,
        registration: &Registration,
        load: RelayLoad,
        now: Instant,
    ) -> Result<Option<News>, Replaced> {
        let mut table = self.table();
        let relay = table.relays.get_mut(&registration.name);
        let relay = relay.filter(|relay| relay.registration == registration.number).ok_or(Replaced)?;
        (relay.load, relay.heard) = (load, now);
        relay.users.retain(|_, (_, until)| *until > now);
        let before = relay.info.clone();
        relay.info.state = state(before.state, &load);
        relay.info.load = told_load(before.load, &load);
        let news = (relay.info.state != before.state).then(|| relay.news());
        if relay.info != before {
            table.publish_within(LAZY, now);
        }
        table.is_overtaken |= news.is_some();
        self.publish_due_of(&mut table, now);
        Ok(news)
    }

    /// Whether a relay whose connection has ended may be restarting: it has not been emptied, nor registered anew.
    pub(super) fn may_return(&self, registration: &Registration) -> bool {
        let table = self.table();
        let current = table.relays.get(&registration.name);
        current.is_some_and(|relay| {
            relay.registration == registration.number && relay.info.state != RelayState::Draining
        })
    }

    /// Takes a relay off the list, unless it has registered anew meanwhile. Its users are to hear of it.
    pub(super) fn remove(&self, registration: &Registration, now: Instant) -> Option<News> {
        let mut table = self.table();
        let current = table.relays.get(&registration.name);
        current.filter(|relay| relay.registration == registration.number)?;
        let relay = table.relays.remove(&registration.name)?;
        table.publish_within(LAZY, now);
        table.is_overtaken = true;
        let message = encode(&ServerMessage::RelayGone { relay: relay.info.name.clone() });
        Some(News { message, ..relay.news() })
    }

    /// How much the relays do.
    pub(super) fn load(&self) -> Load {
        let table = self.table();
        table.relays.values().fold(Load::default(), |load, relay| Load {
            relays: load.relays + 1,
            bindings: load.bindings + u64::from(relay.load.bindings),
            flows: load.flows + u64::from(relay.load.flows),
        })
    }

    /// A ticket for `caller` at a relay; its connection hears of the relay's state while the ticket is good.
    pub(super) fn ticket(
        &self,
        caller: &Caller,
        conn: ConnId,
        party: PartyId,
        epoch: u32,
        relay: String,
        now: Now,
    ) -> Result<ServerMessage, ErrorBody> {
        let key = self.admit(caller, conn, &relay, now.instant)?;
        let ticket = Ticket {
            party,
            member: caller.wg,
            epoch,
            expires: now.unix + MAX_TICKET_LIFE,
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

    /// The key that seals tickets for a relay, if it takes this member.
    fn admit(&self, caller: &Caller, conn: ConnId, name: &str, now: Instant) -> Result<[u8; 32], ErrorBody> {
        let mut table = self.table();
        let relay = table.relays.get_mut(name).ok_or_else(|| {
            refusal(ErrorCode::NotFound, "that relay is not on the list now: choose another")
        })?;
        let is_user = relay.users.contains_key(&caller.device);
        let refused = match relay.info.state {
            RelayState::Draining => Some("that relay is being emptied: choose another"),
            RelayState::Full if !is_user => Some("that relay is full: choose another"),
            _ => None,
        };
        if let Some(why) = refused {
            return Err(refusal(ErrorCode::NotFound, why));
        }
        relay.users.insert(caller.device, (conn, now + Duration::from_secs(MAX_TICKET_LIFE)));
        Ok(relay.ticket_key)
    }

    /// What there is to tell about a relay now.
    pub(super) fn now_of(&self, name: &str) -> Utf8Bytes {
        match self.table().relays.get(name) {
            Some(relay) => relay.news().message,
            None => encode(&ServerMessage::RelayGone { relay: name.into() }),
        }
    }

    /// Publishes the list if that is due.
    pub(super) fn publish_due(&self, now: Instant) {
        self.publish_due_of(&mut self.table(), now);
    }

    fn publish_due_of(&self, table: &mut Table, now: Instant) {
        if table.due.is_none_or(|due| due > now) {
            return;
        }
        (table.due, table.published) = (None, Some(now));
        let list = encode_list(table);
        let is_overtaken = std::mem::take(&mut table.is_overtaken);
        // a relay that comes back unchanged is no news, unless its going was told
        self.list.send_if_modified(|published| {
            let changed = is_overtaken || *published != list;
            *published = list;
            changed
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A newer connection has taken the relay's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replaced;

impl Table {
    /// Everybody is to have the list this soon, but not within [`PUBLISH_GAP`] of the last time.
    fn publish_within(&mut self, delay: Duration, now: Instant) {
        let earliest = self.published.map_or(now, |published| published + PUBLISH_GAP);
        let due = (now + delay).max(earliest);
        self.due = Some(self.due.map_or(due, |already| already.min(due)));
    }
}

impl Relay {
    fn news(&self) -> News {
        let message = encode(&ServerMessage::Relay { relay: self.info.clone() });
        News { to: self.users.values().map(|(conn, _)| *conn).collect(), message }
    }
}

/// What a relay with this load is; one that was full has to get some room first.
fn state(before: RelayState, load: &RelayLoad) -> RelayState {
    if load.draining {
        return RelayState::Draining;
    }
    let limit = if before == RelayState::Full { ROOM_AGAIN } else { NO_ROOM };
    match fullness(load) >= limit {
        true => RelayState::Full,
        false => RelayState::Ready,
    }
}

/// How full the fuller of its tables is, percent.
fn fullness(load: &RelayLoad) -> u64 {
    let share = |used: u32, limit: u32| match limit {
        0 => 0,
        limit => u64::from(used) * 100 / u64::from(limit),
    };
    share(load.bindings, load.members_limit).max(share(load.flows, load.flows_limit))
}

/// The load as members hear it: rounded, and changed only by a whole step, so that it does not flutter.
fn told_load(before: u8, load: &RelayLoad) -> u8 {
    let exact = fullness(load).max(u64::from(load.pressure)).min(100);
    if exact.abs_diff(u64::from(before)) < LOAD_STEP {
        return before;
    }
    u8::try_from((exact + LOAD_STEP / 2) / LOAD_STEP * LOAD_STEP).unwrap_or(100).min(100)
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
            ..RelayInfo::default()
        }
    }

    fn key() -> String {
        STANDARD.encode([9; 32])
    }

    fn caller(n: u8) -> Caller {
        Caller { device: DeviceKey([n; 32]), wg: WgKey([n + 100; 32]) }
    }

    fn at(instant: Instant) -> Now {
        Now { instant, unix: 1_000 }
    }

    /// Asks for a ticket of the relay `one`.
    fn ask(relays: &Relays, n: u8, now: Instant) -> Result<ServerMessage, ErrorBody> {
        relays.ticket(&caller(n), ConnId(n.into()), PartyId([3; 16]), 7, "one".into(), at(now))
    }

    #[test]
    fn a_ticket_opens_with_the_relays_key_only() {
        let (relays, now) = (Relays::default(), Instant::now());
        relays.register(info("one", 3478), &key(), now).unwrap();
        let message = ask(&relays, 1, now).unwrap();
        let ServerMessage::Ticket { ticket, session_key, expires_in, party, .. } = message else {
            panic!("{message:?}")
        };
        let sealed = STANDARD.decode(ticket).unwrap();
        let opened = Ticket::open(&sealed, &[9; 32], 1_000).unwrap();
        assert_eq!((opened.party, opened.member, opened.epoch), (party, caller(1).wg, 7));
        assert_eq!(STANDARD.encode(opened.session_key), session_key);
        assert_eq!(expires_in, 600);
        assert!(Ticket::open(&sealed, &[8; 32], 1_000).is_err());
        let unknown = relays.ticket(&caller(1), ConnId(1), party, 7, "two".into(), at(now));
        assert_eq!(unknown.unwrap_err().code, ErrorCode::NotFound);
    }

    #[test]
    fn the_same_relay_replaces_itself_and_an_impostor_waits() {
        let (relays, now) = (Relays::default(), Instant::now());
        let list = relays.list();
        let load = |bindings, flows| RelayLoad { bindings, flows, ..RelayLoad::default() };
        let first = relays.register(info("one", 1), &key(), now).unwrap();
        assert!(relays.register(info("one", 2), &key(), now).is_err());
        let second = relays.register(info("one", 1), &key(), now).unwrap();
        assert_eq!(relays.heartbeat(&first, load(1, 1), now), Err(Replaced));
        assert_eq!(relays.heartbeat(&second, load(3, 4), now), Ok(None));
        assert_eq!(relays.remove(&first, now), None);
        assert_eq!(relays.load(), Load { relays: 1, bindings: 3, flows: 4 });
        assert!(list.borrow().as_str().contains("192.0.2.1:1"));
        assert!(relays.register(info("one", 2), &key(), now + FRESH).is_ok());
    }

    #[test]
    fn a_relay_that_drains_gives_no_tickets_and_its_users_hear_of_it_at_once() {
        let (relays, now) = (Relays::default(), Instant::now());
        let one = relays.register(info("one", 1), &key(), now).unwrap();
        relays.register(info("two", 2), &key(), now).unwrap();
        relays.publish_due(now + PUBLISH_GAP);
        let mut list = relays.list();
        list.mark_unchanged();
        ask(&relays, 1, now).unwrap();

        let draining = RelayLoad { draining: true, ..RelayLoad::default() };
        let news = relays.heartbeat(&one, draining, now).unwrap().unwrap();
        assert_eq!(news.to, [ConnId(1)], "who has no ticket does not care");
        assert!(news.message.as_str().contains("\"draining\""), "{news:?}");
        assert_eq!(ask(&relays, 1, now).unwrap_err().code, ErrorCode::NotFound);
        assert_eq!(relays.heartbeat(&one, draining, now), Ok(None), "it is told once");
        assert!(!relays.may_return(&one), "an emptied relay has gone for good");
        assert!(!list.has_changed().unwrap());
        relays.publish_due(now + LAZY + PUBLISH_GAP);
        assert!(list.borrow_and_update().as_str().contains("\"draining\""), "the others hear later");

        let back = relays.heartbeat(&one, RelayLoad::default(), now).unwrap().unwrap();
        assert!(back.message.as_str().contains("\"ready\""));
        assert!(ask(&relays, 2, now).is_ok());
        assert!(relays.may_return(&one));
        let gone = relays.remove(&one, now).unwrap();
        assert!(!relays.may_return(&one));
        assert_eq!(gone.to.len(), 2);
        assert!(gone.message.as_str().contains("relay_gone"));
    }

    #[test]
    fn a_relay_that_is_back_before_the_list_was_published_is_told_to_those_who_heard_of_its_going() {
        let (relays, now) = (Relays::default(), Instant::now());
        let one = relays.register(info("one", 1), &key(), now).unwrap();
        let mut list = relays.list();
        list.mark_unchanged();
        ask(&relays, 1, now).unwrap();
        assert_eq!(relays.remove(&one, now).unwrap().to, [ConnId(1)]);
        let later = now + PUBLISH_GAP;
        relays.register(info("one", 1), &key(), later).unwrap();
        relays.publish_due(later);
        assert!(list.has_changed().unwrap());
        assert!(list.borrow_and_update().as_str().contains("one"));
        let again = relays.register(info("one", 1), &key(), later + PUBLISH_GAP).unwrap();
        relays.publish_due(later + 2 * PUBLISH_GAP);
        assert!(!list.has_changed().unwrap(), "nobody has heard of anything");
        drop(again);
    }

    #[test]
    fn a_full_relay_keeps_its_members_and_takes_nobody_else() {
        let (relays, now) = (Relays::default(), Instant::now());
        let one = relays.register(info("one", 1), &key(), now).unwrap();
        let with = |bindings| RelayLoad { bindings, members_limit: 100, ..RelayLoad::default() };
        ask(&relays, 1, now).unwrap();
        assert!(relays.heartbeat(&one, with(98), now).unwrap().is_some());
        assert!(ask(&relays, 1, now).is_ok(), "it renews its ticket");
        assert!(ask(&relays, 2, now).unwrap_err().message.contains("full"));
        assert_eq!(relays.heartbeat(&one, with(96), now), Ok(None), "full until there is some room");
        assert!(relays.heartbeat(&one, with(90), now).unwrap().is_some());
        assert!(ask(&relays, 2, now).is_ok());
        let later = now + Duration::from_secs(MAX_TICKET_LIFE);
        let news = relays.heartbeat(&one, with(100), later).unwrap().unwrap();
        assert_eq!(news.to, [], "whose ticket is over uses it no more");
    }

    #[test]
    fn a_load_is_told_in_steps() {
        let with = |pressure| RelayLoad { pressure, ..RelayLoad::default() };
        assert_eq!([0, 9, 10, 14, 15, 99].map(|exact| told_load(0, &with(exact))), [0, 0, 10, 10, 20, 100]);
        assert_eq!([31, 40, 49, 50].map(|exact| told_load(40, &with(exact))), [40, 40, 40, 50]);
    }

    #[test]
    fn changes_within_a_second_reach_everybody_together() {
        let (relays, now) = (Relays::default(), Instant::now());
        let list = relays.list();
        relays.register(info("one", 1), &key(), now).unwrap();
        relays.register(info("two", 2), &key(), now).unwrap();
        assert!(list.borrow().as_str().contains("one") && !list.borrow().as_str().contains("two"));
        relays.publish_due(now + PUBLISH_GAP / 2);
        assert!(!list.borrow().as_str().contains("two"));
        relays.publish_due(now + PUBLISH_GAP);
        assert!(list.borrow().as_str().contains("two"));
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
