//! What an overlay needs of a file.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::backing::{Backing, punch_hole, write_zeros};

/// Positioned reads and writes with an explicit barrier. A [`Backing`] in production, a [`File`] to tools; the
/// overlay's tests put a file here that loses power.
pub trait Store: Send + Sync + 'static {
    /// Bytes.
    fn size(&self) -> io::Result<u64>;
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when all that was written before survives a power cut.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes the file at least `len` bytes long, and takes the space for them if the file system can. What is new
    /// reads as zeros.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// Takes the advisory lock that lasts as long as the open file does. False: somebody else has it.
    fn try_lock(&self) -> io::Result<bool>;
    /// Gives the space of a range back; it reads as zeros from then on.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes a range read as zeros; with `unmap` its space may be given back.
    fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;

    /// What an I/O engine may read and write without asking further.
    fn backing(&self) -> Option<&Backing> {
        None
    }
}

impl Store for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        match fallocate(self, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP) if Store::size(self)? < len => self.set_len(len),
            Err(Errno::OPNOTSUPP) => Ok(()),
            done => Ok(done?),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        match File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        punch_hole(self, offset, len)
    }

    fn zero(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        write_zeros(self, offset, len)
    }
}
