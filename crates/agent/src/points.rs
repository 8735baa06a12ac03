//! The files of a volume that snapshots need: its dirty map, and those of a point in time that is being stored.
//!
//! `SNAPSHOT/dirty` is where it is noted what is written after the point in time; the volume's own `dirty` is then the list of
//! what the snapshot has to say. What becomes of the point in time is decided by one rename, of `SNAPSHOT/dirty` over `dirty`:
//!
//! | `SNAPSHOT/dirty` | `SNAPSHOT/frozen` | state |
//! |---|---|---|
//! | there | empty, or half of it | making: the disk is not frozen, or a request to freeze it is on its way |
//! | there | with a header | frozen: the volume's monitor, if it has one, keeps what it was |
//! | of another boot of the host | | lost: what was not synced is gone |
//! | gone | there | thawing: it is over |
//!
//! `SNAPSHOT/failed` says why a snapshot cannot be made, until nobody wants it any more. Functions here block.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hearth_block::Cipher;
use hearth_block::overlay::dirty::{self, About, UNIT};
use hearth_block::overlay::frozen::{self, Frozen, ReadBase};

use crate::decide::snapshots::{Point, State};
use crate::paths::{DataDir, is_plain_id};
use crate::volume::{self, VolumeError, create, io_error, open_file};

const DIRTY: &str = "dirty";
const FROZEN: &str = "frozen";
const FAILED: &str = "failed";
/// What the ids of snapshots begin with, and of what is stored of a volume that leaves this host: their directories lie beside
/// other files of their volume.
const POINTS: [&str; 2] = ["snap-", MOVE];
const MOVE: &str = "move-";

/// What a monitor is given with a volume.
#[derive(Debug)]
pub struct Tracking {
    pub dirty: File,
    /// A point in time that is kept, by its snapshot's id.
    pub frozen: Option<(String, File)>,
}

pub fn is_snapshot_id(id: &str) -> bool {
    POINTS.iter().any(|kind| id.starts_with(kind)) && is_plain_id(id)
}

/// Whether a volume that begins with this has come from another host.
pub fn is_move_id(id: &str) -> bool {
    id.starts_with(MOVE)
}

/// A volume of this host, in this boot of it.
pub struct Tracked<'a> {
    path: PathBuf,
    boot: &'a str,
}

impl<'a> Tracked<'a> {
    pub fn new(dir: &DataDir, volume_id: &str, boot: &'a str) -> Tracked<'a> {
        Tracked {
            path: dir.volume(volume_id),
            boot,
        }
    }

    /// What the volume's next monitor writes to. Whoever calls holds the volume's lock.
    ///
    /// # Errors
    /// The files cannot be read, or a dirty map cannot be begun.
    pub fn tracking(&self) -> Result<Tracking, VolumeError> {
        for id in self.snapshots()? {
            if self.state(&id)? == State::Frozen {
                return Ok(Tracking {
                    dirty: open_file(&self.file(&id, DIRTY), true)?,
                    frozen: Some((id.clone(), open_file(&self.file(&id, FROZEN), true)?)),
                });
            }
        }
        self.begin()?;
        Ok(Tracking {
            dirty: open_file(&self.path.join(DIRTY), true)?,
            frozen: None,
        })
    }

    /// The id of the volume's image; empty: it has none.
    ///
    /// # Errors
    /// The file that says it cannot be read.
    pub fn image(&self) -> Result<String, VolumeError> {
        volume::image(&self.path)
    }

    /// Begins a dirty map relative to the volume's image, in which all that was ever written is dirty, unless there is one of
    /// this boot: after a restart of the host it is not known what was written since.
    fn begin(&self) -> Result<(), VolumeError> {
        let path = self.path.join(DIRTY);
        if self.about(&path)?.is_some_and(|about| about.boot == self.boot) {
            return Ok(());
        }
        let about = About {
            base: self.image()?,
            boot: self.boot.to_owned(),
        };
        let half_made = self.path.join(format!(".{DIRTY}.{:016x}", rand::random::<u64>()));
        self.make(&half_made, &about, true)?;
        std::fs::rename(&half_made, &path).map_err(|source| io_error("renaming", &half_made, source))
    }

    fn make(&self, path: &Path, about: &About, present_are_dirty: bool) -> Result<(), VolumeError> {
        let map = open_file(&self.path.join("map"), false)?;
        let made = create(path)?;
        dirty::create(&made, about, &map, present_are_dirty).map_err(|source| {
            let _ = std::fs::remove_file(path);
            io_error("writing", path, source)
        })
    }

    fn file(&self, snapshot_id: &str, name: &str) -> PathBuf {
        self.path.join(snapshot_id).join(name)
    }

    /// Snapshots of the volume that have files here.
    fn snapshots(&self) -> Result<Vec<String>, VolumeError> {
        let listing = |source| io_error("listing", &self.path, source);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(listing)? {
            let name = entry.map_err(listing)?.file_name();
            found.extend(name.into_string().ok().filter(|name| is_snapshot_id(name)));
        }
        Ok(found)
    }

    /// Bytes, of a volume of `size`, that the next snapshot has to say; `None`: it is not known what was written since the last,
    /// and all that was ever written counts.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn written(&self, size: u64) -> Result<Option<u64>, VolumeError> {
        let mut path = self.path.join(DIRTY);
        for id in self.snapshots()? {
            if self.state(&id)? == State::Frozen {
                path = self.file(&id, DIRTY);
            }
        }
        if self.about(&path)?.is_none_or(|about| about.boot != self.boot) {
            return Ok(None);
        }
        let units = dirty::count(&open_file(&path, false)?, size);
        let units = units.map_err(|source| io_error("reading", &path, source))?;
        Ok(Some(units.saturating_mul(UNIT).min(size)))
    }

