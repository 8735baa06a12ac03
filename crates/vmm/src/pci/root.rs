//! The PCI root complex: functions in their slots, ECAM, and which address belongs to which BAR.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::config::ConfigSpace;
use super::mappings::Mappings;
use super::{Bar, Decoding, Doorbell, IoEvents, PciFunction};
use crate::memory::PCI_WINDOW_32;
use crate::snapshot::{Saved, StateError};

/// Devices on a bus: slots 0 to 31.
pub const SLOTS: u8 = 32;
/// The first one that is free for devices: slot 0 has the host bridge.
pub const FIRST_SLOT: u8 = 1;

const ECAM_DEVICE_SHIFT: u32 = 15;
const ECAM_FUNCTION_MASK: u32 = 0x7000;
const ECAM_REGISTER_MASK: u32 = 0xfff;

const HEADER_COMMAND: u16 = 0x04;
const HEADER_BARS: u16 = 0x10;
const BAR_REGISTERS: u8 = 6;

const CLASS_HOST_BRIDGE: u32 = 0x06_00_00;

/// Bus 0, with its host bridge at 00:00.0.
pub struct PciRoot {
    /// By slot number. Where both locks are taken, `mappings` is the first.
    functions: RwLock<[Option<Arc<dyn PciFunction>>; SLOTS as usize]>,
    /// Where BARs are assigned: (start, bytes).
    window: (u64, u64),
    mappings: RwLock<Mappings>,
}

impl PciRoot {
    /// BARs are assigned within `window`, (start, bytes), of which each slot has an equal share: a slot's
    /// addresses do not depend on what was attached and detached before. The guest may put them elsewhere in it,
    /// and into the 32-bit window. `events` gets the doorbells. The host bridge calls itself `bridge`.
    #[must_use]
    pub fn new(events: Arc<dyn IoEvents>, window: (u64, u64), bridge: BridgeId) -> Self {
        let mut functions = [const { None }; SLOTS as usize];
        functions[0] = Some(Arc::new(HostBridge::new(bridge)) as Arc<dyn PciFunction>);
        Self {
            functions: RwLock::new(functions),
            window,
            mappings: RwLock::new(Mappings::new(events, [PCI_WINDOW_32, window])),
        }
    }

    /// Puts a function into a slot and assigns its BARs, as firmware would, by sizing them.
    ///
    /// # Errors
    /// There is no such slot, or it is taken, or its share of the address window is too small.
    pub fn insert(&self, slot: u8, function: Arc<dyn PciFunction>) -> io::Result<()> {
        let share = self.window.1 / u64::from(SLOTS);
        let mut next = self.window.0 + share * u64::from(slot);
        let end = next + share;
        let mut register = 0;
        while register + 1 < BAR_REGISTERS {
            let offset = HEADER_BARS + 4 * u16::from(register);
            let Some(size) = size_bar(function.as_ref(), offset) else {
                register += 1;
                continue;
            };
            let address = next.next_multiple_of(size);
            next = address
                .checked_add(size)
                .filter(|&next| next <= end)
                .ok_or_else(|| io::Error::other("the BARs do not fit into the slot's addresses"))?;
            write_bar(function.as_ref(), offset, address);
            register += 2;
        }
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        match functions.get_mut(usize::from(slot)) {
            Some(free @ None) => *free = Some(function),
            Some(Some(_)) => return Err(io::Error::other(format!("PCI slot {slot} is taken"))),
            None => return Err(io::Error::other(format!("there is no PCI slot {slot}"))),
        }
        Ok(())
    }

    /// Takes a function out, unmaps its BARs and stops it. Says whether there was one.
    pub fn remove(&self, slot: u8) -> bool {
        let taken = {
            let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
            functions.get_mut(usize::from(slot)).and_then(Option::take)
        };
        let Some(function) = taken else {
            return false;
        };
        self.remap();
        // A vCPU may be at one of its registers still; what it does there ends when it lets the function go.
        function.reset();
        true
    }

    /// Whether a slot has a function.
    pub fn is_taken(&self, slot: u8) -> bool {
        self.in_slot(slot).is_some()
    }

    /// Reads configuration space; `offset` is into the ECAM range. Nobody there: all ones.
    pub fn config_read(&self, offset: u32, data: &mut [u8]) {
        match self.function(offset) {
            Some(function) => function.config_read((offset & ECAM_REGISTER_MASK) as u16, data),
            None => data.fill(0xff),
        }
    }

    pub fn config_write(&self, offset: u32, data: &[u8]) {
        if let Some(function) = self.function(offset) {
            let register = (offset & ECAM_REGISTER_MASK) as u16;
            if function.config_write(register, data) == Decoding::Changed {
                self.remap();
            }
        }
    }

    /// Reads a BAR. Nobody there: all ones.
    pub fn memory_read(&self, address: u64, data: &mut [u8]) {
        match self.locate(address, data.len()) {
            Some((function, bar, offset)) => function.bar_read(bar, offset, data),
            None => data.fill(0xff),
        }
    }

    pub fn memory_write(&self, address: u64, data: &[u8]) {
        if let Some((function, bar, offset)) = self.locate(address, data.len()) {
            function.bar_write(bar, offset, data);
        }
    }

