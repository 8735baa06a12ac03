//! Guest memory as `virtio-queue` gets it: look-ups without a search, and a used index that can wait.
//!
//! `virtio-queue` looks up a guest address for each field of a ring that it reads or writes. `vm-memory`'s own look-up is
//! a binary search over the regions and an iterator over the pieces of the result. [`QueueMemory`] keeps the region that
//! holds the used ring at hand. Drivers allocate the rings of a queue in one piece, so a look-up is one comparison;
//! other addresses are searched for.
//!
//! Instructions for a chain, from `pop` to `notify` in batches of 32 (`cargo bench --bench queue` under callgrind): 569
//! with one buffer and 853 with three. A search for each field adds about 230 and 420. A ring of our own, with host
//! addresses in place of look-ups, took 363 and 643.

use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use vm_memory::bitmap::{BS, Bitmap as _, RefSlice};
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result};
use vm_memory::{
    GuestAddress, GuestMemory as GuestMemoryAccess, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress, Permissions,
};

use crate::memory::dirty::DirtyPages;
use crate::memory::{GuestMemory, VolatileSlice};

/// Offset of `idx` in the used ring, and its length in bytes (2.7.8).
pub(super) const USED_INDEX: u64 = 2;
const INDEX_LEN: usize = size_of::<u16>();

/// The guest's RAM, for the rings and chains of one queue.
pub struct QueueMemory {
    ram: GuestMemory,
    /// The region that holds the used ring, its first address and its length in bytes.
    near: Arc<GuestRegionMmap<DirtyPages>>,
    near_start: u64,
    near_len: u64,
    /// The address of the used ring's `idx`.
    used_index: GuestAddress,
    /// Takes what [`Unpublished`] keeps from it. No page of the guest's is marked for that.
    withheld: AtomicU16,
    no_pages: DirtyPages,
}

impl QueueMemory {
    /// `None` if `used_ring` is not in RAM.
    pub(in crate::virtio) fn new(ram: &GuestMemory, used_ring: GuestAddress) -> Option<Self> {
        let region = ram.find_region(used_ring)?;
        let (start, len) = (region.start_addr(), region.len());
        // The only call that hands out the region itself. What is left without it is dropped.
        let (_, near) = ram.remove_region(start, len).ok()?;
        Some(Self {
            ram: ram.clone(),
            near,
            near_start: start.0,
            near_len: len,
            used_index: GuestAddress(used_ring.0.checked_add(USED_INDEX)?),
            withheld: AtomicU16::new(0),
            no_pages: DirtyPages::default(),
        })
    }

    /// All of it, for what is not about one queue.
    #[must_use]
    pub fn ram(&self) -> &GuestMemory {
        &self.ram
    }

    /// `len` bytes of RAM from `address` on. There are holes between RAM's regions ([`crate::memory::Layout`]), so they
    /// are in one region or not all in RAM.
    ///
    /// # Errors
    /// They are not all in RAM.
    #[inline]
    pub(in crate::virtio) fn slice(&self, address: GuestAddress, len: usize) -> Result<VolatileSlice<'_>> {
        let offset = address.0.wrapping_sub(self.near_start);
        if offset < self.near_len {
            return self.near.get_slice(MemoryRegionAddress(offset), len);
        }
        self.far_slice(address, len)
    }

    /// Marks `len` bytes of RAM from `address` on as written by the device.
    #[inline]
    pub(in crate::virtio) fn mark_written(&self, address: GuestAddress, len: usize) {
        let offset = address.0.wrapping_sub(self.near_start);
        if offset < self.near_len {
            self.near.bitmap().mark_dirty(offset as usize, len);
        } else if let Ok(slice) = self.far_slice(address, len) {
            slice.bitmap().mark_dirty(0, len);
        }
    }

    #[inline(never)]
    fn far_slice(&self, address: GuestAddress, len: usize) -> Result<VolatileSlice<'_>> {
        let region = self.ram.find_region(address);
        let region = region.ok_or(Error::InvalidGuestAddress(address))?;
        let offset = address.0 - region.start_addr().0;
        region.get_slice(MemoryRegionAddress(offset), len)
    }
}

impl GuestMemoryAccess for QueueMemory {
    type PhysicalMemory = GuestMemory;
    type Bitmap = DirtyPages;

    fn check_range(&self, address: GuestAddress, len: usize, _: Permissions) -> bool {
        len == 0 || self.slice(address, len).is_ok()
    }

    #[inline]
    fn get_slices<'a>(
        &'a self,
        address: GuestAddress,
        len: usize,
        _: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, DirtyPages>>> {
        Piece::of(self, address, len)
    }
}

/// [`QueueMemory`] that keeps the used index from the driver: [`virtio_queue::QueueT::add_used`] writes the element and
/// the index, and here the index goes to a place of our own.
///
/// Used elements are shown by the batch for two reasons. All buffers of a packet in mergeable receive buffers must appear
/// at once (virtio 1.2, 5.1.6.4): a driver that sees only the first one drops the packet. And each store to the index
/// takes its cache line away from a driver that polls it.
pub(super) struct Unpublished<'q>(pub(super) &'q QueueMemory);

impl GuestMemoryAccess for Unpublished<'_> {
    type PhysicalMemory = GuestMemory;
    type Bitmap = DirtyPages;

    fn check_range(&self, address: GuestAddress, len: usize, access: Permissions) -> bool {
        self.0.check_range(address, len, access)
    }

    #[inline]
    fn get_slices<'a>(
        &'a self,
        address: GuestAddress,
        len: usize,
        _: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, DirtyPages>>> {
        let Self(memory) = self;
        if address == memory.used_index && len == INDEX_LEN {
            let no_page = RefSlice::new(&memory.no_pages, 0);
            // SAFETY: `withheld` is as long as `len` and lives as long as the slice. Only such slices access it.
            let slice =
                unsafe { VolatileSlice::with_bitmap(memory.withheld.as_ptr().cast(), len, no_page, None) };
            return Ok(Piece(Some(slice)));
        }
        Piece::of(memory, address, len)
    }
}

/// The one piece that a look-up yields, or nothing where nothing was asked for.
struct Piece<'m>(Option<VolatileSlice<'m>>);

impl<'m> Piece<'m> {
    #[inline]
    fn of(memory: &'m QueueMemory, address: GuestAddress, len: usize) -> Result<Self> {
        match len {
            0 => Ok(Self(None)),
            _ => Ok(Self(Some(memory.slice(address, len)?))),
        }
    }
}

impl<'m> Iterator for Piece<'m> {
    type Item = Result<VolatileSlice<'m>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl FusedIterator for Piece<'_> {}

impl<'m> GuestMemorySliceIterator<'m, RefSlice<'m, DirtyPages>> for Piece<'m> {
    /// As the provided one; but there is no error to look for.
    #[inline]
    fn stop_on_error(self) -> Result<impl Iterator<Item = VolatileSlice<'m>>> {
        Ok(self.0.into_iter())
    }
}
