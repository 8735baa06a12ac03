//! The registers by which machine and guest agree on functions that come and go: ACPI hot-plug on the PCI root,
//! which stock kernels do without help (`acpiphp` in Linux).
//!
//! The machine puts a function into its slot or wants one out, notes that here and pulls an interrupt line. The
//! guest's ACPI code (`PCI0.SCAN` in the DSDT) then reads which slots it concerns and notifies their drivers. A
//! guest that is done with a function calls the slot's `_EJ0`, which writes here, and the function is gone when
//! that write returns. An ejection that nobody asked for is ignored: the guest may power a slot down, but what is
//! attached stays.
//!
//! | port | bytes | |
//! |---|---|---|
//! | 0x620 | 4 | slots that have got a function since the last read, a bit each; reading clears |
//! | 0x624 | 4 | slots whose function shall leave, asked for since the last read; reading clears |
//! | 0x628 | 1 | written: the slot that is to be emptied |

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

use super::root::PciRoot;
use crate::notices::{Notice, Notices};
use crate::snapshot::{Saved, StateError};

const PART: &str = "hot-plug registers";

pub const FIRST_PORT: u16 = 0x620;
pub const PORTS: u16 = 9;
pub const LAST_PORT: u16 = FIRST_PORT + PORTS - 1;

/// Offsets of the registers.
const ARRIVED: u16 = 0;
const LEAVING: u16 = 4;
const EJECT: u16 = 8;

/// The registers of one boot.
pub struct HotPlug {
    root: Arc<PciRoot>,
    notices: Arc<Notices>,
    interrupt: EventFd,
    slots: Mutex<Slots>,
}

/// A bit for each slot.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Slots {
    arrived: u32,
    leaving: u32,
    /// Those that may be ejected. Whoever takes a slot's bit empties the slot.
    ejectable: u32,
}

impl HotPlug {
    /// `interrupt` makes the guest look at the registers.
    #[must_use]
    pub fn new(root: Arc<PciRoot>, notices: Arc<Notices>, interrupt: EventFd) -> Self {
        Self {
            root,
            notices,
            interrupt,
            slots: Mutex::default(),
        }
    }

    /// Tells the guest that a slot has got a function.
    ///
    /// # Errors
    /// The interrupt's descriptor failed.
    pub fn announce(&self, slot: u8) -> io::Result<()> {
        self.slots().arrived |= bit(slot);
        self.interrupt.write(1)
    }

    /// Asks the guest to let a slot's function go, for the first time or again.
    ///
    /// # Errors
    /// The interrupt's descriptor failed.
    pub fn ask(&self, slot: u8) -> io::Result<()> {
        let mut slots = self.slots();
        slots.leaving |= bit(slot);
        slots.ejectable |= bit(slot);
        drop(slots);
        self.interrupt.write(1)
    }

    /// Whether the guest was asked to let a slot's function go, and has not done so yet.
    pub fn is_asked(&self, slot: u8) -> bool {
        self.slots().ejectable & bit(slot) != 0
    }

    /// The slot was emptied without the guest: nothing that is noted of it concerns the next function there.
    pub fn forget(&self, slot: u8) {
        let mut slots = self.slots();
        slots.arrived &= !bit(slot);
        slots.leaving &= !bit(slot);
        slots.ejectable &= !bit(slot);
    }

    /// Reads the register byte at a port.
    pub fn read(&self, port: u16) -> u8 {
        let mut slots = self.slots();
        match port.wrapping_sub(FIRST_PORT) {
            offset @ ARRIVED..LEAVING => take_byte(&mut slots.arrived, offset - ARRIVED),
            offset @ LEAVING..EJECT => take_byte(&mut slots.leaving, offset - LEAVING),
            _ => 0,
        }
    }

    /// Writes to a port: an ejection takes the function out before it returns.
    pub fn write(&self, port: u16, slot: u8) {
        if port != FIRST_PORT + EJECT {
            return;
        }
        // Locked until the slot is empty: the host may be about to empty it too, and to fill it again.
        let mut slots = self.slots();
        if slots.ejectable & bit(slot) != 0 {
            slots.ejectable &= !bit(slot);
            slots.leaving &= !bit(slot);
            self.root.remove(slot);
            drop(slots);
            self.notices.post(Notice::Ejected);
        }
    }

    /// # Errors
    /// The registers cannot be encoded.
    pub fn save(&self) -> Result<Saved, StateError> {
        Saved::of(PART, &*self.slots())
    }

    /// Takes over the registers. A guest that has not read them yet is told again.
    ///
    /// # Errors
    /// It is no state of these registers.
    pub fn restore(&self, saved: &Saved) -> Result<(), StateError> {
        let slots: Slots = saved.read(PART)?;
        let unread = slots.arrived | slots.leaving != 0;
        *self.slots() = slots;
        if unread {
            self.interrupt
                .write(1)
                .map_err(StateError::host("telling the guest of its PCI slots"))?;
        }
        Ok(())
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No bit for a slot that does not exist.
fn bit(slot: u8) -> u32 {
    1_u32.checked_shl(u32::from(slot)).unwrap_or(0)
}

fn take_byte(register: &mut u32, index: u16) -> u8 {
    let shift = 8 * u32::from(index);
    let byte = (*register >> shift) as u8;
    *register &= !(0xff << shift);
    byte
}

#[cfg(test)]
mod tests;
