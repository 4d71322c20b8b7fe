//! Reads, by a small pool of connections beside the writer.

use super::{Counts, Store};
use anyhow::{Context as _, anyhow};
use lanrage_common::control::{CodeHash, StoredDevice, StoredInvite, StoredParty, StoredSeat};
use lanrage_common::identity::{DeviceId, DeviceKey, PartyId, WgKey};
use lanrage_common::protocol::{Change, Party};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use std::net::Ipv4Addr;

impl Store {
    /// Whether the database answers.
    pub(in super::super) async fn answers(&self) -> anyhow::Result<()> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// Which party an invite is for.
    pub(in super::super) async fn party_of_invite(&self, code: &CodeHash) -> anyhow::Result<Option<PartyId>> {
        let query = sqlx::query("SELECT party FROM invites WHERE code = ?").bind(&code.0[..]);
        let row = query.fetch_optional(&self.readers).await?;
        row.map(|row| Ok(PartyId(bytes(&row, "party")?))).transpose()
    }

    /// All durable facts of a party, if there is such a party; from one moment, whatever is written meanwhile.
    pub(in super::super) async fn load(&self, id: &PartyId) -> anyhow::Result<Option<StoredParty>> {
        let mut snapshot = self.readers.begin().await?;
        let query = sqlx::query("SELECT * FROM parties WHERE id = ?").bind(&id.0[..]);
        let Some(row) = query.fetch_optional(&mut *snapshot).await? else { return Ok(None) };
        let seats = sqlx::query("SELECT * FROM seats WHERE party = ?").bind(&id.0[..]);
        let seats = seats.fetch_all(&mut *snapshot).await?;
        let devices = sqlx::query("SELECT * FROM devices WHERE party = ?").bind(&id.0[..]);
        let devices = devices.fetch_all(&mut *snapshot).await?;
        let invites = sqlx::query("SELECT * FROM invites WHERE party = ?").bind(&id.0[..]);
        let invites = invites.fetch_all(&mut *snapshot).await?;
        let changes = sqlx::query("SELECT * FROM changes WHERE party = ? ORDER BY seq").bind(&id.0[..]);
        let changes = changes.fetch_all(&mut *snapshot).await?;
        let stored = || -> anyhow::Result<StoredParty> {
            Ok(StoredParty {
                party: party(&row)?,
                seq: number(&row, "seq")?,
                seats: seats.iter().map(seat).collect::<Result<_, _>>()?,
                devices: devices.iter().map(device).collect::<Result<_, _>>()?,
                invites: invites.iter().map(invite).collect::<Result<_, _>>()?,
                changes: changes.iter().map(change).collect::<Result<_, _>>()?,
            })
        };
        stored().map(Some).with_context(|| format!("the stored party {id} is damaged"))
    }

    /// How much there is.
    pub(in super::super) async fn counts(&self) -> anyhow::Result<Counts> {
        let sql = "SELECT (SELECT count(*) FROM parties) AS parties,
                   (SELECT count(*) FROM seats WHERE released_at IS NULL) AS members";
        let row = sqlx::query(sql).fetch_one(&self.readers).await?;
        Ok(Counts { parties: row.try_get("parties")?, members: row.try_get("members")? })
    }
}

fn party(row: &SqliteRow) -> anyhow::Result<Party> {
    Ok(Party {
        id: PartyId(bytes(row, "id")?),
        name: row.try_get("name")?,
        subnet: row.try_get::<String, _>("subnet")?.parse()?,
        host: DeviceKey(bytes(row, "host")?),
        epoch: row.try_get("epoch")?,
    })
}

fn seat(row: &SqliteRow) -> anyhow::Result<StoredSeat> {
    let entry: Option<String> = row.try_get("entry")?;
    let released: Option<i64> = row.try_get("released_at")?;
    Ok(StoredSeat {
        device: DeviceKey(bytes(row, "device")?),
        wg: WgKey(bytes(row, "wg")?),
        address: Ipv4Addr::from(row.try_get::<u32, _>("address")?),
        released: released.map(u64::try_from).transpose()?,
        entry: entry.map(|json| serde_json::from_str(&json)).transpose()?,
    })
}

fn device(row: &SqliteRow) -> anyhow::Result<StoredDevice> {
    let released: Option<i64> = row.try_get("released_at")?;
    Ok(StoredDevice {
        owner: DeviceKey(bytes(row, "owner")?),
        id: DeviceId(bytes(row, "id")?),
        address: Ipv4Addr::from(row.try_get::<u32, _>("address")?),
        released: released.map(u64::try_from).transpose()?,
    })
}

fn invite(row: &SqliteRow) -> anyhow::Result<StoredInvite> {
    Ok(StoredInvite {
        code: CodeHash(bytes(row, "code")?),
        expires_at: number(row, "expires_at")?,
        uses_left: row.try_get("uses_left")?,
        revoked: row.try_get("revoked")?,
    })
}

fn change(row: &SqliteRow) -> anyhow::Result<(u64, u32, Change)> {
    let json: String = row.try_get("change")?;
    Ok((number(row, "seq")?, row.try_get("epoch")?, serde_json::from_str(&json)?))
}

fn number(row: &SqliteRow, column: &'static str) -> anyhow::Result<u64> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?)?)
}

fn bytes<const N: usize>(row: &SqliteRow, column: &'static str) -> anyhow::Result<[u8; N]> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes.try_into().map_err(|_| anyhow!("column {column} does not have {N} bytes"))
}
