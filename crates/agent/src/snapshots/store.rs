//! Sending a snapshot: what has changed in its volume, chunk by chunk, to the control plane.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hearth_api::agent::snapshot_part::Part;
use hearth_api::agent::{SnapshotBegin, SnapshotChunk, SnapshotPart};
use hearth_block::Base;
use hearth_block::overlay::frozen::{ReadBase, ReadError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::blocking;
use crate::disk_keys::{self, KeyError};
use crate::images::{ImageError, Images};
use crate::link::Link;
use crate::paths::DataDir;
use crate::points::{Changes, Tracked};
use crate::volume::{self, VolumeError};

/// Parts that are read and not sent.
const IN_FLIGHT: usize = 4;
/// A control plane that takes no part for so long is dialled anew.
const SEND_PATIENCE: Duration = Duration::from_secs(60);
/// For making durable what was sent.
const ANSWER_PATIENCE: Duration = Duration::from_secs(600);

/// Why a snapshot cannot be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the control plane does not take it: {}", .0.message())]
    Refused(Box<tonic::Status>),
}

/// How an attempt ended that is not over.
enum Ended {
    /// What it is told as changes of is not there any more.
    WithoutBase,
    /// The connection broke, or nobody took what was sent.
    Broken(Box<tonic::Status>),
    Failed(StoreError),
}

pub(super) struct Sender {
    pub(super) dir: DataDir,
    pub(super) boot: String,
    pub(super) images: Images,
    pub(super) link: Link,
    pub(super) volume_id: String,
    pub(super) snapshot_id: String,
}

impl Sender {
    /// Sends until the control plane has it, or does not want it. Waits out the control plane's absence.
    ///
    /// # Errors
    /// What trying again would not mend.
    pub(super) async fn send(self) -> Result<(), StoreError> {
        let mut changes = Arc::new(self.changes().await?);
        let mut delays = delays();
        loop {
            match self.attempt(&changes).await {
                Ok(()) => return Ok(()),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::WithoutBase) => {
                    tracing::warn!(
                        snapshot = self.snapshot_id,
                        base = changes.base_id,
                        "the control plane does not have its base any more: sending all of the volume"
                    );
                    changes = Arc::new(self.changes().await?.whole());
                }
                Err(Ended::Broken(status)) => {
                    tracing::warn!(snapshot = self.snapshot_id, %status, "sending was cut short; trying again");
                    tokio::time::sleep(delays.next().unwrap_or(SEND_PATIENCE)).await;
                }
            }
        }
    }

    async fn changes(&self) -> Result<Changes, StoreError> {
        let (dir, boot) = (self.dir.clone(), self.boot.clone());
        let (volume_id, snapshot_id) = (self.volume_id.clone(), self.snapshot_id.clone());
        let (images, runtime) = (self.images.clone(), Handle::current());
        let home = dir.volume(&volume_id);
        let (image_id, is_encrypted) =
            blocking(move || volume::image(&home).map(|image_id| (image_id, volume::is_encrypted(&home))))
                .await?;
        let cipher = match is_encrypted {
            true => Some(disk_keys::fetch_cipher(&self.link, &volume_id).await?),
            false => None,
        };
        let base_cipher = match image_id.is_empty() {
            true => None,
            false => images.cipher(&image_id).await?,
        };
        blocking(move || {
            let base = match image_id.as_str() {
                "" => None,
                image_id => Some(reading(images.reader(image_id, base_cipher, &runtime)?)),
            };
            let changes = Tracked::new(&dir, &volume_id, &boot).changes(&snapshot_id, base)?;
            Ok(match cipher {
                Some(cipher) => changes.encrypted(cipher),
                None => changes,
            })
        })
        .await
    }

    /// One stream, from the beginning.
    async fn attempt(&self, changes: &Arc<Changes>) -> Result<(), Ended> {
        let mut client = self.link.client().await;
        let (parts, outbox) = mpsc::channel(IN_FLIGHT);
        let answer = client.store_snapshot(ReceiverStream::new(outbox));
        let mut answer = std::pin::pin!(answer);
        // A stream that ends early is cut off, and does not look like one that is complete: what is not read ends the call
        // before the sender is dropped.
        let fed = tokio::select! {
            answered = &mut answer => return self.judge(changes, answered.map(drop)),
            fed = self.feed(changes, &parts) => fed,
        };
        fed?;
        drop(parts);
        crate::fault::point("snapshot-sent");
        match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
            Ok(answered) => self.judge(changes, answered.map(drop)),
            Err(_) => Err(broken("the control plane does not answer")),
        }
    }

    async fn feed(&self, changes: &Arc<Changes>, parts: &mpsc::Sender<SnapshotPart>) -> Result<(), Ended> {
        let begin = Part::Begin(SnapshotBegin {
            snapshot_id: self.snapshot_id.clone(),
            size_bytes: changes.disk.size(),
            base_id: changes.base_id.clone(),
            chunks: changes.units.len() as u64,
        });
        put(parts, begin).await?;
        for nth in 0..changes.units.len() {
            let read = Arc::clone(changes);
            let chunk = blocking(move || {
                let index = read.units[nth];
                let data = read.disk.read_unit(index)?;
                let is_zero = data.iter().all(|&byte| byte == 0);
                let data = if is_zero { Vec::new() } else { data };
                Ok::<_, ReadError>(SnapshotChunk { index, data })
            })
            .await
            .map_err(|error| Ended::Failed(error.into()))?;
            put(parts, Part::Chunk(chunk)).await?;
        }
        Ok(())
    }

    fn judge(&self, changes: &Changes, answered: Result<(), tonic::Status>) -> Result<(), Ended> {
        let status = match answered {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        match status.code() {
            Code::FailedPrecondition if !changes.base_id.is_empty() => Err(Ended::WithoutBase),
            Code::NotFound
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::FailedPrecondition
            | Code::OutOfRange => Err(Ended::Failed(StoreError::Refused(Box::new(status)))),
            _ => Err(Ended::Broken(Box::new(status))),
        }
    }
}

fn reading(base: Base) -> ReadBase {
    Box::new(move |buf, offset| base.read_exact_at(buf, offset))
}

async fn put(parts: &mpsc::Sender<SnapshotPart>, part: Part) -> Result<(), Ended> {
    let part = SnapshotPart { part: Some(part) };
    match tokio::time::timeout(SEND_PATIENCE, parts.send(part)).await {
        Ok(Ok(())) => Ok(()),
        // The call has ended, and says why.
        Ok(Err(_)) => std::future::pending().await,
        Err(_) => Err(broken("the control plane takes nothing")),
    }
}

fn broken(why: &str) -> Ended {
    Ended::Broken(Box::new(tonic::Status::unavailable(why)))
}

fn delays() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(15))
        .without_max_times()
        .build()
}
