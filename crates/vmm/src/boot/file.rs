//! A kernel file that goes into guest memory by mapping where it can, without being read.
//!
//! A private mapping costs microseconds where copying a kernel costs milliseconds, and machines that boot
//! the same file share the pages that neither changes. In return the file must stay as it is while a guest
//! runs from it: replace kernels by renaming, never by writing into them. A kernel from a guest's own disk
//! is never mapped.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

const PAGE: u64 = 4096;

pub(super) struct KernelFile<'a> {
    file: &'a File,
    size: u64,
    position: u64,
}

impl<'a> KernelFile<'a> {
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self {
            file,
            size,
            position: 0,
        })
    }

    /// Maps the whole pages of `buf` from the position on, and says how many bytes that are.
    fn map<B: BitmapSlice>(&mut self, buf: &VolatileSlice<'_, B>) -> io::Result<usize> {
        let guard = buf.ptr_guard_mut();
        let target = guard.as_ptr();
        let len = self.mappable(target as u64, buf.len() as u64);
        if len == 0 {
            return Ok(0);
        }
        let position = libc::off_t::try_from(self.position).map_err(io::Error::other)?;
        // SAFETY: replaces whole pages inside of `buf`, which is guest memory that we may write; its owner
        // unmaps the range as a whole, whatever is mapped there. Guest memory is only used by pointers that
        // expect it to change at any time.
        let mapped = unsafe {
            libc::mmap(
                target.cast(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                self.file.as_raw_fd(),
                position,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.position += len as u64;
        Ok(len)
    }

    /// How many bytes from the position can be mapped at `address`: whole pages that the file has.
    fn mappable(&self, address: u64, len: u64) -> usize {
        let left = self.size.saturating_sub(self.position);
        if !self.position.is_multiple_of(PAGE) || !address.is_multiple_of(PAGE) {
            return 0;
        }
        usize::try_from(len.min(left) / PAGE * PAGE).unwrap_or(0)
    }
}

impl Read for KernelFile<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(self.position))?;
        let len = self.file.read(buf)?;
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for KernelFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(offset) => (self.position, offset),
            SeekFrom::End(offset) => (self.size, offset),
        };
        self.position = base
            .checked_add_signed(offset)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl ReadVolatile for KernelFile<'_> {
    /// Fills all of `buf`: what cannot be mapped, as the rest of a page, is read.
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let mapped = self.map(buf).map_err(VolatileMemoryError::IOError)?;
        let mut rest = buf.offset(mapped)?;
        if !rest.is_empty() {
            self.file
                .seek(SeekFrom::Start(self.position))
                .map_err(VolatileMemoryError::IOError)?;
            self.file.read_exact_volatile(&mut rest)?;
            self.position += rest.len() as u64;
        }
        Ok(buf.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory::{Layout, MIB};

    /// Pages and the rest of a page arrive; what the guest writes stays out of the file.
    #[test]
    fn mapped_and_read_parts_join() {
        let bytes: Vec<u8> = (0..20_000_u32).map(|n| (n / 7) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let memory = Layout::new(32 * MIB).map().unwrap();
        for (at, from) in [(MIB, 0), (2 * MIB, 4096), (3 * MIB + 1, 4096), (4 * MIB, 5)] {
            let mut kernel = KernelFile::new(&file).unwrap();
            kernel.seek(SeekFrom::Start(from)).unwrap();
            let len = bytes.len() - from as usize;
            memory
                .read_exact_volatile_from(GuestAddress(at), &mut kernel, len)
                .unwrap();
            let mut found = vec![0; len];
            memory.read_slice(&mut found, GuestAddress(at)).unwrap();
            assert_eq!(found, bytes[from as usize..]);
            memory.write_slice(&[0xff; 8], GuestAddress(at)).unwrap();
        }
        let mut there = [0; 8];
        file.read_exact_at(&mut there, 0).unwrap();
        assert_eq!(there, bytes[..8]);
        let mut kernel = KernelFile::new(&file).unwrap();
        let beyond = memory.read_exact_volatile_from(GuestAddress(MIB), &mut kernel, 30_000);
        assert!(beyond.is_err());
    }
}
