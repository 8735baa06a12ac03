use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use hearth_block::Disk;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::{Block, Cache};
use crate::pci::PciFunction as _;
use crate::virtio::testing::{
    BREAKAGES, DATA, Driver, EVENT_IDX, HIGH_END, HIGH_START, INDIRECT, NEEDS_RESET, NEXT, PATIENCE, WRITE,
};

mod files;
mod ranges;

const SECTORS: u64 = 1024;
const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 16;
const BUFFER: u64 = DATA + 0x1000;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// A disk in memory that can be told to fail or to hesitate.
struct MemoryDisk {
    data: Mutex<Vec<u8>>,
    flushes: AtomicU32,
    fail: Mutex<Option<i32>>,
    /// Each read first says that it is there, then waits to be let through.
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl MemoryDisk {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            data: Mutex::new((0..SECTORS * 512).map(|at| (at / 512 + at) as u8).collect()),
            flushes: AtomicU32::new(0),
            fail: Mutex::new(None),
            gate: Mutex::new(None),
        })
    }

    fn check(&self) -> io::Result<()> {
        self.fail
            .lock()
            .unwrap()
            .map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}

impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        // Not whole sectors: the rest is out of reach.
        SECTORS * 512 + 100
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some((arrived, go)) = &*self.gate.lock().unwrap() {
            arrived.send(()).unwrap();
            go.recv_timeout(PATIENCE).unwrap();
        }
        self.check()?;
        buf.copy_from_slice(&self.data.lock().unwrap()[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check()?;
        self.data.lock().unwrap()[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.check()?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.write_at(&vec![0; len as usize], offset)
    }
}

fn start(disk: &Arc<MemoryDisk>) -> Driver {
    Driver::start(block(disk, false))
}

fn block(disk: &Arc<MemoryDisk>, read_only: bool) -> Block {
    Block::new(
        Arc::clone(disk) as Arc<dyn Disk>,
        "vol0123456789abcdef0",
        read_only,
    )
}

fn header(driver: &Driver, at: u64, kind: u32, sector: u64) {
    driver
        .memory
        .write_obj(u64::from(kind), GuestAddress(at))
        .unwrap();
    driver.memory.write_obj(sector, GuestAddress(at + 8)).unwrap();
}

/// Sends one request and returns its status and used length.
fn request(driver: &Driver, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
    header(driver, HEADER, kind, sector);
    driver.memory.write_obj(0xffu8, GuestAddress(STATUS)).unwrap();
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend(data);
    buffers.push((STATUS, 1, true));
    let ring = driver.ring(0);
    let nth = ring.used_index();
    ring.chain(0, &buffers);
    ring.offer(0);
    ring.kick(driver);
    ring.wait_used(nth.wrapping_add(1));
    (
        driver.memory.read_obj(GuestAddress(STATUS)).unwrap(),
        ring.used_element(nth).1,
    )
}

fn memory(driver: &Driver, at: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    driver.memory.read_slice(&mut data, GuestAddress(at)).unwrap();
    data
}

fn assert_works(driver: &Driver, disk: &MemoryDisk) {
    assert_eq!(request(driver, IN, 3, &[(BUFFER, 1024, true)]), (OK, 1025));
    assert_eq!(
        memory(driver, BUFFER, 1024),
        disk.data.lock().unwrap()[3 * 512..][..1024]
    );
}

#[test]
fn says_what_it_is() {
    let driver = start(&MemoryDisk::new());
    let config = driver.device_config(40);
    assert_eq!(config[0..8], SECTORS.to_le_bytes());
    assert_eq!(config[8..12], (1u32 << 20).to_le_bytes());
    assert_eq!(config[12..16], 254u32.to_le_bytes());
    assert_eq!(config[20..24], 512u32.to_le_bytes());
    // No writeback to switch, one queue, no discards.
    assert_eq!(config[32..], [0, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(driver.offered() & (1 << 5), 0);
    assert_ne!(
        Driver::probe(block(&MemoryDisk::new(), true)).offered() & (1 << 5),
        0
    );
}

#[test]
fn reads_and_writes_whatever_the_framing() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    assert_works(&driver, &disk);

    let data: Vec<u8> = (0..1024u32).map(|at| (at * 7) as u8).collect();
    driver
        .memory
        .write_slice(&data[..100], GuestAddress(BUFFER))
        .unwrap();
    driver
        .memory
        .write_slice(&data[100..], GuestAddress(HIGH_START))
        .unwrap();
    let pieces = [(BUFFER, 100, false), (HIGH_START, 924, false)];
    assert_eq!(request(&driver, OUT, SECTORS - 2, &pieces), (OK, 1));
    assert_eq!(disk.data.lock().unwrap()[(SECTORS as usize - 2) * 512..], data);
    let pieces = [(HIGH_END - 1000, 1000, true), (BUFFER + 3, 24, true)];
    assert_eq!(request(&driver, IN, SECTORS - 2, &pieces), (OK, 1025));
    assert_eq!(memory(&driver, HIGH_END - 1000, 1000), data[..1000]);
    assert_eq!(memory(&driver, BUFFER + 3, 24), data[1000..]);
}

#[test]
fn a_header_may_be_framed_like_any_other_bytes() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    header(&driver, HEADER, IN, 5);
    let ring = driver.ring(0);
    ring.chain(
        0,
        &[
            (HEADER, 5, false),
            (HEADER + 5, 11, false),
            (BUFFER, 300, true),
            (BUFFER + 300, 213, true),
        ],
    );
    ring.offer(0);
    ring.kick(&driver);
    ring.wait_used(1);
    assert_eq!(
        memory(&driver, BUFFER, 512),
        disk.data.lock().unwrap()[5 * 512..][..512]
    );
    assert_eq!(memory(&driver, BUFFER + 512, 1), [OK]);
}

#[test]
fn a_long_request_is_one_request() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    let len = SECTORS as u32 * 512;
    assert_eq!(request(&driver, IN, 0, &[(HIGH_START, len, true)]), (OK, len + 1));
    assert_eq!(
        memory(&driver, HIGH_START, len as usize),
        *disk.data.lock().unwrap()
    );
    driver
        .memory
        .write_slice(&vec![9; len as usize], GuestAddress(HIGH_START))
        .unwrap();
    assert_eq!(request(&driver, OUT, 0, &[(HIGH_START, len, false)]), (OK, 1));
    assert!(disk.data.lock().unwrap().iter().all(|&byte| byte == 9));
}

