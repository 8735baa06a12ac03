//! Files of an ext2, ext3 or ext4 file system in a region of a disk.
//!
//! `ext4-view` reads directories, inodes and files. What it lacks is hidden from it by [`view`]: the journal of a file
//! system that was not unmounted ([`journal`]), and group descriptors that are spread over the disk (`meta_bg`).

mod journal;
mod superblock;
mod view;

use std::io::{self, SeekFrom};
use std::rc::Rc;

use ext4_view::{Ext4, Ext4Error};

use super::{FsError, Kind, MAX_ENTRIES, MAX_PATH, too_large};
use crate::ReadSeek;
use crate::meter::SharedDisk;
use crate::partitions::Region;
use view::View;

/// Bytes of a directory.
const MAX_DIRECTORY: u64 = 1 << 20;
/// Symbolic links that one path may lead through (Linux's `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A file system that may hold `/boot`. Paths are absolute; symbolic links are followed inside the file system.
pub(super) struct Ext4Fs {
    ext4: Ext4,
    disk: SharedDisk,
}

impl Ext4Fs {
    pub(super) fn open(disk: &SharedDisk, region: &Region) -> Result<Ext4Fs, FsError> {
        let view = View::new(disk, region)?;
        let loading = view.loading();
        let ext4 = Ext4::load(Box::new(view))?;
        // From here on every read is of a block where it lies.
        loading.set(false);
        Ok(Ext4Fs {
            ext4,
            disk: Rc::clone(disk),
        })
    }

    /// As text, in groups of hexadecimal digits.
    pub(super) fn uuid(&self) -> String {
        self.ext4.uuid().to_string()
    }

    /// Empty if it has none, or if it is no UTF-8.
    pub(super) fn label(&self) -> String {
        self.ext4.label().to_str().unwrap_or_default().to_owned()
    }

    pub(super) fn kind(&self, path: &str) -> Result<Option<Kind>, FsError> {
        let Some(resolved) = self.resolve(path)? else {
            return Ok(None);
        };
        let metadata = self.ext4.symlink_metadata(&resolved)?;
        Ok(if metadata.is_dir() {
            Some(Kind::Directory)
        } else if metadata.file_type().is_regular_file() {
            Some(Kind::File(metadata.len()))
        } else {
            None
        })
    }

    fn file(&self, path: &str) -> Result<ext4_view::File, FsError> {
        let resolved = self.resolve(path)?.ok_or(Ext4Error::NotFound)?;
        Ok(self.ext4.open(&resolved)?)
    }

    /// Appends the whole file to `content`.
    pub(super) fn append(&self, path: &str, content: &mut Vec<u8>) -> Result<(), FsError> {
        let mut file = self.file(path)?;
        let len = file.metadata().len();
        // Holes cost no read, but memory and the parser's time.
        self.disk.borrow_mut().charge(len)?;
        let begin = content.len();
        content.resize(begin + len as usize, 0);
        let got = fill(&mut file, &mut content[begin..])?;
        content.truncate(begin + got);
        Ok(())
    }

    pub(super) fn read_at(&self, path: &str, position: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let mut file = self.file(path)?;
        file.seek_to(position)?;
        fill(&mut file, buf)
    }

    /// The names in a directory; none if there is no such directory.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let Some(resolved) = self.resolve(path)? else {
            return Ok(Vec::new());
        };
        let metadata = self.ext4.symlink_metadata(&resolved)?;
        if !metadata.is_dir() {
            return Ok(Vec::new());
        }
        if metadata.len() > MAX_DIRECTORY {
            return Err(too_large(path, metadata.len(), MAX_DIRECTORY));
        }
        let mut names = Vec::new();
        for (i, entry) in self.ext4.read_dir(&resolved)?.enumerate() {
            if i == MAX_ENTRIES {
                return Err(FsError::TooManyEntries {
                    path: path.to_owned(),
                    limit: MAX_ENTRIES,
                });
            }
            // A name that is not UTF-8 is nothing that a boot loader reads.
            if let Ok(name) = entry?.file_name().as_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// `path` without links, or none if something on the way is not there. The reader would follow links and search
    /// directories by itself, but bounds neither a link's length nor a directory's.
    pub(super) fn resolve(&self, path: &str) -> Result<Option<String>, FsError> {
        let mut ahead: Vec<String> = components(path);
        let mut resolved = String::new();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                resolved.truncate(resolved.rfind('/').unwrap_or(0));
                continue;
            }
            let parent = if resolved.is_empty() { "/" } else { &resolved };
            let directory = self.ext4.symlink_metadata(parent)?;
            if !directory.is_dir() {
                return Ok(None);
            }
            if directory.len() > MAX_DIRECTORY {
                return Err(too_large(parent, directory.len(), MAX_DIRECTORY));
            }
            let child = format!("{resolved}/{name}");
            if child.len() > MAX_PATH {
                return Ok(None);
            }
            let metadata = match self.ext4.symlink_metadata(&child) {
                Ok(metadata) => metadata,
                Err(e) if is_absence(&e) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            if !metadata.is_symlink() {
                resolved = child;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Ext4Error::TooManySymlinks.into());
            }
            if metadata.len() > MAX_PATH as u64 {
                return Err(too_large(&child, metadata.len(), MAX_PATH as u64));
            }
            let target = self.ext4.read_link(&child)?;
            // Nothing that a boot loader reads has a name that is not UTF-8.
            let Ok(target) = target.to_str() else {
                return Ok(None);
            };
            if target.starts_with('/') {
                resolved.clear();
            }
            ahead.extend(components(target));
        }
        Ok(Some(if resolved.is_empty() {
            "/".to_owned()
        } else {
            resolved
        }))
    }
}

/// The names of a path, the last first.
fn components(path: &str) -> Vec<String> {
    let names = path.rsplit('/').filter(|name| !name.is_empty() && *name != ".");
    names.map(str::to_owned).collect()
}

fn fill(file: &mut ext4_view::File, buf: &mut [u8]) -> Result<usize, FsError> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_bytes(&mut buf[done..])? {
            0 => break,
            got => done += got,
        }
    }
    Ok(done)
}

fn is_absence(e: &Ext4Error) -> bool {
    use Ext4Error::{IsADirectory, IsASpecialFile, NotADirectory, NotFound};
    matches!(e, NotFound | NotADirectory | IsADirectory | IsASpecialFile)
}

/// Whether an ext2, ext3 or ext4 file system seems to begin at `start`.
pub(crate) fn has_magic(disk: &mut dyn ReadSeek, start: u64) -> io::Result<bool> {
    let mut magic = [0; 2];
    disk.seek(SeekFrom::Start(start.saturating_add(superblock::MAGIC)))?;
    match disk.read_exact(&mut magic) {
        Ok(()) => Ok(magic == [0x53, 0xef]),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}
