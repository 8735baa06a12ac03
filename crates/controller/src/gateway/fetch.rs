//! Streams a disk image's bytes, leaving out what is zero.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use hearth_api::agent::ImageChunk;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Bytes per message: far below gRPC's 4 MiB, and enough to make messages cheap.
const CHUNK: usize = 1 << 20;
/// Messages that wait for a slow receiver.
const AHEAD: usize = 4;

pub(super) async fn stream(path: PathBuf) -> Result<ReceiverStream<Result<ImageChunk, Status>>, Status> {
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
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send(file, &sender) {
            tracing::error!(%error, "reading an image's disk");
            let _ = sender.blocking_send(Err(Status::data_loss("the image's disk cannot be read")));
        }
    });
    Ok(ReceiverStream::new(receiver))
}

fn send(mut file: File, sender: &mpsc::Sender<Result<ImageChunk, Status>>) -> io::Result<()> {
    let mut offset = 0u64;
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut data)?;
        if read == 0 {
            return Ok(());
        }
        let zero = data.iter().all(|byte| *byte == 0);
        let chunk = ImageChunk {
            offset,
            data: data.into(),
        };
        if !zero && sender.blocking_send(Ok(chunk)).is_err() {
            // The agent went away.
            return Ok(());
        }
        offset += read as u64;
    }
}
