//! The agent's durable memory: the newest intents and one record per instance, in redb.
//!
//! A call returns when its change is on the disk, so what was acted upon is never forgotten.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hearth_api::agent::Intents;
use prost::Message as _;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::record::Record;

const INTENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("intents");
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const NEWEST: &str = "newest";

/// How long the memory may still be held by a predecessor's child between its fork and its exec.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("opening the agent's store {path}")]
    Open { path: String, source: DatabaseError },
    #[error("using the agent's store")]
    Use(#[source] Box<redb::Error>),
    #[error("reading the agent's store: {what} is not what this version writes")]
    Malformed { what: String },
    #[error("the agent's store worker ended")]
    Worker(#[from] tokio::task::JoinError),
}

/// What the store has of instances.
#[derive(Debug, Default)]
pub struct Records {
    pub readable: Vec<Record>,
    /// Instances whose record this version cannot read, and why: a newer one has written it. It stays as it is.
    pub unreadable: Vec<(String, serde_json::Error)>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Store {
    path: Arc<Path>,
    /// `None` after a failure: redb takes no more writes after one that failed, until the file is opened anew.
    database: Arc<RwLock<Option<Database>>>,
}

impl Store {
    /// Opens or makes the store; blocks.
    ///
    /// # Errors
    /// The file cannot be opened, or another agent holds it.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let store = Store {
            path: Arc::from(path),
            database: Arc::new(RwLock::new(Some(open(path)?))),
        };
        store.write(|transaction| {
            transaction.open_table(INTENTS)?;
            transaction.open_table(RECORDS)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// The newest intents heard of; blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn intents(&self) -> Result<Option<Intents>, StoreError> {
        let bytes = self.read(|transaction| {
            let table = transaction.open_table(INTENTS)?;
            Ok(table.get(NEWEST)?.map(|value| value.value().to_vec()))
        })?;
        bytes
            .map(|bytes| {
                Intents::decode(bytes.as_slice()).map_err(|_| StoreError::Malformed {
                    what: "the intents".to_owned(),
                })
            })
            .transpose()
    }

    /// All records; blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn records(&self) -> Result<Records, StoreError> {
        let rows = self.read(|transaction| {
            let table = transaction.open_table(RECORDS)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                rows.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(rows)
        })?;
        let mut records = Records::default();
        for (key, value) in rows {
            match serde_json::from_slice(&value) {
                Ok(record) => records.readable.push(record),
                Err(error) => records.unreadable.push((key, error)),
            }
        }
        Ok(records)
    }

    /// # Errors
    /// The store cannot be written.
    pub async fn put_intents(&self, intents: &Intents) -> Result<(), StoreError> {
        let bytes = intents.encode_to_vec();
        self.write_async(move |transaction| {
            transaction
                .open_table(INTENTS)?
                .insert(NEWEST, bytes.as_slice())?;
            Ok(())
        })
        .await
    }

    /// # Errors
    /// The store cannot be written.
    pub async fn forget_intents(&self) -> Result<(), StoreError> {
        self.write_async(|transaction| {
            transaction.open_table(INTENTS)?.remove(NEWEST)?;
            Ok(())
        })
        .await
    }

    /// # Errors
    /// The store cannot be written.
    pub async fn put_record(&self, record: &Record) -> Result<(), StoreError> {
        let key = record.instance_id.clone();
        let bytes = serde_json::to_vec(record).map_err(|_| StoreError::Malformed {
            what: format!("the record of {key}"),
        })?;
        self.write_async(move |transaction| {
            transaction
                .open_table(RECORDS)?
                .insert(key.as_str(), bytes.as_slice())?;
            Ok(())
        })
        .await
    }

    /// # Errors
    /// The store cannot be written.
    pub async fn remove_record(&self, instance_id: &str) -> Result<(), StoreError> {
        let key = instance_id.to_owned();
        self.write_async(move |transaction| {
            transaction.open_table(RECORDS)?.remove(key.as_str())?;
            Ok(())
        })
        .await
    }

    async fn write_async(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<(), StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.write(change)).await?
    }

    fn write(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let attempt = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        let written = self.with(attempt);
        if written.is_err() {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        written
    }

    fn read<T>(
        &self,
        ask: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.with(|database| ask(&database.begin_read()?))
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let done = |worked: Result<T, redb::Error>| worked.map_err(|error| StoreError::Use(Box::new(error)));
        if let Some(database) = &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            return done(work(database));
        }
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            // Another thread was here first.
            Some(database) => database,
            None => open(&self.path)?,
        };
        done(work(slot.insert(database)))
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        // 8 MiB of cache: the default of 1 GiB is a desktop's.
        match Database::builder().set_cache_size(8 << 20).create(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(source) => {
                return Err(StoreError::Open {
                    path: path.display().to_string(),
                    source,
                });
            }
            Ok(database) => return Ok(database),
        }
    }
}
