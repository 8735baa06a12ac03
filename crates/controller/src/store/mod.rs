//! The truth, in SQLite: what is wanted, what agents report, and what was concluded.
//!
//! - One writer at a time: the write pool has a single connection and every write transaction begins `IMMEDIATE`, so
//!   that what it read still holds when it commits. Readers have snapshots of their own and never wait.
//! - `synchronous=FULL`: what was acknowledged survives a power cut.
//! - Functions per noun take a connection, so that they work inside of any transaction.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};

pub mod addresses;
pub mod bootstrap;
mod bus;
pub mod host_keys;
pub mod hosts;
pub mod images;
pub mod instances;
pub mod intents;
pub mod join_tokens;
pub mod key_pairs;
pub mod networks;
pub mod purge;
pub mod security_groups;
pub mod tags;
pub mod tokens;
mod transaction;
pub mod views;

#[cfg(test)]
mod tests;

pub use bus::Bus;
pub use transaction::WriteTransaction;

/// What reading or writing the store answers when it fails: always an internal error to callers.
pub type Result<T, E = sqlx::Error> = std::result::Result<T, E>;

/// Connections for reading at the same time.
const READERS: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("opening the database {path}")]
    Connect { path: String, source: sqlx::Error },
    #[error("bringing the database {path} to this version's schema")]
    Migrate {
        path: String,
        source: sqlx::migrate::MigrateError,
    },
}

#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    bus: Bus,
}

impl Store {
    /// Opens or makes the database file.
    ///
    /// # Errors
    /// When the file cannot be opened, or is of a newer version.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let text = path.display().to_string();
        let connect = |source| OpenError::Connect {
            path: text.clone(),
            source,
        };
        let options = SqliteConnectOptions::from_str("sqlite:")
            .map_err(connect)?
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // `hearthd join-token` writes beside a running `hearthd`.
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
                path: text.clone(),
                source,
            })?;
        let readers = PoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.create_if_missing(false))
            .await
            .map_err(connect)?;
        Ok(Self {
            writer,
            readers,
            bus: Bus::default(),
        })
    }

    /// Who is told of what was committed.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// A snapshot to read from.
    pub async fn read(&self) -> Result<Transaction<'static, Sqlite>> {
        self.readers.begin().await
    }

    /// The right to write, alone until it is committed or dropped.
    pub async fn write(&self) -> Result<WriteTransaction> {
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(WriteTransaction::new(transaction, self.bus.clone()))
    }

    /// Copies the database, as it is at one moment, into a file that does not exist yet.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub async fn copy_to(&self, path: &Path) -> Result<()> {
        sqlx::query("VACUUM INTO ?")
            .bind(path.display().to_string())
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    /// Puts the write-ahead log away. For a graceful end; without it the next start does it.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Milliseconds since the epoch: the store's time.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Ids as one bound value, for `IN (SELECT value FROM json_each(?))`.
pub fn list<S: AsRef<str>>(ids: &[S]) -> String {
    serde_json::Value::from(ids.iter().map(|id| id.as_ref()).collect::<Vec<_>>()).to_string()
}
