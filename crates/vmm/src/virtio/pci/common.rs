//! The common configuration registers, as pure logic. Virtio 1.2, sections 2.1, 2.2, 3.1.1 and 4.1.4.3.
//!
//! It keeps what the driver wrote and says what follows from a write; the transport does it.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};

use serde::{Deserialize, Serialize};

use super::super::feature;
use super::super::queue::QueueAddresses;
use crate::snapshot::StateError;

/// "No vector": events of this kind are not signalled.
pub(super) const NO_VECTOR: u16 = 0xffff;

const ACKNOWLEDGE: u8 = VIRTIO_CONFIG_S_ACKNOWLEDGE as u8;
const DRIVER: u8 = VIRTIO_CONFIG_S_DRIVER as u8;
const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
const FAILED: u8 = VIRTIO_CONFIG_S_FAILED as u8;
const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;

/// The registers and their offsets.
mod register {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(super) const DEVICE_FEATURE: u64 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub(super) const NUM_QUEUES: u64 = 0x12;
    pub(super) const DEVICE_STATUS: u64 = 0x14;
    pub(super) const CONFIG_GENERATION: u64 = 0x15;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(super) const QUEUE_DESC: u64 = 0x20;
    pub(super) const QUEUE_DRIVER: u64 = 0x28;
    pub(super) const QUEUE_DEVICE: u64 = 0x30;
}
use register::*;

/// Bytes of the structure: up to `queue_device`, for the registers behind it belong to features not offered.
pub(super) const SIZE: u32 = 0x38;

/// What the transport has to do after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Stop the device, and only then call [`CommonConfig::reset`].
    Reset,
    Activate,
    ConfigVector(u16),
    QueueVector {
        queue: u16,
        vector: u16,
    },
    /// Check the queue's addresses; [`CommonConfig::set_enabled`] if they hold.
    EnableQueue {
        queue: u16,
    },
}

/// One queue's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueRegisters {
    pub(super) max_size: u16,
    pub(super) addresses: QueueAddresses,
    pub(super) vector: u16,
    pub(super) enabled: bool,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            addresses: QueueAddresses {
                size: max_size,
                ..QueueAddresses::default()
            },
            vector: NO_VECTOR,
            enabled: false,
        }
    }
}

/// What the device shows beside what the driver wrote.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Live {
    pub(super) needs_reset: bool,
    pub(super) config_generation: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommonConfig {
    device_features: u64,
    /// MSI-X vectors that exist.
    vectors: u16,
    device_feature_select: u32,
    driver_feature_select: u32,
    /// All windows that a driver can mean; what it sets beyond the device's 64 bits was never offered.
    driver_features: u128,
    config_vector: u16,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
}

impl CommonConfig {
    pub(super) fn new(device_features: u64, queue_sizes: &[u16], vectors: u16) -> Self {
        Self {
            device_features,
            vectors,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queues: queue_sizes.iter().copied().map(QueueRegisters::new).collect(),
        }
    }

