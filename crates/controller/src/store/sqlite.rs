//! SQLite: a file of objects as JSON, with the history of what happened to them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt as _;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};

use super::OpenError;
use crate::state::{Change, Changes, Row, State};

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
            path: path.to_owned(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
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
                path: path.to_owned(),
                source,
            })?;
        let readers = PoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.create_if_missing(false))
            .await
            .map_err(connect)?;
        Ok(Self { writer, readers })
    }

    /// Reads the whole state.
    pub(super) async fn load(&self, path: &Path) -> Result<State, OpenError> {
        let read = |source| OpenError::Read {
            path: path.to_owned(),
            source,
        };
        let mut state = State::default();
        let mut rows = sqlx::query_as::<_, (String, String, String, i64, String)>(
            "SELECT kind, id, account, version, body FROM objects",
        )
        .fetch(&self.readers);
        while let Some((kind, id, account, version, body)) = rows.try_next().await.map_err(read)? {
            let row = Row {
                kind,
                id,
                account,
                version: version.unsigned_abs(),
                body,
            };
            state.load(&row).map_err(|source| OpenError::Object {
                path: path.to_owned(),
                source,
            })?;
        }
        drop(rows);
        let sequence: i64 = sqlx::query_scalar("SELECT sequence FROM position")
            .fetch_one(&self.readers)
            .await
            .map_err(read)?;
        state.set_sequence(sequence.unsigned_abs());
        Ok(state)
    }

    /// Makes transactions durable, all or none.
    pub(super) async fn commit(&self, done: &[Changes], sequence: u64) -> Result<(), sqlx::Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let c = &mut *transaction;
        // Of several changes of one object the last one holds.
        let mut last: BTreeMap<(&str, &str), Option<&Row>> = BTreeMap::new();
        for change in done.iter().flat_map(|changes| &changes.objects) {
            match change {
                Change::Put(row) => last.insert((&row.kind, &row.id), Some(row)),
                Change::Removed { kind, id } => last.insert((kind, id), None),
            };
        }
        objects(c, &last).await?;
        history(c, done).await?;
        for (digest, body) in done.iter().flat_map(|changes| &changes.blobs) {
            match body {
                Some(body) => {
                    sqlx::query("INSERT OR IGNORE INTO blobs (digest, body) VALUES (?, ?)")
                        .bind(digest)
                        .bind(body)
                        .execute(&mut *c)
                        .await?
                }
                None => {
                    sqlx::query("DELETE FROM blobs WHERE digest = ?")
                        .bind(digest)
                        .execute(&mut *c)
                        .await?
                }
            };
        }
        sqlx::query("UPDATE position SET sequence = ?")
            .bind(sequence.cast_signed())
            .execute(c)
            .await?;
        transaction.commit().await
    }

    pub(super) async fn blob(&self, digest: &str) -> Result<Vec<u8>, sqlx::Error> {
        sqlx::query_scalar("SELECT body FROM blobs WHERE digest = ?")
            .bind(digest)
            .fetch_one(&self.readers)
            .await
    }

    pub(super) async fn forget_history(&self, events: i64, audit: i64) -> Result<u64, sqlx::Error> {
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

    pub(super) async fn close(&self) {
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

/// Each statement takes all of its rows as one JSON array: a statement per row would cost more than its work.
async fn objects(
    c: &mut SqliteConnection,
    last: &BTreeMap<(&str, &str), Option<&Row>>,
) -> Result<(), sqlx::Error> {
    let (mut put, mut removed) = (Vec::new(), Vec::new());
    for ((kind, id), row) in last {
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

async fn history(c: &mut SqliteConnection, done: &[Changes]) -> Result<(), sqlx::Error> {
    let events: Vec<_> = done
        .iter()
        .flat_map(|changes| {
            changes
                .events
                .iter()
                .map(|e| (changes.at, &e.kind, &e.resource_id))
        })
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
    let audit: Vec<_> = done
        .iter()
        .flat_map(|changes| changes.audit.iter().map(|a| (changes.at, &a.action, &a.detail)))
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
