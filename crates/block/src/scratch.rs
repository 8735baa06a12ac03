//! Memory that direct I/O takes.

use crate::SECTOR;

/// Bytes: what memory for direct I/O is aligned to. Whole pages save the kernel a split.
const ALIGNMENT: usize = 4096;

/// Zeroed bytes that begin at a page.
pub(crate) struct Scratch {
    memory: Vec<u8>,
    begin: usize,
    len: usize,
}

impl Scratch {
    pub(crate) fn new(len: usize) -> Scratch {
        let memory = vec![0; len + ALIGNMENT - 1];
        let address = memory.as_ptr().addr();
        Scratch {
            begin: address.next_multiple_of(ALIGNMENT) - address,
            memory,
            len,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.begin..][..self.len]
    }
}

/// To the beginning of a sector.
pub(crate) fn round_down(offset: u64) -> u64 {
    offset - offset % SECTOR
}

/// To the end of a sector. Files end far below where this would overflow.
pub(crate) fn round_up(offset: u64) -> u64 {
    offset.next_multiple_of(SECTOR)
}
