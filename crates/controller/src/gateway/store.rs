//! Takes snapshots from the hosts of their volumes into the repository, and volumes that move to another host. One is completed
//! by the commit of its row, after its contents are durable. A stream that breaks off leaves it pending, and the host begins
//! again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_api::agent::{
    SnapshotBegin, SnapshotChunk, SnapshotPart, StoreSnapshotResponse, snapshot_part::Part,
};
use hearth_log::chain;
use hearth_repository::{CHUNK, DataKey, Error, MAX_CHUNKS, Writer};
use prost::bytes::Bytes;
use tokio::sync::{AcquireError, Semaphore};
use tonic::{Status, Streaming};

use super::caller::Caller;
use super::sessions::STORES;
use crate::app::App;
use crate::disks::{self, Litter};
use crate::keys::KeyError;
use crate::state::{Contents, Disk, Encryption, Move, Snapshot, State, Volume};

/// Snapshots that are stored at the same time. Each holds up to 64 chunks in memory.
pub(super) const AT_ONCE: usize = 8;
/// How long one waits for a place.
const QUEUE: Duration = Duration::from_secs(30);
/// How long the next part may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Progress is written down when it has grown by so many per cent.
const STEP: u32 = 5;
/// Or that it goes on, when so much time has passed.
const PROGRESS: Duration = Duration::from_secs(60);

pub(super) async fn snapshot(
    app: &App,
    places: &Semaphore,
    caller: &Caller,
    mut parts: Streaming<SnapshotPart>,
) -> Result<StoreSnapshotResponse, Status> {
    let places = async {
        let own = caller.standing.stores().acquire().await;
        Ok::<_, AcquireError>((own?, places.acquire().await?))
    };
    let Ok(Ok(_places)) = tokio::time::timeout(QUEUE, places).await else {
        return Err(Status::resource_exhausted(format!(
            "as many snapshots are being stored as may be: {STORES} of this host, or {AT_ONCE}"
        )));
    };
    let Some(Part::Begin(begin)) = next(&mut parts).await? else {
        return Err(Status::invalid_argument(
            "the first part of a snapshot is its beginning",
        ));
    };
    let base = check(&app.store.state(), caller.host_id(), &begin)?;
    leave_limit(app, &begin).await?;
    let key = key(app, caller.host_id(), &begin).await?;
    let litter = Litter::of(app);
    let to = To {
        base: base.as_deref(),
        key,
    };
    let disk = store(app, caller.host_id(), &begin, to, &mut parts).await?;
    complete(app, caller.host_id(), &begin, disk).await?;
    litter.keep();
    Ok(StoreSnapshotResponse {})
}

async fn next(parts: &mut Streaming<SnapshotPart>) -> Result<Option<Part>, Status> {
    let message = tokio::time::timeout(PATIENCE, parts.message()).await;
    let message = message.map_err(|_| {
        Status::deadline_exceeded(format!(
            "nothing came of the snapshot for {} seconds",
            PATIENCE.as_secs()
        ))
    })??;
    match message {
        None => Ok(None),
        Some(SnapshotPart { part: Some(part) }) => Ok(Some(part)),
        Some(SnapshotPart { part: None }) => Err(Status::invalid_argument("a part of a snapshot is empty")),
    }
}

fn unwanted(id: &str) -> Status {
    Status::not_found(format!("nobody wants a snapshot {id:?} of this host"))
}

/// What a host stores.
enum Wanted<'s> {
    Snapshot(&'s Snapshot),
    /// A volume that is to leave the host.
    Move(&'s Move),
}

impl<'s> Wanted<'s> {
    fn volume_id(&self) -> &str {
        match self {
            Self::Snapshot(row) => &row.volume_id,
            Self::Move(row) => &row.volume_id,
        }
    }

    fn size_gib(&self) -> u64 {
        match self {
            Self::Snapshot(row) => row.size_gib,
            Self::Move(row) => row.size_gib,
        }
    }

    /// How it is encrypted, and in which region; `None`: it is not.
    fn encryption(&self, state: &'s State) -> Option<(&'s Encryption, &'s str)> {
        match *self {
            Self::Snapshot(row) => Some((row.encryption.as_ref()?, &row.region)),
            Self::Move(row) => {
                let volume = state.get::<Volume>(&row.volume_id)?;
                Some((volume.encryption.as_ref()?, &volume.region))
            }
        }
    }
}

/// The snapshot or the move, if the host shall store it.
fn wanted<'s>(state: &'s State, host_id: &str, id: &str) -> Result<Wanted<'s>, Status> {
    let is_of_host = |row: &&Snapshot| {
        let pending = row.pending();
        pending.is_some_and(|pending| pending.host_id == host_id) && !row.deleted
    };
    let snapshot = state.get::<Snapshot>(id).filter(is_of_host);
    let leaves = |row: &&Move| row.is_storing() && row.from == host_id;
    let moving = || state.get::<Move>(id).filter(leaves).map(Wanted::Move);
    let found = snapshot.map(Wanted::Snapshot).or_else(moving);
    found.ok_or_else(|| unwanted(id))
}

