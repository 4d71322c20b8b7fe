//! The parties in memory and the connections of their members.
//!
//! A party is loaded when it is first needed and forgotten when it is idle. Every request holds its party's lock from
//! the rules through the durable commit to the delivery, so members hear of changes in order and never of one that is
//! not on disk. Parties do not wait for each other, except that commits which coincide share one transaction.

use super::auth::random_bytes;
use super::error::internal;
use super::metrics::Metrics;
use super::store::Store;
use crate::clock::now;
use axum::extract::ws::Utf8Bytes;
use ipnet::Ipv4Net;
use lanrage_common::control::{Caller, ConnId, ControlParty, Output, refusal};
use lanrage_common::identity::{DeviceKey, PartyId};
use lanrage_common::protocol::{ErrorBody, ErrorCode, Membership, ServerMessage};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

/// Messages that may wait for one connection; a client that lets more pile up is disconnected.
const MAX_WAITING: usize = 1024;
/// Bytes of them; at least two snapshots of a full party.
const MAX_WAITING_BYTES: usize = 512 * 1024;
/// A party that nobody has used for this long leaves memory.
const IDLE: Duration = Duration::from_secs(600);

/// Why the server ends a connection.
pub(super) type End = Option<&'static str>;

/// The server's end of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) end: watch::Receiver<End>,
    pub(super) inbox: Inbox,
}

/// What waits for one client.
#[derive(Debug)]
pub(super) struct Inbox {
    messages: mpsc::Receiver<Utf8Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Inbox {
    /// The next message for the client. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Utf8Bytes> {
        let message = self.messages.recv().await?;
        self.waiting_bytes.fetch_sub(message.len(), Relaxed);
        Some(message)
    }
}

#[derive(Debug, Clone)]
struct Outbox {
    device: DeviceKey,
    messages: mpsc::Sender<Utf8Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
    end: watch::Sender<End>,
}

#[derive(Debug, Default)]
struct Slot {
    party: tokio::sync::Mutex<Option<ControlParty>>,
    used: Mutex<Option<Instant>>,
}

impl Slot {
    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_idle(&self) -> bool {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.is_none_or(|used| used.elapsed() >= IDLE)
    }
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    outboxes: HashMap<ConnId, Outbox>,
    by_device: HashMap<DeviceKey, ConnId>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Hub {
    store: Store,
    metrics: Arc<Metrics>,
    slots: Mutex<HashMap<PartyId, Arc<Slot>>>,
    connections: Mutex<Connections>,
}

/// A message as it goes out.
pub(super) fn encode(message: &ServerMessage) -> Utf8Bytes {
    // these types hold nothing that JSON cannot carry
    serde_json::to_string(message).unwrap_or_default().into()
}

impl Hub {
    pub(super) fn new(store: Store, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, slots: Mutex::default(), connections: Mutex::default() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Members connected now.
    pub(super) fn online(&self) -> usize {
        self.connections().outboxes.len()
    }

    /// Founds a party.
    pub(super) async fn found(
        self: &Arc<Self>,
        name: String,
        subnet: Ipv4Net,
        caller: Caller,
    ) -> Result<Membership, ErrorBody> {
        let id = PartyId(random_bytes());
        let (mut party, membership) = ControlParty::found(id, &name, subnet, caller)?;
        let hub = self.clone();
        uninterrupted(async move {
            hub.settle(id, &mut party).await?;
            let slot = hub.slot(id);
            *slot.party.lock().await = Some(party);
            Ok(membership)
        })
        .await
    }

    /// Applies `act` to a party, makes what it yields durable, and delivers.
    pub(super) async fn with_party<T: Send + 'static>(
        self: &Arc<Self>,
        id: PartyId,
        act: impl FnOnce(&mut ControlParty) -> Result<T, ErrorBody> + Send + 'static,
    ) -> Result<T, ErrorBody> {
        let hub = self.clone();
        uninterrupted(async move {
            let slot = hub.slot(id);
            let mut guard = slot.party.lock().await;
            let result = hub.apply(id, &mut guard, act).await;
            drop(guard);
            hub.tidy(id, slot);
            result
        })
        .await
    }

    async fn apply<T>(
        &self,
        id: PartyId,
        loaded: &mut Option<ControlParty>,
        act: impl FnOnce(&mut ControlParty) -> Result<T, ErrorBody>,
    ) -> Result<T, ErrorBody> {
        let mut party = match loaded.take() {
            Some(party) => party,
            None => self.load(id).await?,
        };
        let result = act(&mut party);
        self.settle(id, &mut party).await?;
        if !party.is_empty() {
            *loaded = Some(party);
        }
        result
    }