    /// What a dirty map says of itself; of none, nothing.
    fn about(&self, path: &Path) -> Result<Option<About>, VolumeError> {
        match File::open(path) {
            Ok(file) => dirty::about(&file).map_err(|source| io_error("reading", path, source)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("opening", path, source)),
        }
    }

    fn state(&self, id: &str) -> Result<State, VolumeError> {
        let (dirty, frozen) = (self.file(id, DIRTY), self.file(id, FROZEN));
        if !dirty.exists() {
            return Ok(match frozen.exists() {
                true => State::Thawing,
                false => State::None,
            });
        }
        Ok(match self.about(&dirty)? {
            Some(about) if about.boot == self.boot && frozen.exists() => {
                let file = open_file(&frozen, false)?;
                match frozen::is_frozen(&file).map_err(|source| broken("reading", &frozen, source))? {
                    true => State::Frozen,
                    false => State::Making,
                }
            }
            Some(about) if about.boot == self.boot => State::Making,
            // Its making was cut short before anybody was asked.
            None if !frozen.exists() => State::Making,
            _ => State::Lost,
        })
    }

    /// What there is of a snapshot.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn point(&self, id: &str) -> Result<Point, VolumeError> {
        if !self.path.join("data").exists() {
            return Ok(Point {
                without_volume: true,
                ..Point::default()
            });
        }
        let failed = self.file(id, FAILED);
        let state = self.state(id)?;
        let about = self.about(&self.path.join(DIRTY))?;
        Ok(Point {
            state,
            stored: matches!(state, State::None | State::Thawing)
                && about.is_some_and(|about| about.base == id && about.boot == self.boot),
            failed: match std::fs::read_to_string(&failed) {
                Ok(message) => Some(message),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(io_error("reading", &failed, source)),
            },
            without_volume: false,
        })
    }

    /// Makes the files of a point in time, unless they are there, and opens them: where its contents go, and the dirty map
    /// of what comes after it.
    ///
    /// # Errors
    /// The disk is full, or the files cannot be made.
    pub fn prepare(&self, id: &str) -> Result<(File, File), VolumeError> {
        // Before any volume of a set is frozen: one that is still to be thawed would be frozen later than the others.
        for other in self.snapshots()? {
            if other != id && matches!(self.state(&other)?, State::Frozen | State::Thawing) {
                let volume_id = self
                    .path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                return Err(VolumeError::InUse { volume_id });
            }
        }
        let (dir, dirty, frozen) = (self.path.join(id), self.file(id, DIRTY), self.file(id, FROZEN));
        match std::fs::create_dir(&dir) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("making", &dir, source));
            }
            _ => {}
        }
        if self.about(&dirty)?.is_none() {
            remove_file(&dirty)?;
            let about = About {
                base: id.to_owned(),
                boot: self.boot.to_owned(),
            };
            self.make(&dirty, &about, false)?;
        }
        if !frozen.exists() {
            create(&frozen)?;
        }
        Ok((open_file(&frozen, true)?, open_file(&dirty, true)?))
    }

    /// Freezes a volume that no process serves; whoever calls holds its lock, and has prepared the point in time.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn freeze(&self, id: &str) -> Result<(), VolumeError> {
        self.begin()?;
        let (data, map) = (self.path.join("data"), self.path.join("map"));
        let (data_file, map_file) = (open_file(&data, false)?, open_file(&map, false)?);
        let frozen = self.file(id, FROZEN);
        let failed = |source| broken("freezing", &frozen, source);
        // A volume that has grown has, from its old end on, zeros of its own.
        let known = hearth_block::Overlay::inspect(&map_file).map_err(failed)?.size;
        if !known.is_multiple_of(UNIT) {
            let dirty = open_file(&self.path.join(DIRTY), true)?;
            dirty::add(&dirty, &[known / UNIT])
                .map_err(|source| io_error("marking in", &self.path, source))?;
        }
        frozen::freeze(open_file(&frozen, true)?, &data_file, &map_file).map_err(failed)
    }

    /// What a snapshot has to tell; `base` reads the volume's image, if it has one.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn changes(&self, id: &str, base: Option<ReadBase>) -> Result<Changes, VolumeError> {
        let image = self.image()?;
        let boxed = |path: PathBuf| {
            open_file(&path, false).map(|file| Box::new(file) as Box<dyn hearth_block::Store>)
        };
        let path = self.file(id, FROZEN);
        let disk = Frozen::open(boxed(path.clone())?, boxed(self.path.join("data"))?, base);
        let disk = disk.map_err(|source| broken("reading", &path, source))?;
        let list = self.path.join(DIRTY);
        let units = dirty::dirty_units(&open_file(&list, false)?, disk.size());
        let mut units = units.map_err(|source| io_error("reading", &list, source))?;
        let base_id = self.about(&list)?.map(|about| about.base).unwrap_or_default();
        // The image's last chunk is as short as the image.
        let end = disk.base_size();
        if base_id == image && !end.is_multiple_of(UNIT) && end < disk.size() {
            units.push(end / UNIT);
            units.sort_unstable();
            units.dedup();
        }
        Ok(Changes { disk, base_id, units })
    }

    /// The snapshot is stored: from now on the volume is told as changes of it.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn commit(&self, id: &str) -> Result<(), VolumeError> {
        let (dirty, frozen, map) = (self.file(id, DIRTY), self.file(id, FROZEN), self.path.join("map"));
        if !dirty.exists() {
            return Ok(());
        }
        // What the guest has not flushed goes with its monitor, if that is killed: it would be the base's again, but not in
        // the snapshot.
        let data = Box::new(open_file(&self.path.join("data"), false)?);
        let lost = Frozen::open(Box::new(open_file(&frozen, false)?), data, None)
            .and_then(|disk| disk.units_beyond(&open_map(&map)?))
            .map_err(|source| broken("reading", &frozen, source))?;
        let marked = dirty::add(&open_file(&dirty, true)?, &lost);
        marked.map_err(|source| io_error("marking in", &dirty, source))?;
        crate::fault::point("snapshot-commits");
        self.adopt(id)
    }

    /// Notes why the snapshot cannot be made, and gives its marks back to the volume.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn fail(&self, id: &str, message: &str) -> Result<(), VolumeError> {
        let (dir, failed) = (self.path.join(id), self.file(id, FAILED));
        match std::fs::create_dir(&dir) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("making", &dir, source));
            }
            _ => {}
        }
        if !failed.exists() {
            let half_made = self.file(id, ".failed");
            std::fs::write(&half_made, message).map_err(|source| io_error("writing", &half_made, source))?;
            std::fs::rename(&half_made, &failed)
                .map_err(|source| io_error("renaming", &half_made, source))?;
        }
        self.abandon(id)
    }

    /// Gives the marks of a point in time back to the volume.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn abandon(&self, id: &str) -> Result<(), VolumeError> {
        let (dirty, list) = (self.file(id, DIRTY), self.path.join(DIRTY));
        match self.state(id)? {
            State::Frozen => {
                let (file, known) = (open_file(&dirty, true)?, open_file(&list, false)?);
                let returned = dirty::dirty_units(&known, u64::MAX).and_then(|units| {
                    dirty::add(&file, &units)?;
                    match dirty::about(&known)? {
                        Some(about) => dirty::write_about(&file, &about),
                        None => Err(io::Error::other("the volume's dirty map has no header")),
                    }
                });
                returned.map_err(|source| io_error("giving marks back to", &dirty, source))?;
                crate::fault::point("snapshot-abandons");
                self.adopt(id)
            }
            State::Making | State::Lost => {
                remove_file(&dirty)?;
                remove_file(&self.file(id, FROZEN))
            }
            State::None | State::Thawing => Ok(()),
        }
    }

    fn adopt(&self, id: &str) -> Result<(), VolumeError> {
        let dirty = self.file(id, DIRTY);
        std::fs::rename(&dirty, self.path.join(DIRTY)).map_err(|source| io_error("renaming", &dirty, source))
    }

    /// No monitor keeps the point in time any more.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn thawed(&self, id: &str) -> Result<(), VolumeError> {
        remove_file(&self.file(id, FROZEN))?;
        match self.file(id, FAILED).exists() {
            true => Ok(()),
            false => self.forget(id),
        }
    }

    /// Removes what is left of a snapshot that is over.
    ///
    /// # Errors
    /// The files cannot be removed.
    pub fn forget(&self, id: &str) -> Result<(), VolumeError> {
        volume::remove_tree(&self.path.join(id))
    }
}

