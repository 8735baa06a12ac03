//! The one writer: runs transactions on the state, makes many of them durable at once, and publishes what is true.
//!
//! While one batch is written, the next is run already, on the state that the first will have made: the processor and the
//! disk work at the same time. If a batch does not become true, neither does the one that was run after it.
//!
//! While another process is the leader, it follows that one instead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use hearth_log::chain;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::backend::{Backend, Batch, ReadError, Refusal};
use super::lease::{Standing, Term};
use super::{Bus, CommitError, now};
use crate::state::{Changes, State, Tx};

/// Transactions that one commit makes durable at most.
const BATCH: usize = 512;

/// How often a batch is written before its callers get an error.
const ATTEMPTS: usize = 2;

/// How often a follower looks for what the leader has committed, when nobody waits for it.
const FOLLOW: Duration = Duration::from_millis(100);
/// After a look that failed.
const PAUSE: Duration = Duration::from_millis(300);

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
    standing: watch::Receiver<Standing>,
    /// The epoch of the term in which the state was last known to be the newest.
    epoch: Option<u64>,
    /// What became of a commit is not known: the database is read before the next.
    doubtful: bool,
}

/// Transactions that were run together.
struct Run {
    /// What they were run on.
    before: u64,
    /// What they made of it.
    state: Arc<State>,
    done: Vec<Changes>,
    answers: Vec<(Outcome, Result<(), CommitError>)>,
}

/// A run that is being written.
struct Writing {
    run: Run,
    task: JoinHandle<(Vec<Changes>, Result<(), Refusal>)>,
}

type Written = Result<(Vec<Changes>, Result<(), Refusal>), tokio::task::JoinError>;

