//! A base that is there in part: what guests wait for comes first, all else in the background.
//!
//! A chunk is in the file, and guests may read it, before it is durable; a bit in the map follows within a second, when it
//! is. So an agent that is killed fetches again what came in its last second, and nothing else.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use hearth_api::agent::{FetchChunkRequest, FetchImageRequest, ImageChunk};
use hearth_block::base::{CHUNK, Filling};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{ImageError, Images, ROOM, blocking, finish};
use crate::{chain, fault};

/// What has come becomes durable after so long.
const SETTLE: Duration = Duration::from_secs(1);
/// A chunk that takes longer is asked for again.
const CHUNK_DEADLINE: Duration = Duration::from_secs(30);
/// What a guest waits for longer is told as a trouble.
const SLOW: Duration = Duration::from_secs(5);
/// Before the control plane is asked again for the rest of a base that it has refused.
const REST: Duration = Duration::from_secs(30);
/// Chunks that are fetched ahead of a guest that reads one after the other.
const AHEAD: u64 = 3;

type Flight = Shared<BoxFuture<'static, Result<(), Arc<ImageError>>>>;

pub(super) struct Coming {
    images: Images,
    image_id: String,
    base: Arc<Filling>,
    /// One for each chunk, whoever waits for it.
    flights: Mutex<HashMap<u64, Flight>>,
    /// The chunk that was demanded last.
    last: Mutex<Option<u64>>,
    /// Changes when a chunk comes.
    arrived: watch::Sender<()>,
    /// There is something to be made durable.
    unsettled: Notify,
    hydrates: AtomicBool,
    /// All has come, or this one is not to go on.
    over: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Coming {
    pub(super) fn new(images: &Images, image_id: &str, base: Filling) -> Arc<Coming> {
        let coming = Arc::new(Coming {
            images: images.clone(),
            image_id: image_id.to_owned(),
            base: Arc::new(base),
            flights: Mutex::default(),
            last: Mutex::default(),
            arrived: watch::Sender::default(),
            unsettled: Notify::new(),
            hydrates: AtomicBool::default(),
            over: AtomicBool::default(),
            tasks: Mutex::default(),
        });
        if coming.base.missing() == 0 {
            // Its map was not removed.
            coming.unsettled.notify_one();
        }
        coming.spawn(Arc::clone(&coming).keep_settled());
        coming
    }

    /// It is whole, or to be opened anew.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends what is being done for it. Whoever waits for it is told.
    pub(super) fn abandon(&self) {
        self.over.store(true, Ordering::Release);
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        self.tell_trouble(None);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(task).abort_handle());
    }

    /// Waits until a chunk has come.
    ///
    /// # Errors
    /// It will not.
    pub(super) async fn demand(self: &Arc<Self>, chunk: u64) -> Result<(), Arc<ImageError>> {
        if chunk >= self.base.chunks() {
            return Err(Arc::new(ImageError::Malformed {
                image_id: self.image_id.clone(),
                offset: chunk.saturating_mul(CHUNK),
                bytes: 0,
            }));
        }
        let flight = self.flight(chunk);
        let last = lock(&self.last).replace(chunk);
        if last.is_some_and(|last| chunk.checked_sub(1) == Some(last)) {
            let ahead = chunk + 1..self.base.chunks().min(chunk + 1 + AHEAD);
            // After the one that is waited for.
            ahead.for_each(|chunk| drop(self.flight(chunk)));
        }
        match flight {
            Some(flight) => flight.await,
            None => Ok(()),
        }
    }

    /// The one fetch of a chunk that has not come. It goes on when nobody waits.
    fn flight(self: &Arc<Self>, chunk: u64) -> Option<Flight> {
        let mut flights = lock(&self.flights);
        if self.base.has(chunk) {
            return None;
        }
        if let Some(flight) = flights.get(&chunk) {
            return Some(flight.clone());
        }
        let (landed, result) = tokio::sync::oneshot::channel();
        let coming = Arc::clone(self);
        self.spawn(async move {
            let fetched = coming.bring(chunk).await;
            lock(&coming.flights).remove(&chunk);
            // Nobody may be waiting.
            let _ = landed.send(fetched);
        });
        let image_id = self.image_id.clone();
        let flight = async move {
            result
                .await
                .unwrap_or(Err(ImageError::Worker { image_id }))
                .map_err(Arc::new)
        };
        let flight = flight.boxed().shared();
        flights.insert(chunk, flight.clone());
        Some(flight)
    }

