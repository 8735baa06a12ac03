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
use sqlx::{ConnectOptions as _, Connection as _, Sqlite, Transaction};

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
/// The database's name in a data directory, and in a backup.
pub const DATABASE: &str = "hearth.db";
/// Its name while `hearthd restore` works. Renaming it is the last step of a restore.
pub const RESTORING: &str = "restoring.db";

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0} was being restored when `hearthd restore` was cut short: run it again")]
    HalfRestored(String),
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
    /// Opens or makes a data directory's database.
    ///
    /// # Errors
    /// As [`Store::open`], or the directory is half restored.
    pub async fn open_in(data_dir: &Path) -> Result<Self, OpenError> {
        refuse_half_restored(data_dir)?;
        Self::open(&data_dir.join(DATABASE)).await
    }

    /// Opens or makes the database file, and brings it to this version's schema.
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

    /// Puts the write-ahead log away. For a graceful end; without it the next start does it.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Whether a restore into this data directory was cut short.
pub fn is_half_restored(data_dir: &Path) -> bool {
    data_dir.join(RESTORING).exists() && !data_dir.join(DATABASE).exists()
}

/// # Errors
/// The data directory is half restored.
pub fn refuse_half_restored(data_dir: &Path) -> Result<(), OpenError> {
    match is_half_restored(data_dir) {
        true => Err(OpenError::HalfRestored(data_dir.display().to_string())),
        false => Ok(()),
    }
}

/// Copies a database, as it is at one moment, into a file that does not exist yet. The database may be in use, and of any
/// version: only its `hearthd` changes it.
///
/// # Errors
/// The database cannot be read, or the file exists or cannot be written.
pub async fn copy(database: &Path, to: &Path) -> Result<()> {
    let mut connection = SqliteConnectOptions::new()
        .filename(database)
        .read_only(true)
        .busy_timeout(Duration::from_secs(20))
        .connect()
        .await?;
    sqlx::query("VACUUM INTO ?")
        .bind(to.display().to_string())
        .execute(&mut connection)
        .await?;
    connection.close().await
}

/// Milliseconds since the epoch: the store's time.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Ids as one bound value, for `IN (SELECT value FROM json_each(?))`.
pub fn list<S: AsRef<str>>(ids: &[S]) -> String {
    serde_json::Value::from(ids.iter().map(|id| id.as_ref()).collect::<Vec<_>>()).to_string()
}
