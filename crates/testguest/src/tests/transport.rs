//! The common configuration registers of a virtio function. Virtio 1.2, sections 2.1, 3.1 and 4.1.4.

use super::{Case, cases};
use crate::cpu::{read, write};
use crate::report::{End, Outcome};
use crate::virtio::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};
use crate::virtio::{Device, feature, register};
use crate::{ensure, same};

pub const CASES: &[Case] = cases![
    a_reset_clears_what_the_driver_wrote,
    a_feature_that_was_not_offered_is_refused,
    version_1_is_required,
    features_are_settled_by_features_ok,
    driver_ok_needs_features_ok,
    status_bits_are_not_taken_back,
    a_queue_that_does_not_exist_has_no_size,
    registers_bear_accesses_of_all_sizes,
    read_only_registers_stay,
    device_config_bears_accesses_of_all_sizes,
    the_window_reaches_the_registers,
    the_bar_behind_the_structures_is_empty,
];

fn a_reset_clears_what_the_driver_wrote(device: &Device) -> Outcome {
    let [_ring] = device.start(u64::MAX, 16)?;
    device.reset()?;
    same!(
        device.get::<u16>(register::CONFIG_VECTOR),
        0xffff,
        "configuration vector"
    );
    let size = device.queue_size(0);
    ensure!(size > 16, "the queue's size is {size}, not the largest");
    same!(device.get::<u16>(register::QUEUE_ENABLE), 0, "queue_enable");
    same!(device.get::<u16>(register::QUEUE_VECTOR), 0xffff, "queue vector");
    same!(
        device.get::<u32>(register::QUEUE_DESCRIPTORS),
        0,
        "descriptor table"
    );
    Ok(())
}

/// As far as DRIVER, with these features accepted.
fn with_features(device: &Device, features: u64) -> Outcome<u8> {
    device.reset()?;
    device.add_status(ACKNOWLEDGE);
    device.add_status(DRIVER);
    device.accept(features);
    device.add_status(FEATURES_OK);
    Ok(device.status())
}

fn a_feature_that_was_not_offered_is_refused(device: &Device) -> Outcome {
    let offered = device.offered();
    for bit in (0..64).filter(|bit| offered >> bit & 1 == 0) {
        let status = with_features(device, offered | 1 << bit)?;
        same!(status & FEATURES_OK, 0, "FEATURES_OK with bit {bit}");
    }
    Ok(())
}

fn version_1_is_required(device: &Device) -> Outcome {
    let status = with_features(device, device.offered() & !feature::VERSION_1)?;
    same!(status & FEATURES_OK, 0, "FEATURES_OK");
    Ok(())
}

fn features_are_settled_by_features_ok(device: &Device) -> Outcome {
    let features = device.negotiate(feature::VERSION_1)?;
    same!(features, feature::VERSION_1, "features");
    device.accept(u64::MAX);
    device.set(register::DRIVER_FEATURE_SELECT, 0u32);
    same!(
        device.get::<u32>(register::DRIVER_FEATURE),
        0,
        "the accepted features' low half"
    );
    Ok(())
}

fn driver_ok_needs_features_ok(device: &Device) -> Outcome {
    device.reset()?;
    device.add_status(ACKNOWLEDGE | DRIVER | DRIVER_OK);
    same!(device.status() & DRIVER_OK, 0, "DRIVER_OK");
    Ok(())
}

fn status_bits_are_not_taken_back(device: &Device) -> Outcome {
    device.negotiate(u64::MAX)?;
    device.set(register::STATUS, ACKNOWLEDGE);
    same!(device.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK, "status");
    Ok(())
}

fn a_queue_that_does_not_exist_has_no_size(device: &Device) -> Outcome {
    for queue in [device.queues(), 0x8000, 0xffff] {
        same!(device.queue_size(queue), 0, "the size of queue {queue}");
        device.set(register::QUEUE_SIZE, 16u16);
        device.set(register::QUEUE_DESCRIPTORS, 0x60_0000u64);
        device.set(register::QUEUE_ENABLE, 1u16);
        same!(
            device.get::<u16>(register::QUEUE_ENABLE),
            0,
            "queue {queue} is enabled"
        );
    }
    Ok(())
}

