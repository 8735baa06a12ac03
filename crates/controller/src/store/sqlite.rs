//! SQLite: a file of objects as JSON, with the history of what happened to them.

use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt as _;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};

use super::OpenError;
use super::backend::{Backend, Batch, Newer, ReadError, Refusal};
use crate::state::{Row, State};

/// Connections for reading at the same time.
const READERS: u32 = 4;

/// Rows of history that one statement removes, so that commits do not wait long.
const FORGOTTEN_AT_ONCE: u32 = 1000;

#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    pub(super) async fn open(path: &Path) -> Result<Self, OpenError> {
        let connect = |source| OpenError::Connect {
            place: path.display().to_string(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // Of a KMS key that is deleted nothing stays in the file's free pages.
            .pragma("secure_delete", "ON")
            .busy_timeout(Duration::from_secs(20));
        let writer = PoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .acquire_timeout(Duration::from_secs(60))
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(connect)?;
        sqlx::migrate!("./migrations")
            .run(&writer)
            .await
            .map_err(|source| OpenError::Migrate {
                place: path.display().to_string(),
                source,
            })?;
        let readers = PoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.create_if_missing(false))
            .await
            .map_err(connect)?;
        Ok(Self { writer, readers })
    }

    async fn position(&self) -> Result<u64, sqlx::Error> {
        let position: i64 = sqlx::query_scalar("SELECT sequence FROM position")
            .fetch_one(&self.readers)
            .await?;
        Ok(position.cast_unsigned())
    }
}

#[tonic::async_trait]
impl Backend for Sqlite {
    async fn load(&self) -> Result<State, ReadError> {
        let mut transaction = self.readers.begin().await?;
        let mut state = State::default();
        let mut rows = sqlx::query_as::<_, (String, String, String, i64, String)>(
            "SELECT kind, id, account, version, body FROM objects",
        )
        .fetch(&mut *transaction);
        while let Some((kind, id, account, version, body)) = rows.try_next().await? {
            state.load(&Row {
                kind,
                id,
                account,
                version: version.cast_unsigned(),
                body,
            })?;
        }
        drop(rows);
        let position: i64 = sqlx::query_scalar("SELECT sequence FROM position")
            .fetch_one(&mut *transaction)
            .await?;
        state.set_sequence(position.cast_unsigned());
        Ok(state)
    }

    async fn commit(&self, batch: Batch<'_>) -> Result<(), Refusal> {
        let mut connection = self.writer.acquire().await?;
        let written = write(&mut connection, batch).await;
        if let Err(Refusal::Database(_)) = written {
            // SQLite ends a transaction by itself when its disk is full or fails. sqlx does not learn of it, and would refuse
            // every later transaction of this connection.
            connection.close_on_drop();
        }
        written
    }

    async fn has(&self, batch: Batch<'_>) -> Result<bool, sqlx::Error> {
        Ok(self.position().await? == batch.after)
    }

    async fn newer_than(&self, state: &State) -> Result<Option<Newer>, ReadError> {
        match self.position().await? == state.sequence() {
            true => Ok(None),
            false => Ok(Some(Newer::anew(self.load().await?))),
        }
    }

    async fn blob(&self, digest: &str) -> Result<Vec<u8>, sqlx::Error> {
        sqlx::query_scalar("SELECT body FROM blobs WHERE digest = ?")
            .bind(digest)
            .fetch_one(&self.readers)
            .await
    }

    async fn forget_history(&self, events: i64, audit: i64) -> Result<u64, sqlx::Error> {
        let mut forgotten = 0;
        for (statement, before) in [
            (
                "DELETE FROM events WHERE at < ? AND id IN (SELECT id FROM events ORDER BY id LIMIT ?)",
                events,
            ),
            (
                "DELETE FROM audit WHERE at < ? AND id IN (SELECT id FROM audit ORDER BY id LIMIT ?)",
                audit,
            ),
        ] {
            loop {
                let removed = sqlx::query(statement)
                    .bind(before)
                    .bind(FORGOTTEN_AT_ONCE)
                    .execute(&self.writer)
                    .await?
                    .rows_affected();
                forgotten += removed;
                if removed < FORGOTTEN_AT_ONCE.into() {
                    break;
                }
            }
        }
        Ok(forgotten)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Copies a database, as it is at one moment, into a file that does not exist yet. The database may be in use, and of any
/// version: only its `hearthd` changes it.
///
/// # Errors
/// The database cannot be read, or the file exists or cannot be written.
pub async fn copy(database: &Path, to: &Path) -> Result<(), sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .read_only(true)
        .busy_timeout(Duration::from_secs(20));
    let mut connection = options.connect().await?;
    sqlx::query("VACUUM INTO ?")
        .bind(to.display().to_string())
        .execute(&mut connection)
        .await?;
    connection.close().await
}

/// Writes a batch in one transaction.
async fn write(connection: &mut SqliteConnection, batch: Batch<'_>) -> Result<(), Refusal> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let c = &mut *transaction;
    let moved = sqlx::query("UPDATE position SET sequence = ? WHERE sequence = ?")
        .bind(batch.after.cast_signed())
        .bind(batch.before.cast_signed())
        .execute(&mut *c)
        .await?;
    if moved.rows_affected() != 1 {
        return Err(Refusal::Moved);
    }
    objects(c, &batch).await?;
    history(c, &batch).await?;
    for (digest, body) in batch.blobs() {
        let statement = match body {
            Some(body) => sqlx::query("INSERT OR IGNORE INTO blobs (digest, body) VALUES (?, ?)")
                .bind(digest)
                .bind(body),
            None => sqlx::query("DELETE FROM blobs WHERE digest = ?").bind(digest),
        };
        statement.execute(&mut *c).await?;
    }
    Ok(transaction.commit().await?)
}

/// Each statement takes all of its rows as one JSON array: a statement per row would cost more than its work.
async fn objects(c: &mut SqliteConnection, batch: &Batch<'_>) -> Result<(), sqlx::Error> {
    let (mut put, mut removed) = (Vec::new(), Vec::new());
    for ((kind, id), row) in batch.objects() {
        match row {
            Some(row) => put.push((kind, id, &row.account, row.version, &row.body)),
            None => removed.push((kind, id)),
        }
    }
    if !put.is_empty() {
        sqlx::query(
            "INSERT OR REPLACE INTO objects (kind, id, account, version, body)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)",
        )
        .bind(json(&put)?)
        .execute(&mut *c)
        .await?;
    }
    if !removed.is_empty() {
        sqlx::query(
            "DELETE FROM objects WHERE (kind, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
        )
        .bind(json(&removed)?)
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

async fn history(c: &mut SqliteConnection, batch: &Batch<'_>) -> Result<(), sqlx::Error> {
    let events: Vec<_> = batch
        .events()
        .map(|(changes, event)| (changes.at, &event.kind, &event.resource_id))
        .collect();
    if !events.is_empty() {
        sqlx::query(
            "INSERT INTO events (at, kind, resource_id)
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
        )
        .bind(json(&events)?)
        .execute(&mut *c)
        .await?;
    }
    let audit: Vec<_> = batch
        .audit()
        .map(|(changes, audit)| (changes.at, &audit.action, &audit.detail))
        .collect();
    if !audit.is_empty() {
        sqlx::query(
            "INSERT INTO audit (at, action, detail) SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
        )
        .bind(json(&audit)?)
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

fn json(rows: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}
