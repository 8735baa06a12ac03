//! Which hosts are connected, the way to ask one of them something, and what ends when a host is evicted. Lives in
//! memory: connections do not survive the process either.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hearth_api::agent::agent_message::Message as Up;
use hearth_api::agent::control_message::Message as Down;
use hearth_api::agent::{
    ConsoleOutput, ConsoleRequest, ControlMessage, SshPublicKey, StorageReport, StorageRequest,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What goes down to an agent.
pub(super) type Outbox = mpsc::Sender<Result<ControlMessage, Status>>;

/// How long an agent may take to answer a question.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Images that a host may fetch at the same time.
pub(super) const FETCHES: usize = 4;
/// Chunks that a host may fetch at the same time, besides.
pub(super) const CHUNKS: usize = 16;
/// Snapshots that a host may store at the same time.
pub(super) const STORES: usize = 2;

#[derive(Debug)]
pub struct Sessions {
    hosts: Mutex<HashMap<String, Handle>>,
    /// When the last session of a host ended that has none.
    ended: Mutex<HashMap<String, Instant>>,
    began: Mutex<Instant>,
    /// Told when a host comes or goes.
    changed: Notify,
    /// One for each host that called, until it is evicted.
    standings: Mutex<HashMap<String, Arc<Standing>>>,
    /// Numbers sessions and questions.
    counter: AtomicU64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            hosts: Mutex::default(),
            ended: Mutex::default(),
            began: Mutex::new(Instant::now()),
            changed: Notify::new(),
            standings: Mutex::default(),
            counter: AtomicU64::default(),
        }
    }
}

#[derive(Debug)]
struct Handle {
    number: u64,
    outbox: Outbox,
    superseded: CancellationToken,
    questions: Questions,
}

/// A host's standing from its admission to its eviction: what all of its calls share.
#[derive(Debug)]
pub(super) struct Standing {
    evicted: CancellationToken,
    reason: OnceLock<Status>,
    fetches: Arc<Semaphore>,
    chunks: Semaphore,
    stores: Semaphore,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            evicted: CancellationToken::new(),
            reason: OnceLock::new(),
            fetches: Arc::new(Semaphore::new(FETCHES)),
            chunks: Semaphore::new(CHUNKS),
            stores: Semaphore::new(STORES),
        }
    }
}

impl Standing {
    /// Waits until the host is evicted, and answers why.
    pub(super) async fn evicted(&self) -> Status {
        self.evicted.cancelled().await;
        self.reason()
            .unwrap_or_else(|| Status::permission_denied("this host was evicted"))
    }

    /// Why the host was evicted; `None`: it is not.
    pub(super) fn reason(&self) -> Option<Status> {
        self.reason.get().cloned()
    }

    /// The right to one fetch, unless the host has as many as it may.
    pub(super) fn fetch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.fetches).try_acquire_owned().ok()
    }

    /// The right to fetch one chunk, unless the host fetches as many as it may.
    pub(super) fn fetch_chunk(&self) -> Option<SemaphorePermit<'_>> {
        self.chunks.try_acquire().ok()
    }

    /// The places of the host for snapshots that are being stored.
    pub(super) fn stores(&self) -> &Semaphore {
        &self.stores
    }
}

type Questions = Arc<Mutex<HashMap<u64, oneshot::Sender<Up>>>>;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("its host is not connected")]
    NotConnected,
    #[error("its host did not answer within {} seconds", ANSWER_DEADLINE.as_secs())]
    Late,
    #[error("its host says: {0}")]
    Failed(String),
    #[error("its host answered something else")]
    Other,
}

/// A session's place in the registry; dropping it ends the host's being connected, unless a newer one took over.
pub(super) struct Place {
    sessions: Arc<Sessions>,
    host_id: String,
    number: u64,
    questions: Questions,
    pub(super) superseded: CancellationToken,
}

impl Sessions {
    /// Enters a session; an older one of the same host is told to end.
    pub(super) fn enter(self: &Arc<Self>, host_id: &str, outbox: Outbox) -> Place {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let questions = Questions::default();
        let superseded = CancellationToken::new();
        let handle = Handle {
            number,
            outbox,
            superseded: superseded.clone(),
            questions: Arc::clone(&questions),
        };
        if let Some(older) = lock(&self.hosts).insert(host_id.to_owned(), handle) {
            older.superseded.cancel();
        }
        lock(&self.ended).remove(host_id);
        self.changed.notify_one();
        Place {
            sessions: Arc::clone(self),
            host_id: host_id.to_owned(),
            number,
            questions,
            superseded,
        }
    }

    /// What the calls of a host share from now on.
    pub(super) fn standing(&self, host_id: &str) -> Arc<Standing> {
        let mut standings = lock(&self.standings);
        Arc::clone(standings.entry(host_id.to_owned()).or_default())
    }

