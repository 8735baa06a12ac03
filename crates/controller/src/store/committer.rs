//! The one writer: runs transactions on the state, makes many of them durable at once, and publishes what is true.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hearth_log::chain;
use tokio::sync::{mpsc, watch};

use super::backend::{Backend, Batch, Refusal};
use super::{Bus, CommitError, now};
use crate::state::{Changes, State, Tx};

/// Transactions that one commit makes durable at most.
const BATCH: usize = 512;

/// How often a batch is written before its callers get an error.
const ATTEMPTS: usize = 2;

/// A transaction that waits for its turn.
pub(super) type Job = Box<dyn FnOnce(&mut Tx<'_>) -> Outcome + Send>;

/// What a transaction wants, and how its caller is answered. Callers are answered after the commit that follows: a refusal
/// may be due to what a transaction before it in the same commit did.
pub(super) enum Outcome {
    Commit(Box<dyn FnOnce(Result<(), CommitError>) + Send>),
    Refuse(Box<dyn FnOnce() + Send>),
}

pub(super) struct Committer {
    database: Arc<dyn Backend>,
    publisher: watch::Sender<Arc<State>>,
    bus: Bus,
    /// What became of a commit is not known: the database is read before the next.
    doubtful: bool,
}

impl Committer {
    pub(super) fn new(database: Arc<dyn Backend>, publisher: watch::Sender<Arc<State>>, bus: Bus) -> Self {
        Self {
            database,
            publisher,
            bus,
            doubtful: false,
        }
    }

    /// Works until all who could ask for something are gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            self.commit(batch.drain(..)).await;
        }
    }

    async fn commit(&mut self, jobs: impl Iterator<Item = Job>) {
        let known = self.settle().await;
        let before = Arc::clone(&self.publisher.borrow());
        let mut state = State::clone(&before);
        let (mut done, mut answers) = (Vec::new(), Vec::new());
        for job in jobs {
            // A transaction that changes nothing for good leaves this copy behind.
            let mut next = state.clone();
            // A panic leaves the state as it was, and its caller without an answer, which it takes for an error.
            let run = catch_unwind(AssertUnwindSafe(|| run(job, &mut next)));
            match run {
                Ok((outcome, Ok(changes))) => {
                    if let Some(changes) = changes.filter(|changes| !changes.is_empty()) {
                        state = next;
                        done.push(changes);
                    }
                    answers.push((outcome, Ok(())));
                }
                Ok((outcome, Err(error))) => answers.push((outcome, Err(error))),
                Err(_) => tracing::error!("a transaction panicked"),
            }
        }
        let batch = Batch {
            transactions: &done,
            before: before.sequence(),
            after: state.sequence(),
        };
        let durable = match known {
            Ok(()) if done.is_empty() => Ok(()),
            Ok(()) => self.write(batch).await,
            Err(error) => Err(error),
        };
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

    /// Publishes what the database has, when that is not known.
    async fn settle(&mut self) -> Result<(), CommitError> {
        if !self.doubtful {
            return Ok(());
        }
        let state = Arc::clone(&self.publisher.borrow());
        let newer = self.database.newer_than(&state).await.map_err(|error| {
            tracing::error!(error = %chain(&error), "the database cannot be read");
            CommitError::Read(Arc::new(error))
        })?;
        if let Some(newer) = newer {
            self.publisher.send_replace(Arc::new(newer));
        }
        self.doubtful = false;
        Ok(())
    }

    async fn write(&mut self, batch: Batch<'_>) -> Result<(), CommitError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let refusal = match self.database.commit(batch).await {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            };
            let transactions = batch.transactions.len();
            tracing::error!(error = %chain(&refusal), transactions, attempts, "the database refused to commit");
            match (&refusal, self.database.has(batch).await) {
                (Refusal::Database(_), Ok(true)) => return Ok(()),
                // A batch is written from its position only, so that it is never written twice.
                (Refusal::Database(_), Ok(false)) if attempts < ATTEMPTS => {}
                _ => {
                    self.doubtful = true;
                    return Err(CommitError::Refused(Arc::new(refusal)));
                }
            }
        }
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
