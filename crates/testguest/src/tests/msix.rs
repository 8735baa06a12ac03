//! MSI-X. PCI Local Bus 3.0, section 6.8.2. The event to signal is a configuration change that every device has:
//! NEEDS_RESET.

use super::{Case, cases};
use crate::cpu;
use crate::report::Outcome;
use crate::virtio::{
    CONFIG_INTERRUPT, Device, MSIX_CONTROL, MSIX_ENABLE, MSIX_FUNCTION_MASK, NO_VECTOR, PATIENCE, feature,
    interrupt_of, register, status,
};
use crate::{ensure, same};

pub const CASES: &[Case] = cases![
    a_masked_vector_is_pending_until_unmasked,
    a_masked_function_holds_its_vectors_back,
    a_disabled_function_sends_nothing,
    no_vector_sends_nothing,
    a_vector_can_be_moved_while_masked,
    a_vector_that_does_not_exist_reads_back_as_none,
    the_table_reads_back_and_pending_bits_are_read_only,
    wild_messages_harm_nobody,
];

/// Starts the device with a queue, whose breakage is the event.
fn armed(device: &Device) -> Outcome<crate::virtio::ring::Ring> {
    let queue = device.eager_queues().next().unwrap_or(0);
    device.start_for(!feature::EVENT_IDX, queue)
}

/// Breaks the device and waits until it says so, by its status alone.
fn happen(device: &Device, ring: &crate::virtio::ring::Ring) -> Outcome {
    ring.offer(0xffff);
    ring.kick();
    let broken = cpu::wait_for(PATIENCE, || device.status() & status::NEEDS_RESET != 0);
    ensure!(broken, "the device did not break");
    Ok(())
}

/// The signal follows the status, so pending bits and interrupts are waited for; that nothing comes can only be
/// seen after a while.
fn comes(device: &Device, before: u64) -> Outcome {
    let came = cpu::wait_for(PATIENCE, || device.interrupts(CONFIG_INTERRUPT) > before);
    ensure!(came, "no interrupt came");
    Ok(())
}

fn does_not_come(device: &Device, before: u64) -> Outcome {
    cpu::sleep(1);
    same!(device.interrupts(CONFIG_INTERRUPT), before, "interrupts");
    Ok(())
}

fn becomes_pending(device: &Device) -> Outcome {
    let pending = cpu::wait_for(PATIENCE, || device.is_pending(CONFIG_INTERRUPT));
    ensure!(pending, "the vector is not pending");
    Ok(())
}

fn a_masked_vector_is_pending_until_unmasked(device: &Device) -> Outcome {
    let ring = armed(device)?;
    let before = device.interrupts(CONFIG_INTERRUPT);
    device.mask_vector(CONFIG_INTERRUPT, true);
    happen(device, &ring)?;
    becomes_pending(device)?;
    does_not_come(device, before)?;
    device.mask_vector(CONFIG_INTERRUPT, false);
    comes(device, before)?;
    ensure!(!device.is_pending(CONFIG_INTERRUPT), "it is still pending");
    does_not_come(device, before + 1)
}

fn a_masked_function_holds_its_vectors_back(device: &Device) -> Outcome {
    let ring = armed(device)?;
    let before = device.interrupts(CONFIG_INTERRUPT);
    let control = device.msix + MSIX_CONTROL;
    device.function.write(control, MSIX_ENABLE | MSIX_FUNCTION_MASK);
    happen(device, &ring)?;
    becomes_pending(device)?;
    does_not_come(device, before)?;
    device.function.write(control, MSIX_ENABLE);
    comes(device, before)
}

fn a_disabled_function_sends_nothing(device: &Device) -> Outcome {
    let ring = armed(device)?;
    let before = device.interrupts(CONFIG_INTERRUPT);
    device.function.write(device.msix + MSIX_CONTROL, 0u16);
    happen(device, &ring)?;
    does_not_come(device, before)
}

fn no_vector_sends_nothing(device: &Device) -> Outcome {
    let ring = armed(device)?;
    let before = device.interrupts(CONFIG_INTERRUPT);
    device.set(register::CONFIG_VECTOR, NO_VECTOR);
    happen(device, &ring)?;
    does_not_come(device, before)?;
    ensure!(!device.is_pending(CONFIG_INTERRUPT), "vector 0 is pending");
    Ok(())
}

fn a_vector_can_be_moved_while_masked(device: &Device) -> Outcome {
    const ELSEWHERE: u16 = 15;
    let ring = armed(device)?;
    let (before, before_elsewhere) = (device.interrupts(CONFIG_INTERRUPT), device.interrupts(ELSEWHERE));
    device.mask_vector(CONFIG_INTERRUPT, true);
    happen(device, &ring)?;
    becomes_pending(device)?;
    device.set_vector(CONFIG_INTERRUPT, cpu::LOCAL_APIC, interrupt_of(ELSEWHERE).into());
    device.mask_vector(CONFIG_INTERRUPT, false);
    let came = cpu::wait_for(PATIENCE, || device.interrupts(ELSEWHERE) > before_elsewhere);
    ensure!(came, "it does not come where it was moved to");
    does_not_come(device, before)
}

fn a_vector_that_does_not_exist_reads_back_as_none(device: &Device) -> Outcome {
    device.negotiate(u64::MAX)?;
    for vector in [device.vectors, 0x1234, NO_VECTOR] {
        device.set(register::CONFIG_VECTOR, vector);
        same!(
            device.get::<u16>(register::CONFIG_VECTOR),
            NO_VECTOR,
            "after {vector:#x}"
        );
    }
    let last = device.vectors - 1;
    device.set(register::CONFIG_VECTOR, last);
    same!(
        device.get::<u16>(register::CONFIG_VECTOR),
        last,
        "the last vector"
    );
    Ok(())
}

fn the_table_reads_back_and_pending_bits_are_read_only(device: &Device) -> Outcome {
    let entry = device.msix_table;
    device.mask_vector(0, true);
    cpu::write(entry, 0xfee0_1000u64);
    cpu::write(entry + 8, 0x77u32);
    same!(cpu::read::<u64>(entry), 0xfee0_1000, "address");
    same!(cpu::read::<u64>(entry + 8), 0x1_0000_0077, "data and control");
    cpu::write(device.msix_pending, u64::MAX);
    same!(cpu::read::<u64>(device.msix_pending), 0, "pending bits");
    // Of other widths than the specification's: no rule, but no harm.
    cpu::write(entry + 1, 0xffu8);
    cpu::write(entry + 6, 0xffff_ffffu32);
    let behind = entry + 16 * u64::from(device.vectors);
    cpu::write(behind, u64::MAX);
    let _: u64 = cpu::read(behind);
    Ok(())
}

fn wild_messages_harm_nobody(device: &Device) -> Outcome {
    for (address, data) in [
        (0, 0),
        (u64::MAX, u32::MAX),
        (cpu::LOCAL_APIC | 0xff000, 0x30),
        (0xffff_ffff_0000_0000, 0x30),
        (cpu::LOCAL_APIC, 0xffff_c000),
    ] {
        let ring = armed(device)?;
        device.mask_vector(CONFIG_INTERRUPT, true);
        device.set_vector(CONFIG_INTERRUPT, address, data);
        device.mask_vector(CONFIG_INTERRUPT, false);
        happen(device, &ring)?;
    }
    Ok(())
}
