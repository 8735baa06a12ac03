//! On real files: many requests in flight, several queues, limits, metrics, growth.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use hearth_block::{Backing, Overlay, RawDisk, overlay};

use super::*;
use crate::limits::{Limiter, Rate, RateLimit};
use crate::metrics::{Operation, Registry};

const DEPTH: u16 = 64;

fn file() -> File {
    let file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..SECTORS * 512).map(|at| (at / 512 * 3 + at) as u8).collect();
    file.write_all_at(&content, 0).unwrap();
    file
}

/// Opened for itself: direct I/O concerns every duplicate of a descriptor.
pub(super) fn disk(file: &File) -> Arc<dyn Disk> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let own = File::options().read(true).write(true).open(path).unwrap();
    Arc::new(RawDisk::new(own).unwrap())
}

fn limit(per_second: u64) -> RateLimit {
    RateLimit {
        operations: NonZeroU64::new(per_second).map(|per_second| Rate { per_second, burst: 0 }),
        bytes: None,
    }
}

/// Where request `slot` of a queue has its header, status and 4 KiB of data.
fn places(queue: u16, slot: u16) -> (u64, u64, u64) {
    let nth = u64::from(queue * DEPTH + slot);
    (DATA + nth * 32, DATA + nth * 32 + 16, HIGH_START + nth * 4096)
}

fn offer(driver: &Driver, queue: u16, slot: u16, kind: u32, sector: u64) {
    let (head, status, data) = places(queue, slot);
    header(driver, head, kind, sector);
    driver.memory.write_obj(0xffu8, GuestAddress(status)).unwrap();
    let ring = driver.ring(queue.into());
    let buffers = [(head, 16, false), (data, 4096, kind == IN), (status, 1, true)];
    ring.chain(slot * 3, &buffers);
    ring.offer(slot * 3);
}

fn status(driver: &Driver, queue: u16, slot: u16) -> u8 {
    memory(driver, places(queue, slot).1, 1)[0]
}

#[test]
fn all_queues_serve_many_requests_at_once() {
    const QUEUES: u16 = 4;
    let file = file();
    let mut driver = Driver::probe(Block::new(disk(&file), "", false).queues(QUEUES));
    assert_ne!(driver.offered() & 1 << 12, 0);
    assert_eq!(driver.device_config(40)[34..36], QUEUES.to_le_bytes());
    driver.initialise(u64::MAX, 256);
    for queue in 0..QUEUES {
        driver.ring(queue.into()).set_used_event(DEPTH - 1);
        for slot in 0..DEPTH {
            let sector = u64::from((queue * DEPTH + slot) % 128) * 8;
            offer(&driver, queue, slot, IN, sector);
        }
        driver.ring(queue.into()).kick(&driver);
    }
    for queue in 0..QUEUES {
        driver.ring(queue.into()).wait_used(DEPTH);
        for slot in 0..DEPTH {
            assert_eq!(status(&driver, queue, slot), OK);
            let mut expected = [0; 4096];
            let offset = u64::from((queue * DEPTH + slot) % 128) * 4096;
            file.read_exact_at(&mut expected, offset).unwrap();
            assert_eq!(memory(&driver, places(queue, slot).2, 4096), expected);
        }
    }
}

#[test]
fn a_driver_may_use_some_of_the_queues() {
    let file = file();
    let mut driver = Driver::probe(Block::new(disk(&file), "", false).queues(100));
    driver.negotiate(!EVENT_IDX);
    assert_eq!(driver.common_u16(0x12), 4);
    driver.initialise(!(EVENT_IDX | 1 << 12), 16);
    assert_eq!(request(&driver, IN, 0, &[(BUFFER, 512, true)]), (OK, 513));
}

#[test]
fn the_page_cache_is_between_or_not_as_was_asked_for() {
    for (cache, direct) in [(Cache::None, true), (Cache::Writeback, false)] {
        let file = tempfile::tempfile_in(".").unwrap();
        file.set_len(SECTORS * 512).unwrap();
        let disk = disk(&file);
        disk.set_direct(true);
        if direct && !disk.backings()[0].is_direct() {
            eprintln!("SKIPPED: direct I/O: this file system has none");
            continue;
        }
        let _driver = Driver::start(Block::new(Arc::clone(&disk), "", false).cached(cache));
        assert_eq!(disk.backings()[0].is_direct(), direct);
    }
}

#[test]
fn writes_reach_the_file_and_a_flush_comes_after_them() {
    for cache in [Cache::None, Cache::Writeback] {
        writes_reach_the_file(cache);
    }
}

fn writes_reach_the_file(cache: Cache) {
    let file = file();
    let mut driver = Driver::probe(Block::new(disk(&file), "", false).cached(cache));
    driver.initialise(!EVENT_IDX, 256);
    for slot in 0..DEPTH {
        let (_, _, data) = places(0, slot);
        driver
            .memory
            .write_slice(&[slot as u8; 4096], GuestAddress(data))
            .unwrap();
        offer(&driver, 0, slot, OUT, u64::from(slot) * 8);
    }
    driver.ring(0).kick(&driver);
    driver.ring(0).wait_used(DEPTH);
    assert_eq!(request(&driver, FLUSH, 0, &[]).0, OK);
    for slot in 0..DEPTH {
        assert_eq!(status(&driver, 0, slot), OK);
        let mut found = [0; 4096];
        file.read_exact_at(&mut found, u64::from(slot) * 4096).unwrap();
        assert_eq!(found, [slot as u8; 4096]);
    }
}