#[test]
fn flushes_and_names_itself() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    assert_eq!(request(&driver, OUT, 0, &[(BUFFER, 512, false)]), (OK, 1));
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 0);
    assert_eq!(request(&driver, FLUSH, 0, &[]), (OK, 1));
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 1);
    assert_eq!(request(&driver, GET_ID, 0, &[(BUFFER, 20, true)]), (OK, 21));
    assert_eq!(memory(&driver, BUFFER, 20), *b"vol0123456789abcdef0");
    assert_eq!(request(&driver, GET_ID, 0, &[(BUFFER, 19, true)]), (IOERR, 0));
}

#[test]
fn writes_through_for_a_driver_that_cannot_flush() {
    let disk = MemoryDisk::new();
    let mut driver = start(&disk);
    driver.initialise(!(EVENT_IDX | 1 << 9), 16);
    assert_eq!(request(&driver, OUT, 0, &[(BUFFER, 512, false)]), (OK, 1));
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 1);
}

#[test]
fn refuses_what_it_cannot_do() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    let (read, write) = ((BUFFER, 512, true), (BUFFER, 512, false));
    let before = disk.data.lock().unwrap().clone();
    for (kind, sector, data, expected) in [
        (IN, SECTORS, read, IOERR),
        (IN, SECTORS - 1, (BUFFER, 1024, true), IOERR),
        (IN, u64::MAX, read, IOERR),
        (IN, u64::MAX / 512, read, IOERR),
        (OUT, SECTORS, write, IOERR),
        (OUT, u64::MAX / 512 + 1, write, IOERR),
        (IN, 0, (BUFFER, 511, true), IOERR),
        (OUT, 0, (BUFFER, 100, false), IOERR),
        (IN, 0, write, IOERR),
        (OUT, 0, read, IOERR),
        (11, 0, write, UNSUPP),
        (0xffff_ffff, 0, read, UNSUPP),
    ] {
        // The status is all that is written, and counts if nothing before it is left out.
        let written = u32::from(!data.2);
        let answer = request(&driver, kind, sector, &[data]);
        assert_eq!(answer, (expected, written), "{kind} {sector} {data:?}");
    }
    assert_eq!(*disk.data.lock().unwrap(), before);
    assert_works(&driver, &disk);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let disk = MemoryDisk::new();
    let driver = Driver::start(block(&disk, true));
    let before = disk.data.lock().unwrap().clone();
    assert_eq!(request(&driver, OUT, 0, &[(BUFFER, 512, false)]), (IOERR, 1));
    assert_eq!(*disk.data.lock().unwrap(), before);
    assert_works(&driver, &disk);
}

