//! Tells a disk image's bytes out of the repository: from a chunk on, leaving out what is zero, or one chunk that a guest
//! waits for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use hearth_api::agent::ImageChunk;
use hearth_log::chain;
use hearth_repository::{CHUNK, DataKey, Error, Reader, Repository};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::sessions::{CHUNKS, FETCHES, Standing};
use crate::disks;

/// Messages that wait for a slow receiver.
const AHEAD: usize = 4;
/// How long a receiver may take for one of them.
const PATIENCE: Duration = Duration::from_secs(120);
/// Snapshots that are open for single chunks, each with at most 9 MiB of its tree.
const OPEN: usize = 8;

type Chunk = Result<ImageChunk, Status>;

/// A disk in the repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    pub name: String,
    /// `None`: it is not encrypted.
    pub key: Option<Arc<DataKey>>,
}

/// The snapshots that single chunks were last fetched from, the newest last. One that is open tells what it did when it was
/// opened: a snapshot does not change.
#[derive(Default)]
pub(super) struct Readers(Mutex<VecDeque<(String, Arc<Reader>)>>);

impl Readers {
    fn open(&self) -> MutexGuard<'_, VecDeque<(String, Arc<Reader>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn of(&self, repository: &Repository, source: &Source) -> Result<Arc<Reader>, Status> {
        if let Some((_, reader)) = self.open().iter().find(|(name, _)| *name == source.name) {
            return Ok(Arc::clone(reader));
        }
        let reader = Arc::new(open(repository, source).await?);
        let mut readers = self.open();
        if readers.len() >= OPEN {
            readers.pop_front();
        }
        readers.push_back((source.name.clone(), Arc::clone(&reader)));
        Ok(reader)
    }
}

async fn open(repository: &Repository, source: &Source) -> Result<Reader, Status> {
    let opened = repository.read(&source.name, source.key.clone()).await;
    opened.map_err(|error| {
        tracing::error!(error = %chain(&error), snapshot = source.name, "opening an image's disk");
        Status::internal("the image's disk cannot be read; the control plane's log says why")
    })
}

fn unreadable(error: &Error) -> Status {
    tracing::error!(error = %chain(error), "reading an image's disk");
    Status::data_loss("the image's disk cannot be read; the control plane's log says why")
}

/// One chunk; without data where it is zeros.
pub(super) async fn chunk(
    readers: &Readers,
    repository: &Repository,
    source: &Source,
    index: u64,
    standing: &Standing,
) -> Result<ImageChunk, Status> {
    let _permit = standing.fetch_chunk().ok_or_else(|| {
        Status::resource_exhausted(format!("a host fetches at most {CHUNKS} chunks at the same time"))
    })?;
    let reader = readers.of(repository, source).await?;
    let size = reader.snapshot().size;
    if index >= size.div_ceil(CHUNK as u64) {
        return Err(Status::out_of_range(format!(
            "the image has {size} bytes, and no chunk {index}"
        )));
    }
    let offset = index * CHUNK as u64;
    let mut data = reader
        .chunk(index)
        .await
        .map_err(|error| unreadable(&error))?
        .unwrap_or_default();
    data.truncate(usize::try_from(size - offset).unwrap_or(CHUNK));
    Ok(ImageChunk { offset, data })
}

