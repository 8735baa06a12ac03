//! The bases of this host's volumes: the disks of AMIs, made at once and filled as they are read.
//!
//! A base that is new on the host is two files, a sparse one and the map of what has come ([`hearth_block::base`]), and a
//! launch goes on with them. What a guest reads before it has come is fetched for it ([`serve`]); all else comes in the
//! background ([`coming`]). When all has come the map goes, and the base is a plain file. What comes is checked by the
//! control plane, which has it by its hash, and on its way by TLS: there is no digest of the whole, which nobody could wait
//! for.
//!
//! Bases that no volume uses any more stay as a cache ([`cache`]).

mod cache;
mod coming;
mod reader;
mod serve;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hearth_block::Cipher;
use hearth_block::base::Filling;
use hearth_block::overlay::{CreateError, OpenError};
use tokio::sync::{Mutex, Semaphore, watch};

use self::cache::Cache;
pub use self::cache::Pin;
use self::coming::Coming;
pub use self::serve::SOCKET;
use crate::chain;
use crate::disk_keys::{self, KeyError};
use crate::link::Link;
use crate::paths::{DataDir, is_plain_id};
use crate::volume::{self, Bases, VolumeError, sync_dir};

/// Chunks that guests wait for and that are fetched at the same time, of all bases. `hearthd` allows a host twice as many.
const DEMANDS: usize = 8;
/// Bases that come in the background at the same time, as many as `hearthd` allows a host.
const STREAMS: usize = 4;
/// Bytes that unused bases make room for, whenever what comes may have none. How much a base takes in the end is not known
/// before it is there: it may be sparse.
const ROOM: u64 = 64 << 20;

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
    #[error("making {image_id}")]
    Create { image_id: String, source: CreateError },
    #[error("opening {image_id}, of which a part is there")]
    Open { image_id: String, source: OpenError },
    #[error("reading {image_id}")]
    Read { image_id: String, source: VolumeError },
    #[error("storing {image_id}")]
    Sync { image_id: String, source: VolumeError },
    #[error("the control plane tells {bytes} bytes of {image_id} at byte {offset}, which is no chunk of it")]
    Malformed {
        image_id: String,
        offset: u64,
        bytes: usize,
    },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(
        "{image_id} lies {} on this host, and the control plane says that it is {}",
        if *encrypted { "encrypted" } else { "plain" },
        if *encrypted { "plain" } else { "encrypted" }
    )]
    Encryption {
        image_id: String,
        /// On this host.
        encrypted: bool,
    },
    #[error("{image_id} lies encrypted, and its key was not asked for")]
    Keyless { image_id: String },
    #[error("{image_id} is not on this host")]
    Absent { image_id: String },
    #[error("the worker that fetched {image_id} ended")]
    Worker { image_id: String },
}

impl ImageError {
    fn io(image_id: &str, doing: &'static str, source: io::Error) -> ImageError {
        let image_id = image_id.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::DiskFull { image_id },
            _ => ImageError::Io {
                image_id,
                doing,
                source,
            },
        }
    }
}

/// What a base is known by.
#[derive(Debug, Clone)]
pub struct ImageName {
    pub image_id: String,
    /// Bytes.
    pub size: u64,
    /// It lies encrypted on hosts.
    pub encrypted: bool,
}

/// Why bases that guests may be waiting for do not come, by their ids.
pub type Troubles = BTreeMap<String, String>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Images {
    dir: DataDir,
    link: Link,
    cache: Arc<Cache>,
    /// Held while one is made.
    making: Arc<Mutex<()>>,
    /// Those that are there in part and were asked for. Held while one is opened.
    coming: Arc<Mutex<HashMap<String, Arc<Coming>>>>,
    demands: Demands,
    streams: Arc<Semaphore>,
    troubles: Arc<watch::Sender<Troubles>>,
}

/// What guests wait for comes before what nobody waits for.
#[derive(Clone)]
struct Demands {
    permits: Arc<Semaphore>,
    /// How many are being fetched.
    count: Arc<watch::Sender<usize>>,
}

impl Images {
    /// `cache_share`: percent of the file system that images without a use may take.
    pub fn new(dir: DataDir, link: Link, cache_share: u8) -> Images {
        Images {
            cache: Arc::new(Cache::new(dir.clone(), cache_share)),
            dir,
            link,
            making: Arc::default(),
            coming: Arc::default(),
            demands: Demands {
                permits: Arc::new(Semaphore::new(DEMANDS)),
                count: Arc::default(),
            },
            streams: Arc::new(Semaphore::new(STREAMS)),
            troubles: Arc::default(),
        }
    }