#[test]
fn errors_of_the_disk_reach_the_guest_and_the_device_lives_on() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    for errno in [libc::ENOSPC, libc::EIO] {
        *disk.fail.lock().unwrap() = Some(errno);
        for _ in 0..20 {
            assert_eq!(request(&driver, OUT, 0, &[(BUFFER, 512, false)]).0, IOERR);
            assert_eq!(request(&driver, IN, 0, &[(BUFFER, 512, true)]).0, IOERR);
            assert_eq!(request(&driver, FLUSH, 0, &[]).0, IOERR);
        }
        *disk.fail.lock().unwrap() = None;
        assert_works(&driver, &disk);
    }
    assert_eq!(driver.status() & NEEDS_RESET, 0);
}

#[test]
fn each_breakage_needs_a_reset_and_the_device_works_after_it() {
    let disk = MemoryDisk::new();
    let mut driver = start(&disk);
    let no_status: (&str, fn(&crate::virtio::testing::Ring)) = ("no room for a status", |ring| {
        ring.chain(0, &[(HEADER, 16, false), (BUFFER, 512, false)]);
        ring.offer(0);
    });
    let short_header: (&str, fn(&crate::virtio::testing::Ring)) = ("half a header", |ring| {
        ring.chain(0, &[(HEADER, 15, false), (STATUS, 1, true)]);
        ring.offer(0);
    });
    for (name, break_it) in BREAKAGES.iter().chain(&[no_status, short_header]) {
        eprintln!("{name}");
        break_it(driver.ring(0));
        driver.ring(0).kick(&driver);
        driver.wait_needs_reset();
        driver.initialise(!EVENT_IDX, 16);
        assert_eq!(driver.status() & NEEDS_RESET, 0);
        assert_works(&driver, &disk);
    }
}

#[test]
fn what_came_before_a_broken_chain_is_answered() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    header(&driver, HEADER, IN, 0);
    let ring = driver.ring(0);
    ring.chain(4, &[(HEADER, 16, false), (BUFFER, 512, true), (STATUS, 1, true)]);
    ring.descriptor(0, DATA, 16, NEXT, 0);
    ring.offer(4);
    ring.offer(0);
    ring.kick(&driver);
    driver.wait_needs_reset();
    ring.wait_used(1);
    assert_eq!(driver.interrupts.count(1), 1);
}

#[test]
fn indirect_descriptors_carry_requests() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    header(&driver, HEADER, IN, 8);
    let ring = driver.ring(0);
    let table = DATA + 0x8000;
    ring.table_entry(table, 0, HEADER, 16, NEXT, 2);
    ring.table_entry(table, 2, BUFFER, 512, NEXT | WRITE, 1);
    ring.table_entry(table, 1, STATUS, 1, WRITE, 0);
    ring.descriptor(7, table, 48, INDIRECT, 0);
    ring.offer(7);
    ring.kick(&driver);
    ring.wait_used(1);
    assert_eq!(ring.used_element(0), (7, 513));
    assert_eq!(
        memory(&driver, BUFFER, 512),
        disk.data.lock().unwrap()[8 * 512..][..512]
    );
}

#[test]
fn a_reset_waits_for_the_requests_in_flight() {
    let disk = MemoryDisk::new();
    let mut driver = start(&disk);
    let (arrived, arrivals) = channel();
    let (go, gone) = channel();
    *disk.gate.lock().unwrap() = Some((arrived, gone));
    header(&driver, HEADER, IN, 0);
    let ring = driver.ring(0);
    for head in [0, 4, 8] {
        ring.chain(
            head,
            &[(HEADER, 16, false), (BUFFER, 512, true), (STATUS, 1, true)],
        );
        ring.offer(head);
    }
    ring.kick(&driver);
    arrivals.recv_timeout(PATIENCE).unwrap();
    let (status_zero, seen) = channel();
    std::thread::scope(|scope| {
        let driver = &driver;
        scope.spawn(move || {
            driver.set_status(0);
            status_zero.send(driver.ring(0).used_index()).unwrap();
        });
        let early = seen.recv_timeout(std::time::Duration::from_millis(50));
        assert!(early.is_err(), "the reset ended before the requests");
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        let used = seen.recv_timeout(PATIENCE).unwrap();
        assert!((1..=3).contains(&used), "what was taken is answered: {used}");
        assert_eq!(
            driver.ring(0).used_index(),
            used,
            "and nothing happens after the reset"
        );
    });
    *disk.gate.lock().unwrap() = None;
    driver.initialise(!EVENT_IDX, 16);
    assert_works(&driver, &disk);
}

