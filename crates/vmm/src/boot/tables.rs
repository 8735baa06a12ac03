//! The processor tables that the 64-bit entry needs: a flat GDT, and the first GiB mapped one to one.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::memory::GuestMemory;

pub const GDT_ADDRESS: u64 = 0x500;
pub const GDT_LIMIT: u16 = (GDT.len() * 8 - 1) as u16;
/// Selectors that the boot protocol asks for (`__BOOT_CS`, `__BOOT_DS`).
pub const CODE_SELECTOR: u16 = 0x10;
pub const DATA_SELECTOR: u16 = 0x18;
pub const STACK_TOP: u64 = 0x8ff0;
pub const PML4_ADDRESS: u64 = 0x9000;
const PDPT_ADDRESS: u64 = 0xa000;
const PD_ADDRESS: u64 = 0xb000;

/// Null, unused, 64-bit code, data.
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;

pub(super) fn write(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    for (address, entry) in (GDT_ADDRESS..).step_by(8).zip(GDT) {
        memory.write_obj(entry, GuestAddress(address))?;
    }
    memory.write_obj(PDPT_ADDRESS | PRESENT_WRITABLE, GuestAddress(PML4_ADDRESS))?;
    memory.write_obj(PD_ADDRESS | PRESENT_WRITABLE, GuestAddress(PDPT_ADDRESS))?;
    let mut directory = [0; 4096];
    for (entry, page) in directory.chunks_exact_mut(8).zip(0_u64..) {
        entry.copy_from_slice(&(page << 21 | LARGE_PAGE | PRESENT_WRITABLE).to_le_bytes());
    }
    memory.write_slice(&directory, GuestAddress(PD_ADDRESS))
}
