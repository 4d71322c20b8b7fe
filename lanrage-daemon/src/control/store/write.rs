//! The one writer.

use super::StoreError;
use lanrage_common::control::{KEPT_CHANGES, Record, StoredDevice, StoredInvite, StoredSeat};
use lanrage_common::identity::PartyId;
use lanrage_common::protocol::{Change, Party};
use sqlx::SqliteConnection;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Requests that share one transaction at most.
const MAX_GROUP: usize = 512;

/// Records of one party that become durable together or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) party: PartyId,
    pub(super) records: Vec<Record>,
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
}

/// Writes until all senders are gone.
pub(super) async fn run(mut connection: SqliteConnection, mut batches: mpsc::Receiver<Batch>) {
    let mut group = Vec::new();
    while batches.recv_many(&mut group, MAX_GROUP).await > 0 {
        commit_group(&mut connection, &mut group).await;
    }
    if let Err(error) = sqlx::Connection::close(connection).await {
        tracing::warn!(%error, "the database was not closed cleanly; it repairs itself at the next start");
    }
}

async fn commit_group(connection: &mut SqliteConnection, group: &mut Vec<Batch>) {
    let mut results = Vec::with_capacity(group.len());
    let outcome = write_group(connection, group, &mut results).await;
    if let Err(error) = &outcome {
        tracing::error!(%error, "the database refuses writes: check the disk that holds the state directory");
        // the transaction may be open still; without one this fails, which is as good
        drop(execute(connection, "ROLLBACK").await);
    }
    for (index, batch) in group.drain(..).enumerate() {
        let result = match &outcome {
            Ok(()) => results.get(index).cloned().unwrap_or(Ok(())),
            Err(error) => Err(StoreError(error.to_string())),
        };
        // whoever asked may have gone meanwhile
        drop(batch.done.send(result));
    }
}

async fn write_group(
    connection: &mut SqliteConnection,
    group: &[Batch],
    results: &mut Vec<Result<(), StoreError>>,
) -> sqlx::Result<()> {
    execute(connection, "BEGIN IMMEDIATE").await?;
    for batch in group {
        execute(connection, "SAVEPOINT batch").await?;
        let result = write_batch(connection, batch).await;
        if let Err(error) = &result {
            tracing::error!(party = %batch.party, %error, "a write was refused");
            execute(connection, "ROLLBACK TO batch").await?;
        }
        execute(connection, "RELEASE batch").await?;
        results.push(result.map_err(|error| StoreError(error.to_string())));
    }
    execute(connection, "COMMIT").await
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> sqlx::Result<()> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

async fn write_batch(connection: &mut SqliteConnection, batch: &Batch) -> sqlx::Result<()> {
    for record in &batch.records {
        write_record(connection, &batch.party, record).await?;
    }
    Ok(())
}

async fn write_record(connection: &mut SqliteConnection, id: &PartyId, record: &Record) -> sqlx::Result<()> {
    match record {
        Record::Founded(party) => write_party(connection, party).await,
        Record::Dissolved => {
            let query = sqlx::query("DELETE FROM parties WHERE id = ?").bind(&id.0[..]);
            query.execute(connection).await.map(drop)
        }
        Record::Seat(seat) => write_seat(connection, id, seat).await,
        Record::SeatGone(device) => {
            let query = sqlx::query("DELETE FROM seats WHERE party = ? AND device = ?");
            query.bind(&id.0[..]).bind(&device.0[..]).execute(connection).await.map(drop)
        }
        Record::Device(device) => write_device(connection, id, device).await,
        Record::DeviceGone(owner, device) => {
            let query = sqlx::query("DELETE FROM devices WHERE party = ? AND owner = ? AND id = ?");
            let query = query.bind(&id.0[..]).bind(&owner.0[..]).bind(&device.0[..]);
            query.execute(connection).await.map(drop)
        }
        Record::Invite(invite) => write_invite(connection, id, invite).await,
        Record::InviteGone(code) => {
            let query = sqlx::query("DELETE FROM invites WHERE code = ?").bind(&code.0[..]);
            query.execute(connection).await.map(drop)
        }
        Record::Change { seq, epoch, change } => write_change(connection, id, *seq, *epoch, change).await,
    }
}

async fn write_party(connection: &mut SqliteConnection, party: &Party) -> sqlx::Result<()> {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    sqlx::query(
        "INSERT INTO parties (id, name, subnet, host, epoch, seq, created_at) VALUES (?, ?, ?, ?, ?, 0, ?)",
    )
    .bind(&party.id.0[..])
    .bind(&party.name)
    .bind(party.subnet.to_string())
    .bind(&party.host.0[..])
    .bind(party.epoch)
    .bind(signed(created))
    .execute(connection)
    .await
    .map(drop)
}

async fn write_seat(connection: &mut SqliteConnection, id: &PartyId, seat: &StoredSeat) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO seats (party, device, wg, address, released_at, entry) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (party, device) DO UPDATE SET wg = excluded.wg, address = excluded.address,
         released_at = excluded.released_at, entry = excluded.entry",
    )
    .bind(&id.0[..])
    .bind(&seat.device.0[..])
    .bind(&seat.wg.0[..])
    .bind(u32::from(seat.address))
    .bind(seat.released.map(signed))
    .bind(seat.entry.as_ref().map(json).transpose()?)
    .execute(connection)
    .await
    .map(drop)
}

async fn write_device(
    connection: &mut SqliteConnection,
    id: &PartyId,
    device: &StoredDevice,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO devices (party, owner, id, address, released_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (party, owner, id) DO UPDATE SET address = excluded.address,
         released_at = excluded.released_at",
    )
    .bind(&id.0[..])
    .bind(&device.owner.0[..])
    .bind(&device.id.0[..])
    .bind(u32::from(device.address))
    .bind(device.released.map(signed))
    .execute(connection)
    .await
    .map(drop)
}

async fn write_invite(
    connection: &mut SqliteConnection,
    id: &PartyId,
    invite: &StoredInvite,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO invites (code, party, expires_at, uses_left, revoked) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (code) DO UPDATE SET uses_left = excluded.uses_left, revoked = excluded.revoked",
    )
    .bind(&invite.code.0[..])
    .bind(&id.0[..])
    .bind(signed(invite.expires_at))
    .bind(invite.uses_left)
    .bind(invite.revoked)
    .execute(connection)
    .await
    .map(drop)
}

async fn write_change(
    connection: &mut SqliteConnection,
    id: &PartyId,
    seq: u64,
    epoch: u32,
    change: &Change,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE parties SET seq = ?, epoch = ? WHERE id = ?")
        .bind(signed(seq))
        .bind(epoch)
        .bind(&id.0[..])
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO changes (party, seq, epoch, change) VALUES (?, ?, ?, ?)")
        .bind(&id.0[..])
        .bind(signed(seq))
        .bind(epoch)
        .bind(json(change)?)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM changes WHERE party = ? AND seq <= ?")
        .bind(&id.0[..])
        .bind(signed(seq.saturating_sub(KEPT_CHANGES)))
        .execute(connection)
        .await
        .map(drop)
}

fn json(value: &impl serde::Serialize) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// SQLite's integers are signed; ours stay far below the limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
