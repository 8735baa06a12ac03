//! What a database does for the store. Each backend passes the same tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::lease::Lease;
use crate::state::{Audit, Change, Changes, Event, Instance, LoadError, Row, State};

/// Transactions that become durable together, all or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch<'b> {
    pub transactions: &'b [Changes],
    /// Position of the database before and after the commit: the sequence of the last transaction in it.
    pub before: u64,
    pub after: u64,
    /// Epoch of the lease that the writer holds; 0 where nobody else writes.
    pub epoch: u64,
}

/// A later state.
#[derive(Debug)]
pub(super) struct Newer {
    pub state: State,
    /// Instances that watchers have to hear of.
    pub instances: BTreeSet<String>,
}

impl Newer {
    /// A state of which nobody knows how it came from an earlier one.
    pub(super) fn anew(state: State) -> Self {
        let instances = state
            .all::<Instance>()
            .map(|instance| instance.id.clone())
            .collect();
        Self { state, instances }
    }
}

/// Why a batch is not known to be durable.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nothing was written. An earlier commit whose answer was lost has been made since.
    #[error("the database is at another position than this process knew")]
    Moved,
    /// Nothing was written, and will be: another process has the lease.
    #[error("another hearthd has become the leader")]
    Fenced,
    /// The batch is durable or not: the database's position says which.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Why the database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Object(#[from] LoadError),
}

#[tonic::async_trait]
pub(super) trait Backend: Debug + Send + Sync {
    /// Reads the whole state, as it is at one moment.
    async fn load(&self) -> Result<State, ReadError>;

    /// Makes a batch durable, if the database is at the batch's position `before`, and of its epoch.
    async fn commit(&self, batch: Batch<'_>) -> Result<(), Refusal>;

    /// Whether a batch whose commit failed is durable all the same, and the last that was committed.
    async fn has(&self, batch: Batch<'_>) -> Result<bool, sqlx::Error>;

    /// The state of now, of which `state` is an earlier one; `None`: they are the same.
    async fn newer_than(&self, state: &State) -> Result<Option<Newer>, ReadError>;

    /// A large body that an object names.
    async fn blob(&self, digest: &str) -> Result<Vec<u8>, sqlx::Error>;

    /// Removes events and audit rows of before two times, in milliseconds since the epoch. Answers how many.
    async fn forget_history(&self, events: i64, audit: i64) -> Result<u64, sqlx::Error>;

    /// The lease, where several processes may share the database.
    fn lease(&self) -> Option<&dyn Lease> {
        None
    }

    async fn close(&self);
}

impl<'b> Batch<'b> {
    /// What becomes of each object, by kind and id; `None` for one that goes. Of several changes of one object the last
    /// one holds.
    pub(super) fn objects(&self) -> BTreeMap<(&'b str, &'b str), Option<&'b Row>> {
        let changes = self.transactions.iter().flat_map(|changes| &changes.objects);
        changes
            .map(|change| match change {
                Change::Put(row) => ((row.kind.as_str(), row.id.as_str()), Some(row)),
                Change::Removed { kind, id } => ((*kind, id.as_str()), None),
            })
            .collect()
    }

    /// Events, each with its transaction.
    pub(super) fn events(&self) -> impl Iterator<Item = (&'b Changes, &'b Event)> {
        let transactions = self.transactions.iter();
        transactions.flat_map(|changes| changes.events.iter().map(move |event| (changes, event)))
    }

    /// Audit rows, each with its transaction.
    pub(super) fn audit(&self) -> impl Iterator<Item = (&'b Changes, &'b Audit)> {
        let transactions = self.transactions.iter();
        transactions.flat_map(|changes| changes.audit.iter().map(move |audit| (changes, audit)))
    }

    /// What becomes of each large body, by digest; `None` for one that goes.
    pub(super) fn blobs(&self) -> BTreeMap<&'b str, Option<&'b [u8]>> {
        let blobs = self.transactions.iter().flat_map(|changes| &changes.blobs);
        blobs
            .map(|(digest, body)| (digest.as_str(), body.as_deref()))
            .collect()
    }
}
