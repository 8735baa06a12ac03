//! Streams a disk image's bytes, leaving out what is zero.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use hearth_api::agent::ImageChunk;
use hearth_image::{Extents, is_zero};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::sessions::{FETCHES, Standing};

/// Bytes per message: far below gRPC's 4 MiB, and enough to make messages cheap.
const CHUNK: u64 = 1 << 20;
/// Messages that wait for a slow receiver.
const AHEAD: usize = 4;
/// How long a receiver may take for one of them.
const PATIENCE: Duration = Duration::from_secs(120);

type Chunk = Result<ImageChunk, Status>;

/// The stream holds one of the host's fetches until it is dropped, and breaks off when the host is evicted.
pub(super) async fn stream(
    path: PathBuf,
    standing: Arc<Standing>,
) -> Result<impl Stream<Item = Chunk> + Send + 'static, Status> {
    let permit = standing.fetch().ok_or_else(|| {
        Status::resource_exhausted(format!(
            "a host fetches at most {FETCHES} images at the same time"
        ))
    })?;
    let failed = |error: io::Error| {
        tracing::error!(%error, "opening an image's disk");
        Status::internal("the image's disk cannot be read; the control plane's log says why")
    };
    let opened = tokio::task::spawn_blocking(move || File::open(path)).await;
    let file = opened
        .map_err(io::Error::other)
        .and_then(|file| file)
        .map_err(failed)?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let give = |chunk: Chunk| {
            let given = runtime.block_on(tokio::time::timeout(PATIENCE, sender.send(chunk)));
            matches!(given, Ok(Ok(())))
        };
        if let Err(error) = send(&file, give) {
            tracing::error!(%error, "reading an image's disk");
            give(Err(Status::data_loss("the image's disk cannot be read")));
        }
    });
    let ending = Arc::clone(&standing);
    let evicted =
        futures::stream::once(async move { ending.reason() }).filter_map(async |reason| reason.map(Err));
    let chunks = ReceiverStream::new(receiver).map(move |chunk| {
        let _held = &permit;
        chunk
    });
    Ok(chunks
        .take_until(async move { standing.evicted().await })
        .chain(evicted))
}

/// `give` answers whether the receiver is still there. Holes are not read.
fn send(file: &File, give: impl Fn(Chunk) -> bool) -> io::Result<()> {
    let size = file.metadata()?.len();
    for extent in Extents::of(file, size) {
        let extent = extent?;
        let mut offset = extent.start;
        while offset < extent.end {
            // Up to the next multiple of CHUNK, so that zeros are found as whole blocks of the disk.
            let length = (CHUNK - offset % CHUNK).min(extent.end - offset);
            let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact_at(&mut data, offset)?;
            let zero = is_zero(&data);
            let chunk = ImageChunk {
                offset,
                data: data.into(),
            };
            if !zero && !give(Ok(chunk)) {
                return Ok(());
            }
            offset += length;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sessions::Sessions;
    use super::*;

    fn image() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![1; 32 << 20]).unwrap();
        file
    }

    /// Reading a TiB of zeros takes minutes.
    #[tokio::test]
    async fn holes_are_not_read() {
        let (file, sessions) = (tempfile::NamedTempFile::new().unwrap(), Sessions::default());
        let size = 1 << 40;
        file.as_file().set_len(size).unwrap();
        for (at, data) in [(0, "begin"), (size - 3, "end")] {
            file.as_file().write_all_at(data.as_bytes(), at).unwrap();
        }
        let fetch = stream(file.path().into(), sessions.standing("h-1"))
            .await
            .unwrap();
        let chunks = tokio::time::timeout(Duration::from_secs(20), fetch.collect::<Vec<_>>())
            .await
            .unwrap();
        let chunks: Vec<_> = chunks.into_iter().map(|chunk| chunk.unwrap()).collect();
        assert!(chunks[0].data.starts_with(b"begin"));
        let last = chunks.last().unwrap();
        assert!(last.data.ends_with(b"end"));
        assert_eq!(last.offset + last.data.len() as u64, size);
        assert!(chunks.len() <= 2, "{}", chunks.len());
    }

    #[tokio::test]
    async fn an_eviction_breaks_fetches_off() {
        let (file, sessions) = (image(), Sessions::default());
        let fetch = stream(file.path().into(), sessions.standing("h-1"))
            .await
            .unwrap();
        let mut fetch = std::pin::pin!(fetch);
        assert_eq!(fetch.next().await.unwrap().unwrap().offset, 0);
        sessions.evict("h-1", Status::permission_denied("host h-1 was forgotten"));
        let rest = tokio::time::timeout(Duration::from_secs(10), fetch.collect::<Vec<_>>())
            .await
            .unwrap();
        assert!(rest.len() < 31, "all of it was sent");
        let last = rest.last().unwrap().as_ref().unwrap_err();
        assert_eq!(last.code(), tonic::Code::PermissionDenied);
    }

    #[tokio::test]
    async fn a_host_fetches_a_few_images_at_a_time() {
        let (file, sessions) = (image(), Sessions::default());
        let fetch = async |host: &str| stream(file.path().into(), sessions.standing(host)).await;
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
        assert_eq!(whole.len(), 32);
        assert!(whole.iter().all(Result::is_ok));
    }
}
