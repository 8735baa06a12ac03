use vm_memory::{Bytes, GuestAddress};

use super::Rng;
use crate::metrics::{Operation, Registry};
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
