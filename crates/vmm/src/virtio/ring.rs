//! The three areas of a split virtqueue, as host memory. Virtio 1.2, section 2.7.
//!
//! Where they are is looked up and checked once: when the driver sets `DRIVER_OK`, and again in each process that
//! goes on with a snapshot. A driver may not move them before it resets the device (2.7, 4.1.4.3.2), RAM is
//! mapped once for the life of the machine, and a [`Ring`] keeps it mapped; so an access is a load or a store
//! and nothing else. Guest and device share the areas without a lock: what is in them is read once, into a
//! value of our own, and never trusted.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use super::GuestMemory;
use crate::memory::{host_range, mark_written};

/// Flags and index come before the elements of the available and of the used ring.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ELEMENTS: usize = 4;
const AVAILABLE_ELEMENT_LEN: usize = 2;
const USED_ELEMENT_LEN: usize = 8;
pub(super) const DESCRIPTOR_LEN: usize = 16;

/// The registers of a queue that the driver wrote, not yet checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueAddresses {
    pub(super) size: u16,
    pub(super) descriptor_table: u64,
    pub(super) available_ring: u64,
    pub(super) used_ring: u64,
}

/// Why a driver's queue was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidQueue {
    #[error("queue size {0} is no power of two up to the maximum")]
    Size(u16),
    #[error("the {area} at {address:#x} is not aligned to {alignment} bytes")]
    Alignment {
        area: &'static str,
        address: u64,
        alignment: u64,
    },
    #[error("the {area} at {address:#x} is not in guest memory")]
    OutsideMemory { area: &'static str, address: u64 },
}

impl QueueAddresses {
    /// Checks size, alignment (2.7) and that all three areas lie in guest memory, their event fields included.
    pub(super) fn validate(&self, max_size: u16, memory: &GuestMemory) -> Result<Ring, InvalidQueue> {
        if !self.size.is_power_of_two() || self.size > max_size {
            return Err(InvalidQueue::Size(self.size));
        }
        let size = usize::from(self.size);
        let area = |area, address: u64, alignment: u64, len| {
            if !address.is_multiple_of(alignment) {
                return Err(InvalidQueue::Alignment {
                    area,
                    address,
                    alignment,
                });
            }
            // Address 0 is what a driver leaves that never set it.
            host_range(memory, GuestAddress(address), len)
                .filter(|_| address != 0)
                .ok_or(InvalidQueue::OutsideMemory { area, address })
        };
        let used_len = ELEMENTS + USED_ELEMENT_LEN * size + 2;
        Ok(Ring {
            size: self.size,
            descriptors: area(
                "descriptor table",
                self.descriptor_table,
                16,
                DESCRIPTOR_LEN * size,
            )?,
            available: area(
                "available ring",
                self.available_ring,
                2,
                ELEMENTS + AVAILABLE_ELEMENT_LEN * size + 2,
            )?,
            used: area("used ring", self.used_ring, 4, used_len)?,
            used_address: GuestAddress(self.used_ring),
            used_len,
            memory: memory.clone(),
        })
    }
}

/// A descriptor as it was read (2.7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// Descriptors that chains are made of: a queue's, or the indirect ones of one chain (2.7.5.3).
#[derive(Clone, Copy)]
pub(super) struct Table<'m> {
    first: NonNull<u8>,
    len: u16,
    /// Keeps them mapped.
    _memory: &'m GuestMemory,
}

impl<'m> Table<'m> {
    /// `len` descriptors at `address`, if that is guest memory. It need not be aligned (2.7.5.3.1).
    pub(super) fn indirect(memory: &'m GuestMemory, address: u64, len: u16) -> Option<Self> {
        let first = host_range(memory, GuestAddress(address), DESCRIPTOR_LEN * usize::from(len))?;
        Some(Self {
            first,
            len,
            _memory: memory,
        })
    }

    pub(super) fn len(&self) -> u16 {
        self.len
    }

    pub(super) fn get(&self, index: u16) -> Option<Descriptor> {
        if index >= self.len {
            return None;
        }
        // SAFETY: the table's memory is mapped and holds `len` descriptors. Bytes have no alignment, and any are valid;
        // volatile, for the guest may write them meanwhile.
        let bytes = unsafe {
            let at = self.first.add(DESCRIPTOR_LEN * usize::from(index));
            at.cast::<[u8; DESCRIPTOR_LEN]>().read_volatile()
        };
        let bytes = u128::from_le_bytes(bytes);
        Some(Descriptor {
            address: bytes as u64,
            len: (bytes >> 64) as u32,
            flags: (bytes >> 96) as u16,
            next: (bytes >> 112) as u16,
        })
    }
}

