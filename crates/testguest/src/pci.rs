//! PCI functions of bus 0, by the memory-mapped configuration space.

use crate::cpu::{Word, read, write};
use crate::memory;

pub const VENDOR: u64 = 0x00;
pub const COMMAND: u64 = 0x04;
const STATUS: u64 = 0x06;
pub const BARS: u64 = 0x10;
const CAPABILITIES: u64 = 0x34;

pub const MEMORY_SPACE: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
const HAS_CAPABILITIES: u16 = 1 << 4;
const BAR_IS_PORT: u32 = 1;
const BAR_IS_64_BIT: u32 = 0b100;
const BAR_FLAGS: u64 = 0xf;
const NOBODY: u32 = 0xffff_ffff;

pub const SLOTS: u64 = 32;
const SLOT_SHIFT: u64 = 15;
/// More would be a loop in the list.
const MAX_CAPABILITIES: usize = 48;

/// Where we put the BARs of monitors that leave that to the guest. Ours, QEMU and Firecracker all keep it free.
const UNASSIGNED_BARS: u64 = 0xd000_0000;
const UNASSIGNED_STRIDE: u64 = 0x10_0000;

#[derive(Clone, Copy)]
pub struct Function {
    pub slot: u64,
    /// Address of its configuration space.
    pub config: u64,
}

impl Function {
    /// The function 0 in `slot`, whether or not somebody is there.
    pub fn at(ecam: u64, slot: u64) -> Self {
        Self {
            slot,
            config: ecam + (slot << SLOT_SHIFT),
        }
    }

    /// All that are there.
    pub fn all(ecam: u64) -> impl Iterator<Item = Self> {
        (0..SLOTS)
            .map(move |slot| Self::at(ecam, slot))
            .filter(Self::is_there)
    }

    pub fn is_there(&self) -> bool {
        self.read::<u32>(VENDOR) != NOBODY
    }

    /// Vendor and device.
    pub fn id(&self) -> (u16, u16) {
        (self.read(VENDOR), self.read(VENDOR + 2))
    }

    pub fn read<T: Word>(&self, offset: u64) -> T {
        read(self.config + offset)
    }

    pub fn write<T: Word>(&self, offset: u64, value: T) {
        write(self.config + offset, value);
    }

    /// The configuration offset of each capability, with its id.
    pub fn capabilities(&self) -> impl Iterator<Item = (u8, u64)> {
        let present = self.read::<u16>(STATUS) & HAS_CAPABILITIES != 0;
        let first = if present {
            self.read::<u8>(CAPABILITIES) & !3
        } else {
            0
        };
        let this = *self;
        core::iter::successors(Some(first), move |&at| {
            Some(this.read::<u8>(u64::from(at) + 1) & !3)
        })
        .take(MAX_CAPABILITIES)
        .take_while(|&at| at != 0)
        .map(move |at| (this.read(u64::from(at)), u64::from(at)))
    }

    /// Switches memory decoding and bus mastering on.
    pub fn enable(&self) {
        let command: u16 = self.read(COMMAND);
        self.write(COMMAND, command | MEMORY_SPACE | BUS_MASTER);
    }

    pub fn decode_memory(&self, on: bool) {
        let command: u16 = self.read(COMMAND);
        self.write(
            COMMAND,
            if on {
                command | MEMORY_SPACE
            } else {
                command & !MEMORY_SPACE
            },
        );
    }

    /// The address of a memory BAR, mapped; `None` if it is not one.
    pub fn bar(&self, index: u8) -> Option<u64> {
        let register = BARS + 4 * u64::from(index);
        let low: u32 = self.read(register);
        if low & BAR_IS_PORT != 0 || index > 5 {
            return None;
        }
        let mut address = self.bar_address(index);
        if address == 0 {
            address = UNASSIGNED_BARS + self.slot * UNASSIGNED_STRIDE + u64::from(index) * 0x2_0000;
            self.set_bar_address(index, address);
        }
        memory::map(address, self.bar_size(index)?);
        Some(address)
    }

    fn is_64_bit(&self, index: u8) -> bool {
        self.read::<u32>(BARS + 4 * u64::from(index)) & BAR_IS_64_BIT != 0
    }

    pub fn bar_address(&self, index: u8) -> u64 {
        let register = BARS + 4 * u64::from(index);
        let high = if self.is_64_bit(index) {
            self.read::<u32>(register + 4)
        } else {
            0
        };
        (u64::from(high) << 32 | u64::from(self.read::<u32>(register))) & !BAR_FLAGS
    }

    pub fn set_bar_address(&self, index: u8, address: u64) {
        let register = BARS + 4 * u64::from(index);
        if self.is_64_bit(index) {
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(register, address as u32);
    }

    /// Bytes; `None` for a register without a BAR.
    pub fn bar_size(&self, index: u8) -> Option<u64> {
        let register = BARS + 4 * u64::from(index);
        let is_64_bit = self.is_64_bit(index);
        let command: u16 = self.read(COMMAND);
        self.write(COMMAND, command & !MEMORY_SPACE);
        let low = u64::from(self.size_register(register)) & !BAR_FLAGS;
        let high = if is_64_bit {
            self.size_register(register + 4)
        } else {
            u32::MAX
        };
        self.write(COMMAND, command);
        (low != 0).then(|| (u64::from(high) << 32 | low).wrapping_neg())
    }

    /// One half after the other, as Linux does it: there are monitors that know no other way.
    fn size_register(&self, register: u64) -> u32 {
        let before: u32 = self.read(register);
        self.write(register, u32::MAX);
        let mask = self.read(register);
        self.write(register, before);
        mask
    }
}
