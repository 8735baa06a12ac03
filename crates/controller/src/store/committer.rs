//! The one writer: runs transactions on the state, makes many of them durable at once, and publishes what is true.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::sqlite::Sqlite;
use super::{Bus, CommitError, now};
use crate::state::{Changes, State, Tx};

/// Transactions that one commit makes durable at most.
const BATCH: usize = 512;

/// A transaction that waits for its turn.
pub(super) type Job = Box<dyn FnOnce(&mut Tx<'_>) -> Outcome + Send>;

/// What a transaction wants, and how its caller is answered. Callers are answered after the commit that follows: a refusal
/// may be due to what a transaction before it in the same commit did.
pub(super) enum Outcome {
    Commit(Box<dyn FnOnce(Result<(), CommitError>) + Send>),
    Refuse(Box<dyn FnOnce() + Send>),
}

pub(super) struct Committer {
    database: Sqlite,
    publisher: watch::Sender<Arc<State>>,
    bus: Bus,
}

impl Committer {
    pub(super) fn new(database: Sqlite, publisher: watch::Sender<Arc<State>>, bus: Bus) -> Self {
        Self {
            database,
            publisher,
            bus,
        }
    }

    /// Works until all who could ask for something are gone.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            self.commit(batch.drain(..)).await;
        }
    }

    async fn commit(&self, jobs: impl Iterator<Item = Job>) {
        let mut state = State::clone(&self.publisher.borrow());
        let (mut done, mut answers) = (Vec::new(), Vec::new());
        for job in jobs {
            // A transaction that changes nothing for good leaves this copy behind.
            let mut next = state.clone();
            // A panic leaves the state as it was, and its caller without an answer, which it takes for an error.
            let run = catch_unwind(AssertUnwindSafe(|| run(job, &mut next)));
            match run {
                Ok((outcome, Ok(changes))) => {
                    if let Some(changes) = changes {
                        state = next;
                        done.push(changes);
                    }
                    answers.push((outcome, Ok(())));
                }
                Ok((outcome, Err(error))) => answers.push((outcome, Err(error))),
                Err(_) => tracing::error!("a transaction panicked"),
            }
        }
        let durable = self.write(&done, &state).await;
        if durable.is_ok() && !done.is_empty() {
            self.publisher.send_replace(Arc::new(state));
            self.tell(&done);
        }
        for (outcome, own) in answers {
            match outcome {
                Outcome::Commit(answer) => answer(own.and_then(|()| durable.clone())),
                Outcome::Refuse(answer) => answer(),
            }
        }
    }

    async fn write(&self, done: &[Changes], state: &State) -> Result<(), CommitError> {
        if done.iter().all(Changes::is_empty) {
            return Ok(());
        }
        self.database
            .commit(done, state.sequence())
            .await
            .map_err(|error| {
                tracing::error!(%error, transactions = done.len(), "the database refused to commit");
                CommitError::Database(Arc::new(error))
            })
    }

    fn tell(&self, done: &[Changes]) {
        for changes in done {
            for audit in &changes.audit {
                tracing::info!(action = audit.action, detail = audit.detail, "done");
            }
            for host in &changes.hosts {
                self.bus.host_touched(host);
            }
            for instance in changes.instances() {
                self.bus.instance_changed(instance);
            }
        }
    }
}

/// Runs one transaction on `state`. Answers its changes, unless it wants none or cannot have them.
fn run(job: Job, state: &mut State) -> (Outcome, Result<Option<Changes>, CommitError>) {
    let mut tx = Tx::new(state, now());
    let outcome = job(&mut tx);
    let changes = match &outcome {
        Outcome::Commit(_) => tx.finish().map(Some).map_err(|violation| {
            tracing::error!(%violation, "a transaction is not possible");
            CommitError::from(violation)
        }),
        Outcome::Refuse(_) => Ok(None),
    };
    (outcome, changes)
}