    /// Fetches a chunk until it is there, or is refused for good.
    async fn bring(&self, chunk: u64) -> Result<(), ImageError> {
        let fetching = async {
            let mut delays = delays();
            loop {
                match self.fetch_chunk(chunk).await {
                    Err(error) if may_pass(&error) => {
                        self.tell_trouble(Some(&chain(&error)));
                        self.wait_out(&error, &mut delays, "fetching what a guest waits for")
                            .await;
                    }
                    fetched => return fetched,
                }
            }
        };
        let growing_impatient = async {
            tokio::time::sleep(SLOW).await;
            let reason = format!(
                "waiting for the control plane to tell chunk {chunk} of {}",
                self.image_id
            );
            tracing::warn!(
                image = self.image_id,
                chunk,
                "a guest waits for a chunk of a base"
            );
            self.tell_trouble(Some(&reason));
            std::future::pending().await
        };
        let brought = tokio::select! {
            fetched = fetching => fetched,
            // The background was faster.
            () = self.comes(chunk) => Ok(()),
            never = growing_impatient => never,
        };
        brought.inspect_err(|error| {
            tracing::error!(
                image = self.image_id,
                chunk,
                error = chain(error),
                "a chunk of a base cannot be had: reads of it fail"
            );
        })
    }

    async fn fetch_chunk(&self, chunk: u64) -> Result<(), ImageError> {
        // There as long as it is.
        let permit = self.images.demands.permits.acquire().await;
        let mut client = self.images.link.client().await;
        let demand = Demand::begin(&self.images.demands.count);
        let request = FetchChunkRequest {
            image_id: self.image_id.clone(),
            index: chunk,
        };
        let answer = tokio::time::timeout(CHUNK_DEADLINE, client.fetch_chunk(request)).await;
        drop((demand, permit));
        let answer = answer
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("it takes too long")))
            .map_err(|status| self.refused(status))?;
        let told = answer.into_inner();
        if told.offset != chunk * CHUNK {
            return Err(self.malformed(&told));
        }
        self.put(chunk, told).await
    }

    /// Fills the base in the background, unless that is being done, or was refused a moment ago.
    pub(super) fn hydrate(self: &Arc<Self>) {
        if !self.hydrates.swap(true, Ordering::AcqRel) {
            let coming = Arc::clone(self);
            self.spawn(async move {
                coming.stream().await;
                if coming.base.missing() > 0 {
                    tokio::time::sleep(REST).await;
                }
                coming.hydrates.store(false, Ordering::Release);
            });
        }
    }

    async fn stream(&self) {
        let (begun, missing) = (Instant::now(), self.base.missing());
        let mut delays = delays();
        while let Some(first) = self.base.next_missing(0) {
            let before = self.base.missing();
            let error = match self.stream_from(first).await {
                Ok(()) => continue,
                Err(error) => error,
            };
            if !may_pass(&error) {
                let error = chain(&error);
                tracing::error!(image = self.image_id, error, "the rest of a base does not come");
                return self.tell_trouble(Some(&error));
            }
            // What went well for a while makes up for what was before.
            if self.base.missing() < before {
                delays = self::delays();
            }
            self.wait_out(&error, &mut delays, "fetching a base was cut short")
                .await;
        }
        tracing::info!(
            image = self.image_id,
            chunks = missing,
            seconds = begun.elapsed().as_secs_f32(),
            "a base has come whole"
        );
    }

    /// Chunks come in the order of their numbers; those that are left out are zeros, when the end is told.
    async fn stream_from(&self, first: u64) -> Result<(), ImageError> {
        let request = FetchImageRequest {
            image_id: self.image_id.clone(),
            first_chunk: first,
        };
        // There as long as it is.
        let _permit = self.images.streams.acquire().await;
        let mut client = self.images.link.client().await;
        let answer = client.fetch_image(request).await;
        let mut chunks = answer.map_err(|status| self.refused(status))?.into_inner();
        tracing::info!(image = self.image_id, first, "fetching a base");
        let mut demands = self.images.demands.count.subscribe();
        let (mut next, mut told_at) = (first, Instant::now());
        loop {
            // Guests first. The sender lives as long as we do.
            let _ = demands.wait_for(|count| *count == 0).await;
            let told = chunks.message().await.map_err(|status| self.refused(status))?;
            let Some(told) = told else {
                let cut = Status::unavailable("the stream of the image ended before the image did");
                return Err(self.refused(cut));
            };
            if told.offset == self.base.size() && told.data.is_empty() {
                return self.zeros(next, self.base.chunks()).await;
            }
            let chunk = told.offset / CHUNK;
            if !told.offset.is_multiple_of(CHUNK) || chunk >= self.base.chunks() {
                return Err(self.malformed(&told));
            }
            self.zeros(next, chunk).await?;
            self.put(chunk, told).await?;
            next = next.max(chunk + 1);
            if told_at.elapsed() >= Duration::from_secs(10) {
                told_at = Instant::now();
                let (missing, of) = (self.base.missing(), self.base.chunks());
                tracing::info!(image = self.image_id, missing, of, "fetching a base");
            }
        }
    }

    pub(super) async fn put(&self, chunk: u64, told: ImageChunk) -> Result<(), ImageError> {
        if told.data.len() as u64 > self.base.len_of(chunk) {
            return Err(self.malformed(&told));
        }
        self.store(move |base| base.put(chunk, &told.data)).await
    }

    async fn zeros(&self, from: u64, to: u64) -> Result<(), ImageError> {
        if from >= to {
            return Ok(());
        }
        self.store(move |base| (from..to).try_for_each(|chunk| base.put(chunk, &[])))
            .await
    }

    async fn store(
        &self,
        store: impl FnOnce(&Filling) -> io::Result<()> + Send + 'static,
    ) -> Result<(), ImageError> {
        let (base, id) = (Arc::clone(&self.base), self.image_id.clone());
        let stored = blocking(&self.image_id, move || {
            store(&base).map_err(|source| ImageError::io(&id, "writing", source))
        });
        stored.await?;
        self.tell_trouble(None);
        self.arrived.send_replace(());
        self.unsettled.notify_one();
        fault::point("chunk-stored");
        Ok(())
    }

    /// Returns when a chunk is there.
    async fn comes(&self, chunk: u64) {
        let mut arrived = self.arrived.subscribe();
        // The sender lives as long as we do.
        let _ = arrived.wait_for(|()| self.base.has(chunk)).await;
    }

    /// Makes durable what has come, until all has. What cannot be made durable is fetched anew.
    async fn keep_settled(self: Arc<Self>) {
        loop {
            self.unsettled.notified().await;
            let is_whole = || self.base.missing() == 0;
            if !is_whole() {
                tokio::time::sleep(SETTLE).await;
            }
            let whole = is_whole();
            let (base, id) = (Arc::clone(&self.base), self.image_id.clone());
            let dir = self.images.dir.clone();
            let settled = blocking(&self.image_id, move || {
                base.settle()
                    .map_err(|source| ImageError::io(&id, "syncing", source))?;
                if whole { finish(&dir, &id) } else { Ok(()) }
            });
            match settled.await {
                Ok(()) if whole => return self.end().await,
                Ok(()) => {}
                Err(error @ ImageError::DiskFull { .. }) => self.tell_trouble(Some(&chain(&error))),
                Err(error) => {
                    tracing::error!(
                        image = self.image_id,
                        error = chain(&error),
                        "a base is opened anew"
                    );
                    self.tell_trouble(Some(&chain(&error)));
                    return self.end().await;
                }
            }
        }
    }

    /// Whoever asks for it from now on opens it anew.
    async fn end(&self) {
        self.over.store(true, Ordering::Release);
        let mut coming = self.images.coming.lock().await;
        if coming
            .get(&self.image_id)
            .is_some_and(|known| std::ptr::eq(&**known, self))
        {
            coming.remove(&self.image_id);
        }
    }

    /// Makes room if that is what lacks, and rests.
    async fn wait_out(&self, error: &ImageError, delays: &mut impl Iterator<Item = Duration>, doing: &str) {
        let reason = chain(error);
        tracing::warn!(image = self.image_id, error = reason, "{doing}: trying again");
        // That the control plane is away for a while concerns nobody who does not wait for it.
        if !matches!(error, ImageError::Refused { .. }) {
            self.tell_trouble(Some(&reason));
        }
        if let ImageError::DiskFull { .. } = error {
            self.images.make_room(ROOM).await;
        }
        tokio::time::sleep(delays.next().unwrap_or(LONGEST_PAUSE)).await;
    }

    fn tell_trouble(&self, trouble: Option<&str>) {
        self.images.troubles.send_if_modified(|troubles| match trouble {
            Some(trouble) => {
                let known = troubles.insert(self.image_id.clone(), trouble.to_owned());
                known.as_deref() != Some(trouble)
            }
            None => troubles.remove(&self.image_id).is_some(),
        });
    }

    fn refused(&self, status: Status) -> ImageError {
        ImageError::Refused {
            image_id: self.image_id.clone(),
            status: Box::new(status),
        }
    }

    fn malformed(&self, told: &ImageChunk) -> ImageError {
        ImageError::Malformed {
            image_id: self.image_id.clone(),
            offset: told.offset,
            bytes: told.data.len(),
        }
    }
}

/// A chunk that a guest waits for is being fetched.
struct Demand<'a>(&'a watch::Sender<usize>);

impl<'a> Demand<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Demand<'a> {
        count.send_modify(|count| *count += 1);
        Demand(count)
    }
}

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(15);

fn delays() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .build()
}

/// Whether the same may succeed later.
fn may_pass(error: &ImageError) -> bool {
    match error {
        ImageError::Refused { status, .. } => !matches!(
            status.code(),
            Code::NotFound
                | Code::InvalidArgument
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::DataLoss
        ),
        ImageError::DiskFull { .. } | ImageError::Io { .. } => true,
        _ => false,
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
