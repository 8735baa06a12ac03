//! The AMIs' disks on this host: fetched once, verified, then read-only bases of many volumes.
//!
//! An image that has its name is whole: it is written under another name, checked against its digest
//! ([`hearth_image::disk_digest`]), synced and renamed. Images that no volume uses any more stay as a cache ([`cache`]).

mod cache;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use hearth_api::agent::{FetchImageRequest, ImageChunk};
use tokio::sync::mpsc;
use tonic::Code;

use self::cache::Cache;
pub use self::cache::Pin;
use crate::link::Link;
use crate::paths::DataDir;
use crate::volume::{VolumeError, sync_dir};

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("fetching {image_id} from the control plane: {}", status.message())]
    Refused {
        image_id: String,
        status: Box<tonic::Status>,
    },
    #[error("storing {image_id}: the host's disk is full")]
    DiskFull { image_id: String },
    #[error("storing {image_id}: {doing}")]
    Io {
        image_id: String,
        doing: &'static str,
        source: io::Error,
    },
    #[error("storing {image_id}")]
    Sync { image_id: String, source: VolumeError },
    #[error("{image_id} is not what it should be: its digest is {found}, not {expected}")]
    Digest {
        image_id: String,
        expected: String,
        found: String,
    },
    #[error("{image_id} has a chunk at byte {offset} beyond its size of {size} bytes")]
    BeyondEnd {
        image_id: String,
        offset: u64,
        size: u64,
    },
    #[error("the worker that fetched {image_id} ended")]
    Worker { image_id: String },
}

/// What an image is known by.
#[derive(Debug, Clone)]
pub struct ImageName {
    pub image_id: String,
    /// Bytes.
    pub size: u64,
    /// As [`hearth_image::disk_digest`] makes it.
    pub digest: String,
}

type Flight = Shared<BoxFuture<'static, Result<(), Arc<ImageError>>>>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Images {
    dir: DataDir,
    link: Link,
    flights: Arc<Mutex<HashMap<String, Flight>>>,
    cache: Arc<Cache>,
}

impl Images {
    /// `cache_share`: percent of the file system that images without a use may take.
    pub fn new(dir: DataDir, link: Link, cache_share: u8) -> Images {
        Images {
            cache: Arc::new(Cache::new(dir.clone(), cache_share)),
            dir,
            link,
            flights: Arc::default(),
        }
    }

    /// Makes the image present, where it stays as long as the answer is kept. Many may ask at once, one fetches; it goes
    /// on when an asker walks away, and waits out the control plane's absence.
    ///
    /// # Errors
    /// What trying again would not mend: no such image, wrong bytes, a full disk.
    pub async fn ensure(&self, name: ImageName) -> Result<Pin, Arc<ImageError>> {
        let pin = self.cache.pin(&name.image_id);
        if tokio::fs::try_exists(self.dir.image_disk(&name.image_id))
            .await
            .unwrap_or(false)
        {
            self.cache.touch(&name.image_id);
            return Ok(pin);
        }
        let image_id = name.image_id.clone();
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            flights
                .entry(image_id.clone())
                .or_insert_with(|| self.take_off(name))
                .clone()
        };
        let result = flight.clone().await;
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(&image_id).is_some_and(|f| f.ptr_eq(&flight)) {
            flights.remove(&image_id);
        }
        result.map(|()| pin)
    }

    /// Removes images that are too many. To be called when a volume is gone.
    pub async fn trim(&self) {
        self.make_room(0).await;
    }

    /// Removes images for `wanted` more bytes. What cannot be removed stays and is told: nobody waits for it.
    async fn make_room(&self, wanted: u64) {
        let cache = Arc::clone(&self.cache);
        match tokio::task::spawn_blocking(move || cache.trim(wanted)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "removing unused images"),
            Err(error) => tracing::warn!(%error, "removing unused images"),
        }
    }

    fn take_off(&self, name: ImageName) -> Flight {
        let (images, wanted) = (self.clone(), name.clone());
        let task = tokio::spawn(async move {
            images.make_room(wanted.size).await;
            fetch(images.dir, images.link, wanted).await
        });
        async move {
            task.await
                .unwrap_or(Err(ImageError::Worker {
                    image_id: name.image_id,
                }))
                .map_err(Arc::new)
        }
        .boxed()
        .shared()
    }
}