    /// Stores and delivers a party's outputs. When storing fails, memory is ahead of the disk: the caller drops the
    /// party, and its members' connections are closed so that they come back to the state on disk.
    async fn settle(&self, id: PartyId, party: &mut ControlParty) -> Result<(), ErrorBody> {
        let (mut records, mut sends) = (Vec::new(), Vec::new());
        while let Some(output) = party.poll_output() {
            match output {
                Output::Store(record) => records.push(record),
                Output::Send { to, message } => sends.push((to, message)),
            }
        }
        if !records.is_empty()
            && let Err(error) = self.store.commit(id, records).await
        {
            for conn in party.connections() {
                self.end(conn, "the server could not store a change: connect again");
            }
            return Err(internal(error));
        }
        self.deliver(&sends);
        Ok(())
    }

    async fn load(&self, id: PartyId) -> Result<ControlParty, ErrorBody> {
        let stored = self.store.load(&id).await.map_err(|error| internal(format!("{error:#}")))?;
        let stored =
            stored.ok_or_else(|| refusal(ErrorCode::NotFound, "there is no such party at this server"))?;
        ControlParty::restore(stored).map_err(|error| internal(format!("party {id} is damaged: {error}")))
    }

    /// Opens a connection for a device; an older one of the same device ends.
    pub(super) fn connect(&self, device: DeviceKey) -> Connection {
        let (messages, from_parties) = mpsc::channel(MAX_WAITING);
        let (end, ended) = watch::channel(None);
        let mut connections = self.connections();
        connections.next += 1;
        let id = ConnId(connections.next);
        let waiting_bytes = Arc::<AtomicUsize>::default();
        connections
            .outboxes
            .insert(id, Outbox { device, messages, waiting_bytes: waiting_bytes.clone(), end });
        let replaced = connections.by_device.insert(device, id);
        if let Some(outbox) = replaced.and_then(|old| connections.outboxes.get(&old)) {
            outbox.end.send_replace(Some("replaced by a newer connection of this device"));
        }
        Connection { id, end: ended, inbox: Inbox { messages: from_parties, waiting_bytes } }
    }

    /// Forgets a connection and tells the parties it had joined.
    pub(super) async fn disconnect(self: &Arc<Self>, device: DeviceKey, id: ConnId, parties: Vec<PartyId>) {
        {
            let mut connections = self.connections();
            connections.outboxes.remove(&id);
            if connections.by_device.get(&device) == Some(&id) {
                connections.by_device.remove(&device);
            }
        }
        for party in parties {
            let told = self.with_party(party, move |party| {
                party.handle_disconnect(&device, id);
                Ok(())
            });
            // the party may be gone by now
            drop(told.await);
        }
    }

    /// Ends all connections, for shutdown.
    pub(super) fn end_all(&self, reason: &'static str) {
        for outbox in self.connections().outboxes.values() {
            outbox.end.send_replace(Some(reason));
        }
    }

    /// Puts a message in a connection's queue, behind what its parties have sent.
    pub(super) fn send(&self, to: ConnId, message: Utf8Bytes) {
        let outbox = self.connections().outboxes.get(&to).cloned();
        if let Some(outbox) = outbox {
            self.push(&outbox, message);
        }
    }

    fn end(&self, conn: ConnId, reason: &'static str) {
        if let Some(outbox) = self.connections().outboxes.get(&conn) {
            outbox.end.send_replace(Some(reason));
        }
    }

    /// Never waits: a queue that is full ends its connection.
    fn push(&self, outbox: &Outbox, message: Utf8Bytes) {
        let size = message.len();
        let fits = outbox.waiting_bytes.fetch_add(size, Relaxed) + size <= MAX_WAITING_BYTES;
        if !fits || matches!(outbox.messages.try_send(message), Err(TrySendError::Full(_))) {
            tracing::debug!(device = %outbox.device, "connection too slow");
            self.metrics.slow_client();
            outbox.end.send_replace(Some("too slow: too much waited for this connection"));
        }
    }

    /// Encodes each distinct message once, however many members hear it.
    fn deliver(&self, sends: &[(ConnId, Arc<ServerMessage>)]) {
        let mut last: Option<(&Arc<ServerMessage>, Utf8Bytes)> = None;
        for (to, message) in sends {
            let encoded = match &last {
                Some((same, encoded)) if Arc::ptr_eq(same, message) => encoded.clone(),
                _ => encode(message),
            };
            self.send(*to, encoded.clone());
            last = Some((message, encoded));
        }
    }

    /// Lets idle parties go from memory and forgets long-dead invites.
    pub(super) async fn sweep(&self) {
        let ids: Vec<_> = self.slots().keys().copied().collect();
        for id in ids {
            let slot = self.slots().get(&id).cloned();
            let Some(slot) = slot else { continue };
            let mut guard = slot.party.lock().await;
            if let Some(party) = guard.take() {
                *guard = self.sweep_party(id, party, slot.is_idle()).await;
            }
            drop(guard);
            self.tidy(id, slot);
        }
    }

