//! A plain file (or block device) as a disk.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use rustix::fs::{OFlags, fcntl_getfl};

use crate::{Disk, SECTOR, check_range};

/// A disk whose sector N is at byte 512·N of a file.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    size: u64,
    read_only: bool,
}

impl RawDisk {
    /// Takes the size from the file, rounded down to whole sectors. The disk is read-only if the descriptor is.
    ///
    /// # Errors
    /// The descriptor's size or flags cannot be asked for.
    pub fn new(mut file: File) -> io::Result<RawDisk> {
        let read_only = fcntl_getfl(&file)?.intersection(OFlags::ACCMODE) == OFlags::RDONLY;
        // Seeking, unlike metadata, also knows the size of a block device.
        let end = file.seek(SeekFrom::End(0))?;
        Ok(RawDisk {
            file,
            size: end - end % SECTOR,
            read_only,
        })
    }

    /// The same disk, refusing writes whatever the descriptor allows.
    #[must_use]
    pub fn read_only(self) -> RawDisk {
        RawDisk {
            read_only: true,
            ..self
        }
    }

    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }
}

impl Disk for RawDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, buf.len())?;
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "the disk is read-only",
            ));
        }
        check_range(self.size, offset, buf.len())?;
        self.file.write_all_at(buf, offset)
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.file.sync_data()
    }
}
