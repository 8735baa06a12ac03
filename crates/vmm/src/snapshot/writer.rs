//! Guest pages on their way into the memory file ([`super::image`] says what is in it).
//!
//! The guest may stand still all the while, so two threads share the work: one reads the pages for their checksums
//! and finds those that are zero, the other has the kernel copy the rest out of guest memory. What that costs is
//! the filesystem's part of each write, and less where the file has been given its room before.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, Builder};

use rustix::fs::FallocateFlags;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, WriteVolatile};

use super::SnapshotError;
use super::image::{chunks, data_runs};
use super::pages::{PAGE, PageSet};
use crate::memory::{GuestMemory, VolatileSlice};

/// What stays in a processor's cache while it is looked at.
const PIECE_PAGES: u64 = 64;
/// How far the thread that looks at the pages may be ahead of the one that writes them.
const RUNS_AHEAD: usize = 1024;
const READER_STACK: usize = 128 << 10;
/// Bytes that are worth waking the disk for.
const WRITEBACK: u64 = 4 << 20;

/// When the disk begins to write what it will be synced for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writeback {
    /// While later pages are still being copied: the snapshot is on the disk the sooner.
    Early,
    /// Not before all are copied: the guest goes on the sooner.
    Late,
}

/// Writes the pages of `set` to `file`, which is empty then, and returns the checksums.
///
/// # Errors
/// The file cannot be written: it is full, or no plain file.
///
/// # Safety
/// Until it returns nobody writes to the memory: vCPUs and devices are at rest.
pub unsafe fn write(
    memory: &GuestMemory,
    set: &PageSet,
    file: &File,
    writeback: Writeback,
) -> Result<Vec<u32>, SnapshotError> {
    let failed = SnapshotError::io("writing the memory file");
    file.set_len(0).map_err(&failed)?;
    file.set_len(set.total() * PAGE).map_err(&failed)?;
    let ram = Ram::new(memory);
    let (found, data) = sync_channel(RUNS_AHEAD);
    thread::scope(|scope| {
        let reader = Builder::new().name("checksums".into()).stack_size(READER_STACK);
        let ram = &ram;
        // SAFETY: it has ended when this function returns, and until then the caller sees to it.
        let reader = reader.spawn_scoped(scope, move || unsafe { read(ram, set, &found) })?;
        let mut writer = Writer::new(ram, file, writeback);
        let written = data.into_iter().try_for_each(|run| writer.write(run));
        let checksums = reader
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
        written.and(checksums)
    })
    .map_err(failed)
}

/// Reads the pages of `set`, and returns the checksums; those that are not all zeroes go to `found`, as runs.
///
/// # Safety
/// As for [`write`].
unsafe fn read(ram: &Ram<'_>, set: &PageSet, found: &SyncSender<(u64, u64)>) -> io::Result<Vec<u32>> {
    chunks(set)
        .map(|(first, end)| {
            let mut checksum = crc32fast::Hasher::new();
            for run in set.runs(first, end).flat_map(pieces) {
                let slice = ram.slice(run)?;
                let pages = slice.ptr_guard();
                // SAFETY: the pages are mapped for as long as the guard lives, and the caller says that nobody
                // writes to them.
                let bytes = unsafe { std::slice::from_raw_parts(pages.as_ptr(), pages.len()) };
                for (start, len) in data_runs(bytes) {
                    let run = (run.0 + start, len);
                    let gone = |_| io::Error::other("its writer has failed");
                    found.send(run).map_err(gone)?;
                }
                checksum.update(bytes);
            }
            Ok(checksum.finalize())
        })
        .collect()
}

fn pieces((page, len): (u64, u64)) -> impl Iterator<Item = (u64, u64)> {
    (0..len)
        .step_by(PIECE_PAGES as usize)
        .map(move |at| (page + at, PIECE_PAGES.min(len - at)))
}

/// Guest memory by page number, without the hole below 4 GiB.
struct Ram<'a> {
    memory: &'a GuestMemory,
    regions: Vec<(u64, u64)>,
}

impl<'a> Ram<'a> {
    fn new(memory: &'a GuestMemory) -> Self {
        let regions = memory.iter().map(|region| (region.start_addr().0, region.len()));
        Self {
            memory,
            regions: regions.collect(),
        }
    }

    /// A run of pages, (first, how many).
    fn slice(&self, (page, len): (u64, u64)) -> io::Result<VolatileSlice<'a>> {
        let mut offset = page * PAGE;
        for &(start, region_len) in &self.regions {
            if offset < region_len {
                let slice = self
                    .memory
                    .get_slice(GuestAddress(start + offset), (len * PAGE) as usize);
                return slice.map_err(io::Error::other);
            }
            offset -= region_len;
        }
        Err(io::Error::other("there is less guest memory than pages"))
    }
}

