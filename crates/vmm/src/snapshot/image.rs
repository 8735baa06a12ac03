//! The memory file: guest RAM from offset 0 on, without the hole below 4 GiB, so that it can be mapped as it is.
//!
//! Pages of zeroes, and those that a diff does not have, are holes. The checksums are beside it, in the state:
//! one for each MiB, over the pages that the snapshot has of it in their order. Checking them reads what is in
//! the file (not its holes), at the speed of the page cache or the disk; a restore that maps the file can do it
//! first ([`verify`]), or leave it to whoever keeps the files, and start in milliseconds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;

use super::SnapshotError;
use super::pages::{PAGE, PageSet};

/// Bytes under one checksum.
const CHUNK: u64 = 1 << 20;
const CHUNK_PAGES: u64 = CHUNK / PAGE;
const ZEROES: [u8; PAGE as usize] = [0; PAGE as usize];

/// Checks that the memory file has what the checksums say, by reading all that is in it.
///
/// # Errors
/// A page is damaged, the file is cut short, or cannot be read.
pub fn verify(file: &File, set: &PageSet, checksums: &[u32]) -> Result<(), SnapshotError> {
    let failed = SnapshotError::io("reading the memory file");
    check_len(file, set)?;
    let zeroes = crc32fast::hash(&vec![0; CHUNK as usize]);
    let mut buffer = vec![0; CHUNK as usize];
    let mut next_data = 0;
    for ((first, end), expected) in chunks(set).zip(checksums) {
        if next_data < first * PAGE {
            next_data = seek_data(file, first * PAGE).map_err(&failed)?;
        }
        let whole = set.runs(first, end).next() == Some((first, CHUNK_PAGES));
        let found = if whole && next_data >= end * PAGE {
            zeroes
        } else {
            checksum(file, set, (first, end), &mut buffer).map_err(&failed)?
        };
        if found != *expected {
            return Err(SnapshotError::DamagedMemory { at: first * PAGE });
        }
    }
    Ok(())
}

/// Checks that the file is as long as the memory, without which a mapping of it would be a trap.
///
/// # Errors
/// It is not, or is no file.
pub fn check_len(file: &File, set: &PageSet) -> Result<(), SnapshotError> {
    let failed = SnapshotError::io("looking at the memory file");
    let there = file.metadata().map_err(failed)?.len();
    if there != set.total() * PAGE {
        return Err(SnapshotError::Cut { there });
    }
    Ok(())
}

/// Copies a whole memory file into an empty one, without its holes.
///
/// # Errors
/// Either file cannot be read or written.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    let len = from.metadata()?.len();
    to.set_len(len)?;
    let mut buffer = vec![0; CHUNK as usize];
    let mut at = seek_data(from, 0)?;
    while at < len {
        let bytes = &mut buffer[..CHUNK.min(len - at) as usize];
        from.read_exact_at(bytes, at)?;
        write_data(to, at, bytes)?;
        at = seek_data(from, at + bytes.len() as u64)?;
    }
    Ok(())
}

/// Copies the pages of `set` from `diff` to the same places of `base`, zeroes too.
///
/// # Errors
/// Either file cannot be read or written; `base` is then neither the one nor the other.
pub fn apply(base: &File, diff: &File, set: &PageSet) -> Result<(), SnapshotError> {
    let mut buffer = vec![0; CHUNK as usize];
    for (first, end) in chunks(set) {
        for (page, len) in set.runs(first, end) {
            let bytes = &mut buffer[..(len * PAGE) as usize];
            diff.read_exact_at(bytes, page * PAGE)
                .map_err(SnapshotError::io("reading the diff's memory file"))?;
            base.write_all_at(bytes, page * PAGE)
                .map_err(SnapshotError::io("writing the base's memory file"))?;
        }
    }
    Ok(())
}

/// The checksums of a whole memory file.
///
/// # Errors
/// It cannot be read.
pub fn checksums(file: &File, set: &PageSet) -> Result<Vec<u32>, SnapshotError> {
    let failed = SnapshotError::io("reading the memory file");
    let mut buffer = vec![0; CHUNK as usize];
    chunks(set)
        .map(|chunk| checksum(file, set, chunk, &mut buffer).map_err(&failed))
        .collect()
}

/// Of the pages that `set` has of a chunk, (first, end); `buffer` has room for a chunk.
fn checksum(file: &File, set: &PageSet, (first, end): (u64, u64), buffer: &mut [u8]) -> io::Result<u32> {
    let mut checksum = crc32fast::Hasher::new();
    for (page, len) in set.runs(first, end) {
        let bytes = &mut buffer[..(len * PAGE) as usize];
        file.read_exact_at(bytes, page * PAGE)?;
        checksum.update(bytes);
    }
    Ok(checksum.finalize())
}

pub(super) fn chunks(set: &PageSet) -> impl Iterator<Item = (u64, u64)> + use<> {
    let total = set.total();
    (0..total.div_ceil(CHUNK_PAGES)).map(move |chunk| {
        let first = chunk * CHUNK_PAGES;
        (first, (first + CHUNK_PAGES).min(total))
    })
}

