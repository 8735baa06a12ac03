//! What the loader says: command line, RAM, where ACPI begins.

use core::slice;

use crate::cpu::read;

/// PVH's `hvm_start_info`, behind its magic number.
mod start_info {
    pub const COMMAND_LINE: u64 = 24;
    pub const RSDP: u64 = 32;
    pub const MEMORY_MAP: u64 = 40;
    pub const MEMORY_MAP_ENTRIES: u64 = 48;
    pub const ENTRY_SIZE: u64 = 24;
    pub const ENTRY_TYPE: u64 = 16;
}

/// Linux's `boot_params`.
mod boot_params {
    pub const RSDP: u64 = 0x70;
    pub const E820_ENTRIES: u64 = 0x1e8;
    pub const COMMAND_LINE: u64 = 0x228;
    pub const E820: u64 = 0x2d0;
    pub const ENTRY_SIZE: u64 = 20;
    pub const ENTRY_TYPE: u64 = 16;
}

const LINUX: u64 = 0;
const RAM: u32 = 1;
const FOUR_GIB: u64 = 1 << 32;

pub struct Boot {
    pub command_line: &'static str,
    /// 0: nobody said.
    pub rsdp: u64,
    /// Where RAM below 4 GiB ends.
    pub low_ram_end: u64,
}

impl Boot {
    /// # Safety
    /// At `address` is the structure of the protocol (Linux's boot parameters or PVH's start information), with
    /// all that it points to, and it never changes.
    pub unsafe fn read(address: u64, protocol: u64) -> Self {
        let (command_line, rsdp, low_ram_end) = if protocol == LINUX {
            use boot_params::*;
            let entries = u64::from(read::<u8>(address + E820_ENTRIES));
            (
                u64::from(read::<u32>(address + COMMAND_LINE)),
                read(address + RSDP),
                ram_end(address + E820, entries, ENTRY_SIZE, ENTRY_TYPE),
            )
        } else {
            use start_info::*;
            let entries = u64::from(read::<u32>(address + MEMORY_MAP_ENTRIES));
            (
                read(address + COMMAND_LINE),
                read(address + RSDP),
                ram_end(read(address + MEMORY_MAP), entries, ENTRY_SIZE, ENTRY_TYPE),
            )
        };
        let len = if command_line == 0 {
            0
        } else {
            (command_line..).take_while(|&at| read::<u8>(at) != 0).count()
        };
        let bytes = match len {
            0 => &[],
            // SAFETY: these bytes are mapped, and by the caller's promise they stay as they are.
            _ => unsafe { slice::from_raw_parts(command_line as *const u8, len) },
        };
        Self {
            command_line: core::str::from_utf8(bytes).unwrap_or_default(),
            rsdp,
            low_ram_end,
        }
    }

    /// What follows `name` (with its `=`) on the command line, up to a blank.
    pub fn option(&self, name: &str) -> Option<&'static str> {
        self.command_line
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(name))
    }
}

fn ram_end(map: u64, entries: u64, size: u64, type_at: u64) -> u64 {
    (0..entries)
        .map(|entry| map + entry * size)
        .filter(|&entry| read::<u32>(entry + type_at) == RAM)
        .map(|entry| read::<u64>(entry) + read::<u64>(entry + 8))
        .filter(|&end| end <= FOUR_GIB)
        .max()
        .unwrap_or(0)
}
