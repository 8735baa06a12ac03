use std::num::NonZeroU64;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::Rng;
use crate::limits::{Limiter, Rate, RateLimit};
use crate::metrics::{Operation, Registry};
use crate::pci::PciFunction as _;
use crate::virtio::testing::{BREAKAGES, DATA, Driver, EVENT_IDX, NEEDS_RESET};

fn ask(driver: &Driver, len: u32) -> Vec<u8> {
    let ring = driver.ring(0);
    let nth = ring.used_index();
    driver
        .memory
        .write_slice(&vec![0; len as usize], GuestAddress(DATA))
        .unwrap();
    ring.chain(
        0,
        &[
            (DATA, len / 2, true),
            (DATA + u64::from(len / 2), len - len / 2, true),
        ],
    );
    ring.offer(0);
    ring.kick(driver);
    ring.wait_used(nth.wrapping_add(1));
    let (head, written) = ring.used_element(nth);
    assert_eq!(head, 0);
    let mut bytes = vec![0; written as usize];
    driver.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
    bytes
}

#[test]
fn gives_random_bytes_bounded_per_request() {
    let driver = Driver::start(Rng::new());
    let first = ask(&driver, 64);
    assert_eq!(first.len(), 64);
    assert_ne!(first, ask(&driver, 64));
    assert_eq!(ask(&driver, 1 << 20).len(), 4096);
}

#[test]
fn counts_requests_and_bytes_over_resets_of_the_device() {
    let registry = Registry::default();
    let mut driver = Driver::start(Rng::new().counted_in(registry.device("rng", "")));
    assert_eq!(ask(&driver, 64).len(), 64);
    driver.initialise(!EVENT_IDX, 16);
    assert_eq!(ask(&driver, 100).len(), 100);
    // The worker counts a request before it completes it.
    let report = registry.report();
    let reads = &report.devices[0].operations[&Operation::Read];
    assert_eq!((reads.operations, reads.bytes, reads.errors), (2, 164, 0));
}

#[test]
fn a_rate_limit_holds_requests_back_until_it_is_lifted_or_the_device_stops() {
    let registry = Registry::default();
    let slow = RateLimit {
        operations: None,
        bytes: NonZeroU64::new(1).map(|per_second| Rate { per_second, burst: 0 }),
    };
    let limiter = Limiter::new(&slow);
    let device = Rng::new().limited_by(Arc::clone(&limiter));
    let mut driver = Driver::start(device.counted_in(registry.device("rng", "")));
    // No debt yet; after it an hour's.
    assert_eq!(ask(&driver, 3600).len(), 3600);
    driver.ring(0).chain(0, &[(DATA, 64, true)]);
    driver.ring(0).offer(0);
    driver.ring(0).kick(&driver);
    driver.function.pause();
    assert_eq!(driver.ring(0).used_index(), 1);
    driver.function.resume();
    limiter.set(&RateLimit::default());
    driver.ring(0).wait_used(2);
    limiter.set(&slow);
    assert_eq!(ask(&driver, 3600).len(), 3600);
    driver.ring(0).offer(0);
    driver.ring(0).kick(&driver);
    driver.initialise(!EVENT_IDX, 16);
    let report = registry.report();
    let reads = &report.devices[0].operations[&Operation::Read];
    assert_eq!((reads.operations, reads.bytes), (3, 7264));
}

#[test]
fn serves_a_ring_many_times_around() {
    let driver = Driver::start(Rng::new());
    for _ in 0..100 {
        assert_eq!(ask(&driver, 8).len(), 8);
    }
}

#[test]
fn each_breakage_needs_a_reset_and_the_device_works_after_it() {
    let mut driver = Driver::start(Rng::new());
    for (name, break_it) in BREAKAGES {
        eprintln!("{name}");
        break_it(driver.ring(0));
        driver.ring(0).kick(&driver);
        driver.wait_needs_reset();
        driver.initialise(!EVENT_IDX, 16);
        assert_eq!(driver.status() & NEEDS_RESET, 0);
        assert_eq!(ask(&driver, 16).len(), 16, "after {name}");
    }
}

#[test]
fn a_readable_buffer_is_malformed() {
    let driver = Driver::start(Rng::new());
    driver.ring(0).chain(0, &[(DATA, 8, false), (DATA, 8, true)]);
    driver.ring(0).offer(0);
    driver.ring(0).kick(&driver);
    driver.wait_needs_reset();
}
