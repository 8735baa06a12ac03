//! Disks of images, in the repository.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{Stream, TryStreamExt as _, stream};
use hearth_image::Extents;
use hearth_repository::{CHUNK, DataKey, Error, Reader, Repository};
use prost::bytes::Bytes;
use rustix::fs::FallocateFlags;
use tokio::sync::mpsc;

use crate::app::App;
use crate::keys::{self, KeyError};
use crate::state::Encryption;

/// Chunks that are read ahead of the repository, or of who asked for them.
const AHEAD: usize = 4;

/// What becomes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Stays,
    /// Its room is given back as it is read, so that the disk never takes twice its room.
    IsUsedUp,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("reading the disk")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Repository(#[from] Error),
}

/// Asks for a collection of the repository when it is dropped: what was stored is not needed.
pub struct Litter<'a>(Option<&'a App>);

impl<'a> Litter<'a> {
    pub fn of(app: &'a App) -> Self {
        Self(Some(app))
    }

    /// A row names what was stored.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Litter<'_> {
    fn drop(&mut self) {
        if let Some(app) = self.0 {
            app.littered.store(true, Ordering::Relaxed);
        }
    }
}

/// A name that no snapshot has.
pub fn new_name() -> String {
    format!("snap-0{:016x}", rand::random::<u64>())
}

/// The data key of an encrypted disk in the repository, also of a KMS key that is not to be used for anything new.
///
/// # Errors
/// The KMS key is gone, or a seal is broken.
pub fn key(app: &App, encryption: &Encryption, region: &str) -> Result<Arc<DataKey>, KeyError> {
    let opened = keys::open(&app.store.state(), &app.vault, encryption, region)?;
    Ok(Arc::new(DataKey::new(&opened)))
}

/// The chunks of a disk that are not zeros, from a number on, in their order, with their numbers.
pub fn chunks(reader: &Reader, first: u64) -> impl Stream<Item = Result<(u64, Bytes), Error>> + '_ {
    let present = stream::try_unfold(first, async |index| {
        let found = reader.next(index).await?;
        Ok(found.map(|(index, id)| ((index, id), index + 1)))
    });
    present
        .map_ok(move |(index, id)| async move { Ok((index, reader.named(id).await?)) })
        .try_buffered(AHEAD)
}

/// Stores the first `size` bytes of a file as a snapshot, durably. Holes are not read. `key`: what it is encrypted under.
///
/// # Errors
/// The file cannot be read, or the repository fails.
pub async fn store(
    repository: &Repository,
    snapshot: &str,
    file: File,
    size: u64,
    source: Source,
    key: Option<Arc<DataKey>>,
) -> Result<(), StoreError> {
    let (sender, mut chunks) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || read(&file, size, source, &sender));
    let mut writer = repository.write(None, key).await?;
    while let Some((index, chunk)) = chunks.recv().await {
        writer.put(index, chunk).await?;
    }
    reading.await.map_err(io::Error::other)??;
    let (_, written) = writer.finish(snapshot, size).await?;
    tracing::info!(
        snapshot,
        chunks = written.chunks,
        new_chunks = written.new_chunks,
        new_bytes = written.new_bytes,
        "a disk is in the repository"
    );
    Ok(())
}

fn read(file: &File, size: u64, source: Source, sender: &mpsc::Sender<(u64, Bytes)>) -> io::Result<()> {
    let length = CHUNK as u64;
    // Chunks up to this one were read.
    let mut next = 0;
    for extent in Extents::of(file, size) {
        let extent = extent?;
        for index in next.max(extent.start / length)..extent.end.div_ceil(length) {
            let begin = index * length;
            let inside = length.min(size - begin);
            let mut chunk = vec![0; CHUNK];
            file.read_exact_at(&mut chunk[..usize::try_from(inside).unwrap_or(CHUNK)], begin)?;
            if source == Source::IsUsedUp {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                // A file system without holes keeps it until the file goes.
                let _ = rustix::fs::fallocate(file, punch, begin, inside);
            }
            if sender.blocking_send((index, chunk.into())).is_err() {
                // The repository failed, and says why.
                return Ok(());
            }
            next = index + 1;
        }
    }
    Ok(())
}
