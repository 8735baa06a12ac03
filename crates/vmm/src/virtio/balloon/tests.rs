use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::device::{F_DEFLATE_ON_OOM, F_REPORTING, F_STATS_VQ};
use super::handle::TargetError;
use super::*;
use crate::memory::release::PAGE;
use crate::metrics::{Operation, OperationReport, Registry};
use crate::notices::{Notice, Notices};
use crate::pci::PciFunction as _;
use crate::virtio::testing::{
    BREAKAGES, DATA, Driver, EVENT_IDX, HIGH_END, HIGH_START, LOW_END, NEEDS_RESET, PATIENCE,
};
use crate::virtio::{VirtioDevice as _, feature};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
/// Where Linux has it: hinting is not offered.
const REPORTING: usize = 3;

const EVERYTHING: BalloonOptions = BalloonOptions {
    target_mib: 1,
    deflate_on_oom: true,
    free_page_reporting: true,
};
const MEMORY_MIB: u64 = 4;

/// Address, length, whether the device may write to it.
type Buffer = (u64, u32, bool);

struct Guest {
    driver: Driver,
    handle: Arc<Handle>,
    notices: Arc<Notices>,
    metrics: Registry,
}

impl Guest {
    fn start() -> Self {
        Self::with(EVERYTHING)
    }

    fn with(options: BalloonOptions) -> Self {
        let handle = Handle::new(options, MEMORY_MIB).unwrap();
        let notices = Arc::new(Notices::new().unwrap());
        let metrics = Registry::default();
        let device = Balloon::new(Arc::clone(&handle), Arc::clone(&notices));
        Self {
            driver: Driver::start(device.counted_in(metrics.device("balloon", ""))),
            handle,
            notices,
            metrics,
        }
    }

    /// Offers one chain and waits until it is used.
    fn ask(&self, queue: usize, buffers: &[Buffer]) {
        let ring = self.driver.ring(queue);
        let nth = ring.used_index();
        ring.chain(0, buffers);
        ring.offer(0);
        ring.kick(&self.driver);
        ring.wait_used(nth.wrapping_add(1));
    }

    fn send_pfns(&self, queue: usize, pfns: &[u32]) {
        let bytes: Vec<u8> = pfns.iter().flat_map(|pfn| pfn.to_le_bytes()).collect();
        self.driver
            .memory
            .write_slice(&bytes, GuestAddress(DATA))
            .unwrap();
        self.ask(queue, &[(DATA, bytes.len() as u32, false)]);
    }

    fn operation(&self, operation: Operation) -> OperationReport {
        self.metrics.report().devices[0].operations[&operation].clone()
    }

    /// Whether the host has a page there, by its own books.
    fn is_resident(&self, address: u64) -> bool {
        let host = self
            .driver
            .memory
            .get_host_address(GuestAddress(address))
            .unwrap();
        let mut resident = 0;
        // SAFETY: one page that is mapped, and one byte for it.
        let outcome = unsafe { libc::mincore(host.cast(), PAGE as usize, &mut resident) };
        assert_eq!(outcome, 0);
        resident & 1 != 0
    }

    fn touch(&self, pages: impl Iterator<Item = u64>) {
        for page in pages {
            self.driver.memory.write_obj(page, GuestAddress(page)).unwrap();
            assert!(self.is_resident(page));
        }
    }

    fn send_statistics(&self, entries: &[(u16, u64)]) {
        let mut bytes = Vec::new();
        for (tag, value) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        self.driver
            .memory
            .write_slice(&bytes, GuestAddress(DATA))
            .unwrap();
        let ring = self.driver.ring(STATISTICS);
        ring.chain(0, &[(DATA, bytes.len() as u32, false)]);
        ring.offer(0);
        ring.kick(&self.driver);
    }

    fn wait_for_notice(&self) -> Vec<Notice> {
        // SAFETY: the notices keep their descriptor open.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.notices.as_raw_fd()) };
        let mut fds = [PollFd::new(&descriptor, PollFlags::IN)];
        assert_eq!(
            poll(&mut fds, Some(&PATIENCE.try_into().unwrap())).unwrap(),
            1,
            "no notice"
        );
        self.notices.take()
    }
}

/// All pages but those that hold rings and requests: (address).
fn spare_pages() -> Vec<u64> {
    let low = (0x8_0000..DATA).chain(DATA + 0x1_0000..LOW_END);
    let pages = low.chain(HIGH_START..HIGH_END);
    pages.filter(|address| address % PAGE == 0).collect()
}

fn pfn(address: u64) -> u32 {
    (address / PAGE) as u32
}