    /// Stops all functions and unmaps their BARs.
    pub fn reset(&self) {
        for (_, function) in self.all() {
            function.reset();
        }
        self.remap();
    }

    /// Stops all functions' workers; no vCPU runs.
    pub fn pause(&self) {
        for (_, function) in self.all() {
            function.pause();
        }
    }

    /// The state of each function, by its slot; they are paused.
    ///
    /// # Errors
    /// A function cannot be saved.
    pub fn save(&self) -> Result<Vec<(u8, Saved)>, StateError> {
        let slots = self.all().into_iter();
        slots
            .map(|(slot, function)| Ok((slot, function.save()?)))
            .collect()
    }

    /// Gives the functions the states that they had in the same slots, and maps their BARs where the guest had
    /// put them.
    ///
    /// # Errors
    /// There are other functions here.
    pub fn restore(&self, saved: &[(u8, Saved)]) -> Result<(), StateError> {
        let here: Vec<u8> = self.all().into_iter().map(|(slot, _)| slot).collect();
        let there: Vec<u8> = saved.iter().map(|(slot, _)| *slot).collect();
        if here != there {
            return Err(StateError::Unfit(format!(
                "it has PCI functions in the slots {there:?}, and here they are in {here:?}"
            )));
        }
        for (slot, state) in saved {
            if let Some(function) = self.in_slot(*slot) {
                function.restore(state)?;
            }
        }
        self.remap();
        Ok(())
    }

    /// Lets all functions go on.
    pub fn resume(&self) {
        for (_, function) in self.all() {
            function.resume();
        }
    }

    /// All functions with their slots.
    fn all(&self) -> Vec<(u8, Arc<dyn PciFunction>)> {
        (0..SLOTS)
            .filter_map(|slot| Some((slot, self.in_slot(slot)?)))
            .collect()
    }

    fn in_slot(&self, slot: u8) -> Option<Arc<dyn PciFunction>> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(usize::from(slot))?.clone()
    }

    fn function(&self, ecam_offset: u32) -> Option<Arc<dyn PciFunction>> {
        let slot = u8::try_from(ecam_offset >> ECAM_DEVICE_SHIFT).ok()?;
        let function = self.in_slot(slot)?;
        (ecam_offset & ECAM_FUNCTION_MASK == 0).then_some(function)
    }

    fn locate(&self, address: u64, len: usize) -> Option<(Arc<dyn PciFunction>, u8, u64)> {
        let mappings = self.mappings.read().unwrap_or_else(PoisonError::into_inner);
        mappings.locate(address, len)
    }

    /// Brings the mappings in step with what the functions decode.
    fn remap(&self) {
        let mut mappings = self.mappings.write().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: of two vCPUs that move BARs, the later one sees the final state.
        let functions: Vec<_> = self.all().into_iter().map(|(_, function)| function).collect();
        mappings.update(&functions);
    }
}

/// The size of the 64-bit memory BAR at configuration offset `offset`; `None` where there is none.
fn size_bar(function: &dyn PciFunction, offset: u16) -> Option<u64> {
    write_bar(function, offset, u64::MAX);
    let mut register = [0; 8];
    function.config_read(offset, &mut register[..4]);
    function.config_read(offset + 4, &mut register[4..]);
    let mask = u64::from_le_bytes(register) & !0xf;
    (mask != 0).then(|| mask.wrapping_neg())
}

fn write_bar(function: &dyn PciFunction, offset: u16, value: u64) {
    let register = value.to_le_bytes();
    function.config_write(offset, &register[..4]);
    function.config_write(offset + 4, &register[4..]);
}

/// Vendor and device of a host bridge.
pub type BridgeId = (u16, u16);

/// 00:00.0 has nothing but its name.
pub struct HostBridge {
    config: Mutex<ConfigSpace>,
}

impl HostBridge {
    /// QEMU's PCIe host bridge: a name that every guest knows and that asks for no driver.
    pub const DIRECT: BridgeId = (0x1b36, 0x0008);
    /// The name by which edk2 knows its CloudHv platform.
    pub const FIRMWARE: BridgeId = (0x8086, 0x0d57);

    fn new((vendor, device): BridgeId) -> Self {
        let mut config = ConfigSpace::new(vendor, device, 0, CLASS_HOST_BRIDGE, 0, 0);
        // It decodes nothing, so its command register is constant.
        config.set_writable(HEADER_COMMAND, &[0, 0]);
        Self {
            config: Mutex::new(config),
        }
    }
}

impl PciFunction for HostBridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        config.read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Decoding {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        config.write(offset, data)
    }

    fn bars(&self) -> Vec<Bar> {
        Vec::new()
    }

    fn bar_read(&self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}

    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }

    fn reset(&self) {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        config.reset();
    }
}

#[cfg(any(test, feature = "testing"))]
impl PciRoot {
    /// What has to hold after every access.
    pub(super) fn check(&self) {
        let functions: Vec<_> = self.all().into_iter().map(|(_, function)| function).collect();
        self.mappings.read().unwrap().check(&functions);
    }

    pub(super) fn decoded_doorbells(&self) -> Vec<u64> {
        self.mappings.read().unwrap().doorbells()
    }
}

#[cfg(test)]
mod tests;