/// Answers the disk in the repository that the snapshot is told as changes of; `None`: zeros. A host can name what it has of the
/// volume: what the volume began with, or another snapshot of it.
///
/// # Errors
/// `NOT_FOUND`; `FAILED_PRECONDITION` for a base that is not there; `INVALID_ARGUMENT`.
fn check(state: &State, host_id: &str, begin: &SnapshotBegin) -> Result<Option<String>, Status> {
    let row = wanted(state, host_id, &begin.snapshot_id)?;
    let volume = state
        .get::<Volume>(row.volume_id())
        .ok_or_else(|| unwanted(&begin.snapshot_id))?;
    // It may have grown since, also by a modification that has failed.
    let grown = volume
        .modification
        .as_ref()
        .map_or(0, |last| last.target.size_gib);
    let most = volume.spec.size_gib.max(row.size_gib()).max(grown) << 30;
    if begin.size_bytes == 0 || begin.size_bytes > most {
        return Err(Status::invalid_argument(format!(
            "the volume has at most {most} bytes, and not {}",
            begin.size_bytes
        )));
    }
    let chunks = begin.size_bytes.div_ceil(CHUNK as u64);
    if begin.chunks > chunks || chunks > MAX_CHUNKS {
        return Err(Status::invalid_argument(format!(
            "a disk of {} bytes does not have {} chunks",
            begin.size_bytes, begin.chunks
        )));
    }
    if begin.base_id.is_empty() {
        return Ok(None);
    }
    let gone = || {
        Status::failed_precondition(format!(
            "{:?} is none of the volume's snapshots, nor what it began with: begin without a base",
            begin.base_id
        ))
    };
    if volume.base_id() != Some(begin.base_id.as_str()) {
        let is_of_volume = |row: &&Snapshot| row.is_completed() && row.volume_id == volume.id;
        state
            .get::<Snapshot>(&begin.base_id)
            .filter(is_of_volume)
            .ok_or_else(gone)?;
    }
    match state.base(&begin.base_id) {
        Some(base) if base.size > begin.size_bytes || base.name.is_empty() => Err(gone()),
        base => Ok(base.map(|base| base.name.to_owned())),
    }
}

/// A snapshot that would be more than may be stored for its account is in error.
async fn leave_limit(app: &App, begin: &SnapshotBegin) -> Result<(), Status> {
    let limit = u64::from(app.config.image_gib_limit) << 30;
    let (id, told) = (begin.snapshot_id.clone(), begin.chunks * CHUNK as u64);
    let exceeds = |state: &State| {
        let row = state.get::<Snapshot>(&id)?;
        let [_, stored] = state.sum(&Snapshot::TOTAL, &row.account_id);
        (stored.saturating_add(told) > limit).then_some(())
    };
    if exceeds(&app.store.state()).is_none() {
        return Ok(());
    }
    let id = begin.snapshot_id.clone();
    let failed = app.store.transact(move |tx| {
        let why = format!(
            "It would store up to {} GiB, and the disks of an account's images and snapshots may have {} GiB together. Delete \
             snapshots, and make it again.",
            told.div_ceil(1 << 30),
            limit >> 30
        );
        tx.fail_snapshot(&id, &why);
        Ok::<_, Status>(())
    });
    failed.await?;
    Err(unwanted(&begin.snapshot_id))
}

