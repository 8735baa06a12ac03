//! The DSDT: what the guest cannot find by probing. ACPI 6.5, chapters 5, 6 and 19.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Notify,
    Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::ged::{self, Event};
use super::hotplug;
use super::{GENERATION_GSI, HOTPLUG_GSI, OEM, OEM_REVISION, OEM_TABLE, POWER_BUTTON_GSI, SERIAL_GSI};
use crate::legacy::{power, serial};
use crate::memory::{ECAM_BASE, ECAM_SIZE, Layout, PCI_WINDOW_32};
use crate::vmgenid;

/// Bytes of the header that all description tables share.
const HEADER_SIZE: u32 = 36;
const REVISION: u8 = 2;
/// `Notify` value of a pressed power button.
const BUTTON_PRESSED: u8 = 0x80;
/// `Notify` value of a generation id that has changed.
const GENERATION_CHANGED: u8 = 0x80;

pub(super) fn dsdt(layout: &Layout, hotplug: bool) -> Sdt {
    let mut body = Vec::new();
    system_bus(layout, hotplug, &mut body);
    Name::new(
        Path::new("_S5_"),
        &Package::new(vec![&power::SLEEP_TYPE_S5, &ZERO]),
    )
    .to_aml_bytes(&mut body);
    let mut dsdt = Sdt::new(*b"DSDT", HEADER_SIZE, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&body);
    dsdt
}

fn system_bus(layout: &Layout, hotplug: bool, body: &mut Vec<u8>) {
    let mut devices = Vec::new();
    pci_root(layout, hotplug, &mut devices);
    ecam_reservation(&mut devices);
    serial_port(&mut devices);
    power_button(&mut devices);
    generation_id(&mut devices);
    events(hotplug, &mut devices);
    body.extend(Scope::raw(Path::new("_SB_"), devices));
}

/// PCI Express root, answering to drivers of plain PCI roots too. No `_PRT`: nothing here has INTx.
fn pci_root(layout: &Layout, hotplug: bool, body: &mut Vec<u8>) {
    let (start_32, size_32) = PCI_WINDOW_32;
    let (start_64, size_64) = layout.pci_window_64();
    let uncached = AddressSpaceCacheable::NotCacheable;
    let mut slots = Vec::new();
    if hotplug {
        hotplug::write(&mut slots);
    }
    Device::new(
        Path::new("PCI0"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0A08")),
            &Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")),
            &Name::new(Path::new("_UID"), &ZERO),
            &Name::new(Path::new("_SEG"), &ZERO),
            &Name::new(Path::new("_BBN"), &ZERO),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &AddressSpace::new_bus_number(0_u16, 0_u16),
                    &AddressSpace::new_memory(
                        uncached,
                        true,
                        start_32 as u32,
                        (start_32 + size_32 - 1) as u32,
                        None,
                    ),
                    &AddressSpace::new_memory(uncached, true, start_64, start_64 + size_64 - 1, None),
                ]),
            ),
            &hotplug::Raw(slots),
        ],
    )
    .to_aml_bytes(body);
}

/// Linux trusts MCFG only if a motherboard resource reserves its range.
fn ecam_reservation(body: &mut Vec<u8>) {
    Device::new(
        Path::new("ECAM"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0C02")),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&Memory32Fixed::new(
                    true,
                    ECAM_BASE as u32,
                    ECAM_SIZE as u32,
                )]),
            ),
        ],
    )
    .to_aml_bytes(body);
}

fn serial_port(body: &mut Vec<u8>) {
    Device::new(
        Path::new("COM1"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &ZERO),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &Interrupt::new(true, true, false, false, SERIAL_GSI),
                    &IO::new(serial::BASE, serial::BASE, 1, serial::PORTS as u8),
                ]),
            ),
        ],
    )
    .to_aml_bytes(body);
}

fn power_button(body: &mut Vec<u8>) {
    Device::new(
        Path::new("PWRB"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0C0C")),
            &Name::new(Path::new("_UID"), &ZERO),
        ],
    )
    .to_aml_bytes(body);
}

/// Windows looks for `_CID`, Linux for either; `ADDR` is the id's address in two halves.
fn generation_id(body: &mut Vec<u8>) {
    Device::new(
        Path::new("VGEN"),
        vec![
            &Name::new(Path::new("_HID"), &"VMGENCTR"),
            &Name::new(Path::new("_CID"), &"VM_Gen_Counter"),
            &Name::new(Path::new("_DDN"), &"VM_Gen_Counter"),
            &Name::new(
                Path::new("ADDR"),
                &Package::new(vec![
                    &(vmgenid::ADDRESS as u32),
                    &((vmgenid::ADDRESS >> 32) as u32),
                ]),
            ),
        ],
    )
    .to_aml_bytes(body);
}

fn events(hotplug: bool, body: &mut Vec<u8>) {
    let (button, generation) = (Path::new("PWRB"), Path::new("VGEN"));
    let pressed = Notify::new(&button, &BUTTON_PRESSED);
    let renewed = Notify::new(&generation, &GENERATION_CHANGED);
    let scan = hotplug::scan();
    let mut events = vec![
        Event {
            gsi: POWER_BUTTON_GSI,
            terms: vec![&pressed],
        },
        Event {
            gsi: GENERATION_GSI,
            terms: vec![&renewed],
        },
    ];
    if hotplug {
        events.push(Event {
            gsi: HOTPLUG_GSI,
            terms: vec![&scan],
        });
    }
    ged::write(events, body);
}