    /// The party, if it stays in memory.
    async fn sweep_party(&self, id: PartyId, mut party: ControlParty, idle: bool) -> Option<ControlParty> {
        let now = now();
        if party.poll_timeout().is_some_and(|due| due <= now.unix) {
            party.handle_timeout(now);
            self.settle(id, &mut party).await.ok()?;
        }
        (!idle || party.connections().next().is_some()).then_some(party)
    }

    fn slot(&self, id: PartyId) -> Arc<Slot> {
        let slot = self.slots().entry(id).or_default().clone();
        slot.touch();
        slot
    }

    /// Removes an empty slot that nobody else holds.
    fn tidy(&self, id: PartyId, slot: Arc<Slot>) {
        let mut slots = self.slots();
        let empty = slot.party.try_lock().is_ok_and(|party| party.is_none());
        // one reference is the table's, one is ours
        if empty && Arc::strong_count(&slot) == 2 {
            slots.remove(&id);
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<PartyId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs to its end even if whoever waits for it goes away: a commit must not lose its delivery.
async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = Result<T, ErrorBody>> + Send + 'static,
) -> Result<T, ErrorBody> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(internal(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanrage_common::control::CodeHash;
    use lanrage_common::identity::WgKey;
    use lanrage_common::protocol::CreateInvite;
    use tempfile::TempDir;

    const HOST: Caller = Caller { device: DeviceKey([1; 32]), wg: WgKey([2; 32]) };

    async fn hub() -> (Arc<Hub>, TempDir) {
        let dir = TempDir::new().unwrap();
        let (store, _) = Store::open(&dir.path().join("control.db")).await.unwrap();
        (Arc::new(Hub::new(store, Arc::default())), dir)
    }

    async fn found(hub: &Arc<Hub>) -> PartyId {
        let subnet = "10.66.0.0/16".parse().unwrap();
        hub.found("Friday".into(), subnet, HOST).await.unwrap().party.id
    }

    async fn invite(hub: &Arc<Hub>, party: PartyId, code: &str) -> Result<(), ErrorBody> {
        let code = CodeHash::of(code);
        let wish = CreateInvite { expires_in: None, uses: None };
        hub.with_party(party, move |party| party.handle_create_invite(&HOST, code, &wish, now()).map(drop))
            .await
    }

    #[tokio::test]
    async fn a_party_leaves_memory_and_comes_back_from_disk() {
        let (hub, _dir) = hub().await;
        let party = found(&hub).await;
        hub.sweep().await;
        assert_eq!(hub.slots().len(), 1, "it was used just now");
        *hub.slots()[&party].used.lock().unwrap() = None;
        hub.sweep().await;
        assert!(hub.slots().is_empty());
        assert_eq!(hub.with_party(party, |party| Ok(party.len())).await, Ok(1));
    }

    #[tokio::test]
    async fn parties_that_do_not_exist_take_no_memory() {
        let (hub, _dir) = hub().await;
        for n in 0..10 {
            let missing = hub.with_party(PartyId([n; 16]), |_| Ok(())).await;
            assert_eq!(missing.unwrap_err().code, ErrorCode::NotFound);
        }
        assert!(hub.slots().is_empty());
        let party = found(&hub).await;
        hub.with_party(party, |party| party.handle_leave(&HOST, now())).await.unwrap();
        assert!(hub.slots().is_empty(), "a dissolved party is gone");
        assert_eq!(invite(&hub, party, "a").await.unwrap_err().code, ErrorCode::NotFound);
    }

    #[tokio::test]
    async fn what_the_disk_refuses_has_not_happened() {
        let (hub, dir) = hub().await;
        let party = found(&hub).await;
        let path = dir.path().join("control.db");
        let saboteur = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        let refuse = "CREATE TRIGGER full BEFORE INSERT ON invites BEGIN SELECT RAISE(ABORT, 'no'); END";
        sqlx::query(refuse).execute(&saboteur).await.unwrap();
        let refused = invite(&hub, party, "a").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Internal);
        assert!(!refused.message.contains("ABORT"), "the cause is for the log: {}", refused.message);

        sqlx::query("DROP TRIGGER full").execute(&saboteur).await.unwrap();
        let joiner = Caller { device: DeviceKey([3; 32]), wg: WgKey([4; 32]) };
        let join = |code: &str| {
            let code = CodeHash::of(code);
            hub.with_party(party, move |party| party.handle_join(joiner, &code, now()))
        };
        assert_eq!(join("a").await.unwrap_err().code, ErrorCode::NotFound);
        invite(&hub, party, "b").await.unwrap();
        assert!(join("b").await.is_ok());
    }
}