    /// Ends a host's session and fetches at once. To be called after the commit that makes the store refuse it.
    pub fn evict(&self, host_id: &str, reason: Status) {
        if let Some(standing) = lock(&self.standings).remove(host_id) {
            let _ = standing.reason.set(reason);
            standing.evicted.cancel();
        }
    }

    pub fn is_connected(&self, host_id: &str) -> bool {
        lock(&self.hosts).contains_key(host_id)
    }

    /// For how long a host has had no session, as far as this process knows: at most for as long as it has run,
    /// and led. `None`: it
    /// has one.
    pub fn silence(&self, host_id: &str) -> Option<Duration> {
        if self.is_connected(host_id) {
            return None;
        }
        let since = lock(&self.ended)
            .get(host_id)
            .copied()
            .unwrap_or_else(|| *lock(&self.began));
        Some(since.elapsed())
    }

    /// Counts silence from now on: until now hosts spoke with another process, the leader before.
    pub fn watch_anew(&self) {
        *lock(&self.began) = Instant::now();
        lock(&self.ended).clear();
    }

    /// Returns when a host has come or gone since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn connected(&self) -> BTreeSet<String> {
        lock(&self.hosts).keys().cloned().collect()
    }

    /// The last 64 KiB that the instance wrote to its console.
    ///
    /// # Errors
    /// The host is not there, is late, or cannot read it.
    pub async fn console(&self, host_id: &str, instance_id: &str) -> Result<ConsoleOutput, AskError> {
        let instance_id = instance_id.to_owned();
        let question = |request_id| {
            Down::ConsoleRequest(ConsoleRequest {
                request_id,
                instance_id,
            })
        };
        match self.ask(host_id, question).await? {
            Up::ConsoleOutput(output) if output.error.is_empty() => Ok(output),
            Up::ConsoleOutput(output) => Err(AskError::Failed(output.error)),
            _ => Err(AskError::Other),
        }
    }

    /// Gives an instance's host a key, which the instance's metadata tells from then on. The key's `request_id` is set here.
    ///
    /// # Errors
    /// The host is not there, is late, or does not take it.
    pub async fn give_key(&self, host_id: &str, mut key: SshPublicKey) -> Result<(), AskError> {
        let question = |request_id| {
            key.request_id = request_id;
            Down::SshPublicKey(key)
        };
        match self.ask(host_id, question).await? {
            Up::KeyTaken(taken) if taken.error.is_empty() => Ok(()),
            Up::KeyTaken(taken) => Err(AskError::Failed(taken.error)),
            _ => Err(AskError::Other),
        }
    }

    /// What a host's disk holds, and these of its volumes.
    ///
    /// # Errors
    /// The host is not there, is late, or cannot read it.
    pub async fn storage(&self, host_id: &str, volume_ids: Vec<String>) -> Result<StorageReport, AskError> {
        let question = |request_id| {
            Down::StorageRequest(StorageRequest {
                request_id,
                volume_ids,
            })
        };
        match self.ask(host_id, question).await? {
            Up::StorageReport(report) if report.error.is_empty() => Ok(report),
            Up::StorageReport(report) => Err(AskError::Failed(report.error)),
            _ => Err(AskError::Other),
        }
    }

    /// A host's answer to a question, which is made with its number.
    async fn ask(&self, host_id: &str, question: impl FnOnce(u64) -> Down) -> Result<Up, AskError> {
        let request_id = self.counter.fetch_add(1, Ordering::Relaxed);
        let (answer, waiting) = oneshot::channel();
        let (outbox, questions) = {
            let hosts = lock(&self.hosts);
            let handle = hosts.get(host_id).ok_or(AskError::NotConnected)?;
            (handle.outbox.clone(), Arc::clone(&handle.questions))
        };
        lock(&questions).insert(request_id, answer);
        let request = ControlMessage {
            message: Some(question(request_id)),
        };
        let ask = async {
            let sent = outbox.send(Ok(request)).await;
            sent.map_err(|_| AskError::NotConnected)?;
            waiting.await.map_err(|_| AskError::NotConnected)
        };
        let answered = tokio::time::timeout(ANSWER_DEADLINE, ask).await;
        lock(&questions).remove(&request_id);
        answered.map_err(|_| AskError::Late)?
    }
}

impl Place {
    /// Hands an answer to whoever asked; one that came too late is dropped.
    pub(super) fn answer(&self, request_id: u64, answer: Up) {
        if let Some(waiting) = lock(&self.questions).remove(&request_id) {
            let _ = waiting.send(answer);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut hosts = lock(&self.sessions.hosts);
        if hosts
            .get(&self.host_id)
            .is_some_and(|handle| handle.number == self.number)
        {
            hosts.remove(&self.host_id);
            lock(&self.sessions.ended).insert(self.host_id.clone(), Instant::now());
            self.sessions.changed.notify_one();
        }
        drop(hosts);
        // Whoever still waits learns that nobody will answer.
        lock(&self.questions).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
