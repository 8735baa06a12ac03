//! A raw disk: through an `io_uring` and through threads, past the page cache and through it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use criterion::Criterion;
use hearth_block::{Disk, RawDisk, SECTOR};
use hearth_vmm::virtio::block::{Block, Cache};
use hearth_vmm::virtio::testing::{DATA, Driver, HIGH_END, HIGH_START, Ring};
use rustix::fs::{Advice, fadvise};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use vm_memory::{Bytes, GuestAddress};

use crate::load::{Load, Traffic, measure};

const FILE: u64 = 256 << 20;
const SMALL: u64 = 4 << 10;
const LARGE: u64 = 1 << 20;
/// Of a slot: header, and status behind it.
const HEADER: u64 = 64;
const STATUS_AT: u64 = 32;

/// A file without a name, filled so that no read is of a hole.
fn file() -> File {
    let dir = std::env::var("HEARTH_BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").into());
    let file = tempfile::tempfile_in(dir).unwrap();
    for at in (0..FILE).step_by(LARGE as usize) {
        file.write_all_at(&vec![at as u8 | 1; LARGE as usize], at)
            .unwrap();
    }
    file.sync_all().unwrap();
    file
}

fn can_be_direct(disk: &RawDisk) -> bool {
    disk.set_direct(true);
    let direct = disk.backings()[0].is_direct();
    disk.set_direct(false);
    direct
}

/// Brings all of it into the page cache anew. Backwards, so that nothing is read ahead: that would make large folios, in which
/// a small write costs ext4 as much as a large one.
fn read_through(disk: &RawDisk) {
    // As the last device has left it.
    disk.set_direct(false);
    disk.flush().unwrap();
    fadvise(disk.backings()[0], 0, None, Advice::DontNeed).unwrap();
    let mut piece = vec![0; SMALL as usize];
    for block in (0..FILE / SMALL).rev() {
        disk.read_at(&mut piece, block * SMALL).unwrap();
    }
}

struct Requests {
    kind: u32,
    len: u64,
    /// Where the next one goes, and how that came about.
    nth: u64,
}

impl Requests {
    fn header(slot: u16) -> u64 {
        DATA + HEADER * u64::from(slot)
    }

    /// Anywhere, or behind the one before.
    fn next_offset(&mut self) -> u64 {
        let block = if self.len == SMALL {
            self.nth = self
                .nth
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            self.nth >> 33
        } else {
            self.nth += 1;
            self.nth
        };
        block % (FILE / self.len) * self.len
    }
}

impl Traffic for Requests {
    const CHAIN: u16 = 3;

    fn write(&self, ring: &Ring, slot: u16, driver: &Driver) {
        let header = Self::header(slot);
        driver
            .memory
            .write_obj(u64::from(self.kind), GuestAddress(header))
            .unwrap();
        // Of large ones, some share a buffer.
        let data = HIGH_START + u64::from(slot) * self.len % (HIGH_END - HIGH_START);
        ring.chain(
            slot * Self::CHAIN,
            &[
                (header, 16, false),
                (data, self.len as u32, self.kind == VIRTIO_BLK_T_IN),
                (header + STATUS_AT, 1, true),
            ],
        );
    }

    fn begin(&mut self, slot: u16, driver: &Driver) {
        let sector = self.next_offset() / SECTOR;
        driver
            .memory
            .write_obj(sector, GuestAddress(Self::header(slot) + 8))
            .unwrap();
    }

    fn end(&mut self, slot: u16, driver: &Driver) {
        let status = GuestAddress(Self::header(slot) + STATUS_AT);
        assert_eq!(
            u32::from(driver.memory.read_obj::<u8>(status).unwrap()),
            VIRTIO_BLK_S_OK
        );
    }
}

pub fn disks(c: &mut Criterion) {
    let disk = Arc::new(RawDisk::new(file()).unwrap());
    for (cache, way) in [(Cache::None, "O_DIRECT"), (Cache::Writeback, "page cache")] {
        if cache == Cache::None && !can_be_direct(&disk) {
            println!("no rows with O_DIRECT: the file system refuses it");
            continue;
        }
        if cache == Cache::Writeback {
            read_through(&disk);
        }
        for (kind, verb) in [(VIRTIO_BLK_T_IN, "read"), (VIRTIO_BLK_T_OUT, "write")] {
            for (len, depth, size) in [
                (SMALL, 1, "4 KiB random"),
                (SMALL, 32, "4 KiB random"),
                (LARGE, 4, "1 MiB sequential"),
            ] {
                for (threads_only, engine) in [(false, "io_uring"), (true, "threads")] {
                    let block = Block::new(disk.clone(), "vol0123456789abcdef0", false).cached(cache);
                    let block = if threads_only { block.on_threads() } else { block };
                    let load = Load {
                        name: &format!("disk, {way}, {engine}: {size} {verb}, depth {depth}"),
                        features: u64::MAX,
                        queue: 0,
                        depth,
                        spare: 0,
                        bytes: len,
                    };
                    measure(c, &load, block, &mut Requests { kind, len, nth: 0 });
                }
            }
        }
    }
}
