use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use crate::pci::PciFunction as _;
use crate::snapshot::Saved;
use crate::virtio::rng::Rng;
use crate::virtio::testing::{BREAKAGES, DATA, Driver, EVENT_IDX, NEEDS_RESET};

fn offer(driver: &Driver) -> u16 {
    let ring = driver.ring(0);
    ring.chain(0, &[(DATA, 32, true)]);
    let used = ring.used_index();
    // With EVENT_IDX: interrupt for the next one.
    ring.set_used_event(used);
    ring.offer(0);
    ring.kick(driver);
    used.wrapping_add(1)
}

fn assert_works(driver: &Driver) {
    let used = offer(driver);
    driver.ring(0).wait_used(used);
}

/// A paused device and its state, with a request waiting.
fn snapshot(wanted_features: u64) -> (Driver, Saved, u16) {
    let mut driver = Driver::probe(Rng::new());
    driver.initialise(wanted_features, 16);
    for _ in 0..20 {
        assert_works(&driver);
    }
    driver.function.pause();
    let used = offer(&driver);
    let saved = driver.function.save().unwrap();
    (driver, saved, used)
}

#[test]
fn a_doorbell_that_rings_during_a_pause_is_heard_after_it() {
    let driver = Driver::start(Rng::new());
    for _ in 0..3 {
        assert_works(&driver);
        driver.function.pause();
        driver.function.pause();
        let used = offer(&driver);
        assert_ne!(driver.ring(0).used_index(), used);
        driver.function.resume();
        driver.function.resume();
        driver.ring(0).wait_used(used);
    }
}

#[test]
fn a_reset_during_a_pause_forgets_the_queues() {
    let mut driver = Driver::start(Rng::new());
    driver.function.pause();
    driver.function.reset();
    driver.function.resume();
    driver.function.config_write(0x10, &0xc000_0000u32.to_le_bytes());
    driver.function.config_write(0x04, &6u16.to_le_bytes());
    driver.initialise(!EVENT_IDX, 16);
    assert_works(&driver);
}

#[test]
fn a_broken_device_stays_broken_over_a_pause() {
    let mut driver = Driver::start(Rng::new());
    BREAKAGES[0].1(driver.ring(0));
    driver.ring(0).kick(&driver);
    driver.wait_needs_reset();
    driver.function.pause();
    driver.function.resume();
    assert_ne!(driver.status() & NEEDS_RESET, 0);
    driver.initialise(!EVENT_IDX, 16);
    assert_works(&driver);
}

#[test]
fn another_device_goes_on_where_the_snapshot_was_made() {
    for wanted in [!0, !EVENT_IDX] {
        let (old, saved, used) = snapshot(wanted);
        let mut new = Driver::probe(Rng::new());
        copy_memory(&old, &new);
        new.function.restore(&saved).unwrap();
        assert_eq!(new.function.save().unwrap(), saved);
        assert_eq!(new.function.bars(), old.function.bars());
        new.rings = old.rings.iter().map(|ring| ring.of(&new)).collect();
        new.function.resume();
        new.ring(0).wait_used(used);
        assert_works(&new);
        assert_eq!(new.status(), old.status());
    }
}

#[test]
fn state_that_is_cut_or_changed_is_refused_or_harmless() {
    let (_, saved, _) = snapshot(!0);
    let bytes = saved.as_bytes();
    for len in 0..bytes.len() {
        let cut = Saved::from(bytes[..len].to_vec());
        assert!(Driver::probe(Rng::new()).function.restore(&cut).is_err(), "{len}");
    }
    let driver = Driver::probe(Rng::new());
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 0xff;
        if driver.function.restore(&Saved::from(changed)).is_ok() {
            driver.function.resume();
            driver.function.reset();
        }
    }
}

#[test]
fn a_pending_interrupt_is_delivered_after_the_restore() {
    let driver = Driver::start(Rng::new());
    let entry = driver.capabilities.msix_table + 16;
    driver.function.bar_write(0, entry + 12, &1u32.to_le_bytes());
    let used = offer(&driver);
    while driver.ring(0).used_index() != used {
        std::thread::yield_now();
    }
    driver.function.pause();
    let saved = driver.function.save().unwrap();
    let mut new = Driver::probe(Rng::new());
    copy_memory(&driver, &new);
    new.function.restore(&saved).unwrap();
    new.rings = driver.rings.iter().map(|ring| ring.of(&new)).collect();
    new.function.resume();
    assert_eq!(new.interrupts.count(1), 0);
    new.function.bar_write(0, entry + 12, &0u32.to_le_bytes());
    assert_eq!(new.interrupts.count(1), 1);
}

fn copy_memory(from: &Driver, to: &Driver) {
    let mut low = vec![0; crate::virtio::testing::LOW_END as usize];
    from.memory.read_slice(&mut low, GuestAddress(0)).unwrap();
    to.memory.write_slice(&low, GuestAddress(0)).unwrap();
    assert!(!Arc::ptr_eq(&from.function, &to.function));
}
