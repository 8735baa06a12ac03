//! The guest's side of PCI hot-plug, in AML: a device for each slot, and what the Generic Event Device calls. The
//! registers are [`crate::pci::hotplug`]'s. ACPI 6.5, sections 6.1.1 (`_ADR`), 6.3.3 (`_EJ0`) and 5.6.6
//! (notifications).
//!
//! Slots have no more than they need, for each object costs the guest time when it boots. Without `_STA` it asks
//! the slot itself, by reading its configuration space; without `_SUN` Linux counts the slots, from 1 as we do.

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Arg, Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, Local, Method,
    MethodCall, Name, Notify, OpRegion, OpRegionSpace, Path, Store, ZERO,
};

use crate::pci::hotplug::{FIRST_PORT, PORTS};
use crate::pci::root::{FIRST_SLOT, SLOTS};

/// `Notify` values: look at the slot, and let its function go.
const DEVICE_CHECK: u8 = 1;
const EJECTION_REQUEST: u8 = 3;
const DEVICE_SHIFT: u32 = 16;

/// What the Generic Event Device calls when the interrupt comes.
pub(super) fn scan() -> MethodCall<'static> {
    MethodCall::new(Path::new("\\_SB_.PCI0.SCAN"), Vec::new())
}

/// What belongs into the PCI root's device.
pub(super) fn write(body: &mut Vec<u8>) {
    registers(body);
    for slot in FIRST_SLOT..SLOTS {
        Device::new(
            name(slot),
            vec![
                &Name::new(Path::new("_ADR"), &(u32::from(slot) << DEVICE_SHIFT)),
                &Method::new(
                    Path::new("_EJ0"),
                    1,
                    true,
                    vec![&Store::new(&Path::new("EJCT"), &slot)],
                ),
            ],
        )
        .to_aml_bytes(body);
    }
    notify(body);
    Method::new(
        Path::new("SCAN"),
        0,
        true,
        vec![
            // Both are read before either is told: reading clears.
            &Store::new(&Local(0), &Path::new("ARRV")),
            &Store::new(&Local(1), &Path::new("LEAV")),
            &MethodCall::new(Path::new("TELL"), vec![&Local(0), &DEVICE_CHECK]),
            &MethodCall::new(Path::new("TELL"), vec![&Local(1), &EJECTION_REQUEST]),
        ],
    )
    .to_aml_bytes(body);
}

fn registers(body: &mut Vec<u8>) {
    OpRegion::new(Path::new("HPLG"), OpRegionSpace::SystemIO, &FIRST_PORT, &PORTS).to_aml_bytes(body);
    let field = |access, entries| {
        let (lock, update) = (FieldLockRule::NoLock, FieldUpdateRule::WriteAsZeroes);
        Field::new(Path::new("HPLG"), access, lock, update, entries)
    };
    let slots = vec![FieldEntry::Named(*b"ARRV", 32), FieldEntry::Named(*b"LEAV", 32)];
    field(FieldAccessType::DWord, slots).to_aml_bytes(body);
    let eject = vec![FieldEntry::Reserved(64), FieldEntry::Named(*b"EJCT", 8)];
    field(FieldAccessType::Byte, eject).to_aml_bytes(body);
}

/// `TELL(slots, what)`.
fn notify(body: &mut Vec<u8>) {
    let (slots, what) = (Arg(0), Arg(1));
    let mut branches = Vec::new();
    for slot in FIRST_SLOT..SLOTS {
        If::new(
            &And::new(&ZERO, &slots, &(1_u32 << slot)),
            vec![&Notify::new(&name(slot), &what)],
        )
        .to_aml_bytes(&mut branches);
    }
    Method::new(Path::new("TELL"), 2, true, vec![&Raw(branches)]).to_aml_bytes(body);
}

/// AML that is there already.
pub(super) struct Raw(pub(super) Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn name(slot: u8) -> Path {
    Path::new(&format!("SL{slot:02}"))
}
