//! Reading files from an ext2, 3 or 4 file system in a region of a disk.

use std::error::Error;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::rc::Rc;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

use crate::meter::SharedDisk;
use crate::partitions::Region;

/// A directory with more entries is refused; boot directories have tens.
const MAX_ENTRIES: usize = 1024;
/// Bytes of a directory.
const MAX_DIRECTORY: u64 = 1 << 20;
/// Bytes of a path and of a symbolic link's target (Linux's `PATH_MAX`).
const MAX_PATH: usize = 4096;
/// Symbolic links that one path may lead through (Linux's `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Limits of what the superblock may say before the reader believes it.
const SUPERBLOCK: u64 = 1024;
const MAX_LOG_BLOCK_SIZE: u32 = 6;
/// A file system of 16 TiB has as many.
const MAX_BLOCK_GROUPS: u64 = 1 << 17;
/// `s_feature_incompat`, then `s_feature_ro_compat`, four bytes each.
const FEATURE_INCOMPAT: u64 = SUPERBLOCK + 0x60;
/// In the first byte of `s_feature_incompat`: the journal wants to be replayed.
const INCOMPAT_RECOVER: u8 = 0x04;
/// In the second byte of `s_feature_ro_compat`: metadata, the superblock too, has checksums.
const RO_COMPAT_METADATA_CSUM_BYTE_1: u8 = 0x04;

