//! Block requests as the device reads them. Virtio 1.2, section 5.2.6.

use crate::cpu::write;

pub const SECTOR: u64 = 512;

/// Types of requests.
pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const ID_LEN: u32 = 20;

/// Answers, in the last writable byte.
pub const OK: u8 = 0;
pub const IO_ERROR: u8 = 1;
pub const UNSUPPORTED: u8 = 2;

pub const HEADER_LEN: u32 = 16;

pub fn write_header(address: u64, kind: u32, sector: u64) {
    write(address, u64::from(kind));
    write(address + 8, sector);
}
