//! Hot-plug of PCI functions as ACPI does it: by the registers behind the DSDT's methods (the monitor's
//! `pci::hotplug`). The host attaches a disk for each round, and detaches it, when the console tells it to.

use super::block;
use crate::cpu::{self, port_read, port_write, read};
use crate::pci::Function;
use crate::report::Outcome;
use crate::virtio::{Device, PATIENCE, feature, register};
use crate::{Machine, ensure, println, same};

/// Slots with a new function, and slots whose function shall leave: a bit each, cleared by being read.
pub const ARRIVED: u16 = 0x620;
pub const LEAVING: u16 = 0x624;
/// Takes the number of the slot to empty.
const EJECT: u16 = 0x628;
/// Nobody's slot.
const NO_SLOT: u8 = 99;

pub fn disks_come_and_go(machine: &Machine, rounds: u32) -> Outcome {
    for round in 0..rounds {
        crate::memory::free_all();
        println!("hotplug: attach {round}");
        let slot = wait_for_slot(ARRIVED)?;
        let function = Function::at(machine.tables.ecam, slot);
        let Some(device) = Device::probe(function) else {
            ensure!(false, "no virtio device in slot {slot}");
            break;
        };
        block::works(&device)?;
        // Nobody has asked for it.
        eject(slot);
        ensure!(function.is_there(), "slot {slot} was emptied unasked");
        println!("hotplug: detach {round}");
        same!(wait_for_slot(LEAVING)?, slot, "the slot that shall be emptied");
        for wrong in [NO_SLOT, 0, slot as u8 + 1, 0xff] {
            port_write(EJECT, &[wrong]);
        }
        ensure!(function.is_there(), "the wrong slot was emptied");
        // A driver should have stopped its queues, and need not have.
        let [_ring] = device.start(!feature::EVENT_IDX, 16)?;
        eject(slot);
        ensure!(!function.is_there(), "slot {slot} is not empty");
        let gone: u16 = read(device.common + register::NUM_QUEUES);
        same!(gone, 0xffff, "the registers of what is gone");
        cpu::write(device.common, 0u32);
    }
    Ok(())
}

pub fn eject(slot: u64) {
    port_write(EJECT, &[slot as u8]);
}

/// Waits until a bit is set in the register at `port`: the number of the one bit.
pub fn wait_for_slot(port: u16) -> Outcome<u64> {
    let mut slots = 0;
    let told = cpu::wait_for(PATIENCE, || {
        slots = (0..4).fold(0, |slots, byte| {
            slots | u32::from(port_read(port + byte)) << (8 * byte)
        });
        slots != 0
    });
    ensure!(told, "port {port:#x} names no slot");
    ensure!(slots.is_power_of_two(), "port {port:#x} names slots {slots:#x}");
    Ok(slots.trailing_zeros().into())
}
