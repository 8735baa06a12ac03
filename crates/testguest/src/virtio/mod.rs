//! A virtio driver over PCI, as far as any device needs one. Virtio 1.2, sections 2, 3 and 4.1.

pub mod block;
pub mod net;
pub mod ring;
pub mod vsock;

use crate::cpu::{self, Word, read, write};
use crate::pci::Function;
use crate::report::Outcome;
use crate::{ensure, same};
use ring::Ring;

pub const VENDOR: u16 = 0x1af4;
/// Devices that old drivers know too; their type is the subsystem.
const TRANSITIONAL_DEVICES: core::ops::Range<u16> = 0x1000..0x1040;
const FIRST_MODERN_DEVICE: u16 = 0x1040;
const SUBSYSTEM: u64 = 0x2e;

/// Device types.
pub const NET: u16 = 1;
pub const BLOCK: u16 = 2;
pub const RNG: u16 = 4;
pub const BALLOON: u16 = 5;
pub const VSOCK: u16 = 19;

/// Bits of the status register.
pub mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
}
use status::*;

/// Features that all devices share.
pub mod feature {
    pub const INDIRECT: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
}

/// Offsets of the common configuration registers.
pub mod register {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const STATUS: u64 = 0x14;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESCRIPTORS: u64 = 0x20;
    pub const QUEUE_AVAILABLE: u64 = 0x28;
    pub const QUEUE_USED: u64 = 0x30;
    /// Bytes of them all.
    pub const END: u64 = 0x38;
}
use register::*;

pub const NO_VECTOR: u16 = 0xffff;
/// The vector of configuration changes, as [`Device::enable_msix`] sets it.
pub const CONFIG_INTERRUPT: u16 = 0;

const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;
/// The MSI-X control word, from its capability on, and its bits.
pub const MSIX_CONTROL: u64 = 2;
pub const MSIX_ENABLE: u16 = 1 << 15;
pub const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// Seconds that a device has for anything.
pub const PATIENCE: u64 = 10;

/// A virtio function, found by its capabilities.
#[derive(Clone, Copy)]
pub struct Device {
    pub function: Function,
    pub kind: u16,
    /// Addresses of the structures in memory.
    pub common: u64,
    pub isr: u64,
    pub config: u64,
    notify: u64,
    notify_multiplier: u32,
    /// Offsets in configuration space of MSI-X and of the window to the BARs.
    pub msix: u64,
    pub window: u64,
    pub msix_table: u64,
    pub msix_pending: u64,
    pub vectors: u16,
}

impl Device {
    /// `None`: it is no virtio device, or lacks a structure.
    pub fn probe(function: Function) -> Option<Self> {
        let (vendor, device) = function.id();
        if vendor != VENDOR {
            return None;
        }
        let mut found = Self {
            function,
            kind: if TRANSITIONAL_DEVICES.contains(&device) {
                function.read(SUBSYSTEM)
            } else {
                device.checked_sub(FIRST_MODERN_DEVICE)?
            },
            common: 0,
            isr: 0,
            config: 0,
            notify: 0,
            notify_multiplier: 0,
            msix: 0,
            window: 0,
            msix_table: 0,
            msix_pending: 0,
            vectors: 0,
        };
        function.enable();
        for (id, at) in function.capabilities() {
            match id {
                CAPABILITY_VENDOR => found.add_structure(at)?,
                CAPABILITY_MSIX => found.add_msix(at)?,
                _ => {}
            }
        }
        (found.common != 0 && found.notify != 0 && found.msix != 0).then_some(found)
    }

    fn add_structure(&mut self, at: u64) -> Option<()> {
        let kind: u8 = self.function.read(at + 3);
        let bar: u8 = self.function.read(at + 4);
        let offset = u64::from(self.function.read::<u32>(at + 8));
        let place = match kind {
            1 => &mut self.common,
            2 => {
                self.notify_multiplier = self.function.read(at + 16);
                &mut self.notify
            }
            3 => &mut self.isr,
            4 => &mut self.config,
            5 => {
                self.window = at;
                return Some(());
            }
            _ => return Some(()),
        };
        // The first of a kind is the preferred one.
        if *place == 0 {
            *place = self.function.bar(bar)? + offset;
        }
        Some(())
    }

    fn add_msix(&mut self, at: u64) -> Option<()> {
        let function = self.function;
        let place = |register: u32| {
            let bar = function.bar((register & 7) as u8)?;
            Some(bar + u64::from(register & !7))
        };
        self.msix = at;
        self.msix_table = place(function.read(at + 4))?;
        self.msix_pending = place(function.read(at + 8))?;
        self.vectors = (function.read::<u16>(at + MSIX_CONTROL) & 0x7ff) + 1;
        Some(())
    }

    /// Reads a common configuration register.
    pub fn get<T: Word>(&self, register: u64) -> T {
        read(self.common + register)
    }

    pub fn set<T: Word>(&self, register: u64, value: T) {
        write(self.common + register, value);
    }

    /// Reads the device's own configuration space.
    pub fn config<T: Word>(&self, offset: u64) -> T {
        read(self.config + offset)
    }

    pub fn status(&self) -> u8 {
        self.get(STATUS)
    }

    pub fn add_status(&self, bits: u8) {
        self.set(STATUS, self.status() | bits);
    }

    pub fn reset(&self) -> Outcome {
        self.set(STATUS, 0u8);
        let done = cpu::wait_for(PATIENCE, || self.status() == 0);
        ensure!(done, "after a reset the status is {:#x}", self.status());
        Ok(())
    }

