//! Guest physical memory: where RAM is, where devices are, and the mapping that backs the RAM.
//!
//! ```text
//! 0                      RAM, at most 3 GiB
//! 3 GiB    0xc000_0000   32-bit PCI window (unused by our devices, wanted by PCI root bridges)
//! 3.5 GiB  0xe000_0000   ECAM: 256 MiB, of which bus 0 takes the first MiB
//!          0xfec0_0000   IOAPIC, 0xfee0_0000 local APICs, 0xfffb_c000 KVM's TSS and identity map
//! 4 GiB                  the rest of RAM
//! above RAM              64-bit PCI window: 32 GiB, aligned to its size, as edk2 has it
//! ```
//!
//! Nothing here touches a guest page: the host's memory is taken as the guest writes.

pub mod dirty;
pub mod release;
pub mod userfault;

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::bitmap::{NewBitmap, RefSlice};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

use dirty::DirtyPages;
use serde::{Deserialize, Serialize};

/// The guest's RAM, which remembers what this process wrote to it. Cloning shares it.
pub type GuestMemory = GuestMemoryMmap<DirtyPages>;
/// A piece of the guest's RAM.
pub type VolatileSlice<'m> = vm_memory::VolatileSlice<'m, RefSlice<'m, DirtyPages>>;

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// RAM below this address, devices from it up to 4 GiB.
pub const LOW_RAM_END: u64 = 3 * GIB;
pub const HIGH_RAM_START: u64 = 4 * GIB;

/// The window in which the guest may place 32-bit BARs.
pub const PCI_WINDOW_32: (u64, u64) = (LOW_RAM_END, GIB / 2);
/// PCIe's enhanced configuration access: 1 MiB a bus, one bus.
pub const ECAM_BASE: u64 = 0xe000_0000;
pub const ECAM_SIZE: u64 = MIB;
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
pub const LOCAL_APIC_BASE: u64 = 0xfee0_0000;
/// Three pages that KVM needs on some processors; the identity map's page is right before them.
pub const KVM_TSS_BASE: u64 = 0xfffb_d000;
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// Whether the host may put huge pages under the guest's RAM, which it then takes 2 MiB at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HugePages {
    /// Wherever it has them: addresses are translated in fewer steps, and RAM is taken with fewer faults. The host splits
    /// one when a part of it is given back, or written while a diff snapshot is kept account of. A machine that went on
    /// from a snapshot has them from its next boot on; one whose balloon took pages gets no more of them until then.
    #[default]
    Transparent,
    /// Only where the kernel is loaded. For many small guests that do little: an idle one takes less of the host.
    None,
}

impl HugePages {
    pub const ALL: [Self; 2] = [Self::Transparent, Self::None];

    /// As it is written in a [`VmSpec`](crate::spec::VmSpec).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transparent => "transparent",
            Self::None => "none",
        }
    }
}

const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_NORESERVE;

/// Bytes of the 64-bit PCI window.
const PCI_WINDOW_64_SIZE: u64 = 32 * GIB;

/// Where things are for one size of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    memory: u64,
}

impl Layout {
    /// `memory` is in bytes, a multiple of a page.
    #[must_use]
    pub fn new(memory: u64) -> Self {
        Self { memory }
    }

    /// RAM as (start, bytes), ascending.
    #[must_use]
    pub fn ram(&self) -> Vec<(u64, u64)> {
        let low = self.memory.min(LOW_RAM_END);
        let high = self.memory - low;
        let mut ranges = vec![(0, low)];
        if high > 0 {
            ranges.push((HIGH_RAM_START, high));
        }
        ranges
    }

    /// The first address above the RAM that starts at 0.
    #[must_use]
    pub fn low_ram_end(&self) -> u64 {
        self.memory.min(LOW_RAM_END)
    }

    /// The window for 64-bit BARs as (start, bytes).
    #[must_use]
    pub fn pci_window_64(&self) -> (u64, u64) {
        let end_of_ram = HIGH_RAM_START + self.memory.saturating_sub(LOW_RAM_END);
        (
            end_of_ram.next_multiple_of(PCI_WINDOW_64_SIZE),
            PCI_WINDOW_64_SIZE,
        )
    }