/// Why a file system or a file in it cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FsError {
    #[error("not ext2, ext3 or ext4")]
    NotExt,
    #[error("its superblock names impossible sizes")]
    Superblock,
    #[error("{path} has {len} bytes, more than the {limit} that are allowed")]
    TooLarge { path: String, len: u64, limit: u64 },
    #[error("{path} has more than {limit} entries")]
    TooManyEntries { path: String, limit: usize },
    #[error("its boot entry names {0} initrds")]
    TooManyInitrds(usize),
    #[error(transparent)]
    Ext4(#[from] Ext4Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file system that may hold `/boot`. Paths are absolute; symbolic links are followed inside the file system.
pub(crate) struct FileSystem {
    ext4: Ext4,
    disk: SharedDisk,
}

impl FileSystem {
    pub(crate) fn open(disk: &SharedDisk, region: &Region) -> Result<FileSystem, FsError> {
        let view = |journal| View {
            disk: Rc::clone(disk),
            start: region.start,
            len: region.len,
            journal,
        };
        check_superblock(&mut view(Journal::Shown))?;
        let ext4 = match Ext4::load(Box::new(view(Journal::Shown))) {
            Err(Ext4Error::Incompatible(why)) if needs_recovery(&mut view(Journal::Shown))? => {
                tracing::warn!(%why, "the journal of an unclean file system is not replayed");
                Ext4::load(Box::new(view(Journal::Hidden)))?
            }
            loaded => loaded?,
        };
        Ok(FileSystem {
            ext4,
            disk: Rc::clone(disk),
        })
    }

    /// The regular file at `path`, or none if there is no such file.
    pub(crate) fn file(&self, path: &str, limit: u64) -> Result<Option<File>, FsError> {
        let Some(resolved) = self.resolve(path)? else {
            return Ok(None);
        };
        let file = match self.ext4.open(&resolved) {
            Ok(file) => file,
            Err(e) if is_absence(&e) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let len = file.metadata().len();
        if len > limit {
            return Err(too_large(path, len, limit));
        }
        Ok(Some(File {
            file,
            len,
            disk: Rc::clone(&self.disk),
        }))
    }

    /// The file's content, or none if there is no such file.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, FsError> {
        self.file(path, limit)?.map(File::read).transpose()
    }

    /// The names in a directory; none if there is no such directory.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
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
    fn resolve(&self, path: &str) -> Result<Option<String>, FsError> {
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

fn too_large(path: &str, len: u64, limit: u64) -> FsError {
    FsError::TooLarge {
        path: path.to_owned(),
        len,
        limit,
    }
}

/// An open file.
pub(crate) struct File {
    file: ext4_view::File,
    len: u64,
    disk: SharedDisk,
}

impl File {
    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn read(self) -> Result<Vec<u8>, FsError> {
        let mut content = Vec::new();
        self.append_to(&mut content)?;
        Ok(content)
    }

    /// Reads the whole file to the end of `content`.
    pub(crate) fn append_to(mut self, content: &mut Vec<u8>) -> Result<(), FsError> {
        // Holes cost no read, but memory and the parser's time.
        self.disk.borrow_mut().charge(self.len)?;
        let begin = content.len();
        content.resize(begin + self.len as usize, 0);
        let got = fill(&mut self.file, &mut content[begin..])?;
        content.truncate(begin + got);
        Ok(())
    }

    /// Reads from byte `position` on; answers how many bytes there were.
    pub(crate) fn read_at(&mut self, position: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        if position >= self.len {
            return Ok(0);
        }
        self.file.seek_to(position)?;
        fill(&mut self.file, buf)
    }
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

/// Block size and number of groups decide how much memory the reader takes at once.
fn check_superblock(view: &mut View) -> Result<(), FsError> {
    let mut superblock = [0; 0x160];
    match view.read_at(SUPERBLOCK, &mut superblock) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(FsError::NotExt),
        read => read?,
    }
    let le_u32 = |at: usize| {
        u32::from_le_bytes([
            superblock[at],
            superblock[at + 1],
            superblock[at + 2],
            superblock[at + 3],
        ])
    };
    if superblock[0x38..0x3a] != [0x53, 0xef] {
        return Err(FsError::NotExt);
    }
    let (log_block_size, blocks_per_group) = (le_u32(0x18), u64::from(le_u32(0x20)));
    // The upper half counts only in 64-bit file systems, and is zero in others.
    let blocks = u64::from(le_u32(0x150)) << 32 | u64::from(le_u32(0x4));
    let fits = log_block_size <= MAX_LOG_BLOCK_SIZE
        && blocks
            .checked_mul(1024 << log_block_size)
            .is_some_and(|bytes| bytes <= view.len)
        && blocks_per_group > 0
        && blocks / blocks_per_group <= MAX_BLOCK_GROUPS;
    if fits { Ok(()) } else { Err(FsError::Superblock) }
}

/// Whether the file system was not unmounted, so that its journal may hold what is newer than the rest; and has
/// no checksum over its superblock, so that [`Journal::Hidden`] works.
fn needs_recovery(view: &mut View) -> Result<bool, FsError> {
    let mut features = [0; 8];
    view.read_at(FEATURE_INCOMPAT, &mut features)?;
    let checksummed = features[5] & RO_COMPAT_METADATA_CSUM_BYTE_1 != 0;
    Ok(features[0] & INCOMPAT_RECOVER != 0 && !checksummed)
}

/// Whether the superblock tells that the journal wants to be replayed.
///
/// The reader replays only journals with checksums (version 3), as today's `mke2fs` makes them. After a power cut
/// a file system without them is read as it stands: what was written to `/boot` long before is in its place, and
/// the guest's own kernel replays the journal when it mounts its root.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Journal {
    Shown,
    Hidden,
}

/// A region as the file system's own disk.
struct View {
    disk: SharedDisk,
    start: u64,
    len: u64,
    journal: Journal,
}

impl View {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let len = buf.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut disk = self.disk.borrow_mut();
        disk.seek(SeekFrom::Start(self.start + offset))?;
        disk.read_exact(buf)?;
        if self.journal == Journal::Hidden
            && let Some(at) = FEATURE_INCOMPAT.checked_sub(offset)
            && let Some(byte) = usize::try_from(at).ok().and_then(|at| buf.get_mut(at))
        {
            *byte &= !INCOMPAT_RECOVER;
        }
        Ok(())
    }
}

impl Ext4Read for View {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.read_at(start_byte, dst)?)
    }
}