/// The data key of a snapshot, or of a volume that moves, if it is encrypted. One whose KMS key is gone is in error.
async fn key(app: &App, host_id: &str, begin: &SnapshotBegin) -> Result<Option<Arc<DataKey>>, Status> {
    let id = &begin.snapshot_id;
    let state = app.store.state();
    let Some((encryption, region)) = wanted(&state, host_id, id)?.encryption(&state) else {
        return Ok(None);
    };
    let gone = match disks::key(app, encryption, region) {
        Ok(key) => return Ok(Some(key)),
        Err(KeyError::Broken(broken)) => return Err(super::keys::refused(&broken.into())),
        Err(gone) => gone,
    };
    let failing = id.clone();
    let failed = app.store.transact(move |tx| {
        let why = gone.to_string();
        tx.fail_snapshot(&failing, &why);
        tx.fail_move(&failing, &why);
        Ok::<_, Status>(())
    });
    failed.await?;
    Err(unwanted(id))
}

/// Where a snapshot goes.
struct To<'a> {
    /// Its base, in the repository.
    base: Option<&'a str>,
    /// `None`: it is not encrypted.
    key: Option<Arc<DataKey>>,
}

/// Stores what comes. On return it is durable.
async fn store(
    app: &App,
    host_id: &str,
    begin: &SnapshotBegin,
    to: To<'_>,
    parts: &mut Streaming<SnapshotPart>,
) -> Result<Disk, Status> {
    let id = &begin.snapshot_id;
    let failed = |error: Error| failed(id, &error);
    let mut writer = app.repository.write(to.base, to.key).await.map_err(failed)?;
    let mut order = Order::new(begin);
    let (mut told, mut told_at) = (0, Instant::now());
    while let Some(part) = next(parts).await? {
        let Part::Chunk(chunk) = part else {
            return Err(Status::invalid_argument("the beginning of a snapshot comes once"));
        };
        put(&mut writer, order.take(chunk)?).await.map_err(failed)?;
        let percent = order.percent();
        if percent >= told + STEP || told_at.elapsed() >= PROGRESS {
            (told, told_at) = (percent, Instant::now());
            progress(app, host_id, id, percent).await?;
        }
    }
    order.finish()?;
    // Of this attempt alone: another may have been cut short behind it.
    let name = disks::new_name();
    let (snapshot, written) = writer.finish(&name, begin.size_bytes).await.map_err(failed)?;
    tracing::info!(
        snapshot = id,
        host = host_id,
        chunks = written.chunks,
        new_chunks = written.new_chunks,
        new_bytes = written.new_bytes,
        "a snapshot is in the repository"
    );
    Ok(Disk {
        name,
        size: snapshot.size,
        digest: String::new(),
    })
}

async fn put(writer: &mut Writer, (index, data): (u64, Option<Bytes>)) -> Result<(), Error> {
    match data {
        Some(data) => writer.put(index, data).await,
        None => writer.zero(index).await,
    }
}

fn failed(id: &str, error: &Error) -> Status {
    if let Error::NoSuchSnapshot(_) = error {
        return Status::failed_precondition("the base is not there any more: begin without one");
    }
    if let Error::OtherKey(_) = error {
        return Status::failed_precondition("the base lies under another data key: begin without one");
    }
    tracing::error!(snapshot = id, error = %chain(error), "storing a snapshot");
    match error.is_full() {
        true => Status::resource_exhausted("the control plane's disk is full"),
        false => Status::internal("the snapshot cannot be stored; the control plane's log says why"),
    }
}

/// Holds what comes against what was said to come.
struct Order {
    size: u64,
    chunks: u64,
    came: u64,
    /// The next chunk has this number, or a larger one.
    next: u64,
}

impl Order {
    fn new(begin: &SnapshotBegin) -> Self {
        Self {
            size: begin.size_bytes,
            chunks: begin.chunks,
            came: 0,
            next: 0,
        }
    }

    /// A chunk's number, and its bytes filled up with zeros; `None`: it is zeros.
    fn take(&mut self, chunk: SnapshotChunk) -> Result<(u64, Option<Bytes>), Status> {
        let SnapshotChunk { index, mut data } = chunk;
        let wrong = |what: String| Status::invalid_argument(format!("chunk {index} of a snapshot {what}"));
        let all = self.size.div_ceil(CHUNK as u64);
        if index < self.next || index >= all {
            return Err(wrong(format!("is none of {} to {all}", self.next)));
        }
        if self.came == self.chunks {
            return Err(wrong(format!("is more than the {} that were told", self.chunks)));
        }
        // The last one ends with the disk.
        let room = self.size - index * CHUNK as u64;
        let least = usize::try_from(room).unwrap_or(CHUNK).min(CHUNK);
        if !data.is_empty() && !(least..=CHUNK).contains(&data.len()) {
            return Err(wrong(format!("has {} bytes", data.len())));
        }
        (self.came, self.next) = (self.came + 1, index + 1);
        if data.is_empty() {
            return Ok((index, None));
        }
        data.truncate(least);
        data.resize(CHUNK, 0);
        Ok((index, Some(data.into())))
    }

