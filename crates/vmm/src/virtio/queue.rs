//! A virtqueue as its worker holds it: the split ring, its doorbell and its interrupt. Virtio 1.2, section 2.7.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};
use vmm_sys_util::eventfd::EventFd;

use super::GuestMemory;
use super::chain::{Chain, Malformed};
use super::interrupt::QueueInterrupt;

/// Why a queue cannot be served any more.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The available index jumped, or the rings are not in guest memory.
    #[error("virtqueue {index}: the ring is broken: {source}")]
    Ring { index: u16, source: virtio_queue::Error },
    #[error("virtqueue {index}: {source}")]
    Malformed { index: u16, source: Malformed },
}

/// The registers of a queue that the driver wrote, not yet checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    pub(super) fn validate(&self, max_size: u16, memory: &GuestMemory) -> Result<Queue, InvalidQueue> {
        let invalid_size = |_| InvalidQueue::Size(self.size);
        let mut queue = Queue::new(max_size).map_err(invalid_size)?;
        queue.try_set_size(self.size).map_err(invalid_size)?;
        let size = usize::from(self.size);
        let areas = [
            ("descriptor table", self.descriptor_table, 16, 16 * size),
            ("available ring", self.available_ring, 2, 6 + 2 * size),
            ("used ring", self.used_ring, 4, 6 + 8 * size),
        ];
        for (area, address, alignment, len) in areas {
            if !address.is_multiple_of(alignment) {
                return Err(InvalidQueue::Alignment {
                    area,
                    address,
                    alignment,
                });
            }
            // Address 0 is what a driver leaves that never set it, and `virtio-queue`'s mark of a reset queue.
            let inside = memory.check_range(GuestAddress(address), len, Permissions::ReadWrite);
            if address == 0 || !inside {
                return Err(InvalidQueue::OutsideMemory { area, address });
            }
        }
        let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        let (low, high) = halves(self.descriptor_table);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(self.available_ring);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(self.used_ring);
        queue.set_used_ring_address(low, high);
        queue.set_ready(true);
        Ok(queue)
    }
}

/// A running virtqueue, owned by one worker.
pub struct Virtqueue {
    index: u16,
    queue: Queue,
    memory: GuestMemory,
    interrupt: QueueInterrupt,
    doorbell: EventFd,
    /// Chains were completed since the last [`Self::notify`].
    completed: bool,
}

impl Virtqueue {
    pub(super) fn new(
        index: u16,
        queue: Queue,
        memory: GuestMemory,
        interrupt: QueueInterrupt,
        doorbell: EventFd,
    ) -> Self {
        Self {
            index,
            queue,
            memory,
            interrupt,
            doorbell,
            completed: false,
        }
    }

    /// The queue's number within its device.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Entries of the ring.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Takes the next available chain into `chain`; false if there is none.
    ///
    /// # Errors
    /// The ring or the chain breaks the rules.
    pub fn pop(&mut self, chain: &mut Chain, max_descriptors: usize) -> Result<bool, QueueError> {
        let mut available = self.queue.iter(&self.memory).map_err(ring_error(self.index))?;
        match available.next() {
            Some(descriptors) => chain
                .parse(descriptors, &self.memory, max_descriptors)
                .map(|()| true)
                .map_err(|source| self.malformed(source)),
            None => Ok(false),
        }
    }

    /// Puts the chain of the last [`Self::pop`] back, unserved.
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives `chain` back to the driver, with the first `written` bytes of its writable buffers filled.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn complete(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        self.completed = true;
        chain.writable.mark_written(&self.memory, written);
        self.queue
            .add_used(&self.memory, chain.head, written)
            .map_err(ring_error(self.index))
    }

    /// Interrupts the driver once for all chains completed since the last call, if it wants to know.
    ///
    /// # Errors
    /// The rings cannot be read.
    pub fn notify(&mut self) -> Result<(), QueueError> {
        if std::mem::take(&mut self.completed) && self.driver_wants_interrupt()? {
            self.interrupt.signal();
        }
        Ok(())
    }

    /// Asks the driver to ring the doorbell for the next chain. True: there are chains already, the caller must
    /// look again before it sleeps.
    ///
    /// # Errors
    /// The rings cannot be accessed.
    pub fn enable_doorbell(&mut self) -> Result<bool, QueueError> {
        self.queue
            .enable_notification(&self.memory)
            .map_err(ring_error(self.index))
    }

    /// Tells the driver that the doorbell is not needed now.
    ///
    /// # Errors
    /// The rings cannot be written.
    pub fn disable_doorbell(&mut self) -> Result<(), QueueError> {
        self.queue
            .disable_notification(&self.memory)
            .map_err(ring_error(self.index))
    }

    /// Forgets rings of the doorbell so far; call it after waking up and before looking for chains.
    pub fn silence_doorbell(&self) {
        // That it had not been rung is no error, and an event counter has no other.
        let _ = self.doorbell.read();
    }

    /// Names this queue in an error about a request.
    #[must_use]
    pub fn malformed(&self, source: Malformed) -> QueueError {
        QueueError::Malformed {
            index: self.index,
            source,
        }
    }

    fn driver_wants_interrupt(&mut self) -> Result<bool, QueueError> {
        let index = self.index;
        if self.queue.event_idx_enabled() {
            return self
                .queue
                .needs_notification(&self.memory)
                .map_err(ring_error(index));
        }
        // The flags are read after the used index is visible, or a driver that has just re-enabled interrupts
        // and seen an empty ring would wait for ever.
        std::sync::atomic::fence(Ordering::SeqCst);
        let flags: u16 = self
            .memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(virtio_queue::Error::GuestMemory)
            .map_err(ring_error(index))?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }
}

impl AsRawFd for Virtqueue {
    /// The doorbell, to wait for.
    fn as_raw_fd(&self) -> RawFd {
        self.doorbell.as_raw_fd()
    }
}

fn ring_error(index: u16) -> impl Fn(virtio_queue::Error) -> QueueError {
    move |source| QueueError::Ring { index, source }
}