struct Writer<'a> {
    ram: &'a Ram<'a>,
    file: &'a File,
    writeback: Writeback,
    /// From where to where in the file something is that the disk has not been woken for, and how much it is.
    waiting: (u64, u64),
    waiting_bytes: u64,
}

impl<'a> Writer<'a> {
    fn new(ram: &'a Ram<'a>, file: &'a File, writeback: Writeback) -> Self {
        Self {
            ram,
            file,
            writeback,
            waiting: (0, 0),
            waiting_bytes: 0,
        }
    }

    /// Writes `len` pages from guest memory, without a copy of them here. Later calls have later pages.
    fn write(&mut self, run: (u64, u64)) -> io::Result<()> {
        let (page, len) = run;
        let (at, bytes) = (page * PAGE, len * PAGE);
        if len == PIECE_PAGES {
            // Cheaper than the filesystem's account of pages that have no place yet. One that cannot do it needs it not,
            // and whether the disk is full the write will say.
            let _ = rustix::fs::fallocate(self.file, FallocateFlags::empty(), at, bytes);
        }
        let mut file = self.file;
        file.seek(io::SeekFrom::Start(at))?;
        let slice = self.ram.slice(run)?;
        file.write_all_volatile(&slice).map_err(io::Error::other)?;
        if self.writeback == Writeback::Early {
            self.waiting.1 = at + bytes;
            self.waiting_bytes += bytes;
            if self.waiting_bytes >= WRITEBACK {
                wake_disk(self.file, self.waiting);
                self.waiting.0 = self.waiting.1;
                self.waiting_bytes = 0;
            }
        }
        Ok(())
    }
}

/// Has what is in the page cache of this part of the file go to the disk, and does not wait. Only a hint: the sync at
/// the end writes whatever is left, and has the errors of all.
fn wake_disk(file: &File, (from, to): (u64, u64)) {
    let (Ok(offset), Ok(len)) = (i64::try_from(from), i64::try_from(to - from)) else {
        return;
    };
    // SAFETY: it takes numbers alone.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, SealFlags};
    use vm_memory::Bytes;

    use super::super::image::verify;
    use super::*;
    use crate::memory::{Layout, MIB};

    const MEMORY_MIB: u64 = 12;

    fn written(memory: &GuestMemory, set: &PageSet, writeback: Writeback) -> (File, Vec<u32>) {
        let file = tempfile::tempfile().unwrap();
        // SAFETY: this thread alone knows of the memory.
        let checksums = unsafe { write(memory, set, &file, writeback) }.unwrap();
        verify(&file, set, &checksums).unwrap();
        (file, checksums)
    }

    fn fill(memory: &GuestMemory, first: u64, len: u64) {
        let bytes = vec![(first % 255) as u8 + 1; (len * PAGE) as usize];
        memory.write_slice(&bytes, GuestAddress(first * PAGE)).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Runs of all lengths, so that some have their room made before and others not, and the disk is woken in
        /// between.
        #[test]
        fn what_is_in_the_set_is_in_the_file_and_nothing_else(
            filled in vec((0_u64..2900, 1_u64..170), 0..20),
            taken in vec((0_u64..2500, 1_u64..500), 0..8),
        ) {
            let memory = Layout::new(MEMORY_MIB * MIB).map().unwrap();
            filled.iter().for_each(|&(first, len)| fill(&memory, first, len));
            let mut set = PageSet::none(MEMORY_MIB * MIB / PAGE);
            taken.iter().for_each(|&(first, len)| set.insert(first, len));
            let (early, checksums) = written(&memory, &set, Writeback::Early);
            let (late, same) = written(&memory, &set, Writeback::Late);
            prop_assert_eq!(checksums, same);
            for page in 0..set.total() {
                let (mut expected, mut found) = ([0; PAGE as usize], [0; PAGE as usize]);
                if set.contains(page) {
                    memory.read_slice(&mut expected, GuestAddress(page * PAGE)).unwrap();
                }
                for file in [&early, &late] {
                    file.read_exact_at(&mut found, page * PAGE).unwrap();
                    prop_assert!(found == expected, "page {}", page);
                }
            }
        }
    }

    #[test]
    fn a_file_that_takes_no_data_is_an_error_and_no_thread_stays_behind() {
        let memory = Layout::new(MEMORY_MIB * MIB).map().unwrap();
        // More runs than the reader may be ahead.
        (0..1500).for_each(|nth| fill(&memory, nth * 2, 1));
        let set = PageSet::all(MEMORY_MIB * MIB / PAGE);
        let file = File::from(rustix::fs::memfd_create("sealed", MemfdFlags::ALLOW_SEALING).unwrap());
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
        // SAFETY: this thread alone knows of the memory.
        let refused = unsafe { write(&memory, &set, &file, Writeback::Early) }.unwrap_err();
        assert!(
            refused.to_string().contains("writing the memory file"),
            "{refused}"
        );
    }
}
