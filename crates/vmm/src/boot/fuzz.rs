//! Loading a hostile ELF file into guest memory.

use std::io::Cursor;

use super::place;
use crate::memory::{Layout, MIB};

/// A kernel that is taken ends inside RAM and above the low megabyte.
pub(crate) fn kernel_elf(input: &[u8]) {
    let layout = Layout::new(32 * MIB);
    let memory = layout.map().unwrap();
    let _ = place(
        Cursor::new(input),
        None::<(&[u8], u64)>,
        "console=ttyS0",
        &layout,
        &memory,
    );
}