#[test]
fn inflated_pages_leave_the_host_and_are_zero_when_they_come_back() {
    let guest = Guest::start();
    let pages: Vec<u64> = (HIGH_START..HIGH_END).step_by(PAGE as usize).collect();
    guest.touch(pages.iter().copied());
    let kept = HIGH_START + 17 * PAGE;
    // Backwards, as Linux often has them.
    let pfns: Vec<u32> = pages
        .iter()
        .rev()
        .filter(|&&page| page != kept)
        .map(|&page| pfn(page))
        .collect();
    for request in pfns.chunks(256) {
        guest.send_pfns(INFLATE, request);
    }
    for &page in &pages {
        assert_eq!(guest.is_resident(page), page == kept, "{page:#x}");
    }
    assert_eq!(
        guest.operation(Operation::Inflate).bytes,
        pfns.len() as u64 * PAGE
    );
    guest.send_pfns(DEFLATE, &pfns[..256]);
    assert_eq!(guest.operation(Operation::Deflate).bytes, 256 * PAGE);
    let read = |page| guest.driver.memory.read_obj::<u64>(GuestAddress(page)).unwrap();
    assert_eq!((read(kept), read(HIGH_START)), (kept, 0));
}

#[test]
fn reported_ranges_leave_the_host_as_far_as_they_are_whole_pages() {
    let guest = Guest::start();
    let pages = || (HIGH_START..HIGH_END).step_by(PAGE as usize);
    guest.touch(pages());
    let (a, b) = (HIGH_START + 0x1_0000, HIGH_START + 0x8_0000);
    guest.ask(
        REPORTING,
        &[
            (a, 0x2_0000, true),
            (b + 100, 3 * PAGE as u32, true),
            (b, 99, true),
        ],
    );
    for page in pages() {
        let gone = (a..a + 0x2_0000).contains(&page) || (b + PAGE..b + 3 * PAGE).contains(&page);
        assert_eq!(guest.is_resident(page), !gone, "{page:#x}");
    }
    let report = guest.operation(Operation::ReportFree);
    assert_eq!((report.operations, report.errors), (1, 1));
}

/// Whatever numbers come: the pages that they name are gone, all others are as they were, and the queue lives.
fn hostile_pfns(guest: &Guest, pages: &[u64], pfns: &[u32]) {
    for &page in pages {
        guest.driver.memory.write_obj(page, GuestAddress(page)).unwrap();
    }
    let errors = |guest: &Guest| {
        let report = guest.metrics.report();
        let inflate = report.devices[0].operations.get(&Operation::Inflate);
        inflate.map_or(0, |inflate| inflate.errors)
    };
    let before = errors(guest);
    guest.send_pfns(INFLATE, pfns);
    let named: BTreeSet<u64> = pfns.iter().map(|&pfn| u64::from(pfn) * PAGE).collect();
    for &page in pages {
        let value: u64 = guest.driver.memory.read_obj(GuestAddress(page)).unwrap();
        assert_eq!(value, if named.contains(&page) { 0 } else { page }, "{page:#x}");
    }
    let outside = |&page: &u64| !guest.driver.memory.address_in_range(GuestAddress(page));
    let wrong = named.iter().any(outside);
    assert_eq!(errors(guest) - before, u64::from(wrong));
}

