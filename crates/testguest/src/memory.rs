//! Free memory for rings and buffers, from the image's end on, and mappings above 4 GiB.
//!
//! Nothing in it is Rust's: it is read and written by [`cpu::read`] and [`cpu::write`] alone.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu;

/// Behind whatever the loader put above the image; nobody puts anything there with 32 MiB or more.
const ARENA: u64 = 0x60_0000;
/// Page tables are never given back.
const TABLES: u64 = 0x50_0000;
const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;
const PRESENT_WRITABLE_USER: u64 = 7;
const LARGE_UNCACHED: u64 = 0x80 | 0x18;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

static NEXT: AtomicU64 = AtomicU64::new(ARENA);
static NEXT_TABLE: AtomicU64 = AtomicU64::new(TABLES);

unsafe extern "C" {
    /// The top-level page table, in entry.s.
    #[link_name = "pml4"]
    static PML4: [u64; 512];
}

/// `len` bytes, zeroed, at a page's start; they are free again after [`free_all`].
pub fn allocate(len: u64) -> u64 {
    let len = len.next_multiple_of(PAGE);
    let address = NEXT.fetch_add(len, Ordering::Relaxed);
    fill(address, len, 0);
    address
}

/// Frees what tests have allocated: no device may know of it any more.
pub fn free_all() {
    NEXT.store(ARENA, Ordering::Relaxed);
}

pub fn fill(address: u64, len: u64, value: u8) {
    let word = u64::from_ne_bytes([value; 8]);
    let words = len / 8;
    for at in 0..words {
        cpu::write(address + 8 * at, word);
    }
    for at in 8 * words..len {
        cpu::write(address + at, value);
    }
}

pub fn copy_in(address: u64, bytes: &[u8]) {
    for (at, &byte) in (address..).zip(bytes) {
        cpu::write(at, byte);
    }
}

pub fn copy_out(address: u64, bytes: &mut [u8]) {
    for (at, byte) in (address..).zip(bytes) {
        *byte = cpu::read(at);
    }
}

pub fn equal(address: u64, bytes: &[u8]) -> bool {
    (address..)
        .zip(bytes)
        .all(|(at, &byte)| cpu::read::<u8>(at) == byte)
}

/// Makes device memory usable, one to one and uncached. Below 4 GiB all is.
pub fn map(address: u64, len: u64) {
    let mut page = address & !(LARGE_PAGE - 1);
    while page < address + len {
        if page >> 32 != 0 {
            map_page(page);
        }
        page += LARGE_PAGE;
    }
}

fn map_page(address: u64) {
    let mut table = &raw const PML4 as u64;
    for shift in [39, 30] {
        let entry = table + 8 * (address >> shift & 511);
        if cpu::read::<u64>(entry) == 0 {
            let new = NEXT_TABLE.fetch_add(PAGE, Ordering::Relaxed);
            fill(new, PAGE, 0);
            cpu::write(entry, new | PRESENT_WRITABLE_USER);
        }
        table = cpu::read::<u64>(entry) & ADDRESS;
    }
    let entry = table + 8 * (address >> 21 & 511);
    cpu::write(entry, address | PRESENT_WRITABLE_USER | LARGE_UNCACHED);
}
