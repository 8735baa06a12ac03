use proptest::prelude::*;

use crate::pci::PciFunction as _;
use crate::virtio::rng::Rng;
use crate::virtio::testing::{
    ACKNOWLEDGE, DATA, DRIVER, DRIVER_OK, Driver, EVENT_IDX, FEATURES_OK, HIGH_END, LOW_END, NEEDS_RESET,
    Ring, VERSION_1,
};

/// The device answers a request.
fn assert_works(driver: &Driver) {
    let ring = driver.ring(0);
    let nth = ring.used_index();
    ring.chain(0, &[(DATA, 32, true)]);
    ring.offer(0);
    ring.kick(driver);
    ring.wait_used(nth.wrapping_add(1));
    assert_eq!(ring.used_element(nth), (0, 32));
}

#[test]
fn a_function_says_what_it_is() {
    let driver = Driver::probe(Rng::new());
    let word = |offset| {
        let mut data = [0; 4];
        driver.function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!(word(0x00), 0x1044_1af4);
    assert_eq!(word(0x08), 0xff00_0001);
    assert_eq!(word(0x2c), 0x0040_1af4);
    let bars = driver.function.bars();
    assert_eq!(bars.len(), 1);
    assert_eq!(
        (bars[0].index, bars[0].address, bars[0].size),
        (0, 0xc000_0000, 0x8000)
    );

    let capabilities = &driver.capabilities;
    assert_eq!(
        capabilities.structures.keys().copied().collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    for (kind, (offset, length)) in &capabilities.structures {
        assert!(offset + length <= 0x8000, "structure {kind} is in the BAR");
    }
    assert_eq!(capabilities.notify_off_multiplier, 4);
    let doorbells = driver.function.doorbells();
    assert_eq!(doorbells.len(), 1);
    assert_eq!(doorbells[0].offset, capabilities.structures[&2].0);
}

#[test]
fn a_doorbell_descriptor_wakes_the_worker() {
    let driver = Driver::start(Rng::new());
    assert_works(&driver);
    let doorbell = driver.function.doorbells().remove(0);
    let ring = driver.ring(0);
    ring.chain(0, &[(DATA, 32, true)]);
    ring.offer(0);
    doorbell.event.write(1).unwrap();
    ring.wait_used(2);
}

#[test]
fn configuration_space_reaches_the_bar() {
    let driver = Driver::start(Rng::new());
    let window = driver.capabilities.pci_cfg;
    let access = |offset: u32, length: u32| {
        driver.function.config_write(window + 4, &[0]);
        driver.function.config_write(window + 8, &offset.to_le_bytes());
        driver.function.config_write(window + 12, &length.to_le_bytes());
    };
    access(0x14, 1);
    let mut status = [0];
    driver.function.config_read(window + 16, &mut status);
    assert_eq!(status[0], driver.status());
    driver.function.config_write(window + 16, &[0]);
    assert_eq!(driver.status(), 0);
    access(0xffff_fff0, 4);
    let mut data = [1; 4];
    driver.function.config_read(window + 16, &mut data);
    assert_eq!(data, [0; 4]);
}

/// What is wrong with a queue, and how to make it so.
type Spoilt = (&'static str, fn(&mut Ring));

#[test]
fn queues_that_cannot_be_are_not_enabled() {
    let spoilt: [Spoilt; 11] = [
        ("size 0", |ring| ring.size = 0),
        ("no power of two", |ring| ring.size = 24),
        ("above the maximum", |ring| ring.size = 128),
        ("no descriptor table", |ring| ring.descriptors = 0),
        ("unaligned table", |ring| ring.descriptors += 8),
        ("unaligned available ring", |ring| ring.available += 1),
        ("unaligned used ring", |ring| ring.used += 2),
        ("table in the hole", |ring| ring.descriptors = LOW_END),
        ("available ring into the hole", |ring| {
            ring.available = LOW_END - 4 - 2 * 16
        }),
        ("used ring beyond memory", |ring| {
            ring.used = HIGH_END - 4 - 8 * 16
        }),
        ("used ring at the end of the address space", |ring| {
            ring.used = u64::MAX - 3
        }),
    ];
    let mut driver = Driver::start(Rng::new());
    for (name, spoil) in spoilt {
        driver.negotiate(VERSION_1);
        driver.common_write(0x10, &0u16.to_le_bytes());
        let mut ring = Ring::new(&driver, 0, 16);
        spoil(&mut ring);
        ring.enable(&driver);
        assert!(!ring.is_enabled(&driver), "{name}");
        assert_ne!(driver.status() & NEEDS_RESET, 0, "{name}");
        let interrupts = driver.interrupts.count(0);
        driver.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        assert_eq!(driver.interrupts.count(0), interrupts + 1, "{name}");
        driver.initialise(!EVENT_IDX, 16);
        assert_works(&driver);
    }
}

#[test]
fn a_reset_forgets_everything() {
    let mut driver = Driver::start(Rng::new());
    assert_works(&driver);
    driver.set_status(0);
    assert_eq!(driver.status(), 0);
    assert_eq!(driver.common_u16(0x10), 0xffff);
    assert!(!driver.ring(0).is_enabled(&driver));
    let used = driver.ring(0).used_index();
    driver.ring(0).offer(0);
    driver.ring(0).kick(&driver);
    assert_eq!(driver.ring(0).used_index(), used);
    for _ in 0..20 {
        driver.initialise(!EVENT_IDX, 64);
        assert_works(&driver);
    }
    driver.function.reset();
    assert_eq!(driver.status(), 0);
    assert_eq!(driver.function.bars(), []);
}

#[test]
fn a_queue_without_a_vector_sets_isr_only() {
    let driver = Driver::start(Rng::new());
    assert_works(&driver);
    let isr = || {
        let mut data = [0];
        driver
            .function
            .bar_read(0, driver.capabilities.structures[&3].0, &mut data);
        data[0]
    };
    assert_eq!(isr(), 1);
    assert_eq!(isr(), 0, "reading clears it");
    driver.common_write(0x16, &0u16.to_le_bytes());
    driver.common_write(0x1a, &0xffffu16.to_le_bytes());
    let before = driver.interrupts.count(1);
    driver.ring(0).chain(0, &[(DATA, 32, true)]);
    driver.ring(0).offer(0);
    driver.ring(0).kick(&driver);
    // No interrupt tells us: a reset waits for the worker.
    let ring = driver.ring(0);
    while ring.used_index() != 2 {
        std::thread::yield_now();
    }
    driver.set_status(0);
    assert_eq!(driver.interrupts.count(1), before);
}

#[test]
fn a_changed_configuration_is_announced() {
    let driver = Driver::start(Rng::new());
    let generation = || {
        let mut data = [0];
        driver.common_read(0x15, &mut data);
        data[0]
    };
    let before = generation();
    driver.function.config_changed();
    assert_eq!(generation(), before + 1);
    assert_eq!(driver.interrupts.count(0), 1);
}

#[test]
fn a_masked_interrupt_comes_when_it_is_unmasked() {
    let driver = Driver::start(Rng::new());
    let mask = driver.capabilities.msix_table + 16 + 12;
    driver.function.bar_write(0, mask, &1u32.to_le_bytes());
    let ring = driver.ring(0);
    ring.chain(0, &[(DATA, 32, true)]);
    ring.offer(0);
    ring.kick(&driver);
    while ring.used_index() != 1 {
        std::thread::yield_now();
    }
    assert_eq!(driver.interrupts.count(1), 0);
    driver.function.bar_write(0, mask, &0u32.to_le_bytes());
    driver
        .interrupts
        .wait_until("the pending interrupt", || driver.interrupts.count(1) == 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written to whichever register: no panic, and the device works after a reset.
    #[test]
    fn no_accesses_break_the_device_for_good(
        accesses in prop::collection::vec(
            (
                any::<bool>(),
                prop_oneof![0u64..0x40, 0x1000u64..0x1004, 0x3000u64..0x3010, 0x4000u64..0x4030, 0u64..0x9000],
                prop::sample::select(vec![1usize, 2, 4, 8]),
                prop_oneof![0u64..16, (0u64..0x40).prop_map(|page| page << 16), any::<u64>()],
            ),
            0..100,
        )
    ) {
        let mut driver = Driver::start(Rng::new());
        for (bar, offset, len, value) in accesses {
            let mut data = value.to_le_bytes();
            if bar {
                driver.function.bar_write(0, offset, &data[..len]);
                driver.function.bar_read(0, offset, &mut data[..len]);
            } else {
                let len = len.min(4);
                let offset = (offset & 0xfff) as u16 / len as u16 * len as u16;
                driver.function.config_write(offset, &data[..len]);
                driver.function.config_read(offset, &mut data[..len]);
            }
        }
        driver.initialise(!EVENT_IDX, 16);
        assert_works(&driver);
    }
}
