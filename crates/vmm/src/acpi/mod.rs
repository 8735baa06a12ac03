//! ACPI tables, hardware-reduced: there is no PM timer, no SCI, no fixed event hardware (ACPI 6.5, 4.1).
//!
//! RSDP → XSDT → FADT (→ DSDT), MADT, MCFG, one after the other in the BIOS area below 1 MiB.

mod dsdt;
mod ged;
mod hotplug;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::legacy::power;
use crate::memory::{ECAM_BASE, GuestMemory, IOAPIC_BASE, LOCAL_APIC_BASE, Layout};

/// Where Linux finds ACPI, by the boot parameters or by scanning.
pub const RSDP_ADDRESS: u64 = 0xe_0000;
const TABLES_ADDRESS: u64 = RSDP_ADDRESS + 64;

/// The GSI of the first serial port, as on every PC.
pub const SERIAL_GSI: u32 = 4;
/// The GSI by which the Generic Event Device hears of the power button.
pub const POWER_BUTTON_GSI: u32 = 5;
/// The GSI by which it hears of a new generation id.
pub const GENERATION_GSI: u32 = 6;
/// The GSI by which it hears of PCI functions that come and go.
pub const HOTPLUG_GSI: u32 = 7;

const OEM: [u8; 6] = *b"HEARTH";
const OEM_TABLE: [u8; 8] = *b"HEARTHVM";
const OEM_REVISION: u32 = 1;

/// FADT, IA-PC boot architecture: neither VGA nor CMOS clock (KVM's clock tells the time); no i8042 flag.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;

/// Writes all tables. With `hotplug` the guest learns of slots whose devices come and go; each costs it some time
/// when it boots.
///
/// # Errors
/// Guest memory does not reach there, which [`Layout`] rules out.
pub fn write(
    memory: &GuestMemory,
    layout: &Layout,
    vcpus: u8,
    hotplug: bool,
) -> Result<(), GuestMemoryError> {
    let mut writer = Writer {
        memory,
        next: TABLES_ADDRESS,
    };
    let dsdt = writer.write(&dsdt::dsdt(layout, hotplug))?;
    let entries = [
        writer.write(&fadt(dsdt))?,
        writer.write(&madt(vcpus))?,
        writer.write(&mcfg())?,
    ];
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    for entry in entries {
        xsdt.add_entry(entry);
    }
    let xsdt = writer.write(&xsdt)?;
    memory.write_slice(&bytes(&Rsdp::new(OEM, xsdt)), GuestAddress(RSDP_ADDRESS))
}

struct Writer<'a> {
    memory: &'a GuestMemory,
    next: u64,
}

impl Writer<'_> {
    fn write(&mut self, table: &dyn Aml) -> Result<u64, GuestMemoryError> {
        let bytes = bytes(table);
        let address = self.next;
        self.memory.write_slice(&bytes, GuestAddress(address))?;
        self.next = (address + bytes.len() as u64).next_multiple_of(64);
        Ok(address)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn fadt(dsdt: u64) -> impl Aml {
    let port = |address: u16| {
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            u64::from(address),
        )
    };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.reset_reg = port(power::RESET_PORT);
    fadt.reset_value = power::RESET_VALUE;
    fadt.sleep_control_reg = port(power::SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(power::SLEEP_STATUS_PORT);
    fadt.finalize()
}

fn madt(vcpus: u8) -> impl Aml {
    let local = LocalInterruptController::Address(LOCAL_APIC_BASE as u32);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IOAPIC_BASE as u32, 0));
    madt
}

fn mcfg() -> impl Aml {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(ECAM_BASE, 0, 0, 0);
    mcfg
}

#[cfg(test)]
mod tests;
