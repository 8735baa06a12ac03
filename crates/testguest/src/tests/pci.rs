//! Configuration space and BARs. PCI Local Bus 3.0, chapter 6; PCI Express 5.0, section 7.2.2.

use super::{Case, cases};
use crate::cpu::{read, write};
use crate::pci::{BARS, COMMAND, Function, SLOTS, VENDOR};
use crate::report::{End, Outcome};
use crate::virtio::{Device, register, status};
use crate::{Machine, ensure, memory, println, same};

pub const CASES: &[Case] = cases![
    the_header_is_read_only,
    accesses_of_all_sizes_agree,
    bars_tell_their_size,
    a_bar_can_be_moved,
    a_bar_without_decoding_is_gone,
    bars_over_each_other_harm_nobody,
    wild_bars_harm_nobody,
    the_other_functions_of_the_slot_are_absent,
];

/// Prints what is there; everything else answers with ones.
pub fn enumerates(machine: &Machine) -> Outcome {
    for slot in 0..SLOTS {
        let function = Function::at(machine.tables.ecam, slot);
        if function.is_there() {
            let (vendor, device) = function.id();
            println!("00:{slot:02x}.0 {vendor:04x}:{device:04x}");
        } else {
            for at in [0, 4, 0x10, 0xff8] {
                same!(
                    function.read::<u64>(at),
                    u64::MAX,
                    "offset {at:#x} of empty slot {slot}"
                );
                function.write(at, 0u64);
            }
        }
    }
    Ok(())
}

fn the_header_is_read_only(device: &Device) -> Outcome {
    let function = device.function;
    let before: [u32; 3] = [function.read(VENDOR), function.read(0x08), function.read(0x2c)];
    let pointer: u8 = function.read(0x34);
    for at in [VENDOR, 0x08, 0x2c, 0x34] {
        function.write(at, 0u32);
        function.write(at, u32::MAX);
    }
    let after: [u32; 3] = [function.read(VENDOR), function.read(0x08), function.read(0x2c)];
    same!(after, before, "ids, class, subsystem");
    same!(function.read::<u8>(0x34), pointer, "capabilities pointer");
    Ok(())
}

fn accesses_of_all_sizes_agree(device: &Device) -> Outcome {
    let function = device.function;
    for at in (0..0x100).chain([0xffc, 0xff0]) {
        let word = u32::from_le_bytes([
            function.read(at),
            function.read(at + 1),
            function.read(at + 2),
            function.read(at + 3),
        ]);
        // The window's data depend on the access's width.
        if at + 4 <= device.window + 16 || at >= device.window + 20 {
            same!(function.read::<u32>(at), word, "offset {at:#x}");
        }
        let _: (u16, u64) = (function.read(at), function.read(at));
    }
    // Across the end, into the next function.
    let _: u64 = function.read(0xffd);
    Ok(())
}

fn bars_tell_their_size(device: &Device) -> Outcome {
    let Some(size) = device.function.bar_size(0) else {
        return Err(End::Absent("no BAR 0"));
    };
    let address = device.function.bar_address(0);
    ensure!(size.is_power_of_two() && size >= 4096, "{size:#x} bytes");
    same!(address % size, 0, "the address's alignment");
    for index in 2..6 {
        device.function.write(BARS + 4 * index, u32::MAX);
        same!(
            device.function.read::<u32>(BARS + 4 * index),
            0,
            "register {index}"
        );
    }
    Ok(())
}

/// The device's common registers, if BAR 0 were at `bar`.
fn moved_to(device: &Device, bar: u64) -> Device {
    let mut moved = *device;
    moved.common = bar + (device.common - device.function.bar_address(0));
    moved
}

fn a_bar_can_be_moved(device: &Device) -> Outcome {
    let function = device.function;
    let home = function.bar_address(0);
    for there in [0xc800_0000, home + (1 << 30)] {
        let elsewhere = moved_to(device, there);
        memory::map(there, 1 << 20);
        function.decode_memory(false);
        function.set_bar_address(0, there);
        function.decode_memory(true);
        same!(elsewhere.queues(), device.vectors - 1, "queues at {there:#x}");
        same!(
            device.get::<u16>(register::NUM_QUEUES),
            0xffff,
            "queues where the BAR was"
        );
        function.set_bar_address(0, home);
        same!(device.queues(), device.vectors - 1, "queues at home");
    }
    Ok(())
}

fn a_bar_without_decoding_is_gone(device: &Device) -> Outcome {
    device.reset()?;
    device.function.decode_memory(false);
    let gone: u32 = read(device.common);
    write(device.common + register::STATUS, status::ACKNOWLEDGE);
    device.function.decode_memory(true);
    same!(gone, u32::MAX, "what nobody answers");
    same!(device.status(), 0, "status");
    let command: u16 = device.function.read(COMMAND);
    device.function.write(COMMAND, u16::MAX);
    device.function.write(COMMAND, command);
    same!(device.function.read::<u16>(COMMAND), command, "command");
    Ok(())
}

fn bars_over_each_other_harm_nobody(device: &Device) -> Outcome {
    let function = device.function;
    let home = function.bar_address(0);
    let size = function.bar_size(0).unwrap_or(4096);
    for there in [home - size, home + size, home + 2 * size] {
        // Whoever is there was there before, and answers.
        function.set_bar_address(0, there);
        memory::map(there, size);
        let _: u32 = read(there);
        function.set_bar_address(0, home);
    }
    same!(device.queues(), device.vectors - 1, "queues");
    Ok(())
}

fn wild_bars_harm_nobody(device: &Device) -> Outcome {
    let function = device.function;
    let home = function.bar_address(0);
    for there in [
        0,
        0x10_0000,
        function.config & !0xfffff,
        crate::cpu::LOCAL_APIC,
        0xfec0_0000,
        u64::MAX,
        1 << 52,
    ] {
        function.set_bar_address(0, there);
        let _: u64 = function.read(BARS);
    }
    function.set_bar_address(0, home);
    same!(device.queues(), device.vectors - 1, "queues");
    Ok(())
}

fn the_other_functions_of_the_slot_are_absent(device: &Device) -> Outcome {
    for number in 1..8 {
        let config = device.function.config + (number << 12);
        same!(read::<u32>(config), u32::MAX, "function {number}");
        write(config + COMMAND, u32::MAX);
    }
    Ok(())
}
