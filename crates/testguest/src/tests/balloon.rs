//! The memory balloon. Virtio 1.2, section 5.5.
//!
//! A page that was given away is uninitialised memory; this monitor's guests find zeroes there.

use super::{Case, cases};
use crate::cpu::{self, read, write};
use crate::memory::{allocate, fill};
use crate::report::Outcome;
use crate::virtio::ring::{Buffer, Ring, into, out};
use crate::virtio::status::NEEDS_RESET;
use crate::virtio::{CONFIG_INTERRUPT, Device, feature};
use crate::{ensure, println, same};

pub const CASES: &[Case] = cases![
    says_its_target_and_notes_what_it_has,
    pages_go_and_come_back,
    pages_outside_of_memory_are_ignored,
    only_whole_numbers_of_pages_count,
    many_and_repeated_pages_are_taken,
    pages_in_use_harm_the_guest_only,
    reported_pages_go,
    of_reported_ranges_only_whole_pages_go,
    a_held_statistics_buffer_survives_resets,
    odd_statistics_harm_nobody,
    wrong_requests_break_their_queue,
];

/// Its queues; between them is one for hints, which is not offered.
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
const REPORTING: usize = 4;
const QUEUES: usize = 5;
const RING_SIZE: u16 = 16;

const TARGET: u64 = 0;
const ACTUAL: u64 = 4;
/// Of the machine that the suite runs on: 1 MiB.
const TARGET_PAGES: u32 = 256;

const PAGE: u64 = 4096;
const PATTERN: u8 = 0x5a;
/// Page numbers of one request at most, in bytes.
const LARGEST_REQUEST: u64 = 64 << 10;
/// A tag and a value.
const STATISTIC_LEN: u64 = 10;

fn start(device: &Device) -> Outcome<[Ring; QUEUES]> {
    device.start(!feature::EVENT_IDX, RING_SIZE)
}

/// Pages that are not empty.
fn pages(count: u64) -> u64 {
    let pages = allocate(count * PAGE);
    fill(pages, count * PAGE, PATTERN);
    pages
}

fn is_gone(page: u64) -> bool {
    (0..PAGE / 8).all(|word| read::<u64>(page + 8 * word) == 0)
}

fn is_there(page: u64) -> bool {
    (0..PAGE / 8).all(|word| read::<u64>(page + 8 * word) == u64::from_ne_bytes([PATTERN; 8]))
}

/// Hands page numbers to a queue.
fn hand(ring: &mut Ring, what: &str, pages: impl IntoIterator<Item = u64> + Clone) -> Outcome {
    let numbers = allocate(4 * pages.clone().into_iter().count() as u64);
    let mut len = 0;
    for page in pages {
        write(numbers + len, (page / PAGE) as u32);
        len += 4;
    }
    same!(
        ring.request(what, &[out(numbers, len as u32)])?,
        0,
        "{what}: bytes written"
    );
    Ok(())
}

pub fn works(device: &Device) -> Outcome {
    let mut rings = start(device)?;
    let page = pages(1);
    hand(&mut rings[INFLATE], "a page", [page])?;
    ensure!(is_gone(page), "the page was not taken");
    fill(page, PAGE, PATTERN);
    ensure!(is_there(page), "the page cannot be used again");
    hand(&mut rings[DEFLATE], "a page back", [page])
}

fn says_its_target_and_notes_what_it_has(device: &Device) -> Outcome {
    start(device)?;
    same!(device.config::<u32>(TARGET), TARGET_PAGES, "target");
    write(device.config + TARGET, u32::MAX);
    same!(device.config::<u32>(TARGET), TARGET_PAGES, "target, written");
    for actual in [7, u32::MAX, 0] {
        write(device.config + ACTUAL, actual);
        same!(device.config::<u32>(ACTUAL), actual, "actual");
    }
    Ok(())
}

fn pages_go_and_come_back(device: &Device) -> Outcome {
    const COUNT: u64 = 100;
    let mut rings = start(device)?;
    let first = pages(COUNT);
    // Every other one, the last first.
    let gone = (0..COUNT / 2).rev().map(|nth| first + 2 * nth * PAGE);
    hand(&mut rings[INFLATE], "fifty pages", gone.clone())?;
    for nth in 0..COUNT {
        let page = first + nth * PAGE;
        ensure!(
            if nth % 2 == 0 {
                is_gone(page)
            } else {
                is_there(page)
            },
            "page {nth} of {COUNT}"
        );
    }
    hand(&mut rings[DEFLATE], "fifty pages back", gone)
}