/// What a snapshot has to tell of its volume.
pub struct Changes {
    pub disk: Frozen,
    /// What it is told as changes of; empty: of zeros.
    pub base_id: String,
    /// Of 512 KiB each, in order.
    pub units: Vec<u64>,
}

impl Changes {
    /// The same, of a volume that lies encrypted.
    pub fn encrypted(self, cipher: Arc<Cipher>) -> Changes {
        let disk = self.disk.encrypted(cipher);
        Changes { disk, ..self }
    }

    /// The whole disk, as changes of zeros.
    pub fn whole(self) -> Changes {
        let mut units: Vec<u64> = (0..self.disk.base_size().div_ceil(UNIT)).collect();
        units.extend(self.disk.present_units());
        units.sort_unstable();
        units.dedup();
        Changes {
            base_id: String::new(),
            units,
            ..self
        }
    }
}

/// The points in time that there are on this host, by snapshot, with their volumes.
///
/// # Errors
/// The volumes cannot be listed.
pub fn all(dir: &DataDir) -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir.volumes())? {
        let Ok(volume_id) = entry?.file_name().into_string() else {
            continue;
        };
        if !is_plain_id(&volume_id) {
            continue;
        }
        // One that is being erased has none.
        let snapshots = Tracked::new(dir, &volume_id, "").snapshots().unwrap_or_default();
        found.extend(snapshots.into_iter().map(|id| (id, volume_id.clone())));
    }
    Ok(found)
}

fn open_map(path: &Path) -> Result<File, hearth_block::overlay::OpenError> {
    File::open(path).map_err(|source| hearth_block::overlay::OpenError::Io {
        doing: "opening",
        part: hearth_block::overlay::Part::Map,
        source,
    })
}

fn broken(doing: &'static str, path: &Path, source: hearth_block::overlay::OpenError) -> VolumeError {
    io_error(doing, path, io::Error::other(source))
}

fn remove_file(path: &Path) -> Result<(), VolumeError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error("removing", path, source)),
        _ => Ok(()),
    }
}
