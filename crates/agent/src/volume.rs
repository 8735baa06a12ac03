//! Volumes: an overlay on an AMI's disk, or on nothing, complete or absent.
//!
//! A blank volume is an overlay without a base, and not a raw file: its chunk map tells which chunks were ever written, as
//! that of any other volume does, so that snapshots read one format.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::disk_keys::MARK;
use crate::paths::{DataDir, is_plain_id};
use crate::points::{Tracked, Tracking};

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("laying the overlay of {volume_id}")]
    Overlay {
        volume_id: String,
        source: hearth_block::overlay::CreateError,
    },
    #[error(
        "volume {volume_id}, with which the instance ran before, is not on this host: its data directory is another one, or \
         has lost it"
    )]
    Lost { volume_id: String },
    #[error(
        "volume {volume_id} lies {} on this host, and the control plane says that it is {}",
        if *encrypted { "encrypted" } else { "plain" },
        if *encrypted { "plain" } else { "encrypted" }
    )]
    Encryption {
        volume_id: String,
        /// On this host.
        encrypted: bool,
    },
    #[error("volume {volume_id} is in use by another process on this host")]
    InUse { volume_id: String },
    #[error(
        "what this host has of volume {volume_id} is of before it moved to another host, and is kept: it begins with \
         '{found}', and the volume with '{asked}'"
    )]
    Old {
        volume_id: String,
        found: String,
        asked: String,
    },
    #[error(
        "volume {volume_id} was attached again since: this host has seen attachment {seen}, and is asked for {asked}"
    )]
    Stale {
        volume_id: String,
        seen: u64,
        asked: u64,
    },
}

/// An open volume. The lock on `data` lives as long as any process holds that open file, so it passes to
/// the monitor that inherits it: two monitors can never write one volume.
#[derive(Debug)]
pub struct Volume {
    pub data: File,
    pub map: File,
    /// Absent: it was blank at first.
    pub base: Option<Base>,
    pub tracking: Tracking,
    /// A pipe with its key; absent: it lies plain.
    pub key: Option<File>,
}

/// What a volume begins with.
#[derive(Debug)]
pub struct Base {
    pub image_id: String,
    pub disk: File,
    /// What has come of it; absent: it is whole.
    pub map: Option<File>,
    /// A pipe with its key; absent: it lies plain.
    pub key: Option<File>,
}

impl Volume {
    /// Bytes of the largest file of it that its monitor may write.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn largest_file(&self) -> Result<u64, VolumeError> {
        let frozen = self.tracking.frozen.as_ref().map(|(_, file)| file);
        let mut largest = 0;
        for file in std::iter::once(&self.data).chain(frozen) {
            let found = file.metadata();
            let found =
                found.map_err(|source| io_error("looking at the size of", Path::new("data"), source))?;
            largest = largest.max(found.len());
        }
        Ok(largest)
    }
}

/// What a monitor that just died, or a fork that has not reached its exec, may still hold for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// The file of a volume that says which image is its base. Empty: it has none.
const BASE: &str = "image";
/// The file of a volume that says the epoch of its newest attachment; the first one needs none.
const EPOCH: &str = "epoch";

/// Of a volume that was made before: an empty one in its place would be another disk. Blocks.
///
/// # Errors
/// It is not there.
pub fn demand(dir: &DataDir, volume_id: &str) -> Result<(), VolumeError> {
    match dir.volume(volume_id).exists() {
        true => Ok(()),
        false => Err(VolumeError::Lost {
            volume_id: volume_id.to_owned(),
        }),
    }
}

/// Makes the volume unless it exists, on the disk of `image_id`, or blank where that is empty; durable on return. Sizes are
/// bytes. What is written to an encrypted one is, by whoever opens it. Blocks.
///
/// # Errors
/// The disk is full, or the files cannot be made; or what there is begins with something else.
pub fn ensure(
    dir: &DataDir,
    volume_id: &str,
    image_id: &str,
    base_size: u64,
    size: u64,
    encrypted: bool,
) -> Result<(), VolumeError> {
    let volume = dir.volume(volume_id);
    if volume.exists() {
        note_base(dir, volume_id, image_id)?;
        check_base(&volume, volume_id, image_id)?;
        return grow(dir, volume_id, size);
    }
    // Under a name of its own first: a volume that has its name is whole.
    let half_made = dir
        .volumes()
        .join(format!(".{volume_id}.{:016x}", rand::random::<u64>()));
    let made = make(&half_made, volume_id, image_id, base_size, size);
    let made = made.and_then(|()| mark(&half_made, encrypted)).and_then(|()| {
        match std::fs::rename(&half_made, &volume) {
            Ok(()) => sync_dir(&dir.volumes()),
            // Another attempt at the same launch came first.
            Err(_) if volume.exists() => Ok(()),
            Err(source) => Err(io_error("renaming", &half_made, source)),
        }
    });
    if half_made.exists() {
        let _ = std::fs::remove_dir_all(&half_made);
    }
    made
}