fn pages_outside_of_memory_are_ignored(device: &Device) -> Outcome {
    let mut rings = start(device)?;
    let page = pages(1);
    let wild = [
        cpu::LOCAL_APIC,
        0xc000_0000,
        1 << 32,
        u64::from(u32::MAX) * PAGE,
        page,
    ];
    for queue in [DEFLATE, INFLATE] {
        hand(&mut rings[queue], "wild pages", wild)?;
    }
    same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    ensure!(is_gone(page), "the good one among them was not taken");
    Ok(())
}

fn only_whole_numbers_of_pages_count(device: &Device) -> Outcome {
    let mut rings = start(device)?;
    let numbers = allocate(PAGE);
    for len in 5..8 {
        let page = pages(2);
        write(numbers, (page / PAGE) as u32);
        write(numbers + 4, (page / PAGE) as u32 + 1);
        rings[INFLATE].request("a broken number", &[out(numbers, 3), out(numbers + 3, len - 3)])?;
        ensure!(is_gone(page) && is_there(page + PAGE), "of {len} bytes");
    }
    Ok(())
}

fn many_and_repeated_pages_are_taken(device: &Device) -> Outcome {
    let mut rings = start(device)?;
    let page = pages(1);
    let most = (LARGEST_REQUEST / 4) as usize;
    hand(
        &mut rings[INFLATE],
        "one page very often",
        core::iter::repeat_n(page, most),
    )?;
    ensure!(is_gone(page), "the page was not taken");
    // Far more than memory has, and none of it in use.
    let beyond = (0..most as u64).map(|nth| (1 << 40) + 2 * nth * PAGE);
    hand(&mut rings[INFLATE], "sixteen thousand holes", beyond)
}

/// Who gives its own rings away has broken ones.
fn pages_in_use_harm_the_guest_only(device: &Device) -> Outcome {
    for of in [
        |ring: &Ring| ring.descriptors,
        |ring: &Ring| ring.available,
        |ring: &Ring| ring.used,
    ] {
        crate::memory::free_all();
        let rings = start(device)?;
        let numbers = allocate(PAGE);
        let ring = &rings[INFLATE];
        write(numbers, (of(ring) / PAGE) as u32);
        ring.chain(0, &[out(numbers, 4)]);
        for _ in 0..3 {
            ring.offer(0);
            ring.kick();
        }
        works(device)?;
    }
    Ok(())
}

/// Offers free ranges.
fn report(ring: &mut Ring, ranges: &[Buffer]) -> Outcome {
    same!(ring.request("free pages", ranges)?, 0, "bytes written");
    Ok(())
}

fn reported_pages_go(device: &Device) -> Outcome {
    let mut rings = start(device)?;
    let first = pages(7);
    let ring = &mut rings[REPORTING];
    report(
        ring,
        &[
            into(first, 2 * PAGE as u32),
            into(first + 4 * PAGE, 3 * PAGE as u32),
        ],
    )?;
    for (nth, gone) in (0..).zip([true, true, false, false, true, true, true]) {
        let page = first + nth * PAGE;
        ensure!(if gone { is_gone(page) } else { is_there(page) }, "page {nth}");
    }
    Ok(())
}

fn of_reported_ranges_only_whole_pages_go(device: &Device) -> Outcome {
    let mut rings = start(device)?;
    let first = pages(4);
    let ring = &mut rings[REPORTING];
    report(ring, &[into(first + 1, 100)])?;
    report(ring, &[into(first + PAGE - 1, 2)])?;
    report(ring, &[into(first + 1, 2 * PAGE as u32)])?;
    ensure!(is_there(first), "a page of which a part was reported is gone");
    ensure!(is_gone(first + PAGE), "the whole page in a range is not gone");
    ensure!(is_there(first + 2 * PAGE), "the page behind it is gone");
    Ok(())
}

