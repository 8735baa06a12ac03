use proptest::prelude::*;

use super::*;

const VERSION_1: u64 = 1 << 32;
const OFFERED: u64 = VERSION_1 | 1 << 5 | 1;

fn registers() -> CommonConfig {
    CommonConfig::new(OFFERED, &[64, 16], 3)
}

fn read(common: &CommonConfig, offset: u64, len: usize) -> u64 {
    let mut data = vec![0; len];
    common.read(offset, &mut data, Live::default());
    data.resize(8, 0);
    u64::from_le_bytes(data.try_into().unwrap())
}

fn write(common: &mut CommonConfig, offset: u64, value: u64, len: usize) -> Effect {
    common.write(offset, &value.to_le_bytes()[..len])
}

fn accept(common: &mut CommonConfig, window: u64, bits: u64) {
    assert_eq!(write(common, DRIVER_FEATURE_SELECT, window, 4), Effect::None);
    assert_eq!(write(common, DRIVER_FEATURE, bits, 4), Effect::None);
}

fn set_status(common: &mut CommonConfig, status: u8) -> Effect {
    write(common, DEVICE_STATUS, status.into(), 1)
}

/// Up to FEATURES_OK.
fn negotiated() -> CommonConfig {
    let mut common = registers();
    set_status(&mut common, ACKNOWLEDGE | DRIVER);
    accept(&mut common, 1, 1);
    set_status(&mut common, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    common
}

#[test]
fn features_are_offered_in_windows() {
    let mut common = registers();
    for (window, expected) in [(0, 0x21), (1, 1), (2, 0), (u64::from(u32::MAX), 0)] {
        write(&mut common, DEVICE_FEATURE_SELECT, window, 4);
        assert_eq!(read(&common, DEVICE_FEATURE, 4), expected, "window {window}");
    }
}

#[test]
fn features_hold_with_version_1_and_nothing_that_was_not_offered() {
    let accepts: [(&[(u64, u64)], bool); 6] = [
        (&[(1, 1)], true),
        (&[(0, 0x21), (1, 1)], true),
        (&[(0, 0x21)], false),
        (&[(0, 2), (1, 1)], false),
        (&[(1, 3)], false),
        (&[(1, 1), (2, 1)], false),
    ];
    for (windows, holds) in accepts {
        let mut common = registers();
        set_status(&mut common, ACKNOWLEDGE | DRIVER);
        for &(window, bits) in windows {
            accept(&mut common, window, bits);
        }
        set_status(&mut common, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        let status = read(&common, DEVICE_STATUS, 1) as u8;
        assert_eq!(status & FEATURES_OK != 0, holds, "{windows:?}");
    }
}

#[test]
fn features_are_settled_by_features_ok() {
    let mut common = negotiated();
    accept(&mut common, 0, 0x21);
    assert_eq!(common.driver_features(), VERSION_1);
}

#[test]
fn a_driver_is_ok_only_after_its_features_and_only_once() {
    let mut common = registers();
    assert_eq!(
        set_status(&mut common, ACKNOWLEDGE | DRIVER | DRIVER_OK),
        Effect::None
    );
    assert_eq!(read(&common, DEVICE_STATUS, 1), u64::from(ACKNOWLEDGE | DRIVER));

    let mut common = negotiated();
    assert_eq!(set_status(&mut common, 0x0f), Effect::Activate);
    assert_eq!(set_status(&mut common, 0x0f), Effect::None);
    assert_eq!(set_status(&mut common, ACKNOWLEDGE), Effect::None);
    assert_eq!(
        read(&common, DEVICE_STATUS, 1),
        0x0f,
        "only a reset takes bits back"
    );
    assert_eq!(set_status(&mut common, 0), Effect::Reset);
    assert_eq!(
        read(&common, DEVICE_STATUS, 1),
        0x0f,
        "until the device has stopped"
    );
    common.reset();
    assert_eq!(read(&common, DEVICE_STATUS, 1), 0);
}

#[test]
fn the_driver_cannot_set_needs_reset() {
    let mut common = negotiated();
    set_status(&mut common, 0xff);
    assert_eq!(read(&common, DEVICE_STATUS, 1), u64::from(0x0f | FAILED));
    let mut data = [0];
    common.read(
        DEVICE_STATUS,
        &mut data,
        Live {
            needs_reset: true,
            config_generation: 7,
        },
    );
    assert_eq!(data[0], 0x0f | FAILED | NEEDS_RESET);
    common.read(
        CONFIG_GENERATION,
        &mut data,
        Live {
            needs_reset: true,
            config_generation: 7,
        },
    );
    assert_eq!(data[0], 7);
}

#[test]
fn vectors_that_do_not_exist_read_back_as_none() {
    let mut common = registers();
    assert_eq!(read(&common, CONFIG_MSIX_VECTOR, 2), u64::from(NO_VECTOR));
    assert_eq!(
        write(&mut common, CONFIG_MSIX_VECTOR, 2, 2),
        Effect::ConfigVector(2)
    );
    assert_eq!(
        write(&mut common, CONFIG_MSIX_VECTOR, 3, 2),
        Effect::ConfigVector(NO_VECTOR)
    );
    assert_eq!(read(&common, CONFIG_MSIX_VECTOR, 2), u64::from(NO_VECTOR));

    write(&mut common, QUEUE_SELECT, 1, 2);
    let effect = write(&mut common, QUEUE_MSIX_VECTOR, 2, 2);
    assert_eq!(effect, Effect::QueueVector { queue: 1, vector: 2 });
    assert_eq!(read(&common, QUEUE_MSIX_VECTOR, 2), 2);
    write(&mut common, QUEUE_SELECT, 2, 2);
    assert_eq!(write(&mut common, QUEUE_MSIX_VECTOR, 2, 2), Effect::None);
    assert_eq!(read(&common, QUEUE_MSIX_VECTOR, 2), u64::from(NO_VECTOR));
}

#[test]
fn a_queue_has_size_addresses_and_notify_offset() {
    let mut common = registers();
    assert_eq!(read(&common, NUM_QUEUES, 2), 2);
    write(&mut common, QUEUE_SELECT, 1, 2);
    assert_eq!(read(&common, QUEUE_SIZE, 2), 16);
    assert_eq!(read(&common, QUEUE_NOTIFY_OFF, 2), 1);
    write(&mut common, QUEUE_SIZE, 8, 2);
    write(&mut common, QUEUE_DESC, 0x1_2345_6780, 8);
    write(&mut common, QUEUE_DRIVER, 0x2000, 4);
    write(&mut common, QUEUE_DRIVER + 4, 0x7, 4);
    write(&mut common, QUEUE_DEVICE + 2, 0xffff, 2);
    assert_eq!(read(&common, QUEUE_DESC + 4, 4), 1);
    assert_eq!(read(&common, QUEUE_DRIVER, 8), 0x7_0000_2000);
    assert_eq!(read(&common, QUEUE_DEVICE, 8), 0);

    assert_eq!(
        write(&mut common, QUEUE_ENABLE, 1, 2),
        Effect::EnableQueue { queue: 1 }
    );
    assert_eq!(
        read(&common, QUEUE_ENABLE, 2),
        0,
        "until its addresses were checked"
    );
    common.set_enabled(1);
    assert_eq!(read(&common, QUEUE_ENABLE, 2), 1);
    write(&mut common, QUEUE_DESC, 0, 8);
    write(&mut common, QUEUE_ENABLE, 0, 2);
    assert_eq!(
        read(&common, QUEUE_DESC, 8),
        0x1_2345_6780,
        "an enabled queue stays as it is"
    );
    assert_eq!(read(&common, QUEUE_ENABLE, 2), 1);

    write(&mut common, QUEUE_SELECT, 2, 2);
    assert_eq!(read(&common, QUEUE_SIZE, 2), 0, "there is no queue 2");
    assert_eq!(write(&mut common, QUEUE_ENABLE, 1, 2), Effect::None);
}

proptest! {
    /// Whatever is written: no panic, the driver is never OK without features, and an enabled queue keeps still.
    #[test]
    fn no_sequence_of_writes_breaks_the_rules(
        writes in prop::collection::vec(
            (0u64..0x50, prop::sample::select(vec![1usize, 2, 4, 8]), prop_oneof![0u64..16, any::<u64>()]),
            0..200,
        )
    ) {
        let mut common = registers();
        for (offset, len, value) in writes {
            let before = common.queues().to_vec();
            match write(&mut common, offset, value, len) {
                Effect::Reset => common.reset(),
                Effect::EnableQueue { queue } => common.set_enabled(queue),
                _ => for (old, new) in before.iter().zip(common.queues()) {
                    if old.enabled {
                        prop_assert!(new.enabled);
                        prop_assert_eq!(old.addresses, new.addresses);
                    }
                },
            }
            let status = read(&common, DEVICE_STATUS, 1) as u8;
            prop_assert!(status & DRIVER_OK == 0 || status & FEATURES_OK != 0);
            prop_assert!(status & FEATURES_OK == 0 || common.driver_features() & !OFFERED == 0);
            for offset in 0..0x50 {
                read(&common, offset, len);
            }
        }
    }
}