fn make(at: &Path, volume_id: &str, image_id: &str, base_size: u64, size: u64) -> Result<(), VolumeError> {
    std::fs::create_dir(at).map_err(|source| io_error("making", at, source))?;
    write_base(&at.join(BASE), image_id)?;
    let data = create(&at.join("data"))?;
    let map = create(&at.join("map"))?;
    hearth_block::overlay::create(&data, &map, base_size, size).map_err(|source| VolumeError::Overlay {
        volume_id: volume_id.to_owned(),
        source,
    })?;
    sync_dir(at)
}

/// Whether what is in a directory lies encrypted.
pub(crate) fn is_encrypted(home: &Path) -> bool {
    home.join(MARK).exists()
}

/// Notes in a directory that what is in it lies encrypted, if it does; durable on return.
pub(crate) fn mark(home: &Path, encrypted: bool) -> Result<(), VolumeError> {
    match encrypted {
        true => create(&home.join(MARK)).and_then(|_| sync_dir(home)),
        false => Ok(()),
    }
}

/// # Errors
/// The volume lies in another way than it is said to.
pub fn demand_encryption(dir: &DataDir, volume_id: &str, encrypted: bool) -> Result<(), VolumeError> {
    match is_encrypted(&dir.volume(volume_id)) {
        found if found == encrypted => Ok(()),
        found => Err(VolumeError::Encryption {
            volume_id: volume_id.to_owned(),
            encrypted: found,
        }),
    }
}

/// Makes the data file of a volume `size` bytes long, unless it is longer; durable on return. Whoever opens the volume next,
/// or has it open and looks at its size, grows the disk with it. Blocks.
///
/// # Errors
/// The volume is not there, or the file system takes no file so large.
pub fn grow(dir: &DataDir, volume_id: &str, size: u64) -> Result<(), VolumeError> {
    let path = dir.volume(volume_id).join("data");
    let data = open_file(&path, true)?;
    let grown = data.metadata().and_then(|found| match found.len() < size {
        true => data.set_len(size).and_then(|()| data.sync_all()),
        false => Ok(()),
    });
    grown.map_err(|source| io_error("growing", &path, source))
}

/// Notes the base of a volume that does not say it: older agents did not write it down. Blocks.
///
/// # Errors
/// The note cannot be written.
pub fn note_base(dir: &DataDir, volume_id: &str, image_id: &str) -> Result<(), VolumeError> {
    let volume = dir.volume(volume_id);
    if !volume.exists() || volume.join(BASE).exists() {
        return Ok(());
    }
    let half_made = volume.join(format!(".{BASE}.{:016x}", rand::random::<u64>()));
    write_base(&half_made, image_id)?;
    std::fs::rename(&half_made, volume.join(BASE)).map_err(|e| io_error("renaming", &half_made, e))?;
    sync_dir(&volume)
}

/// A volume begins with something else after each time that it has come from another host: what begins as before is a copy of
/// before.
fn check_base(volume: &Path, volume_id: &str, image_id: &str) -> Result<(), VolumeError> {
    let found = image(volume)?;
    match found == image_id {
        true => Ok(()),
        false => Err(VolumeError::Old {
            volume_id: volume_id.to_owned(),
            found,
            asked: image_id.to_owned(),
        }),
    }
}

fn write_base(at: &Path, image_id: &str) -> Result<(), VolumeError> {
    let mut file = create(at)?;
    let written = file.write_all(image_id.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|source| io_error("writing", at, source))
}

/// The id of the base of the volume in this directory; empty: it has none.
pub(crate) fn image(volume: &Path) -> Result<String, VolumeError> {
    let path = volume.join(BASE);
    std::fs::read_to_string(&path).map_err(|source| io_error("reading", &path, source))
}

