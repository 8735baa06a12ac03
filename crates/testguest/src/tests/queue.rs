//! Setting queues up, rightly and wrongly. Virtio 1.2, sections 2.7 and 4.1.4.3.

use super::{Case, cases};
use crate::cpu;
use crate::memory::allocate;
use crate::report::Outcome;
use crate::virtio::ring::Ring;
use crate::virtio::status::{DRIVER_OK, NEEDS_RESET};
use crate::virtio::{Device, feature, register};
use crate::{ensure, same};

pub const CASES: &[Case] = cases![
    sizes_that_are_no_power_of_two_are_refused,
    rings_outside_of_memory_are_refused,
    misaligned_rings_are_refused,
    rings_may_be_as_large_as_the_device_says,
    an_enabled_queue_cannot_be_moved,
    a_running_queue_cannot_be_changed,
    a_queue_that_is_not_enabled_does_nothing,
    a_doorbell_before_driver_ok_does_nothing,
    every_queue_works_again_after_a_hundred_resets,
];

/// Writes a queue's registers with something wrong in them: it must not run.
fn refused(device: &Device, size: u16, addresses: [u64; 3]) -> Outcome {
    device.negotiate(!feature::EVENT_IDX)?;
    device.enable_msix();
    device.set(register::QUEUE_SELECT, 0u16);
    device.set(register::QUEUE_SIZE, size);
    let registers = [
        register::QUEUE_DESCRIPTORS,
        register::QUEUE_AVAILABLE,
        register::QUEUE_USED,
    ];
    for (at, address) in registers.into_iter().zip(addresses) {
        device.set(at, address as u32);
        device.set(at + 4, (address >> 32) as u32);
    }
    device.set(register::QUEUE_ENABLE, 1u16);
    device.add_status(DRIVER_OK);
    let enabled: u16 = device.get(register::QUEUE_ENABLE);
    let broken = device.status() & NEEDS_RESET != 0;
    ensure!(
        broken || enabled == 0,
        "a queue of size {size} at {addresses:x?} runs"
    );
    cpu::write(device.doorbell(0), 0u16);
    Ok(())
}

fn areas() -> [u64; 3] {
    [allocate(4096), allocate(4096), allocate(4096)]
}

fn sizes_that_are_no_power_of_two_are_refused(device: &Device) -> Outcome {
    let largest = device.queue_size(0);
    for size in [0, 3, 15, largest + 1, 2 * largest, 0x8000, 0xffff] {
        refused(device, size, areas())?;
    }
    Ok(())
}

fn rings_outside_of_memory_are_refused(device: &Device) -> Outcome {
    for area in 0..3 {
        for address in [0, cpu::LOCAL_APIC, 0xc000_0000, 1 << 45, !0xf, !0xfff] {
            let mut addresses = areas();
            addresses[area] = address;
            refused(device, 16, addresses)?;
        }
    }
    Ok(())
}

fn misaligned_rings_are_refused(device: &Device) -> Outcome {
    for (area, by) in [(0, 8), (0, 1), (1, 1), (2, 2), (2, 1)] {
        let mut addresses = areas();
        addresses[area] += by;
        refused(device, 16, addresses)?;
    }
    Ok(())
}

fn rings_may_be_as_large_as_the_device_says(device: &Device) -> Outcome {
    device.negotiate(!feature::EVENT_IDX)?;
    let rings = (0..device.queues()).map(|queue| {
        let size = device.queue_size(queue);
        Ring::new(device, queue, size, 0)
    });
    for ring in rings {
        ring.enable(device);
        same!(
            device.get::<u16>(register::QUEUE_ENABLE),
            1,
            "queue {}",
            ring.queue
        );
    }
    device.add_status(DRIVER_OK);
    same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    Ok(())
}

fn an_enabled_queue_cannot_be_moved(device: &Device) -> Outcome {
    device.negotiate(!feature::EVENT_IDX)?;
    let ring = Ring::new(device, 0, 16, 0);
    ring.enable(device);
    device.set(register::QUEUE_DESCRIPTORS, 0x1234_5670u32);
    same!(
        device.get::<u32>(register::QUEUE_DESCRIPTORS),
        ring.descriptors as u32,
        "its table"
    );
    Ok(())
}

fn a_running_queue_cannot_be_changed(device: &Device) -> Outcome {
    let [ring] = device.start(!feature::EVENT_IDX, 16)?;
    device.set(register::QUEUE_SELECT, 0u16);
    device.set(register::QUEUE_DESCRIPTORS, 0x1234_5670u32);
    device.set(register::QUEUE_SIZE, 8u16);
    device.set(register::QUEUE_ENABLE, 0u16);
    same!(
        device.get::<u32>(register::QUEUE_DESCRIPTORS),
        ring.descriptors as u32,
        "its table"
    );
    same!(device.get::<u16>(register::QUEUE_SIZE), 16, "its size");
    same!(device.get::<u16>(register::QUEUE_ENABLE), 1, "queue_enable");
    Ok(())
}

fn a_queue_that_is_not_enabled_does_nothing(device: &Device) -> Outcome {
    device.negotiate(!feature::EVENT_IDX)?;
    let ring = Ring::new(device, 0, 16, 0);
    device.add_status(DRIVER_OK);
    ring.offer(0xffff);
    ring.kick();
    cpu::sleep(1);
    same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    Ok(())
}

fn a_doorbell_before_driver_ok_does_nothing(device: &Device) -> Outcome {
    device.negotiate(!feature::EVENT_IDX)?;
    let ring = Ring::new(device, 0, 16, 0);
    ring.enable(device);
    ring.offer(0xffff);
    ring.kick();
    cpu::sleep(1);
    same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    Ok(())
}

fn every_queue_works_again_after_a_hundred_resets(device: &Device) -> Outcome {
    for _ in 0..100 {
        crate::memory::free_all();
        device.negotiate(!feature::EVENT_IDX)?;
        for queue in 0..device.queues() {
            Ring::new(device, queue, 4, 0).enable(device);
        }
        device.add_status(DRIVER_OK);
    }
    device.reset()
}