fn registers_bear_accesses_of_all_sizes(device: &Device) -> Outcome {
    device.reset()?;
    for at in 0..register::END + 16 {
        let address = device.common + at;
        let _: (u8, u16, u32, u64) = (read(address), read(address), read(address), read(address));
        // The status last, and not by 1 byte: that is no odd access.
        if at != register::STATUS {
            write(address, 0xa5u8);
        }
        write(address, 0xa5a5u16);
        write(address, 0xa5a5_a5a5u32);
        write(address, 0xa5a5_a5a5_a5a5_a5a5u64);
    }
    device.reset()
}

fn read_only_registers_stay(device: &Device) -> Outcome {
    let (offered, queues) = (device.offered(), device.queues());
    device.set(register::DEVICE_FEATURE, u32::MAX);
    device.set(register::NUM_QUEUES, 99u16);
    device.set(register::QUEUE_SELECT, 0u16);
    let notify_off: u16 = device.get(register::QUEUE_NOTIFY_OFF);
    device.set(register::QUEUE_NOTIFY_OFF, 99u16);
    same!(device.offered(), offered, "offered features");
    same!(device.queues(), queues, "queues");
    device.set(register::QUEUE_SELECT, 0u16);
    same!(
        device.get::<u16>(register::QUEUE_NOTIFY_OFF),
        notify_off,
        "notify offset"
    );
    Ok(())
}

fn device_config_bears_accesses_of_all_sizes(device: &Device) -> Outcome {
    for at in 0..64 {
        let whole: u64 = device.config(at);
        let mut bytes = [0; 8];
        for (nth, byte) in (0..).zip(&mut bytes) {
            *byte = device.config::<u8>(at + nth);
        }
        same!(u64::from_le_bytes(bytes), whole, "bytes from {at} on, one by one");
    }
    for at in [0, 1, 63, 0x7ff, 0xff8] {
        write(device.config + at, 0xffu8);
        write(device.config + at, u64::MAX);
    }
    Ok(())
}

/// VIRTIO_PCI_CAP_PCI_CFG: the BAR's registers by way of configuration space (4.1.4.9).
fn the_window_reaches_the_registers(device: &Device) -> Outcome {
    if device.window == 0 {
        return Err(End::Absent("no window"));
    }
    let function = device.function;
    let bar = function.bar(0).unwrap_or(0);
    let (common, data) = ((device.common - bar) as u32, device.window + 16);
    let aim = |offset: u32, len: u32| {
        function.write(device.window + 4, 0u8);
        function.write(device.window + 8, common + offset);
        function.write(device.window + 12, len);
    };
    aim(register::NUM_QUEUES as u32, 2);
    same!(function.read::<u16>(data), device.queues(), "queues");
    aim(register::STATUS as u32, 1);
    device.reset()?;
    function.write(data, ACKNOWLEDGE);
    same!(device.status(), ACKNOWLEDGE, "status");
    for (bar, offset, len) in [
        (0, u32::MAX, 4),
        (5, 0, 4),
        (0, 1, 4),
        (0, 0, 3),
        (0, 0, u32::MAX),
        (255, 0, 1),
    ] {
        function.write(device.window + 4, bar as u8);
        function.write(device.window + 8, offset);
        function.write(device.window + 12, len);
        let _: u32 = function.read(data);
        function.write(data, u32::MAX);
        function.write(data, 0xffu8);
    }
    Ok(())
}

fn the_bar_behind_the_structures_is_empty(device: &Device) -> Outcome {
    let Some(bar) = device.function.bar(0) else {
        return Err(End::Absent("no BAR 0"));
    };
    let size = device.function.bar_size(0).unwrap_or(0);
    for at in (0..size).step_by(0x800) {
        let address = bar + at + 0x7f8;
        let _: u64 = read(address);
        write(address, u64::MAX);
        // Across whatever boundary is there, but not across the BAR's end.
        if at + 0x800 < size {
            let _: u64 = read(address + 5);
            write(address + 5, u64::MAX);
        }
    }
    Ok(())
}