/// From chunk `first` on. The stream holds one of the host's fetches until it is dropped, and breaks off when the host is evicted.
pub(super) async fn stream(
    repository: &Repository,
    source: &Source,
    first: u64,
    standing: Arc<Standing>,
) -> Result<impl Stream<Item = Chunk> + Send + use<>, Status> {
    let permit = standing.fetch().ok_or_else(|| {
        Status::resource_exhausted(format!(
            "a host fetches at most {FETCHES} images at the same time"
        ))
    })?;
    let reader = open(repository, source).await?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let give = async |chunk: Chunk| {
            let given = tokio::time::timeout(PATIENCE, sender.send(chunk)).await;
            matches!(given, Ok(Ok(())))
        };
        let mut chunks = std::pin::pin!(chunks(&reader, first));
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| unreadable(&error));
            let is_end = chunk.is_err();
            if !give(chunk).await || is_end {
                return;
            }
        }
    });
    let ending = Arc::clone(&standing);
    let evicted = stream::once(async move { ending.reason() }).filter_map(async |reason| reason.map(Err));
    let chunks = ReceiverStream::new(receiver).map(move |chunk| {
        let _held = &permit;
        chunk
    });
    Ok(chunks
        .take_until(async move { standing.evicted().await })
        .chain(evicted))
}