    pub fn offered(&self) -> u64 {
        (0..2u32).fold(0, |features, window| {
            self.set(DEVICE_FEATURE_SELECT, window);
            features | u64::from(self.get::<u32>(DEVICE_FEATURE)) << (32 * window)
        })
    }

    pub fn accept(&self, features: u64) {
        for window in 0..2u32 {
            self.set(DRIVER_FEATURE_SELECT, window);
            self.set(DRIVER_FEATURE, (features >> (32 * window)) as u32);
        }
    }

    /// From reset to FEATURES_OK, with the offered features that are in `wanted`. Returns those.
    pub fn negotiate(&self, wanted: u64) -> Outcome<u64> {
        self.reset()?;
        self.set(STATUS, ACKNOWLEDGE);
        self.set(STATUS, ACKNOWLEDGE | DRIVER);
        let features = self.offered() & wanted;
        self.accept(features);
        let status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
        self.set(STATUS, status);
        same!(self.status(), status, "status after FEATURES_OK");
        Ok(features)
    }

    /// Negotiates the offered features that are in `wanted`, and makes and enables rings of at most `size` for the
    /// first queues.
    pub fn start<const QUEUES: usize>(&self, wanted: u64, size: u16) -> Outcome<[Ring; QUEUES]> {
        let features = self.negotiate(wanted)?;
        self.enable_msix();
        let rings = core::array::from_fn(|queue| {
            let queue = queue as u16;
            Ring::new(self, queue, size.min(self.queue_size(queue)), features)
        });
        for ring in &rings {
            ring.enable(self);
        }
        let status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        self.set(STATUS, status);
        same!(self.status(), status, "status after DRIVER_OK");
        Ok(rings)
    }

    /// As [`Self::start`], with rings of 16 for all queues, of which it returns one.
    pub fn start_for(&self, wanted: u64, queue: u16) -> Outcome<Ring> {
        const SIZE: u16 = 16;
        let features = self.negotiate(wanted)?;
        self.enable_msix();
        let ring = Ring::new(self, queue, SIZE, features);
        ring.enable(self);
        for other in (0..self.queues()).filter(|&other| other != queue) {
            Ring::new(self, other, SIZE, features).enable(self);
        }
        self.add_status(DRIVER_OK);
        Ok(ring)
    }

    /// Queues that the device looks at when they are rung, and not only when it has something for the guest.
    pub fn eager_queues(&self) -> impl Iterator<Item = u16> {
        const VSOCK_TX: u16 = 1;
        let all = self.kind != VSOCK;
        (0..self.queues()).filter(move |&queue| all || queue == VSOCK_TX)
    }

    /// Routes every vector to an interrupt of its own, unmasked; [`CONFIG_INTERRUPT`] tells configuration changes.
    pub fn enable_msix(&self) {
        for vector in 0..self.vectors.min(cpu::DEVICE_VECTORS.into()) {
            self.set_vector(vector, cpu::LOCAL_APIC, interrupt_of(vector).into());
            self.mask_vector(vector, false);
        }
        self.function.write(self.msix + MSIX_CONTROL, MSIX_ENABLE);
        self.set(CONFIG_VECTOR, CONFIG_INTERRUPT);
    }

    /// Where the vector's message goes, and what it says.
    pub fn set_vector(&self, vector: u16, address: u64, data: u32) {
        let entry = self.msix_table + 16 * u64::from(vector);
        write(entry, address as u32);
        write(entry + 4, (address >> 32) as u32);
        write(entry + 8, data);
    }

    pub fn mask_vector(&self, vector: u16, masked: bool) {
        write(self.msix_table + 16 * u64::from(vector) + 12, u32::from(masked));
    }

    pub fn is_pending(&self, vector: u16) -> bool {
        let word: u64 = read(self.msix_pending + 8 * u64::from(vector / 64));
        word >> (vector % 64) & 1 == 1
    }

    /// How often a vector's interrupt has come since the machine started.
    pub fn interrupts(&self, vector: u16) -> u64 {
        cpu::interrupts(interrupt_of(vector))
    }

    /// The vector that [`Ring::enable`] gives to a queue.
    pub fn vector_of(&self, queue: u16) -> u16 {
        (queue + 1).min(self.vectors - 1)
    }

    pub fn queues(&self) -> u16 {
        self.get(NUM_QUEUES)
    }

    /// Selects a queue and says its size: the largest, if nobody wrote it since the reset.
    pub fn queue_size(&self, queue: u16) -> u16 {
        self.set(QUEUE_SELECT, queue);
        self.get(QUEUE_SIZE)
    }

    /// The address of a queue's doorbell.
    pub fn doorbell(&self, queue: u16) -> u64 {
        self.set(QUEUE_SELECT, queue);
        let offset: u16 = self.get(QUEUE_NOTIFY_OFF);
        self.notify + u64::from(offset) * u64::from(self.notify_multiplier)
    }

    /// Waits until the device says that it is broken, by its status and, once more than `interrupts` came, by an
    /// interrupt.
    pub fn wait_needs_reset(&self, interrupts: u64) -> Outcome {
        let said = cpu::wait_for(PATIENCE, || self.interrupts(CONFIG_INTERRUPT) > interrupts);
        let status = self.status();
        ensure!(
            status & NEEDS_RESET != 0,
            "status {status:#x} without NEEDS_RESET"
        );
        ensure!(said, "no interrupt tells of NEEDS_RESET");
        Ok(())
    }
}

/// The interrupt of an MSI-X vector.
pub fn interrupt_of(vector: u16) -> u8 {
    cpu::FIRST_DEVICE_VECTOR + vector as u8 % cpu::DEVICE_VECTORS
}