    /// Makes the base present, whole or in part, where it stays as long as the answer is kept. What is missing comes from
    /// now on.
    ///
    /// # Errors
    /// Its files cannot be made or opened.
    pub async fn ensure(&self, name: ImageName) -> Result<Pin, ImageError> {
        let pin = self.cache.pin(&name.image_id);
        let is_here = || self.dir.images().join(&name.image_id).exists();
        if !is_here() {
            self.make_room(ROOM).await;
        }
        let making = self.making.lock().await;
        if is_here() {
            let encrypted = self.is_encrypted(&name.image_id);
            if encrypted != name.encrypted {
                let image_id = name.image_id;
                return Err(ImageError::Encryption { image_id, encrypted });
            }
            self.cache.touch(&name.image_id);
        } else {
            let (dir, name) = (self.dir.clone(), name.clone());
            blocking(&name.image_id.clone(), move || lay(&dir, &name)).await?;
        }
        drop(making);
        if let Some(base) = self.open(&name.image_id).await? {
            base.hydrate();
        }
        Ok(pin)
    }

    /// Waits until a chunk of a base of this host has come.
    ///
    /// # Errors
    /// What trying again would not mend: no such base or chunk, or the control plane does not tell it.
    async fn demand(&self, image_id: &str, chunk: u64) -> Result<(), Arc<ImageError>> {
        match self.open(image_id).await.map_err(Arc::new)? {
            Some(base) => {
                base.hydrate();
                base.demand(chunk).await
            }
            None => Ok(()),
        }
    }

    fn is_encrypted(&self, image_id: &str) -> bool {
        volume::is_encrypted(&self.dir.images().join(image_id))
    }

    /// The cipher of a base of this host; `None`: it lies plain.
    ///
    /// # Errors
    /// The control plane does not give the key.
    pub async fn cipher(&self, image_id: &str) -> Result<Option<Arc<Cipher>>, KeyError> {
        match self.is_encrypted(image_id) {
            true => disk_keys::fetch_cipher(&self.link, image_id).await.map(Some),
            false => Ok(None),
        }
    }

    /// A base that is there in part; `None`: it is whole.
    async fn open(&self, image_id: &str) -> Result<Option<Arc<Coming>>, ImageError> {
        let known = |coming: &HashMap<String, Arc<Coming>>| {
            coming.get(image_id).filter(|base| !base.is_over()).cloned()
        };
        if let Some(base) = known(&*self.coming.lock().await) {
            return Ok(Some(base));
        }
        // Whoever waits for a key lets others open theirs.
        let cipher = match is_plain_id(image_id) && self.dir.image_part(image_id).exists() {
            true => self.cipher(image_id).await?,
            false => None,
        };
        let mut coming = self.coming.lock().await;
        if let Some(base) = known(&coming) {
            return Ok(Some(base));
        }
        if !is_plain_id(image_id) || !self.dir.images().join(image_id).exists() {
            let image_id = image_id.to_owned();
            return Err(ImageError::Absent { image_id });
        }
        let (dir, id) = (self.dir.clone(), image_id.to_owned());
        let Some(filling) = blocking(image_id, move || open(&dir, &id, cipher)).await? else {
            return Ok(None);
        };
        let base = Coming::new(self, image_id, filling);
        coming.insert(image_id.to_owned(), Arc::clone(&base));
        Ok(Some(base))
    }

    /// Goes on with what an earlier agent has begun, where a volume needs it.
    pub async fn resume(&self) {
        let dir = self.dir.clone();
        let bases = tokio::task::spawn_blocking(move || volume::bases(&dir)).await;
        let Ok(Ok(Bases::Known(bases))) = bases else {
            return;
        };
        for image_id in bases {
            let images = self.clone();
            tokio::spawn(async move {
                match images.open(&image_id).await {
                    Ok(Some(base)) => base.hydrate(),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(image = image_id, error = chain(&error), "going on with a base");
                    }
                }
            });
        }
    }

    /// Changes when what it tells does.
    pub fn troubles(&self) -> watch::Receiver<Troubles> {
        self.troubles.subscribe()
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
        // What is removed is not filled any more.
        self.coming.lock().await.retain(|image_id, base| {
            let stays = self.dir.images().join(image_id).exists();
            if !stays {
                base.abandon();
            }
            stays
        });
    }
}

