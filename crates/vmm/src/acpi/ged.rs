//! The Generic Event Device: how a hardware-reduced machine tells its guest that something happened. ACPI 6.5,
//! section 5.6.9.
//!
//! The machine has one, with an interrupt of its own for each kind of event. When interrupt `gsi` comes, the guest
//! calls `_EVT(gsi)`, which carries out that event's terms.

use acpi_tables::Aml;
use acpi_tables::aml::{Arg, Device, Equal, If, Interrupt, Method, Name, Path, ResourceTemplate, ZERO};

/// What happens in the guest upon an edge of an IOAPIC pin.
pub(super) struct Event<'a> {
    pub(super) gsi: u32,
    /// Relative to `\_SB.GED_`; most often one `Notify`.
    pub(super) terms: Vec<&'a dyn Aml>,
}

/// The device, with all events that there are.
pub(super) fn write(events: Vec<Event<'_>>, body: &mut Vec<u8>) {
    let interrupts: Vec<_> = events
        .iter()
        .map(|event| Interrupt::new(true, true, false, false, event.gsi))
        .collect();
    let gsis: Vec<_> = events.iter().map(|event| event.gsi).collect();
    let conditions: Vec<_> = gsis.iter().map(|gsi| Equal::new(&Arg(0), gsi)).collect();
    let branches: Vec<_> = conditions
        .iter()
        .zip(events)
        .map(|(condition, event)| If::new(condition, event.terms))
        .collect();
    Device::new(
        Path::new("GED_"),
        vec![
            &Name::new(Path::new("_HID"), &"ACPI0013"),
            &Name::new(Path::new("_UID"), &ZERO),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(all(&interrupts))),
            &Method::new(Path::new("_EVT"), 1, true, all(&branches)),
        ],
    )
    .to_aml_bytes(body);
}

fn all<T: Aml>(items: &[T]) -> Vec<&dyn Aml> {
    items.iter().map(|item| item as &dyn Aml).collect()
}