/// The areas of one queue.
pub(super) struct Ring {
    size: u16,
    descriptors: NonNull<u8>,
    available: NonNull<u8>,
    used: NonNull<u8>,
    used_address: GuestAddress,
    used_len: usize,
    /// Keeps all of it mapped.
    memory: GuestMemory,
}

// SAFETY: the pointers lead to guest memory, which every thread sees, and which `memory` keeps mapped wherever the
// ring goes.
unsafe impl Send for Ring {}

impl Ring {
    /// Entries.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    pub(super) fn table(&self) -> Table<'_> {
        Table {
            first: self.descriptors,
            len: self.size,
            _memory: &self.memory,
        }
    }

    /// How many chains the driver has made available. What it wrote before can be read after this.
    pub(super) fn available_index(&self) -> u16 {
        u16::from_le(self.available_field(INDEX).load(Ordering::Acquire))
    }

    /// The head of the chain that was made available as number `position`.
    pub(super) fn available_head(&self, position: u16) -> u16 {
        let at = ELEMENTS + AVAILABLE_ELEMENT_LEN * self.slot(position);
        u16::from_le(self.available_field(at).load(Ordering::Relaxed))
    }

    /// The flags of the available ring (2.7.6).
    pub(super) fn available_flags(&self) -> u16 {
        u16::from_le(self.available_field(FLAGS).load(Ordering::Relaxed))
    }

    /// `used_event`: the driver wants an interrupt for that used element (2.7.7).
    pub(super) fn used_event(&self) -> u16 {
        let at = ELEMENTS + AVAILABLE_ELEMENT_LEN * usize::from(self.size);
        u16::from_le(self.available_field(at).load(Ordering::Relaxed))
    }

    /// How many chains the device has used.
    pub(super) fn used_index(&self) -> u16 {
        u16::from_le(self.used_field(INDEX).load(Ordering::Acquire))
    }

    /// Writes used element number `position`, which the driver looks at once the used index has passed it.
    pub(super) fn set_used_element(&self, position: u16, head: u16, written: u32) {
        let at = ELEMENTS + USED_ELEMENT_LEN * self.slot(position);
        // SAFETY: the element lies in the used ring, which is mapped, and is aligned to 4 bytes as its halves are.
        unsafe {
            let element = self.used.add(at).cast::<u32>();
            element.write_volatile(u32::from(head).to_le());
            element.add(1).write_volatile(written.to_le());
        }
    }

    /// What was written before can be read by whoever sees this index.
    pub(super) fn set_used_index(&self, index: u16) {
        self.used_field(INDEX).store(index.to_le(), Ordering::Release);
        self.mark_used();
    }

    /// The flags of the used ring (2.7.8).
    pub(super) fn set_used_flags(&self, flags: u16) {
        self.used_field(FLAGS).store(flags.to_le(), Ordering::Relaxed);
        self.mark_used();
    }

    /// `avail_event`: the device wants the doorbell rung for that chain (2.7.10).
    pub(super) fn set_available_event(&self, position: u16) {
        let at = ELEMENTS + USED_ELEMENT_LEN * usize::from(self.size);
        self.used_field(at).store(position.to_le(), Ordering::Relaxed);
        self.mark_used();
    }

    fn slot(&self, position: u16) -> usize {
        usize::from(position % self.size)
    }

    /// The whole used ring, its few pages: nobody has to mark its parts.
    fn mark_used(&self) {
        mark_written(&self.memory, self.used_address, self.used_len);
    }

    fn available_field(&self, at: usize) -> &AtomicU16 {
        // SAFETY: all callers' offsets lie in the available ring, and are even as its address is. It is mapped as long
        // as `self` lives. That the guest changes it is what an atomic is for.
        unsafe { AtomicU16::from_ptr(self.available.add(at).cast().as_ptr()) }
    }

    fn used_field(&self, at: usize) -> &AtomicU16 {
        // SAFETY: as for the available ring.
        unsafe { AtomicU16::from_ptr(self.used.add(at).cast().as_ptr()) }
    }
}