#[test]
fn a_batch_is_one_interrupt() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    // Of no known type, so that they are answered at once: those that go to the disk come back as they like.
    header(&driver, HEADER, 99, 0);
    let ring = driver.ring(0);
    let heads = [0, 3, 6, 9];
    for head in heads {
        ring.chain(
            head,
            &[(HEADER, 16, false), (BUFFER, 512, true), (STATUS, 1, true)],
        );
    }
    // The worker may be looking at the ring already.
    ring.offer_all(&heads);
    ring.kick(&driver);
    ring.wait_used(4);
    driver
        .interrupts
        .wait_until("an interrupt", || driver.interrupts.count(1) > 0);
    driver.set_status(0);
    assert_eq!(driver.interrupts.count(1), 1);
}

#[test]
fn the_driver_can_suppress_interrupts() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    header(&driver, HEADER, IN, 0);
    let ring = driver.ring(0);
    ring.set_u16(ring.available, 1);
    ring.chain(0, &[(HEADER, 16, false), (BUFFER, 512, true), (STATUS, 1, true)]);
    ring.offer(0);
    ring.kick(&driver);
    // Not before the worker has decided about the first interrupt: then it asks for the doorbell again.
    while ring.used_index() != 1 || ring.u16(ring.used) != 0 {
        std::thread::yield_now();
    }
    ring.set_u16(ring.available, 0);
    ring.offer(0);
    ring.kick(&driver);
    ring.wait_used(2);
    driver
        .interrupts
        .wait_until("an interrupt", || driver.interrupts.count(1) > 0);
    assert_eq!(driver.interrupts.count(1), 1);
}

#[test]
fn event_idx_says_when_to_interrupt() {
    let disk = MemoryDisk::new();
    let mut driver = start(&disk);
    driver.initialise(u64::MAX, 16);
    header(&driver, HEADER, IN, 0);
    let ring = driver.ring(0);
    ring.chain(0, &[(HEADER, 16, false), (BUFFER, 512, true), (STATUS, 1, true)]);
    // Not for the first two, but for the third; 100 times around the ring and over the index's end.
    for round in 0..30_000u16 {
        let base = round.wrapping_mul(3);
        let interrupts = driver.interrupts.count(1);
        ring.set_used_event(base.wrapping_add(2));
        for _ in 0..3 {
            ring.offer(0);
            ring.kick(&driver);
        }
        ring.wait_used(base.wrapping_add(3));
        driver
            .interrupts
            .wait_until("the third", || driver.interrupts.count(1) == interrupts + 1);
    }
}

#[test]
fn dropping_the_function_ends_its_worker_and_gives_the_disk_back() {
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    assert_works(&driver, &disk);
    drop(driver);
    assert_eq!(Arc::strong_count(&disk), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Random tables and rings: no panic, no hang, and the device works after a reset.
    #[test]
    fn no_ring_breaks_the_device_for_good(
        entries in prop::collection::vec(
            (
                prop_oneof![
                    Just(HEADER), Just(STATUS), Just(BUFFER), DATA..DATA + 0x1_0000,
                    0x1_0000u64..0x2_0000, Just(HIGH_END - 16), any::<u64>()
                ],
                prop_oneof![Just(16u32), Just(1), Just(512), 0u32..10_000, any::<u32>()],
                prop_oneof![0u16..8, any::<u16>()],
                prop_oneof![0u16..18, any::<u16>()],
            ),
            16,
        ),
        heads in prop::collection::vec(prop_oneof![0u16..17, any::<u16>()], 1..20),
        kind in prop_oneof![Just(IN), Just(OUT), Just(FLUSH), Just(GET_ID), any::<u32>()],
        sector in prop_oneof![0..SECTORS + 2, any::<u64>()],
        event_idx in any::<bool>(),
    ) {
        let disk = MemoryDisk::new();
        let mut driver = start(&disk);
        driver.initialise(if event_idx { u64::MAX } else { !EVENT_IDX }, 16);
        header(&driver, HEADER, kind, sector);
        let ring = driver.ring(0);
        for (index, (address, len, flags, next)) in (0..).zip(entries) {
            ring.descriptor(index, address, len, flags, next);
        }
        for head in heads {
            ring.offer(head);
            ring.kick(&driver);
        }
        driver.initialise(!EVENT_IDX, 16);
        assert_works(&driver, &disk);
    }
}