async fn blocking<T: Send + 'static>(
    image_id: &str,
    run: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(run).await;
    done.unwrap_or_else(|_| {
        Err(ImageError::Worker {
            image_id: image_id.to_owned(),
        })
    })
}

/// Removes a half-made image on every way out but the good one.
struct HalfMade(PathBuf);

impl Drop for HalfMade {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes a base of which nothing has come. It has its name when it is durable.
fn lay(dir: &DataDir, name: &ImageName) -> Result<(), ImageError> {
    let image_id = &name.image_id;
    let failed = |doing| move |source| ImageError::io(image_id, doing, source);
    let synced = |source| ImageError::Sync {
        image_id: image_id.clone(),
        source,
    };
    let half_made = HalfMade(
        dir.images()
            .join(format!(".{image_id}.{:016x}", rand::random::<u64>())),
    );
    std::fs::create_dir(&half_made.0).map_err(failed("making its directory"))?;
    let create = |name: &str| {
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        options
            .open(half_made.0.join(name))
            .map_err(failed("creating its files"))
    };
    let (disk, map) = (create("part.raw")?, create("map")?);
    Filling::create(&disk, &map, name.size).map_err(|source| match source {
        CreateError::Io { source, doing, .. } => ImageError::io(image_id, doing, source),
        source => ImageError::Create {
            image_id: image_id.clone(),
            source,
        },
    })?;
    volume::mark(&half_made.0, name.encrypted).map_err(synced)?;
    sync_dir(&half_made.0).map_err(synced)?;
    let home = dir.images().join(image_id);
    std::fs::rename(&half_made.0, &home).map_err(failed("giving it its name"))?;
    sync_dir(&dir.images()).map_err(synced)
}

/// Gives a base of which all is durable the name by which it is whole. Whoever has it open has its map too, which says so.
fn finish(dir: &DataDir, image_id: &str) -> Result<(), ImageError> {
    let failed = |doing| move |source| ImageError::io(image_id, doing, source);
    std::fs::rename(dir.image_part(image_id), dir.image_disk(image_id))
        .map_err(failed("giving it its name"))?;
    sync_dir(&dir.images().join(image_id)).map_err(|source| ImageError::Sync {
        image_id: image_id.to_owned(),
        source,
    })?;
    std::fs::remove_file(dir.image_map(image_id)).map_err(failed("removing its map"))
}

/// `None`: the base is whole. A map that is damaged is made anew, and all comes again.
fn open(dir: &DataDir, image_id: &str, cipher: Option<Arc<Cipher>>) -> Result<Option<Filling>, ImageError> {
    let failed = |doing| move |source| ImageError::io(image_id, doing, source);
    if dir.image_disk(image_id).exists() {
        // What an agent that was killed meanwhile has left.
        let _ = std::fs::remove_file(dir.image_map(image_id));
        return Ok(None);
    }
    let open = |path: PathBuf| File::options().read(true).write(true).open(path);
    let map = open(dir.image_map(image_id)).map_err(failed("opening its map"))?;
    let disk = open(dir.image_part(image_id)).map_err(failed("opening its file"))?;
    let size = disk.metadata().map_err(failed("asking for its size"))?.len();
    let again = || {
        let files = disk.try_clone().and_then(|disk| Ok((disk, map.try_clone()?)));
        let (disk, map) = files.map_err(failed("duplicating its descriptors"))?;
        Filling::open(disk, map, size).map_err(|source| ImageError::Open {
            image_id: image_id.to_owned(),
            source,
        })
    };
    let filling = match again() {
        Err(
            error @ ImageError::Open {
                source: OpenError::Magic | OpenError::Checksum { .. } | OpenError::Length { .. },
                ..
            },
        ) => {
            tracing::error!(
                image = image_id,
                error = chain(&error),
                "the map of a base is damaged: all of it is fetched anew"
            );
            map.set_len(0).map_err(failed("emptying its map"))?;
            Filling::create(&disk, &map, size).map_err(|source| ImageError::Create {
                image_id: image_id.to_owned(),
                source,
            })?;
            again()?
        }
        opened => opened?,
    };
    // Nothing of an encrypted base is written plain.
    match (volume::is_encrypted(&dir.images().join(image_id)), cipher) {
        (true, Some(cipher)) => filling.encrypted(cipher).map(Some).map_err(failed("encrypting")),
        (true, None) => Err(ImageError::Keyless {
            image_id: image_id.to_owned(),
        }),
        (false, _) => Ok(Some(filling)),
    }
}