/// Leaves out pages of zeroes: they are holes already.
fn write_data(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    for (first, len) in data_runs(bytes) {
        let (start, end) = (first * PAGE, (first + len) * PAGE);
        let data = &bytes[start as usize..bytes.len().min(end as usize)];
        file.write_all_at(data, offset + start)?;
    }
    Ok(())
}

/// The pages of `bytes` that are not all zeroes, as runs: (first page, pages).
pub(super) fn data_runs(bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut pages = bytes.chunks(PAGE as usize).zip(0..).peekable();
    std::iter::from_fn(move || {
        let (_, first) = pages.find(|(page, _)| *page != ZEROES)?;
        let mut len = 1;
        while pages.next_if(|(page, _)| *page != ZEROES).is_some() {
            len += 1;
        }
        Some((first, len))
    })
}

/// Where the next data begins, or the end of all numbers.
fn seek_data(file: &File, from: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(at) => Ok(at),
        Err(rustix::io::Errno::NXIO) => Ok(u64::MAX),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{GIB, GuestMemory, HIGH_RAM_START, Layout, MIB};
    use crate::snapshot::writer::{self, Writeback};
    use std::os::unix::fs::MetadataExt;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

    fn pages(memory: &GuestMemory) -> u64 {
        memory.iter().map(|region| region.len() / PAGE).sum()
    }

    fn write(memory: &GuestMemory, set: &PageSet, file: &File) -> Result<Vec<u32>, SnapshotError> {
        // SAFETY: this thread alone knows of the memory.
        unsafe { writer::write(memory, set, file, Writeback::Early) }
    }

    fn filled(mib: u64) -> GuestMemory {
        let memory = Layout::new(mib * MIB).map().unwrap();
        for page in [0, 1, 5, 300, mib * 256 - 1] {
            let bytes = vec![(page % 200) as u8 + 1; PAGE as usize];
            memory.write_slice(&bytes, GuestAddress(page * PAGE)).unwrap();
        }
        memory
    }

    #[test]
    fn zeroes_are_holes_and_the_rest_is_where_it_was() {
        let memory = filled(8);
        let file = tempfile::tempfile().unwrap();
        let set = PageSet::all(pages(&memory));
        let checksums = write(&memory, &set, &file).unwrap();
        verify(&file, &set, &checksums).unwrap();
        assert_eq!(checksums, super::checksums(&file, &set).unwrap());
        assert_eq!(file.metadata().unwrap().len(), 8 * MIB);
        assert!(file.metadata().unwrap().blocks() * 512 < MIB);
        let mut page = [0; PAGE as usize];
        file.read_exact_at(&mut page, 300 * PAGE).unwrap();
        assert_eq!(page, [101; PAGE as usize]);
    }

    #[test]
    fn memory_above_the_hole_follows_that_below() {
        let memory = Layout::new(3 * GIB + MIB).map().unwrap();
        memory
            .write_slice(&[7; 8], GuestAddress(HIGH_RAM_START + 0x5000))
            .unwrap();
        let mut set = PageSet::none(pages(&memory));
        set.insert(3 * GIB / PAGE, 16);
        let file = tempfile::tempfile().unwrap();
        let checksums = write(&memory, &set, &file).unwrap();
        verify(&file, &set, &checksums).unwrap();
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 3 * GIB + 0x5000).unwrap();
        assert_eq!(bytes, [7; 8]);
    }

    #[test]
    fn each_flipped_bit_and_each_cut_is_found() {
        let memory = filled(4);
        let file = tempfile::tempfile().unwrap();
        let set = PageSet::all(pages(&memory));
        let checksums = write(&memory, &set, &file).unwrap();
        for at in [0, 4095, 5 * PAGE + 17, 2 * MIB, 4 * MIB - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            let error = verify(&file, &set, &checksums).unwrap_err();
            assert!(
                matches!(error, SnapshotError::DamagedMemory { at: found } if found == at / MIB * MIB),
                "{error}"
            );
            file.write_all_at(&byte, at).unwrap();
        }
        verify(&file, &set, &checksums).unwrap();
        file.set_len(4 * MIB - PAGE).unwrap();
        assert!(matches!(
            verify(&file, &set, &checksums),
            Err(SnapshotError::Cut { .. })
        ));
    }

    #[test]
    fn a_diff_brings_its_base_up_to_date_with_zeroes_too() {
        let memory = filled(4);
        let (base, diff) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let all = PageSet::all(pages(&memory));
        write(&memory, &all, &base).unwrap();
        memory.write_slice(&ZEROES, GuestAddress(5 * PAGE)).unwrap();
        memory.write_slice(&[9; 10], GuestAddress(700 * PAGE)).unwrap();
        let mut set = PageSet::none(all.total());
        set.insert(5, 1);
        set.insert(700, 1);
        let checksums = write(&memory, &set, &diff).unwrap();
        verify(&diff, &set, &checksums).unwrap();
        apply(&base, &diff, &set).unwrap();
        let now = tempfile::tempfile().unwrap();
        let expected = write(&memory, &all, &now).unwrap();
        verify(&base, &all, &expected).unwrap();
    }
}