/// Takes the lock of a volume that nobody has open, for as long as the file is kept. Blocks.
///
/// # Errors
/// The volume is in use, or its file cannot be opened.
pub(crate) fn lock(dir: &DataDir, volume_id: &str) -> Result<File, VolumeError> {
    let path = dir.volume(volume_id).join("data");
    let data = open_file(&path, false)?;
    match rustix::fs::flock(&data, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(data),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(VolumeError::InUse {
            volume_id: volume_id.to_owned(),
        }),
        Err(errno) => Err(io_error("locking", &path, errno.into())),
    }
}

/// What the volumes of this host are laid on.
pub(crate) enum Bases {
    /// The ids of all images that are a base.
    Known(HashSet<String>),
    /// This volume does not say.
    UnknownOf(String),
}

/// Reads the bases of all volumes, whoever made them. Blocks.
///
/// # Errors
/// The volumes cannot be listed.
pub(crate) fn bases(dir: &DataDir) -> io::Result<Bases> {
    let mut known = HashSet::new();
    for entry in std::fs::read_dir(dir.volumes())? {
        let path = entry?.path();
        let is_volume = path.join("data").exists() || path.join("map").exists();
        match std::fs::read_to_string(path.join(BASE)) {
            Ok(image_id) if image_id.is_empty() => {}
            Ok(image_id) if is_plain_id(&image_id) => {
                known.insert(image_id);
            }
            _ if is_volume => {
                let name = path.file_name().unwrap_or_default();
                return Ok(Bases::UnknownOf(name.to_string_lossy().into_owned()));
            }
            _ => {}
        }
    }
    Ok(Bases::Known(known))
}