#[test]
fn page_numbers_from_anywhere_harm_nobody() {
    let guest = Guest::start();
    let pages = spare_pages();
    let spare = prop::sample::select(pages.clone()).prop_map(pfn);
    let beyond = prop_oneof![
        pfn(LOW_END)..pfn(HIGH_START),
        pfn(HIGH_END)..u32::MAX,
        Just(u32::MAX),
    ];
    // Neighbours, so that runs cross the borders of RAM, and the same again.
    let border = prop::sample::select(vec![
        pfn(LOW_END) - 1,
        pfn(LOW_END),
        pfn(HIGH_START) - 1,
        pfn(HIGH_START),
        pfn(HIGH_END) - 1,
        pfn(HIGH_END),
    ]);
    let lists = prop::collection::vec(prop_oneof![4 => spare, 1 => beyond, 2 => border], 1..1024);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(48));
    runner
        .run(&lists, |pfns| {
            hostile_pfns(&guest, &pages, &pfns);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_guest_that_gives_its_rings_away_has_only_itself_to_reset() {
    let mut guest = Guest::start();
    let everything: Vec<u32> = (0..pfn(HIGH_END)).collect();
    let bytes: Vec<u8> = everything.iter().flat_map(|pfn| pfn.to_le_bytes()).collect();
    guest
        .driver
        .memory
        .write_slice(&bytes, GuestAddress(DATA))
        .unwrap();
    let ring = guest.driver.ring(INFLATE);
    ring.chain(0, &[(DATA, bytes.len() as u32, false)]);
    ring.offer(0);
    ring.kick(&guest.driver);
    guest.driver.initialise(!EVENT_IDX, 16);
    guest.touch(std::iter::once(HIGH_START));
    guest.send_pfns(INFLATE, &[pfn(HIGH_START)]);
    assert!(!guest.is_resident(HIGH_START));
}

#[test]
fn each_breakage_of_each_queue_needs_a_reset_and_the_device_works_after_it() {
    let mut guest = Guest::start();
    for queue in [INFLATE, DEFLATE, STATISTICS, REPORTING] {
        for (name, break_it) in BREAKAGES {
            eprintln!("queue {queue}: {name}");
            break_it(guest.driver.ring(queue));
            guest.driver.ring(queue).kick(&guest.driver);
            guest.driver.wait_needs_reset();
            guest.driver.initialise(!EVENT_IDX, 16);
            assert_eq!(guest.driver.status() & NEEDS_RESET, 0);
            guest.send_pfns(INFLATE, &[pfn(HIGH_START)]);
        }
    }
}

#[test]
fn requests_in_the_wrong_direction_or_without_end_need_a_reset() {
    let requests: [(usize, &[Buffer]); 6] = [
        (INFLATE, &[(DATA, 4, true)]),
        (DEFLATE, &[(DATA, 4, false), (DATA, 4, true)]),
        (INFLATE, &[(DATA, 0x1_0004, false)]),
        (
            DEFLATE,
            &[(DATA, 0x8_0000, false), (HIGH_START, 0x10_0000, false)],
        ),
        (STATISTICS, &[(DATA, 20, false), (DATA, 20, true)]),
        (REPORTING, &[(DATA, PAGE as u32, false)]),
    ];
    let mut guest = Guest::start();
    for (queue, buffers) in requests {
        eprintln!("queue {queue}: {buffers:x?}");
        guest.driver.ring(queue).chain(0, buffers);
        guest.driver.ring(queue).offer(0);
        guest.driver.ring(queue).kick(&guest.driver);
        guest.driver.wait_needs_reset();
        guest.driver.initialise(!EVENT_IDX, 16);
    }
}

#[test]
fn a_new_target_interrupts_the_driver_which_says_how_far_it_came() {
    let guest = Guest::start();
    let config = |guest: &Guest| guest.driver.device_config(16);
    assert_eq!(config(&guest)[..8], [0, 1, 0, 0, 0, 0, 0, 0]);
    guest.handle.set_target(3).unwrap();
    guest
        .driver
        .interrupts
        .wait_until("a configuration interrupt", || {
            guest.driver.interrupts.count(0) > 0
        });
    assert_eq!(config(&guest)[..4], 0x300_u32.to_le_bytes());
    guest.driver.device_config_write(4, &0x2ff_u32.to_le_bytes());
    // What the host writes is not the driver's.
    guest.driver.device_config_write(0, &[0xff; 4]);
    guest.driver.device_config_write(8, &[0xff; 8]);
    assert_eq!(
        config(&guest),
        [0, 3, 0, 0, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    let status = guest.handle.status();
    assert_eq!((status.target_mib, status.actual_mib), (3, 2));
    assert_eq!(
        guest.handle.set_target(5),
        Err(TargetError::TooLarge {
            target_mib: 5,
            memory_mib: 4
        })
    );
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let guest = Guest::start();
    let ring = guest.driver.ring(STATISTICS);
    // A fresh driver leaves its first buffer at once; it is kept, and the next request brings news.
    guest.send_statistics(&[(4, 1 << 20)]);
    for round in 1..4_u16 {
        guest.handle.ask_for_statistics();
        ring.wait_used(round);
        let value = u64::from(round) << 40;
        guest.send_statistics(&[(4, value), (1234, 1), (10, 7), (0xffff, u64::MAX)]);
        assert_eq!(guest.wait_for_notice(), [Notice::BalloonStatistics]);
        let expected = [(Statistic::FreeBytes, value), (Statistic::OomKills, 7)];
        assert_eq!(guest.handle.status().statistics, expected.into());
    }
    // Whoever does not ask is told nothing, and no buffer is given back.
    assert_eq!(guest.notices.take(), []);
    assert_eq!(ring.used_index(), 3);
}

#[test]
fn a_wish_waits_for_a_driver_that_comes_later() {
    let mut guest = Guest::start();
    guest.handle.ask_for_statistics();
    guest.driver.initialise(!EVENT_IDX, 16);
    guest.send_statistics(&[(4, 1)]);
    guest.driver.ring(STATISTICS).wait_used(1);
    guest.send_statistics(&[(4, 2)]);
    assert_eq!(guest.wait_for_notice(), [Notice::BalloonStatistics]);
    assert_eq!(guest.handle.status().statistics[&Statistic::FreeBytes], 2);
}

#[test]
fn more_statistics_than_the_device_wants_stay_in_their_queue() {
    let guest = Guest::start();
    for _ in 0..16 {
        guest.send_statistics(&[(4, 1)]);
    }
    guest.handle.ask_for_statistics();
    guest.driver.ring(STATISTICS).wait_used(1);
    guest.wait_for_notice();
    assert_eq!(guest.driver.ring(STATISTICS).used_index(), 1);
}

#[test]
fn drivers_without_statistics_report_where_they_count_it() {
    for (features, queue) in [
        (feature(F_REPORTING), 2),
        (feature(F_REPORTING), 4),
        (feature(F_REPORTING) | feature(F_STATS_VQ), 3),
        (feature(F_REPORTING) | feature(F_STATS_VQ), 4),
    ] {
        let mut guest = Guest::start();
        guest.driver.initialise(features | 1 << 32, 16);
        guest.touch(std::iter::once(HIGH_START));
        guest.ask(queue, &[(HIGH_START, PAGE as u32, true)]);
        assert!(!guest.is_resident(HIGH_START));
    }
}

#[test]
fn a_plain_balloon_offers_what_its_options_say() {
    let plain = Guest::with(BalloonOptions::default());
    let offered = |guest: &Guest| guest.driver.offered() & 0xff;
    assert_eq!(offered(&plain), feature(F_STATS_VQ));
    assert_eq!(
        offered(&Guest::start()),
        feature(F_STATS_VQ) | feature(F_DEFLATE_ON_OOM) | feature(F_REPORTING)
    );
}

#[test]
fn over_a_pause_the_drivers_buffer_is_kept_and_news_wait() {
    let guest = Guest::start();
    let ring = guest.driver.ring(STATISTICS);
    guest.send_statistics(&[(4, 1)]);
    for round in 1..4 {
        guest.handle.ask_for_statistics();
        ring.wait_used(round);
        guest.send_statistics(&[(4, round.into())]);
        assert_eq!(guest.wait_for_notice(), [Notice::BalloonStatistics]);
        guest.driver.function.pause();
        let before = guest.driver.interrupts.count(0);
        guest.handle.set_target(u64::from(round)).unwrap();
        assert_eq!(guest.driver.interrupts.count(0), before);
        guest.driver.function.resume();
        guest
            .driver
            .interrupts
            .wait_until("a configuration interrupt", || {
                guest.driver.interrupts.count(0) > before
            });
    }
}

#[test]
fn news_that_come_during_a_pause_are_announced_after_it() {
    let guest = Guest::start();
    guest.send_statistics(&[(4, 1)]);
    for round in 1..20 {
        guest.handle.ask_for_statistics();
        guest.driver.ring(STATISTICS).wait_used(round);
        guest.driver.function.pause();
        guest.send_statistics(&[(4, round.into())]);
        guest.driver.function.resume();
        assert_eq!(guest.wait_for_notice(), [Notice::BalloonStatistics]);
        let statistics = guest.handle.status().statistics;
        assert_eq!(statistics[&Statistic::FreeBytes], u64::from(round));
    }
}

#[test]
fn a_wish_during_a_pause_is_granted_after_it() {
    let guest = Guest::start();
    guest.send_statistics(&[(4, 1)]);
    guest.driver.function.pause();
    guest.handle.ask_for_statistics();
    guest.driver.function.resume();
    guest.driver.ring(STATISTICS).wait_used(1);
}

#[test]
fn a_snapshot_keeps_target_and_actual_size() {
    let guest = Guest::start();
    guest.handle.set_target(3).unwrap();
    let notices = Arc::new(Notices::new().unwrap());
    let balloon = |memory_mib| {
        let handle = Handle::new(BalloonOptions::default(), memory_mib).unwrap();
        (Balloon::new(Arc::clone(&handle), Arc::clone(&notices)), handle)
    };
    let saved = Balloon::new(Arc::clone(&guest.handle), Arc::clone(&notices));
    guest.driver.device_config_write(4, &0x2ff_u32.to_le_bytes());
    let saved = saved.save().unwrap();
    let (mut same, handle) = balloon(MEMORY_MIB);
    same.restore(&saved).unwrap();
    let status = handle.status();
    assert_eq!((status.target_mib, status.actual_mib), (3, 2));
    let (mut smaller, handle) = balloon(2);
    assert!(smaller.restore(&saved).is_err());
    assert_eq!(handle.status().target_mib, 0);
    for wrong in [&b""[..], b"\xff", b"\x01\x01\x01"] {
        assert!(same.restore(&wrong.to_vec().into()).is_err());
    }
}
