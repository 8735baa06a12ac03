//! Reading files from an ext2, 3 or 4 file system in a region of a disk.

use std::cell::RefCell;
use std::error::Error;
use std::io::{self, SeekFrom};
use std::rc::Rc;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

use crate::ReadSeek;
use crate::partitions::Region;

/// A disk that several file systems look into by turns.
pub(crate) type SharedDisk = Rc<RefCell<dyn ReadSeek>>;

/// Bytes that looking into one file system may read. A damaged or hostile one can send its reader in circles.
const READ_BUDGET: u64 = 2 << 30;
/// A directory with more entries is cut off there; boot directories have tens.
const MAX_ENTRIES: usize = 4096;

/// Limits of what the superblock may say before the reader believes it.
const SUPERBLOCK: u64 = 1024;
const MAX_LOG_BLOCK_SIZE: u32 = 6;
const MAX_BLOCK_GROUPS: u64 = 1 << 19;
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
    #[error(transparent)]
    Ext4(#[from] Ext4Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file system that may hold `/boot`. Paths are absolute; symbolic links are followed inside the file system.
pub(crate) struct FileSystem(Ext4);

impl FileSystem {
    pub(crate) fn open(disk: &SharedDisk, region: &Region) -> Result<FileSystem, FsError> {
        let view = |journal| View {
            disk: Rc::clone(disk),
            start: region.start,
            len: region.len,
            budget: READ_BUDGET,
            journal,
        };
        check_superblock(&mut view(Journal::Shown))?;
        match Ext4::load(Box::new(view(Journal::Shown))) {
            Err(Ext4Error::Incompatible(why)) if needs_recovery(&mut view(Journal::Shown))? => {
                tracing::warn!(%why, "the journal of an unclean file system is not replayed");
                Ok(FileSystem(Ext4::load(Box::new(view(Journal::Hidden)))?))
            }
            loaded => Ok(FileSystem(loaded?)),
        }
    }

    /// The file's content, or none if there is no such file.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, FsError> {
        let mut file = match self.0.open(path) {
            Ok(file) => file,
            Err(e) if is_absence(&e) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let len = file.metadata().len();
        if len > limit {
            return Err(FsError::TooLarge {
                path: path.to_owned(),
                len,
                limit,
            });
        }
        let mut content = vec![0; len as usize];
        let mut done = 0;
        while done < content.len() {
            match file.read_bytes(&mut content[done..])? {
                0 => break,
                got => done += got,
            }
        }
        content.truncate(done);
        Ok(Some(content))
    }

    /// The names in a directory; none if there is no such directory.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let entries = match self.0.read_dir(path) {
            Ok(entries) => entries,
            Err(e) if is_absence(&e) => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        };
        let mut names = Vec::new();
        for entry in entries.take(MAX_ENTRIES) {
            // A name that is not UTF-8 is nothing that a boot loader reads.
            if let Ok(name) = entry?.file_name().as_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
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
    budget: u64,
    journal: Journal,
}

impl View {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let len = buf.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.budget = self.budget.checked_sub(len).ok_or_else(|| {
            io::Error::other("the file system makes its reader read too much; is it damaged?")
        })?;
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
