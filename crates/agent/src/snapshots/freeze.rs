//! Freezing and thawing volumes: by the monitors that serve them, and by the agent itself where none does.

use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use hearth_api::agent::SnapshotIntent;
use hearth_vmm::control::{FreezeSpec, Reply, Request};

use super::blocking;
use crate::instance::Context;
use crate::monitor::{MonitorError, MonitorHandle};
use crate::points::{Tracked, is_move_id};
use crate::record::Phase;
use crate::store::StoreError;
use crate::volume::{self, VolumeError};

#[derive(Debug, thiserror::Error)]
pub(super) enum FreezeError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("freezing the volume by the monitor of {instance_id}")]
    Monitor {
        instance_id: String,
        source: MonitorError,
    },
    #[error("volume {volume_id} is in use, and no monitor on this host serves it")]
    Unserved { volume_id: String },
    #[error("the volumes of the set are in use by several instances, {one} and {other}")]
    Apart { one: String, other: String },
}

impl FreezeError {
    /// Whether it may be otherwise in a moment.
    pub(super) fn may_pass(&self) -> bool {
        !matches!(self, Self::Apart { .. })
    }

    /// Whether a request was sent, and it is not known what came of it.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(
            self,
            Self::Monitor {
                source: MonitorError::NoAnswer | MonitorError::Connect { .. },
                ..
            }
        )
    }
}

/// Room in a file of frozen contents beside the contents, at least.
const BESIDES: u64 = 64 << 20;

/// Freezes the volumes at one moment; answers how long their instance was paused.
pub(super) async fn freeze(context: &Context, set: &[SnapshotIntent]) -> Result<Duration, FreezeError> {
    let (mut idle, mut served) = (Vec::new(), Vec::new());
    let mut monitor: Option<(String, MonitorHandle)> = None;
    for intent in set {
        match lock(context, &intent.volume_id).await? {
            Some(lock) => idle.push((intent, lock)),
            // One that leaves this host is not written to meanwhile, whoever has it open.
            None if is_move_id(&intent.snapshot_id) => {
                let volume_id = intent.volume_id.clone();
                return Err(VolumeError::InUse { volume_id }.into());
            }
            None => {
                let (instance_id, found) = serving(context, &intent.volume_id).await?;
                match &monitor {
                    Some((one, _)) if *one != instance_id => {
                        return Err(FreezeError::Apart {
                            one: one.clone(),
                            other: instance_id,
                        });
                    }
                    Some(_) => {}
                    None => monitor = Some((instance_id, found)),
                }
                served.push(intent);
            }
        }
    }
    let mut paused = Duration::ZERO;
    if let Some((instance_id, monitor)) = monitor {
        paused = by_monitor(context, &served, instance_id, &monitor).await?;
    }
    for (intent, lock) in idle {
        let (dir, boot, intent) = (context.dir.clone(), context.boot.clone(), intent.clone());
        blocking(move || {
            let tracked = Tracked::new(&dir, &intent.volume_id, &boot);
            tracked.prepare(&intent.snapshot_id)?;
            let frozen = tracked.freeze(&intent.snapshot_id);
            drop(lock);
            frozen
        })
        .await?;
    }
    Ok(paused)
}

async fn by_monitor(
    context: &Context,
    served: &[&SnapshotIntent],
    instance_id: String,
    monitor: &MonitorHandle,
) -> Result<Duration, FreezeError> {
    let failed = |source| FreezeError::Monitor {
        instance_id: instance_id.clone(),
        source,
    };
    let (mut specs, mut descriptors) = (Vec::new(), Vec::new());
    let mut largest = 0;
    for intent in served {
        let (dir, boot, wanted) = (context.dir.clone(), context.boot.clone(), (*intent).clone());
        let (bytes, files) = blocking(move || {
            let data = volume::open_file(&dir.volume(&wanted.volume_id).join("data"), false)?;
            let bytes = data.metadata().map_or(0, |data| data.len());
            let files = Tracked::new(&dir, &wanted.volume_id, &boot).prepare(&wanted.snapshot_id)?;
            Ok::<_, VolumeError>((bytes, files))
        })
        .await?;
        largest = largest.max(bytes);
        let mut give = |file: File| {
            descriptors.push(OwnedFd::from(file));
            descriptors.len() as RawFd - 1
        };
        specs.push(FreezeSpec {
            device: intent.volume_id.clone(),
            name: intent.snapshot_id.clone(),
            frozen: give(files.0),
            dirty: give(files.1),
        });
    }
    crate::fault::point("snapshot-prepared");
    if let Some(jail) = &context.jail {
        // The copies lie behind the chunk map and a mark for each chunk.
        let bytes = largest.saturating_add(largest / 4096).saturating_add(BESIDES);
        jail.allow_file_size(monitor, bytes).map_err(failed)?;
    }
    match monitor.ask_with(Request::Freeze(specs), descriptors).await {
        Ok(Reply::Frozen { paused_micros }) => Ok(Duration::from_micros(paused_micros)),
        Ok(_) => Err(failed(MonitorError::NoAnswer)),
        Err(error) => Err(failed(error)),
    }
}

/// Has the volume's monitor, if there is one, keep nothing of a point in time any more.
pub(super) async fn thaw(context: &Context, volume_id: &str, snapshot_id: &str) -> Result<(), FreezeError> {
    // The next monitor is not told of it.
    if !context.dir.volume(volume_id).exists() || lock(context, volume_id).await?.is_some() {
        return Ok(());
    }
    let (instance_id, monitor) = serving(context, volume_id).await?;
    let request = Request::Thaw {
        device: volume_id.to_owned(),
        name: snapshot_id.to_owned(),
    };
    let asked = monitor.ask(request).await;
    asked
        .map(drop)
        .map_err(|source| FreezeError::Monitor { instance_id, source })
}

/// The lock of a volume; `None`: a process has the volume open.
async fn lock(context: &Context, volume_id: &str) -> Result<Option<File>, VolumeError> {
    let (dir, volume_id) = (context.dir.clone(), volume_id.to_owned());
    match blocking(move || volume::lock(&dir, &volume_id)).await {
        Ok(lock) => Ok(Some(lock)),
        Err(VolumeError::InUse { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The monitor of the instance that has the volume, as the records have it.
async fn serving(context: &Context, volume_id: &str) -> Result<(String, MonitorHandle), FreezeError> {
    let store = context.store.clone();
    let records = blocking(move || store.records()).await?;
    for record in records.readable {
        let lives = matches!(record.phase, Phase::Starting | Phase::Entered);
        if !lives || record.volume_id != volume_id && !record.volumes.contains(volume_id) {
            continue;
        }
        let launch = context.dir.launch(&record.instance_id, record.launch);
        let instance_id = record.instance_id;
        match MonitorHandle::find(&launch).await {
            Ok(Some(monitor)) => return Ok((instance_id, monitor)),
            Ok(None) => {}
            Err(source) => return Err(FreezeError::Monitor { instance_id, source }),
        }
    }
    Err(FreezeError::Unserved {
        volume_id: volume_id.to_owned(),
    })
}
