//! Host memory that one system call gathers from or scatters to, so that a packet moves between guest memory
//! and a TAP or socket without a copy in between.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use crate::memory::VolatileSlice;

/// `IOV_MAX` of Linux.
pub(super) const MAX_VECTORS: usize = 1024;

/// Addresses for `readv(2)` and `writev(2)`. Kept from packet to packet, so that none allocates.
#[derive(Default)]
pub(super) struct Vectors(VecDeque<libc::iovec>);

// SAFETY: the addresses mean something in every thread, and are only followed in the unsafe methods below.
unsafe impl Send for Vectors {}

impl Vectors {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Something of our own.
    pub(super) fn push_own(&mut self, slice: &mut [u8]) {
        self.0.push_back(libc::iovec {
            iov_base: slice.as_mut_ptr().cast(),
            iov_len: slice.len(),
        });
    }

    /// Something of the guest's, that is to stay mapped.
    pub(super) fn extend_host(&mut self, ranges: impl Iterator<Item = (NonNull<u8>, usize)>) {
        self.0.extend(ranges.map(|(start, len)| libc::iovec {
            iov_base: start.as_ptr().cast(),
            iov_len: len,
        }));
    }

    pub(super) fn extend_guest<'m>(&mut self, slices: impl Iterator<Item = VolatileSlice<'m>>) {
        self.0.extend(slices.map(|slice| libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        }));
    }

    /// The first `len` bytes of `slices`.
    pub(super) fn extend_guest_up_to<'m>(
        &mut self,
        slices: impl Iterator<Item = VolatileSlice<'m>>,
        len: usize,
    ) {
        let mut left = len;
        self.extend_guest(slices.map_while(|slice| {
            let part = slice.subslice(0, left.min(slice.len())).ok()?;
            left -= part.len();
            (!part.is_empty()).then_some(part)
        }));
    }

    pub(super) fn pop_front(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
    }

    pub(super) fn pop_back(&mut self) {
        self.0.pop_back();
    }

    /// Scatters what one read yields.
    ///
    /// # Safety
    /// All that was pushed is mapped still; it is guest memory, or borrowed exclusively by the caller.
    ///
    /// # Errors
    /// Those of `readv(2)`.
    pub(super) unsafe fn read_from(&mut self, file: &impl AsRawFd) -> io::Result<usize> {
        let vectors = self.0.make_contiguous();
        let count = count(vectors)?;
        // SAFETY: the kernel writes to what the caller vouches for; nobody holds a reference into guest memory.
        let read = unsafe { libc::readv(file.as_raw_fd(), vectors.as_ptr(), count) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// Gathers one write.
    ///
    /// # Safety
    /// All that was pushed is mapped still.
    ///
    /// # Errors
    /// Those of `writev(2)`.
    pub(super) unsafe fn write_to(&mut self, file: &impl AsRawFd) -> io::Result<usize> {
        let vectors = self.0.make_contiguous();
        let count = count(vectors)?;
        // SAFETY: the kernel reads what the caller vouches for.
        let written = unsafe { libc::writev(file.as_raw_fd(), vectors.as_ptr(), count) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }
}

fn count(vectors: &[libc::iovec]) -> io::Result<i32> {
    if vectors.len() > MAX_VECTORS {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    i32::try_from(vectors.len()).map_err(io::Error::other)
}
