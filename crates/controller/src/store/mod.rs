//! The durable form of the state: a plain log of objects under the value in memory, in SQLite or PostgreSQL.
//!
//! - Transactions are closures over the state. One committer runs them, one after the other, writes many of them in one
//!   transaction of the database (group commit), then publishes the new state and answers.
//! - What was acknowledged survives a power cut.
//! - Several processes may share PostgreSQL: one of them, the leader, commits; the others follow it, and one of them takes
//!   its place when it is gone.
//! - If the database refuses, the state goes back to the last durable one and the callers get an error.
//! - Readers take the state as it was published last, and never wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hearth_api::{ApiError, ErrorCode};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::call::Call;
use crate::state::{Bound, State, Tx, Violation};

mod backend;
pub mod bootstrap;
mod bus;
mod committer;
mod lease;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;
mod url;

use backend::{Backend, ReadError, Refusal};
pub use bus::{Bus, Mail, News};
use committer::{Committer, Job, Outcome};
use lease::Keeper;
pub use lease::{Standing, Term};
use postgres::Postgres;
use sqlite::Sqlite;
pub use sqlite::copy;
pub use url::DatabaseUrl;

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
    #[error("this hearthd is not the leader")]
    NotLeader,
    #[error("the transaction panicked")]
    Panicked,
    #[error("the store is closed")]
    Closed,
    #[error("an account would have more than {} {}", .0.most, .0.what)]
    Exceeded(Bound),
    /// Nothing failed: the call is a dry run.
    #[error("the call is a dry run")]
    DryRun,
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::DryRun => Self::dry_run(),
            CommitError::Exceeded(Bound {
                most,
                what,
                code,
                remedy,
            }) => Self::new(code, format!("An account has at most {most} {what}: {remedy}.")),
            CommitError::Refused(_) | CommitError::Read(_) | CommitError::NotLeader | CommitError::Closed => {
                tracing::warn!(error = %hearth_log::chain(&error), "a call is not known to be done");
                Self::new(
                    ErrorCode::Unavailable,
                    "The control plane's database did not confirm the call: it may have been done, or not. Repeat it, \
                     with the same ClientToken where it has one.",
                )
            }
            CommitError::Violation(_) | CommitError::Panicked => Self::internal(&error),
        }
    }
}

#[derive(Debug)]
pub struct Store {
    state: watch::Receiver<Arc<State>>,
    jobs: mpsc::Sender<Job>,
    bus: Bus,
    database: Arc<dyn Backend>,
    standing: watch::Receiver<Standing>,
    members: watch::Receiver<Vec<String>>,
    /// Wakes a follower before it is time to look.
    behind: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
}

/// How long a follower takes to read what is new, usually.
const FOLLOWED: Duration = Duration::from_millis(500);
/// How long a follower may take to have what the leader has committed.
const BEHIND: Duration = Duration::from_secs(2);

impl Store {
    /// Opens the database, a data directory's own unless it is a server's. `endpoint` is where agents and other `hearthd`
    /// that share the database dial this one.
    ///
    /// # Errors
    /// As [`Store::open`], or the directory is half restored.
    pub async fn open_in(data_dir: &Path, url: &DatabaseUrl, endpoint: &str) -> Result<Self, OpenError> {
        if url.is_sqlite() {
            refuse_half_restored(data_dir)?;
            return Self::open(&data_dir.join(DATABASE)).await;
        }
        let process = hex::encode(rand::random::<[u8; 8]>());
        let database = Arc::new(Postgres::open(url, &process).await?);
        let opened = Self::on(database, process, endpoint.to_owned()).await;
        opened.map_err(|source| OpenError::Read {
            place: url.to_string(),
            source,
        })
    }

