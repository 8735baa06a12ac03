//! Linux's "zero page": memory map, command line, initrd, where ACPI begins. Linux boot protocol 2.15.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{Bytes, GuestAddress};

use super::{BootError, COMMAND_LINE_SIZE};
use crate::acpi::RSDP_ADDRESS;
use crate::memory::{ECAM_BASE, ECAM_SIZE, GuestMemory, Layout, MIB};

const BOOT_PARAMS_ADDRESS: u64 = 0x7000;
const COMMAND_LINE_ADDRESS: u64 = 0x2_0000;
/// Conventional memory ends where a PC has its extended BIOS data area.
const LOW_MEMORY_END: u64 = 0x9_fc00;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448; // "HdrS"
const PROTOCOL_2_15: u16 = 0x020f;
const LOADER_UNDEFINED: u8 = 0xff;
const KERNEL_ALIGNMENT: u32 = 0x20_0000;

/// Returns the address of the parameters. `initrd` is (address, bytes).
pub(super) fn write(
    memory: &GuestMemory,
    layout: &Layout,
    cmdline: &str,
    initrd: Option<(u64, u64)>,
) -> Result<u64, BootError> {
    let cmdline = cmdline.as_bytes();
    if cmdline.len() >= COMMAND_LINE_SIZE {
        return Err(BootError::CommandLineTooLong(cmdline.len()));
    }
    // Fresh memory is zero: the line's end is there already.
    memory.write_slice(cmdline, GuestAddress(COMMAND_LINE_ADDRESS))?;

    let mut params = boot_params {
        acpi_rsdp_addr: RSDP_ADDRESS,
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.version = PROTOCOL_2_15;
    params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
    params.hdr.cmd_line_ptr = COMMAND_LINE_ADDRESS as u32;
    params.hdr.cmdline_size = COMMAND_LINE_SIZE as u32 - 1;
    if let Some((address, size)) = initrd {
        // Both are below 2 GiB.
        params.hdr.ramdisk_image = address as u32;
        params.hdr.ramdisk_size = size as u32;
    }
    let map = memory_map(layout);
    params.e820_entries = map.len() as u8;
    for (slot, (addr, size, type_)) in params.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry {
            addr,
            size,
            r#type: type_,
        };
    }
    memory.write_obj(params, GuestAddress(BOOT_PARAMS_ADDRESS))?;
    Ok(BOOT_PARAMS_ADDRESS)
}

/// (start, bytes, type), ascending. ECAM is in it because Linux uses it before it reads the DSDT.
pub(super) fn memory_map(layout: &Layout) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, LOW_MEMORY_END, E820_RAM),
        (LOW_MEMORY_END, MIB - LOW_MEMORY_END, E820_RESERVED),
        (MIB, layout.low_ram_end() - MIB, E820_RAM),
        (ECAM_BASE, ECAM_SIZE, E820_RESERVED),
    ];
    let above = layout.ram().into_iter().skip(1);
    map.extend(above.map(|(start, size)| (start, size, E820_RAM)));
    map
}
