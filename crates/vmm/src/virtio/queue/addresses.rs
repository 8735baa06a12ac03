//! The registers of a queue, and the check that makes a queue of them.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState};
use vm_memory::GuestAddress;

use super::memory::QueueMemory;
use crate::virtio::GuestMemory;

/// The registers of a queue that the driver wrote, not yet checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::virtio) struct QueueAddresses {
    pub(in crate::virtio) size: u16,
    pub(in crate::virtio) descriptor_table: u64,
    pub(in crate::virtio) available_ring: u64,
    pub(in crate::virtio) used_ring: u64,
}

/// Why a driver's queue was refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::virtio) enum InvalidQueue {
    /// Its size is no power of two or above the maximum, or an area is not aligned (virtio 1.2, 2.7).
    #[error("a queue of {} entries at {:#x}, {:#x} and {:#x}: {source}",
        registers.size, registers.descriptor_table, registers.available_ring, registers.used_ring)]
    Registers {
        registers: QueueAddresses,
        source: virtio_queue::Error,
    },
    #[error("the {area} at {address:#x} is not in guest memory")]
    OutsideMemory { area: &'static str, address: u64 },
}

/// A queue whose size, alignment and addresses are checked, and the memory that it is in.
pub(in crate::virtio) struct ValidQueue {
    pub(super) queue: Queue,
    pub(super) memory: QueueMemory,
}

impl QueueAddresses {
    /// Checks size and alignment, and that all three areas lie in guest memory, their event fields included.
    ///
    /// # Errors
    /// One of them does not hold.
    pub(in crate::virtio) fn validate(
        &self,
        max_size: u16,
        event_idx: bool,
        memory: &GuestMemory,
    ) -> Result<ValidQueue, InvalidQueue> {
        let state = QueueState {
            max_size,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: event_idx,
            size: self.size,
            ready: true,
            desc_table: self.descriptor_table,
            avail_ring: self.available_ring,
            used_ring: self.used_ring,
        };
        let queue = Queue::try_from(state).map_err(|source| InvalidQueue::Registers {
            registers: *self,
            source,
        })?;
        let size = usize::from(self.size);
        let areas = [
            ("descriptor table", self.descriptor_table, 16 * size),
            ("available ring", self.available_ring, 6 + 2 * size),
            ("used ring", self.used_ring, 6 + 8 * size),
        ];
        let outside = |area, address| InvalidQueue::OutsideMemory { area, address };
        let memory = QueueMemory::new(memory, GuestAddress(self.used_ring))
            .ok_or(outside("used ring", self.used_ring))?;
        for (area, address, len) in areas {
            // Address 0 is what a driver leaves that never set it.
            if address == 0 || memory.slice(GuestAddress(address), len).is_err() {
                return Err(outside(area, address));
            }
        }
        Ok(ValidQueue { queue, memory })
    }
}