    /// Opens or makes the database file, brings it to this version's schema, and reads all of it.
    ///
    /// # Errors
    /// The file cannot be opened or read, or is of a newer version.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let database = Arc::new(Sqlite::open(path).await?);
        let opened = Self::on(database, String::new(), String::new()).await;
        opened.map_err(|source| OpenError::Read {
            place: path.display().to_string(),
            source,
        })
    }

    async fn on(database: Arc<dyn Backend>, process: String, endpoint: String) -> Result<Self, ReadError> {
        let (publisher, state) = watch::channel(Arc::new(database.load().await?));
        let (jobs, queue) = mpsc::channel(WAITING);
        let bus = Bus::default();
        let (standing, stands) = watch::channel(match database.lease() {
            None => Standing::Leader(Term::endless()),
            Some(_) => Standing::Follower(None),
        });
        let (members, known) = watch::channel(Vec::new());
        let committer = Committer::new(Arc::clone(&database), publisher, bus.clone(), stands.clone());
        let keeper = Keeper {
            database: Arc::clone(&database),
            process,
            endpoint,
            standing,
            members,
        };
        let behind = Arc::new(Notify::new());
        let tasks = [
            tokio::spawn(committer.run(queue, Arc::clone(&behind))),
            tokio::spawn(keeper.run()),
        ];
        Ok(Self {
            state,
            jobs,
            bus,
            database,
            standing: stands,
            members: known,
            behind,
            tasks,
        })
    }

    /// What this process is among those that share the database.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Whether this process may commit.
    pub fn is_leader(&self) -> bool {
        self.standing.borrow().is_leader()
    }

    /// Endpoints of all `hearthd` that share the database; empty where nobody shares it.
    pub fn members(&self) -> watch::Receiver<Vec<String>> {
        self.members.clone()
    }

    /// The certificate authority of those that share the database, key included, PEM; `None` where nobody shares it, or
    /// nobody has offered one. `ours` becomes it if there is none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn authority(&self, ours: Option<&str>) -> Result<Option<String>, sqlx::Error> {
        match self.database.lease() {
            Some(lease) => lease.authority(ours).await,
            None => Ok(None),
        }
    }

    /// Reads what the leader has committed, and waits until the reading is done; not for long.
    pub async fn refresh(&self) {
        let mut state = self.state.clone();
        state.mark_unchanged();
        self.behind.notify_one();
        let _ = tokio::time::timeout(FOLLOWED, state.changed()).await;
    }

    /// Waits until this process has what the leader had committed by then; not for long.
    pub async fn caught_up(&self, sequence: u64) {
        let mut state = self.state.clone();
        let caught_up = async {
            while state.borrow_and_update().sequence() < sequence {
                self.behind.notify_one();
                if state.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(BEHIND, caught_up).await;
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

    /// Runs a transaction, alone, for the call that the running task serves if there is one, and answers when it is durable.
    /// A closure that answers an error changes nothing, and neither does a dry run.
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
        // What another has committed may not be known here: not even a refusal would be right.
        if !self.is_leader() {
            return Err(CommitError::NotLeader.into());
        }
        let (sender, receiver) = oneshot::channel();
        let call = Call::current();
        let dry_run = call.as_ref().is_some_and(|call| call.dry_run);
        let job: Job = Box::new(move |tx| {
            tx.set_call(call.clone());
            let done = match call {
                Some(call) => {
                    let done = call.serve_now(|| transaction(tx));
                    match tx.exceeded() {
                        Some(bound) => done.and(Err(CommitError::Exceeded(bound.clone()).into())),
                        None => done,
                    }
                }
                None => transaction(tx),
            };
            match done {
                Ok(_) if dry_run => Outcome::Refuse(Box::new(move || {
                    let _ = sender.send(Err(CommitError::DryRun.into()));
                })),
                Ok(value) => Outcome::Commit(Box::new(move |durable| {
                    // A caller that has gone needs no answer.
                    let _ = sender.send(durable.map(|()| value).map_err(E::from));
                })),
                Err(error) => Outcome::Refuse(Box::new(move || {
                    let _ = sender.send(Err(error));
                })),
            }
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
        for task in &self.tasks {
            task.abort();
        }
        let epoch = match &*self.standing.borrow() {
            Standing::Leader(term) => Some(term.epoch),
            Standing::Follower(_) => None,
        };
        if let Some((epoch, lease)) = epoch.zip(self.database.lease())
            && let Err(error) = lease.give_back(epoch).await
        {
            tracing::warn!(%error, "giving the lease back");
        }
        self.database.close().await;
    }
}

impl Drop for Store {
    /// The committer ends by itself, when nobody can ask it any more.
    fn drop(&mut self) {
        let [_, keeper] = &self.tasks;
        keeper.abort();
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
