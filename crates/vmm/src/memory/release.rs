//! Gives pages of the guest back to the host.
//!
//! RAM is always a private mapping, and `MADV_DONTNEED` takes this process's copy of its pages away. What is read
//! there afterwards depends on what is mapped: zeroes where the memory is anonymous; what the snapshot had there
//! where it was restored from a file or is served by userfaultfd. A guest that gave a page away may not rely
//! on either: without `VIRTIO_BALLOON_F_PAGE_POISON` a page that comes back is uninitialised memory (virtio 1.2, 5.5.6),
//! and what comes back is the guest's own past, nobody else's. Mapping fresh pages over the range instead would
//! zero it, at the price of a mapping for every hole, of which a process may have 65,530: a guest could use
//! them up.
//!
//! By the same argument a released page does not count as written: what a diff snapshot leaves out of it, its
//! base has.
//!
//! Pages that the kernel holds for someone else, as buffers registered with io_uring, would be torn from the guest here:
//! guest memory must not be registered in a machine with a balloon.

use std::io;

use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::GuestMemory;

pub const PAGE: u64 = 4096;

/// Releases the whole pages in `len` bytes from `start` on, as far as they are RAM, and says how many bytes
/// they have.
///
/// # Errors
/// The host refused, perhaps after a part; nothing is lost then.
pub fn release(memory: &GuestMemory, start: GuestAddress, len: u64) -> io::Result<u64> {
    let end = start.raw_value().saturating_add(len);
    let mut released = 0;
    for region in memory.iter() {
        let base = region.start_addr().raw_value();
        let first = start.raw_value().max(base).checked_next_multiple_of(PAGE);
        let last = end.min(base + region.len()) / PAGE * PAGE;
        let Some((first, len)) = first.and_then(|first| Some((first, last.checked_sub(first)?))) else {
            continue;
        };
        if len == 0 {
            continue;
        }
        let bytes = usize::try_from(len).map_err(io::Error::other)?;
        let host = memory
            .get_host_address(GuestAddress(first))
            .map_err(io::Error::other)?;
        // SAFETY: the pages lie in the region's mapping, which `memory` keeps. All of this process looks at guest
        // memory as at something that changes by itself, so that other bytes there surprise nobody.
        if unsafe { libc::madvise(host.cast(), bytes, libc::MADV_DONTNEED) } < 0 {
            return Err(io::Error::last_os_error());
        }
        released += len;
    }
    Ok(released)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::Bytes;

    use super::*;
    use crate::memory::{Layout, MIB};

    const SIZE: u64 = 2 * MIB;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Wherever the range begins and ends, in the middle of pages or of nowhere.
        #[test]
        fn exactly_the_whole_pages_in_the_range_are_gone(
            start in prop_oneof![0..SIZE + PAGE, any::<u64>()],
            len in prop_oneof![0..SIZE, any::<u64>()],
        ) {
            let memory = Layout::new(SIZE).map().unwrap();
            for page in 0..SIZE / PAGE {
                memory.write_obj(1_u8, GuestAddress(page * PAGE)).unwrap();
            }
            let released = release(&memory, GuestAddress(start), len).unwrap();
            let mut expected = 0;
            for page in (0..SIZE).step_by(PAGE as usize) {
                let inside = start <= page && page + PAGE <= start.saturating_add(len);
                expected += if inside { PAGE } else { 0 };
                let mark: u8 = memory.read_obj(GuestAddress(page)).unwrap();
                prop_assert_eq!(mark == 0, inside);
            }
            prop_assert_eq!(released, expected);
        }
    }
}