impl Run {
    fn new(state: Arc<State>) -> Self {
        Self {
            before: state.sequence(),
            state,
            done: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Runs more transactions.
    fn extend(&mut self, jobs: impl Iterator<Item = Job>) {
        // Copied once: what the copy shares with others is copied when it is changed first, and changed in place from then on.
        let state = Arc::make_mut(&mut self.state);
        for job in jobs {
            // A panic leaves the state as it was, and its caller without an answer, which it takes for an error.
            match catch_unwind(AssertUnwindSafe(|| run(job, state))) {
                Ok((outcome, Ok(changes))) => {
                    self.done.extend(changes.filter(|changes| !changes.is_empty()));
                    self.answers.push((outcome, Ok(())));
                }
                Ok((outcome, Err(error))) => self.answers.push((outcome, Err(error))),
                Err(_) => tracing::error!("a transaction panicked"),
            }
        }
    }

    fn answer(self, durable: &Result<(), CommitError>) {
        for (outcome, own) in self.answers {
            match outcome {
                Outcome::Commit(answer) => answer(own.and_then(|()| durable.clone())),
                Outcome::Refuse(answer) => answer(),
            }
        }
    }
}

impl Committer {
    pub(super) fn new(
        database: Arc<dyn Backend>,
        publisher: watch::Sender<Arc<State>>,
        bus: Bus,
        standing: watch::Receiver<Standing>,
    ) -> Self {
        Self {
            database,
            publisher,
            bus,
            standing,
            epoch: None,
            doubtful: false,
        }
    }

    /// Works until all who could ask for something are gone.
    /// `behind` wakes a follower before it is time to look.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Job>, behind: Arc<Notify>) {
        let mut jobs = Vec::new();
        let mut writing: Option<Writing> = None;
        // What was run meanwhile.
        let mut next: Option<Run> = None;
        let mut is_open = true;
        while is_open || writing.is_some() {
            let room = BATCH.saturating_sub(next.as_ref().map_or(0, |run| run.answers.len()));
            let is_idle = writing.is_none();
            let follows = is_idle && self.term().is_none();
            tokio::select! {
                biased;
                written = written(&mut writing) => {
                    let Some(was) = writing.take() else { continue };
                    let durable = self.finish(was.run, written);
                    match next.take() {
                        Some(run) if durable.is_ok() => writing = self.write(run),
                        // It was run on what did not become true.
                        Some(run) => run.answer(&durable),
                        None => {}
                    }
                }
                count = queue.recv_many(&mut jobs, room), if is_open && room > 0 => {
                    is_open = count > 0;
                    match &writing {
                        Some(writing) => {
                            let run = next.get_or_insert_with(|| Run::new(Arc::clone(&writing.run.state)));
                            run.extend(jobs.drain(..));
                        }
                        None => writing = self.begin(jobs.drain(..)).await,
                    }
                }
                () = due(&behind), if follows => {
                    if let Err(error) = self.catch_up().await {
                        tracing::warn!(error = %chain(&error), "following the leader");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                // A new leader is up to date before anybody asks.
                Ok(()) = self.standing.changed(), if is_idle => {
                    if let Err(error) = self.settle().await {
                        tracing::debug!(error = %chain(&error), "not the leader");
                    }
                }
            }
        }
    }

    /// Runs transactions on what is published, and begins to write them.
    async fn begin(&mut self, jobs: impl Iterator<Item = Job>) -> Option<Writing> {
        let known = self.settle().await;
        let mut run = Run::new(Arc::clone(&self.publisher.borrow()));
        run.extend(jobs);
        match known {
            Ok(()) => self.write(run),
            Err(error) => {
                run.answer(&Err(error));
                None
            }
        }
    }

    /// Begins to write a run; one that changes nothing is answered at once.
    fn write(&self, mut run: Run) -> Option<Writing> {
        if run.done.is_empty() {
            run.answer(&Ok(()));
            return None;
        }
        let Some(term) = self.term().filter(|term| self.epoch == Some(term.epoch)) else {
            run.answer(&Err(CommitError::NotLeader));
            return None;
        };
        let (database, before, after) = (Arc::clone(&self.database), run.before, run.state.sequence());
        let done = std::mem::take(&mut run.done);
        let task = tokio::spawn(async move {
            let batch = Batch {
                transactions: &done,
                before,
                after,
                epoch: term.epoch,
            };
            let written = write(&*database, batch, &term).await;
            (done, written)
        });
        Some(Writing { run, task })
    }

    /// Publishes what was written, and answers its callers. Answers whether it is durable.
    fn finish(&mut self, run: Run, written: Written) -> Result<(), CommitError> {
        let durable = match written {
            Ok((done, Ok(()))) => {
                self.publisher.send_replace(Arc::clone(&run.state));
                self.tell(&done);
                Ok(())
            }
            Ok((_, Err(Refusal::Fenced))) => {
                self.epoch = None;
                Err(CommitError::NotLeader)
            }
            Ok((_, Err(refusal))) => {
                self.doubtful = true;
                Err(CommitError::Refused(Arc::new(refusal)))
            }
            Err(panic) => {
                tracing::error!(%panic, "writing transactions");
                self.doubtful = true;
                Err(CommitError::Panicked)
            }
        };
        run.answer(&durable);
        durable
    }

    /// This process's term as the leader.
    fn term(&self) -> Option<Term> {
        match &*self.standing.borrow() {
            Standing::Leader(term) if term.is_valid() => Some(term.clone()),
            _ => None,
        }
    }

    /// Publishes what the database has, when that is not known: at the beginning of a term, and after a commit that failed.
    async fn settle(&mut self) -> Result<(), CommitError> {
        let term = self.term().ok_or(CommitError::NotLeader)?;
        if self.doubtful || self.epoch != Some(term.epoch) {
            self.catch_up().await.map_err(|error| {
                tracing::error!(error = %chain(&error), "the database cannot be read");
                CommitError::Read(Arc::new(error))
            })?;
            self.epoch = Some(term.epoch);
            self.doubtful = false;
        }
        Ok(())
    }

    /// Publishes what the database has.
    async fn catch_up(&self) -> Result<(), ReadError> {
        let state = Arc::clone(&self.publisher.borrow());
        if let Some(newer) = self.database.newer_than(&state).await? {
            self.publisher.send_replace(Arc::new(newer.state));
            self.bus.anything();
            for instance in &newer.instances {
                self.bus.instance_changed(instance);
            }
        }
        Ok(())
    }

    fn tell(&self, done: &[Changes]) {
        for changes in done {
            for audit in &changes.audit {
                tracing::info!(action = audit.action, detail = audit.detail, "done");
            }
            self.bus.concerns(&changes.concerns);
            for instance in changes.instances() {
                self.bus.instance_changed(instance);
            }
        }
    }
}

/// Returns when it is time to look, or somebody waits for what the leader has committed.
async fn due(behind: &Notify) {
    tokio::select! {
        () = tokio::time::sleep(FOLLOW) => {}
        () = behind.notified() => {}
    }
}

/// Waits until what is being written is.
async fn written(writing: &mut Option<Writing>) -> Written {
    match writing {
        Some(writing) => (&mut writing.task).await,
        None => std::future::pending().await,
    }
}

async fn write(database: &dyn Backend, batch: Batch<'_>, term: &Term) -> Result<(), Refusal> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let refusal = match database.commit(batch).await {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        let transactions = batch.transactions.len();
        tracing::error!(error = %chain(&refusal), transactions, attempts, "the database refused to commit");
        match (&refusal, database.has(batch).await) {
            (Refusal::Database(_), Ok(true)) => return Ok(()),
            // A batch is written from its position only, so that it is never written twice.
            (Refusal::Database(_), Ok(false)) if attempts < ATTEMPTS && term.is_valid() => {}
            _ => return Err(refusal),
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
