//! Snapshots of this host's volumes: frozen when their intents come, sent to the control plane, and let go.

mod freeze;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hearth_api::agent::{Intents, SnapshotIntent};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::decide::Host;
use crate::decide::snapshots::{Point, State, Step, decide, members, observe};
use crate::instance::Context;
use crate::paths::is_plain_id;
use crate::points::{self, Tracked, is_snapshot_id};
use crate::volume::VolumeError;
use crate::{chain, fault};

/// Between attempts at what could not be done: a volume that is being attached can be frozen in a moment.
const RETRY: Duration = Duration::from_millis(500);
/// A volume that cannot be frozen for so long fails its snapshot.
const FREEZE_PATIENCE: Duration = Duration::from_secs(30);
/// Snapshots that are sent at once.
const STREAMS: usize = 2;

/// Tells the worker which snapshots are wanted. The worker ends when this is dropped.
pub struct Snapshots {
    /// `None` until intents are known.
    wanted: watch::Sender<Option<Vec<SnapshotIntent>>>,
}

impl Snapshots {
    pub fn start(context: Arc<Context>) -> Snapshots {
        let (wanted, inbox) = watch::channel(None);
        // Nothing is begun on a host that goes down.
        if context.host == Host::GoingDown {
            return Snapshots { wanted };
        }
        let worker = Worker {
            context,
            wanted: inbox,
            volumes: BTreeMap::new(),
            sending: BTreeMap::new(),
            tasks: JoinSet::new(),
            sent: BTreeSet::new(),
            tried: BTreeMap::new(),
            streams: Arc::new(Semaphore::new(STREAMS)),
        };
        tokio::spawn(worker.work());
        Snapshots { wanted }
    }

    pub fn want(&self, intents: &Intents) {
        let usable =
            |intent: &&SnapshotIntent| is_snapshot_id(&intent.snapshot_id) && is_plain_id(&intent.volume_id);
        let wanted: Vec<SnapshotIntent> = intents.snapshots.iter().filter(usable).cloned().collect();
        self.wanted.send_if_modified(|now| {
            let is_news = now.as_ref() != Some(&wanted);
            *now = Some(wanted);
            is_news
        });
    }
}

struct Worker {
    context: Arc<Context>,
    wanted: watch::Receiver<Option<Vec<SnapshotIntent>>>,
    /// Of each snapshot that is wanted or has files here.
    volumes: BTreeMap<String, String>,
    /// Snapshots that are being sent.
    sending: BTreeMap<String, AbortHandle>,
    tasks: JoinSet<(String, Result<(), store::StoreError>)>,
    /// Stored, as long as they are wanted: also those whose volume was erased meanwhile.
    sent: BTreeSet<String>,
    /// When freezing was first tried.
    tried: BTreeMap<String, Instant>,
    streams: Arc<Semaphore>,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// Something has changed.
    Changed,
    /// It is to be tried again later.
    Later,
    /// Nothing was to be done.
    Nothing,
}