    pub(super) fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = Self::new(self.device_features, &sizes, self.vectors);
    }

    /// Whether the driver has said `DRIVER_OK`.
    pub(super) fn is_driven(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    /// Whether a driver has written anything to the status since the reset.
    pub(super) fn has_driver(&self) -> bool {
        self.status != 0
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector
    }

    /// Takes over the registers of a device like this one.
    ///
    /// # Errors
    /// That device has other queues, or its driver has accepted what this one does not offer.
    pub(super) fn restore(&mut self, mut saved: Self) -> Result<(), StateError> {
        let max_sizes =
            |registers: &Self| -> Vec<u16> { registers.queues.iter().map(|queue| queue.max_size).collect() };
        if max_sizes(&saved) != max_sizes(self) {
            return Err(StateError::Unfit("a virtio device has other queues here".into()));
        }
        saved.device_features = self.device_features;
        saved.vectors = self.vectors;
        if saved.status & FEATURES_OK != 0 && !saved.features_hold() {
            return Err(StateError::Unfit(format!(
                "a driver has accepted the features {:#x}, of which {:#x} are offered here",
                saved.driver_features, saved.device_features
            )));
        }
        saved.config_vector = saved.vector(saved.config_vector);
        for index in 0..saved.queues.len() {
            let vector = saved.vector(saved.queues[index].vector);
            saved.queues[index].vector = vector;
        }
        *self = saved;
        Ok(())
    }

    pub(super) fn driver_features(&self) -> u64 {
        self.driver_features as u64
    }

    pub(super) fn queues(&self) -> &[QueueRegisters] {
        &self.queues
    }

    pub(super) fn set_enabled(&mut self, queue: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(queue)) {
            queue.enabled = true;
        }
    }

    /// Reads `data.len()` bytes; an access that is no whole register, or half of a 64-bit one, reads as zero.
    pub(super) fn read(&self, offset: u64, data: &mut [u8], live: Live) {
        let value = self.register(offset, data.len(), live).unwrap_or(0);
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn register(&self, offset: u64, len: usize, live: Live) -> Option<u64> {
        let value = match (offset, len) {
            (DEVICE_FEATURE_SELECT, 4) => self.device_feature_select.into(),
            (DEVICE_FEATURE, 4) => match self.device_feature_select {
                0 => self.device_features & 0xffff_ffff,
                1 => self.device_features >> 32,
                _ => 0,
            },
            (DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select.into(),
            (DRIVER_FEATURE, 4) => {
                let shift = window_shift(self.driver_feature_select)?;
                u64::from((self.driver_features >> shift) as u32)
            }
            (CONFIG_MSIX_VECTOR, 2) => self.config_vector.into(),
            (NUM_QUEUES, 2) => self.queues.len() as u64,
            (DEVICE_STATUS, 1) => u64::from(self.status | if live.needs_reset { NEEDS_RESET } else { 0 }),
            (CONFIG_GENERATION, 1) => live.config_generation.into(),
            (QUEUE_SELECT, 2) => self.queue_select.into(),
            (QUEUE_MSIX_VECTOR, 2) => self.selected().map_or(NO_VECTOR, |queue| queue.vector).into(),
            _ => return self.queue_register(offset, len),
        };
        Some(value)
    }

    /// The registers of the selected queue: a size of zero says that there is no such queue.
    fn queue_register(&self, offset: u64, len: usize) -> Option<u64> {
        let queue = self.selected()?;
        let addresses = &queue.addresses;
        match (offset, len) {
            (QUEUE_SIZE, 2) => Some(addresses.size.into()),
            (QUEUE_ENABLE, 2) => Some(queue.enabled.into()),
            (QUEUE_NOTIFY_OFF, 2) => Some(self.queue_select.into()),
            _ => {
                let half = Half::of(offset, len)?;
                let address = match half.register {
                    QUEUE_DESC => addresses.descriptor_table,
                    QUEUE_DRIVER => addresses.available_ring,
                    _ => addresses.used_ring,
                };
                Some((address & half.mask) >> half.shift)
            }
        }
    }

    /// Writes `data`; an access that is no whole register, or half of a 64-bit one, is ignored.
    #[must_use]
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let mut bytes = [0; 8];
        for (byte, value) in bytes.iter_mut().zip(data) {
            *byte = *value;
        }
        let value = u64::from_le_bytes(bytes);
        match (offset, data.len()) {
            (DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = value as u32,
            (DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = value as u32,
            (DRIVER_FEATURE, 4) => self.accept_features(value as u32),
            (CONFIG_MSIX_VECTOR, 2) => {
                self.config_vector = self.vector(value as u16);
                return Effect::ConfigVector(self.config_vector);
            }
            (DEVICE_STATUS, 1) => return self.set_status(value as u8),
            (QUEUE_SELECT, 2) => self.queue_select = value as u16,
            (QUEUE_MSIX_VECTOR, 2) => {
                let vector = self.vector(value as u16);
                let index = self.queue_select;
                if let Some(queue) = self.selected_mut() {
                    queue.vector = vector;
                    return Effect::QueueVector { queue: index, vector };
                }
            }
            (QUEUE_ENABLE, 2) => return self.enable_selected(value),
            (offset, len) => self.write_addresses(offset, len, value),
        }
        Effect::None
    }

    fn accept_features(&mut self, bits: u32) {
        // After FEATURES_OK they are settled (3.1.1).
        if self.status & FEATURES_OK == 0
            && let Some(shift) = window_shift(self.driver_feature_select)
        {
            self.driver_features &= !(u128::from(u32::MAX) << shift);
            self.driver_features |= u128::from(bits) << shift;
        }
    }

    fn set_status(&mut self, value: u8) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        // A driver sets bits and never takes one back but by a reset (2.1.1).
        let before = self.status;
        self.status |= value & (ACKNOWLEDGE | DRIVER | FAILED);
        if value & FEATURES_OK != 0 && self.status & DRIVER != 0 && self.features_hold() {
            self.status |= FEATURES_OK;
        }
        if value & DRIVER_OK != 0 && self.status & FEATURES_OK != 0 {
            self.status |= DRIVER_OK;
        }
        if self.status & DRIVER_OK != 0 && before & DRIVER_OK == 0 {
            Effect::Activate
        } else {
            Effect::None
        }
    }

    fn features_hold(&self) -> bool {
        let offered = u128::from(self.device_features);
        let version_1 = u128::from(feature(VIRTIO_F_VERSION_1));
        self.driver_features & !offered == 0 && self.driver_features & version_1 != 0
    }

    fn enable_selected(&mut self, value: u64) -> Effect {
        // A driver enables all its queues before DRIVER_OK, and disables none but by a reset (4.1.4.3.2).
        let may = value == 1 && self.may_configure();
        match self.selected() {
            Some(queue) if may && !queue.enabled => Effect::EnableQueue {
                queue: self.queue_select,
            },
            _ => Effect::None,
        }
    }

    fn write_addresses(&mut self, offset: u64, len: usize, value: u64) {
        let may = self.may_configure();
        let Some(queue) = self.selected_mut().filter(|queue| may && !queue.enabled) else {
            return;
        };
        if (offset, len) == (QUEUE_SIZE, 2) {
            queue.addresses.size = value as u16;
        } else if let Some(half) = Half::of(offset, len) {
            let address = match half.register {
                QUEUE_DESC => &mut queue.addresses.descriptor_table,
                QUEUE_DRIVER => &mut queue.addresses.available_ring,
                _ => &mut queue.addresses.used_ring,
            };
            *address = (*address & !half.mask) | (value << half.shift & half.mask);
        }
    }

    fn may_configure(&self) -> bool {
        self.status & DRIVER_OK == 0
    }

    fn vector(&self, vector: u16) -> u16 {
        if vector < self.vectors { vector } else { NO_VECTOR }
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(self.queue_select))
    }

    fn selected_mut(&mut self) -> Option<&mut QueueRegisters> {
        self.queues.get_mut(usize::from(self.queue_select))
    }
}

fn window_shift(select: u32) -> Option<u32> {
    (select < 4).then(|| select * 32)
}

/// The part of a 64-bit register that an access means.
struct Half {
    register: u64,
    mask: u64,
    shift: u32,
}

impl Half {
    fn of(offset: u64, len: usize) -> Option<Self> {
        let register = offset & !7;
        let (mask, shift) = match (offset - register, len) {
            (0, 8) => (u64::MAX, 0),
            (0, 4) => (u64::from(u32::MAX), 0),
            (4, 4) => (u64::MAX << 32, 32),
            _ => return None,
        };
        matches!(register, QUEUE_DESC | QUEUE_DRIVER | QUEUE_DEVICE).then_some(Self {
            register,
            mask,
            shift,
        })
    }
}

#[cfg(test)]
mod tests;
