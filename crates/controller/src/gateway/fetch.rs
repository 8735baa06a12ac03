//! Streams a disk image's bytes out of the repository, leaving out what is zero.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use hearth_api::agent::ImageChunk;
use hearth_log::chain;
use hearth_repository::{CHUNK, Error, Reader, Repository};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::sessions::{FETCHES, Standing};

/// Messages that wait for a slow receiver, and chunks that are read at the same time.
const AHEAD: usize = 4;
/// How long a receiver may take for one of them.
const PATIENCE: Duration = Duration::from_secs(120);

type Chunk = Result<ImageChunk, Status>;

/// The stream holds one of the host's fetches until it is dropped, and breaks off when the host is evicted.
pub(super) async fn stream(
    repository: &Repository,
    snapshot: &str,
    standing: Arc<Standing>,
) -> Result<impl Stream<Item = Chunk> + Send + 'static, Status> {
    let permit = standing.fetch().ok_or_else(|| {
        Status::resource_exhausted(format!(
            "a host fetches at most {FETCHES} images at the same time"
        ))
    })?;
    let reader = repository.read(snapshot).await.map_err(|error| {
        tracing::error!(error = %chain(&error), snapshot, "opening an image's disk");
        Status::internal("the image's disk cannot be read; the control plane's log says why")
    })?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let repository = repository.clone();
    tokio::spawn(async move {
        let give = async |chunk: Chunk| {
            let given = tokio::time::timeout(PATIENCE, sender.send(chunk)).await;
            matches!(given, Ok(Ok(())))
        };
        let mut chunks = std::pin::pin!(chunks(&repository, &reader));
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| {
                tracing::error!(error = %chain(&error), "reading an image's disk");
                Status::data_loss("the image's disk cannot be read; the control plane's log says why")
            });
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

/// In the order of their offsets.
fn chunks<'a>(
    repository: &'a Repository,
    reader: &'a Reader,
) -> impl Stream<Item = Result<ImageChunk, Error>> + 'a {
    let size = reader.snapshot().size;
    let present = stream::try_unfold(0, async |index| {
        let found = reader.next(index).await?;
        Ok(found.map(|(index, id)| ((index, id), index + 1)))
    });
    present
        .map_ok(move |(index, id)| async move {
            let offset = index * CHUNK as u64;
            let mut data = repository.chunk(id).await?;
            data.truncate(usize::try_from(size - offset).unwrap_or(CHUNK));
            Ok(ImageChunk { offset, data })
        })
        .try_buffered(AHEAD)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::super::sessions::Sessions;
    use super::*;
    use crate::disks::{self, Source};

    const NAME: &str = "snap-1";

    async fn repository(fill: impl FnOnce(&std::fs::File), size: u64) -> (tempfile::TempDir, Repository) {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::in_directory(dir.path()).unwrap();
        let file = tempfile::tempfile().unwrap();
        fill(&file);
        file.set_len(size).unwrap();
        disks::store(&repository, NAME, file, size, Source::IsUsedUp)
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
        let fetch = stream(&repository, NAME, sessions.standing("h-1")).await.unwrap();
        let chunks = tokio::time::timeout(Duration::from_secs(20), fetch.collect::<Vec<_>>())
            .await
            .unwrap();
        let chunks: Vec<_> = chunks.into_iter().map(|chunk| chunk.unwrap()).collect();
        assert!(chunks[0].data.starts_with(b"begin"));
        let last = chunks.last().unwrap();
        assert!(last.data.ends_with(b"end"));
        assert_eq!(last.offset + last.data.len() as u64, size);
        assert!(chunks.len() <= 3, "{}", chunks.len());
    }

    #[tokio::test]
    async fn an_eviction_breaks_fetches_off() {
        let ((_dir, repository), sessions) = (image().await, Sessions::default());
        let fetch = stream(&repository, NAME, sessions.standing("h-1")).await.unwrap();
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

    #[tokio::test]
    async fn a_host_fetches_a_few_images_at_a_time() {
        let ((_dir, repository), sessions) = (image().await, Sessions::default());
        let fetch = async |host: &str| stream(&repository, NAME, sessions.standing(host)).await;
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
        assert_eq!(whole.len(), 64);
        assert!(whole.iter().all(Result::is_ok));
    }
}