fn put_statistic(at: u64, tag: u16, value: u64) {
    write(at, tag);
    write(at + 2, value);
}

fn a_held_statistics_buffer_survives_resets(device: &Device) -> Outcome {
    for _ in 0..20 {
        crate::memory::free_all();
        let rings = start(device)?;
        let buffer = allocate(PAGE);
        put_statistic(buffer, 4, 1 << 20);
        rings[STATISTICS].chain(0, &[out(buffer, STATISTIC_LEN as u32)]);
        rings[STATISTICS].offer(0);
        rings[STATISTICS].kick();
        device.reset()?;
        same!(rings[STATISTICS].used_index(), 0, "used index: nobody asked");
    }
    works(device)
}

fn odd_statistics_harm_nobody(device: &Device) -> Outcome {
    for len in [1, 9, 11, 10 * 100, 8192, 1 << 20] {
        crate::memory::free_all();
        let rings = start(device)?;
        let buffer = allocate(1 << 20);
        fill(buffer, 8192, 0xff);
        rings[STATISTICS].chain(0, &[out(buffer, len)]);
        rings[STATISTICS].offer(0);
        rings[STATISTICS].kick();
        works_beside(device, rings)?;
    }
    works(device)
}

/// Another queue of the same worker gives answers: the worker has passed the statistics, and is well.
fn works_beside(device: &Device, mut rings: [Ring; QUEUES]) -> Outcome {
    hand(&mut rings[DEFLATE], "a page", [0])?;
    same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    same!(rings[STATISTICS].used_index(), 0, "used index: nobody asked");
    Ok(())
}

/// The queue, what is wrong, and the buffer.
type Wrong = (usize, &'static str, fn(u64) -> Buffer);

fn wrong_requests_break_their_queue(device: &Device) -> Outcome {
    let wrong: [Wrong; 9] = [
        (INFLATE, "less than a number", |at| out(at, 3)),
        (INFLATE, "too many numbers", |at| {
            out(at, LARGEST_REQUEST as u32 + 4)
        }),
        (INFLATE, "a writable buffer", |at| into(at, 4)),
        (DEFLATE, "less than a number", |at| out(at, 1)),
        (DEFLATE, "too many numbers", |at| {
            out(at, LARGEST_REQUEST as u32 + 1)
        }),
        (DEFLATE, "a writable buffer", |at| into(at, 4)),
        (STATISTICS, "a writable buffer", |at| {
            into(at, STATISTIC_LEN as u32)
        }),
        (REPORTING, "a readable range", |at| out(at, PAGE as u32)),
        (REPORTING, "a range of device memory", |_| {
            into(cpu::LOCAL_APIC, PAGE as u32)
        }),
    ];
    for (queue, what, buffer) in wrong {
        crate::memory::free_all();
        let rings = start(device)?;
        let ring = &rings[queue];
        let before = device.interrupts(CONFIG_INTERRUPT);
        ring.chain(0, &[buffer(allocate(2 * LARGEST_REQUEST))]);
        ring.offer(0);
        ring.kick();
        device.wait_needs_reset(before)?;
        same!(ring.used_index(), 0, "queue {queue}, {what}: used index");
        works(device)?;
    }
    Ok(())
}

/// The host asks for statistics as often as the console tells it to.
pub fn tells_statistics(device: &Device, rounds: u32) -> Outcome {
    let mut rings = start(device)?;
    let ring = &mut rings[STATISTICS];
    let buffer = allocate(PAGE);
    for round in 0..rounds {
        put_statistic(buffer, 4, u64::from(round) << 20);
        // Of a tag that nobody knows.
        put_statistic(buffer + STATISTIC_LEN, 999, 1);
        put_statistic(buffer + 2 * STATISTIC_LEN, 5, 64 << 20);
        ring.chain(0, &[out(buffer, 3 * STATISTIC_LEN as u32)]);
        ring.offer(0);
        ring.kick();
        println!("statistics: ask {round}");
        same!(ring.wait("asked for statistics")?, (0, 0), "used element");
    }
    // The last answer, which the device has taken once another queue gets answers.
    put_statistic(buffer, 4, u64::from(rounds) << 20);
    ring.offer(0);
    ring.kick();
    hand(&mut rings[DEFLATE], "a page", [0])
}