/// In the order of their offsets; then one that says that there are no more.
fn chunks(reader: &Reader, first: u64) -> impl Stream<Item = Result<ImageChunk, Error>> + '_ {
    let size = reader.snapshot().size;
    let end = ImageChunk {
        offset: size,
        ..ImageChunk::default()
    };
    disks::chunks(reader, first)
        .map_ok(move |(index, mut data)| {
            let offset = index * CHUNK as u64;
            data.truncate(usize::try_from(size - offset).unwrap_or(CHUNK));
            ImageChunk { offset, data }
        })
        .chain(stream::once(async { Ok(end) }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::super::sessions::Sessions;
    use super::*;
    use crate::disks::Source as Of;

    const NAME: &str = "snap-1";

    fn source() -> Source {
        Source {
            name: NAME.to_owned(),
            key: None,
        }
    }

    async fn repository(fill: impl FnOnce(&std::fs::File), size: u64) -> (tempfile::TempDir, Repository) {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::in_directory(dir.path()).unwrap();
        let file = tempfile::tempfile().unwrap();
        fill(&file);
        file.set_len(size).unwrap();
        disks::store(&repository, NAME, file, size, Of::IsUsedUp, None)
            .await
            .unwrap();
        (dir, repository)
    }

    /// 64 chunks.
    async fn image() -> (tempfile::TempDir, Repository) {
        repository(|file| file.write_all_at(&vec![1; 32 << 20], 0).unwrap(), 32 << 20).await
    }

    /// Reading a TiB of zeros takes minutes.
    #[tokio::test]
    async fn holes_are_not_read() {
        let sessions = Sessions::default();
        let size = (1 << 40) + 5;
        let ends = |file: &std::fs::File| {
            for (at, data) in [(0, "begin"), (size - 3, "end")] {
                file.write_all_at(data.as_bytes(), at).unwrap();
            }
        };
        let (_dir, repository) = repository(ends, size).await;
        let fetch = stream(&repository, &source(), 0, sessions.standing("h-1"))
            .await
            .unwrap();
        let chunks = tokio::time::timeout(Duration::from_secs(20), fetch.collect::<Vec<_>>())
            .await
            .unwrap();
        let chunks: Vec<_> = chunks.into_iter().map(|chunk| chunk.unwrap()).collect();
        assert!(chunks[0].data.starts_with(b"begin"));
        let (end, chunks) = chunks.split_last().unwrap();
        assert_eq!((end.offset, end.data.len()), (size, 0), "there are no more");
        let last = chunks.last().unwrap();
        assert!(last.data.ends_with(b"end"));
        assert_eq!(last.offset + last.data.len() as u64, size);
        assert!(chunks.len() <= 3, "{}", chunks.len());
    }

    #[tokio::test]
    async fn a_chunk_is_told_alone_and_a_fetch_goes_on_where_one_was_cut_short() {
        let (sessions, readers) = (Sessions::default(), Readers::default());
        let size = 4 * CHUNK as u64 + 3;
        let fill = |file: &std::fs::File| {
            for (index, byte) in [(0, 1), (2, 3), (3, 4)] {
                file.write_all_at(&vec![byte; CHUNK], index * CHUNK as u64)
                    .unwrap();
            }
            file.write_all_at(b"end", size - 3).unwrap();
        };
        let (_dir, repository) = repository(fill, size).await;
        let standing = sessions.standing("h-1");
        let told = async |index| chunk(&readers, &repository, &source(), index, &standing).await;
        for (index, expected) in [(2, vec![3; CHUNK]), (1, Vec::new()), (4, b"end".to_vec())] {
            let chunk = told(index).await.unwrap();
            assert_eq!(chunk.offset, index * CHUNK as u64);
            assert!(chunk.data == expected, "chunk {index}");
        }
        for beyond in [5, u64::MAX] {
            assert_eq!(told(beyond).await.unwrap_err().code(), tonic::Code::OutOfRange);
        }
        let rest = stream(&repository, &source(), 3, Arc::clone(&standing))
            .await
            .unwrap();
        let rest: Vec<_> = rest.collect().await;
        let offsets: Vec<u64> = rest.iter().map(|chunk| chunk.as_ref().unwrap().offset).collect();
        assert_eq!(offsets, [3 * CHUNK as u64, 4 * CHUNK as u64, size]);
        // A host has a number of them at a time, whatever else it fetches.
        let held: Vec<_> = (0..CHUNKS).map(|_| standing.fetch_chunk().unwrap()).collect();
        assert_eq!(told(0).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
        let other = sessions.standing("h-2");
        assert!(chunk(&readers, &repository, &source(), 0, &other).await.is_ok());
        drop(held);
        assert!(told(0).await.is_ok());
    }

    #[tokio::test]
    async fn an_eviction_breaks_fetches_off() {
        let ((_dir, repository), sessions) = (image().await, Sessions::default());
        let fetch = stream(&repository, &source(), 0, sessions.standing("h-1"))
            .await
            .unwrap();
        let mut fetch = std::pin::pin!(fetch);
        assert_eq!(fetch.next().await.unwrap().unwrap().offset, 0);
        sessions.evict("h-1", Status::permission_denied("host h-1 was forgotten"));
        let rest = tokio::time::timeout(Duration::from_secs(10), fetch.collect::<Vec<_>>())
            .await
            .unwrap();
        assert!(rest.len() < 63, "all of it was sent");
        let last = rest.last().unwrap().as_ref().unwrap_err();
        assert_eq!(last.code(), tonic::Code::PermissionDenied);
    }

    /// What an agent does not hear of an image is zeros only when it hears that it was all.
    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_is_given_up_does_not_look_whole() {
        let ((_dir, repository), sessions) = (image().await, Sessions::default());
        let fetch = stream(&repository, &source(), 0, sessions.standing("h-1"))
            .await
            .unwrap();
        let mut fetch = std::pin::pin!(fetch);
        assert_eq!(fetch.next().await.unwrap().unwrap().offset, 0);
        // Longer than anybody is waited for.
        tokio::time::sleep(2 * PATIENCE).await;
        let rest: Vec<_> = fetch.collect().await;
        assert!(rest.len() < 63, "all of it was sent");
        let size = 64 * CHUNK as u64;
        assert!(rest.iter().all(|chunk| chunk.as_ref().unwrap().offset < size));
    }

    #[tokio::test]
    async fn a_host_fetches_a_few_images_at_a_time() {
        let ((_dir, repository), sessions) = (image().await, Sessions::default());
        let fetch = async |host: &str| stream(&repository, &source(), 0, sessions.standing(host)).await;
        let mut held = Vec::new();
        for _ in 0..FETCHES {
            held.push(Box::pin(fetch("h-1").await.unwrap()));
        }
        let refused = fetch("h-1").await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(fetch("h-2").await.is_ok(), "hosts are counted apart");
        held.pop();
        assert!(fetch("h-1").await.is_ok());
        let whole: Vec<_> = held.remove(0).collect().await;
        assert_eq!(whole.len(), 64 + 1, "and the end");
        assert!(whole.iter().all(Result::is_ok));
    }
}
