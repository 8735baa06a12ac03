//! File systems that boot loaders read: ext2, ext3, ext4 and FAT.
//!
//! Paths are absolute. Symbolic links are followed inside the file system.

mod ext4;
mod fat;
#[cfg(any(test, feature = "testing"))]
mod files;

use std::io;
use std::rc::Rc;

use ext4_view::Ext4Error;

pub(crate) use ext4::has_magic as has_ext_magic;

use crate::meter::SharedDisk;
use crate::partitions::Region;

/// A directory with more entries is refused; boot directories have tens.
const MAX_ENTRIES: usize = 1024;
/// Bytes of a path and of a symbolic link's target (Linux's `PATH_MAX`).
const MAX_PATH: usize = 4096;

/// Why a file system or a file in it cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FsError {
    #[error("not ext2, ext3, ext4 or FAT")]
    Unknown,
    #[error("its superblock names impossible sizes")]
    Superblock,
    #[error("the checksum of {0} is wrong")]
    Checksum(String),
    #[error("its journal cannot be replayed: {0}")]
    Journal(String),
    #[error("{path} has {len} bytes, more than the {limit} that are allowed")]
    TooLarge { path: String, len: u64, limit: u64 },
    #[error("{path} has more than {limit} entries")]
    TooManyEntries { path: String, limit: usize },
    #[error(transparent)]
    Ext4(#[from] Ext4Error),
    #[error("reading FAT: {0}")]
    Fat(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn too_large(path: &str, len: u64, limit: u64) -> FsError {
    FsError::TooLarge {
        path: path.to_owned(),
        len,
        limit,
    }
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes.
    File(u64),
    Directory,
}

enum Driver {
    Ext4(ext4::Ext4Fs),
    Fat(Box<fat::FatFs>),
    #[cfg(any(test, feature = "testing"))]
    Files(files::Files),
}

/// An open file system.
pub(crate) struct Volume {
    driver: Driver,
    /// As GRUB's `search --fs-uuid` and udev spell it.
    pub(crate) uuid: String,
    pub(crate) label: String,
}

impl Volume {
    /// # Errors
    /// The region holds no file system that is known here, or one with a feature that is not.
    pub(crate) fn open(disk: &SharedDisk, region: &Region) -> Result<Volume, FsError> {
        if has_ext_magic(&mut *disk.borrow_mut(), region.start)? {
            let fs = ext4::Ext4Fs::open(disk, region)?;
            return Ok(Volume {
                uuid: fs.uuid(),
                label: fs.label(),
                driver: Driver::Ext4(fs),
            });
        }
        let fs = fat::FatFs::open(disk, region)?;
        Ok(Volume {
            uuid: fs.uuid(),
            label: fs.label(),
            driver: Driver::Fat(Box::new(fs)),
        })
    }

    /// Files without a disk.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn of_files(files: Vec<(String, Vec<u8>)>, uuid: &str) -> Volume {
        Volume {
            driver: Driver::Files(files::Files(files)),
            uuid: uuid.to_owned(),
            label: "boot".to_owned(),
        }
    }

    pub(crate) fn is_fat(&self) -> bool {
        match self.driver {
            Driver::Fat(_) => true,
            // A FAT file system's UUID has nine characters.
            #[cfg(any(test, feature = "testing"))]
            Driver::Files(_) => self.uuid.len() == 9,
            Driver::Ext4(_) => false,
        }
    }

    pub(crate) fn kind(&self, path: &str) -> Result<Option<Kind>, FsError> {
        match &self.driver {
            Driver::Ext4(fs) => fs.kind(path),
            Driver::Fat(fs) => fs.kind(path),
            #[cfg(any(test, feature = "testing"))]
            Driver::Files(fs) => fs.kind(path),
        }
    }

    /// A file's path without symbolic links.
    pub(crate) fn resolved(&self, path: &str) -> Result<Option<String>, FsError> {
        match &self.driver {
            Driver::Ext4(fs) => fs.resolve(path),
            // FAT has no links, and does not tell letters' case.
            Driver::Fat(_) => Ok(Some(path.to_ascii_lowercase())),
            #[cfg(any(test, feature = "testing"))]
            Driver::Files(_) => Ok(Some(path.to_owned())),
        }
    }

    /// The names in a directory; none if there is no such directory.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        match &self.driver {
            Driver::Ext4(fs) => fs.list(path),
            Driver::Fat(fs) => fs.list(path),
            #[cfg(any(test, feature = "testing"))]
            Driver::Files(fs) => fs.list(path),
        }
    }

    /// The file's content, or none if there is no such file.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, FsError> {
        let Some(Kind::File(len)) = self.kind(path)? else {
            return Ok(None);
        };
        if len > limit {
            return Err(too_large(path, len, limit));
        }
        let mut content = Vec::new();
        self.append(path, &mut content)?;
        Ok(Some(content))
    }

    fn append(&self, path: &str, content: &mut Vec<u8>) -> Result<(), FsError> {
        match &self.driver {
            Driver::Ext4(fs) => fs.append(path, content),
            Driver::Fat(fs) => fs.append(path, content),
            #[cfg(any(test, feature = "testing"))]
            Driver::Files(fs) => fs.append(path, content),
        }
    }

    fn read_at(&self, path: &str, position: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        match &self.driver {
            Driver::Ext4(fs) => fs.read_at(path, position, buf),
            Driver::Fat(fs) => fs.read_at(path, position, buf),
            #[cfg(any(test, feature = "testing"))]
            Driver::Files(fs) => fs.read_at(path, position, buf),
        }
    }
}

/// A file that is there.
pub(crate) struct FileRef {
    volume: Rc<Volume>,
    pub(crate) path: String,
    len: u64,
}

impl FileRef {
    /// None if there is no such file.
    ///
    /// # Errors
    /// It has more than `limit` bytes, or the file system cannot be read.
    pub(crate) fn find(volume: &Rc<Volume>, path: &str, limit: u64) -> Result<Option<FileRef>, FsError> {
        match volume.kind(path)? {
            Some(Kind::File(len)) if len > limit => Err(too_large(path, len, limit)),
            Some(Kind::File(len)) => Ok(Some(FileRef {
                volume: Rc::clone(volume),
                path: path.to_owned(),
                len,
            })),
            _ => Ok(None),
        }
    }

    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends the whole file to `content`.
    pub(crate) fn append_to(&self, content: &mut Vec<u8>) -> Result<(), FsError> {
        self.volume.append(&self.path, content)
    }

    /// Reads from byte `position` on and returns how many bytes there were.
    pub(crate) fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        if position >= self.len {
            return Ok(0);
        }
        self.volume.read_at(&self.path, position, buf)
    }
}
