//! Scattered memory that others write to at the same time: a guest's.

use std::ptr;

use crate::SECTOR;

/// A piece of memory, as the kernel takes it (`struct iovec`). It is an address and no reference: what may be
/// done with it is what [`Engine::submit`](super::Engine::submit) was promised.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Segment(libc::iovec);

// SAFETY: an address and a length; whoever uses it answers for it.
unsafe impl Send for Segment {}

impl Segment {
    #[must_use]
    pub fn new(address: *mut u8, len: usize) -> Segment {
        Segment(libc::iovec {
            iov_base: address.cast(),
            iov_len: len,
        })
    }

    #[must_use]
    pub fn address(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether direct I/O takes it.
    pub(super) fn is_aligned(&self) -> bool {
        let sector = SECTOR as usize;
        self.address().addr().is_multiple_of(sector) && self.len().is_multiple_of(sector)
    }

    /// The first `len` bytes at most, less `skip` bytes of them.
    fn part(&self, skip: usize, len: usize) -> Segment {
        let skip = skip.min(self.len());
        Segment::new(self.address().wrapping_add(skip), len.min(self.len() - skip))
    }
}

/// What the kernel takes for `segments`.
pub(super) fn as_iovecs(segments: &[Segment]) -> *const libc::iovec {
    segments.as_ptr().cast()
}

/// Appends the pieces that make up `len` bytes from `skip` on.
pub(super) fn slice(segments: &[Segment], mut skip: u64, mut len: u64, pieces: &mut Vec<Segment>) {
    for segment in segments {
        let here = segment.len() as u64;
        if skip >= here {
            skip -= here;
            continue;
        }
        if len == 0 {
            break;
        }
        let piece = segment.part(skip as usize, usize::try_from(len).unwrap_or(usize::MAX));
        (skip, len) = (0, len - piece.len() as u64);
        pieces.push(piece);
    }
}

/// Copies `from` to `segments` at `skip`.
///
/// # Safety
/// The segments are mapped, writable, and no Rust reference points into them.
pub(super) unsafe fn scatter(from: &[u8], segments: &[Segment], skip: u64) {
    let mut pieces = Vec::new();
    slice(segments, skip, from.len() as u64, &mut pieces);
    let mut rest = from;
    for piece in pieces {
        let (now, later) = rest.split_at(piece.len());
        // SAFETY: by contract, and `slice` does not leave the segments.
        unsafe { ptr::copy_nonoverlapping(now.as_ptr(), piece.address(), now.len()) };
        rest = later;
    }
}

/// Copies `segments` from `skip` on to `to`.
///
/// # Safety
/// The segments are mapped, and no Rust reference points into them.
pub(super) unsafe fn gather(segments: &[Segment], skip: u64, to: &mut [u8]) {
    let mut pieces = Vec::new();
    slice(segments, skip, to.len() as u64, &mut pieces);
    let mut rest = to;
    for piece in pieces {
        let (now, later) = rest.split_at_mut(piece.len());
        // SAFETY: by contract, and `slice` does not leave the segments.
        unsafe { ptr::copy_nonoverlapping(piece.address(), now.as_mut_ptr(), now.len()) };
        rest = later;
    }
}