async fn fetch(dir: DataDir, link: Link, name: ImageName) -> Result<(), ImageError> {
    // An earlier flight may have landed between the asker's look and this one.
    if dir.image_disk(&name.image_id).exists() {
        return Ok(());
    }
    let delays = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(15))
        .without_max_times()
        .build();
    for delay in delays {
        match fetch_once(&dir, &link, &name).await {
            Err(ImageError::Refused { status, .. }) if may_pass(status.code()) => {
                tracing::warn!(image = name.image_id, %status, "fetching an image was cut short; trying again");
            }
            result => return result,
        }
        tokio::time::sleep(delay).await;
    }
    Err(ImageError::Worker {
        image_id: name.image_id,
    })
}

/// Whether the same request may succeed later.
fn may_pass(code: Code) -> bool {
    !matches!(
        code,
        Code::NotFound
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::DataLoss
    )
}

async fn fetch_once(dir: &DataDir, link: &Link, name: &ImageName) -> Result<(), ImageError> {
    let refused = |status: tonic::Status| ImageError::Refused {
        image_id: name.image_id.clone(),
        status: Box::new(status),
    };
    let mut client = link.client().await;
    let mut chunks = client
        .fetch_image(FetchImageRequest {
            image_id: name.image_id.clone(),
        })
        .await
        .map_err(refused)?
        .into_inner();

    let (sender, receiver) = mpsc::channel::<Delivery>(8);
    let writer = tokio::task::spawn_blocking({
        let (dir, name) = (dir.clone(), name.clone());
        move || store(&dir, &name, receiver)
    });
    let mut broken = None;
    loop {
        let delivery = match chunks.message().await {
            Ok(Some(chunk)) => Delivery::Chunk(chunk),
            Ok(None) => Delivery::Complete,
            Err(status) => {
                broken = Some(status);
                break;
            }
        };
        let last = matches!(delivery, Delivery::Complete);
        // A writer that has failed hangs up; its reason comes below.
        if sender.send(delivery).await.is_err() || last {
            break;
        }
    }
    drop(sender);
    let stored = writer.await.unwrap_or_else(|_| {
        Err(ImageError::Worker {
            image_id: name.image_id.clone(),
        })
    });
    match broken {
        Some(status) => Err(refused(status)),
        None => stored,
    }
}

enum Delivery {
    Chunk(ImageChunk),
    /// The stream ended in order; without it, it broke.
    Complete,
}

/// Removes a half-made image on every way out but the good one.
struct HalfMade(PathBuf);

impl Drop for HalfMade {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn store(dir: &DataDir, name: &ImageName, mut chunks: mpsc::Receiver<Delivery>) -> Result<(), ImageError> {
    let failed = |doing: &'static str| {
        let image_id = name.image_id.clone();
        move |source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::DiskFull { image_id },
            _ => ImageError::Io {
                image_id,
                doing,
                source,
            },
        }
    };
    let synced = |source| ImageError::Sync {
        image_id: name.image_id.clone(),
        source,
    };
    let half_made = HalfMade(
        dir.images()
            .join(format!(".{}.{:016x}", name.image_id, rand::random::<u64>())),
    );
    std::fs::create_dir(&half_made.0).map_err(failed("making its directory"))?;
    let path = half_made.0.join("disk.raw");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(failed("creating its file"))?;
    // Holes stay holes: what is not sent is zeros.
    file.set_len(name.size).map_err(failed("setting its size"))?;
    loop {
        match chunks.blocking_recv() {
            Some(Delivery::Chunk(chunk)) => {
                let end = chunk.offset.checked_add(chunk.data.len() as u64);
                if end.is_none_or(|end| end > name.size) {
                    return Err(ImageError::BeyondEnd {
                        image_id: name.image_id.clone(),
                        offset: chunk.offset,
                        size: name.size,
                    });
                }
                file.write_all_at(&chunk.data, chunk.offset)
                    .map_err(failed("writing"))?;
            }
            Some(Delivery::Complete) => break,
            None => {
                return Err(ImageError::Worker {
                    image_id: name.image_id.clone(),
                });
            }
        }
    }
    let found = hearth_image::disk_digest(&file, name.size).map_err(failed("reading it back"))?;
    if !found.eq_ignore_ascii_case(&name.digest) {
        return Err(ImageError::Digest {
            image_id: name.image_id.clone(),
            expected: name.digest.clone(),
            found,
        });
    }
    file.sync_all().map_err(failed("syncing"))?;
    sync_dir(&half_made.0).map_err(synced)?;
    let home = dir.images().join(&name.image_id);
    std::fs::rename(&half_made.0, &home).map_err(failed("giving it its name"))?;
    sync_dir(&dir.images()).map_err(synced)
}
