//! A UEFI firmware in place of a kernel: an ELF with a Xen/PVH note, entered in 32-bit protected mode. "x86/HVM direct
//! boot ABI" of the Xen project; edk2, `OvmfPkg/XenResetVector`.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_start_info,
};
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Address, Bytes, GuestAddress};

use super::{BootError, Entry, FIRST_KERNEL_ADDRESS, params};
use crate::acpi::RSDP_ADDRESS;
use crate::memory::{GuestMemory, Layout, MIB};

/// In the BIOS area: the firmware takes all of conventional memory for itself, and reads this late.
const START_INFO_ADDRESS: u64 = 0xc_0000;
const MEMORY_MAP_ADDRESS: u64 = START_INFO_ADDRESS + 64;
/// Since this version the structure has a memory map.
const START_INFO_VERSION: u32 = 1;
/// The firmware unpacks itself into fixed addresses below this, and needs some more to run a loader.
const LEAST_MEMORY: u64 = 64 * MIB;
/// Larger files are no firmware.
const FILE_LIMIT: u64 = 64 * MIB;

#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    #[error("the firmware needs {} MiB of memory", LEAST_MEMORY / MIB)]
    LittleMemory,
    #[error("the firmware file has {0} bytes")]
    Size(u64),
    #[error("the firmware file has no Xen/PVH entry")]
    NoEntry,
    #[error("the firmware's entry is at {0:#x}, above 4 GiB")]
    HighEntry(u64),
}

/// Puts the firmware and what it is told into fresh guest memory.
pub(super) fn load(mut file: &File, layout: &Layout, memory: &GuestMemory) -> Result<Entry, BootError> {
    let read = |source| BootError::Read {
        what: "firmware",
        source,
    };
    let size = file.metadata().map_err(read)?.len();
    if size == 0 || size > FILE_LIMIT {
        return Err(FirmwareError::Size(size).into());
    }
    if layout.low_ram_end() < LEAST_MEMORY {
        return Err(FirmwareError::LittleMemory.into());
    }
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    let lowest = Some(GuestAddress(FIRST_KERNEL_ADDRESS));
    let loaded = Elf::load(memory, None, &mut file, lowest).map_err(BootError::Load)?;
    let PvhBootCapability::PvhEntryPresent(address) = loaded.pvh_boot_cap else {
        return Err(FirmwareError::NoEntry.into());
    };
    let address = address.raw_value();
    let entry = Entry::Firmware {
        address: u32::try_from(address).map_err(|_| FirmwareError::HighEntry(address))?,
        start_info: START_INFO_ADDRESS as u32,
    };
    write_start_info(layout, memory)?;
    Ok(entry)
}

fn write_start_info(layout: &Layout, memory: &GuestMemory) -> Result<(), BootError> {
    let map = params::memory_map(layout);
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: START_INFO_VERSION,
        rsdp_paddr: RSDP_ADDRESS,
        memmap_paddr: MEMORY_MAP_ADDRESS,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(START_INFO_ADDRESS))?;
    let places = (MEMORY_MAP_ADDRESS..).step_by(size_of::<hvm_memmap_table_entry>());
    // The types have E820's numbers.
    for (place, (addr, size, type_)) in places.zip(map) {
        let entry = hvm_memmap_table_entry {
            addr,
            size,
            type_,
            ..Default::default()
        };
        memory.write_obj(entry, GuestAddress(place))?;
    }
    Ok(())
}
