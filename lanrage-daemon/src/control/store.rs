//! The control server's database: SQLite in WAL mode with `synchronous=FULL`, written by one task.
//!
//! The writer puts everything that waits into one transaction (group commit), so the price of a durable commit is
//! shared by all who ask at the same time. Each request is a savepoint of its own: one that fails takes nobody with it.

mod read;
mod write;

use anyhow::anyhow;
use lanrage_common::control::Record;
use lanrage_common::identity::PartyId;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqliteConnection};
use std::path::Path;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use write::Batch;

/// Requests that may wait for the writer; more than that wait for a place.
const WRITE_QUEUE: usize = 4096;
const READERS: u32 = 4;

/// A write was not made durable.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database refused a write: {0}")]
pub(super) struct StoreError(String);

/// The database; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Store {
    readers: SqlitePool,
    writer: mpsc::Sender<Batch>,
}

/// Rows for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) parties: i64,
    pub(super) members: i64,
}

impl Store {
    /// Opens or makes the database and starts its writer.
    ///
    /// The writer ends, with all writes done, when the last clone of the store is dropped.
    pub(super) async fn open(path: &Path) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let connection = open_writer(path).await?;
        let options = options(path).create_if_missing(false);
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options);
        let (writer, batches) = mpsc::channel(WRITE_QUEUE);
        let task = tokio::spawn(write::run(connection, batches));
        Ok((Self { readers, writer }, task))
    }

    /// Makes records of one party durable; when this returns `Ok`, they survive a power cut.
    pub(super) async fn commit(&self, party: PartyId, records: Vec<Record>) -> Result<(), StoreError> {
        let (done, durable) = oneshot::channel();
        let stopped = || StoreError("the writer has stopped".into());
        self.writer.send(Batch { party, records, done }).await.map_err(|_| stopped())?;
        durable.await.map_err(|_| stopped())?
    }
}

async fn open_writer(path: &Path) -> anyhow::Result<SqliteConnection> {
    let mut connection = options(path).connect().await.map_err(|error| explain(error, path))?;
    sqlx::migrate!("./migrations").run(&mut connection).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => explain(error, path),
        other => anyhow!(other).context(format!(
            "the database {} does not fit this version of LANrage: update LANrage, or move the file away to start afresh",
            path.display()
        )),
    })?;
    Ok(connection)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .optimize_on_close(false, None)
}

/// What is wrong with a database file, and what to do.
fn explain(error: sqlx::Error, path: &Path) -> anyhow::Error {
    // primary result codes, https://www.sqlite.org/rescode.html
    let code =
        error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok()).map(|code| code & 0xff);
    let path = path.display();
    let advice = match code {
        Some(26) => format!("{path} is not a LANrage database: move it away, or set another state_dir"),
        Some(11) => format!(
            "the database {path} is damaged: restore it from a backup, or move it away to start afresh"
        ),
        Some(8 | 14 | 3) => {
            format!("cannot write the database {path}: run as the user who owns it, or fix its permissions")
        }
        Some(13) => format!("the disk is full, the database {path} cannot grow: free some space"),
        Some(5 | 6) => format!("the database {path} is in use by another program: stop that program first"),
        _ => format!("cannot open the database {path}"),
    };
    anyhow!(error).context(advice)
}