    fn percent(&self) -> u32 {
        // What is durable but not committed is not all.
        let percent = self.came.saturating_mul(100) / self.chunks.max(1);
        u32::try_from(percent).unwrap_or(100).min(99)
    }

    fn finish(&self) -> Result<(), Status> {
        match self.came == self.chunks {
            true => Ok(()),
            false => Err(Status::invalid_argument(format!(
                "{} chunks of a snapshot came, and {} were told",
                self.came, self.chunks
            ))),
        }
    }
}

async fn progress(app: &App, host_id: &str, id: &str, percent: u32) -> Result<(), Status> {
    let (host_id, id) = (host_id.to_owned(), id.to_owned());
    app.store
        .transact(move |tx| {
            if let Wanted::Move(_) = wanted(tx, &host_id, &id)? {
                tx.progress_move(&id, percent);
                return Ok(());
            }
            tx.update::<Snapshot>(&id, |row| {
                if let Contents::Pending(pending) = &mut row.contents {
                    pending.percent = percent;
                }
            });
            Ok::<_, Status>(())
        })
        .await
}

async fn complete(app: &App, host_id: &str, begin: &SnapshotBegin, disk: Disk) -> Result<(), Status> {
    let (host_id, id, name) = (host_id.to_owned(), begin.snapshot_id.clone(), disk.name.clone());
    let told = begin.chunks * CHUNK as u64;
    let completed = app.store.transact(move |tx| {
        match wanted(tx, &host_id, &id)? {
            Wanted::Snapshot(_) => tx.complete_snapshot(&id, disk, told),
            Wanted::Move(_) => tx.complete_move(&id, disk),
        }
        Ok::<_, Status>(())
    });
    let completed = completed.await;
    // Of a commit that is not known to be done, the row may name it.
    if completed
        .as_ref()
        .is_err_and(|status| status.code() == tonic::Code::NotFound)
        && let Err(error) = app.repository.delete(&name).await
    {
        tracing::warn!(snapshot = name, error = %chain(&error), "removing what a snapshot that nobody wants has stored");
    }
    completed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expecting(size_bytes: u64, chunks: u64) -> Order {
        Order::new(&SnapshotBegin {
            size_bytes,
            chunks,
            ..SnapshotBegin::default()
        })
    }

    fn chunk(index: u64, bytes: usize) -> SnapshotChunk {
        SnapshotChunk {
            index,
            data: vec![7; bytes],
        }
    }

    #[test]
    fn chunks_of_snapshots_come_in_order_and_whole() {
        let tail = 5;
        let mut order = expecting(2 * CHUNK as u64 + 5, 3);
        for (index, bytes) in [
            (3, CHUNK),
            (u64::MAX, CHUNK),
            (0, 1),
            (0, CHUNK - 1),
            (0, CHUNK + 1),
            (2, tail - 1),
        ] {
            let refused = order.take(chunk(index, bytes)).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{index} {bytes}");
        }
        assert_eq!(order.take(chunk(0, 0)).unwrap(), (0, None));
        assert_eq!(order.percent(), 33);
        assert!(order.take(chunk(0, CHUNK)).is_err(), "it comes once");
        assert!(order.finish().is_err(), "something is missing");
        let (index, data) = order.take(chunk(2, tail)).unwrap();
        let data = data.unwrap();
        assert_eq!(
            (index, data.len(), &data[..6]),
            (2, CHUNK, &[7, 7, 7, 7, 7, 0][..])
        );
        assert!(order.take(chunk(1, CHUNK)).is_err(), "numbers grow");
        assert!(order.finish().is_err());
    }

    #[test]
    fn no_more_chunks_of_a_snapshot_come_than_were_told() {
        let mut order = expecting(4 * CHUNK as u64, 1);
        order.take(chunk(1, CHUNK)).unwrap();
        assert_eq!(order.percent(), 99, "the commit is missing");
        assert!(order.take(chunk(2, CHUNK)).is_err());
        order.finish().unwrap();
        expecting(1, 0).finish().unwrap();
    }
}