#[test]
fn a_limit_holds_requests_back_until_it_is_lifted() {
    let file = file();
    let limiter = Limiter::new(&limit(1));
    let registry = Registry::default();
    let device = Block::new(disk(&file), "", false).limited_by(Arc::clone(&limiter));
    let mut driver = Driver::probe(device.counted_in(registry.device("block", "vol-1")));
    driver.initialise(!EVENT_IDX, 256);
    for slot in 0..DEPTH {
        offer(&driver, 0, slot, IN, u64::from(slot) * 8);
    }
    driver.ring(0).kick(&driver);
    driver.ring(0).wait_used(1);
    assert!(driver.ring(0).used_index() < 5);
    limiter.set(&RateLimit::default());
    driver.ring(0).wait_used(DEPTH);
    let report = registry.report();
    let reads = &report.devices[0].operations[&Operation::Read];
    assert_eq!((reads.operations, reads.bytes, reads.errors), (64, 64 * 4096, 0));
    assert!(reads.throttled > 0 && reads.throttled_ns > 0);
}

#[test]
fn a_pause_puts_what_is_held_back_into_the_ring() {
    let file = file();
    let limiter = Limiter::new(&limit(1));
    let device = Block::new(disk(&file), "", false).limited_by(Arc::clone(&limiter));
    let mut driver = Driver::probe(device);
    driver.initialise(!EVENT_IDX, 256);
    for slot in 0..4 {
        offer(&driver, 0, slot, IN, 0);
    }
    driver.ring(0).kick(&driver);
    driver.ring(0).wait_used(1);
    driver.function.pause();
    let used = driver.ring(0).used_index();
    limiter.set(&RateLimit::default());
    assert_eq!(driver.ring(0).used_index(), used);
    driver.function.resume();
    driver.ring(0).wait_used(4);
}

#[test]
fn a_disk_that_grew_is_as_large_as_its_file() {
    let file = file();
    let disk = disk(&file);
    let driver = Driver::start(Block::new(Arc::clone(&disk), "", false));
    let beyond = [(BUFFER, 512, true)];
    assert_eq!(request(&driver, IN, SECTORS, &beyond).0, IOERR);
    file.set_len((SECTORS + 8) * 512).unwrap();
    assert_eq!(disk.refresh_size().unwrap(), (SECTORS + 8) * 512);
    assert_eq!(driver.device_config(8), (SECTORS + 8).to_le_bytes());
    assert_eq!(request(&driver, IN, SECTORS, &beyond), (OK, 513));
}

#[test]
fn an_overlay_grows_under_its_driver() {
    let (data, map, base) = (file(), tempfile::tempfile().unwrap(), file());
    overlay::create(&data, &map, SECTORS * 512, SECTORS * 512).unwrap();
    let open = |file: &File| Backing::new(file.try_clone().unwrap()).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Overlay::open(open(&data), open(&map), open(&base)).unwrap());
    let driver = Driver::start(Block::new(Arc::clone(&disk), "", false));
    let beyond = [(BUFFER, 512, true)];
    assert_eq!(request(&driver, IN, SECTORS, &beyond).0, IOERR);
    data.set_len(SECTORS * 512 + (1 << 30)).unwrap();
    disk.refresh_size().unwrap();
    let last = SECTORS + (1 << 21) - 1;
    assert_eq!(driver.device_config(8), (last + 1).to_le_bytes());
    for sector in [0, SECTORS, last] {
        driver
            .memory
            .write_slice(&[7; 512], GuestAddress(BUFFER))
            .unwrap();
        assert_eq!(request(&driver, OUT, sector, &[(BUFFER, 512, false)]).0, OK);
        driver
            .memory
            .write_slice(&[0; 512], GuestAddress(BUFFER))
            .unwrap();
        assert_eq!(request(&driver, IN, sector, &beyond), (OK, 513));
        assert_eq!(memory(&driver, BUFFER, 512), [7; 512]);
    }
    assert_eq!(request(&driver, IN, last + 1, &beyond).0, IOERR);
}

#[test]
fn errors_are_counted() {
    let registry = Registry::default();
    let disk = MemoryDisk::new();
    let device = Block::new(Arc::clone(&disk) as Arc<dyn Disk>, "", false);
    let driver = Driver::start(device.counted_in(registry.device("block", "vol-1")));
    *disk.fail.lock().unwrap() = Some(libc::ENOSPC);
    assert_eq!(request(&driver, OUT, 0, &[(BUFFER, 512, false)]).0, IOERR);
    let report = registry.report();
    let writes = &report.devices[0].operations[&Operation::Write];
    assert_eq!((writes.operations, writes.bytes, writes.errors), (1, 0, 1));
}
