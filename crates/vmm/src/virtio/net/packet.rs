//! Packets between guest memory and a TAP, each by one system call and without a copy in between.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;

use crate::memory::VolatileSlice;

/// Bytes of `struct virtio_net_hdr_v1`, before each packet.
pub(super) const HEADER_LEN: usize = 12;

/// A header as we hand it out: no offloads, one buffer (5.1.6.4: `num_buffers` is 1 without mergeable buffers).
pub(super) const RX_HEADER: [u8; HEADER_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// `IOV_MAX` of Linux.
const MAX_SLICES: usize = 1024;

/// Host memory that a system call may gather from or scatter to, valid for `'a`.
pub(super) struct Slices<'a> {
    vectors: Vec<libc::iovec>,
    memory: PhantomData<&'a ()>,
}

impl<'a> Slices<'a> {
    /// The parts of a packet: something of our own, guest memory, something of our own.
    pub(super) fn new(
        head: &'a mut [u8],
        guest: impl Iterator<Item = VolatileSlice<'a>>,
        tail: &'a mut [u8],
    ) -> Self {
        let own = |slice: &mut [u8]| libc::iovec {
            iov_base: slice.as_mut_ptr().cast(),
            iov_len: slice.len(),
        };
        let mut vectors = vec![own(head)];
        vectors.extend(guest.map(|slice| libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        }));
        if !tail.is_empty() {
            vectors.push(own(tail));
        }
        Self {
            vectors,
            memory: PhantomData,
        }
    }

    /// # Errors
    /// Those of `readv(2)`.
    pub(super) fn read_from(&self, file: &File) -> io::Result<usize> {
        let count = self.count()?;
        // SAFETY: each vector is a live slice of this process, exclusively ours or guest memory, which is never
        // referenced and may change under us at any time; the borrows of 'a keep all of them mapped.
        let read = unsafe { libc::readv(file.as_raw_fd(), self.vectors.as_ptr(), count) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// # Errors
    /// Those of `writev(2)`.
    pub(super) fn write_to(&self, file: &File) -> io::Result<usize> {
        let count = self.count()?;
        // SAFETY: as in `read_from`; the kernel only reads.
        let written = unsafe { libc::writev(file.as_raw_fd(), self.vectors.as_ptr(), count) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    fn count(&self) -> io::Result<i32> {
        let count = self.vectors.len();
        if count > MAX_SLICES {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        i32::try_from(count).map_err(io::Error::other)
    }
}
