//! A plain file (or block device) as a disk.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backing::Backing;
use crate::scratch::round_down;
use crate::store::Store;
use crate::{Access, Disk, Extent, Place, check_range};

/// A disk whose sector N is at byte 512·N of a file.
#[derive(Debug)]
pub struct RawDisk {
    backing: Backing,
    size: AtomicU64,
    read_only: bool,
}

impl RawDisk {
    /// Takes the size from the file, rounded down to whole sectors. The disk is read-only if the descriptor is.
    ///
    /// # Errors
    /// The descriptor's size or flags cannot be asked for.
    pub fn new(file: File) -> io::Result<RawDisk> {
        let backing = Backing::new(file)?;
        Ok(RawDisk {
            size: AtomicU64::new(round_down(backing.end()?)),
            read_only: backing.is_read_only(),
            backing,
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

    fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "the disk is read-only",
            ));
        }
        check_range(self.size(), offset, len)
    }
}

impl Disk for RawDisk {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, buf.len() as u64)?;
        self.backing.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_write(offset, buf.len() as u64)?;
        self.backing.write_all_at(buf, offset)
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.backing.sync_data()
    }

    fn can_discard(&self) -> bool {
        !self.read_only && self.backing.punches_holes()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_write(offset, len)?;
        self.backing.punch_hole(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check_write(offset, len)?;
        self.backing.zero(offset, len, unmap)
    }

    fn refresh_size(&self) -> io::Result<u64> {
        let size = round_down(self.backing.end()?);
        self.size.store(size, Ordering::Release);
        Ok(size)
    }

    fn set_direct(&self, on: bool) {
        self.backing.set_direct(on);
    }

    fn backings(&self) -> Vec<&Backing> {
        vec![&self.backing]
    }

    fn locate(&self, offset: u64, len: u64, access: Access) -> Extent {
        let refused = match access {
            Access::Read => check_range(self.size(), offset, len),
            Access::Write => self.check_write(offset, len),
        };
        let place = refused.is_ok().then_some(Place { backing: 0, offset });
        Extent { len, place }
    }
}
