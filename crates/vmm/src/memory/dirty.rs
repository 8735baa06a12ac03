//! Which pages of guest memory this process has written: devices, not vCPUs, for those KVM keeps its own log.
//!
//! What is written through `vm-memory` marks itself. A system call that scatters into guest memory by plain
//! addresses does not, so a virtqueue marks the buffers of each chain that it completes. A page that is
//! marked already costs a load, no more.

use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::bitmap::{Bitmap, NewBitmap, RefSlice, WithBitmapSlice};

/// Bytes of a page, as KVM's dirty log counts them.
pub const PAGE: u64 = 4096;
const PAGE_SHIFT: u32 = PAGE.trailing_zeros();
const BITS: usize = u64::BITS as usize;

/// A bit for each page of one region.
#[derive(Debug, Default)]
pub struct DirtyPages {
    words: Box<[AtomicU64]>,
}

impl DirtyPages {
    /// Takes all marks off, and returns them as KVM's dirty log has them: 64 pages a word, lowest bit first.
    /// Nobody may be writing to memory, or a mark might be missed.
    #[must_use]
    pub fn take(&self) -> Vec<u64> {
        let words = self.words.iter();
        words.map(|word| word.swap(0, Ordering::AcqRel)).collect()
    }

    #[inline]
    fn mark(&self, page: usize) {
        let Some(word) = self.words.get(page / BITS) else {
            return;
        };
        let bit = 1 << (page % BITS);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }
}

impl<'a> WithBitmapSlice<'a> for DirtyPages {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for DirtyPages {
    #[inline]
    fn mark_dirty(&self, offset: usize, len: usize) {
        if len > 0 {
            let first = offset >> PAGE_SHIFT;
            let last = offset.saturating_add(len - 1) >> PAGE_SHIFT;
            self.mark(first);
            // Most accesses are within a page, and none is longer than its region.
            if last > first {
                for page in first + 1..=last.min(self.words.len() * BITS) {
                    self.mark(page);
                }
            }
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let page = offset >> PAGE_SHIFT;
        let word = self.words.get(page / BITS);
        word.is_some_and(|word| word.load(Ordering::Acquire) & 1 << (page % BITS) != 0)
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

impl NewBitmap for DirtyPages {
    fn with_len(len: usize) -> Self {
        let pages = len.div_ceil(PAGE as usize);
        Self {
            words: (0..pages.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    use crate::memory::{GuestMemory, Layout, MIB};

    #[test]
    fn a_write_marks_each_page_that_it_touches() {
        let pages = DirtyPages::with_len(70 * PAGE as usize);
        pages.mark_dirty(PAGE as usize - 1, 2);
        pages.mark_dirty(69 * PAGE as usize, 0);
        pages.mark_dirty(64 * PAGE as usize, PAGE as usize);
        assert!(pages.dirty_at(0) && pages.dirty_at(PAGE as usize) && !pages.dirty_at(2 * PAGE as usize));
        assert_eq!(pages.take(), [0b11, 0b1]);
        assert_eq!(pages.take(), [0, 0]);
    }

    #[test]
    fn marks_beyond_the_region_are_nothing() {
        let pages = DirtyPages::with_len(PAGE as usize);
        pages.mark_dirty(usize::MAX - 4, 100);
        pages.mark_dirty(1 << 40, 1);
        pages.mark_dirty(0, usize::MAX);
        assert!(!pages.dirty_at(1 << 40));
        assert_eq!(pages.take(), [u64::MAX]);
    }

    #[test]
    fn writes_through_guest_memory_mark_themselves_and_reads_do_not() {
        let memory: GuestMemory = Layout::new(8 * MIB).map().unwrap();
        memory.write_slice(&[7; 5000], GuestAddress(0x3ffe)).unwrap();
        let mut data = [0; 64];
        memory.read_slice(&mut data, GuestAddress(0x10_0000)).unwrap();
        let region = memory.find_region(GuestAddress(0)).unwrap();
        let marked = (**region).bitmap().take();
        assert_eq!(marked[0], 0b11_1000);
        assert!(marked[1..].iter().all(|&word| word == 0));
    }
}
