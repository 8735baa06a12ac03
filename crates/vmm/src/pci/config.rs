//! A function's configuration space: a type 0 header, 64-bit memory BARs, a capability list.
//! PCI Local Bus 3.0, chapter 6.
//!
//! Every byte has a write mask; what is not in the mask is read-only. That also is all of BAR sizing: the
//! address bits below the BAR's size are read-only zeroes, so the all-ones that a guest writes read back as
//! its size.

use super::{Bar, Decoding};
use crate::snapshot::StateError;

/// Bytes that a function really has; the extended space up to 4095 reads as zeroes.
const SIZE: usize = 256;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CACHE_LINE_SIZE: usize = 0x0c;
const BARS: usize = 0x10;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// The first byte behind the type 0 header.
const FIRST_CAPABILITY: usize = 0x40;

const COMMAND_MEMORY_SPACE: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_INTERRUPT_DISABLE: u16 = 1 << 10;
const STATUS_CAPABILITIES_LIST: u8 = 1 << 4;

/// BAR bits: memory, 64 bits wide, not prefetchable. They are so because none of our registers may be
/// read ahead of time.
const BAR_MEMORY_64: u32 = 0b100;

/// The configuration space of one function. Plain data: whoever owns it adds the lock.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    /// What `bytes` is after power-on, once the firmware (we) has assigned the BARs.
    power_on: [u8; SIZE],
    /// (index, size) of each BAR.
    bars: Vec<(u8, u64)>,
    last_capability: usize,
    end: usize,
}