    /// Maps the RAM: private, anonymous, without reserving swap for it.
    ///
    /// # Errors
    /// The host refused the mapping.
    pub fn map(&self) -> io::Result<GuestMemory> {
        self.map_with(|builder, _| builder.with_mmap_flags(PRIVATE | libc::MAP_ANONYMOUS))
    }

    /// Maps the RAM as it is in `file`, one range after the other: read when it is looked at, and never written
    /// back. The file must be as long as the RAM and stay so: beyond its end is SIGBUS.
    ///
    /// # Errors
    /// The host refused the mapping.
    pub fn map_file(&self, file: File) -> io::Result<GuestMemory> {
        let file = Arc::new(file);
        self.map_with(|builder, offset| {
            builder
                .with_mmap_flags(PRIVATE)
                .with_file_offset(FileOffset::from_arc(Arc::clone(&file), offset))
        })
    }

    fn map_with(
        &self,
        back: impl Fn(MmapRegionBuilder<DirtyPages>, u64) -> MmapRegionBuilder<DirtyPages>,
    ) -> io::Result<GuestMemory> {
        let mut offset = 0;
        let regions = self
            .ram()
            .into_iter()
            .map(|(start, bytes)| {
                let size = usize::try_from(bytes).map_err(io::Error::other)?;
                let builder = MmapRegionBuilder::new_with_bitmap(size, DirtyPages::with_len(size))
                    .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
                let mapping = back(builder, offset).build().map_err(io::Error::other)?;
                offset += bytes;
                GuestRegionMmap::new(mapping, GuestAddress(start))
                    .ok_or_else(|| io::Error::other("guest RAM beyond the address space"))
            })
            .collect::<io::Result<Vec<_>>>()?;
        GuestMemory::from_regions(regions).map_err(io::Error::other)
    }
}

/// Asks for huge pages under `len` bytes of RAM from `start` on, as far as they are in one piece. It is a hint;
/// where it cannot be had, ordinary pages do.
pub fn advise_huge_pages(memory: &GuestMemory, start: u64, len: u64) {
    advise(memory, start, len, libc::MADV_HUGEPAGE);
}

/// Has the host put no more huge pages under the guest's RAM. Those that are there stay.
pub fn refuse_huge_pages(memory: &GuestMemory) {
    for region in memory.iter() {
        advise(
            memory,
            region.start_addr().raw_value(),
            region.len(),
            libc::MADV_NOHUGEPAGE,
        );
    }
}

fn advise(memory: &GuestMemory, start: u64, len: u64, advice: libc::c_int) {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let Ok(slice) = memory.get_slice(GuestAddress(start), len) else {
        return;
    };
    let guard = slice.ptr_guard_mut();
    // SAFETY: the range is mapped, and the advice does not change what is in it.
    unsafe { libc::madvise(guard.as_ptr().cast(), len, advice) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ram_adds_up_and_stays_out_of_the_device_hole(mib in 32_u64..512 * 1024) {
            let layout = Layout::new(mib * MIB);
            let ram = layout.ram();
            prop_assert_eq!(ram.iter().map(|r| r.1).sum::<u64>(), mib * MIB);
            for (start, size) in ram {
                prop_assert!(start + size <= LOW_RAM_END || start >= HIGH_RAM_START);
                prop_assert!(start + size <= layout.pci_window_64().0);
            }
        }
    }

    #[test]
    fn four_gib_are_mapped_around_the_hole_without_being_touched() {
        let memory = Layout::new(4 * GIB).map().unwrap();
        assert!(memory.address_in_range(GuestAddress(LOW_RAM_END - 1)));
        assert!(!memory.address_in_range(GuestAddress(LOW_RAM_END)));
        assert!(memory.address_in_range(GuestAddress(HIGH_RAM_START + GIB - 1)));
    }
}