/// Opens the volume, and its base if it has one, for a monitor in this boot of the host. Blocks for a moment when somebody still holds it.
///
/// # Errors
/// A file is missing, or another monitor lives on the volume.
pub fn open(dir: &DataDir, volume_id: &str, image_id: &str, boot: &str) -> Result<Volume, VolumeError> {
    let volume = dir.volume(volume_id);
    let data = open_file(&volume.join("data"), true)?;
    let map = open_file(&volume.join("map"), true)?;
    let base = match image_id.is_empty() {
        true => None,
        false => Some(open_base(dir, image_id)?),
    };
    let until = Instant::now() + LOCK_PATIENCE;
    while let Err(errno) = rustix::fs::flock(&data, FlockOperation::NonBlockingLockExclusive) {
        if errno != rustix::io::Errno::WOULDBLOCK {
            return Err(io_error("locking", &volume, errno.into()));
        }
        if Instant::now() >= until {
            return Err(VolumeError::InUse {
                volume_id: volume_id.to_owned(),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Volume {
        data,
        map,
        base,
        tracking: Tracked::new(dir, volume_id, boot).tracking()?,
        key: None,
    })
}

/// Opens what volumes begin with, whole or in part. Blocks.
///
/// # Errors
/// It is not there.
pub fn open_base(dir: &DataDir, image_id: &str) -> Result<Base, VolumeError> {
    let open = |path: PathBuf| match open_file(&path, false) {
        Err(VolumeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    };
    let image_id = image_id.to_owned();
    // The map first: when the part is whole it loses its name before the map does.
    let map = open(dir.image_map(&image_id))?;
    match (open(dir.image_part(&image_id))?, map) {
        (Some(disk), map @ Some(_)) => Ok(Base {
            image_id,
            disk,
            map,
            key: None,
        }),
        _ => Ok(Base {
            disk: open_file(&dir.image_disk(&image_id), false)?,
            image_id,
            map: None,
            key: None,
        }),
    }
}

/// Deletes the volume if it is there. Blocks.
///
/// # Errors
/// The files cannot be removed.
pub fn remove(dir: &DataDir, volume_id: &str) -> Result<(), VolumeError> {
    remove_tree(&dir.volume(volume_id))
}

/// Notes the epoch of an attachment of a volume that is there; durable on return. 0 is not told, and holds nothing. Blocks.
///
/// # Errors
/// A later attachment was noted, or the note cannot be written.
pub fn hold(dir: &DataDir, volume_id: &str, epoch: u64) -> Result<(), VolumeError> {
    let volume = dir.volume(volume_id);
    let seen = seen(&volume)?;
    if epoch == 0 || epoch == seen {
        return Ok(());
    }
    if epoch < seen {
        return Err(VolumeError::Stale {
            volume_id: volume_id.to_owned(),
            seen,
            asked: epoch,
        });
    }
    let half_made = volume.join(format!(".{EPOCH}.{:016x}", rand::random::<u64>()));
    let mut file = create(&half_made)?;
    let written = file
        .write_all(epoch.to_string().as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|source| io_error("writing", &half_made, source))?;
    std::fs::rename(&half_made, volume.join(EPOCH)).map_err(|e| io_error("renaming", &half_made, e))?;
    sync_dir(&volume)
}

/// The epoch of the newest attachment of a volume.
fn seen(volume: &Path) -> Result<u64, VolumeError> {
    let path = volume.join(EPOCH);
    match std::fs::read_to_string(&path) {
        Ok(text) => text
            .parse()
            .map_err(|_| io_error("reading", &path, io::Error::other("it is no number"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(source) => Err(io_error("reading", &path, source)),
    }
}

/// Deletes a volume that no instance has, if it is there and was not attached since `epoch`. Blocks.
///
/// # Errors
/// A process has it open, or the files cannot be removed.
pub fn erase(dir: &DataDir, volume_id: &str, epoch: u64) -> Result<(), VolumeError> {
    let volume = dir.volume(volume_id);
    let seen = seen(&volume)?;
    if epoch != 0 && epoch < seen {
        return Err(VolumeError::Stale {
            volume_id: volume_id.to_owned(),
            seen,
            asked: epoch,
        });
    }
    let data = match File::open(volume.join("data")) {
        // What an agent that was killed meanwhile has left.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return remove(dir, volume_id),
        opened => opened.map_err(|source| io_error("opening", &volume, source))?,
    };
    match rustix::fs::flock(&data, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            remove(dir, volume_id)?;
            // What is told to be gone does not come back.
            sync_dir(&dir.volumes())
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Err(VolumeError::InUse {
            volume_id: volume_id.to_owned(),
        }),
        Err(errno) => Err(io_error("locking", &volume, errno.into())),
    }
}

/// Removes a directory if it is there.
pub(crate) fn remove_tree(path: &Path) -> Result<(), VolumeError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error("removing", path, source)),
        _ => Ok(()),
    }
}

/// Sweeps what a killed agent left half-made. Only at start, when nobody makes anything.
pub(crate) fn sweep_half_made(room: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(room)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

pub(crate) fn sync_dir(path: &Path) -> Result<(), VolumeError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| io_error("syncing", path, source))
}

/// Makes a file that is not there.
pub(crate) fn create(path: &Path) -> Result<File, VolumeError> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|source| io_error("creating", path, source))
}

pub(crate) fn open_file(path: &Path, write: bool) -> Result<File, VolumeError> {
    File::options()
        .read(true)
        .write(write)
        .open(path)
        .map_err(|source| io_error("opening", path, source))
}

pub(crate) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> VolumeError {
    VolumeError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_moved_volume_left_behind_is_not_the_volume() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path()).unwrap();
        let ensure = |base: &str, size| ensure(&dir, "vol-1", base, size, 1 << 20, false);
        ensure("", 0).unwrap();
        let refused = ensure("move-1", 1 << 20).unwrap_err();
        assert!(
            matches!(&refused, VolumeError::Old { found, asked, .. } if found.is_empty() && asked == "move-1"),
            "{refused}"
        );
        assert!(dir.volume("vol-1").exists(), "it is kept");
        ensure("", 0).unwrap();
        // It is erased by the epoch of its leaving, and comes back with what it begins with now.
        hold(&dir, "vol-1", 2).unwrap();
        erase(&dir, "vol-1", 3).unwrap();
        ensure("move-1", 1 << 20).unwrap();
        assert!(matches!(ensure("", 0), Err(VolumeError::Old { .. })));
    }

    #[test]
    fn a_volume_is_of_its_newest_attachment() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path()).unwrap();
        ensure(&dir, "vol-1", "ami-1", 1 << 20, 1 << 20, false).unwrap();
        let stale = |result| matches!(result, Err(VolumeError::Stale { .. }));
        // Most are attached once: that costs nothing.
        hold(&dir, "vol-1", 1).unwrap();
        assert!(!dir.volume("vol-1").join(EPOCH).exists());
        hold(&dir, "vol-1", 3).unwrap();
        hold(&dir, "vol-1", 3).unwrap();
        assert!(stale(hold(&dir, "vol-1", 2)) && stale(hold(&dir, "vol-1", 1)));
        // Who does not tell is an older control plane.
        hold(&dir, "vol-1", 0).unwrap();
        assert!(stale(erase(&dir, "vol-1", 2)));
        assert!(dir.volume("vol-1").exists());
        erase(&dir, "vol-1", 3).unwrap();
        assert!(!dir.volume("vol-1").exists());
        erase(&dir, "vol-1", 3).unwrap();
    }
}
