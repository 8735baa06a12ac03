//! A bare-metal guest of our own: it finds the PCI devices of the machine it runs on, drives real virtqueues under
//! real KVM, rightly and wrongly, and prints a line for each test.
//!
//! It boots wherever Linux does (64-bit entry, PVH) and needs ACPI's MCFG, a 16550 at COM1 and a local APIC. The
//! command line selects: `only=block::,net::sends` runs the tests with these prefixes; `bench=random_read` and
//! others measure instead. It powers the machine off at its end.

#![no_std]
#![no_main]

mod acpi;
mod bench;
mod boot;
mod console;
mod cpu;
mod memory;
mod pci;
mod report;
mod runtime;
mod tests;
mod virtio;

use core::panic::PanicInfo;

use boot::Boot;
use pci::Function;
use virtio::Device;

/// What the tests have at hand.
struct Machine {
    boot: Boot,
    tables: acpi::Tables,
}

impl Machine {
    /// The `nth` virtio device of a type.
    fn device(&self, kind: u16, nth: usize) -> Option<Device> {
        Function::all(self.tables.ecam)
            .filter_map(Device::probe)
            .filter(|device| device.kind == kind)
            .nth(nth)
    }
}

/// Ring 3 starts here; `address` is that of Linux's boot parameters (0) or PVH's start information (1).
#[unsafe(no_mangle)]
extern "C" fn main(address: u64, protocol: u64) -> ! {
    cpu::enable_interrupts();
    // SAFETY: the loader put a structure of the protocol there, and nothing overwrites it.
    let boot = unsafe { Boot::read(address, protocol) };
    let Some(tables) = acpi::Tables::find(boot.rsdp) else {
        panic!("there are no ACPI tables");
    };
    let machine = Machine { boot, tables };
    match machine.boot.option("bench=") {
        Some(name) => bench::run(&machine, name),
        None => tests::run(&machine),
    }
    machine.tables.power_off()
}

/// An exception that nobody expects ends the run.
#[unsafe(no_mangle)]
extern "C" fn fault(vector: u64, address: u64, cr2: u64) -> ! {
    println!("exception {vector} at {address:#x}, cr2 {cr2:#x}");
    cpu::reset()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("{info}");
    cpu::reset()
}