impl Worker {
    async fn work(mut self) {
        // Whoever does not know what is wanted gives up nothing.
        if self.wanted.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            let wanted = self.wanted.borrow_and_update().clone().unwrap_or_default();
            let points = self.look(&wanted).await;
            self.context.board.post_snapshots(observe(&wanted, &points));
            let steps = decide(&wanted, &points);
            self.stop_sending(&steps);
            let done = self.take_steps(&wanted, steps).await;
            if done == Done::Changed {
                continue;
            }
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                // One that failed was stopped.
                Some(ended) = self.tasks.join_next() => if let Ok((id, stored)) = ended {
                    self.finish(id, stored).await;
                },
                () = tokio::time::sleep(RETRY), if done == Done::Later => {}
            }
        }
    }

    /// Looks at the files of every snapshot that is wanted, or has some.
    async fn look(&mut self, wanted: &[SnapshotIntent]) -> BTreeMap<String, Point> {
        self.sent
            .retain(|id| wanted.iter().any(|intent| intent.snapshot_id == *id));
        self.tried
            .retain(|id, _| wanted.iter().any(|intent| intent.snapshot_id == *id));
        let dir = self.context.dir.clone();
        let found = blocking(move || points::all(&dir)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "looking for snapshots among the volumes");
            BTreeMap::new()
        });
        self.volumes = found;
        let named = wanted.iter();
        self.volumes
            .extend(named.map(|intent| (intent.snapshot_id.clone(), intent.volume_id.clone())));
        let mut points = BTreeMap::new();
        for id in self.volumes.keys() {
            match self.on_files(id, |tracked, id| tracked.point(id)).await {
                Ok(mut point) => {
                    if self.sent.contains(id) {
                        (point.stored, point.failed) = (true, None);
                    } else if point.without_volume && self.sending.contains_key(id) {
                        // It was erased since, and is read to its end.
                        (point.state, point.without_volume) = (State::Frozen, false);
                    }
                    points.insert(id.clone(), point);
                }
                Err(error) => tracing::error!(snapshot = id, error = %chain(&error), "looking at its files"),
            }
        }
        points
    }

    fn stop_sending(&mut self, steps: &BTreeMap<String, Step>) {
        self.sending.retain(|id, task| {
            let goes_on = steps.get(id) == Some(&Step::Store);
            if !goes_on {
                task.abort();
            }
            goes_on
        });
    }

    async fn take_steps(&mut self, wanted: &[SnapshotIntent], steps: BTreeMap<String, Step>) -> Done {
        let mut all = Done::Nothing;
        let mut note = |done| match (done, all) {
            (Done::Changed, _) | (Done::Later, Done::Nothing) => all = done,
            _ => {}
        };
        // Points in time first: their users wait.
        let mut frozen = BTreeSet::new();
        for intent in wanted {
            let is_due = |one: &&SnapshotIntent| steps.get(&one.snapshot_id) == Some(&Step::Freeze);
            if is_due(&intent) && !frozen.contains(&intent.snapshot_id) {
                let set: Vec<SnapshotIntent> = members(intent, wanted)
                    .into_iter()
                    .filter(is_due)
                    .cloned()
                    .collect();
                frozen.extend(set.iter().map(|one| one.snapshot_id.clone()));
                note(self.freeze(&set).await);
            }
        }
        for (id, step) in steps {
            let id = id.as_str();
            note(match step {
                Step::Wait | Step::Freeze => Done::Nothing,
                Step::Store => self.send(id),
                Step::Fail(message) => self.fail(id, &message).await,
                Step::Settle => self.settle(id).await,
                Step::Abandon => {
                    self.changed(id, "abandoning", |tracked, id| tracked.abandon(id))
                        .await
                }
                Step::Thaw => self.thaw(id).await,
                Step::Forget => match points_left(&self.context, &self.volumes, id) {
                    true => {
                        self.changed(id, "forgetting", |tracked, id| tracked.forget(id))
                            .await
                    }
                    false => Done::Nothing,
                },
            });
        }
        all
    }

    /// Freezes the volumes of a set, or fails all of its snapshots.
    async fn freeze(&mut self, set: &[SnapshotIntent]) -> Done {
        let ids: Vec<&str> = set.iter().map(|intent| intent.snapshot_id.as_str()).collect();
        let first = set
            .first()
            .map(|intent| intent.snapshot_id.clone())
            .unwrap_or_default();
        let since = *self.tried.entry(first).or_insert_with(Instant::now);
        match freeze::freeze(&self.context, set).await {
            Ok(paused) => {
                tracing::info!(snapshots = ?ids, micros = paused.as_micros(), "froze volumes");
                fault::point("snapshot-frozen");
                Done::Changed
            }
            Err(error) if error.may_pass() && since.elapsed() < FREEZE_PATIENCE => {
                tracing::debug!(snapshots = ?ids, error = %chain(&error), "freezing volumes; trying again");
                Done::Later
            }
            // The request may be on its way: it is asked again until it is known what came of it.
            Err(error) if error.is_unanswered() => Done::Later,
            Err(error) => {
                let message = chain(&error);
                tracing::error!(snapshots = ?ids, error = message, "freezing volumes");
                let mut done = Done::Nothing;
                for id in ids {
                    done = self.fail(id, &message).await;
                }
                done
            }
        }
    }

    /// Whether a volume that nobody wants to be frozen any more was frozen: a request may be on its way to its monitor.
    async fn settle(&mut self, id: &str) -> Done {
        let intent = SnapshotIntent {
            snapshot_id: id.to_owned(),
            volume_id: self.volumes.get(id).cloned().unwrap_or_default(),
            ..SnapshotIntent::default()
        };
        match freeze::freeze(&self.context, &[intent]).await {
            Ok(_) => Done::Changed,
            Err(error) if error.is_unanswered() => Done::Later,
            Err(_) => {
                self.changed(id, "abandoning", |tracked, id| tracked.abandon(id))
                    .await
            }
        }
    }

    fn send(&mut self, id: &str) -> Done {
        if let Some(volume_id) = self.volumes.get(id)
            && !self.sending.contains_key(id)
        {
            let sender = store::Sender {
                dir: self.context.dir.clone(),
                boot: self.context.boot.clone(),
                images: self.context.images.clone(),
                link: self.context.link.clone(),
                volume_id: volume_id.clone(),
                snapshot_id: id.to_owned(),
            };
            let (id, streams) = (id.to_owned(), Arc::clone(&self.streams));
            let named = id.clone();
            let task = self.tasks.spawn(async move {
                let _turn = streams.acquire_owned().await;
                (named, sender.send().await)
            });
            self.sending.insert(id, task);
        }
        Done::Nothing
    }

    async fn finish(&mut self, id: String, stored: Result<(), store::StoreError>) {
        self.sending.remove(&id);
        match stored {
            Ok(()) => {
                fault::point("snapshot-stored");
                self.changed(&id, "noting as stored", |tracked, id| tracked.commit(id))
                    .await;
                self.sent.insert(id);
            }
            Err(error) => {
                self.fail(&id, &chain(&error)).await;
            }
        }
    }

    async fn fail(&self, id: &str, message: &str) -> Done {
        tracing::error!(snapshot = id, error = message, "a snapshot failed");
        let message = message.to_owned();
        self.changed(id, "failing", move |tracked, id| tracked.fail(id, &message))
            .await
    }

    async fn thaw(&self, id: &str) -> Done {
        let volume_id = self.volumes.get(id).cloned().unwrap_or_default();
        match freeze::thaw(&self.context, &volume_id, id).await {
            Ok(()) => {
                self.changed(id, "thawing", |tracked, id| tracked.thawed(id))
                    .await
            }
            Err(error) => {
                tracing::warn!(snapshot = id, error = %chain(&error), "thawing its volume; trying again");
                Done::Later
            }
        }
    }

    async fn changed(
        &self,
        id: &str,
        doing: &'static str,
        change: impl FnOnce(&Tracked<'_>, &str) -> Result<(), VolumeError> + Send + 'static,
    ) -> Done {
        match self.on_files(id, change).await {
            Ok(()) => Done::Changed,
            Err(error) => {
                tracing::error!(snapshot = id, error = %chain(&error), "{doing} a snapshot; trying again");
                Done::Later
            }
        }
    }

    async fn on_files<T: Send + 'static>(
        &self,
        id: &str,
        work: impl FnOnce(&Tracked<'_>, &str) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let volume_id = self.volumes.get(id).cloned().unwrap_or_default();
        let (dir, boot, id) = (self.context.dir.clone(), self.context.boot.clone(), id.to_owned());
        blocking(move || work(&Tracked::new(&dir, &volume_id, &boot), &id)).await
    }
}

fn points_left(context: &Context, volumes: &BTreeMap<String, String>, id: &str) -> bool {
    let volume = volumes.get(id).map(|volume_id| context.dir.volume(volume_id));
    volume.is_some_and(|volume| volume.join(id).exists())
}

/// Runs what waits for disks where nobody waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // It panicked, or the agent is on its way out.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
