//! The durable form of the state: a plain log of objects under the value in memory.
//!
//! - Transactions are closures over the state. One committer runs them, one after the other, writes many of them in one
//!   transaction of the database (group commit), then publishes the new state and answers.
//! - `synchronous=FULL`: what was acknowledged survives a power cut.
//! - If the database refuses, the state goes back to the last durable one and the callers get an error.
//! - Readers take the state as it was published last, and never wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hearth_api::ApiError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::state::{State, Tx, Violation};

mod backend;
pub mod bootstrap;
mod bus;
mod committer;
mod sqlite;
#[cfg(test)]
mod tests;

use backend::{Backend, ReadError, Refusal};
pub use bus::{Bus, Mail, News, Topic};
use committer::{Committer, Job, Outcome};
use sqlite::Sqlite;
pub use sqlite::copy;

/// Transactions that wait for the committer. More callers wait for a place.
const WAITING: usize = 1024;

/// The database's name in a data directory, and in a backup.
pub const DATABASE: &str = "hearth.db";
/// Its name while `hearthd restore` works. Renaming it is the last step of a restore.
pub const RESTORING: &str = "restoring.db";

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} was being restored when `hearthd restore` was cut short: run it again", .0.display())]
    HalfRestored(PathBuf),
    #[error("opening the database {place}")]
    Connect { place: String, source: sqlx::Error },
    #[error("bringing the database {place} to this version's schema")]
    Migrate {
        place: String,
        source: sqlx::migrate::MigrateError,
    },
    #[error("reading the database {place}")]
    Read { place: String, source: ReadError },
}

/// Why a transaction did not become true.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    #[error("the state cannot bear it")]
    Violation(#[from] Violation),
    #[error("the database refused to commit")]
    Refused(#[source] Arc<Refusal>),
    #[error("the database cannot be read")]
    Read(#[source] Arc<ReadError>),
    #[error("the transaction panicked")]
    Panicked,
    #[error("the store is closed")]
    Closed,
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        Self::internal(&error)
    }
}

#[derive(Debug)]
pub struct Store {
    state: watch::Receiver<Arc<State>>,
    jobs: mpsc::Sender<Job>,
    bus: Bus,
    database: Arc<dyn Backend>,
    committer: JoinHandle<()>,
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

    /// Opens or makes the database file, brings it to this version's schema, and reads all of it.
    ///
    /// # Errors
    /// The file cannot be opened or read, or is of a newer version.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        Self::on(Arc::new(Sqlite::open(path).await?))
            .await
            .map_err(|source| OpenError::Read {
                place: path.display().to_string(),
                source,
            })
    }

    async fn on(database: Arc<dyn Backend>) -> Result<Self, ReadError> {
        let (publisher, state) = watch::channel(Arc::new(database.load().await?));
        let (jobs, queue) = mpsc::channel(WAITING);
        let bus = Bus::default();
        let committer = Committer::new(Arc::clone(&database), publisher, bus.clone());
        Ok(Self {
            state,
            jobs,
            bus,
            database,
            committer: tokio::spawn(committer.run(queue)),
        })
    }

    /// Who is told of what was committed.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Everything as it was committed last.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// Changes with every commit, from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Runs a transaction, alone, and answers when it is durable. A closure that answers an error changes nothing.
    ///
    /// # Errors
    /// The closure's, or why it did not become true.
    pub async fn transact<T, E>(
        &self,
        transaction: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<CommitError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |tx| match transaction(tx) {
            Ok(value) => Outcome::Commit(Box::new(move |durable| {
                // A caller that has gone needs no answer.
                let _ = sender.send(durable.map(|()| value).map_err(E::from));
            })),
            Err(error) => Outcome::Refuse(Box::new(move || {
                let _ = sender.send(Err(error));
            })),
        });
        if self.jobs.send(job).await.is_err() {
            return Err(CommitError::Closed.into());
        }
        receiver
            .await
            .unwrap_or_else(|_| Err(CommitError::Panicked.into()))
    }

    /// A large body that an object names.
    ///
    /// # Errors
    /// The database cannot be read, or has no such body.
    pub async fn blob(&self, digest: &str) -> Result<Vec<u8>, sqlx::Error> {
        self.database.blob(digest).await
    }

    /// Removes events and audit rows of before two times, in milliseconds since the epoch. Answers how many.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn forget_history(&self, events: i64, audit: i64) -> Result<u64, sqlx::Error> {
        self.database.forget_history(events, audit).await
    }

    /// Ends the committer when what waits for it is done, and puts the write-ahead log away. For a graceful end; without
    /// it the next start does it.
    pub async fn close(&self) {
        let (sender, receiver) = oneshot::channel();
        let last: Job = Box::new(move |_| {
            Outcome::Refuse(Box::new(move || {
                let _ = sender.send(());
            }))
        });
        if self.jobs.send(last).await.is_ok() {
            let _ = receiver.await;
        }
        self.committer.abort();
        self.database.close().await;
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
        true => Err(OpenError::HalfRestored(data_dir.to_owned())),
        false => Ok(()),
    }
}

/// Milliseconds since the epoch.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