impl ConfigSpace {
    /// `class` is 24 bits: base class, subclass, programming interface.
    #[must_use]
    pub fn new(
        vendor: u16,
        device: u16,
        revision: u8,
        class: u32,
        subsystem_vendor: u16,
        subsystem: u16,
    ) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            power_on: [0; SIZE],
            bars: Vec::new(),
            last_capability: 0,
            end: FIRST_CAPABILITY,
        };
        space.put(0x00, &vendor.to_le_bytes());
        space.put(0x02, &device.to_le_bytes());
        space.put(0x08, &[revision]);
        space.put(0x09, &class.to_le_bytes()[..3]);
        space.put(0x2c, &subsystem_vendor.to_le_bytes());
        space.put(0x2e, &subsystem.to_le_bytes());
        let command = COMMAND_MEMORY_SPACE | COMMAND_BUS_MASTER | COMMAND_INTERRUPT_DISABLE;
        space.set_writable(COMMAND as u16, &command.to_le_bytes());
        space.set_writable(CACHE_LINE_SIZE as u16, &[0xff, 0xff]);
        space.set_writable(INTERRUPT_LINE as u16, &[0xff]);
        space
    }

    /// Adds a 64-bit memory BAR; it takes the registers `index` and `index + 1`.
    ///
    /// # Panics
    /// The program is wrong: `index` is above 4 or taken, or `size` is no power of two of at least 16.
    pub fn add_bar64(&mut self, index: u8, size: u64) {
        assert!(index <= 4, "a 64-bit BAR starts at register 0 to 4");
        assert!(size.is_power_of_two() && size >= 16, "BAR size {size:#x}");
        assert!(
            self.bars.iter().all(|&(i, _)| i.abs_diff(index) > 1),
            "BAR {index} is taken"
        );
        self.bars.push((index, size));
        let offset = bar_offset(index);
        self.set_writable(offset as u16, &(!(size - 1)).to_le_bytes());
        self.put(offset, &BAR_MEMORY_64.to_le_bytes());
    }

    /// Appends a capability, read-only as a whole ([`Self::set_writable`] opens parts of it), and returns
    /// its offset in configuration space. `body` is what follows the two bytes of id and next pointer; the
    /// byte at `body[n]` is at the returned offset + 2 + n.
    ///
    /// # Panics
    /// The program is wrong: the list has outgrown 256 bytes.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> u16 {
        let offset = self.end.next_multiple_of(4);
        self.end = offset + 2 + body.len();
        assert!(self.end <= SIZE, "capabilities fill configuration space");
        self.put(offset, &[id, 0]);
        self.put(offset + 2, body);
        if self.last_capability == 0 {
            self.put(STATUS, &[STATUS_CAPABILITIES_LIST]);
            self.put(CAPABILITIES_POINTER, &[offset as u8]);
        } else {
            self.put(self.last_capability + 1, &[offset as u8]);
        }
        self.last_capability = offset;
        offset as u16
    }

    /// Lets the guest write the bits of `mask`, byte by byte from `offset`.
    ///
    /// # Panics
    /// The program is wrong: the mask ends beyond 256 bytes.
    pub fn set_writable(&mut self, offset: u16, mask: &[u8]) {
        let offset = usize::from(offset);
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// Changes a register from the device's side, read-only or not.
    ///
    /// # Panics
    /// The program is wrong: the data ends beyond 256 bytes.
    pub fn set(&mut self, offset: u16, data: &[u8]) {
        let offset = usize::from(offset);
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    /// Each BAR's index and size, assigned or not.
    pub fn bar_sizes(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        self.bars.iter().copied()
    }

    /// Assigns a BAR as firmware would; [`Self::reset`] returns to it. Unknown BARs are ignored.
    pub fn set_bar_address(&mut self, index: u8, address: u64) {
        if self.bars.iter().any(|&(i, _)| i == index) {
            let register = address | u64::from(BAR_MEMORY_64);
            self.put(bar_offset(index), &register.to_le_bytes());
        }
    }

    /// Reads at a byte `offset`; what lies beyond the 256 bytes reads as zero.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes the writable bits at a byte `offset`, and says whether the decoded BARs are others now.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Decoding {
        let before = (self.decodes_memory(), self.bar_registers());
        for (at, byte) in (usize::from(offset)..SIZE).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = (self.bytes[at] & !mask) | (byte & mask);
        }
        let decodes = self.decodes_memory();
        let moved = decodes && self.bar_registers() != before.1;
        if decodes != before.0 || moved {
            Decoding::Changed
        } else {
            Decoding::Same
        }
    }

    /// The memory BARs that the function decodes now: none while the guest has memory space disabled.
    #[must_use]
    pub fn bars(&self) -> Vec<Bar> {
        if !self.decodes_memory() {
            return Vec::new();
        }
        self.bars
            .iter()
            .map(|&(index, size)| Bar {
                index,
                address: self.bar_address(index),
                size,
            })
            .collect()
    }

    /// Whether the function may write to memory: virtio devices must not touch queues before.
    #[must_use]
    pub fn is_bus_master(&self) -> bool {
        self.command() & COMMAND_BUS_MASTER != 0
    }

    /// Back to the state after power-on, BARs assigned by [`Self::set_bar_address`] included.
    pub fn reset(&mut self) {
        self.bytes = self.power_on;
    }

    /// All bytes, for [`Self::restore`].
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Takes over what a guest wrote to a function like this one.
    ///
    /// # Errors
    /// Read-only bytes differ: it is another function.
    pub fn restore(&mut self, saved: &[u8]) -> Result<(), StateError> {
        let saved: [u8; SIZE] = saved
            .try_into()
            .map_err(|_| StateError::Unfit(format!("{} bytes of configuration space", saved.len())))?;
        let now = self.bytes.iter().zip(&self.writable);
        let fixed = saved.iter().zip(now);
        if let Some(at) = fixed
            .into_iter()
            .position(|(saved, (now, mask))| (saved ^ now) & !mask != 0)
        {
            return Err(StateError::Unfit(format!(
                "a PCI function's read-only byte {at:#x} is {:#x} in it and {:#x} here",
                saved[at], self.bytes[at]
            )));
        }
        self.bytes = saved;
        Ok(())
    }

    fn put(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        self.power_on[offset..offset + data.len()].copy_from_slice(data);
    }

    fn command(&self) -> u16 {
        u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]])
    }

    fn decodes_memory(&self) -> bool {
        self.command() & COMMAND_MEMORY_SPACE != 0
    }

    fn bar_registers(&self) -> [u8; 24] {
        let mut registers = [0; 24];
        registers.copy_from_slice(&self.bytes[BARS..BARS + 24]);
        registers
    }

    fn bar_address(&self, index: u8) -> u64 {
        let offset = bar_offset(index);
        let mut register = [0; 8];
        register.copy_from_slice(&self.bytes[offset..offset + 8]);
        u64::from_le_bytes(register) & !0xf
    }
}

fn bar_offset(index: u8) -> usize {
    BARS + 4 * usize::from(index)
}

#[cfg(test)]
mod tests;
