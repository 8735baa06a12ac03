//! A file or block device under a disk: what it can do is probed, and `O_DIRECT` is a switch.
//!
//! Direct I/O goes past the host's page cache, and wants offsets, lengths and memory in whole sectors. What does
//! not fit (only code of ours reads so; a guest's requests are whole sectors) goes through aligned memory here,
//! so that nobody else needs to know.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::SECTOR;
use crate::scratch::{Scratch, round_down, round_up};
use crate::store::Store;

/// Bytes of zeros that one write carries where the file system cannot zero a range by itself.
const ZEROS: usize = 256 << 10;

/// An open file or block device.
#[derive(Debug)]
pub struct Backing {
    file: File,
    read_only: bool,
    punches: bool,
    direct: AtomicBool,
    /// A sync failed. The kernel may have dropped the unwritten pages, and a second sync would succeed without
    /// them; so no later one may succeed.
    broken: AtomicBool,
}

impl Backing {
    /// Takes a file as it is, and probes what its file system can do.
    ///
    /// # Errors
    /// The descriptor's size or flags cannot be asked for.
    pub fn new(file: File) -> io::Result<Backing> {
        let flags = fcntl_getfl(&file)?;
        let mut backing = Backing {
            read_only: flags.intersection(OFlags::ACCMODE) == OFlags::RDONLY,
            direct: AtomicBool::new(flags.contains(OFlags::DIRECT)),
            punches: false,
            broken: AtomicBool::new(false),
            file,
        };
        // A hole behind the end changes nothing; a block device has no behind, and is not probed by losing data.
        let behind = round_up(backing.end()?);
        backing.punches = !backing.read_only && punch_hole(&backing.file, behind, SECTOR).is_ok();
        Ok(backing)
    }

    /// The descriptor allows no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Ranges can be given back to the file system.
    #[must_use]
    pub fn punches_holes(&self) -> bool {
        self.punches
    }

    /// I/O goes past the page cache, and only whole sectors to whole sectors of memory.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Acquire)
    }

    /// Switches direct I/O on, if a read of one sector shows that it works, or off. Nobody may be reading or
    /// writing meanwhile. Every duplicate of the descriptor follows.
    pub fn set_direct(&self, on: bool) {
        let direct = on && self.switch(true).is_ok() && self.one_sector_works();
        // Off cannot fail where on has not.
        let _ = self.switch(direct);
        self.direct.store(direct, Ordering::Release);
    }

    /// Bytes.
    pub(crate) fn end(&self) -> io::Result<u64> {
        // Seeking, unlike metadata, also knows the size of a block device.
        (&self.file).seek(SeekFrom::End(0))
    }

    fn switch(&self, direct: bool) -> io::Result<()> {
        let mut flags = fcntl_getfl(&self.file)?;
        flags.set(OFlags::DIRECT, direct);
        Ok(fcntl_setfl(&self.file, flags)?)
    }

    /// Whether sectors, and memory aligned to no more, are aligned enough: larger logical blocks refuse.
    fn one_sector_works(&self) -> bool {
        let mut memory = Scratch::new(2 * SECTOR as usize);
        let odd = &mut memory.bytes()[SECTOR as usize..];
        self.file.read_at(odd, SECTOR).is_ok()
    }
}

impl AsFd for Backing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Store for Backing {
    fn size(&self) -> io::Result<u64> {
        self.end()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if !self.is_direct() || is_aligned(buf, offset) {
            return FileExt::read_exact_at(&self.file, buf, offset);
        }
        let start = round_down(offset);
        let mut around = Scratch::new((round_up(offset + buf.len() as u64) - start) as usize);
        FileExt::read_exact_at(&self.file, around.bytes(), start)?;
        buf.copy_from_slice(&around.bytes()[(offset - start) as usize..][..buf.len()]);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if !self.is_direct() || is_aligned(buf, offset) {
            return FileExt::write_all_at(&self.file, buf, offset);
        }
        let start = round_down(offset);
        let end = offset + buf.len() as u64;
        let mut around = Scratch::new((round_up(end) - start) as usize);
        let bytes = around.bytes();
        if start < offset || !end.is_multiple_of(SECTOR) {
            // Whoever writes parts of sectors has the disk for himself: there is no guest.
            FileExt::read_exact_at(&self.file, bytes, start)?;
        }
        bytes[(offset - start) as usize..][..buf.len()].copy_from_slice(buf);
        FileExt::write_all_at(&self.file, bytes, start)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other(
                "an earlier flush failed, and what it covered may be lost",
            ));
        }
        File::sync_data(&self.file).inspect_err(|_| self.broken.store(true, Ordering::Relaxed))
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        Store::reserve(&self.file, len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        Store::try_lock(&self.file)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        Store::punch_hole(&self.file, offset, len)
    }

    fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if unmap && self.punches {
            return self.punch_hole(offset, len);
        }
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, offset, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeros(self, offset, len),
            Err(error) => Err(error.into()),
        }
    }

    fn backing(&self) -> Option<&Backing> {
        Some(self)
    }
}

/// Whether direct I/O takes this.
fn is_aligned(buf: &[u8], offset: u64) -> bool {
    let sector = SECTOR as usize;
    buf.as_ptr().addr().is_multiple_of(sector)
        && buf.len().is_multiple_of(sector)
        && offset.is_multiple_of(SECTOR)
}

pub(crate) fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, offset, len)?)
}

/// Zeros a range the long way.
pub(crate) fn write_zeros(store: &impl Store, mut offset: u64, mut len: u64) -> io::Result<()> {
    let mut zeros = Scratch::new(len.min(ZEROS as u64) as usize);
    while len > 0 {
        let now = len.min(ZEROS as u64);
        store.write_all_at(&zeros.bytes()[..now as usize], offset)?;
        (offset, len) = (offset + now, len - now);
    }
    Ok(())
}
